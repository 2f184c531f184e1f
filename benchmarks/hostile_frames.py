"""Thousands of frames that nobody should have made, through every function that takes a frame.

``python -m benchmarks.hostile_frames [--frames N] [--seed S]`` draws frames of
every dtype, mixed objects, odd names and impossible values. Asked of each step of
``hostile_steps.py`` and ``hostile_scans.py`` is a right answer, or a ValueError or TypeError that
this package (or scikit-learn's validation) raised; the frame as it was. It prints how many frames
ended how, and the first of each kind of failure. ``tests/test_hostile_frames.py`` holds some
columns of each kind.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks import hostile_scans, hostile_steps
from benchmarks.hostile_steps import RefusedError

STEPS = hostile_steps.STEPS | hostile_scans.STEPS

ALLOWED_FILES = ("/sklearn_din/", "/sklearn/utils/", "/sklearn/base.py", "/sklearn_din\\")
NAMES = ("item", "category", "price", "user", "time", "tags", "", "hist_", "row", "weight", "a b")
ODD_NAMES = ("hist_item+hist_category", "num__item", "rest__hist_item", "x_mask", "ж")
ODD_NAMES += ("item_missing",)
SCALARS = (
    *(0, 1, -1, 7, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**70, True, False),
    *(0.0, 1.0, 2.5, -0.0, 12345.0, float("nan"), float("inf"), 1e300, 1e-320, None, pd.NA, pd.NaT),
    *("hat", "", "12", "1.5", "2024-01-01", "[1, 2]", "a|b", "\x00", "\ud800", "ж" * 3, b"x"),
    *(np.int8(3), np.uint64(2**64 - 1), np.float32(1.5), np.float16(2), np.str_("q")),
    np.bool_(True),
    *(np.datetime64("2021-01-01"), np.timedelta64(1, "D"), pd.Timestamp("1700-01-01")),
    *(pd.Timestamp("2024-05-01", tz="Europe/Berlin"), datetime.date(2020, 1, 1)),
    *(datetime.datetime(9999, 12, 31), datetime.time(12), pd.Period("2024-01", "M"), object),
    *([1], ["a", None], {"a": 1}, {1, 2}, np.arange(2), np.array("hat"), range(2), slice(1)),
    *(decimal.Decimal("1.5"), complex(1, 2), pd.Interval(0, 1), ("a", 1), frozenset([1])),
)
KINDS = (
    [0, 1, 2, 3],
    [1.0, 2.0, float("nan")],
    [0.5, 1.5, 2.5],
    ["hat", "sock", None],
    [True, False],
    ["1", "2", "30"],
)


def draw_values(rng: np.random.Generator, n: int) -> list:
    """Values of one kind, most of the time."""
    chance = rng.random()
    if chance < 0.7:
        kind = KINDS[rng.integers(len(KINDS))]
        return [kind[i] for i in rng.integers(len(kind), size=n)]
    if chance < 0.85:
        one = SCALARS[rng.integers(len(SCALARS))]
        other = SCALARS[rng.integers(len(SCALARS))]
        return [one if pick else other for pick in rng.random(n) < 0.5]
    return [SCALARS[i] for i in rng.integers(len(SCALARS), size=n)]


def draw_cell(rng: np.random.Generator, values: list) -> object:
    """A history cell: a list of some make, and sometimes nothing of the kind."""
    chance = rng.random()
    if chance < 0.55:
        return values
    if chance < 0.7:
        return tuple(values)
    if chance < 0.85:
        return _as_array(values, rng)
    if chance < 0.93:
        return None
    return [float("nan"), "1|2", {"a": 1}, {1, 2}, [[1]], 5, np.zeros((2, 2)), pd.NA][
        rng.integers(8)
    ]


def _as_array(values: list, rng: np.random.Generator) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    if rng.random() < 0.5:
        return array
    try:
        inferred = pd.Series(values, dtype=object).infer_objects().to_numpy()
    except UnicodeEncodeError:
        return array
    return inferred if inferred.ndim == 1 else array


def draw_cells(rng: np.random.Generator, n: int, depth: int) -> list:
    """History cells of values, or at depth 2 of lists of values."""
    lengths = rng.integers(0, 4, size=n)
    n_values = int(lengths.sum())
    values = draw_values(rng, n_values) if depth == 1 else draw_cells(rng, n_values, depth - 1)
    is_clean = rng.random() < 0.7
    parts = (values[end - m : end] for end, m in zip(np.cumsum(lengths), lengths, strict=True))
    return [part if is_clean else draw_cell(rng, part) for part in parts]


def draw_column(rng: np.random.Generator, n: int, *, depth: int) -> pd.Series:
    """A column of scalars, of lists or of lists of lists, as some dtype that takes them."""
    if depth:
        cells = np.empty(n, dtype=object)
        cells[:] = draw_cells(rng, n, depth)
        return pd.Series(cells, dtype=object)
    values = draw_values(rng, n)
    column = pd.Series(values, dtype=object)
    dtypes = ["int64", "float32", "float16", "Int64", "category", "string", "datetime64[ns]"]
    dtypes += ["bool", "complex128", "uint64"]
    if not any(isinstance(value, np.generic) for value in values):  # Arrow crashes on some
        dtypes += [pd.ArrowDtype(pa.int64()), pd.ArrowDtype(pa.string())]
    if rng.random() < 0.5:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return column.astype(dtypes[rng.integers(len(dtypes))])
        except Exception:
            return column
    try:
        return column.infer_objects() if rng.random() < 0.7 else column
    except UnicodeEncodeError:  # pandas has no text of lone surrogates
        return column


def draw_frame(rng: np.random.Generator) -> pd.DataFrame:
    """A frame of one to twelve rows and up to eight columns."""
    n = int(rng.integers(1, 13))
    names = list(rng.choice(NAMES, size=rng.integers(1, 6), replace=rng.random() < 0.05))
    if rng.random() < 0.5:
        names = ["user", "item", "time", *(name for name in names if name in ("price", "tags"))]
    if rng.random() < 0.2:
        names.append(ODD_NAMES[rng.integers(len(ODD_NAMES))])
    columns, labels = [], []
    for name in names:
        depth = int(rng.random() < 0.15)
        columns.append(draw_column(rng, n, depth=depth))
        labels.append(str(name))
        if rng.random() < 0.4:
            columns.append(draw_column(rng, n, depth=depth + 1))
            labels.append(f"hist_{name}")
    frame = pd.concat(columns, axis=1, keys=range(len(columns)))
    frame.columns = labels
    if rng.random() < 0.1:
        frame.index = rng.integers(0, 2, size=n)
    return frame


def fingerprint(frame: pd.DataFrame) -> tuple:
    """Everything that a caller can see of a frame."""
    columns = [list(map(repr, frame.iloc[:, place].tolist())) for place in range(frame.shape[1])]
    return list(frame.columns), list(map(str, frame.dtypes)), frame.index.tolist(), columns


def verdict(step: Callable[[pd.DataFrame], object], frame: pd.DataFrame) -> tuple[str, str]:
    """Return how one step ended, "answer", "own error" or "FAILURE", and the message."""
    before = fingerprint(frame)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)
            step(frame)
    except RefusedError as error:
        kind, message = "own error", str(error)
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        is_ours = any(part in trace[-1].filename for part in ALLOWED_FILES)
        is_clear = isinstance(error, ValueError | TypeError) and is_ours
        kind = "own error" if is_clear else "FAILURE"
        last = ([line for line in trace if "/sklearn_din/" in line.filename] or trace)[-1]
        where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        message = f"{type(error).__name__} in {where}: {error}"
    else:
        kind, message = "answer", ""
    if fingerprint(frame) != before:
        return "FAILURE", "the caller's frame was changed"
    return kind, message


def run(
    n_frames: int, seed: int, *, shown: int = 0, steps: Sequence[str] = tuple(STEPS)
) -> collections.Counter:
    """Draw frames and count the verdicts by step; failures are printed once by their place."""
    counts: collections.Counter = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for number in range(n_frames):
        frame = draw_frame(np.random.default_rng([seed, number]))
        for name in steps:
            step = STEPS[name]
            if number % step.every or not step.takes(frame):
                continue
            began = time.perf_counter()
            kind, message = verdict(step.run, frame)
            if time.perf_counter() - began > 20:
                kind, message = "FAILURE", "more than 20 s"
            counts[name, kind] += 1
            place = name, message.partition(": ")[0]
            if kind == "FAILURE" and place not in seen and len(seen) < shown:
                seen.add(place)
                print(f"frame {number}, {name}: {message:.300}", flush=True)
    return counts


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    counts = run(options.frames, options.seed, shown=40)
    print(f"{options.frames} frames, seed {options.seed}, {time.perf_counter() - began:.0f} s")
    kinds = ("answer", "own error", "FAILURE")
    table = {kind: {name: counts[name, kind] for name in STEPS} for kind in kinds}
    print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main()
