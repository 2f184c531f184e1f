"""Statistics of the numbers of a history's events: whether they are times elapsed, their scale."""

import numpy as np

from sklearn_din.encoding.events import Events
from sklearn_din.encoding.scaling import EventScale, Moments
from sklearn_din.utils.spans import Spans

SAMPLED_ROWS = 50_000
ROWS_AT_A_TIME = 16_384
SHRINKING_STEPS = 20  # times elapsed only shrink: so many steps are no chance
N_EXPONENTS = 2048  # of float64
EXPONENT_OF_ONE = 1023


class EventNumbers:
    """Statistics of one numeric history, from which its scale is computed.

    Numbers are times elapsed where the cells say so, or where from the oldest event to the newest
    they never grow and are never negative, in every row: a file has parted such times from those
    of their rows, and quantities such as prices do not keep to that.

    Parameters
    ----------
    n_rows : int
        Of the whole table: the scale of times elapsed is learnt from every ``n_rows // 50,000``th
        of them, wherever its parts begin.
    is_elapsed : bool, default=None
        What the user says of the numbers. None: they are looked at.

    >>> prices = EventNumbers(2)
    >>> prices.update("paid", Events(Spans.from_lengths(np.array([2])), None, numbers={
    ...     "paid": np.array([1.0, 3.0])}), 0)
    >>> prices.finish()
    EventScale(shift=2.0, scale=1.0, is_elapsed=False, has_outliers=False)
    """

    def __init__(self, n_rows: int, *, is_elapsed: bool | None = None) -> None:
        self._step = max(1, n_rows // SAMPLED_ROWS)
        self._is_elapsed = is_elapsed
        self._moments = Moments()
        self._elapsed = np.zeros(N_EXPONENTS, dtype=np.int64)  # by the nearest power of two
        self._has_row_times, self._n_shrinking = False, 0
        self._may_be_elapsed = is_elapsed is not False

    def update(self, name: str, events: Events, start: int) -> None:
        """Take in the events of further rows, of which ``start`` is the first."""
        numbers = events.numbers[name]
        rows = slice(-start % self._step, None, self._step)
        sampled = events.spans.take(rows)
        if name in events.row_times:
            self._has_row_times = True
            self._count_elapsed(sampled.time_since(numbers, events.row_times[name][rows]))
            return
        self._moments.update(numbers, events.counts)
        if self._is_elapsed is None:
            self._look_for_growth(numbers, events.spans)
        if self._may_be_elapsed:
            self._count_elapsed(numbers[sampled.index()])

    def finish(self) -> EventScale:
        """Return the scale.

        Times elapsed are divided by the power of two nearest to their median. That is exact: it
        makes no difference whether times are divided before they are subtracted, as for windows,
        or after, as for the same histories as lists.
        """
        if not self._has_row_times and not self._is_elapsed and not self.is_guess:
            return EventScale.of(self._moments)
        n_elapsed = self._elapsed.sum()
        if not n_elapsed:
            return EventScale(0.0, 1.0, is_elapsed=True)
        median = np.searchsorted(np.cumsum(self._elapsed), n_elapsed // 2, side="right")
        return EventScale(0.0, float(2.0 ** (median - EXPONENT_OF_ONE)), is_elapsed=True)

    @property
    def is_guess(self) -> bool:
        """Return whether the numbers are taken for times elapsed by what they look like alone."""
        is_guess = self._is_elapsed is None and not self._has_row_times and self._may_be_elapsed
        return is_guess and self._n_shrinking >= SHRINKING_STEPS

    def _count_elapsed(self, elapsed: np.ndarray) -> None:
        """Count positive times by round(log2(time)): the exponent of the time by sqrt(2)."""
        elapsed = elapsed[elapsed > 0] * np.sqrt(2.0)
        exponents = elapsed.astype(np.float64, copy=False).view(np.int64) >> 52
        self._elapsed += np.bincount(exponents, minlength=N_EXPONENTS)

    def _look_for_growth(self, numbers: np.ndarray, spans: Spans) -> None:
        """Rule out that these are times elapsed, some rows at a time: most numbers end it soon."""
        for first in range(0, len(spans), ROWS_AT_A_TIME):
            if not self._may_be_elapsed:
                return
            rows = spans.take(slice(first, first + ROWS_AT_A_TIME))
            values = numbers[rows.index()]
            steps = np.diff(values)
            inside = np.ones(len(steps), dtype=bool)
            starts = Spans.from_lengths(rows.lengths).starts[rows.lengths > 0]
            inside[starts[1:] - 1] = False  # from one row's newest event to the next one's oldest
            steps = steps[inside]
            never_negative = not len(values) or bool(values.min() >= 0)  # NaN is not either
            self._may_be_elapsed = never_negative and bool((steps <= 0).all())
            self._n_shrinking += int((steps < 0).sum())
