"""Scans: tables that are read in chunks, and views of them by row number."""

import copy
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionDtype

from sklearn_din.utils.digests import digest
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.spans import select_rows
from sklearn_din.utils.validation import check_columns, check_names, missing_rows, plain_values

HEAD_ROWS = 1000
PART_ROWS, FRAME_MEMORY = 131_072, 10**9  # of a frame
PARTS_IN_MEMORY = 16  # of a part and what is computed from it: it takes one sixteenth


class Scan(ABC):
    """A table that is read in chunks: sized and sliceable, as splitters and searches require.

    ``scan[rows]``, with a slice, an index array or a mask, is a view by row number;
    ``scan["name"]`` one column in memory; ``scan[["a", "b"]]`` a view of some columns.

    Of the whole ``table`` it has these ``rows``, by number, in this order. ``target_`` reads the
    target, which is not among the ``columns``. Reading may take ``memory`` bytes; encoders keep in
    ``cache_dir`` what they made of the rows.
    """

    def __init__(
        self,
        table: Any,
        rows: range | np.ndarray,
        columns: Sequence[str],
        *,
        target: str | list[str] | None,
        memory: int,
        cache_dir: Path | None,
    ) -> None:
        self._table, self._rows, self.columns = table, rows, list(columns)
        self.target, self.memory, self.cache_dir = target, memory, cache_dir

    @abstractmethod
    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the rows in order: each chunk's first position in this view, and its rows.

        Columns have the dtype that :meth:`_dtype` says in every chunk, and the index of a chunk
        goes on from that of the one before. A chunk takes no more than one in ``PARTS_IN_MEMORY``
        of the memory allowed. Threads of DuckDB read chunks, too. None: all columns.
        """

    @abstractmethod
    def _source(self) -> object:
        """Return JSON values that identify the source, and change when it changes."""

    @abstractmethod
    def _dtype(self, name: str) -> ExtensionDtype | np.dtype:
        """Return the dtype of a column, or of the target, in the chunks."""

    def fingerprint(self) -> str:
        """Return a digest of source, rows and columns: equal where the scan reads the same."""
        facts = json.dumps([self._source(), self.columns, self.target], default=str)
        return digest(facts, repr(self._rows) if isinstance(self._rows, range) else self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), len(self.columns)

    @property
    def dtypes(self) -> pd.Series:
        """The dtype of each column in the chunks."""
        return pd.Series([self._dtype(n) for n in self.columns], index=self.columns, dtype=object)

    @property
    def all_dtypes(self) -> dict[str, ExtensionDtype | np.dtype]:
        """The dtypes of everything ``parts`` can read: the columns, and the target last."""
        targets = self.target if isinstance(self.target, list) else [self.target]
        names = [*self.columns, *(name for name in targets if name is not None)]
        return {name: self._dtype(name) for name in names}

    @property
    def frame(self) -> pd.DataFrame:
        """The rows where they are in memory, otherwise none: columns and dtypes of the chunks."""
        kinds = self.all_dtypes
        return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in kinds.items()})

    def head(self, columns: Sequence[Any], *, present: Hashable) -> pd.DataFrame:
        """Return the first rows in which one of the columns is not missing: a thousand at most."""
        for _, part in self.parts(columns):
            part = part[~missing_rows(part[present])].iloc[:HEAD_ROWS]
            if len(part):
                return part
        return self.frame[list(dict.fromkeys(columns))].iloc[:0]

    @property
    def target_(self) -> np.ndarray | pd.DataFrame:
        """The target of each row, in memory: of several columns a frame, which may lack values."""
        if self.target is None:
            raise AttributeError(
                "this scan has no target_: name the column that is to be predicted in "
                "scan_parquet(..., target=...)."
            )
        if isinstance(self.target, list):
            return pd.DataFrame({name: self._column(name) for name in self.target})
        column = self._column(self.target)
        n_missing = int(missing_rows(column).sum())
        if n_missing:
            raise ValueError(
                f"the target {self.target!r} must not be missing, got {n_missing} missing "
                "values. Leave those rows out: scan[mask]."
            )
        return plain_values(column)

    def in_file_order(self) -> tuple[Self, np.ndarray | None]:
        """Return the same rows in the table's order, and where each is in this view (None: so)."""
        if is_ascending(self._rows):
            return self, None
        rows = np.asarray(self._rows)
        positions = np.argsort(rows, kind="stable")
        return self._view(rows[positions], self.columns), positions

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            check_columns(self.all_dtypes, [key], name="the scan")
            return self._column(key)
        if isinstance(key, list) and key and all(isinstance(name, str) for name in key):
            check_columns(self.columns, key, name="the scan")
            return self._view(self._rows, check_names(key, name="columns"))
        return self._view(choose_rows(self._rows, key), self.columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def narrow(self, columns: Sequence[str]) -> Self:
        """Return the same rows with some columns, each once; the target may be among them."""
        return self._view(self._rows, [*dict.fromkeys(columns)])

    def _view(self, rows: range | np.ndarray, columns: Sequence[str]) -> Self:
        view = copy.copy(self)
        view._rows, view.columns = rows, list(columns)
        return view

    def _check_names(self, columns: Sequence[str] | None) -> list[str]:
        """Return the columns to read, checked, each once; all but the target without names."""
        names = self.columns if columns is None else list(dict.fromkeys(columns))
        check_columns(self.all_dtypes, names, name="the scan")
        return names

    def _description(self, n_rows: int) -> tuple[str, str]:
        """Return how scans show their rows, columns and target, and their first columns."""
        of = "" if len(self) == n_rows else f" of {n_rows}"
        target = "" if self.target is None else f", target {self.target!r}"
        names = ", ".join(self.columns[:8]) + (", ..." if len(self.columns) > 8 else "")
        return f"{len(self)}{of} rows x {len(self.columns)} columns{target}", names

    def _column(self, name: str) -> pd.Series:
        parts = [part[name] for _, part in self.parts([name])]
        return pd.concat(parts) if parts else pd.Series([], dtype=self._dtype(name), name=name)


class FrameScan(Scan):
    """A frame, pandas, polars or Arrow, as a scan; ``caller`` is the frame as it was given."""

    def __init__(self, source: Any, *, name: str) -> None:
        self.caller = CallerFrame(source, name=name)
        frame = self.caller.pandas
        options: dict[str, Any] = {"target": None, "memory": FRAME_MEMORY, "cache_dir": None}
        super().__init__(frame, range(len(frame)), [*frame], **options)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows."""
        return self._table

    def parts(self, columns: Sequence[Any] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the rows in order, some at a time."""
        names = self._check_names(columns)
        for start in range(0, len(self), PART_ROWS):
            yield start, self._table.iloc[start : start + PART_ROWS][names]

    def _view(self, rows: range | np.ndarray, columns: Sequence[str]) -> Self:
        view = super()._view(range(len(rows)), columns)
        view._table = self._table[view.columns].iloc[rows].reset_index(drop=True)
        return view

    def _source(self) -> object:
        columns = [self._table[name] for name in self.columns]
        try:
            hashes = [pd.util.hash_pandas_object(c, index=False).to_numpy() for c in columns]
        except TypeError:  # values that have no hash: nothing is known to be equal
            return uuid.uuid4().hex
        return digest(repr([str(column.dtype) for column in columns]), *hashes)

    def _dtype(self, name: str) -> ExtensionDtype | np.dtype:
        return self._table[name].dtype


def as_scan(source: Any, *, name: str) -> Scan:
    """Return a scan, which a frame becomes."""
    return source if isinstance(source, Scan) else FrameScan(source, name=name)


def choose_rows(rows: range | np.ndarray, key: Any) -> range | np.ndarray:
    """Return the row numbers of some rows of a view."""
    picked_rows = select_rows(key)
    if isinstance(picked_rows, slice):
        return rows[picked_rows]
    if picked_rows.dtype == bool:
        if len(picked_rows) != len(rows):
            raise IndexError(f"a mask must have {len(rows)} values, got {len(picked_rows)}.")
        picked_rows = np.flatnonzero(picked_rows)
    low, high = picked_rows.min(initial=0), picked_rows.max(initial=-1)
    if low < -len(rows) or high >= len(rows):
        wrong = low if low < -len(rows) else high
        raise IndexError(f"row {wrong} is not there: the scan has {len(rows)} rows.")
    picked_rows = np.where(picked_rows < 0, picked_rows + len(rows), picked_rows)
    numbers = rows.start + rows.step * picked_rows if isinstance(rows, range) else rows[picked_rows]
    steps = np.diff(numbers)
    if len(numbers) and (steps == 1).all():
        return range(int(numbers[0]), int(numbers[-1]) + 1)  # consecutive rows are read by slices
    return numbers


def is_ascending(rows: range | np.ndarray) -> bool:
    """Return whether row numbers are ascending; they may repeat."""
    if isinstance(rows, range):
        return rows.step > 0 or len(rows) < 2
    return bool((rows[1:] >= rows[:-1]).all())
