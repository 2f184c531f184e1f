"""Batches by whole index blocks: no Python and no collate step by row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sklearn_din.features import EncodedFeatures

EVENTS_PER_BATCH = 32_768  # scoring: the activation unit's layers then stay in the cache
PAIRS_PER_BATCH = 1 << 20  # of candidate and event of a shared history
CANDIDATES_PER_RUN = 16  # from here on it pays to hold a run's histories once


class Batch:
    """Tensors of some impressions: real events only, one flat list a behaviour.

    Parameters
    ----------
    X : EncodedFeatures
        The impressions of this batch.
    weights : ndarray of shape (n,), default=None
        Factor of each impression's loss.
    shared : bool, default=False
        Whether all impressions have the first one's histories, which are then held once:
        the batch has one row of events and many candidates.

    Attributes
    ----------
    numbers : Tensor of shape (n, n_numeric), float32
    ids : dict of str to Tensor, int32
        (n,) for a categorical field, (n_events,) for a history.
    event_numbers : dict of str to Tensor of shape (n_events,), float32
        Numeric histories.
    rows : dict of str to Tensor of shape (n_events,), int64
        By behaviour: the impression of each event.
    offsets : dict of str to Tensor of shape (n + 1,), int64
        By behaviour: where each impression's events begin.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import EncodedFeatures, Field, Schema
    >>> schema = Schema((Field("price", "numeric"),))
    >>> batch = Batch(EncodedFeatures(schema, {"price": np.ones(3, dtype="float32")}))
    >>> len(batch), batch.numbers.shape
    (3, torch.Size([3, 1]))
    """

    def __init__(
        self, X: EncodedFeatures, weights: np.ndarray | None = None, *, shared: bool = False
    ) -> None:
        self.n_rows = len(X)
        self.shared = shared
        self.weights = None if weights is None else torch.from_numpy(weights)
        numeric = X.schema.names("numeric")
        numbers = [X.columns[name] for name in numeric]
        self.numbers = torch.from_numpy(np.stack(numbers, axis=1)) if numbers else torch.empty(0)
        categorical = X.schema.names("categorical")
        self.ids = {n: torch.from_numpy(np.ascontiguousarray(X.columns[n])) for n in categorical}
        self.event_numbers: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.offsets: dict[str, Tensor] = {}
        for behaviour in X.schema.behaviours:
            ragged = X.behaviours[behaviour.name]
            if shared:
                ragged = ragged.take(slice(0, 1))
            index = ragged.event_index()
            for name in behaviour.histories:
                self.ids[name] = torch.from_numpy(ragged.flat(name, index))
            for name in behaviour.numbers:
                self.event_numbers[name] = torch.from_numpy(ragged.flat(name, index))
            offsets = np.zeros(len(ragged) + 1, dtype=np.int64)
            np.cumsum(ragged.lengths, out=offsets[1:])
            self.offsets[behaviour.name] = torch.from_numpy(offsets)
            rows = np.repeat(np.arange(len(ragged)), ragged.lengths)
            self.rows[behaviour.name] = torch.from_numpy(rows)

    def __len__(self) -> int:
        return self.n_rows

    def to(self, device: str | torch.device) -> Batch:
        """Move every tensor to the device; the same object on the CPU."""
        if torch.device(device).type == "cpu":
            return self
        self.numbers = self.numbers.to(device)
        self.weights = None if self.weights is None else self.weights.to(device)
        for group in (self.ids, self.event_numbers, self.rows, self.offsets):
            group.update({name: tensor.to(device) for name, tensor in group.items()})
        return self


class ImpressionBatches:
    """Iterable of ``(Batch, y)`` over impressions, in order or shuffled.

    Each pass yields one part of ``parts`` of the epoch, so that validation can be looked at
    several times an epoch; a new permutation is drawn when all parts are through.

    Parameters
    ----------
    X : EncodedFeatures
        All impressions.
    y : ndarray of shape (n,), float32, default=None
        1.0 for a click; zeros where not given.
    weights : ndarray of shape (n,), float32, default=None
        Factor of each impression's loss.
    batch_size : int
        Impressions a batch.
    shuffle : numpy.random.RandomState, default=None
        Draws a permutation each epoch; in order where not given.
    parts : int, default=1
        Passes an epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import EncodedFeatures, Field, Schema
    >>> schema = Schema((Field("price", "numeric"),))
    >>> X = EncodedFeatures(schema, {"price": np.ones(5, dtype="float32")})
    >>> [len(y) for batch, y in ImpressionBatches(X, batch_size=2)]
    [2, 2, 1]
    """

    def __init__(
        self,
        X: EncodedFeatures,
        y: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        batch_size: int,
        shuffle: np.random.RandomState | None = None,
        parts: int = 1,
    ) -> None:
        self.X = X
        self.y = np.zeros(len(X), dtype=np.float32) if y is None else y
        self.weights = weights
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.parts = parts
        self._waiting: list[list[np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.X)

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        if self.shuffle is None:
            for start in range(0, max(len(self.X), 1), self.batch_size):
                yield self._batch(slice(start, start + self.batch_size))
            return
        if not self._waiting:
            self._waiting = self._new_epoch(self.shuffle)
        for rows in self._waiting.pop(0):
            yield self._batch(rows)

    def _new_epoch(self, shuffle: np.random.RandomState) -> list[list[np.ndarray]]:
        order = shuffle.permutation(len(self.X))
        starts = range(0, len(order), self.batch_size)
        blocks = [order[start : start + self.batch_size] for start in starts]
        ends = np.linspace(0, len(blocks), self.parts + 1).round().astype(int)
        return [blocks[a:b] for a, b in pairwise(ends)]

    def _batch(self, rows: slice | np.ndarray) -> tuple[Batch, Tensor]:
        weights = None if self.weights is None else self.weights[rows]
        return Batch(self.X[rows], weights), torch.from_numpy(self.y[rows])


class ScoringBatches:
    """Batches of impressions in order, sized by their events, for prediction.

    Candidates of one user that follow each other have the same histories. Where the runs are
    long, each batch holds one run's histories once.

    Parameters
    ----------
    X : EncodedFeatures
        All impressions.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import EncodedFeatures, Field, Schema
    >>> schema = Schema((Field("price", "numeric"),))
    >>> X = EncodedFeatures(schema, {"price": np.ones(5, dtype="float32")})
    >>> [len(y) for batch, y in ScoringBatches(X)]
    [5]
    """

    def __init__(self, X: EncodedFeatures) -> None:
        self.X = X

    def __len__(self) -> int:
        return len(self.X)

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        runs = _runs(self.X)
        shared = len(self.X) >= CANDIDATES_PER_RUN * (len(runs) - 1)
        for begin, end in pairwise(runs.tolist() if shared else [0, len(self.X)]):
            lengths = [r.lengths[begin:end] for r in self.X.behaviours.values()]
            n_events = sum(int(part.sum(dtype=np.int64)) for part in lengths)
            most = PAIRS_PER_BATCH if shared else EVENTS_PER_BATCH
            size = int(np.clip(most * (end - begin) // max(n_events, 1), 64, 16_384))
            for start in range(begin, max(end, begin + 1), size):
                rows = slice(start, min(start + size, end))
                batch = Batch(self.X[rows], shared=shared and rows.stop > start)
                yield batch, torch.zeros(len(batch))


def _runs(X: EncodedFeatures) -> np.ndarray:
    """Where the histories change from one impression to the next, both ends included."""
    changes = np.zeros(max(len(X) - 1, 0), dtype=bool)
    for ragged in X.behaviours.values():
        for values in (ragged.starts, ragged.lengths, *ragged.anchors.values()):
            changes |= values[1:] != values[:-1]
    if not X.behaviours:
        changes[:] = True
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(X)]])
