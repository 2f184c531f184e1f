"""Cells of columns as flat arrays: single ids and numbers, histories as windows of values."""

import datetime as dt
from array import array
from collections.abc import Iterable, Mapping, Set, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sklearn_din.features.lists import Column, IdLists
from sklearn_din.logs.windows import EventLog, WindowArray, join_values
from sklearn_din.utils.arrow import MixedKindsError, arrow_of_values, is_list
from sklearn_din.utils.spans import Rows, Spans
from sklearn_din.utils.validation import plain_values, python_values, refuse_unsure_ids

LARGEST = float(np.finfo(np.float32).max)
Values: TypeAlias = np.ndarray | pa.ChunkedArray
Codes = tuple[Column, np.ndarray]  # of lists: their values' codes
LISTS = (list, tuple, np.ndarray)
DURATIONS = (dt.timedelta, np.timedelta64)
NO_VALUES = np.empty(0, dtype=object)


def factorize(values: Values | pd.Series, *, name: str) -> Codes:
    """Each value's code (int32, -1 where missing) and the distinct values, as numpy arrays."""
    try:
        if isinstance(values, pa.ChunkedArray):
            values = pd.Series(pd.arrays.ArrowExtensionArray(values))
        if isinstance(values, pd.Series):  # not as a Series: pandas would infer another dtype
            is_numpy = isinstance(values.dtype, np.dtype)
            values = values.to_numpy() if is_numpy else values.array
        if values.dtype == np.float16:  # pandas has no index of them
            values = values.astype(np.float32)
        values = python_values(values)
        codes, distinct = pd.factorize(values)
    except (TypeError, pa.ArrowNotImplementedError) as error:  # lists, dicts: not hashable
        raise ValueError(
            f"{name} must hold ids (integers, text, categories), got values that cannot be "
            f"compared: {first_present(values)!r}. {_advice(values)}"
        ) from error
    refuse_unsure_ids(values, distinct, name=name)
    if not isinstance(distinct, np.ndarray):
        distinct = plain_values(pd.Series(distinct))
    if distinct.dtype.kind == "f" and np.isnan(distinct).any():  # a value like others, to Arrow
        codes, distinct = pd.factorize(np.append(distinct, np.nan)[codes])
    return codes.astype(np.int32), distinct


def seconds_of(values: np.ndarray) -> np.ndarray | None:
    """Return durations as seconds, NaN where missing; None of all other values."""
    if values.dtype == object and isinstance(first_present(values), DURATIONS):
        present = values[pd.notna(values)]  # beside NA, pandas 2.2 finds durations mixed
        is_duration = pd.api.types.infer_dtype(present) == "timedelta"
    else:
        is_duration = values.dtype.kind == "m"
    return np.asarray(pd.to_timedelta(values) / np.timedelta64(1, "s")) if is_duration else None


def as_numbers(column: pd.Series, *, name: str) -> np.ndarray:
    """Return the column as float64, durations in seconds, NaN where missing; or raise."""
    kind = getattr(column.dtype, "kind", "O")
    seconds = seconds_of(plain_values(column)) if kind in "mO" else None
    if seconds is not None:
        return seconds
    if kind in "Mc":
        got = "dates" if kind == "M" else "complex numbers"
        raise ValueError(
            f"{name} must hold numbers, got {got} ({column.dtype}). Give it the dtype that it had "
            "at fit, or make columns of real numbers."
        )
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold numbers, got dtype {column.dtype} with {first_present(column)!r}. "
            "Convert it with pd.to_numeric, or name it in categorical."
        ) from error
    except OverflowError as error:  # Python integers may be larger than any float
        raise _too_large(name, "an integer beyond float64") from error
    if np.isinf(numbers).any():
        raise ValueError(
            f"Input X contains infinity in {name}. Replace it by a finite number, or by NaN, "
            "which is given the mean."
        )
    largest = np.abs(numbers).max(initial=0.0, where=~np.isnan(numbers))
    if largest > LARGEST:
        raise _too_large(name, f"{largest:g}")
    return numbers


def _too_large(name: str, what: str) -> ValueError:
    return ValueError(
        f"Input X contains a value too large for float32 in {name}, {what}. Replace it by a "
        "smaller number, or by NaN, which is given the mean."
    )


def are_whole(numbers: np.ndarray) -> bool:
    """Return whether there are numbers and none has a fraction; missing ones do not count."""
    present = numbers[~np.isnan(numbers)]
    return bool(len(present)) and bool((present == np.floor(present)).all())


def is_missing(cell: Any) -> bool:
    """Return whether an object is missing: None, NaN, NaT or NA."""
    return cell is None or (pd.api.types.is_scalar(cell) and bool(pd.isna(cell)))


def first_present(values: Iterable | pa.ChunkedArray) -> object:
    """Return the first value that is not missing, None where there is none; of Python's types."""
    if isinstance(values, pa.ChunkedArray):
        values = values.to_pylist()
    first = next((value for value in values if not is_missing(value)), None)
    if isinstance(first, np.timedelta64):  # an integer to numpy
        return first
    return first.item() if isinstance(first, np.number | np.bool_) else first


def _advice(values: Values | pd.Series) -> str:
    """Suggest a way to encode values that are no ids. A map's cells read as lists of pairs."""
    kind = getattr(values, "type", getattr(getattr(values, "dtype", None), "pyarrow_dtype", None))
    is_map = isinstance(kind, pa.DataType) and pa.types.is_map(kind)
    if isinstance(first_present(values), list | tuple | np.ndarray) and not is_map:
        return "A column of lists belongs in histories."
    return "Give each part of such a value a column of its own."


@dataclass(frozen=True)
class HistoryCells:
    """A history column as windows over one flat array of events.

    values : (n_events,), ndarray or ChunkedArray. The events, oldest to newest inside each window.
    spans : the windows; those of missing cells are empty.
    row_times : (n_rows,), or None. Where given, a cell reads as ``row_time - values``.
    log : (EventLog, column), where the events are a log that other rows, folds and columns share.

    >>> cells = read_history(pd.Series([["hat", "sock", "hat"], None, ["shoe"]], name="clicks"))
    >>> cells.spans.lengths, cells.spans.newest(2).index()
    (array([3, 0, 1], dtype=int32), array([1, 2, 3]))
    """

    name: str
    values: Values
    spans: Spans
    row_times: np.ndarray | None = None
    log: tuple[EventLog, str] | None = None

    def expand(self) -> "HistoryCells":
        """Concatenate the windows, repeating events that several of them contain."""
        if self.row_times is None:
            values = _take(self.values, self.spans.index())
        else:
            values = self.spans.time_since(self.values, self.row_times)
        return HistoryCells(self.name, values, Spans.from_lengths(self.spans.lengths))

    def codes(self, selection: Rows) -> Codes:
        """Codes of some events and the distinct values, for most of a log by those of all."""
        if self.is_nested:
            raise ValueError(
                f"{self.name} holds a list of values for each event, such as "
                f"{first_present(self.values)!r:.40}, where single ids were learnt. Give each "
                "event one value, or fit again."
            )
        n_events = (
            selection.stop - selection.start if isinstance(selection, slice) else len(selection)
        )
        if self.log is not None and 2 * n_events >= len(self.values):
            log, column = self.log
            with suppress(TypeError):  # lists, dicts somewhere in the log: factorize names them
                codes, values = log.codes(column)
                return codes[selection], values
        return factorize(_take(self.values, selection), name=self.name)

    @property
    def is_nested(self) -> bool:
        """Return whether each event has a list of values, such as the genres of a film."""
        if isinstance(self.values, pa.ChunkedArray):
            return is_list(self.values.type)
        return self.values.dtype == object and isinstance(first_present(self.values), LISTS)

    def list_codes(self, selection: Rows) -> Codes:
        """Lists of codes of some events, each with its own values, and the distinct values."""
        values = _take(self.values, selection)
        if not self.is_nested:
            first = first_present(values)
            if first is None:
                return IdLists.from_lengths(np.zeros(len(values)), np.empty(0, np.int32)), NO_VALUES
            raise ValueError(
                f"{self.name} holds one value for each event, such as {first!r:.40}, where lists "
                "of values were learnt. Make each value a list of one."
            )
        if isinstance(values, np.ndarray):
            return _read_objects(values, self.name, None).codes_of_cells()
        return _read_arrow(values, self.name, None).codes_of_cells()

    def codes_of_cells(self) -> Codes:
        """Each cell as one list of codes, as of a candidate's genres, and the distinct values."""
        cells = self.expand()
        codes, values = cells.codes(slice(0, len(cells.values)))
        fractions = values[np.floor(values) < values] if values.dtype.kind == "f" else NO_VALUES
        if len(fractions):
            raise ValueError(
                f"{self.name} holds a list of numbers for each candidate or event, such as "
                f"{fractions[0]}, and lists must hold ids. Vectors of items belong in vectors; "
                "give each other number a column of its own."
            )
        return IdLists.from_lengths(cells.spans.lengths, codes), values

    def numbers(self, selection: Rows) -> np.ndarray:
        """Return some events as float64, NaN where missing."""
        values = _take(self.values, selection)
        if isinstance(values, pa.ChunkedArray):
            values = values.to_numpy()
        return as_numbers(pd.Series(values), name=self.name)


def read_history(column: pd.Series, *, separator: str | None = None) -> HistoryCells:
    """Read the cells of a history column: windows, Arrow lists, objects, or text to be split.

    Missing cells are empty histories. Of text, spaces around the parts are cut; an empty part is a
    missing event.
    """
    if separator == "":
        raise ValueError("separator must be text of at least one character, got ''.")
    cells = _read_cells(column, separator)
    seconds = seconds_of(cells.values) if isinstance(cells.values, np.ndarray) else None
    return cells if seconds is None else replace(cells, values=seconds, log=None)


def _read_cells(column: pd.Series, separator: str | None) -> HistoryCells:
    """Read cells as they are kept: windows, objects, Arrow lists or text."""
    name = str(column.name)
    stored = column.array
    if isinstance(stored, WindowArray):
        values = stored.log.columns[stored.column]
        log = (stored.log, stored.column)
        return HistoryCells(name, values, stored.spans, stored.row_times, log)
    if column.dtype == object:
        return _read_objects(column.to_numpy(), name, separator)
    if is_arrow_list(column.dtype) or pd.api.types.is_string_dtype(column.dtype):
        cells = pa.array(stored, from_pandas=True)
    elif column.isna().all():  # a batch of new users: no dtype says that these were lists
        cells = pa.nulls(len(column))
    else:
        raise _not_lists(name, f"dtype {column.dtype}")
    chunks = cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells])
    return _read_arrow(chunks, name, separator)


def _read_arrow(cells: pa.ChunkedArray, name: str, separator: str | None) -> HistoryCells:
    """Read Arrow lists, or text that is split, as windows over the values of all cells."""
    if _is_text(cells.type) and separator is not None:
        cells = cells.cast(pa.large_string())
        empty = pc.equal(pc.utf8_trim_whitespace(cells), "")
        cells = pc.split_pattern(pc.if_else(empty, None, cells), separator)
    elif not is_list(cells.type) and cells.null_count == len(cells):
        cells = pa.chunked_array([pa.nulls(len(cells), pa.list_(pa.null()))])
    elif not is_list(cells.type):
        got = f"{cells.type} cells"
        if _is_text(cells.type):
            got = f"text such as {first_present(cells)!r:.40}, and separator is None"
        raise _not_lists(name, got)
    lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy().astype(np.int64)
    values = _trim(pc.list_flatten(cells), separator)
    return HistoryCells(name, _flat_values(values, name), Spans.from_lengths(lengths))


def _trim(values: pa.ChunkedArray, separator: str | None) -> pa.ChunkedArray:
    """Strip the parts of split strings; an empty part is a missing event."""
    if separator is None or not _is_text(values.type):
        return values
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(values, ""), None, values)


def _flat_values(values: pa.ChunkedArray, name: str) -> Values:
    """Numbers as numpy where that merges nothing; the rest stays with Arrow."""
    if pa.types.is_nested(values.type):
        if is_list(values.type) and not pa.types.is_nested(values.type.value_type):
            return values
        raise ValueError(
            f"{name} must hold lists of events, or of lists of an event's values, got "
            f"{values.type} inside each cell. Give each attribute of events a column of its own."
        )
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_duration(kind):
        return values.to_numpy()
    return values.to_numpy() if pa.types.is_integer(kind) and not values.null_count else values


def _read_objects(column: np.ndarray, name: str, separator: str | None) -> HistoryCells:
    """Lists, tuples and arrays as objects, or text."""
    kinds = set(map(type, column))
    for kind in kinds:  # they have no order of events
        if issubclass(kind, Mapping | Set):
            raise ValueError(
                f"{name} has cells of type {kind.__name__}: a history cell is a list, oldest to "
                "newest."
            )
    if any(issubclass(kind, str) for kind in kinds) and kinds.isdisjoint(LISTS):
        with suppress(MixedKindsError):
            return _read_arrow(pa.chunked_array([arrow_of_values(column)]), name, separator)
    is_usual = kinds <= {list, tuple, type(None), np.ndarray}
    cells = [() if cell is None or (not is_usual and is_missing(cell)) else cell for cell in column]
    if not is_usual or any(getattr(cell, "ndim", 1) != 1 for cell in cells):
        for row, cell in enumerate(cells):
            is_sized = isinstance(cell, LISTS) or (
                isinstance(cell, Sized) and not isinstance(cell, str | bytes)
            )
            if isinstance(cell, np.ndarray) and cell.ndim == 2:  # as many values of each event
                cells[row] = list(cell)
            elif not is_sized or getattr(cell, "ndim", 1) != 1:
                raise _not_lists(name, f"{cell!r:.40} ({type(cell).__name__}) in row {row}")
    lengths = np.fromiter(map(len, cells), dtype=np.int64, count=len(cells))
    return HistoryCells(name, _join(cells, name, separator), Spans.from_lengths(lengths))


def _join(cells: list, name: str, separator: str | None) -> Values:
    """All values, row after row: of one kind as numpy or Arrow have it, otherwise as objects."""
    filled = list(filter(len, cells))
    if set(map(type, filled)) == {np.ndarray}:
        values = join_values(filled)
        if values.dtype.kind in "iufmM":
            return values
        flat = values.astype(object, copy=False).tolist()
    else:
        flat = list(chain.from_iterable(filled))
    integers = _integers(flat) if flat else None
    if integers is not None:
        return integers
    types = set(map(type, flat))
    if types == {float}:
        return np.fromiter(flat, np.float64, len(flat))
    if types == {str}:
        with suppress(UnicodeEncodeError):  # lone surrogates
            return _trim(pa.chunked_array([pa.array(flat, pa.large_string())]), separator)
    objects = np.fromiter(flat, dtype=object, count=len(flat))
    with suppress(MixedKindsError):
        return _flat_values(_trim(pa.chunked_array([arrow_of_values(objects)]), separator), name)
    is_time = pd.api.types.infer_dtype(objects, skipna=True) == "datetime64"
    return objects.astype("datetime64[us]") if is_time else objects


def _integers(values: list) -> np.ndarray | None:
    """Return values that are all integers and fit, None of others; faster than type by type."""
    try:
        numbers = np.frombuffer(array("q", values), dtype=np.int64)
    except (TypeError, OverflowError):
        return None
    may_be_bool = np.flatnonzero((numbers == 0) | (numbers == 1)).tolist()
    return None if bool in set(map(type, map(values.__getitem__, may_be_bool))) else numbers


def _not_lists(name: str, got: str) -> ValueError:
    return ValueError(
        f"{name} must hold one history per cell (a list, a tuple, an array or a missing value; or "
        f"text, with separator='...'), got {got}. Build histories with attach_history, or leave "
        "the column out of histories."
    )


def _take(values: Values, selection: Rows) -> Values:
    if isinstance(values, np.ndarray):
        return values[selection]
    if isinstance(selection, slice):
        return values.slice(selection.start, selection.stop - selection.start)
    return values.take(pa.array(selection))


def is_arrow_list(dtype: object) -> bool:
    """Return whether a dtype is that of Arrow's lists."""
    return isinstance(dtype, pd.ArrowDtype) and is_list(dtype.pyarrow_dtype)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
