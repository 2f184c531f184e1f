"""A sorted event log in files: its columns are written once, and windows are cut out of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._arrow import MixedKindsError, arrow_of_values
from sklearn_din._spans import Spans
from sklearn_din._validation import plain_values
from sklearn_din.logs.eventlog import EventLog
from sklearn_din.logs.mapped_arrays import ArrayWriter, MappedArray, OwnedFolder
from sklearn_din.logs.partitions import text_codes

MOST_DISTINCT = 2**31 - 1


class DistinctValues:
    """Numbers for distinct values that arrive part by part; a known value keeps its number.

    Values are kept in hash tables whose sizes grow geometrically: each is built once, and two of
    about the same size are joined, so that a value is hashed a logarithmic number of times.

    Examples
    --------
    >>> known = DistinctValues()
    >>> known.codes(np.array(["hat", "tie"], dtype=object))
    array([0, 1])
    >>> known.codes(np.array(["cap", "hat"], dtype=object))
    array([2, 0])
    """

    def __init__(self) -> None:
        self._tables: list[pd.Index] = []
        self.n_values = 0

    def codes(self, distinct: np.ndarray) -> np.ndarray:
        """Number of each of some distinct values; new ones get the next free numbers."""
        codes = np.full(len(distinct), -1, dtype=np.int64)
        first = 0
        for table in self._tables:
            unknown = np.flatnonzero(codes < 0)
            places = table.get_indexer(pd.Index(distinct[unknown], dtype=table.dtype))
            codes[unknown] = np.where(places < 0, -1, places + first)
            first += len(table)
        unknown = np.flatnonzero(codes < 0)
        if len(unknown):
            codes[unknown] = self.n_values + np.arange(len(unknown))
            self.n_values += len(unknown)
            self._append(pd.Index(distinct[unknown], dtype=distinct.dtype))
        return codes

    def values(self) -> np.ndarray:
        """All values, in the order of their numbers."""
        if not self._tables:
            return np.empty(0, dtype=object)
        return np.concatenate([table.to_numpy() for table in self._tables])

    def _append(self, table: pd.Index) -> None:
        while self._tables and len(self._tables[-1]) < 2 * len(table):
            table = self._tables.pop().append(table)
        self._tables.append(table)


class ColumnWriter:
    """Turns parts of an event column into arrays of fixed width, and remembers how to read them.

    Numbers and datetimes are kept as they are, beside a mark where one is missing; all else as
    int32 codes of its distinct values.

    Parameters
    ----------
    column : str
        Name of the event column.
    dtype : dtype
        That it has in the parts.
    """

    def __init__(self, column: Any, dtype: Any) -> None:
        self.column, self.dtype = column, dtype
        kind = getattr(dtype, "pyarrow_dtype", None)
        self._arrow_time = kind is not None and (
            pa.types.is_timestamp(kind) or pa.types.is_duration(kind)
        )
        is_number = not isinstance(dtype, pd.CategoricalDtype) and (
            pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
        )
        is_number = is_number and not (kind is not None and pa.types.is_decimal(kind))
        is_numpy_time = isinstance(dtype, np.dtype) and dtype.kind in "mM"
        self.is_coded = not (is_number or self._arrow_time or is_numpy_time)
        if kind is not None and pa.types.is_nested(kind):
            raise TypeError(
                f"a history column must hold numbers, text or dates, got {column!r} of {kind}. "
                "Make one value of each event, or leave the column out."
            )
        self.known = DistinctValues()
        self.has_missing = False

    def arrays(self, column: pd.Series) -> list[np.ndarray]:
        """One array per row of a part, and where numbers can be missing a second one."""
        if self.is_coded:
            codes, distinct = text_codes(column)
            numbers = np.append(self.known.codes(distinct), -1)
            if self.known.n_values > MOST_DISTINCT:
                raise ValueError(
                    f"{self.column!r} must have at most {MOST_DISTINCT:,} distinct values, got "
                    "more. Make numbers of them, or leave out the rare ones."
                )
            return [numbers[codes].astype(np.int32)]
        if self._arrow_time:
            chunks = pa.chunked_array(pa.array(column.array)).cast(pa.int64())
            missing = column.isna().to_numpy(dtype=bool)
            return [chunks.fill_null(0).to_numpy(), self._noted(missing)]
        if isinstance(self.dtype, np.dtype) or pd.api.types.is_float_dtype(self.dtype):
            return [plain_values(column)]
        missing = column.isna().to_numpy(dtype=bool)
        filled = column.fillna(False if pd.api.types.is_bool_dtype(self.dtype) else 0)
        return [plain_values(filled), self._noted(missing)]

    def _noted(self, missing: np.ndarray) -> np.ndarray:
        self.has_missing = self.has_missing or bool(missing.any())
        return missing


@dataclass(frozen=True)
class MappedColumn:
    """One event column in files.

    Parameters
    ----------
    values : MappedArray
        Numbers, ticks of datetimes, or codes.
    missing : MappedArray or None
        Where a number is missing. None if nowhere.
    dictionary : str or None
        File of the distinct values, where the values are codes.
    arrow_type : Arrow type or None
        Of datetimes in Arrow's form.
    """

    values: MappedArray
    missing: MappedArray | None = None
    dictionary: str | None = None
    arrow_type: pa.DataType | None = None

    def take(self, rows: slice | np.ndarray) -> tuple[np.ndarray, tuple | None]:
        """Events as they are in memory, and codes with distinct values where they are coded."""
        stored = self.values.take(rows)
        if self.dictionary is not None:
            codes = np.full(len(stored), -1, dtype=np.int32)
            is_there = stored >= 0
            codes[is_there], numbers = pd.factorize(stored[is_there])
            distinct = self._distinct(numbers)
            return np.append(distinct, [pd.NA])[codes], (codes, distinct)
        missing = None if self.missing is None else self.missing.take(rows)
        if self.arrow_type is None and missing is None:
            return stored, None
        if self.arrow_type is None:
            values = stored.astype(object)
            values[missing] = pd.NA
            return values, None
        array = pa.array(stored, mask=missing).view(self.arrow_type)
        column = pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))
        return plain_values(column) if missing is None else column.to_numpy(dtype=object), None

    def _distinct(self, numbers: np.ndarray) -> np.ndarray:
        path = self.values.folder.path / str(self.dictionary)
        with pa.memory_map(str(path)) as source:
            column = pa.ipc.open_file(source).read_all().column(0).take(pa.array(numbers))
            if pa.types.is_large_string(column.type):
                return column.to_numpy(zero_copy_only=False).astype(object)
            values = np.empty(len(column), dtype=object)
            values[:] = column.to_pylist()
            return values


class MappedLog:
    """Event columns in files, sorted by user and time; what windows cover is cut out of them.

    Parameters
    ----------
    columns : mapping of str to MappedColumn
        By history column.
    token : str
        Which call made the log.
    n_events : int
        Number of events.
    """

    def __init__(self, columns: Mapping[str, MappedColumn], *, token: str, n_events: int) -> None:
        self.columns, self.token, self.n_events = dict(columns), token, n_events

    def __len__(self) -> int:
        return self.n_events

    def cut(self, names: Sequence[str], spans: Spans) -> tuple[dict[str, EventLog], Spans]:
        """Logs in memory of only the events that the windows cover, and the windows over them.

        Parameters
        ----------
        names : sequence of str
            History columns wanted: one log for each, all of them of one key.
        spans : Spans
            Windows of the whole log.
        """
        covered = spans.covered()
        digest = hashlib.blake2b(covered.run_starts.tobytes(), digest_size=16)
        digest.update(covered.run_lengths.tobytes())
        kept = covered.kept
        logs = {}
        for name in names:
            values, codes = self.columns[name].take(kept)
            logs[name] = EventLog(
                {name: values},
                token=self.token,
                part=digest.hexdigest(),
                codes=None if codes is None else {name: codes},
            )
        return logs, covered.spans


class LogWriter:
    """Writes the columns of a sorted log, one run of events after the other.

    Parameters
    ----------
    folder : Path
        Where.
    columns : mapping of str to ColumnWriter
        By history column.
    clock : str or None
        Name of the history column of elapsed times.
    """

    def __init__(
        self, folder: Path, columns: Mapping[str, ColumnWriter], clock: str | None
    ) -> None:
        self._folder, self._columns, self._clock = folder, dict(columns), clock
        self._writers: dict[str, ArrayWriter] = {}
        self.n_events = 0

    def append(self, stored: str, values: np.ndarray) -> None:
        """Write sorted values of one array of a column."""
        if stored not in self._writers:
            file = f"log-{len(self._writers)}.values"
            self._writers[stored] = ArrayWriter(self._folder, file, values.dtype)
        self._writers[stored].append(values)

    def finish(self) -> dict[str, Any]:
        """Write the distinct values; return what :func:`read_log` needs, as plain values."""
        facts: dict[str, Any] = {}
        for place, (name, column) in enumerate(self._columns.items()):
            fact: dict[str, Any] = {"values": self._fact(stored_name(place, 0))}
            if column.has_missing:
                fact["missing"] = self._fact(stored_name(place, 1))
            if column.is_coded:
                fact["dictionary"] = f"log-{place}.distinct"
                self._write_distinct(fact["dictionary"], column)
            if column._arrow_time:
                kind = column.dtype.pyarrow_dtype
                is_duration = pa.types.is_duration(kind)
                fact["time"] = [is_duration, kind.unit, None if is_duration else kind.tz]
            facts[name] = fact
        if self._clock is not None:
            facts[self._clock] = {"values": self._fact(CLOCK)}
        return facts

    def _fact(self, stored: str) -> list[Any] | None:
        writer = self._writers.get(stored)
        return None if writer is None else [writer.name, writer.dtype.str, writer.n_rows]

    def _write_distinct(self, file: str, column: ColumnWriter) -> None:
        try:
            array = arrow_of_values(column.known.values())
        except MixedKindsError as error:
            raise ValueError(
                f"{column.column!r} holds events of several kinds, which cannot be kept on disk "
                f"({error}). Make them one kind before attach_history, with astype(str) for "
                "example."
            ) from error
        if pa.types.is_string(array.type) or pa.types.is_null(array.type):
            array = array.cast(pa.large_string())
        table = pa.table([array], names=["distinct"])
        path = str(self._folder / file)
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


CLOCK = "clock"


def stored_name(place: int, array: int) -> str:
    """How the arrays of a column are called while they are on their way."""
    return f"column {place} {array}"


def read_log(folder: OwnedFolder, facts: Mapping[str, Any], *, token: str) -> MappedLog:
    """A log out of what :meth:`LogWriter.finish` has written.

    Parameters
    ----------
    folder : OwnedFolder
        Where the files are.
    facts : dict
        What ``finish`` returned.
    token : str
        Which call made the log: no two logs whose events lie in another order may share it.
    """
    columns = {}
    for name, fact in facts.items():
        kind = None
        if "time" in fact:
            is_duration, unit, zone = fact["time"]
            kind = pa.duration(unit) if is_duration else pa.timestamp(unit, zone)
        columns[name] = MappedColumn(
            _mapped(folder, fact["values"]),
            _mapped(folder, fact["missing"]) if "missing" in fact else None,
            fact.get("dictionary"),
            kind,
        )
    n_events = max((len(column.values) for column in columns.values()), default=0)
    return MappedLog(columns, token=token, n_events=n_events)


def _mapped(folder: OwnedFolder, fact: Sequence[Any] | None) -> MappedArray:
    if fact is None:  # not one event
        return MappedArray(folder, "", np.dtype(np.int64), 0)
    name, dtype, n_rows = fact
    return MappedArray(folder, name, np.dtype(dtype), n_rows)
