"""Candidates of one history: what belongs to either side is computed once, then both meet.

The twin of ``Interest.outputs`` for the case that all impressions have the same events, which are
read once, in place of once per impression.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.network.batch import Batch, BatchLists
from sklearn_din.network.fused import SharedUnit
from sklearn_din.network.interest import ADDED_EVENTS, DECAYS, N_COUNTED, Interest

Key = TypeVar("Key")
T = TypeVar("T")


class Shown(NamedTuple):
    """Columns of impressions as the network takes them: those of candidates, or a user's, one row.

    n_rows : how many
    numbers : (n, n_numeric)
    embedded : by field of ids, (n, width)
    ids : by field that is compared with events, (n,), NO_ID where it is missing
    bags : by the histories of each bag, (n, width)
    lists : by field of lists that is compared with events
    vectors : by field whose ids have fixed vectors, the unit vectors of a table and its rows (n,)
    """

    n_rows: int
    numbers: Tensor
    embedded: dict[str, Tensor]
    ids: dict[str, Tensor]
    bags: dict[tuple[str, ...], Tensor]
    lists: dict[str, BatchLists]
    vectors: dict[str, tuple[Tensor, Tensor]]

    def take(self, rows: slice) -> Shown:
        """Return some rows; what is there once for all stays as it is."""

        def pick(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[0] == 1 else tensor[rows]

        n_rows = len(range(*rows.indices(self.n_rows)))
        return Shown(
            n_rows,
            pick(self.numbers),
            {name: pick(tensor) for name, tensor in self.embedded.items()},
            {name: pick(tensor) for name, tensor in self.ids.items()},
            {name: pick(tensor) for name, tensor in self.bags.items()},
            {name: lists._replace(at=pick(lists.at)) for name, lists in self.lists.items()},
            {name: (table, pick(at)) for name, (table, at) in self.vectors.items()},
        )

    def only(self, columns: Collection[str], bags: Collection[tuple[str, ...]]) -> Shown:
        """Return some columns and bags, without the numbers."""

        def pick(group: Mapping[Key, T], names: Collection[Any]) -> dict[Key, T]:
            return {name: value for name, value in group.items() if name in names}

        embedded, ids = pick(self.embedded, columns), pick(self.ids, columns)
        lists, vectors = pick(self.lists, columns), pick(self.vectors, columns)
        return Shown(
            self.n_rows, self.numbers[:0], embedded, ids, pick(self.bags, bags), lists, vectors
        )

    def beside(self, other: Shown, numbers: Tensor) -> Shown:
        """Return these columns and, in place of some, those of other rows; with other numbers."""
        embedded, ids = self.embedded | other.embedded, self.ids | other.ids
        lists, vectors = self.lists | other.lists, self.vectors | other.vectors
        bags = self.bags | other.bags
        return Shown(other.n_rows, numbers, embedded, ids, bags, lists, vectors)


class SharedHistory:
    """One behaviour's events, and all of its inputs of the MLP that do not need the candidates.

    Parameters
    ----------
    interest : Interest
        The behaviour's.
    keys : Tensor of shape (n_events, width)
        Its events.
    batch : Batch
        Their ids and numbers.
    """

    def __init__(self, interest: Interest, keys: Tensor, batch: Batch) -> None:
        self.interest, self.keys = interest, keys
        behaviour, n_events = interest.behaviour, keys.shape[0]
        self.numbers = [batch.event_numbers[name] for name in behaviour.numbers]
        self.alone = interest.alone(keys)
        self.compared, self.vectors = dict[str, Tensor | BatchLists](), dict[str, Tensor]()
        self.factors, self.ranks = recency(n_events, keys.device)
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        for history, candidate in pairs if interest.extended else ():
            if candidate is not None:
                lists = batch.lists.get(history)
                self.compared[candidate] = batch.identities[history] if lists is None else lists
        for history, candidate, vocabulary in interest.with_vectors:
            table = F.normalize(batch.vectors.tables[vocabulary])
            self.vectors[candidate] = table.index_select(0, batch.vectors.rows[history])
        self.unit: SharedUnit | None = None
        if interest.pooling == "attention":
            common = [self.ranks, *self.numbers] if interest.extended else []
            self.unit = SharedUnit(interest.unit, keys, self.factors, len(self.compared), common)

    def outputs(self, queries: Tensor, shown: Shown) -> list[Tensor]:
        """Return the MLP's inputs, as ``Interest.outputs`` does: (n, columns) or (1, columns) each.

        queries : (n, width)
        """
        interest, n_events = self.interest, self.keys.shape[0]
        same = [self._matches(name, shown).expand(shown.n_rows, -1) for name in self.compared]
        weights = None
        if self.unit is not None:
            weights = self.unit.weigh(queries, same)
            if interest.normalization == "softmax":
                weights = weights.softmax(dim=1)
        vector, root = self._pool(weights), math.sqrt(max(n_events, 1))
        if not interest.extended:
            return [vector]
        bits = [matches.float() for matches in same]
        counts = torch.stack([of_one @ self.factors[:, :N_COUNTED] for of_one in bits], dim=2)
        counts = counts.flatten(1)
        more = [queries.new_full((1, 1), math.log1p(n_events)), counts.log1p()]
        if interest.n_means:
            more.append(self._means(weights))
        if interest.n_plain_means:
            values = torch.cat(self.alone, dim=1)
            more.append(values.sum(0, keepdim=True) / (n_events + ADDED_EVENTS))
            numbers = counts[:, : len(bits)].unsqueeze(2) + ADDED_EVENTS
            more += [b @ values / numbers[:, i] for i, b in enumerate(bits)]
        if self.vectors:
            more.append(self._likeness(shown) / root)
        if weights is None:
            return [queries * vector, *more]
        mass = weights.sum(1, keepdim=True)
        unweighted = self.keys.sum(0, keepdim=True) / root
        weighted = [queries * vector, mass.sign() * mass.abs().log1p()]
        return [*weighted, queries * unweighted, *more]

    def _matches(self, name: str, shown: Shown) -> Tensor:
        """Events that have the candidate's id; of lists, how like they are: (n, n_events)."""
        events = self.compared[name]
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
        return total / math.sqrt(max(n_events, 1)) if interest.divisor == "sqrt" else total

    def _means(self, weights: Tensor | None) -> Tensor:
        """Weighted means of what has no candidate, as ``Interest`` has them."""
        values = torch.cat([*self.alone, *(number.unsqueeze(1) for number in self.numbers)], dim=1)
        if weights is None:
            return values.sum(0, keepdim=True) / (1.0 + values.shape[0])
        return weights @ values / (1.0 + weights.abs().sum(1, keepdim=True))

    def _likeness(self, shown: Shown) -> Tensor:
        """Sums of the events' cosines with the candidates, then with recent ones counting more."""
        sums = []
        for name, events in self.vectors.items():
            table, rows = shown.vectors[name]
            cosines = table.index_select(0, rows) @ events.T
            sums.append(cosines @ self.factors[:, :N_COUNTED])
        return torch.cat(sums, dim=1)


@lru_cache(maxsize=256)
def recency(n_events: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how much events count by their rank, (n_events, n_decays), and log(1 + rank)."""
    ranks = torch.arange(n_events - 1, -1, -1, device=device, dtype=torch.float32)
    return torch.stack([decay**ranks for decay in DECAYS], dim=1), ranks.log1p()
