"""The activation unit for candidates that share one history: few products for all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.network.fused import (
    can_fuse,
    hidden_layers,
    layer_parameters,
    rectify,
    slopes_of,
)
from sklearn_din.network.layers import ActivationUnit

SCORES_PER_BLOCK = 1 << 21  # 8 MiB, few calls
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
    at : (n_pairs,), int64, the place of each pair among all of that shape
    values : (n_pairs, 1), how like they are, or None where they are the same
    """

    shape: torch.Size
    at: Tensor
    values: Tensor | None

    @classmethod
    def find(cls, likeness: Tensor) -> Pairs:
        """Find the pairs that are not zero.

        likeness : (n_rows, n_attributes, n_events), bool, or float from 0 to 1
        """
        flat = likeness.flatten()
        at = flat.nonzero().squeeze(1)
        return cls(likeness.shape, at, flat[at].unsqueeze(1) if flat.is_floating_point() else None)

    def sum_by_row(self, values: Tensor) -> Tensor:
        """Return sums of what the events have: (n_rows, n_attributes, width).

        values : (n_events, width)
        """
        n_rows, n_attributes, n_events = self.shape
        sums = values.new_zeros(n_rows * n_attributes, values.shape[1])
        if len(self.at):
            sums.index_add_(0, self.at // n_events, self._read(values, self.at % n_events))
        return sums.view(n_rows, n_attributes, values.shape[1])

    def read(self, of_same: Tensor) -> tuple[Tensor, Tensor]:
        """Return which scores the pairs have, by row and event, and what is added to them.

        of_same : (n_attributes * n_events, n_units)
        """
        _, n_attributes, n_events = self.shape
        if not len(self.at):
            return self.at, of_same[:0]
        of_row = self.at % (n_attributes * n_events)
        at = torch.div(self.at - of_row, n_attributes, rounding_mode="floor") + of_row % n_events
        return at, self._read(of_same, of_row)

    def _read(self, values: Tensor, at: Tensor) -> Tensor:
        of_pairs = values.index_select(0, at)
        return of_pairs if self.values is None else of_pairs.mul_(self.values)


class SharedUnit:
    """A unit that weighs the events of one history for many candidates, without gradients.

    ``Wq q + Wp (q * k)`` is ``(Wq + Wp diag(k)) q``: the bracket depends on the history alone, so
    that one product gives the first layer's scores of all events. The relations are bits (rarely
    True: event and candidate have the same id; of lists, how like they are), those bits times each
    factor of the event but the first, which is one, and what all candidates have in common.

    Parameters
    ----------
    unit : ActivationUnit
        The unit.
    n_same : int
        How many attributes have bits.
    n_factors : int
        How many factors each event has.
    """

    def __init__(self, unit: ActivationUnit, n_same: int, n_factors: int) -> None:
        self._unit, self._above = unit, list[Tensor]()
        weight_query, weight_event = unit.split_first_layer()
        bias: Tensor = unit.first.bias
        if can_fuse(unit):
            self._above = [
                *slopes_of([unit.first_activation]),
                *layer_parameters(unit.rest, unit.last),
            ]
        self._has_one = len(self._above) > LAST_LAYER
        if self._has_one:  # one unit more, which is always one, carries the next layer's bias
            weight_query, weight_event = F.pad(weight_query, (0, 1)), F.pad(weight_event, (0, 1))
            bias = F.pad(bias, (0, 1), value=1.0)
            self._second = torch.cat([self._above[1].t(), self._above[2].unsqueeze(0)])
        self._bias, self._query = bias, weight_query.contiguous().unsqueeze(1)
        ends = [unit.width, 2 * unit.width, 2 * unit.width + n_same * n_factors]
        self._key, pair, same, self._common = weight_event.contiguous().tensor_split(ends)
        self._pair, self.n_units = pair.unsqueeze(1), len(bias)
        self._same = same.view(n_factors, n_same, self.n_units).transpose(0, 1)

    def read(self, keys: Tensor, factors: Tensor, common: Sequence[Tensor]) -> OfOneHistory:
        """Read a history.

        keys : (n_events, width)
        factors : (n_events, n_factors), how much the bits count by event
        common : (n_events,) each, the relations that all candidates have in common
        """
        matrix = keys.new_empty(self._unit.width + 1, keys.shape[0], self.n_units)
        torch.addcmul(self._query, keys.t().unsqueeze(2), self._pair, out=matrix[:-1])
        constant = torch.addmm(self._bias, keys, self._key, out=matrix[-1])
        for numbers, weight in zip(common, self._common, strict=True):
            constant.addr_(numbers, weight)
        return OfOneHistory(self, matrix, (factors @ self._same).flatten(0, 1))

    def upper_layers(self, scores: Tensor) -> Tensor:
        """Weights (n,) from the first layer's scores (n, n_units), which are overwritten."""
        if self._has_one:
            scores = rectify(scores, self._above[0])[-1] @ self._second
            return hidden_layers(scores, self._above[LAST_LAYER:])[1]
        if self._above:
            return hidden_layers(scores, self._above)[1]
        unit = self._unit
        return unit.last(unit.rest(unit.first_activation(scores))).squeeze(1)


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
        matrix, constants, bounds = self._matrix, None, [0, left.shape[0]]
        if runs is not None:
            constants, bounds = self._score_runs(left, runs), runs.bounds
            left, matrix = self._without(left, runs.columns)
        blocks = cut(bounds, max(1, SCORES_PER_BLOCK // max(1, matrix.shape[1])))
        n_events = self._shape[0]
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
        kept = [*range(columns.start), *range(columns.stop, left.shape[1])]
        return left[:, kept], self._matrix[kept]


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
