"""TimeSplit: cross-validation by time that never separates equal times."""

from collections.abc import Iterator
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_consistent_length

from sklearn_din.utils.frames import column_names
from sklearn_din.utils.label_waits import check_known, compare_waits
from sklearn_din.utils.row_labels import check_row_labels
from sklearn_din.utils.spans import row_of_nearest_change
from sklearn_din.utils.validation import (
    check_columns,
    check_count,
    read_span,
    read_times_alike,
)
from sklearn_din.utils.warnings import log_once


class TimeSplit(BaseCrossValidator):
    """Cross-validation by time: train on earlier rows, test on later ones.

    The rows are ordered by time and the newest of them are divided into ``n_splits`` consecutive
    test blocks. Each fold trains on all rows before its test block, so later folds train on more.
    The rows of X may be in any order: the indices follow the times.

    Rows with equal times are never separated: a boundary that would fall among them moves to the
    nearer end, so blocks differ in size if times repeat. This differs from
    :class:`sklearn.model_selection.TimeSeriesSplit`, which counts rows, requires them sorted, and
    can put two rows of one moment on both sides of a boundary.

    A row is in the training set if ``time < (first time of the test block) - gap``.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 1. The rows must have at least ``n_splits + 1`` different times.
    test_size : int or float, default=None
        Rows per test block: a number of rows, or as a float a fraction of all rows. None means
        ``n_rows // (n_splits + 1)``. Set it to test on a short period only, such as the last
        week, and train on more. The size is approximate if times repeat.
    gap : int, float or duration, default=0
        Time between training and test: training rows are earlier than the first time of the test
        block by more than this. A number in the unit of the times; for datetimes a duration such
        as "1D". Use it if labels become known with a delay, such as purchases that are counted a
        day after the click.
    time : str, default=None
        Name of the time column of X: integers, floats or datetimes. None is for encoded
        impressions that carry their times (``X.times``).
    known : str, default=None
        Name of the column of X with the moment at which each row's label was known, of the kind of
        the times. A fold trains on rows whose label was known before the first time of its test
        block: where labels come late, others could not have been trained on. Where one label is
        known sooner, as a purchase is, and the lack of one when its week is over, the newest rows
        whose label is known have that one alone, and ``split(X, y)`` leaves them out: those
        younger than the largest age at which one label is known 1.5 times as often as the other.
        Rows between both are in neither part; :func:`remember` tells them to a memory. None: labels
        are known at once.

    See Also
    --------
    sklearn.model_selection.GroupKFold : Split by user: how good is the model for new people?

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_din import TimeSplit
    >>> clicks = pd.DataFrame({"item": list("abcdef"), "day": [1, 3, 2, 3, 5, 4]})
    >>> for train, test in TimeSplit(2, time="day").split(clicks):
    ...     print(clicks["day"].iloc[train].tolist(), clicks["day"].iloc[test].tolist())
    [1, 2] [3, 3]
    [1, 2, 3, 3] [4, 5]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        test_size: int | float | None = None,
        gap: float | str | pd.Timedelta = 0,
        time: str | None = None,
        known: str | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.test_size = test_size
        self.gap = gap
        self.time = time
        self.known = known

    def split(
        self, X: object, y: Any = None, groups: object = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the training and test rows of each fold, the oldest fold first.

        Parameters
        ----------
        X : pandas, polars or Arrow frame, scan, or EncodedFeatures
            One row per impression.
        y : object, default=None
            Labels, as many rows as X, in the same order; with ``known`` they say which rows are
            known for their label. None trains on all rows known.
        groups : object, default=None
            Ignored; if given, it must have as many rows as X.

        Yields
        ------
        train : ndarray of int
            Positions of the training rows, in order of time.
        test : ndarray of int
            Positions of the test rows, in order of time.
        """
        test_size = self.test_size
        check_count(self.n_splits, name="n_splits")
        is_rows = isinstance(test_size, Integral) and test_size > 0 and test_size is not True
        is_fraction = isinstance(test_size, float) and 0 < test_size < 1
        if test_size is not None and not is_rows and not is_fraction:
            raise ValueError(
                "test_size must be a number of rows of at least 1, a fraction of the rows between "
                f"0 and 1, or None, got {test_size!r}."
            )
        columns = [_find_times(X, name) for name in (self.time, *filter(None, [self.known]))]
        check_consistent_length(columns[0], y, groups)
        check_row_labels(X, y)
        if self.known is not None:
            check_known(columns[1], y, name=f"X[{self.known!r}]")
        read, unit = read_times_alike(columns)
        times, known = read[0], read[-1]
        gap = _read_gap(self.gap, unit)
        if times.dtype.kind == "i" and not np.isinf(gap):
            gap = int(gap // 1)  # for whole t: t < T - gap where t < T - floor(gap)
        waits = None if self.known is None or y is None else compare_waits(times, known, y, unit)
        if waits is not None:
            known = np.maximum(known, times + waits.age)
            log_once(f"{waits.text}. TimeSplit leaves these out of training.")
        order = np.argsort(times, kind="stable")
        times, known = times[order], known[order]
        cuts = self._cuts(times)
        for fold, (start, end) in enumerate(pairwise(cuts)):
            first = times[start].item()
            is_train = (times < first - gap) & (known < first)  # exact for integers
            if not is_train.any():
                late = "" if self.known is None else f" and its label known before, {self.known!r}"
                raise ValueError(
                    f"fold {fold} has nothing to train on: no row is older than its test block by "
                    f"more than gap={self.gap!r}{late}. Use a smaller gap, n_splits or test_size."
                )
            yield order[is_train], order[start:end]

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            Ignored; present for compatibility with scikit-learn.

        Returns
        -------
        int
        """
        return self.n_splits

    def _cuts(self, times: np.ndarray) -> np.ndarray:
        """Return the starts of the test blocks in the sorted rows, and the end of the last one."""
        n_rows, n_splits = len(times), self.n_splits
        starts = np.flatnonzero(np.append(True, times[1:] != times[:-1])[:n_rows])
        if len(starts) <= n_splits:
            raise ValueError(
                f"{n_splits} folds need rows of at least {n_splits + 1} different times, got "
                f"{len(starts)} among {n_rows} rows. Use fewer splits, or finer times."
            )
        size: Any = self.test_size
        if size is None:
            size = max(n_rows // (n_splits + 1), 1)
        elif not isinstance(size, Integral):
            size = max(round(size * n_rows), 1)
        if size * n_splits >= n_rows:
            raise ValueError(
                f"{n_splits} test blocks of {size} rows leave none of the {n_rows} rows to train "
                "on first. Use fewer splits or a smaller test_size."
            )
        targets = n_rows - size * np.arange(n_splits, 0, -1)
        cuts, last = [], 0
        for fold, target in enumerate(targets):
            nearest = int(np.searchsorted(starts, row_of_nearest_change(times, int(target))))
            # At least one time for each fold before this one, and one for each from it on
            last = min(max(nearest, last + 1), len(starts) - n_splits + fold)
            cuts.append(starts[last])
        return np.array([*cuts, n_rows])


def _find_times(X: Any, name: str | None) -> pd.Series:
    """Return the time of each row."""
    names = column_names(X)
    if name is None:
        column = None if isinstance(X, pd.DataFrame) else getattr(X, "times", None)
        if column is None:
            raise ValueError(
                "TimeSplit needs each row's time, and time=None finds none in a "
                f"{type(X).__name__}. Pass X as a DataFrame and name its column of times, "
                "TimeSplit(time='time'); rows in their order need TimeSeriesSplit."
            )
    elif names is None:
        raise TypeError(
            f"TimeSplit(time={name!r}) reads a column of X, got a {type(X).__name__}. Pass X as a "
            "DataFrame, with the encoder inside the Pipeline."
        )
    else:
        check_columns(names, [name], name="X")
        column = X[name]  # of a scan, one column fits into memory
    if isinstance(column, pd.Series | np.ndarray):
        return pd.Series(column, name=name or "times")
    return pa.table(X.select([name])).to_pandas()[name]


def _read_gap(gap: Any, unit: str | None) -> int | float:
    """The gap in the times' own unit: a number, or whole units of a duration."""
    if isinstance(gap, Real) and not isinstance(gap, bool | np.timedelta64) and gap == 0:
        return 0
    # Times are whole units, so that a part of a unit moves no row to the other side
    whole, length = read_span(gap, unit=unit, name="gap", example="1D")
    if not length >= 0:
        raise ValueError(f"gap must not be negative or missing, got {gap!r}.")
    return whole
