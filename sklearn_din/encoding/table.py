"""The rows given to an encoder, chunk by chunk, and the columns of a chunk, read once."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.encoding.cells import (
    LARGEST,
    LISTS,
    Codes,
    HistoryCells,
    as_numbers,
    factorize,
    first_present,
    is_arrow_list,
    read_history,
)
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.utils.keys import plain_users
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.spans import Rows, Spans
from sklearn_din.utils.validation import position_values, time_values

PREFIX = "hist_"
NO_COLUMNS = pd.DataFrame(index=[0])
Made = TypeVar("Made")
ColumnKind = Literal["ids", "numbers", "time", "history"]
NUMBERS = ("floating", "mixed-integer-float", "decimal", "timedelta")  # as pandas names them
READ_METADATA = {"users": plain_users, "times": time_values, "positions": position_values}
TIMES = ("datetime64", "datetime", "date", "time", "period")
KINDS_OF_VALUES: dict[str, str | None] = {"integer": "integer", "empty": None}
KINDS_OF_VALUES |= dict.fromkeys(NUMBERS, "float") | dict.fromkeys(TIMES, "time")


class ColumnReader:
    """A frame as the encoder reads it: the kind of a column, its ids or its history, read once."""

    def __init__(self, frame: pd.DataFrame, *, separator: str | None = None) -> None:
        self.frame = frame
        self.separator = separator
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made of the columns under a key; made when first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def __contains__(self, name: object) -> bool:
        return name in self.frame

    def column(self, name: str) -> pd.Series:
        """Return a column as it was given."""
        return self.frame[name]

    def kind(self, name: str) -> ColumnKind:
        """Return the kind of a column."""
        return self.once(("kind", name), lambda: column_kind(self.column(name)))

    def metadata(self, what: str, name: str) -> np.ndarray:
        """Return a column of "users", "times" or "positions" as a plain array."""
        return READ_METADATA[what](self.column(name))

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of numbers as float64, NaN where missing."""
        return self.once(("numbers", name), lambda: as_numbers(self.column(name), name=name))

    def codes(self, name: str) -> Codes:
        """Codes and distinct values of a column of ids."""
        return self.once(("codes", name), lambda: factorize(self.column(name), name=name))

    def lists(self, name: str) -> Codes:
        """Each cell of a column as one list of codes, and the distinct values."""
        return self.once(("lists", name), lambda: self.history(name).codes_of_cells())

    def history(self, name: str) -> HistoryCells:
        """Cells of a history column."""
        key, separator = ("history", name), self.separator
        return self.once(key, lambda: read_history(self.column(name), separator=separator))


class OneRow(ColumnReader):
    """One row given as plain values: pandas would take ten times as long to make columns."""

    def __init__(self, row: Mapping[Any, object], *, separator: str | None = None) -> None:
        super().__init__(NO_COLUMNS, separator=separator)
        self._row = row

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def column(self, name: str) -> pd.Series:
        """Return a column of one row."""
        return pd.Series([self._row[name]], name=name)

    def metadata(self, what: str, name: str) -> np.ndarray:
        """Return the user, the time or the position as a plain array."""
        value = self._row[name]
        if what != "users" or type(value) not in (int, str, np.int64):
            return super().metadata(what, name)
        return np.array([value], dtype=object if type(value) is str else None)

    def numbers(self, name: str) -> np.ndarray:
        """Return the number as float64, NaN where it is missing."""
        value: Any = self._row[name]
        if value is None:
            return np.array([np.nan])
        if type(value) not in (int, float, np.int64, np.float64) or abs(value) > LARGEST:
            return super().numbers(name)
        return np.array([value], dtype=np.float64)

    def codes(self, name: str) -> Codes:
        """Return the id as a code and a distinct value."""
        value = self._row[name]
        if value is None:
            return np.array([-1], dtype=np.int32), np.empty(0, dtype=object)
        if type(value) not in (int, str, np.int64):
            return super().codes(name)
        return np.zeros(1, dtype=np.int32), np.array([value], dtype=object)

    def history(self, name: str) -> HistoryCells:
        """Return the events of a history."""
        cell: Any = self._row[name]
        is_array = isinstance(cell, np.ndarray) and cell.dtype in (np.int64, object)
        events = cell.tolist() if is_array else () if cell is None else cell
        types = set(map(type, events)) if type(events) in (list, tuple) else {None}
        if self.separator is not None or not (types <= {int} or types == {str}):
            return super().history(name)
        values = np.array(events, dtype=None if types == {int} else object)
        if values.dtype.kind not in "iO":  # numbers that are too large
            return super().history(name)
        spans = Spans.from_lengths(np.array([len(values)]))
        return self.once(("history", name), lambda: _FewEvents(name, values, spans))


class _FewEvents(HistoryCells):
    """Events of one row: too few to find the distinct ones, so that values may repeat."""

    def codes(self, selection: Rows) -> Codes:
        values = cast(np.ndarray, self.values)[selection]
        return np.arange(len(values), dtype=np.int32), values


class Impressions:
    """Rows of a frame or of a scan, read part by part in the order of the files.

    Parameters
    ----------
    source : DataFrame or Scan
        A frame is one part, which is read once and kept for later passes.
    separator : str, default=None
        Where to split histories that are text.

    Attributes
    ----------
    names : list of str
        The columns.
    dtypes : dict of str to dtype
        Of the columns.
    scan : Scan or None
        The rows in the order of their files, where they lie in files.
    positions : ndarray of shape (n_rows,) or None
        Where each row of that order belongs; None where it is the order asked for.
    """

    def __init__(self, source: pd.DataFrame | Scan, *, separator: str | None = None) -> None:
        self.names, self.dtypes = list(source.columns), dict(source.dtypes)
        self.separator = separator
        self._n_rows = len(source)
        self.scan: Scan | None = None
        self.positions: np.ndarray | None = None
        if isinstance(source, Scan):
            self.scan, self.positions = source.in_file_order()
        else:
            self._whole = ColumnReader(source, separator=separator)

    def __len__(self) -> int:
        return self._n_rows

    def map(
        self, read: Callable[[ColumnReader], Made], names: Collection[str], purpose: str
    ) -> Iterator[tuple[int, Made]]:
        """Yield the first row of each part, and what is read of it, of the columns named."""
        if self.scan is None:
            yield 0, read(self._whole)
            return
        names = [name for name in self.names if name in names]
        if not names:
            return
        from sklearn_din.utils.progress import show_progress

        for start, frame in show_progress(self.scan.parts(names), purpose, len(self)):
            try:
                result = read(ColumnReader(frame, separator=self.separator))
            except ValueError as error:
                last = start + len(frame) - 1
                raise ValueError(
                    f"{error} This is among the rows {start} to {last} of the scan."
                ) from error
            yield start, result
        pa.default_memory_pool().release_unused()  # else Arrow keeps the memory of the largest part


def find_candidate(history: str, names: Sequence[str]) -> str | None:
    """Column that a history is compared with by its name, ``item`` for ``hist_item``."""
    exact = history.removeprefix(PREFIX)
    if exact != history and exact in names:
        return exact
    bare = _bare(history).removeprefix(PREFIX)
    if bare == _bare(history):
        return None
    same = [name for name in names if _bare(name) == bare]
    return same[0] if len(same) == 1 else None


def share_words(first: str, second: str) -> bool:
    """Return whether the words of one name contain those of the other, apart from plurals and id.

    >>> share_words("visited_goods_ids", "goods_id"), share_words("clicked_items", "item_id")
    (True, True)
    >>> share_words("visited_goods_ids", "shop_id")
    False
    """
    words, others = (
        {w.removesuffix("s") for w in _bare(n).lower().split("_")} for n in (first, second)
    )
    pairs = [(words, others), (words - {"id"}, others - {"id"})]
    return any(a and b and (a <= b or b <= a) for a, b in pairs)


def is_history_name(name: str) -> bool:
    """Return whether a column is named as ``attach_history`` names histories."""
    return _bare(name).startswith(PREFIX)


def _bare(name: str) -> str:
    """Name without the prefix that ColumnTransformer writes before two underscores."""
    return name.rpartition("__")[2]


def column_kind(column: pd.Series) -> ColumnKind:
    """Return the kind of a column by its dtype, and by its cells where the dtype is object."""
    kind = dtype_kind(column.dtype)
    if kind is not None:
        return kind
    if isinstance(first_present(column), (*LISTS, Mapping, Set)):  # read_history refuses the rest
        return "history"
    of_values = kind_of_values(column)
    return "numbers" if of_values == "float" else "time" if of_values == "time" else "ids"


def kind_of_values(values: np.ndarray | pd.Series) -> str | None:
    """Return "integer", "float", "time" or "other"; None where all values are missing."""
    return KINDS_OF_VALUES.get(pd.api.types.infer_dtype(values, skipna=True), "other")


def dtype_kind(dtype: Any) -> ColumnKind | None:
    """Return the kind of a column by its dtype; None for objects, whose cells must tell."""
    if isinstance(dtype, WindowDtype) or is_arrow_list(dtype):
        return "history"
    if isinstance(dtype, pd.CategoricalDtype):
        return "ids"
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_decimal(dtype.pyarrow_dtype):
        return "numbers"
    if getattr(dtype, "kind", "O") == "m":  # durations: so many seconds
        return "numbers"
    is_temporal = isinstance(dtype, pd.ArrowDtype) and pa.types.is_temporal(dtype.pyarrow_dtype)
    if is_temporal or getattr(dtype, "kind", "O") == "M" or isinstance(dtype, pd.PeriodDtype):
        return "time"
    if pd.api.types.is_object_dtype(dtype):
        return None
    return "numbers" if pd.api.types.is_float_dtype(dtype) else "ids"
