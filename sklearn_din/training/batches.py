"""Batches of impressions by whole blocks of indices: no Python or collate per row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures, copy_to_memory, find_runs, rows_per_pool
from sklearn_din.network.batch import EVENTS_PER_PART, Batch, JointRows, rows_of_rank
from sklearn_din.training.novelty import ShownRows
from sklearn_din.training.seeding import plain_random_state, random_state_of
from sklearn_din.utils.spans import Rows, row_dtype

Made: TypeAlias = tuple[Batch, Tensor]  # with labels
PAIRS_PER_BATCH = 1 << 17  # of candidate and event of a shared history, in scoring
CANDIDATES_PER_RUN = 16  # from here on, storing a run's histories once is faster
# Maximum number of consecutive mapped rows that are read together: some megabytes. Linux maps up to
# two at a time (a folio), so smaller blocks would load their neighbours as well.
ROWS_PER_BLOCK = 32_768
VALUES_PER_GATHER = 1 << 19  # read together: of 40,000 rows, several per cache line
MADE_AHEAD = 1 << 15  # rows and events whose batches are made at a time
BLOCKS_PER_POOL = 16  # at least, so that adjacent rows are rarely in one batch
SMALL_BATCH_ROWS = 2_000  # a few hundred rows make too few steps of 256
LARGE_BATCH_ROWS = 100_000


def choose_batch_size(batch_size: int | str, n_rows: int) -> int:
    """Return the number of impressions per training step, which "auto" makes depend on the rows.

    >>> choose_batch_size("auto", 500), choose_batch_size("auto", 50_000), choose_batch_size(9, 500)
    (64, 256, 9)
    """
    if not isinstance(batch_size, str):
        return int(batch_size)
    if n_rows > LARGE_BATCH_ROWS:
        return 1024
    return 64 if n_rows < SMALL_BATCH_ROWS else 256


class ImpressionBatches:
    """Iterable of ``(Batch, y)`` over impressions, in order or shuffled.

    One pass is an epoch; shuffled, each draws a permutation. A shuffled pass that was left goes on
    where it was left.

    Impressions that lie in files and are large beside the budget for reading them are shuffled in
    two steps, so that they are read piece by piece: blocks of consecutive rows are permuted, some
    blocks at a time are pooled, and the rows of a pool permuted.

    X : all impressions
    y : (n,), float32, 1.0 for a click; zeros where not given
    weights : (n,), float32, factor of each impression's loss
    shuffle : draws a permutation for each epoch. None: the impressions stay in order, and each
        pass goes over all of them
    rows : (n,), which impressions of X these are; ``y`` and ``weights`` are theirs. None: all
    shown : impressions as they are to be shown, some ids hidden. None: as they are
    keeps : whether batches in order stay in memory for the next pass, unless they lie in files
    """

    def __init__(
        self,
        X: EncodedFeatures,
        y: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        batch_size: int,
        shuffle: np.random.RandomState | None = None,
        rows: np.ndarray | None = None,
        shown: ShownRows | None = None,
        keeps: bool = False,
    ) -> None:
        self.X = X
        self.rows, self.shown = rows, shown
        self._n_rows = len(X) if rows is None else len(rows)
        self._pool = rows_per_pool(X)
        self.y = np.zeros(self._n_rows, dtype=np.float32) if y is None else y
        self.weights = weights
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._keeps, self._kept = keeps and self._pool is None, list[Made]()
        self._epoch: np.random.RandomState | None = None  # its state before drawing the permutation
        self._batches: list[np.ndarray] = []  # rows of each batch of the epoch, shuffled
        self._n_done = 0  # of them
        self._seed = 0  # of the epoch, that of its first batch
        self._hiding = np.random.RandomState(0)  # draws which ids a batch hides
        self._rank, self._n_ranks = 0, 1

    def __len__(self) -> int:
        return self._n_rows

    def __iter__(self) -> Iterator[Made]:
        if self.shuffle is None:
            if self._keeps and not self._kept:
                self._kept = list(self._make_in_order())
            yield from self._kept if self._keeps else self._make_in_order()
            return
        if not self._batches:
            self._begin_epoch(self.shuffle)
        for batch in self._make(self._batches[self._n_done :]):
            self._n_done += 1
            yield batch
        self._batches, self._n_done = [], 0

    def _make_in_order(self) -> Iterator[Made]:
        for start in range(0, max(len(self), 1), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(self)))
            until = None if self.shown is None else self.shown.draw(rows, self._hiding)
            yield from self._join(rows, [0, rows.stop - start], self.X[self._of_X(rows)], until)

    def _make(self, batches: list[np.ndarray]) -> Iterator[Made]:
        """Yield batches of such rows, some made at a time: one alone takes three times as long.

        The next ones are made while threads compute the first step of these.
        """
        n_rows = VALUES_PER_GATHER // max(len(self.X.schema.fields), 1)
        n_rows = n_rows if self._pool is None else self._pool // 2  # half a pool is in memory
        first_number, n_read, n_made = self._seed + self._n_done, 0, 0
        size = max(n_rows // self.batch_size, 1)
        left, ahead = list[Callable[[], list[Made]]](), list[list[Made]]()

        def make_some() -> list[Made]:
            nonlocal n_read
            if not left:
                left.extend(self._gather(batches[n_read : n_read + size], first_number + n_read))
                n_read += size
            made = left[0]()
            del left[0]  # not where making them has failed
            return made

        def look_ahead(some: list[Made], number: int) -> Batch | None:
            if not ahead and (left or (self._pool is None and n_read < len(batches))):
                with suppress(MemoryError, OSError):  # raised where these batches are needed
                    ahead.append(make_some())
            if number + 1 < len(some):
                return some[number + 1][0]
            return ahead[0][0][0] if ahead else None

        while n_made < len(batches):
            some = ahead.pop() if ahead else make_some()
            n_made += len(some)
            for number, made in enumerate(some):
                made[0].look_ahead = partial(look_ahead, some, number)
                yield made
                made[0].look_ahead = None  # which holds the batch in turn

    def _gather(self, batches: list[np.ndarray], number: int) -> list[Callable[[], list[Made]]]:
        """Read the rows of batches, the first of this number; return what makes a group each."""
        rows, ends = np.concatenate(batches), np.append(0, np.cumsum([*map(len, batches)]))
        if self._pool is None:
            X = self.X[self._of_X(rows)]
        else:
            order = np.sort(rows)
            X = copy_to_memory(self.X, np.asarray(self._of_X(order)))
            X = X[np.searchsorted(order, rows)]
        n_before = np.arange(len(rows) + 1)  # rows and events before each row
        for ragged in X.behaviours.values():
            n_before[1:] += np.cumsum(ragged.spans.lengths, dtype=np.int64)
        changes = np.diff(n_before[ends[:-1]] // MADE_AHEAD, prepend=-1)
        firsts = [*np.flatnonzero(changes).tolist(), len(batches)]

        def make(first: int, stop: int) -> list[Made]:
            at, own = slice(ends[first], ends[stop]), ends[first : stop + 1] - ends[first]
            until = self._until(batches[first:stop], number + first)
            return self._join(rows[at], own.tolist(), X[at], until)

        return [partial(make, *group) for group in pairwise(firsts)]

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self) // self.batch_size)

    def share_among(self, n_ranks: int, *, rank: int) -> None:
        """Give this process, ``rank`` of ``n_ranks``, its rows of each batch, but all labels."""
        self._rank, self._n_ranks = rank, n_ranks

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the order: ``epoch`` drew its permutation, ``latest`` draws next."""
        assert self.shuffle is not None
        assert self._epoch is not None  # within one
        states = {"epoch": self._epoch, "latest": self.shuffle}
        plain = {name: plain_random_state(state) for name, state in states.items()}
        return {**plain, "n_batches": self._n_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the order and of its random state."""
        assert self.shuffle is not None
        self._epoch, self._batches = random_state_of(state["epoch"]), []
        if state["n_batches"]:
            self._begin_epoch(copy.deepcopy(self._epoch))
        self.shuffle.set_state(random_state_of(state["latest"]).get_state())
        self._n_done = state["n_batches"]

    def _begin_epoch(self, shuffle: np.random.RandomState) -> None:
        self._batches = []  # frees the old permutation before drawing the next one
        self._epoch = copy.deepcopy(shuffle)
        order = (
            shuffle.permutation(len(self))
            if self._pool is None
            else order_in_pools(len(self), pool=self._pool, shuffle=shuffle)
        )
        self._seed = 0 if self.shown is None else shuffle.randint(1 << 31)
        starts = range(0, len(order), self.batch_size)
        self._batches = [order[start : start + self.batch_size] for start in starts]
        self._n_done = 0

    def _of_X(self, rows: Rows) -> Rows:  # noqa: N802
        """Return the rows of X that these are."""
        return rows if self.rows is None else self.rows[rows]

    def _until(self, batches: list[np.ndarray], first_number: int) -> np.ndarray | None:
        """Return the moments up to which the rows of these batches show their ids."""
        if self.shown is None:
            return None
        until = []
        for number, rows in enumerate(batches, first_number):
            self._hiding.seed(number)
            until.append(self.shown.draw(rows, self._hiding))
        return np.concatenate(until)

    def _join(
        self, rows: Rows, ends: Sequence[int], X: EncodedFeatures, until: np.ndarray | None
    ) -> list[Made]:
        """Return the batches between ``ends`` of some rows, whose impressions are X."""
        y = torch.from_numpy(self.y[rows])
        weights = None if self.weights is None else self.weights[rows]
        if until is not None and self.shown is not None:
            X = self.shown.novelty.hide(X, until)
        labels = [y[start:stop] for start, stop in pairwise(ends)]
        made = Batch(X, weights).cut(ends)
        for i, batch in enumerate(made if self._n_ranks > 1 else []):
            batch.joint = JointRows(0, len(batch))
            own = rows_of_rank(len(batch), self._rank, self._n_ranks)
            made[i] = batch.cut([0, own.start, own.stop, len(batch)])[1]
        return list(zip(made, labels, strict=True))


def order_in_pools(n_rows: int, *, pool: int, shuffle: np.random.RandomState) -> np.ndarray:
    """Each row once, in an order that reads a file piece by piece: (n_rows,).

    Blocks of consecutive rows are permuted, and then the rows of each ``pool`` of blocks.
    """
    size = int(np.clip(pool // BLOCKS_PER_POOL, 1, ROWS_PER_BLOCK))
    starts = shuffle.permutation(-(-n_rows // size)) * size
    per_pool, end = max(pool // size, 1), 0
    order = np.empty(n_rows, dtype=row_dtype(n_rows))
    for first in range(0, len(starts), per_pool):
        rows = (starts[first : first + per_pool, None] + np.arange(size)).ravel()
        rows = rows[rows < n_rows]
        order[end : end + len(rows)] = shuffle.permutation(rows)
        end += len(rows)
    return order


class ScoringBatches:
    """Batches of impressions in order, sized by their events, for prediction.

    Of long runs of candidates of one user, each batch holds the histories once.
    """

    def __init__(self, X: EncodedFeatures) -> None:
        self.X = X._replace(positions=None)  # predictions are those of an average position

    def __len__(self) -> int:
        return len(self.X)

    def __iter__(self) -> Iterator[Made]:
        runs, bags = find_runs(self.X), [part.is_bag for part in self.X.schema.behaviours]
        shared = not all(bags) and len(self.X) >= CANDIDATES_PER_RUN * (len(runs) - 1)
        for begin, end in pairwise(runs.tolist() if shared else [0, len(self.X)]):
            lengths = [ragged.spans.lengths[begin:end] for ragged in self.X.behaviours.values()]
            n_events = sum(int(part.sum(dtype=np.int64)) for part in lengths)
            most = PAIRS_PER_BATCH if shared else EVENTS_PER_PART
            size = int(np.clip(most * (end - begin) // max(n_events, 1), 64, 16_384))
            for start in range(begin, max(end, begin + 1), size):
                rows = slice(start, min(start + size, end))
                batch = Batch(self.X[rows], shared=shared and rows.stop > start)
                yield batch, torch.zeros(len(batch))
