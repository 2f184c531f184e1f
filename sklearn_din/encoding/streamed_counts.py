"""What an encoder learns from a table, gathered part by part: counts and moments that merge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from sklearn_din._spans import Spans
from sklearn_din._validation import key_codes
from sklearn_din.encoding.array_files import no_room
from sklearn_din.encoding.events import Events, HistoryTotals
from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.lookup import occurrences_by_owner
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import SAMPLED_ROWS, EventScale, NumericColumns, are_elapsed
from sklearn_din.encoding.vocabulary import Occurrences, sorted_order

PENDING_VALUES = 100_000


class GrowingOccurrences:
    """Distinct values of a column and their counts, merged whenever the new ones have doubled them.

    Examples
    --------
    >>> found = GrowingOccurrences()
    >>> found.add(np.array([7, 8]), np.array([1, 2]))
    >>> found.add(np.array([8]), np.array([3]))
    >>> found.merged()
    Occurrences(values=array([7, 8]), counts=array([1., 5.]))
    """

    def __init__(self) -> None:
        self._pending: list[Occurrences] = []
        self._n_merged = self._n_pending = 0

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Count further values; those that count nothing are left out."""
        if not (counts > 0).any():
            return
        self._pending.append(Occurrences(values[counts > 0], counts[counts > 0]))
        self._n_pending += len(self._pending[-1].values)
        if self._n_pending > max(self._n_merged, PENDING_VALUES):
            self.merged()

    def merge(self, later: GrowingOccurrences) -> None:
        """Count what was found in later rows."""
        found = later.merged()
        self.add(found.values, found.counts)

    def merged(self) -> Occurrences:
        """All values so far, each once, in the order in which they came."""
        if not self._pending:
            return Occurrences(np.empty(0, dtype=object), np.empty(0))
        arrays = [one.values for one in self._pending]
        if len({array.dtype for array in arrays}) > 1:
            arrays = [array.astype(object) for array in arrays]
        codes, values = pd.factorize(np.concatenate(arrays))
        counts = np.concatenate([one.counts for one in self._pending])
        together = Occurrences(values, np.bincount(codes, weights=counts, minlength=len(values)))
        self._pending, self._n_merged, self._n_pending = [together], len(values), 0
        return together


class Moments:
    """Weighted mean and spread of numbers that come in parts."""

    def __init__(self) -> None:
        self.weight, self.mean, self._squares = 0.0, 0.0, 0.0

    def add(self, numbers: np.ndarray) -> None:
        """Take further numbers in, each with a weight of one; those not finite do not count."""
        self.join(*moments_of(numbers))

    def join(self, weight: float, mean: float, squares: float) -> None:
        """Take further numbers in, by their :func:`moments_of`."""
        if not weight:
            return
        total, step = self.weight + weight, mean - self.mean
        self._squares += squares + step**2 * self.weight * weight / total
        self.mean += step * weight / total
        self.weight = total

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean; 0 without numbers."""
        return self._squares / self.weight if self.weight else 0.0


def moments_of(
    numbers: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Weight, mean and weighted squared distances from the mean, of the finite numbers."""
    present = np.isfinite(numbers)
    numbers = numbers[present].astype(np.float64)
    weights = np.ones(len(numbers)) if weights is None else weights[present].astype(np.float64)
    weight = float(weights.sum())
    if not weight:
        return 0.0, 0.0, 0.0
    mean = float(np.average(numbers, weights=weights))
    return weight, mean, float((weights * (numbers - mean) ** 2).sum())


class KeptNumbers:
    """Numbers of one column, kept in a file until a scaler may learn from them in their order.

    A scaler learns part by part, and rounds by what it has learnt before: the parts of a process
    whose rows are not the first ones must wait for those of the others.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lengths = path, list[int]()

    def partial_fit(self, numbers: np.ndarray) -> None:
        """Keep the numbers of a part, one column."""
        self._lengths.append(len(numbers))
        try:
            with open(self._path, "ab") as file:
                file.write(np.ascontiguousarray(numbers, dtype=np.float64).data)
        except OSError as error:
            raise no_room(error, self._path.parent, 8 * sum(self._lengths)) from error

    def tell(self, scaler: StandardScaler) -> None:
        """Let a scaler learn from all parts, and remove the file."""
        if not self._lengths:
            return
        with open(self._path, "rb") as file:
            for length in self._lengths:
                scaler.partial_fit(np.fromfile(file, np.float64, length)[:, None])
        self._path.unlink()


class EventNumbers:
    """What the scale of one history of numbers is learnt from.

    Parameters
    ----------
    n_rows : int
        Of the whole table: the rows that are sampled are those that would be in memory.
    """

    def __init__(self, n_rows: int) -> None:
        self._step = max(1, n_rows // SAMPLED_ROWS)
        self._moments: list[tuple[float, float, float]] = []  # of each part
        self._sampled: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._has_anchors = False

    def add(self, name: str, events: Events, start: int) -> None:
        """Take in the events of further rows, of which ``start`` is the first."""
        numbers = events.numbers[name]
        rows = slice(-start % self._step, None, self._step)
        spans = events.spans.take(rows)
        self._lengths.append(spans.lengths)
        self._has_anchors = name in events.anchors
        if self._has_anchors:
            self._sampled.append(spans.elapsed(numbers, events.anchors[name][rows]))
            return
        self._sampled.append(numbers[spans.index()])
        self._moments.append(moments_of(numbers, events.counts))

    def merge(self, later: EventNumbers) -> None:
        """Take in what was found in later rows."""
        self._sampled += later._sampled
        self._lengths += later._lengths
        self._moments += later._moments
        self._has_anchors |= later._has_anchors

    def scale(self) -> EventScale:
        """Learn the scale as :meth:`EventScale.of_events` does of all rows at once."""
        sampled = np.concatenate(self._sampled)
        spans = Spans.from_lengths(np.concatenate(self._lengths))
        if self._has_anchors or are_elapsed(sampled, spans):
            return EventScale.learn_elapsed(sampled)
        moments = Moments()
        for its in self._moments:
            moments.join(*its)
        return EventScale.of_moments(moments.mean, moments.variance)


class TableStatistics:
    """Everything that an encoder learns from a table, gathered in one pass.

    Parameters
    ----------
    roles : Roles
        Which part each column plays.
    n_rows : int
        Rows of the table.
    folder : Path, default=None
        Where to keep numbers until :meth:`merge` is called with these statistics: for rows
        that are not the first ones of the table. None: they are.
    """

    def __init__(self, roles: Roles, n_rows: int, *, folder: Path | None = None) -> None:
        self.roles = roles
        self._occurrences = SharedOccurrences(roles)
        self._scalers = [StandardScaler() for _ in roles.numeric]
        self._kept = [] if folder is None else _files_for(roles.numeric, folder)
        self._n_missing = np.zeros(len(roles.numeric), dtype=np.int64)
        names = [name for behaviour in roles.behaviours for name in behaviour.numbers]
        self._events = {name: EventNumbers(n_rows) for name in names}
        self.n_rows = 0
        self.totals = {b.histories: HistoryTotals(0, 0) for b in roles.behaviours}

    def add(self, read: ReadFrame, start: int) -> None:
        """Take in further rows, of which ``start`` is the first of the table."""
        self._occurrences.add(read)
        self.n_rows += len(read.numbers)
        is_missing = np.isnan(read.numbers)
        self._n_missing += is_missing.sum(axis=0)
        for place, scaler in enumerate(self._kept or self._scalers):
            present = read.numbers[~is_missing[:, place], place]
            if len(present):
                scaler.partial_fit(present[:, None])
        for histories, events in read.events.items():
            self.totals[histories] = self.totals[histories].plus(events.totals)
            for name in events.numbers:
                self._events[name].add(name, events, start)

    def merge(self, later: TableStatistics) -> None:
        """Take in what was found in later rows, as if they had been added here."""
        self._occurrences.merge(later._occurrences)
        self.n_rows += later.n_rows
        self._n_missing += later._n_missing
        for scaler, kept in zip(self._scalers, later._kept, strict=True):
            kept.tell(scaler)
        for name, its in self._events.items():
            its.merge(later._events[name])
        for histories, totals in later.totals.items():
            self.totals[histories] = self.totals[histories].plus(totals)

    def occurrences(self) -> dict[str, dict[str, Occurrences]]:
        """Occurrences by vocabulary, then by column."""
        return self._occurrences.by_owner()

    def numeric_columns(self, taken: Collection[str]) -> NumericColumns:
        """Means and spreads of the columns of numbers."""
        missing = self._n_missing
        scalers = [
            scaler.partial_fit(np.zeros((self.n_rows, 1))) if gone == self.n_rows else scaler
            for scaler, gone in zip(self._scalers, missing.tolist(), strict=True)
        ]
        return NumericColumns.of_scalers(self.roles.numeric, scalers, missing > 0, taken=taken)

    def event_scales(self) -> dict[str, EventScale]:
        """Scale of each history of numbers."""
        return {name: its.scale() for name, its in self._events.items()}


class SharedOccurrences:
    """Occurrences of every column of ids, by the vocabulary that they share."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._by_column = {name: GrowingOccurrences() for name in roles.owners}

    def add(self, read: ReadFrame) -> None:
        """Count what further rows hold."""
        for columns in occurrences_by_owner(read, self._roles).values():
            for name, found in columns.items():
                self._by_column[name].add(found.values, found.counts)

    def merge(self, later: SharedOccurrences) -> None:
        """Count what was found in later rows."""
        for name, found in later._by_column.items():
            self._by_column[name].merge(found)

    def by_owner(self) -> dict[str, dict[str, Occurrences]]:
        """All so far, as :func:`occurrences_by_owner` counts them of one frame."""
        sources: dict[str, dict[str, Occurrences]] = {}
        for name, owner in self._roles.owners.items():
            sources.setdefault(owner, {})[name] = self._by_column[name].merged()
        return sources


class FoundUsers:
    """Users of all rows, from which it follows how they become numbers.

    Parameters
    ----------
    parts : iterable of ndarray
        The users, part by part; it is read once.
    """

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        self.found, self.is_plain, self.any_missing = GrowingOccurrences(), True, False
        for users in parts:
            self.is_plain &= users.dtype.kind in "iu"
            codes, values = key_codes(users, name="the column of users")
            self.any_missing |= bool((codes < 0).any())
            self.found.add(values, np.ones(len(values)))

    def merge(self, later: FoundUsers) -> None:
        """Take in those of later rows."""
        self.found.merge(later.found)
        self.is_plain &= later.is_plain
        self.any_missing |= later.any_missing


class UserCodes:
    """Users as numbers: integers stay what they are, all else becomes its place in sorted order.

    Parameters
    ----------
    users : FoundUsers
        Those of all rows.
    """

    def __init__(self, users: FoundUsers) -> None:
        self._any_missing = users.any_missing
        self._index: pd.Index | None = None
        if not users.is_plain:
            values = users.found.merged().values
            values = values[sorted_order(values)]
            self._index = pd.Index(values, dtype=values.dtype)

    def encode(self, users: np.ndarray) -> np.ndarray:
        """Numbers of some users; NaN where one is missing."""
        if self._index is None:
            return users
        places = self._index.get_indexer(pd.Index(users, dtype=users.dtype))
        if not self._any_missing:
            return places.astype(np.int64)
        return np.where(pd.isna(users), np.nan, places)


def _files_for(names: Sequence[str], folder: Path) -> list[KeptNumbers]:
    return [KeptNumbers(folder / f"{place:04d}.numbers") for place in range(len(names))]
