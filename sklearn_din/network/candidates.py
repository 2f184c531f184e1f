"""Candidates of one history: what belongs to either side is computed once, then both meet.

The twin of ``Interest.outputs`` for the case that all impressions have the same events, which are
read once, in place of once per impression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.network.batch import Batch, BatchLists
from sklearn_din.network.interest import ADDED_EVENTS, DECAYS, N_COUNTED, Interest
from sklearn_din.network.shared import OfOneHistory, Pairs, Runs, SharedUnit

Key = TypeVar("Key")


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
    queries : by the histories of a behaviour, its candidates and a one (n, width + 1), where they
        are joined already
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
    queries: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
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
            pick_all(self.queries),
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
    """What reading a behaviour's histories needs of the network as it is now.

    Parameters
    ----------
    interest : Interest
        The behaviour's.
    """

    def __init__(self, interest: Interest) -> None:
        self.interest, start = interest, 0
        self.compared: list[tuple[str, str, slice]] = []  # history, candidate, where in a query
        names = zip(interest.behaviour.histories, interest.behaviour.candidates, strict=True)
        for (history, candidate), width in zip(names, interest.widths, strict=True):
            if candidate is not None and interest.extended:
                self.compared.append((history, candidate, slice(start, start + width)))
            start += width
        self.unit: SharedUnit | None = None
        if interest.pooling == "attention":
            self.unit = SharedUnit(interest.unit, len(self.compared), len(DECAYS))


class SharedHistory:
    """One behaviour's events, and all of its inputs of the MLP that do not need the candidates.

    Parameters
    ----------
    reader : HistoryReader
        The behaviour's.
    keys : Tensor of shape (n_events, width)
        Its events.
    batch : Batch
        Their ids and numbers.
    """

    def __init__(self, reader: HistoryReader, keys: Tensor, batch: Batch) -> None:
        self.reader, self.interest, self.keys = reader, reader.interest, keys
        interest, n_events = reader.interest, keys.shape[0]
        self.root = math.sqrt(max(n_events, 1))
        self.compared: list[Tensor | BatchLists] = [
            batch.lists[history] if history in batch.lists else batch.identities[history]
            for history, _, _ in reader.compared
        ]
        self.vectors = dict[str, Tensor]()
        for history, candidate, vocabulary in interest.with_vectors:
            table = F.normalize(batch.vectors.tables[vocabulary])
            self.vectors[candidate] = table.index_select(0, batch.vectors.rows[history])
        factors, ranks = recency(n_events, keys.device)
        numbers = [batch.event_numbers[name] for name in interest.behaviour.numbers]
        alone = interest.alone(keys) if interest.n_means else []
        # By event, what is summed over those with the candidate's id; then by weight, as a mean
        self.counted = self.values = factors[:, :N_COUNTED]
        if interest.n_means:
            self.counted = torch.cat([self.counted, *alone], dim=1)
            self.values = torch.cat([*alone, *(n.unsqueeze(1) for n in numbers)], dim=1)
        self.unit: OfOneHistory | None = None
        if reader.unit is not None:
            common = [ranks, *numbers] if interest.extended else []
            self.unit = reader.unit.read(keys, factors, common)

    def outputs(self, left: Tensor, shown: Shown) -> list[Tensor]:
        """Return the MLP's inputs, as ``Interest.outputs`` does: (n, columns) or (1, columns) each.

        left : (n, width + 1), the candidates and a one
        """
        interest, n_events, queries = self.interest, self.keys.shape[0], left[:, :-1]
        runs = self._find_runs(shown)
        pairs = self._find_pairs(shown, runs)
        weights = None
        if self.unit is not None:
            weights = self.unit.weigh(left, pairs, runs)
            if interest.normalization == "softmax":
                weights = weights.softmax(dim=1)
        vector = self._pool(weights)
        if not interest.extended:
            return [vector]
        sums = pairs.sum_by_row(self.counted)  # (n, n_attributes, columns)
        if runs is not None:
            lengths = torch.tensor(runs.bounds, device=sums.device).diff()
            of_runs = runs.pairs.sum_by_row(self.counted)[:, 0]
            sums[:, runs.attribute] = of_runs.repeat_interleave(lengths, dim=0)
        counts = sums[:, :, :N_COUNTED]
        more = [queries.new_full((1, 1), math.log1p(n_events)), counts.mT.log1p().flatten(1)]
        if interest.n_means:
            more.append(self._means(weights))
        if interest.n_plain_means:
            total = self.counted[:, N_COUNTED:].sum(0, keepdim=True)
            more.append(total / (n_events + ADDED_EVENTS))
            more.append((sums[:, :, N_COUNTED:] / (sums[:, :, :1] + ADDED_EVENTS)).flatten(1))
        if self.vectors:
            more.append(self._likeness(shown) / self.root)
        if weights is None:
            return [queries * vector, *more]
        mass = weights.sum(1, keepdim=True)
        unweighted = self.keys.sum(0, keepdim=True) / self.root
        weighted = [queries * vector, mass.sign() * mass.abs().log1p()]
        return [*weighted, queries * unweighted, *more]

    def _find_runs(self, shown: Shown) -> Runs | None:
        """Find which runs of candidates have an event's id; None without runs."""
        if shown.runs is None or self.unit is None:
            return None
        name, bounds = shown.runs
        for number, (_, candidate, columns) in enumerate(self.reader.compared):
            events = self.compared[number]
            if candidate == name and isinstance(events, Tensor):
                ids = shown.ids[name][bounds[:-1]]
                return Runs(number, columns, bounds, Pairs.find(ids.view(-1, 1, 1) == events))
        return None

    def _find_pairs(self, shown: Shown, runs: Runs | None) -> Pairs:
        """Find which candidates have an event's id, by attributes other than that of the runs."""
        n_events, likeness = self.keys.shape[0], list[Tensor]()
        for number in range(len(self.compared)):
            if runs is not None and runs.attribute == number:
                likeness.append(self.keys.new_zeros(1, 1, dtype=torch.bool))
            else:
                likeness.append(self._matches(number, shown))
        shape = shown.n_rows, n_events
        if not likeness:
            return Pairs.find(self.keys.new_zeros(shown.n_rows, 0, n_events))
        return Pairs.find(torch.stack([bits.expand(shape) for bits in likeness], dim=1))

    def _matches(self, number: int, shown: Shown) -> Tensor:
        """Events that have the candidate's id; of lists, how like they are: (n, n_events)."""
        events, name = self.compared[number], self.reader.compared[number][1]
        if isinstance(events, Tensor):
            return events == shown.ids[name].unsqueeze(1)
        lists = shown.lists[name]
        n_events, n_lists = events.offsets.shape[0] - 1, lists.offsets.shape[0] - 1
        each = torch.arange(n_lists * n_events, device=lists.at.device)
        pairs = events.likeness_to(lists, each % n_events, each // n_events)
        pairs = pairs.view(n_lists, n_events)
        return pairs.index_select(0, lists.at).index_select(1, events.at)

    def _pool(self, weights: Tensor | None) -> Tensor:
        """Events as one vector, scaled: (n, width); (1, width) where no candidate weighs them."""
        n_events, interest = self.keys.shape[0], self.interest
        if interest.pooling == "max":
            keys = self.keys if n_events else self.keys.new_zeros(1, interest.width)
            return keys.amax(0, keepdim=True)
        total = self.keys.sum(0, keepdim=True) if weights is None else weights @ self.keys
        if interest.pooling == "mean":
            return total / max(n_events, 1)
        return total / self.root if interest.divisor == "sqrt" else total

    def _means(self, weights: Tensor | None) -> Tensor:
        """Weighted means of what has no candidate, as ``Interest`` has them."""
        if weights is None:
            return self.values.sum(0, keepdim=True) / (1.0 + self.values.shape[0])
        return weights @ self.values / (1.0 + weights.abs().sum(1, keepdim=True))

    def _likeness(self, shown: Shown) -> Tensor:
        """Sums of the events' cosines with the candidates, then with recent ones counting more."""
        sums = []
        for name, events in self.vectors.items():
            table, rows = shown.vectors[name]
            cosines = table.index_select(0, rows) @ events.T
            sums.append(cosines @ self.counted[:, :N_COUNTED])
        return torch.cat(sums, dim=1)


@lru_cache(maxsize=256)
def recency(n_events: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how much events count by their rank, (n_events, n_decays), and log(1 + rank)."""
    ranks = torch.arange(n_events - 1, -1, -1, device=device, dtype=torch.float32)
    return torch.stack([decay**ranks for decay in DECAYS], dim=1), ranks.log1p()
