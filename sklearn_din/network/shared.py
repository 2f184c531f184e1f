"""The activation unit for candidates that share one history: few products for all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.network.fused import (
    can_fuse,
    layer_parameters,
    rectify,
    rectify_layers,
    slopes_of,
)
from sklearn_din.network.interest import DECAYS
from sklearn_din.network.layers import ActivationUnit

SCORES_PER_BLOCK = 1 << 21  # 8 MiB, few calls
N_LENGTHS = 16  # of histories, for which what follows from their length is kept
LAST_LAYER = 3  # slope, weight and bias, of a unit with one hidden layer


class Runs(NamedTuple):
    """Candidates in the order of one of their ids: runs of the same id.

    attribute : the number of the id's attribute among those that are compared
    columns : where the id's embedding stands in that of a candidate
    bounds : where each run begins, and where the last one ends
    pairs : the runs and the events that have their id
    """

    attribute: int
    columns: slice
    bounds: list[int]
    pairs: Pairs


class Pairs(NamedTuple):
    """Candidates and events that have something in common, in the order of the candidates.

    shape : how many candidates, attributes and events there are
    places : (n_pairs,), int64, the candidate and attribute: candidate * n_attributes + attribute
    events : (n_pairs,), int64
    values : (n_pairs, 1), how like they are, or None where they are the same
    """

    shape: torch.Size
    places: Tensor
    events: Tensor
    values: Tensor | None

    @classmethod
    def find(cls, likeness: Tensor) -> Pairs:
        """Find the pairs that are not zero.

        likeness : (n_rows, n_attributes, n_events), bool, or float from 0 to 1
        """
        flat = likeness.flatten()
        at = flat.nonzero().squeeze(1)
        values = flat[at].unsqueeze(1) if flat.is_floating_point() else None
        n_events = max(likeness.shape[2], 1)
        return cls(likeness.shape, at // n_events, at % n_events, values)

    def sum_by_row(self, values: Tensor) -> Tensor:
        """Return sums of what the events have: (n_rows, n_attributes, width).

        values : (n_events, width)
        """
        n_rows, n_attributes, _ = self.shape
        sums = values.new_zeros(n_rows * n_attributes, values.shape[1])
        sums.index_add_(0, self.places, self._read(values, self.events))
        return sums.view(n_rows, n_attributes, values.shape[1])

    def read(self, of_same: Tensor) -> tuple[Tensor, Tensor]:
        """Return which scores the pairs have, by row and event, and what is added to them.

        of_same : (n_attributes * n_events, n_units)
        """
        _, n_attributes, n_events = self.shape
        rows = self.places // max(n_attributes, 1)
        attributes = self.places - rows * n_attributes
        added = self._read(of_same, attributes * n_events + self.events)
        return rows * n_events + self.events, added

    def _read(self, values: Tensor, at: Tensor) -> Tensor:
        of_pairs = values.index_select(0, at)
        return of_pairs if self.values is None else of_pairs.mul_(self.values)


class SharedUnit:
    """A unit that weighs the events of one history for many candidates, without gradients.

    ``Wq q + Wp (q * k)`` is ``(Wq + Wp diag(k)) q``: the bracket depends on the history alone, so
    that one product gives the first layer's scores of all events. The relations of an extended unit
    are bits (rarely True: event and candidate have the same id; of lists, how like they are), those
    bits times each of ``DECAYS`` to the power of the event's rank, and what all candidates have in
    common: the rank, and the numbers of the event.

    Parameters
    ----------
    unit : ActivationUnit
        The unit.
    n_same : int
        How many attributes have bits.
    extended : bool
        Whether it sees relations.
    """

    def __init__(self, unit: ActivationUnit, n_same: int, *, extended: bool) -> None:
        self._unit, self._above, self._extended = unit, list[Tensor](), extended
        weight_query, weight_event = unit.split_first_layer()
        self._bias: Tensor = unit.first.bias
        if can_fuse(unit):
            above = layer_parameters(unit.rest, unit.last)
            self._above = [*slopes_of([unit.first_activation]), *above]
        self._has_one = len(self._above) > LAST_LAYER
        if self._has_one:  # one unit more, which is always one, carries the next layer's bias
            weight_query, weight_event = F.pad(weight_query, (0, 1)), F.pad(weight_event, (0, 1))
            self._bias = F.pad(self._bias, (0, 1), value=1.0)
            self._second = torch.cat([self._above[1].t(), self._above[2].unsqueeze(0)])
        self._query, self.n_units = weight_query.contiguous().unsqueeze(1), len(self._bias)
        ends = [unit.width, 2 * unit.width, 2 * unit.width + n_same * len(DECAYS)]
        self._key, pair, same, self._common = weight_event.contiguous().tensor_split(ends)
        self._pair = pair.unsqueeze(1)
        self._same = same.view(len(DECAYS), n_same, self.n_units).transpose(0, 1)
        self._by_length = dict[int, tuple[Tensor, Tensor]]()

    def read(self, keys: Tensor, numbers: Sequence[Tensor]) -> OfOneHistory:
        """Read a history.

        keys : (n_events, width)
        numbers : (n_events,) each
        """
        matrix = keys.new_empty(self._unit.width + 1, keys.shape[0], self.n_units)
        torch.addcmul(self._query, keys.t().unsqueeze(2), self._pair, out=matrix[:-1])
        bias, of_same = self._of_length(keys.shape[0])
        constant = torch.addmm(bias, keys, self._key, out=matrix[-1])
        for values, weight in zip(numbers, self._common[1:], strict=True):
            constant.addr_(values, weight)
        return OfOneHistory(self, matrix, of_same)

    def _of_length(self, n_events: int) -> tuple[Tensor, Tensor]:
        """Return the same as ``_read_ranks``, kept for some lengths; threads may share it."""
        known = self._by_length.get(n_events)
        if known is None:
            known = self._read_ranks(n_events)
            if len(self._by_length) >= N_LENGTHS:
                self._by_length = {}
            self._by_length[n_events] = known
        return known

    def _read_ranks(self, n_events: int) -> tuple[Tensor, Tensor]:
        """Return what each event's rank gives its scores, and an equal id those of its rank.

        bias : (n_events, n_units) or (n_units,)
        of_same : (n_attributes * n_events, n_units)
        """
        factors, ranks = recency(n_events, self._bias.device)
        factors, ranks = factors.to(self._bias.dtype), ranks.to(self._bias.dtype)
        of_same = (factors @ self._same).flatten(0, 1)
        if not self._extended:
            return self._bias, of_same
        return torch.addr(self._bias, ranks, self._common[0]), of_same

    def upper_layers(self, scores: Tensor) -> Tensor:
        """Weights (n,) from the first layer's scores (n, n_units), which are overwritten."""
        unit, parameters = self._unit, self._above
        if not parameters:
            return unit.last(unit.rest(unit.first_activation(scores))).squeeze(1)
        if self._has_one:
            scores = rectify(scores, parameters[0])[-1] @ self._second
            parameters = parameters[LAST_LAYER:]
        rows = rectify_layers(scores, parameters[:-2])[-1]
        return torch.mv(rows, parameters[-2]).add_(parameters[-1])


class OfOneHistory:
    """One history as the unit's first layer sees it.

    Parameters
    ----------
    unit : SharedUnit
        The unit.
    matrix : Tensor of shape (width + 1, n_events, n_units)
        What gives the scores of all events for [q, 1].
    of_same : Tensor of shape (n_attributes * n_events, n_units)
        For each attribute that is compared, what an equal id adds to the event's scores.
    """

    def __init__(self, unit: SharedUnit, matrix: Tensor, of_same: Tensor) -> None:
        self._unit, self._of_same = unit, of_same
        self._matrix, self._shape = matrix.flatten(1), matrix.shape[1:]

    def weigh(self, left: Tensor, pairs: Pairs, runs: Runs | None = None) -> Tensor:
        """Return weights (n_rows, n_events), computed for some candidates at a time.

        What the attribute of the runs gives is computed once for each run, and the products are
        the smaller: ``pairs`` have none of that attribute.

        left : (n_rows, width + 1), the candidates and a one
        """
        n_events = self._shape[0]
        if not n_events or not left.shape[0]:
            return left.new_zeros(left.shape[0], n_events)
        matrix, constants, bounds = self._matrix, None, [0, left.shape[0]]
        if runs is not None:
            constants, bounds = self._score_runs(left, runs), runs.bounds
            left, matrix = self._without(left, runs.columns)
        blocks = cut(bounds, max(1, SCORES_PER_BLOCK // matrix.shape[1]))
        weights = left.new_empty(left.shape[0], n_events)
        buffer = left.new_empty(max(rows.stop - rows.start for rows, _ in blocks), *self._shape)
        at, added = pairs.read(self._of_same)
        places = _places(at, [rows.start * n_events for rows, _ in blocks])
        for (rows, run), place in zip(blocks, places, strict=True):
            if constants is not None:
                matrix[-1] = constants[run]
            of_rows = buffer[: rows.stop - rows.start]
            torch.mm(left[rows], matrix, out=of_rows.flatten(1))
            scores = of_rows.flatten(0, 1)
            if place.start < place.stop:
                scores.index_add_(0, at[place] - rows.start * n_events, added[place])
            weights[rows] = self._unit.upper_layers(scores).view(len(of_rows), n_events)
        return weights

    def _score_runs(self, left: Tensor, runs: Runs) -> Tensor:
        """Return what each run's id and the history give: (n_runs, n_events * n_units)."""
        chosen = torch.zeros_like(left[0])
        chosen[runs.columns] = chosen[-1] = 1.0
        constants = (left[runs.bounds[:-1]] * chosen) @ self._matrix
        own = self._of_same.view(-1, *self._shape)[runs.attribute]
        at, added = runs.pairs.read(own)
        constants.view(-1, self._shape[1]).index_add_(0, at, added)
        return constants

    def _without(self, left: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
        """Return candidates and matrix without an attribute; the last row is the run's."""
        others = [*range(columns.start), *range(columns.stop, left.shape[1])]
        index = torch.tensor(others, device=left.device)
        return left.index_select(1, index), self._matrix.index_select(0, index)


def _places(at: Tensor, starts: list[int]) -> list[slice]:
    """Return which of some numbers, which ascend, lie from each start to the next one."""
    if len(starts) == 1:
        return [slice(0, len(at))]
    bounds = torch.searchsorted(at, at.new_tensor(starts)).tolist()
    return [slice(*pair) for pair in pairwise([*bounds, len(at)])]


def cut(bounds: Sequence[int], length: int) -> list[tuple[slice, int]]:
    """Return blocks of at most some rows, each within a run, and which run that is.

    Examples
    --------
    >>> cut([0, 5, 7], 3)
    [(slice(0, 3, None), 0), (slice(3, 5, None), 0), (slice(5, 7, None), 1)]
    """
    return [
        (slice(start, min(start + length, stop)), run)
        for run, (begin, stop) in enumerate(pairwise(bounds))
        for start in range(begin, stop, length)
    ]


@lru_cache(maxsize=256)
def recency(n_events: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how much events count by their rank, (n_events, n_decays), and log(1 + rank)."""
    ranks = torch.arange(n_events - 1, -1, -1, device=device, dtype=torch.float32)
    return torch.stack([decay**ranks for decay in DECAYS], dim=1), ranks.log1p()
