"""History columns: each cell is a window of one sorted event log that all rows share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype, take
from pandas.api.indexers import check_array_indexer

from sklearn_din.utils.arrow import arrow_of_events
from sklearn_din.utils.digests import digest
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.validation import refuse_unsure_ids

if TYPE_CHECKING:
    import pyarrow as pa

LogKey = tuple[str, str, str]

MISSING = -1
_LARGE = 2**27  # from here on Arrow gets 64-bit offsets


class EventLog:
    """The events behind history columns, sorted once and shared by every row.

    columns : (n_events,) each, by event attribute. They are read, never written.
    token : which call made the log; None draws a new one. It is kept through pickling and
        cutting, so that columns made together still know each other.
    part : fingerprint of the events that cutting kept, "" for the whole log.
    owner : the column of users that a HistoryBuilder has the events of; None where nobody said it.
    codes : what :meth:`codes` gives, for columns whose codes are known. They are not pickled.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        *,
        token: str | None = None,
        part: str = "",
        owner: str | None = None,
        codes: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    ):
        self.columns = {name: np.asarray(values).view() for name, values in columns.items()}
        for values in self.columns.values():
            values.flags.writeable = False
        self.token = uuid.uuid4().hex if token is None else token
        self.part, self.owner = part, owner
        self._codes: dict[str, tuple[np.ndarray, np.ndarray]] = dict(codes or {})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __reduce__(self) -> tuple:
        return partial(EventLog, token=self.token, part=self.part, owner=self.owner), (
            self.columns,
        )

    def key(self, column: str) -> LogKey:
        """Return a key that no column of another log has."""
        return self.token, self.part, column

    def codes(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Each event's position among the distinct values (int32, -1 missing), and those values."""
        if column not in self._codes:
            codes, uniques = pd.factorize(self.columns[column])
            refuse_unsure_ids(self.columns[column], uniques, name=column)
            self._codes[column] = codes.astype(np.int32), np.asarray(uniques)
        return self._codes[column]

    def cut(self, column: str, spans: Spans) -> tuple[EventLog, Spans]:
        """Return a log of only the events that the windows cover, and the windows over it."""
        covered = spans.cover()
        part = self.part
        if covered.n_events < len(self):
            part = digest(part, covered.run_starts, covered.run_lengths)
        values = self.columns[column][covered.kept]
        log = EventLog({column: values}, token=self.token, part=part, owner=self.owner)
        return log, covered.spans


def merge_logs(logs: Sequence[tuple[EventLog, str]]) -> tuple[EventLog, str, dict[LogKey, int]]:
    """One log for several (log, column) pairs, its column, and where each pair's events start.

    Merging the same logs for another column gives the same token.
    """
    distinct = {log.key(column): log.columns[column] for log, column in logs}
    log, column = logs[0]
    if len(distinct) == 1:
        return log, column, dict.fromkeys(distinct, 0)
    sizes = [len(values) for values in distinct.values()]
    offsets = dict(zip(distinct, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    token = digest(*(text for token, part, _ in distinct for text in (token, part)))
    return EventLog({column: join_values(list(distinct.values()))}, token=token), column, offsets


def join_values(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate without turning numbers into text or integers into floats.

    >>> join_values([np.array([1]), np.array(["a"], dtype=object)])
    array([1, 'a'], dtype=object)
    """
    if not arrays:
        return np.empty(0, dtype=object)
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1:
        return np.concatenate(arrays)
    alike = {dtype.kind for dtype in dtypes} in ({"i"}, {"u"}, {"f"}, {"M"})
    if alike:
        return np.concatenate(arrays, dtype=np.result_type(*dtypes))
    # numpy would turn nanoseconds into integers
    series = (pd.Series(a) if a.dtype.kind in "mM" else a for a in arrays)
    return np.concatenate([np.asarray(a.astype(object)) for a in series])


@register_extension_dtype
class WindowDtype(ExtensionDtype):
    """The pandas dtype of a :class:`WindowArray`, registered as "window"."""

    name = "window"
    type = np.ndarray
    kind = "O"
    na_value = None

    @classmethod
    def construct_array_type(cls) -> type[WindowArray]:  # type: ignore[valid-type]
        """Return the array class of this dtype."""
        return WindowArray

    def __str__(self) -> str:
        # pyarrow writes this string into a Parquet file's pandas metadata; a reader without
        # this package must find a dtype it knows there.
        return "object"

    def __repr__(self) -> str:
        return "WindowDtype()"

    def __eq__(self, other: object) -> bool:
        # As it says "object", it equals that text too: narwhals looks at both, and else stops with
        # an AssertionError at a dtype that is "object" and is not.
        return super().__eq__(other) or (isinstance(other, str) and other == str(self))

    __hash__ = ExtensionDtype.__hash__

    def __bool__(self) -> bool:
        # convert_dtypes(dtype_backend="pyarrow") asks numpy for a type where a dtype is true, and
        # stops with numpy's error. So the column stays as it is.
        return False


class WindowArray(ExtensionArray):
    """A pandas array whose cells are windows of an event log.

    Slicing, taking, masking, concatenating and copying move (start, length) pairs, never
    events. Pickling, and so joblib, ships only the events that the windows cover. A cell reads
    as a read-only ndarray, a missing cell as None. Parquet gets plain lists.

    column : which of the log's columns the cells show
    starts : (n,), int64, first event of each window
    lengths : (n,), int32, events in each window, -1 for a missing cell
    row_times : (n,), float64. Where given, a cell reads as ``row_time - values``: the time since
        each event

    >>> log = EventLog({"item": np.array([5, 6, 7, 8])})
    >>> history = pd.Series(WindowArray(log, "item", np.array([0, 1]), np.array([1, 3])))
    >>> history
    0          [5]
    1    [6, 7, 8]
    dtype: window
    >>> history.iloc[1]
    array([6, 7, 8])
    """

    def __init__(
        self,
        log: EventLog,
        column: str,
        starts: np.ndarray,
        lengths: np.ndarray,
        row_times: np.ndarray | None = None,
    ):
        self.log = log
        self.column = column
        self.starts = np.asarray(starts, dtype=np.int64)
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.row_times = None if row_times is None else np.asarray(row_times, dtype=np.float64)

    # What is ours: windows ------------------------------------------------------------------

    @property
    def spans(self) -> Spans:
        """The windows; a missing cell is an empty one."""
        return Spans(self.starts, np.maximum(self.lengths, 0))

    def flatten(self) -> np.ndarray:
        """All the windows' values in one array, row after row."""
        values = self.log.columns[self.column]
        if self.row_times is None:
            return values[self.spans.index()]
        return self.spans.time_since(values, self.row_times)

    def compact(self) -> WindowArray:
        """Return the same cells over a log of only the events they cover, each once."""
        log, spans = self.log.cut(self.column, self.spans)
        return WindowArray(log, self.column, spans.starts, self.lengths, self.row_times)

    @property
    def fingerprint(self) -> int:
        """Return a hash, equal for columns with equal windows on the same events."""
        return hash((self.log.token, self.log.part, self.starts.tobytes()))

    def __reduce__(self):
        small = self.compact()
        return WindowArray, (small.log, small.column, small.starts, small.lengths, small.row_times)

    # What pandas asks for: Any stands where its own signatures say so --------------------------

    @classmethod
    def _from_sequence(
        cls, scalars: Iterable[object], *, dtype: object = None, copy: bool = False
    ) -> WindowArray:
        scalars = getattr(scalars, "array", scalars)
        if isinstance(scalars, WindowArray):
            return scalars.copy()
        cells = [_check_cell(cell) for cell in scalars]
        lengths = np.array([MISSING if c is None else len(c) for c in cells], dtype=np.int32)
        values = join_values([np.asarray(cell) for cell in cells if cell is not None and len(cell)])
        starts = Spans.from_lengths(np.maximum(lengths, 0)).starts
        return cls(EventLog({"values": values}), "values", starts, lengths)

    @classmethod
    def _from_scalars(cls, scalars: Sequence[object], *, dtype: object) -> WindowArray:
        if not all(cell is None or isinstance(cell, np.ndarray) for cell in scalars):
            raise TypeError("not history cells")  # pandas then infers the dtype of a result
        return cls._from_sequence(scalars)

    @classmethod
    def _from_factorized(cls, values: Iterable[object], original: WindowArray) -> WindowArray:
        return cls._from_sequence(values)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[WindowArray]) -> WindowArray:
        arrays = list(to_concat)
        filled = [array for array in arrays if (array.lengths > 0).any()] or arrays[:1]
        if len({array.row_times is None for array in filled}) > 1:  # elapsed times and plain cells
            return cls._from_sequence([cell for array in arrays for cell in array])
        log, column, offsets = merge_logs([(array.log, array.column) for array in filled])
        shifts = [offsets.get(array.log.key(array.column), 0) for array in arrays]
        starts = [
            np.where(array.lengths > 0, array.starts + shift, 0)
            for array, shift in zip(arrays, shifts, strict=True)
        ]
        row_times = None
        if filled[0].row_times is not None:
            parts = [
                np.full(len(a), np.nan) if a.row_times is None else a.row_times for a in arrays
            ]
            row_times = np.concatenate(parts)
        lengths = np.concatenate([array.lengths for array in arrays])
        return cls(log, column, np.concatenate(starts), lengths, row_times)

    @property
    def dtype(self) -> WindowDtype:
        """The registered dtype."""
        return WindowDtype()

    @property
    def nbytes(self) -> int:
        """Bytes of the windows alone: the log is shared."""
        row_times = 0 if self.row_times is None else self.row_times.nbytes
        return self.starts.nbytes + self.lengths.nbytes + row_times

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return (self._cell(row) for row in range(len(self)))

    def __getitem__(self, item: Any) -> Any:
        item = check_array_indexer(self, item)
        if isinstance(item, int | np.integer):
            return self._cell(item)
        return self._map_rows(lambda rows: rows[item])

    def __setitem__(self, key: Any, value: Any) -> None:
        rows = np.arange(len(self))[check_array_indexer(self, key)]
        is_one_cell = rows.ndim == 0 or not _are_cells(value)
        cells = self._from_sequence([value] if is_one_cell else value)
        source = np.arange(len(self))
        source[rows] = len(self) + (0 if is_one_cell else np.arange(len(cells)))
        joined = self._concat_same_type([self, cells])
        vars(self).update(vars(joined.take(source)))

    def take(
        self, indices: Any, *, allow_fill: bool = False, fill_value: object = None
    ) -> WindowArray:
        """Rows by position; with ``allow_fill``, -1 gives ``fill_value`` (missing)."""
        indices = np.asarray(indices, dtype=np.intp)
        if not allow_fill:
            return self._map_rows(lambda rows: rows.take(indices))
        own = np.arange(len(self))
        indices = take(own, indices, allow_fill=True, fill_value=len(self))
        return self._concat_same_type([self, self._from_sequence([fill_value])]).take(indices)

    def copy(self) -> WindowArray:
        """Return the same windows in their own arrays; the log stays shared."""
        return self._map_rows(np.copy)

    def isna(self) -> np.ndarray:
        """Return a mask of the missing cells (an empty history is not missing)."""
        return self.lengths == MISSING

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        # Always one dimension: numpy would stack cells of equal length into two.
        cells = np.fromiter(self, dtype=object, count=len(self))
        return cells if dtype is None else cells.astype(dtype)

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        import pyarrow as pa

        small = self.compact()
        positions = small.spans.index()
        if self.row_times is None:
            values = arrow_of_events(small.log.columns[self.column], self.column)
            if len(positions) >= _LARGE and pa.types.is_string(values.type):
                values = values.cast(pa.large_string())
            values = values.take(pa.array(positions))
        else:
            values = pa.array(self.flatten())
        offsets = np.concatenate([[0], np.cumsum(self.spans.lengths)])
        large = len(positions) >= _LARGE
        nulls = np.append(self.isna(), False)  # a null offset makes a null list
        array = (pa.LargeListArray if large else pa.ListArray).from_arrays(
            pa.array(offsets, pa.int64() if large else pa.int32(), mask=nulls), values
        )
        return array if type is None else array.cast(type)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Cast to object (cells) or to text (one string per cell)."""
        dtype = pd.api.types.pandas_dtype(dtype)
        texts = (None if cell is None else _format_cell(cell, limit=None) for cell in self)
        if isinstance(dtype, pd.StringDtype):
            return pd.array(list(texts), dtype=dtype)
        if dtype.kind == "U":  # what str means to pandas 2
            return np.array([str(text) for text in texts], dtype=object)
        if isinstance(dtype, pd.ArrowDtype) and dtype.kind == "O" and self.isna().all():
            return pd.Series([None] * len(self), dtype=dtype).array  # no cast of lists is known
        return super().astype(dtype, copy=copy)

    def __eq__(self, other: Any) -> Any:
        """Cell by cell; a missing cell equals nothing."""
        if isinstance(other, pd.Series | pd.Index | pd.DataFrame):
            return NotImplemented
        if not pd.api.types.is_list_like(other):
            return np.zeros(len(self), dtype=bool)
        if len(other) != len(self):
            raise ValueError(f"Lengths must match to compare: {len(self)} and {len(other)}")
        pairs = zip(self, self._from_sequence(other), strict=True)
        return np.array(
            [a is not None and b is not None and np.array_equal(a, b) for a, b in pairs], dtype=bool
        )

    __hash__ = None  # type: ignore[assignment]

    def _values_for_factorize(self) -> tuple[np.ndarray, None]:
        # Cells as tuples can be hashed and ordered, so drop_duplicates and groupby work.
        cells = (None if cell is None else tuple(cell.tolist()) for cell in self)
        return np.fromiter(cells, dtype=object, count=len(self)), None

    def _values_for_argsort(self) -> np.ndarray:
        return self._values_for_factorize()[0]

    def duplicated(self, keep: Literal["first", "last", False] = "first") -> np.ndarray:
        """Return a mask of the cells that repeat another."""
        return pd.Series(self.factorize()[0]).duplicated(keep=keep).to_numpy()

    def unique(self) -> WindowArray:
        """The first of each distinct cell."""
        return self[~self.duplicated()]

    def value_counts(self, dropna: bool = True) -> pd.Series:
        """Count how often each distinct history occurs."""
        codes, cells = self.factorize(use_na_sentinel=dropna)
        counts = np.bincount(codes[codes >= 0], minlength=len(cells))
        return pd.Series(counts, index=pd.Index(cells), name="count", dtype="int64")

    def _explode(self) -> tuple[np.ndarray, np.ndarray]:
        counts = np.maximum(self.lengths, 1).astype(np.uint64)
        sources = np.full(int(counts.sum()), MISSING)
        filled = np.repeat(self.lengths > 0, counts.astype(np.int64))
        sources[filled] = np.arange(filled.sum())
        return pd.Series(self.flatten()).reindex(sources).to_numpy(), counts

    def _formatter(self, boxed: bool = False) -> Callable[[np.ndarray | None], str]:
        return _format_cell

    # Private --------------------------------------------------------------------------------

    def _cell(self, row: SupportsIndex) -> np.ndarray | None:
        start, length = self.starts[row], self.lengths[row]
        if length == MISSING:
            return None
        values = self.log.columns[self.column][start : start + length]
        return values if self.row_times is None else self.row_times[row] - values

    def _map_rows(self, select: Callable[[np.ndarray], np.ndarray]) -> WindowArray:
        row_times = None if self.row_times is None else select(self.row_times)
        return WindowArray(
            self.log, self.column, select(self.starts), select(self.lengths), row_times
        )


def _are_cells(value: Any) -> bool:
    """Return whether an assigned value is several cells rather than one."""
    if isinstance(value, WindowArray):
        return True
    if not pd.api.types.is_list_like(value) or len(value) == 0:
        return False
    return all(cell is None or pd.api.types.is_list_like(cell) for cell in value)


def _check_cell(cell: object) -> np.ndarray | None:
    if isinstance(cell, np.ndarray):
        if cell.ndim != 1:
            raise ValueError(f"a history cell must have one dimension, got {cell.ndim}")
        return cell
    if isinstance(cell, list | tuple | pd.Series | ExtensionArray):
        # Integers, floats or objects: never numpy's fixed-width text
        return pd.Series(list(cell), dtype=object).infer_objects().to_numpy()
    if cell is None or cell is pd.NA or (isinstance(cell, float | np.floating) and np.isnan(cell)):
        return None
    raise TypeError(
        f"a history cell must be a list, tuple, array or missing, got {type(cell).__name__}"
    )


def _format_cell(cell: np.ndarray | None, limit: int | None = 5) -> str:
    if cell is None:
        return "None"
    shown = [f"{v:g}" if isinstance(v, float) else str(v) for v in cell.tolist()]
    if limit is not None and len(shown) > limit:
        shown = [*shown[:2], "...", *shown[-2:]]
    return f"[{', '.join(shown)}]"
