"""A scan with more columns, which lie in files beside it: histories and aggregates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from sklearn_din._spans import Spans
from sklearn_din.features.store import Store
from sklearn_din.logs.stored_log import StoredHistories
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.tables.scan import Scan

PARTS_IN_MEMORY = 16  # events of a part take one sixteenth of the memory allowed
BYTES_PER_EVENT = 16  # of one column: its value, and its code
MOST_ROWS = 131_072


class AttachedScan(Scan):
    """A scan and further columns, as :func:`attach_history` and :func:`attach_aggregates` give it.

    It is used as :class:`ParquetScan` is: split, searched over, given to a Pipeline. The rows of
    the scan are read from its Parquet files, the further columns from files in its ``cache_dir``
    or in a temporary folder, which lives as long as the result. A history column is windows of
    one sorted event log on disk; a part holds the events that its own rows cover.

    Pickle takes paths alone. A copy in another process reads the same files.

    Parameters
    ----------
    base : Scan
        All rows, with their own columns.
    rows : range or ndarray of int64
        Which of them this view has, in its order.
    columns : sequence of str
        Columns of this view.
    histories : Store or None
        History columns.
    numbers : Store or None
        Columns of numbers: one array for each.
    digest : str
        Equal where the further columns are.

    See Also
    --------
    ParquetScan : The same without further columns.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sklearn_din import attach_history, scan_parquet
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "clicks.parquet"
    >>> clicks = pd.DataFrame({"user": [1, 1, 1], "item": ["hat", "tie", "cap"], "day": [1, 2, 3]})
    >>> clicks.to_parquet(path)
    >>> shown = scan_parquet(path)
    >>> X = attach_history(shown, shown, user="user", time="day", columns="item")
    >>> X
    AttachedScan(3 rows x 4 columns; 3 events; user, item, day, hist_item)
    >>> X[1:]["hist_item"].tolist()
    [array(['hat'], dtype=object), array(['hat', 'tie'], dtype=object)]
    """

    def __init__(
        self,
        base: Scan,
        rows: range | np.ndarray,
        columns: Sequence[str],
        *,
        histories: Store | None,
        numbers: Store | None,
        digest: str,
    ) -> None:
        super().__init__(
            rows, columns, target=base.target, memory=base.memory, cache_dir=base.cache_dir
        )
        self._base, self._numbers, self._digest = base, numbers, digest
        self._histories = None if histories is None else StoredHistories(histories)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Read the rows in their order, as frames that are small beside the budget.

        Parameters
        ----------
        columns : sequence of str, default=None
            Columns to read; the target may be among them. None reads all but the target.

        Yields
        ------
        start : int
            Position of the part's first row in this view.
        part : DataFrame
            Its rows. Its index goes on from part to part.

        Raises
        ------
        FileNotFoundError, OSError
            If a file is gone or was changed since it was written.
        """
        names = self._check_names(columns)
        new = [name for name in names if name in {*self._number_names, *self._history_names}]
        for start, base in self._base_parts([name for name in names if name not in new]):
            yield from self._extend(start, base, new, names)

    def log_parts(
        self, columns: Sequence[str] | None = None, *, n_events: int = MOST_ROWS
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Read the whole sorted log once, whatever the rows of this view.

        Parameters
        ----------
        columns : sequence of str, default=None
            History columns. None is all of them.
        n_events : int, default=131072
            Events per part.

        Yields
        ------
        start : int
            Position of the first event in the log, to which :meth:`windows` refers.
        part : DataFrame
            What the columns hold of the events; of elapsed times the clock, to be taken from the
            anchors.
        """
        names = self._history_names if columns is None else list(columns)
        histories = self._histories_of(names)
        if histories is None:
            yield from _check_attached(self._base).log_parts(names or None, n_events=n_events)
            return
        for start in range(0, histories.n_events, n_events):
            events = slice(start, start + n_events)
            values = {name: histories.take(name, events)[0] for name in names}
            yield start, pd.DataFrame({n: pd.Series(v, dtype=v.dtype) for n, v in values.items()})

    def windows(
        self, rows: slice, columns: Sequence[str] | None = None
    ) -> tuple[Spans, np.ndarray | None]:
        """Return the windows of some rows in the sorted log, and their anchors if there are any.

        Parameters
        ----------
        rows : slice
            By position in this view.
        columns : sequence of str, default=None
            History columns of one call of ``attach_history``, where there were several. None
            takes those of the last call.
        """
        positions = _positions(self._rows[rows])
        histories = self._histories_of(columns)
        if histories is None:
            return _check_attached(self._base[positions]).windows(slice(None), columns)
        return histories.spans(positions), histories.anchors(positions)

    def shares_log(self, columns: Sequence[str]) -> bool:
        """Return whether some columns are histories that one call of ``attach_history`` made."""
        if self._histories_of(columns) is not None:
            return True
        return isinstance(self._base, AttachedScan) and self._base.shares_log(columns)

    def __repr__(self) -> str:
        n_events = 0 if self._histories is None else self._histories.n_events
        shape, names = self._description(len(self._base))
        return f"AttachedScan({shape}; {n_events} events; {names})"

    def _source(self) -> object:
        return [self._base.fingerprint(), self._digest]

    @property
    def _history_names(self) -> list[str]:
        return [] if self._histories is None else self._histories.names

    @property
    def _number_names(self) -> list[str]:
        return [] if self._numbers is None else self._numbers.names

    def _histories_of(self, columns: Sequence[str] | None) -> StoredHistories | None:
        """Return the histories if they are attached here, None if the scan below has them."""
        is_here = columns is None or set(columns) <= set(self._history_names)
        return self._histories if is_here else None

    def _dtype(self, name: str) -> ExtensionDtype | np.dtype:
        if name in self._number_names:
            return np.dtype(np.float64)
        if name in self._history_names:
            return WindowDtype()
        return self._base.all_dtypes[name]

    def _view(self, rows: range | np.ndarray, columns: Sequence[str]) -> AttachedScan:
        return AttachedScan(
            self._base,
            rows,
            columns,
            histories=None if self._histories is None else self._histories.store,
            numbers=self._numbers,
            digest=self._digest,
        )

    def _base_parts(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        if columns:
            yield from self._base[_positions(self._rows)].parts(columns)
            return
        for start in range(0, len(self), MOST_ROWS):
            stop = min(start + MOST_ROWS, len(self))
            yield start, pd.DataFrame(index=pd.RangeIndex(start, stop))

    def _extend(
        self, start: int, base: pd.DataFrame, new: Sequence[str], names: Sequence[str]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield a part with its further columns, in pieces whose events fit the budget."""
        histories = [name for name in new if name in self._history_names]
        rows = self._rows[start : start + len(base)]
        n_pieces = 1
        if histories and self._histories is not None:
            lengths = self._histories.spans(_positions(rows)).lengths
            n_bytes = int(lengths.sum(dtype=np.int64)) * BYTES_PER_EVENT * len(histories)
            n_pieces = min(-(-n_bytes * PARTS_IN_MEMORY // self.memory) or 1, max(len(base), 1))
        edges = np.linspace(0, len(base), n_pieces + 1).astype(np.int64).tolist()
        for first, last in pairwise(edges):
            positions = _positions(rows[first:last])
            columns: dict[str, Any] = {}
            if self._numbers is not None:
                columns = {
                    n: np.array(self._numbers[n][positions]) for n in new if n not in histories
                }
            if histories and self._histories is not None:
                columns |= self._histories.columns(histories, positions)
            part = base.iloc[first:last].assign(**columns)
            yield start + first, part[list(names)]


def _check_attached(scan: Scan) -> AttachedScan:
    if not isinstance(scan, AttachedScan):
        raise ValueError(
            f"these are no history columns of the scan, whose columns are {scan.columns}. Name "
            "those that attach_history made."
        )
    return scan


def _positions(rows: range | np.ndarray) -> slice | np.ndarray:
    """Return row numbers as what picks those rows of an array."""
    if isinstance(rows, range) and rows.step == 1:
        return slice(rows.start, rows.stop)
    return np.asarray(rows, dtype=np.int64)
