"""A scan with additional columns in files of their own: histories and aggregates."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from sklearn_din.features.store import Store
from sklearn_din.large.stored_log import RowNumbers, StoredHistories, index_of
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.utils.scan import PARTS_IN_MEMORY, Scan

BYTES_PER_EVENT = 16  # of one column: its value, and its code


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
    store : Store
        The further columns: those of :class:`StoredHistories`, or one array of numbers for each.

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
        self, base: Scan, rows: range | np.ndarray, columns: Sequence[str], store: Store
    ) -> None:
        target, memory, cache_dir = base.target, base.memory, base.cache_dir
        super().__init__(base, rows, columns, target=target, memory=memory, cache_dir=cache_dir)
        self._store = store
        self._histories = StoredHistories(store) if "schema" in store.facts else None
        self._new_names = [*store.entries] if self._histories is None else self._histories.names

    @classmethod
    def on(cls, base: Scan, names: Sequence[str], store: Store) -> Self:
        """Attach further columns to all rows of a scan."""
        return cls(base, range(len(base)), [*base.columns, *names], store)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Read the rows in their order, as :meth:`ParquetScan.parts` does.

        What is read together is parted into pieces whose events fit the budget.
        """
        names = self._check_names(columns)
        new = [name for name in names if name in self._new_names]
        of_base = [name for name in names if name not in new] or self._table.columns[:1]
        for start, base in self._table[index_of(self._rows)].parts(of_base):
            rows = self._rows[start : start + len(base)]
            n_pieces = 1
            if new and self._histories is not None:
                lengths = self._histories.spans(rows).lengths
                n_bytes = int(lengths.sum(dtype=np.int64)) * BYTES_PER_EVENT * len(new)
                n_pieces = min(-(-n_bytes * PARTS_IN_MEMORY // self.memory) or 1, max(len(base), 1))
            edges = np.linspace(0, len(base), n_pieces + 1).astype(np.int64).tolist()
            for first, last in pairwise(edges):
                part = base.iloc[first:last].assign(**self._read(new, rows[first:last]))
                yield start + first, part[list(names)]

    def find_log(self, columns: Sequence[str]) -> tuple[StoredHistories, RowNumbers] | None:
        """Return the sorted log behind histories of one call, and the rows' windows, or None."""
        if self._histories is not None and set(columns) <= set(self._new_names):
            return self._histories, self._rows
        below = self._table[index_of(self._rows)]
        return below.find_log(columns) if isinstance(below, AttachedScan) else None

    def __repr__(self) -> str:
        n_events = 0 if self._histories is None else self._histories.n_events
        shape, names = self._description(len(self._table))
        return f"AttachedScan({shape}; {n_events} events; {names})"

    def _source(self) -> object:
        return [self._table.fingerprint(), self._store.facts["name"]]

    def _dtype(self, name: str) -> ExtensionDtype | np.dtype:
        if name not in self._new_names:
            return self._table.all_dtypes[name]
        return np.dtype(np.float64) if self._histories is None else WindowDtype()

    def _read(self, names: Sequence[str], rows: RowNumbers) -> dict[str, Any]:
        if self._histories is not None:
            return {**self._histories.columns(names, rows)} if names else {}
        return {name: np.array(self._store[name][index_of(rows)]) for name in names}
