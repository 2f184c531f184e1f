"""attach_history where impressions or events are scans: by user on disk, never whole in memory."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din._frames import list_types
from sklearn_din._progress import Progress
from sklearn_din._validation import Age, check_frame
from sklearn_din.logs.attached_scan import AttachedScan, MappedHistories
from sklearn_din.logs.mapped_arrays import (
    FilledArray,
    MappedArray,
    OwnedFolder,
    kept_folder,
    new_folder,
    read_facts,
    settled,
    write_facts,
)
from sklearn_din.logs.mapped_log import (
    CLOCK,
    ColumnWriter,
    LogWriter,
    read_log,
    stored_name,
)
from sklearn_din.logs.partitions import Partitions
from sklearn_din.logs.past_columns import (
    MANY_ROWS,
    all_empty_message,
    check_impressions,
    history_names,
)
from sklearn_din.logs.tables import (
    LaidOut,
    Table,
    cache_of,
    joint_kinds,
    lay_out,
    memory_of,
    n_partitions,
)
from sklearn_din.logs.timeline import Timeline
from sklearn_din.logs.windows import WindowArray

PIECE_ROWS = 1 << 20  # impressions that are looked up at once
STARTS, LENGTHS, ANCHORS = "windows.starts", "windows.lengths", "windows.anchors"


@dataclass(frozen=True)
class Wanted:
    """What attach_history was asked for.

    Parameters
    ----------
    user, time : str
        Columns of both tables.
    columns : list of str
        Columns of the events.
    max_length : int
        Most events of a history.
    max_age : number, str, timedelta or None
        Oldest event.
    prefix : str
        Of the names of history columns.
    elapsed : str or None
        Name of the column of elapsed times.
    """

    user: Any
    time: Any
    columns: list[Any]
    max_length: int
    max_age: Age
    prefix: str
    elapsed: str | None

    @property
    def names(self) -> dict[str, Any]:
        """History column to event column, without that of elapsed times."""
        return {f"{self.prefix}{column}": column for column in self.columns}


def attach_history_by_part(impressions: Any, events: Any, wanted: Wanted) -> Any:
    """Attach histories where one of the tables is a scan; the parameters are checked already.

    Parameters
    ----------
    impressions, events : Scan, or pandas, polars or Arrow frame
        At least one of them a scan.
    wanted : Wanted
        What to attach.

    Returns
    -------
    AttachedScan or frame
        Of the kind of the impressions. A frame holds the events that its rows cover in memory.
    """
    shown = Table(impressions, name="impressions")
    log = Table(events, name="events")
    new_names = history_names(wanted.columns, wanted.prefix, wanted.elapsed)
    check_frame(log.frame, [wanted.user, wanted.time, *wanted.columns], name="events")
    check_impressions(shown.frame, wanted.user, wanted.time, new_names, name="impressions")
    kinds = joint_kinds(shown, log, [wanted.user])
    _check_heads(shown, log, wanted)
    digest = _digest(shown, log, wanted)
    cache = cache_of(shown, log)
    target = None if cache is None else cache / f"history-{digest[:32]}"
    folder = kept_folder(target)
    if folder is None:
        with new_folder(cache) as path:
            _write(path, shown, log, kinds, wanted)
            folder = settled(path, target)
    facts = read_facts(folder.path)
    if facts["empty"] is not None and not _is_own_log(shown, log, wanted):
        message = all_empty_message(facts["empty"], wanted.user, wanted.time)
        warnings.warn(message, UserWarning, stacklevel=3)
    histories = _read(folder, facts, wanted, len(shown))
    if shown.scan is not None:
        names = [*shown.scan.columns, *new_names]
        return AttachedScan(
            shown.scan,
            range(len(shown)),
            names,
            histories=histories,
            numbers={},
            digest=digest,
        )
    return _frame_with(shown, log, histories, wanted)


def _check_heads(shown: Table, log: Table, wanted: Wanted) -> None:
    """Raise what the whole tables would raise for their kinds of users, times and ages."""
    columns = [wanted.user, wanted.time]
    head, later = log.head(columns, wanted.time), shown.head(columns, wanted.time)
    timeline = Timeline(head, keys=[wanted.user], time=wanted.time)
    timeline.past(later, max_age=wanted.max_age)


def _write(folder: Path, shown: Table, log: Table, kinds: list[str | None], wanted: Wanted) -> None:
    """Write the sorted log and the windows of all impressions."""
    number = n_partitions(max(len(shown), len(log)), memory_of(shown, log))
    writers = {
        name: ColumnWriter(column, log.frame[column].dtype) for name, column in wanted.names.items()
    }

    def stored(part: pd.DataFrame) -> dict[str, np.ndarray]:
        arrays = [
            (stored_name(place, which), array)
            for place, (name, column) in enumerate(wanted.names.items())
            for which, array in enumerate(writers[name].arrays(part[column]))
        ]
        return dict(arrays)

    by_user = {"keys": [wanted.user], "kinds": kinds, "time": wanted.time}
    rows = Partitions(folder, "events", number)
    events = lay_out(log, rows, columns=wanted.columns, more=stored, **by_user)
    rows = Partitions(folder, "impressions", number)
    later = lay_out(shown, rows, **by_user)
    sorted_log = LogWriter(folder, writers, wanted.elapsed)
    empty = _write_windows(folder, events, later, sorted_log, wanted)
    events.rows.remove()
    later.rows.remove()
    write_facts(folder, {"log": sorted_log.finish(), "empty": empty, "token": uuid.uuid4().hex})


def _write_windows(
    folder: Path, events: LaidOut, shown: LaidOut, log: LogWriter, wanted: Wanted
) -> str | None:
    """Sort the events and cut the windows, one partition after the other."""
    n_rows = shown.n_rows
    starts = FilledArray(folder, STARTS, np.int64, n_rows)
    lengths = FilledArray(folder, LENGTHS, np.int32, n_rows)
    anchors = FilledArray(folder, ANCHORS, np.float64, n_rows if wanted.elapsed else 0)
    has_past = has_user = False
    total = int(events.rows.sizes.sum() + shown.rows.sizes.sum())
    with Progress("attaching histories", total) as progress:
        for partition in range(events.rows.n_partitions):
            first = log.n_events
            timeline = _sorted(partition, events, log, wanted)
            progress.update(int(events.rows.sizes[partition]))
            for piece in _pieces(partition, shown):
                progress.update(len(piece["row"]))
                if timeline is None:
                    continue
                frame = shown.frame(piece, wanted.time)
                past = timeline.past(frame, max_age=wanted.max_age)
                begin = np.maximum(past.begin, past.end - wanted.max_length)
                length = (past.end - begin).astype(np.int32)
                starts.fill(piece["row"], np.where(length > 0, first + begin, 0))
                lengths.fill(piece["row"], length)
                if wanted.elapsed is not None:
                    clock = timeline.impression_clock(frame, events.times.first)
                    anchors.fill(piece["row"], clock)
                has_past = has_past or bool((length > 0).any())
                has_user = has_user or bool(timeline.has_events(frame).any())
    return None if has_past else _why_all_empty(events, shown, wanted, has_user=has_user)


def _sorted(partition: int, events: LaidOut, log: LogWriter, wanted: Wanted) -> Timeline | None:
    """Sort one partition's events and write their columns behind those that are there."""
    if events.rows.sizes[partition] == 0:
        return None
    (piece,) = events.rows.read(partition, [*events.keys, "time"])
    timeline = Timeline(events.frame(piece, wanted.time), keys=events.keys, time=wanted.time)
    del piece
    for name in events.rows.names:
        if name.startswith("column "):
            ((values,),) = (one.values() for one in events.rows.read(partition, [name]))
            log.append(name, values[timeline.order])
    if wanted.elapsed is not None:
        log.append(CLOCK, timeline.event_clock(events.times.first))
    log.n_events += len(timeline.order)
    return timeline


def _pieces(partition: int, shown: LaidOut) -> Iterator[dict[str, np.ndarray]]:
    return shown.rows.read(partition, [*shown.keys, "time", "row"], n_rows=PIECE_ROWS)


def _why_all_empty(
    events: LaidOut, shown: LaidOut, wanted: Wanted, *, has_user: bool
) -> str | None:
    """As past_columns.why_all_empty says of tables in memory."""
    if shown.n_rows < MANY_ROWS or events.n_rows == 0 or not shown.has_several_keys:
        return None
    if not has_user:
        return "users"
    first = pd.DataFrame({"key 0": [0], wanted.time: events.times.column(_one(events.times.first))})
    last = pd.DataFrame({"key 0": [0], wanted.time: shown.times.column(_one(shown.times.last))})
    timeline = Timeline(first, keys=["key 0"], time=wanted.time)
    return None if timeline.is_after_some_event(last).any() else "times"


def _one(time: float) -> np.ndarray:
    return np.array([time])


def _is_own_log(shown: Table, log: Table, wanted: Wanted) -> bool:
    columns = [wanted.user, wanted.time]
    return len(shown) == len(log) and shown.fingerprint(columns) == log.fingerprint(columns)


def _digest(shown: Table, log: Table, wanted: Wanted) -> str:
    """What the files depend on: equal where they would be the same."""
    columns = [wanted.user, wanted.time]
    facts = [
        shown.fingerprint(columns),
        log.fingerprint([*columns, *wanted.columns]),
        repr(wanted),
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _read(
    folder: OwnedFolder, facts: dict[str, Any], wanted: Wanted, n_rows: int
) -> MappedHistories:
    anchors = None
    if wanted.elapsed is not None:
        anchors = MappedArray(folder, ANCHORS, np.dtype(np.float64), n_rows)
    return MappedHistories(
        read_log(folder, facts["log"], token=facts["token"]),
        MappedArray(folder, STARTS, np.dtype(np.int64), n_rows),
        MappedArray(folder, LENGTHS, np.dtype(np.int32), n_rows),
        anchors,
        wanted.elapsed,
    )


def _frame_with(shown: Table, log: Table, histories: MappedHistories, wanted: Wanted) -> Any:
    """The caller's frame with histories whose events are in memory: those its rows cover."""
    everything = slice(0, len(shown))
    names: Sequence[str] = list(histories.log.columns)
    new: dict[str, WindowArray] = histories.columns(names, histories.spans(everything), everything)
    return shown.with_columns(new, list_types(log.frame, wanted.names))
