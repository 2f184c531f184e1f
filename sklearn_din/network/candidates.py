"""Candidates of one history: what belongs to either side is computed once, then both meet."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.schema import PADDING_ID
from sklearn_din.network.batch import Batch, BatchLists
from sklearn_din.network.interest import N_COUNTED, NO_ID, Events, Interest
from sklearn_din.network.shared import OfOneHistory, Pairs, Runs, SharedUnit, recency

Key = TypeVar("Key")


class Joined(NamedTuple):
    """Candidates of one behaviour, their attributes side by side.

    left : (n, width + 1), their embeddings, zeros where an attribute has no candidate, and a one
    ids : (n, n_attributes, 1), NO_ID where an attribute is compared otherwise: by its lists, or by
        runs of its ids
    """

    left: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Shown:
    """Columns of impressions as the network takes them: those of candidates, or a user's, one row.

    n_rows : how many
    numbers : (n, n_numeric)
    embedded : by field of ids, (n, width)
    ids : by field that is compared with events, (n,), NO_ID where it is missing
    bags : by the histories of each bag, (n, width)
    lists : by field of lists that is compared with events
    vectors : by field whose ids have fixed vectors, the unit vectors of a table and its rows (n,)
    joined : by the histories of a behaviour, its candidates, where they are joined already
    runs : a field that is compared with events, in whose order the first rows are: where each run
        of the same id begins, and where the last one ends; None where there are none
    """

    n_rows: int
    numbers: Tensor
    embedded: dict[str, Tensor] = field(default_factory=dict)
    ids: dict[str, Tensor] = field(default_factory=dict)
    bags: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
    lists: dict[str, BatchLists] = field(default_factory=dict)
    vectors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    joined: dict[tuple[str, ...], Joined] = field(default_factory=dict)
    runs: tuple[str, list[int]] | None = None

    def take(self, rows: slice) -> Shown:
        """Return some rows, all of them in runs or none; what is there once stays as it is."""
        start, stop = rows.start, rows.stop

        def pick(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[0] == 1 else tensor[rows]

        def pick_all(group: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
            return {name: pick(tensor) for name, tensor in group.items()}

        runs = None
        if self.runs is not None and stop <= self.runs[1][-1]:
            inner = [bound - start for bound in self.runs[1] if start < bound < stop]
            runs = self.runs[0], [0, *inner, stop - start]
        return Shown(
            stop - start,
            pick(self.numbers),
            pick_all(self.embedded),
            pick_all(self.ids),
            pick_all(self.bags),
            {name: lists._replace(at=pick(lists.at)) for name, lists in self.lists.items()},
            {name: (table, pick(at)) for name, (table, at) in self.vectors.items()},
            {name: Joined(*map(pick, joined)) for name, joined in self.joined.items()},
            runs,
        )

    def beside(self, user: Shown, numbers: Tensor) -> Shown:
        """Return these columns and a user's, where there are no such here; with other numbers."""
        return replace(
            self,
            numbers=numbers,
            embedded=user.embedded | self.embedded,
            ids=user.ids | self.ids,
            bags=user.bags | self.bags,
            lists=user.lists | self.lists,
            vectors=user.vectors | self.vectors,
        )


class HistoryReader:
    """Reader of a behaviour's histories, by the weights that the network has now.

    Parameters
    ----------
    interest : Interest
        The behaviour's.
    """

    def __init__(self, interest: Interest) -> None:
        self.interest, extended = interest, interest.extended
        self.compared = interest.compared if extended else []
        self.unit: SharedUnit | None = None
        if interest.pooling == "attention":
            self.unit = SharedUnit(interest.unit, len(self.compared), extended=extended)

    def join(self, shown: Shown) -> Joined:
        """Join the candidates of impressions."""
        behaviour, embedded = self.interest.behaviour, next(iter(shown.embedded.values()))
        pairs = zip(behaviour.candidates, self.interest.widths, strict=True)
        columns = [
            embedded.new_zeros(1, width) if name is None else shown.embedded[name]
            for name, width in pairs
        ]
        columns = [c.expand(shown.n_rows, -1) for c in (*columns, embedded.new_ones(1, 1))]
        shape = shown.n_rows, len(self.compared), 1
        ids = torch.full(shape, NO_ID, dtype=torch.int32, device=embedded.device)
        for number, (_, name, _) in enumerate(self.compared):
            if name in shown.ids:
                ids[:, number, 0] = shown.ids[name]
        of_runs = self.attribute_of_runs(shown)
        if shown.runs is not None and of_runs is not None:
            ids[: shown.runs[1][-1], of_runs] = NO_ID
        return Joined(torch.cat(columns, dim=1), ids)

    def attribute_of_runs(self, shown: Shown) -> int | None:
        """Return which attribute the runs of impressions replace: the first with their field."""
        name = None if shown.runs is None else shown.runs[0]
        numbers = (n for n, (_, candidate, _) in enumerate(self.compared) if candidate == name)
        return next(numbers, None)


class SharedHistory(Events):
    """One behaviour's events as many candidates see them: (n_events, ...), weights (n, n_events).

    Parameters
    ----------
    reader : HistoryReader
        The behaviour's.
    keys : Tensor of shape (n_events, width)
        Its events.
    batch : Batch
        Their ids and numbers.
    """

    shown: Shown
    left: Tensor
    pairs: Pairs
    runs: Runs | None

    def __init__(self, reader: HistoryReader, keys: Tensor, batch: Batch) -> None:
        interest, n_events = reader.interest, keys.shape[0]
        super().__init__(interest, None, keys, keys.new_full((1, 1), n_events))
        self.reader, self.lists = reader, dict[int, BatchLists]()
        ids = [keys.new_zeros(0, n_events, dtype=torch.int32)]
        for number, (history, _, _) in enumerate(reader.compared):
            if history in batch.lists:
                self.lists[number] = batch.lists[history]
                ids.append(keys.new_full((1, n_events), PADDING_ID, dtype=torch.int32))
            else:
                ids.append(batch.identities[history].unsqueeze(0))
        self.ids = torch.cat(ids)  # (n_attributes, n_events)
        self.vectors = dict[str, Tensor]()
        for history, _, vocabulary in interest.with_vectors:
            table = F.normalize(batch.vectors.tables[vocabulary])
            self.vectors[history] = table.index_select(0, batch.vectors.rows[history])
        self.counted = recency(n_events, keys.device)[0][:, :N_COUNTED]
        self.numbers = [batch.event_numbers[name] for name in interest.behaviour.numbers]
        self.unit: OfOneHistory | None = None
        if reader.unit is not None:
            self.unit = reader.unit.read(keys, self.numbers if interest.extended else [])

    def meet(self, shown: Shown) -> SharedHistory:
        """Return the history as some candidates see it."""
        met = copy.copy(self)
        joined = shown.joined.get(self.interest.behaviour.histories) or self.reader.join(shown)
        met.shown, met.left, met.queries = shown, joined.left, joined.left[:, :-1]
        met.runs, met.pairs = self._find_runs(shown), self._find_pairs(joined.ids, shown)
        return met

    def _find_runs(self, shown: Shown) -> Runs | None:
        """Find which runs of candidates have an event's id; None without runs."""
        number = self.reader.attribute_of_runs(shown)
        if shown.runs is None or number is None:
            return None
        (name, bounds), (_, _, columns) = shown.runs, self.reader.compared[number]
        likeness = shown.ids[name][bounds[:-1]].view(-1, 1, 1) == self.ids[number]
        return Runs(number, columns, bounds, Pairs.find(likeness))

    def _find_pairs(self, ids: Tensor, shown: Shown) -> Pairs:
        """Find which candidates have an event's id, or a list of ids that is like the event's."""
        likeness = ids == self.ids
        if self.lists:
            likeness = likeness.float()
        for number, events in self.lists.items():
            lists = shown.lists[self.reader.compared[number][1]]
            likeness[:, number] = likeness_of_lists(events, lists)
        return Pairs.find(likeness)

    def sum(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        return values.sum(0, keepdim=True) if weights is None else weights @ values

    def sum_matching(self, values: Tensor) -> Tensor:
        sums, runs = self.pairs.sum_by_row(values), self.runs
        if runs is not None:
            lengths = torch.tensor(runs.bounds, device=sums.device).diff()
            of_runs = runs.pairs.sum_by_row(values)[:, 0]
            sums[:, runs.attribute] = of_runs.repeat_interleave(lengths, dim=0)
        return sums

    def cosines(self, history: str, candidate: str, vocabulary: str) -> Tensor:
        table, rows = self.shown.vectors[candidate]
        return table.index_select(0, rows) @ self.vectors[history].T

    def attend(self) -> tuple[Tensor, Tensor]:
        weights = cast(OfOneHistory, self.unit).weigh(self.left, self.pairs, self.runs)
        if self.interest.normalization == "softmax":
            weights = weights.softmax(dim=1)
        return weights @ self.keys, weights

    def maximum(self) -> Tensor:
        if not self.keys.shape[0]:
            return self.keys.new_zeros(1, self.keys.shape[1])
        return self.keys.amax(0, keepdim=True)


def likeness_of_lists(events: BatchLists, shown: BatchLists) -> Tensor:
    """Return how like each candidate's list is to each event's: (n, n_events)."""
    n_events, (lists, at) = events.offsets.shape[0] - 1, shown.at.unique(return_inverse=True)
    each = torch.arange(len(lists) * n_events, device=shown.at.device)
    pairs = events.likeness_to(shown, each % n_events, lists.index_select(0, each // n_events))
    return pairs.view(len(lists), n_events).index_select(0, at).index_select(1, events.at)
