"""Scans and frames as one kind of table, read part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._frames import CallerFrame
from sklearn_din._progress import Progress
from sklearn_din._validation import check_times, missing_rows, missing_times
from sklearn_din.logs.partitions import Partitions, key_kind, partition_of, read_keys
from sklearn_din.tables.scan import Scan

ROWS = 131_072  # of a part of a frame
HEAD = 1000  # rows by which mistakes are found before anything is written
DEFAULT_MEMORY = 10**9
BYTES_PER_ROW = 160  # what finding the past takes in memory, and
SHARE_OF_PARTITION = 2  # one half of the budget is for it
MOST_PARTITIONS = 4096


class Table:
    """A scan or a frame, read part by part.

    Parameters
    ----------
    source : Scan, or pandas, polars or Arrow frame
        Its rows are not changed.
    name : str
        What to call it in an error.
    """

    def __init__(self, source: Any, *, name: str) -> None:
        self.name = name
        self.scan = source if isinstance(source, Scan) else None
        self.shown = None if isinstance(source, Scan) else CallerFrame(source, name=name)

    @property
    def frame(self) -> pd.DataFrame:
        """The frame of the caller, or an empty one with the columns and dtypes of the scan."""
        if self.shown is not None:
            return self.shown.pandas
        types = {} if self.scan is None else self.scan.all_dtypes
        return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})

    def __len__(self) -> int:
        return len(self.frame) if self.scan is None else len(self.scan)

    def parts(self, columns: Sequence[Any]) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the first position and the rows of each part."""
        wanted = list(dict.fromkeys(columns))
        if self.scan is not None:
            yield from self.scan.parts(wanted)
            return
        frame = self.frame[wanted]
        for start in range(0, len(frame), ROWS):
            yield start, frame.iloc[start : start + ROWS]

    def with_columns(
        self, new: Mapping[str, Any], types: Mapping[str, pa.DataType] | None = None
    ) -> Any:
        """The caller's frame with further columns; not for scans."""
        if self.shown is None:
            raise TypeError(f"{self.name} are a scan")
        return self.shown.with_columns(new, types=types)

    def head(self, columns: Sequence[Any], time: Hashable) -> pd.DataFrame:
        """Some first rows that have a time."""
        for _, part in self.parts(columns):
            part = part[~missing_rows(part[time])].iloc[:HEAD]
            if len(part):
                return part
        return self.frame[list(dict.fromkeys(columns))].iloc[:0]

    def fingerprint(self, columns: Sequence[Any]) -> str:
        """Digest of some columns of the rows."""
        wanted = list(dict.fromkeys(columns))
        if self.scan is not None:
            return self.scan.narrow(wanted).fingerprint()
        digest = hashlib.sha256(repr(wanted).encode())
        for name in wanted:
            column = self.frame[name]
            digest.update(str(column.dtype).encode())
            digest.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
        return digest.hexdigest()


@dataclass
class Times:
    """What the times of a table are, and between which two they lie."""

    unit: str | None = None
    zoned: bool = False
    first: Any = None
    last: Any = None

    def note(self, values: np.ndarray, unit: str | None, zoned: bool) -> None:
        """Take times of one more part into account."""
        self.unit, self.zoned = unit, zoned
        first, last = values.min().item(), values.max().item()
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)

    def column(self, values: np.ndarray) -> pd.Series:
        """Times as they were, out of what :func:`lay_out` has written of them."""
        if self.unit is None:
            return pd.Series(values)
        stamps = pd.DatetimeIndex(values.view(f"M8[{self.unit}]"))
        return pd.Series(stamps.tz_localize("UTC") if self.zoned else stamps)


@dataclass
class LaidOut:
    """A table's rows by key on disk: the numbers of the rows, their keys and their times.

    Parameters
    ----------
    rows : Partitions
        Columns "row", "key 0" and so on, "time", and what else was asked for.
    keys : list of str
        Names of the columns of keys.
    times : Times
        Of all rows, also those without a key.
    n_rows : int
        All rows, also those without a key.
    has_several_keys : bool
        Whether two different keys occur.
    """

    rows: Partitions
    keys: list[str]
    times: Times
    n_rows: int
    has_several_keys: bool

    def frame(self, piece: Mapping[str, np.ndarray], time: Hashable) -> pd.DataFrame:
        """Keys and times of some rows, as ``Timeline`` reads them."""
        columns: dict[Hashable, Any] = {key: piece[key] for key in self.keys}
        columns[time] = self.times.column(piece["time"])
        return pd.DataFrame(columns)


def lay_out(
    table: Table,
    rows: Partitions,
    *,
    keys: Sequence[Hashable],
    kinds: Sequence[str | None],
    time: Hashable,
    columns: Sequence[Hashable] = (),
    more: Callable[[pd.DataFrame], dict[str, np.ndarray]] | None = None,
) -> LaidOut:
    """Write a table's rows by key: those without a key are left out.

    Parameters
    ----------
    table : Table
        It is read once.
    rows : Partitions
        Where to write.
    keys : sequence of str
        Columns that together are the key.
    kinds : sequence of {"text", "numbers"} or None
        What each key column holds.
    time : str
        Column of times.
    columns : sequence of str, default=()
        Further columns that ``more`` needs.
    more : callable, default=None
        Makes further arrays out of a part: dict of str to ndarray.

    Raises
    ------
    ValueError
        If times are missing.
    """
    times, n_missing, first_key, several = Times(), 0, None, False
    label = f"{table.name}[{time!r}]"
    with Progress(f"reading {table.name}", len(table)) as progress:
        for start, part in table.parts([*keys, time, *columns]):
            n_missing += int(missing_rows(part[time]).sum())
            if not n_missing and len(part):
                values, unit, zoned = check_times(part[time], name=label)
                times.note(values, unit, zoned)
                arrays, is_there = _key_arrays(part, keys, kinds)
                arrays |= {"time": values, "row": start + np.arange(len(part))}
                arrays |= {} if more is None else more(part)
                if not is_there.all():
                    arrays = {name: values[is_there] for name, values in arrays.items()}
                names = [name for name in arrays if name.startswith("key ")]
                places = partition_of([arrays[name] for name in names], rows.n_partitions)
                if len(places):
                    first_key = arrays["key 0"][0] if first_key is None else first_key
                    several = several or bool((arrays["key 0"] != first_key).any())
                rows.append(places, arrays)
            progress.update(len(part))
    if n_missing:
        raise missing_times(label, n_missing)
    rows.finish()
    n_arrays = sum(2 if kind == "text" else 1 for kind in kinds)
    return LaidOut(rows, [f"key {i}" for i in range(n_arrays)], times, len(table), several)


def joint_kinds(first: Table, second: Table, keys: Sequence[Hashable]) -> list[str | None]:
    """What the key columns of two tables hold: "text" or "numbers".

    Raises
    ------
    TypeError
        If they hold text in one table and numbers in the other.
    """
    kinds = []
    for key in keys:
        ours = key_kind(first.frame[key], name=f"{first.name}[{key!r}]")
        theirs = key_kind(second.frame[key], name=f"{second.name}[{key!r}]")
        if ours and theirs and ours != theirs:
            raise TypeError(
                f"{key!r} must hold values of one kind in {first.name} and {second.name}, got "
                f"{ours} and {theirs}. Convert one of them with astype."
            )
        kinds.append(ours or theirs)
    return kinds


def memory_of(*tables: Table) -> int:
    """The budget: the smallest of the scans'."""
    budgets = [table.scan.memory for table in tables if table.scan is not None]
    return min(budgets, default=DEFAULT_MEMORY)


def cache_of(*tables: Table) -> Path | None:
    """The first folder for files that stay, if a scan has one."""
    folders = [table.scan.cache_dir for table in tables if table.scan is not None]
    return next((folder for folder in folders if folder is not None), None)


def n_partitions(n_rows: int, memory: int) -> int:
    """How many partitions so many rows need, so that one of them fits into the budget.

    Examples
    --------
    >>> n_partitions(100_000_000, 10**9)
    32
    """
    wanted = -(-n_rows * BYTES_PER_ROW * SHARE_OF_PARTITION // memory)
    return int(np.clip(wanted, 1, MOST_PARTITIONS))


def _key_arrays(
    part: pd.DataFrame, keys: Sequence[Hashable], kinds: Sequence[str | None]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    found: list[np.ndarray] = []
    is_there = np.ones(len(part), dtype=bool)
    for key, kind in zip(keys, kinds, strict=True):
        arrays, is_here = read_keys(part[key], kind)
        found += arrays
        is_there &= is_here
    return {f"key {place}": array for place, array in enumerate(found)}, is_there
