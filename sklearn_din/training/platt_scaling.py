"""Platt scaling: the constant and the scale by which logits of validation rows lose least.

Platt, "Probabilistic outputs for support vector machines", 1999.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch import NeuralNet
from torch import Tensor

from sklearn_din.module import DIN
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.early_stopping import SMALL_SCALE, best_check
from sklearn_din.training.target import Numbers, Target
from sklearn_din.utils.blas import one_thread_of_blas

LEAST_SPREAD = 1e-3  # of logits around the base rate's: keeps the order of rows
FIRST_SPREAD = 30.0  # of the search, which fails where most probabilities are exactly 0 or 1
MOVED = 3.3  # standard errors, by which the rate of one training in a thousand moves by chance
PRIOR_OF_SCALE = 4.0  # so much information on it, clicks times variance of logits, halves it
PRIOR_CLICKS = 16.0  # of so many later clicks, half of what they say of the rate is taken
TENTHS, FIRST = 10, 3  # parts of the rows in time, and how many come before the first move
USUAL_SHARE = 0.75  # of a move that lasts, where earlier rows say nothing of it
PRIOR_OF_SHARE = 8.0  # times the errors of earlier moves count for the usual share
TINY = 1e-9
LARGE_ODDS = 2.0  # times those of the training rows: labels may be known too soon or too late


class PlattScaling:
    """Constant and scale, label by label, of the logits z of validation rows.

    Logits become ``c + a + s (z - c)``, with c the base rate of the training rows. The scale s is
    one at most, less if rows are few, and near zero where z tells nothing: then all rows get nearly
    the same probability, in the order of z. The constant a is zero unless the rows come later and
    their base rate differs by more than chance. It gives them that rate, drawn towards ``c`` if
    they have few clicks. Of what the network's own mean lacks of the move, only ``share`` is taken:
    as much as was left later where the rate of earlier rows moved. Favours of positions, which rows
    to predict lack, are added to that.
    """

    def __init__(self, net: NeuralNet, valid: ImpressionBatches) -> None:
        self.target: Target = net.target
        self.module: DIN = net.module_
        self.y = torch.from_numpy(valid.y).double()
        self.weights = None if valid.weights is None else torch.from_numpy(valid.weights).double()
        self.rates = net.constant_, self.target.constant(valid.y, valid.weights)
        self.center, later = (  # biases of the last layer, with which all rows have these rates
            self.module.bias_of(torch.as_tensor(rate).double()).view(-1) for rate in self.rates
        )
        slopes = self._slopes(self.center)
        squares, is_later = slopes.square().sum(0), net.training_.is_later
        self.has_moved = is_later & (slopes.sum(0).abs() > MOVED * squares.sqrt())
        information = len(valid) ** 2 * squares  # that of so many clicks
        self.share = torch.ones_like(information)
        if self.has_moved.any():
            self.share = _lasting_share(net, valid, information / len(valid))
        self.distance = later - self.center
        self.move = information / (information + PRIOR_CLICKS) * self.distance

    def _slopes(self, biases: Tensor) -> Tensor:
        """Derivative of the loss by each row's biases, where all are these: (n, n_labels)."""
        of_rows = biases.repeat(len(self.y), 1).requires_grad_()
        outputs = self.module.outputs_of(of_rows.view_as(self.y))
        loss = self.target.loss(outputs, self.y, self.weights)
        return torch.autograd.grad(loss, of_rows)[0]

    def loss(self, outputs: Tensor | None = None) -> float:
        """Return the loss of such outputs; None: all rows have the base rate."""
        if outputs is None:
            outputs = self.module.outputs_of(self.center).expand_as(self.y)
        return float(self.target.loss(outputs, self.y, self.weights))

    def _slope(self, outputs: Tensor) -> Tensor:
        """Return the loss' slope by the constants, (n_labels,), at the rate to give the rows.

        However far their logits spread. What the network's own rate has moved towards it stays.
        """
        move = self.move
        if self.has_moved.any():
            predicted = outputs if isinstance(self.target, Numbers) else outputs.sigmoid()
            weights = None if self.weights is None else self.weights.numpy()
            known = torch.where(self.y.isnan(), self.y, predicted).numpy()
            rate = self.target.constant(known, weights)
            own = self.module.bias_of(torch.as_tensor(rate).double()).view(-1) - self.center
            own = own.clamp(move.clamp(max=0), move.clamp(min=0))
            move = own + self.share * (move - own)
        return self._slopes(self.center + move).sum(0)

    @one_thread_of_blas()
    def fit(self, outputs: Tensor, favours: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return constants and scales, (2, n_labels), and the outputs that have them."""
        from scipy.optimize import minimize

        center, favours = self.center, favours.view_as(outputs)
        own = self.module.bias_of(outputs - favours).view(len(outputs), -1) - center
        means = self.has_moved * own.mean(0)
        own, sizes = own - means, own.abs().amax(0).clamp(min=1.0)
        slope = self._slope(outputs)

        def scale(values: Tensor) -> Tensor:
            constants, scales = values.view(2, -1)
            biases = center + constants + scales * (own / sizes)
            return self.module.outputs_of(biases.view_as(outputs)) + favours

        def loss_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
            tensor = torch.from_numpy(values).requires_grad_()
            constants, scales = tensor.view(2, -1)
            loss = self.target.loss(scale(tensor), self.y, self.weights) - slope @ constants
            loss = loss + PRIOR_OF_SCALE / 2 / len(own) * (scales / sizes).square().sum()
            return loss.item(), torch.autograd.grad(loss, tensor)[0].numpy()

        bounds = [(None, None) if moved else (0.0, 0.0) for moved in self.has_moved.tolist()]
        bounds += [(LEAST_SPREAD, size) for size in sizes.tolist()]
        first = torch.cat([torch.zeros_like(sizes), sizes.clamp(max=FIRST_SPREAD)]).numpy()
        found = torch.from_numpy(minimize(loss_and_slope, first, jac=True, bounds=bounds).x)
        constants, scales = found.view(2, -1)
        scales = scales / sizes
        return torch.stack([constants - scales * means, scales]).numpy(), scale(found)

    def describe(self) -> str:
        """Return which base rate has moved, and what follows, as a message."""
        before, now = map(self.target.describe, self.rates)
        shares = ", ".join(f"{share:.0%}" for share in self.share[self.has_moved].tolist())
        advice = (
            "If it keeps changing, refit or update often, or add a column that explains it "
            "(attach_aggregates)."
        )
        is_large = self.has_moved & (self.distance.abs() > np.log(LARGE_ODDS))
        if not isinstance(self.target, Numbers) and is_large.any():
            sooner = int(self.distance[is_large][0] > 0)
            advice = (
                f"Are labels of {sooner} known sooner than those of {1 - sooner}? Then leave out "
                "the newest rows, of which not all labels are known (TimeSplit(known=))."
            )
        return (
            f"the {self.target.what_constant_is} changed: {before} in the training rows, {now} in "
            f"the newest validation rows. Predictions are shifted by {shares} of the difference "
            f"that they leave, as much as earlier changes lasted. {advice}"
        )


def _lasting_share(net: NeuralNet, valid: ImpressionBatches, information: Tensor) -> Tensor:
    """Return how much of a move of the newest rows' rate is left later, by label: (n_labels,).

    Of the rows in time, the biases of the fourth to ninth tenth differ by m from the bias of all
    rows up to their ends, and the means of the next two tenths by n. The share that would have been
    best is ``sum(m n) / sum(m^2)``; the squared errors of m draw it towards the usual share.

    information : that of one row on its bias, (n_labels,)
    """
    both, target = (net.training_.train, valid), net.target
    y = np.concatenate([part.y for part in both])
    weights = None if valid.weights is None else np.concatenate([part.weights for part in both])
    in_time, times = np.arange(len(y)), valid.X.times
    if times is not None:
        in_time = np.argsort(times[np.concatenate([part.rows for part in both])], kind="stable")
    tenths = np.array_split(in_time, TENTHS)

    def bias(rows: np.ndarray) -> np.ndarray:
        rate = target.constant(y[rows], None if weights is None else weights[rows])
        biases = net.module_.bias_of(torch.as_tensor(rate).double()).view(-1).numpy()
        return np.where(np.isnan(y[rows]).all(0), np.nan, biases)  # NaN: no label is known

    biases, sums = [bias(tenth) for tenth in tenths], np.zeros((2, len(information)))
    for number in range(FIRST, TENTHS - 1):
        base = bias(np.concatenate(tenths[: number + 1]))
        move, rest = biases[number] - base, np.mean(biases[number + 1 : number + 3], 0) - base
        sums += np.where(np.isnan(move * rest), 0, [move * rest, move * move])
    errors = (TENTHS - 1 - FIRST) / (information.numpy() * len(y) / TENTHS + TINY)
    prior = PRIOR_OF_SHARE * errors
    return torch.from_numpy(np.clip((sums[0] + USUAL_SHARE * prior) / (sums[1] + prior), 0, 1))


@torch.no_grad()
def scale_output(module: DIN, center: ArrayLike, constants: ArrayLike, scales: ArrayLike) -> None:
    """Give the logits of a network constants and scales, by its last layer and its offset."""
    weight, bias = module.output.weight, module.output.bias
    constant, scale, center = (torch.as_tensor(t).to(bias) for t in (constants, scales, center))
    weight.mul_(scale[:, None])
    bias.mul_(scale).add_((1 - scale) * center + constant)
    if module.offset_column is not None:
        module.offset_scale.mul_(scale[0])


@contextmanager
def without_scale(net: NeuralNet) -> Iterator[None]:
    """Train weights without the kept check's scale, to which the optimizer's moments belong.

    Where next to nothing was learnt, training goes on from the scaled weights.
    """
    check = best_check(net.checks_)
    if check is None or max(check["scales"]) < SMALL_SCALE:
        yield
        return
    center, scales = np.add(check["centers"], check["constants"]), np.array(check["scales"])
    scale_output(net.module_, center, 0 * scales, 1 / scales)
    try:
        yield
    finally:
        scale_output(net.module_, center, 0 * scales, scales)
