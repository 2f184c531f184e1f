"""A base rate that moved from the training rows to later validation rows, and logits with it."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import unwrap
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from sklearn_din.module import DIN
from sklearn_din.training.target import Output, Target

BY_CHANCE = 0.001  # how often one of a training's checks ranks rows, and there is nothing to learn
TINY = 1e-12


def errors_by_chance(n_tries: int) -> float:
    """Return the standard errors that chance seldom exceeds in any of so many tries.

    >>> [round(errors_by_chance(n_tries), 2) for n_tries in (1, 10, 80)]
    [3.09, 3.72, 4.21]
    """
    return NormalDist().inv_cdf(1 - BY_CHANCE / n_tries)


class _LBFGS(torch.optim.LBFGS):
    """As torch's, but not wrapped for torch.compile, whose import takes over a second."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


@dataclass(frozen=True, eq=False)
class MovedRate:
    """The base rate of validation rows, which differs from that of the training rows.

    Log-odds, or numbers, are ``earlier`` and ``constant``; ``loss`` is that of ``constant``, and
    ``pull`` its derivative by the output of each row, with the sign turned.

    >>> from sklearn_din.training.target import Click
    >>> y = np.repeat([0, 1], 500).astype(np.float32)
    >>> moved = MovedRate.find(Click(), 0.3, y, None)
    >>> round(moved.loss, 4), bool((moved.pull > 0).numpy()[-1])
    (0.6931, True)
    >>> MovedRate.find(Click(), 0.1, y, None)  # by 1.6 standard errors
    """

    target: Target
    earlier: Output
    constant: Output
    loss: float
    pull: Tensor
    y: Tensor
    weights: Tensor | None

    @classmethod
    def find(
        cls, target: Target, earlier: Output, y: np.ndarray, weights: np.ndarray | None
    ) -> MovedRate | None:
        """Return the base rate of validation rows; None where it differs by no more than chance."""
        labels = torch.from_numpy(y).double()
        factors = None if weights is None else torch.from_numpy(weights).double()

        def loss_and_pull(constant: Output) -> tuple[Tensor, Tensor]:
            outputs = (torch.zeros_like(labels) + torch.as_tensor(constant)).requires_grad_()
            loss = target.loss(outputs, labels, factors)
            return loss, -torch.autograd.grad(loss, outputs)[0]

        pull = loss_and_pull(earlier)[1]
        errors = pull.sum(0).abs() / pull.square().sum(0).sqrt().clamp(min=TINY)
        if errors.max() <= errors_by_chance(2 * errors.numel()):
            return None
        constant = target.constant(y, weights)
        loss, pull = loss_and_pull(constant)
        return cls(target, earlier, constant, loss.item(), pull, labels, factors)

    def move(self, module: DIN, outputs: Tensor) -> tuple[Tensor, float, float]:
        """Return what to add to the last bias to make the loss smallest, that loss, ``errors_of``.

        The constant is the same for all rows.
        """
        outputs = outputs.detach().cpu().double()
        biases = module.bias_of(outputs)
        added = torch.zeros(self.y.shape[1:], dtype=torch.float64, requires_grad=True)
        optimizer = _LBFGS([added], max_iter=100, line_search_fn="strong_wolfe")

        def loss_when_moved() -> Tensor:
            added.grad = None
            loss = self.target.loss(module.outputs_of(biases + added), self.y, self.weights)
            loss.backward()
            return loss

        optimizer.step(loss_when_moved)
        return added.detach(), loss_when_moved().item(), self.errors_of(outputs)

    def errors_of(self, outputs: Tensor) -> float:
        """Return by how many standard errors outputs rank rows better than chance, as an AUC does.

        That is their covariance with ``pull``, whatever their scale.
        """
        products = (self.pull * (outputs - outputs.mean(0))).view(len(self.y), -1).sum(1)
        return (products.sum() / products.norm().clamp(min=TINY)).item()

    def describe(self) -> str:
        """Return what moved, and what follows, as a message."""
        rates = [self.target.describe(rate) for rate in (self.earlier, self.constant)]
        return (
            f"the {self.target.what_constant_is} moved from {rates[0]} in the training rows to "
            f"{rates[1]} in the later validation rows: early stopping compares, and fit keeps, "
            "outputs moved by a constant to the later rows. If it keeps moving, fit or update "
            "often, and give columns that tell it (attach_aggregates)."
        )
