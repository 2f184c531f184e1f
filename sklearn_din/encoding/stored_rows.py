"""Encoded rows of a scan, in a store: written part by part, read as mapped arrays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import as_numbers
from sklearn_din.encoding.column import Part
from sklearn_din.encoding.histories import count_events, keep_newest
from sklearn_din.encoding.table import ColumnReader, Impressions
from sklearn_din.encoding.table_columns import TableColumns
from sklearn_din.features.encoded import METADATA, EncodedFeatures
from sklearn_din.features.lists import Column, DistinctLists, IdLists
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Behaviour, Schema
from sklearn_din.features.store import Store, StoreWriter, make_once
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.warnings import warn_of

if TYPE_CHECKING:
    from sklearn_din.encoding.rows import RowEncoder

AT_A_TIME = 131_072  # rows, or events of a log


def encode_in_store(encoder: RowEncoder, table: Impressions, name: str) -> EncodedFeatures:
    """Return the rows of a scan that the store of that name keeps; encode them if there is none."""
    scan: Any = table.scan
    write = partial(_write_rows, encoder, table)
    store = make_once(scan.cache_dir, name, write, memory=scan.memory)
    return open_rows(store, encoder.learnt.schema)


def _write_rows(encoder: RowEncoder, table: Impressions, writer: StoreWriter) -> None:
    """Write the parts one after the other; logs that rows share once, and their windows."""
    shared = SharedLogs(table.scan, encoder.learnt)
    sink = RowSink(writer, table.positions, len(table))
    names = {name for behaviour in shared.behaviours for name in behaviour.columns}
    rest = replace(encoder, learnt=encoder.learnt.without(names))
    n_events: Counter = Counter()
    are_of_fit = True
    for start, part in table.map(rest.encode_part, rest.names_of(table), "encoding"):
        if part.users is not None:
            part.users = part.user_keys.hashes
        are_of_fit &= encoder.learnt.are_of_fit(part.times)
        sink.append(part, start)
        n_events.update(count_events(part.behaviours))
    for behaviour in shared.behaviours:
        for name, values in shared.events(behaviour):
            sink.append_events(name, values)
        for start, windows in shared.windows(behaviour):
            sink.append_windows(behaviour, windows, start)
            n_events[behaviour.histories] += int(windows.spans.lengths.sum())
    if not are_of_fit:
        warn_of(encoder.learnt.note_lengths(n_events, len(table)), once=True)


class SharedLogs:
    """Behaviours of an :class:`AttachedScan`, whose events are kept and encoded once."""

    def __init__(self, scan: Any, learnt: TableColumns) -> None:
        self._learnt, self._logs = learnt, dict[Behaviour, Any]()
        is_attached = hasattr(scan, "find_log") and len(scan) > 0
        for behaviour in learnt.behaviours if is_attached else ():
            stored = scan.find_log(behaviour.columns)
            if stored is None or not stored[0].n_events:
                continue
            # Times of the log are subtracted when they are read, as only such a scale allows.
            times = {stored[0].clock} & {*behaviour.numbers}
            if all(learnt.numbers[name].scale.is_elapsed for name in times):
                self._logs[behaviour] = stored
        self.behaviours = tuple(self._logs)

    def events(self, behaviour: Behaviour) -> Iterator[tuple[str, Column]]:
        """Yield what each history holds of the events of the log, encoded, part by part."""
        learnt, (log, _) = self._learnt, self._logs[behaviour]
        for start in range(0, log.n_events, AT_A_TIME):
            for name in behaviour.columns:
                values, _ = log.take(name, slice(start, start + AT_A_TIME))
                column = pd.Series(values, dtype=values.dtype, name=name)
                if name in behaviour.histories:
                    ids = learnt.ids[name]
                    part = ids.read(ColumnReader(column.to_frame()))
                    yield name, ids.encode(part, learnt.vocabularies)[name]
                else:
                    numbers, number = as_numbers(column, name=name), learnt.numbers[name]
                    encoded = number.encode(Part(numbers={name: numbers}), {})[name]
                    yield name, numbers / number.scale.scale if name == log.clock else encoded

    def windows(self, behaviour: Behaviour) -> Iterator[tuple[int, Ragged]]:
        """Yield the first of some rows, and their windows in the log, without its events."""
        log, rows = self._logs[behaviour]
        for start in range(0, len(rows), AT_A_TIME):
            some = rows[start : start + AT_A_TIME]
            row_times = {
                name: log.row_times(some) / self._learnt.numbers[name].scale.scale
                for name in behaviour.numbers
                if name == log.clock
            }
            newest, n_older = keep_newest(log.spans(some), behaviour)
            yield start, Ragged({}, newest, row_times, n_older)


class RowSink:
    """Writes encoded rows to a store, in order or each to its position in ``positions``."""

    def __init__(self, writer: StoreWriter, positions: np.ndarray | None, n_rows: int) -> None:
        self._writer, self._positions, self._n_rows = writer, positions, n_rows
        self._filled: dict[str, np.ndarray] = {}
        self._n_events: dict[str, int] = {}
        self._lists: dict[str, dict[int, int]] = {}  # by field and digest, each list's position

    def append(self, part: EncodedFeatures, start: int) -> None:
        """Write some rows, of which ``start`` is the first; their events are their own."""
        for name, values in part.columns.items():
            self._write(f"column {name}", self._write_lists(name, values), start)
        for behaviour in part.schema.behaviours:
            ragged, key = part.behaviours[behaviour.histories], _key(behaviour)
            n_events = self._n_events.get(key, 0)
            spans = Spans(ragged.spans.starts + n_events, ragged.spans.lengths)
            self.append_windows(behaviour, ragged.over({}, spans, ragged.n_older), start)
            for name, values in ragged.columns.items():
                self.append_events(name, values)
            self._n_events[key] = n_events + len(values)
        for name, values in part.metadata.items():
            self._write(name, values, start)

    def append_events(self, name: str, values: Column) -> None:
        """Write what further events hold."""
        self._writer.append(f"event {name}", self._write_lists(name, values))

    def append_windows(self, behaviour: Behaviour, windows: Ragged, start: int) -> None:
        """Write the windows of some rows over the events of one behaviour, which are not read."""
        key, spans = _key(behaviour), windows.spans
        self._write(f"starts {key}", spans.starts.astype(np.int64, copy=False), start)
        self._write(f"lengths {key}", spans.lengths, start)
        if not behaviour.is_bag:
            none = np.zeros(len(spans), dtype=np.int16)
            n_older = none if windows.n_older is None else windows.n_older
            self._write(f"n_older {key}", n_older, start)
        for name, times in windows.row_times.items():
            self._write(f"row_time {name}", times, start)

    def _write_lists(self, name: str, values: Column) -> np.ndarray:
        """Write the lists that no part before had, and return the positions of the values' own."""
        if not isinstance(values, IdLists):
            return values
        known = self._lists.setdefault(name, {})
        n_before, digests = len(known), values.distinct.digests.tolist()
        positions = np.array([known.setdefault(d, len(known)) for d in digests], dtype=np.int32)
        new = values.distinct.take(np.flatnonzero(positions >= n_before))
        self._writer.append(f"list lengths {name}", new.lengths)
        self._writer.append(f"list ids {name}", new.ids)
        return positions[values.positions]

    def _write(self, name: str, values: np.ndarray, start: int) -> None:
        if self._positions is None:
            self._writer.append(name, values)
            return
        if name not in self._filled:
            shape = (self._n_rows, *values.shape[1:])
            self._filled[name] = self._writer.allocate(name, shape, values.dtype)
        self._filled[name][self._positions[start : start + len(values)]] = values


def open_rows(store: Store, schema: Schema) -> EncodedFeatures:
    """Return the encoded rows that a :class:`RowSink` has written, over mapped arrays."""

    def read(array: str, name: str) -> Column:
        if f"list ids {name}" not in store:
            return store[array]
        lists = DistinctLists(store[f"list lengths {name}"], store[f"list ids {name}"])
        return IdLists(store[array], lists)

    columns = {
        field.name: read(f"column {field.name}", field.name)
        for field in schema.fields
        if not field.is_history
    }
    behaviours = {}
    for behaviour in schema.behaviours:
        key = _key(behaviour)
        spans = Spans(store[f"starts {key}"], store[f"lengths {key}"])
        events = {name: read(f"event {name}", name) for name in behaviour.columns}
        row_times = {n: store[f"row_time {n}"] for n in events if f"row_time {n}" in store}
        n_older = None if behaviour.is_bag else store[f"n_older {key}"]
        behaviours[behaviour.histories] = Ragged(events, spans, row_times, n_older)
    metadata = {name: store[name] for name in METADATA if name in store}
    return EncodedFeatures._without_checks(schema, columns, behaviours, store=store, **metadata)


def _key(behaviour: Behaviour) -> str:
    return json.dumps(behaviour.histories)
