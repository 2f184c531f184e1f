"""attach_aggregates where impressions or events are scans: by key on disk, part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din._progress import Progress
from sklearn_din._validation import check_frame
from sklearn_din.logs.attached_scan import AttachedScan
from sklearn_din.logs.mapped_arrays import (
    FilledArray,
    MappedArray,
    kept_folder,
    new_folder,
    settled,
    write_facts,
)
from sklearn_din.logs.partitions import Partitions
from sklearn_din.logs.running_sums import Aggregate, checked_aggregates, present_numbers, so_far
from sklearn_din.logs.tables import (
    Table,
    cache_of,
    joint_kinds,
    lay_out,
    memory_of,
    n_partitions,
)
from sklearn_din.logs.timeline import Timeline

PIECE_ROWS = 1 << 20  # impressions that are looked up at once


def attach_aggregates_by_part(
    impressions: Any, events: Any, *, time: str, aggregates: Mapping[str, Aggregate]
) -> Any:
    """Attach aggregates where one of the tables is a scan.

    Parameters
    ----------
    impressions, events : Scan, or pandas, polars or Arrow frame
        At least one of them a scan.
    time : str
        Time column of both.
    aggregates : mapping of str to (key, column, statistic)
        As :func:`attach_aggregates` has it.

    Returns
    -------
    AttachedScan or frame
        Of the kind of the impressions.
    """
    shown, log = Table(impressions, name="impressions"), Table(events, name="events")
    check_frame(shown.frame, [time], name="impressions")
    check_frame(log.frame, [time], name="events")
    by_key = checked_aggregates(aggregates, shown.frame, log.frame)
    digest = _digest(shown, log, time, aggregates, by_key)
    cache = None if shown.scan is None else cache_of(shown, log)
    target = None if cache is None else cache / f"aggregates-{digest[:32]}"
    files = {name: f"{place}.numbers" for place, name in enumerate(aggregates)}
    folder = kept_folder(target)
    if folder is None:
        with new_folder(cache_of(shown, log)) as path:
            for keys, wanted in by_key.items():
                _write(path, shown, log, keys, time, {files[n]: w for n, w in wanted.items()})
            write_facts(path, {"files": list(files.values())})
            folder = settled(path, target)
    kind = np.dtype(np.float64)
    numbers = {name: MappedArray(folder, files[name], kind, len(shown)) for name in aggregates}
    if shown.scan is None:
        whole = {name: array.take(slice(None)) for name, array in numbers.items()}
        return shown.with_columns(whole)
    names = [*shown.scan.columns, *aggregates]
    rows = range(len(shown))
    return AttachedScan(shown.scan, rows, names, histories=None, numbers=numbers, digest=digest)


def _write(
    folder: Path,
    shown: Table,
    log: Table,
    keys: tuple[Any, ...],
    time: Any,
    wanted: Mapping[str, tuple[Any, str]],
) -> None:
    """Compute all aggregates of one key: file to column and statistic."""
    kinds = joint_kinds(shown, log, keys)
    columns = list(dict.fromkeys(column for column, _ in wanted.values() if column is not None))

    def values(part: pd.DataFrame) -> dict[str, np.ndarray]:
        arrays = {}
        for place, column in enumerate(columns):
            arrays[f"there {place}"], arrays[f"value {place}"] = present_numbers(part[column])
        return arrays

    head = log.head([*keys, time], time)
    Timeline(head, keys=keys, time=time).past(shown.head([*keys, time], time))
    number = n_partitions(max(len(shown), len(log)), memory_of(shown, log))
    rows = Partitions(folder, "events", number)
    events = lay_out(log, rows, keys=keys, kinds=kinds, time=time, columns=columns, more=values)
    rows = Partitions(folder, "impressions", number)
    later = lay_out(shown, rows, keys=keys, kinds=kinds, time=time)
    with Progress("attaching aggregates", len(shown)) as progress:
        filled = {}
        for file, (_, statistic) in wanted.items():
            default = np.nan if statistic == "mean" else 0.0
            filled[file] = FilledArray(folder, file, np.float64, len(shown), default=default)
        for partition in range(number):
            n_rows = int(later.rows.sizes[partition])
            if n_rows and events.rows.sizes[partition]:
                (piece,) = events.rows.read(partition, events.rows.names)
                timeline = Timeline(events.frame(piece, time), keys=events.keys, time=time)
                names = [*later.keys, "time", "row"]
                for asked in later.rows.read(partition, names, n_rows=PIECE_ROWS):
                    past = timeline.past(later.frame(asked, time))
                    for file, (column, statistic) in wanted.items():
                        found = _arrays(piece, columns, column)
                        filled[file].fill(asked["row"], so_far(timeline, past, statistic, *found))
            progress.update(n_rows)
    events.rows.remove()
    later.rows.remove()


def _arrays(
    piece: Mapping[str, np.ndarray], columns: list[Any], column: Any
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if column is None:
        return None, None
    place = columns.index(column)
    return piece[f"there {place}"], piece[f"value {place}"]


def _digest(shown: Table, log: Table, time: Any, aggregates: object, by_key: Any) -> str:
    keys = [key for one in by_key for key in one]
    columns = [c for wanted in by_key.values() for c, _ in wanted.values() if c is not None]
    facts = [
        shown.fingerprint([*keys, time]),
        log.fingerprint([*keys, time, *columns]),
        repr((time, aggregates)),
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
