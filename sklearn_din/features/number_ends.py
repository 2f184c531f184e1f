"""Where a number ends for a network, which runs on in a straight line where its rows ended."""

from collections.abc import Collection, Mapping

import numpy as np

REACHING = 1_000  # at least one of so many rows reaches each end of the range
FEW = 5  # and at least so many rows
ROWS_PER_FEW = 20  # of less than a hundred rows, one for each of so many

Ends = tuple[float, float]
Ranges = Mapping[str, Ends]
ENDLESS: Ends = (float("-inf"), float("inf"))


def find_range(numbers: np.ndarray, *, least: int = 0) -> tuple[float, float]:
    """Return what a thousandth of some numbers, at least five, reach on either side.

    Never the least and the largest: one of 1e9 would be an end. Where both are one number, as of a
    flag that is rarely set, five are enough, or ``least``; of less than a hundred numbers fewer.

    >>> find_range(np.append(np.arange(99.0), 1e9))
    (4.0, 95.0)
    """
    least = least or min(FEW, 1 + len(numbers) // ROWS_PER_FEW)
    ordered = np.sort(numbers)
    for n in (max(len(numbers) // REACHING, least), least):
        low, high = float(ordered[n - 1]), float(ordered[-n])
        if low < high:
            break
    return low, high


def find_ends(ranges: Ranges, growing: Collection[str]) -> dict[str, tuple[float, float]]:
    """Return where numbers of such ranges end: one range beyond, or there if they only grow.

    What counts and times elapsed of a memory would say beyond training is unknown; a mean, a rate
    or a year may have a trend (benchmarks/quality-results.md, "Growth and trends").

    >>> find_ends({"age": (20.0, 60.0), "user_count": (0.0, 9.0)}, growing=["user_count"])
    {'age': (-20.0, 100.0), 'user_count': (0.0, 9.0)}
    """
    beyond = {name: (name not in growing) * (high - low) for name, (low, high) in ranges.items()}
    return {name: (low - beyond[name], high + beyond[name]) for name, (low, high) in ranges.items()}
