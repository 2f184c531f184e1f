"""One batch of impressions, the input of the network: tensors of real events only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.number_ends import Ends
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Behaviour

N_INT32 = 1 << 32
FOUND_LATER = "lists", "vectors", "rows"  # of a batch, when they are read
EVENTS_PER_PART = 1 << 15  # the activation unit's layers over them fit in the CPU cache


class JointRows(NamedTuple):
    """Rows of a joint batch, of ``n_rows``, that a process computes: from ``start`` on."""

    start: int
    n_rows: int


class BatchVectors(NamedTuple):
    """Fixed vectors of a batch's ids.

    tables : by vocabulary, each vector that some id of the batch has once: (n_distinct, n_dims)
    rows : by field, the row of each id's vector: (n_rows,) or (n_events,), int64
    """

    tables: dict[str, Tensor]
    rows: dict[str, Tensor]


class BatchLists(NamedTuple):
    """Lists of ids of one field: each distinct list of the batch once; their ids are the field's.

    identities : (n_list_ids,), int32, the same ids, by which they are compared
    rows : (n_list_ids,), int64, the list of each id
    offsets : (n_lists + 1,), int64, where each list's ids begin
    at : (n_rows,) or (n_events,), int64, the list of each candidate or event
    """

    identities: Tensor
    rows: Tensor
    offsets: Tensor
    at: Tensor

    @classmethod
    def find(cls, lists: IdLists) -> BatchLists:
        """Find the distinct lists of a batch."""
        used = lists.copy()
        lengths = used.distinct.lengths
        offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        at = used.positions.astype(np.int64)
        return cls(*map(torch.from_numpy, (used.distinct.ids, rows, offsets, at)))

    def likeness_to(self, others: BatchLists, at: Tensor, at_others: Tensor) -> Tensor:
        """Cosines ``|a & b| / sqrt(|a| |b|)`` of pairs of lists as sets of ids; 1 of equal ones.

        at, at_others : (n_pairs,), which list of these and of the others
        cosines : (n_pairs,); a missing id equals no other
        """
        lengths, n_others = self.offsets.diff(), others.offsets.diff().index_select(0, at_others)
        n = lengths.index_select(0, at)
        pairs = torch.arange(len(at), device=at.device).repeat_interleave(n)
        begins = (self.offsets[:-1].index_select(0, at) - n.cumsum(0) + n).repeat_interleave(n)
        ids = self.identities.index_select(0, begins + torch.arange(len(pairs), device=at.device))
        known = others.rows * N_INT32 + others.identities  # ascending, as the lists are
        asked = at_others.index_select(0, pairs) * N_INT32 + ids
        places = torch.searchsorted(known, asked).clamp(max=max(len(known) - 1, 0))
        is_common = ids != UNKNOWN_ID
        is_common &= known.index_select(0, places) == asked if len(known) else False
        common = n.new_zeros(len(at), dtype=torch.float32)
        common.index_add_(0, pairs, is_common.float())
        return common * (n * n_others).clamp(min=1).float().rsqrt()

    def likeness_of_all(self, others: BatchLists) -> Tensor:
        """Return the same of every list and every other one: (n_lists, n_others)."""
        ids = self.identities.unique()
        ids, common = ids[ids != UNKNOWN_ID], []
        for lists in (self, others):
            is_known = torch.isin(lists.identities, ids)
            at = lists.rows[is_known], torch.searchsorted(ids, lists.identities[is_known])
            common.append(
                torch.zeros(len(lists.offsets) - 1, len(ids)).index_put(at, torch.ones(()))
            )
        lengths = self.offsets.diff().unsqueeze(1) * others.offsets.diff()
        return common[0] @ common[1].t() * lengths.clamp(min=1).float().rsqrt()


class Differences(NamedTuple):
    """Numbers of events and those of their impression, such as prices, NaN where missing.

    Both are (n_events,). Of a history that candidates share ``shown`` is (n_rows, 1): there is one
    difference for each candidate and event.
    """

    shown: Tensor
    numbers: Tensor

    def between(self, ends_shown: Ends, ends: Ends) -> tuple[Tensor, Tensor]:
        """Return by how much impressions' numbers are larger, and how near they are: (n_events,).

        Nearness falls from 1 where they are equal to 0 at a standard deviation. Both are 0 where a
        number is missing.
        """
        values = self.shown.clamp(*ends_shown).sub(self.numbers.clamp(*ends)).flatten()
        nearness = values.abs().neg_().add_(1.0).clamp_(0.0)
        return values.nan_to_num_(), nearness.nan_to_num_()


class DistinctRows(NamedTuple):
    """The distinct rows of an embedding table that a batch's ids refer to, ascending.

    ``order`` (n_positions,) sorts the batch's ids by their rows; in it each distinct row begins at
    ``starts`` (n_distinct,). All are int64.
    """

    order: Tensor
    starts: Tensor
    rows: Tensor


def is_host(device: str | torch.device) -> bool:
    """Return whether numbers are read without waiting for the device, as a GPU's are not."""
    return torch.device(device).type == "cpu"


def to_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Tensor on the device; a copy to a GPU starts from pinned memory, and nobody waits."""
    if tensor.is_cpu and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def rows_of_rank(n_rows: int, rank: int, n_ranks: int) -> slice:
    """Rows of a joint batch that one of several processes computes.

    >>> [rows_of_rank(7, rank, 3) for rank in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(n_rows * rank // n_ranks, n_rows * (rank + 1) // n_ranks)


class Batch:
    """Tensors of some impressions: real events only, one flat list per behaviour.

    X : the impressions of this batch
    weights : (n,), factor of each impression's loss
    shared : whether all impressions have the first one's histories, which are then held once: the
        batch has one row of events and many candidates. Bags, which have no candidate, are held
        once where all impressions have the same
    joint : where several processes share a batch, which of its rows these are

    numbers : (n, n_numeric), float32
    positions : (n,), int32, where each impression was shown, 0 where that is not known; or None
    identities : by field but those of lists, int32 ids, (n,) or of a history (n_events,), as they
        are compared: each unknown value has a negative one
    event_numbers : by numeric history, (n_events,), float32, 0 where missing
    differences : of numeric histories that are compared with a number of the impression
    offsets : by the histories of each behaviour, (n + 1,), int64: where each impression's events
        begin
    n_events_of : by the histories of each behaviour, how many events it has
    distinct : by the width of an embedding table, its rows that the ids stand for. Empty where they
        are still to be found out
    look_ahead : makes further batches, while other threads compute the step of this one; returns
        the next batch, or None where it is not known
    """

    def __init__(
        self,
        X: EncodedFeatures,
        weights: np.ndarray | None = None,
        *,
        shared: bool = False,
        joint: JointRows | None = None,
    ) -> None:
        self.X, self.n_rows = X, len(X)
        self.look_ahead: Callable[[], Batch | None] | None = None
        self.shared = shared
        self.joint = joint
        self.weights = None if weights is None else torch.from_numpy(weights)
        numbers = np.array([X.columns[name] for name in X.schema.names("numeric")])
        self.numbers = torch.from_numpy(numbers.T.copy()) if len(numbers) else torch.empty(0)
        self.positions = None if X.positions is None else torch.from_numpy(X.positions)
        self.identities: dict[str, Tensor] = {}
        self._id_lists: dict[str, IdLists] = {}
        for name in X.schema.names("categorical", "list"):
            self._add_ids(name, X.columns[name])
        self.event_numbers: dict[str, Tensor] = {}
        self.differences: dict[str, Differences] = {}
        self.offsets: dict[tuple[str, ...], Tensor] = {}
        self.n_events_of: dict[tuple[str, ...], int] = {}
        self.distinct: dict[str, DistinctRows] = {}
        for behaviour in X.schema.behaviours:
            self._add_events(behaviour, X.behaviours[behaviour.histories])

    def _add_ids(self, name: str, ids: Column) -> None:
        if isinstance(ids, IdLists):
            self._id_lists[name] = ids
        else:
            self.identities[name] = torch.from_numpy(np.ascontiguousarray(ids))

    def _add_events(self, behaviour: Behaviour, ragged: Ragged) -> None:
        histories = behaviour.histories
        if self.shared and (not behaviour.is_bag or not ragged.changes().any()):
            ragged = ragged.take(slice(0, 1))
        index, offsets = ragged.spans.index(), np.zeros(len(ragged) + 1, dtype=np.int64)
        for name in histories:
            self._add_ids(name, ragged.flat(name, index))
        for name in behaviour.numbers:
            numbers = ragged.flat(name, index)
            if candidate := self.X.schema[name].candidate:
                missing = find_missing_numbers(self.X, candidate)
                shown = np.where(missing, np.float32(np.nan), self.X.columns[candidate])
                is_one = self.shared and len(ragged) == 1
                shown = shown[:, None] if is_one else np.repeat(shown, ragged.spans.lengths)
                pair = map(torch.from_numpy, (shown, numbers))
                self.differences[name] = Differences(*pair)
                numbers = np.nan_to_num(numbers)
            self.event_numbers[name] = torch.from_numpy(numbers)
        np.cumsum(ragged.spans.lengths, out=offsets[1:])
        self.n_events_of[histories] = int(offsets[-1])
        self.offsets[histories] = torch.from_numpy(offsets)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def ids(self) -> dict[str, Tensor]:
        """Ids of each field to be looked up, 1 where they are unknown; of lists, all their ids."""
        of_lists = {name: lists.identities for name, lists in self.lists.items()}
        return {
            name: ids.masked_fill(ids < 0, UNKNOWN_ID)
            for name, ids in (self.identities | of_lists).items()
        }

    @property
    def n_events(self) -> int:
        """Events of all behaviours."""
        return sum(self.n_events_of.values())

    @cached_property
    def rows(self) -> dict[tuple[str, ...], Tensor]:
        """By the histories of each behaviour, the impression of each event: (n_events,), int64."""
        return {
            histories: torch.repeat_interleave(
                offsets.diff(), output_size=self.n_events_of[histories]
            )
            for histories, offsets in self.offsets.items()
        }

    @cached_property
    def lists(self) -> dict[str, BatchLists]:
        """The lists of each field of lists."""
        return {name: BatchLists.find(ids) for name, ids in self._id_lists.items()}

    @cached_property
    def vectors(self) -> BatchVectors:
        """Fixed vectors of the ids, of vocabularies that have some."""
        vectors = BatchVectors({}, {})
        for vocabulary, known in self.X.vectors.items():
            names = [f.name for f in self.X.schema.fields if f.vocabulary == vocabulary]
            rows = {name: known.rows_of(self.identities[name].numpy()) for name in names}
            is_used = np.zeros(len(known.table), dtype=bool)
            for of_field in rows.values():
                is_used[of_field] = True
            place = np.cumsum(is_used) - 1
            vectors.tables[vocabulary] = torch.from_numpy(known.table[is_used])
            for name, of_field in rows.items():
                vectors.rows[name] = torch.from_numpy(place[of_field])
        return vectors

    @property
    def n_joint_rows(self) -> int:
        """Impressions of the joint batch; those of this one where no process shares it."""
        return self.n_rows if self.joint is None else self.joint.n_rows

    def own_rows(self, values: Tensor) -> Tensor:
        """Values of this batch's rows out of those of the joint batch, (n_joint_rows,)."""
        start = 0 if self.joint is None else self.joint.start
        return values[start : start + self.n_rows]

    def split(self, most_events: int) -> list[Batch]:
        """Return batches of consecutive impressions, each of about so many events."""
        if self.n_events <= most_events:
            return [self]
        n_events = torch.stack([offsets.diff() for offsets in self.offsets.values()]).sum(0)
        part = (n_events.cumsum(0) - n_events) // most_events
        cuts = torch.flatten(torch.nonzero(part.diff())) + 1
        return self.cut([0, *cuts.tolist(), self.n_rows])

    def cut(self, ends: Sequence[int]) -> list[Batch]:
        """Return batches between ``ends``, 0, ..., n_rows: views of this one's tensors."""
        if len(ends) == 2:
            return [self]
        ends_of = {key: offsets.numpy()[ends].tolist() for key, offsets in self.offsets.items()}
        return [
            self._cut(slice(*rows), {key: slice(*of[i : i + 2]) for key, of in ends_of.items()})
            for i, rows in enumerate(pairwise(ends))
        ]

    def _cut(self, rows: slice, events: Mapping[tuple[str, ...], slice]) -> Batch:
        at = {n: events[key] for key, ragged in self.X.behaviours.items() for n in ragged.columns}
        part = copy.copy(self)
        for name in FOUND_LATER:
            vars(part).pop(name, None)
        part.X, part.n_rows, part.distinct = self.X[rows], rows.stop - rows.start, {}
        part.joint = self.joint and self.joint._replace(start=self.joint.start + rows.start)
        part.weights = None if self.weights is None else self.weights[rows]
        part.numbers = self.numbers[rows]
        part.positions = None if self.positions is None else self.positions[rows]
        part.identities = {n: ids[at.get(n, rows)] for n, ids in self.identities.items()}
        part._id_lists = {n: lists[at.get(n, rows)] for n, lists in self._id_lists.items()}
        part.event_numbers = {n: numbers[at[n]] for n, numbers in self.event_numbers.items()}
        part.differences = {
            n: Differences(own.shown[at[n]], own.numbers[at[n]])
            for n, own in self.differences.items()
        }
        ends = slice(rows.start, rows.stop + 1)
        part.offsets = {
            key: torch.from_numpy(self.offsets[key].numpy()[ends] - own.start)
            for key, own in events.items()
        }
        part.n_events_of = {key: own.stop - own.start for key, own in events.items()}
        return part

    def to(self, device: str | torch.device) -> Batch:
        """Move every tensor to the device; the host does not wait for a GPU. Nothing on the CPU."""
        if torch.device(device).type == "cpu":
            return self
        self.numbers = to_device(self.numbers, device)
        self.positions = None if self.positions is None else to_device(self.positions, device)
        self.weights = None if self.weights is None else to_device(self.weights, device)
        for name, own in self.differences.items():
            self.differences[name] = Differences(*(to_device(tensor, device) for tensor in own))
        groups: list[dict[Any, Tensor]] = [self.identities, self.event_numbers, *self.vectors]
        for group in (*groups, self.rows, self.offsets):
            group.update({key: to_device(tensor, device) for key, tensor in group.items()})
        for name, lists in self.lists.items():
            self.lists[name] = BatchLists(*(to_device(tensor, device) for tensor in lists))
        for width, distinct in self.distinct.items():
            self.distinct[width] = DistinctRows(*(to_device(tensor, device) for tensor in distinct))
        return self
