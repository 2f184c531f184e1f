"""The embeddings' optimizer, whose cost follows the rows touched, and the strength of their L2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import UNKNOWN_ID
from sklearn_din.network.segments import gather_rows
from sklearn_din.training.occurrences import count_ids


class RowwiseRMSprop(torch.optim.Optimizer):
    """Adam without momentum and with one second moment per row, on the rows of the batch only.

    Row j with gradient g moves by ``lr * g / sqrt(v_j + v)``: v_j is the row's second moment
    (a moving average, from zero, of the mean square of its gradients), v that of all rows of its
    vocabulary that were in a batch. A row seen once thus moves in proportion to its gradient,
    relative to the vocabulary's typical gradient. Adam divides by the row's own moment alone and
    moves it as far as any other, so that rare ids learn noise (benchmarks/quality-results.md,
    "Rare ids"). A row whose gradients are often large is slowed down by its own moment.

    The cost of a step follows the number of distinct ids in the batch, since all other rows stay
    as they are. Gradients must be sparse and hold each row once, in ascending order, as
    :class:`sklearn_din.network.embeddings.FieldEmbeddings` makes them.

    Parameters
    ----------
    params : iterable of Tensor
        Embedding tables of shape (n_ids, dim).
    lr : float
        Learning rate: about how far a row moves whose gradient is as large as is typical of its
        vocabulary.
    beta : float, default=0.999
        Share of a second moment that is kept when a new gradient enters it.
    eps : float, default=1e-8
        Added to the denominator, against division by zero.
    starts : Tensor of shape (n_vocabularies,), int64, default=None
        First row of each vocabulary in the table, in ascending order. None: the table is one
        vocabulary.
    decay : Tensor of shape (n_ids,), default=None
        Factor of each row's mini-batch aware L2 (paper, section 5.1): ``decay[j] * w[j]`` is
        added to the gradient of each row j in the batch. None: nothing is added.

    Examples
    --------
    >>> import torch
    >>> table = torch.nn.Parameter(torch.zeros(4, 2))
    >>> optimizer = RowwiseRMSprop([table], lr=0.1)
    >>> gradient = torch.ones(1, 2)
    >>> table.grad = torch.sparse_coo_tensor([[2]], gradient, (4, 2), check_invariants=True)
    >>> optimizer.step()
    >>> [round(value, 4) for value in table[2].tolist()]
    [-0.1, -0.1]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        beta: float = 0.999,
        eps: float = 1e-8,
        starts: Tensor | None = None,
        decay: Tensor | None = None,
    ) -> None:
        options = {"lr": lr, "beta": beta, "eps": eps, "starts": starts, "decay": decay}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every row that has a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update_rows(table, table.grad, group)

    def _update_rows(self, table: Tensor, sparse: Tensor, group: dict[str, Any]) -> None:
        state, beta = self.state[table], group["beta"]
        if not state:
            starts = group["starts"]
            if starts is None:
                starts = torch.zeros(1, dtype=torch.int64, device=table.device)
            state["starts"] = starts.to(table.device)
            state["square"] = table.new_zeros(len(table))
            state["total"] = table.new_zeros(len(starts))
            state["share"] = table.new_zeros(len(starts))
        rows, gradient = sparse._indices()[0], sparse._values()
        values = gather_rows(table, rows)
        if group["decay"] is not None:
            decay = group["decay"].index_select(0, rows)
            gradient = torch.addcmul(gradient, values, decay.unsqueeze(1))
        latest = (gradient * gradient).mean(1)
        typical = _typical_square(latest, rows, state, beta)
        square = state["square"].index_select(0, rows).lerp_(latest, 1 - beta)
        state["square"].index_copy_(0, rows, square)
        denominator = square.add_(typical).sqrt_().add_(group["eps"]).unsqueeze(1)
        table.index_copy_(0, rows, values.addcdiv_(gradient, denominator, value=-group["lr"]))


def _typical_square(latest: Tensor, rows: Tensor, state: dict[str, Tensor], beta: float) -> Tensor:
    """Second moment of the vocabulary that each row belongs to: one number per row of the batch.

    For each vocabulary, ``total`` is the moving average over batches of its rows' mean square,
    zero where a batch has none of its rows, and ``share`` that of 1 and 0 for batches that have
    some and none. ``total / share`` is thus the average over the batches that have some.

    latest : (n_rows,), mean square of each row's gradient in this batch
    rows : (n_rows,), ascending
    typical : (n_rows,)
    """
    first = torch.searchsorted(rows, state["starts"])
    counts = F.pad(first, (0, 1), value=len(rows)).diff()
    # Its own checks of the counts, left out, and an unknown length of what is repeated would have
    # the host wait for a GPU.
    sums = torch.segment_reduce(latest, "sum", lengths=counts, unsafe=True)
    mean = sums / counts.clamp(min=1)
    state["total"].lerp_(mean, 1 - beta)  # zero for a vocabulary without rows here
    state["share"].lerp_((counts > 0).to(mean.dtype), 1 - beta)
    typical = state["total"] / state["share"].clamp(min=1 - beta)
    return typical.repeat_interleave(counts, output_size=len(rows))


def embedding_decay(
    occurrences: Mapping[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Factors of the mini-batch aware L2: ``strength / n_j`` for each id j.

    Parameters
    ----------
    occurrences : dict of str to ndarray of shape (n_ids,)
        By vocabulary, n_j: how often each id occurs in the training impressions.
    strength : float
        Factor of an id that occurs once.

    Returns
    -------
    decay : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary.
    """
    return {
        name: (strength / np.maximum(count, 1)).astype(np.float32)
        for name, count in occurrences.items()
    }


def count_occurrences(
    X: EncodedFeatures,
    hidden: Mapping[str, float] | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Count each id as the L2 does: as a candidate, elsewhere, and in histories (section 5.1).

    Parameters
    ----------
    X : EncodedFeatures
        The training impressions.
    hidden : dict of str to float, default=None
        By column, the share of rows of which training adds a copy with the unknown id. The counts
        are then those that are expected in one pass over the impressions.
    rows : ndarray of shape (n,), default=None
        Which of the impressions are trained on. None: all.

    Returns
    -------
    occurrences : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary.
    """
    counts = count_ids(X, rows)
    n_rows = len(X) if rows is None else len(rows)
    for column, share in (hidden or {}).items():
        counts[X.schema[column].vocabulary][UNKNOWN_ID] += share * n_rows
    return {name: count.astype(np.float32) for name, count in counts.items()}
