"""Hostile frames as Parquet files: what scans of them must do, for ``hostile_frames.py``.

Each frame is written to a file of small row groups, some of its columns as types that only Arrow
has. A step asks that a scan of the file gives what the same rows in memory give, or refuses them.
"""

from __future__ import annotations

import datetime
import decimal
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import hostile_steps as steps
from benchmarks.hostile_steps import CLOSE, LOG, RefusedError, Step, labels_of
from sklearn_din import HistorySequenceEncoder, attach_history, sample_negatives, scan_parquet
from sklearn_din.logs.aggregates import attach_aggregates
from sklearn_din.utils.scan import Scan

ROWS_PER_GROUP = 3
SHARE_OF_ARROW = 0.25  # of the columns, as types that pandas seldom writes
DAY = datetime.datetime(2024, 5, 1, 12)
ARROW_VALUES: tuple[tuple[pa.DataType, tuple[object, ...]], ...] = (
    (pa.int8(), (1, -1, None)),
    (pa.uint64(), (2**64 - 1, 0, 3)),
    (pa.float16(), (np.float16(1.5), np.float16(2), None)),
    (pa.float64(), (float("nan"), 1e300, float("-inf"), 0.5)),
    (pa.bool_(), (True, False, None)),
    (pa.null(), (None,)),
    (pa.decimal128(30, 2), (decimal.Decimal("1.50"), decimal.Decimal("-2"), None)),
    (pa.decimal256(60, 1), (decimal.Decimal("9" * 40), None)),
    (pa.date32(), (datetime.date(2020, 1, 1), datetime.date(9999, 12, 31), None)),
    (pa.date64(), (datetime.date(2020, 1, 1), datetime.date(1, 1, 1))),
    (pa.time32("s"), (datetime.time(1), datetime.time(2))),
    (pa.time64("ns"), (datetime.time(1), None)),
    (pa.timestamp("ns"), (DAY, DAY + datetime.timedelta(1), None)),
    (pa.timestamp("us"), (DAY, datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1))),
    (pa.timestamp("ms", tz="Europe/Berlin"), (DAY, DAY + datetime.timedelta(2))),
    (pa.duration("ms"), (datetime.timedelta(1), datetime.timedelta(-1), None)),
    (pa.string(), ("hat", "sock", "", "\x00", None)),
    (pa.large_string(), ("1", "2", "30")),
    (pa.string_view(), ("hat", "a string that is longer than twelve bytes")),
    (pa.binary(), (b"x", b"\xff\x00", None)),
    (pa.binary(2), (b"xy", b"ab")),
    (pa.dictionary(pa.int8(), pa.string()), ("hat", "sock", None)),
    (pa.dictionary(pa.int32(), pa.int64()), (2**53 + 1, 7)),
    (pa.list_(pa.int64()), ([1, 2], [], [None], None)),
    (pa.large_list(pa.string()), (["hat"], ["sock", None], None)),
    (pa.list_(pa.int32(), 2), ([1, 2], [3, 4])),
    (pa.list_(pa.list_(pa.int64())), ([[1], []], None)),
    (pa.list_(pa.float16()), ([np.float16(1)], [])),
    (pa.list_(pa.timestamp("us")), ([DAY], [])),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), (["hat"], ["hat", "sock"], [])),
    (pa.struct([("a", pa.int64())]), ({"a": 1}, None)),
    (pa.map_(pa.string(), pa.int64()), ([("a", 1)], [])),
)
ARROW_TIMES = (
    (pa.int64(), (1, 2, 3, 4)),
    (pa.int16(), (1, 2, 3, 300)),
    (pa.float32(), (0.5, 2.0, 1e30)),
    (pa.timestamp("s"), (DAY, DAY + datetime.timedelta(1))),
    (pa.timestamp("us", tz="UTC"), (DAY, datetime.datetime(1970, 1, 1))),
    (pa.timestamp("ns"), (DAY, datetime.datetime(2262, 1, 1), datetime.datetime(1677, 10, 1))),
)


def table_of(frame: pd.DataFrame) -> pa.Table:
    """The frame as an Arrow table, some columns of it exchanged for Arrow's own types."""
    if not frame.columns.is_unique:
        raise RefusedError("no such file can be written")
    text = repr(frame.to_dict("list")).encode("utf-8", "replace")
    rng = np.random.default_rng(zlib.crc32(text))
    columns = {}
    for name in frame.columns:
        column = None if rng.random() < SHARE_OF_ARROW else _arrow(frame[name].tolist())
        if column is None or (name == "time" and rng.random() < 0.5):
            kinds = ARROW_TIMES if name == "time" and rng.random() < 0.8 else ARROW_VALUES
            kind, values = kinds[rng.integers(len(kinds))]
            picked = [values[i] for i in rng.integers(len(values), size=len(frame))]
            column = pa.array(picked, type=kind)
        columns[name] = column
    return pa.table(columns)


def _arrow(cells: list) -> pa.Array | None:
    """Cells as Arrow makes them of Python values; it dies on some of numpy's."""
    plain = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]
    for cell in plain:
        inside = cell if isinstance(cell, list | tuple | set | frozenset) else [cell]
        if any(isinstance(value, np.generic | np.ndarray) for value in inside):
            return None
    try:
        return pa.array(plain, from_pandas=True)
    except Exception:  # there is no Arrow type that holds them
        return None


@contextmanager
def scanned(frame: pd.DataFrame) -> Iterator[tuple[Scan, pd.DataFrame]]:
    """A scan of the frame, with a cache, and the same rows in memory."""
    table = table_of(frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        try:
            pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)
        except Exception as error:  # Parquet has no such type
            raise RefusedError("no such file can be written") from error
        scan = scan_parquet(path, cache_dir=Path(folder) / "cache")
        yield scan, pd.concat([part for _, part in scan.parts()])


def attach(frame: pd.DataFrame) -> object:
    """Attach histories to a scan, twice: those of the rows in memory."""
    roles = {"user": "user", "time": "time", "columns": ["item"], "prefix": "past_"}
    with scanned(frame) as (scan, rows):
        attached = [list(attach_history(scan, scan, **roles)["past_item"]) for _ in range(2)]
        expected = list(attach_history(rows, rows, **roles)["past_item"])
    for cells in attached:
        for ours, theirs in zip(cells, expected, strict=True):
            assert len(ours) == len(theirs)
            assert all(_is_same(*both) for both in zip(ours, theirs, strict=True))
    return attached


def aggregate(frame: pd.DataFrame) -> object:
    """Attach counts and means to a scan: those of the rows in memory."""
    number = "price" if "price" in frame else "item"
    aggregates = {"n": ("user", None, "count"), "mean": (("user", "item"), number, "mean")}
    with scanned(frame) as (scan, rows):
        ours = attach_aggregates(scan, scan, time="time", aggregates=aggregates)
        theirs = attach_aggregates(rows, rows, time="time", aggregates=aggregates)
        for name in aggregates:
            actual, expected = (rows[name].to_numpy(dtype=float) for rows in (ours, theirs))
            assert np.allclose(actual, expected, rtol=1e-12, equal_nan=True), name
    return ours


def negatives(frame: pd.DataFrame) -> object:
    """Sample negatives of a scan: items of the catalogue, never one that the user has."""
    user = "user" if "user" in frame else None
    other = [name for name in ("category",) if name in frame]
    with scanned(frame) as (scan, rows):
        shown, y = sample_negatives(
            scan, item="item", item_columns=other, user=user, n_negatives=2, random_state=0
        )
        drawn = list(shown["item"])
    steps.assert_negatives(drawn, y, rows, user)
    return drawn


def encode(frame: pd.DataFrame) -> object:
    """Encode a scan into its cache, and out of it: what the rows in memory give."""
    roles = {name: name for name in ("user", "time") if name in frame}
    y = labels_of(frame)
    with scanned(frame) as (scan, rows):
        expected = HistorySequenceEncoder(**roles).fit_transform(rows, y)
        encoder = HistorySequenceEncoder(**roles)
        steps.assert_same_columns(encoder.fit_transform(scan, y), expected, atol=CLOSE)
        try:
            encoded = HistorySequenceEncoder(**roles).fit_transform(scan, y)
        except (ValueError, TypeError) as error:
            raise AssertionError("what was kept cannot be read") from error
        steps.assert_same_columns(encoded, expected, atol=CLOSE)
        alone = encoder.transform(rows.iloc[:1])
        whole = encoder.transform(scan)
        for name in whole.schema.names("categorical", "numeric"):
            assert np.array_equal(alone[name], whole[name][:1]), name
    return whole


def _is_same(one: object, other: object) -> bool:
    """Return whether two values are the same, or both missing, be they numpy's or Python's.

    A part of a scan where none is missing has numpy's, the whole log in memory may have objects.
    """
    one, other = (_as_python(value) for value in (one, other))
    if isinstance(one, list) and isinstance(other, list):  # several values of one event
        # pandas makes floats of a list's integers where another one has a missing value
        return len(one) == len(other) and all(
            _is_same(*map(_float_if_number, both)) for both in zip(one, other, strict=True)
        )
    if steps.equal_values(one, other):
        return True
    return np.ndim(one) == np.ndim(other) == 0 and bool(pd.isna(one) and pd.isna(other))


def _float_if_number(value: object) -> object:
    return float(value) if type(value) is int else value


def _as_python(value: object) -> object:
    """One of numpy's values, or an array, as pandas or Python have it; any other as it is."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    return value.item() if isinstance(value, np.generic) else value


STEPS = {
    "attach_history, scan": Step(attach, LOG),
    "attach_aggregates, scan": Step(aggregate, LOG),
    "sample_negatives, scan": Step(negatives, frozenset({"item"})),
    "encoder, scan": Step(encode),
}
