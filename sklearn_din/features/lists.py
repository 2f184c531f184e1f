"""Columns whose values are lists of ids, such as the genres of a film: each distinct list once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np

from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.utils.spans import Rows, Spans, pad_rows

Column: TypeAlias = Any  # an array of ids or numbers, or IdLists

EMPTY_LIST = 0  # position of the list that stands for no value: a missing one, too
LEAST_DIGEST = 1 << 62  # of a list with values; that of the empty one is 0


@dataclass(frozen=True, eq=False)
class DistinctLists:
    """Lists of ids, each once; the first is empty. A list has each id once, ascending.

    lengths : (n_lists,), int32
    ids : (sum(lengths),), int32, one list after the other; negative ones of unknown values
    """

    lengths: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def spans(self) -> Spans:
        """The ids of each list."""
        return Spans.from_lengths(self.lengths)

    @cached_property
    def digests(self) -> np.ndarray:
        """Checksum of each list's ids in any order: (n_lists,), int64; 0 where there is none."""
        from pandas.util import hash_array  # splitmix64: spreads ids over all 64-bit numbers

        mixed = hash_array(
            self.ids.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        )
        sums = np.append(np.uint64(0), np.cumsum(mixed, dtype=np.uint64))  # they wrap around
        starts = self.spans.starts
        mixed = hash_array(sums[starts + self.lengths] - sums[starts])
        digests = (mixed >> np.uint64(2)).astype(np.int64) | LEAST_DIGEST
        return np.where(self.lengths > 0, digests, EMPTY_LIST)

    def drop_repeated(self) -> DistinctLists:
        """Each id once in each list, in ascending order."""
        rows = np.repeat(np.arange(len(self)), self.lengths)
        order = np.lexsort((self.ids, rows))
        ids = self.ids[order]
        is_new = np.append(True, (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1]))[: len(ids)]
        lengths = np.bincount(rows[is_new], minlength=len(self)).astype(np.int32)
        return DistinctLists(lengths, ids[is_new])

    def take(self, lists: np.ndarray) -> DistinctLists:
        """Some lists by position."""
        spans = self.spans.take(lists)
        return DistinctLists(spans.lengths, np.array(self.ids[spans.index()]))


@dataclass(frozen=True, eq=False, repr=False)
class IdLists:
    """A column of lists of ids: the position of each value's list among the distinct lists.

    It is indexed by rows as an array is. Two values are equal where their lists hold the same ids,
    in any order; ``digests`` (64 bits) are then equal, whatever column they come from.

    positions : (n,), int32; 0 is the empty list, and that of a missing value
    """

    positions: np.ndarray
    distinct: DistinctLists
    dtype: ClassVar = np.dtype(object)  # no array of numbers

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, ids: np.ndarray) -> IdLists:
        """Lists that follow each other: value ``i`` takes the next ``lengths[i]`` ids."""
        each = np.arange(1, len(lengths) + 1, dtype=np.int32)
        lists = DistinctLists(np.append(0, lengths).astype(np.int32), ids)
        return cls(each, lists)._merge_equal()

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: Rows) -> IdLists:
        return IdLists(self.positions[rows], self.distinct)

    def take(self, rows: np.ndarray) -> IdLists:
        """Values by position, as numpy's ``take``."""
        return self[rows]

    def copy(self) -> IdLists:
        """Return the same values in memory, with those lists alone that some value has."""
        used = np.unique(np.append(EMPTY_LIST, self.positions))
        positions = np.searchsorted(used, self.positions).astype(np.int32)
        return IdLists(positions, self.distinct.take(used))

    @property
    def digests(self) -> np.ndarray:
        """Return a hash per value, equal for equal lists: (n,), int64; 0 for no list."""
        return self.distinct.digests[self.positions]

    def flatten(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all ids, one value after the other, and how many of them are each value's."""
        spans = self.distinct.spans.take(self.positions)
        return self.distinct.ids[spans.index()], spans.lengths

    def map(self, new_ids: np.ndarray) -> IdLists:
        """Replace each id i by ``new_ids[i]``, merging lists that become equal."""
        lists = DistinctLists(self.distinct.lengths, new_ids[self.distinct.ids])
        return IdLists(self.positions, lists)._merge_equal()

    def pad(self) -> np.ndarray:
        """Ids as (n, ids of the longest list), padded with 0 on the right, unknown ones 1."""
        ids, lengths = self.flatten()
        return pad_rows(ids_to_look_up(ids), lengths)

    def _merge_equal(self) -> IdLists:
        """Return the same values with equal lists once; the empty one is the first."""
        digests = self.distinct.digests  # the least is that of the empty list
        _, first, codes = np.unique(digests, return_index=True, return_inverse=True)
        positions = codes[self.positions].astype(np.int32)
        lists = self.distinct.take(first)
        sets = lists.drop_repeated()
        merged = IdLists(positions, sets)
        return merged if len(sets.ids) == len(lists.ids) else merged._merge_equal()

    def __reduce__(self) -> tuple[Any, ...]:
        compact = self.copy()
        return IdLists, (compact.positions, compact.distinct)
