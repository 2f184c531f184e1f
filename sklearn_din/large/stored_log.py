"""Histories in a store: the columns of a sorted log, written once, and windows over them."""

import base64
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.features.store import Store, StoreWriter
from sklearn_din.large.sorting import plain_integers
from sklearn_din.logs.windows import EventLog, WindowArray
from sklearn_din.utils.arrow import arrow_of_column, arrow_of_events, is_list
from sklearn_din.utils.digests import digest
from sklearn_din.utils.spans import Rows, Spans
from sklearn_din.utils.validation import plain_values

RowNumbers = range | np.ndarray


class ColumnWriter:
    """Encodes chunks of an event column as integers, to be sorted and written to a store.

    Numbers, times and truth values are their own bits; all others are numbered as they come.
    ``name`` is the history column, ``column`` the event column, or an empty one of its dtype.
    """

    def __init__(self, name: str, column: pd.Series) -> None:
        self.name, self._event_column = name, column.name
        self.kind = self._arrow(column).type
        self._holds_lists = is_list(self.kind)
        if pa.types.is_nested(self.kind.value_type if self._holds_lists else self.kind):
            raise TypeError(
                f"a history column must hold numbers, text or dates, or lists of them, got "
                f"{column.name!r} of {self.kind}. Make one value of each event, or a list of "
                "values, or leave the column out."
            )
        self.is_coded = not pa.types.is_primitive(self.kind)
        # the type of what encode gives
        self.integers = pa.int32() if self.is_coded else plain_integers(pa.nulls(0, self.kind)).type
        self._codes: dict[Any, int] = {}
        self.n_events, self._has_missing = 0, False

    def encode(self, column: pd.Series) -> pa.Array:
        """Return a chunk of the column as integers; for numbered values, -1 is missing."""
        array = self._arrow(column)
        if self._holds_lists:  # Arrow numbers no lists
            lists = [None if cell is None else tuple(cell) for cell in array.to_pylist()]
            numbers = self._codes
            codes = [-1 if k is None else numbers.setdefault(k, len(numbers)) for k in lists]
            return pa.array(codes, pa.int32())
        if self.is_coded:
            array = array.dictionary_encode()
            values = array.dictionary.to_pylist()
            known = [self._codes.setdefault(value, len(self._codes)) for value in values]
            codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            return pa.array(np.append(known, -1)[codes].astype(np.int32))
        array = array.cast(self.kind)
        if pa.types.is_floating(self.kind):
            array = array.fill_null(float("nan"))
        return plain_integers(array)

    def append(self, writer: StoreWriter, integers: pa.Array) -> None:
        """Write sorted integers behind those that are there, and which are missing if any are."""
        missing = f"missing {self.name}"
        if integers.null_count and not self._has_missing:
            self._has_missing = True
            writer.append(missing, np.zeros(self.n_events, dtype=bool))
        if self._has_missing:
            writer.append(missing, integers.is_null().to_numpy(zero_copy_only=False))
        writer.append(f"events {self.name}", integers.fill_null(0).to_numpy())
        self.n_events += len(integers)

    def finish(self, writer: StoreWriter) -> None:
        """Write the values that were numbered, in their order."""
        if self.is_coded:
            values = pa.array(list(self._codes), type=self.kind)
            content = pa.record_batch([values], names=["value"]).serialize()
            writer.append(f"values {self.name}", np.frombuffer(content, dtype=np.uint8))

    def _arrow(self, column: pd.Series) -> pa.Array:
        if pd.api.types.is_object_dtype(column.dtype):
            array = arrow_of_events(plain_values(column), self._event_column)
        else:
            array = arrow_of_column(column)
        return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array


class StoredHistories:
    """History columns in a store: events sorted by user and time, and a window of them per row.

    ``names`` are the history columns, last that of elapsed times, the ``clock``, if there is one.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        facts = store.facts
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(facts["schema"])))
        self._kinds = {field.name: field.type for field in schema}
        self.clock, self.n_events = facts["clock"], int(facts["n_events"])
        self.names = [*self._kinds, *([] if self.clock is None else [self.clock])]

    def spans(self, rows: RowNumbers) -> Spans:
        """Return the windows of some rows."""
        index = index_of(rows)
        return Spans(np.array(self.store["starts"][index]), np.array(self.store["lengths"][index]))

    def row_times(self, rows: RowNumbers) -> np.ndarray:
        """Return the times of some rows, from which the clock's elapsed times count."""
        return np.array(self.store["row_times"][index_of(rows)])

    def take(self, name: str, rows: Rows) -> tuple[np.ndarray, tuple | None]:
        """Return events as they are in memory; codes with distinct values where they are coded."""
        if self.n_events == 0:
            return np.empty(0, dtype=np.float64 if name == self.clock else object), None
        stored = np.array(self.store[f"events {name}"][rows])
        if name == self.clock:
            return stored, None
        kind = self._kinds[name]
        if f"values {name}" in self.store:
            codes = np.full(len(stored), -1, dtype=np.int32)
            is_there = stored >= 0
            codes[is_there], numbers = pd.factorize(stored[is_there])
            distinct = self._distinct(name, numbers)
            return np.append(distinct, [pd.NA])[codes], (codes, distinct)
        missing = None
        if f"missing {name}" in self.store:
            missing = np.array(self.store[f"missing {name}"][rows])
        array = pa.array(stored, mask=missing)
        array = array.cast(kind) if pa.types.is_boolean(kind) else array.view(kind)
        chunks = pa.chunked_array([array])
        return plain_values(pd.Series(pd.arrays.ArrowExtensionArray(chunks), name=name)), None

    def columns(self, names: Sequence[str], rows: RowNumbers) -> dict[str, WindowArray]:
        """Return history columns of some rows, over logs of the events inside their windows."""
        covered = self.spans(rows).cover()
        starts, lengths = covered.spans.starts, covered.spans.lengths
        part = digest(covered.run_starts, covered.run_lengths)
        columns = {}
        for name in names:
            values, codes = self.take(name, covered.kept)
            log = EventLog(
                {name: values},
                token=self.store.facts["token"],
                part=part,
                codes=None if codes is None else {name: codes},
            )
            row_times = self.row_times(rows) if name == self.clock else None
            columns[name] = WindowArray(log, name, starts, lengths, row_times)
        return columns

    def _distinct(self, name: str, numbers: np.ndarray) -> np.ndarray:
        content, schema = self.store[f"values {name}"], pa.schema([("value", self._kinds[name])])
        column = pa.ipc.read_record_batch(pa.py_buffer(content), schema)[0].take(pa.array(numbers))
        if pa.types.is_large_string(column.type):
            return column.to_numpy(zero_copy_only=False).astype(object)
        return np.fromiter(column.to_pylist(), dtype=object, count=len(column))


def index_of(rows: RowNumbers) -> Rows:
    """Return row numbers as what picks those rows of an array."""
    if isinstance(rows, range) and rows.step == 1:
        return slice(rows.start, rows.stop)
    return np.asarray(rows, dtype=np.int64)


def log_facts(columns: Sequence[ColumnWriter], *, clock: str | None) -> dict[str, Any]:
    """Return what :class:`StoredHistories` must know of a log; its token is that of one call."""
    schema = pa.schema([(column.name, column.kind) for column in columns])
    text = base64.b64encode(schema.serialize()).decode()
    facts = {"schema": text, "clock": clock, "token": uuid.uuid4().hex}
    return {**facts, "n_events": columns[0].n_events}
