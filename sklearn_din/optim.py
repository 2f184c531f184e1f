"""Optimizers whose cost follows the rows touched, not the size of the table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sklearn_din.layers import gather_rows


class RowwiseAdam(torch.optim.Optimizer):
    """Adam on the rows that the batch touched; all other rows and their moments rest.

    A dense Adam keeps moving a row long after its id was seen once, and its cost is the table's.
    Here a step costs what the batch's distinct ids cost. Gradients must be sparse and hold each
    row once, as :class:`sklearn_din.module.FieldEmbeddings` makes them.

    Parameters
    ----------
    params : iterable of Tensor
        Tables of shape (n_ids, dim).
    lr : float
        Learning rate.
    betas : tuple of float, default=(0.9, 0.999)
        Decay of the first and second moment.
    eps : float, default=1e-8
        Added to the denominator.
    decay : Tensor of shape (n_ids,), default=None
        Factor of each row's own mini-batch aware L2 (paper, section 5.1): ``decay[j] * w[j]``
        is added to the gradient of each row j in the batch.

    Examples
    --------
    >>> import torch
    >>> table = torch.nn.Parameter(torch.zeros(4, 2))
    >>> optimizer = RowwiseAdam([table], lr=0.1)
    >>> gradient = torch.ones(1, 2)
    >>> table.grad = torch.sparse_coo_tensor([[2]], gradient, (4, 2), check_invariants=True)
    >>> optimizer.step()
    >>> [round(value, 4) for value in table[2].tolist()]
    [-0.1, -0.1]
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay: Tensor | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every row that has a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update_rows(table, group)

    def _update_rows(self, table: Any, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(table)
            state["square"] = torch.zeros_like(table)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        rows, gradient = table.grad._indices()[0], table.grad._values()
        values = gather_rows(table, rows)
        if group["decay"] is not None:
            gradient = torch.addcmul(gradient, values, group["decay"][rows, None])
        mean = gather_rows(state["mean"], rows).lerp_(gradient, 1 - beta1)
        square = gather_rows(state["square"], rows).mul_(beta2)
        square.addcmul_(gradient, gradient, value=1 - beta2)
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        correction = (1 - beta2 ** state["step"]) ** 0.5
        size = group["lr"] * correction / (1 - beta1 ** state["step"])
        denominator = square.sqrt_().add_(group["eps"] * correction)
        table.index_copy_(0, rows, values.addcdiv_(mean, denominator, value=-size))
