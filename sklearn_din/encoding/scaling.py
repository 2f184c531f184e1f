"""Scaling of numbers: numeric columns, and the numbers of a history's events."""

from dataclasses import dataclass

import numpy as np

from sklearn_din.encoding.events import Events
from sklearn_din.utils.spans import Spans, log_elapsed

SAMPLED_ROWS = 50_000
ROWS_AT_A_TIME = 16_384
SHRINKING_STEPS = 20  # times elapsed only shrink: so many steps are no chance
N_EXPONENTS = 2048  # of float64
EXPONENT_OF_ONE = 1023
FAR_SPREAD = 10  # times the distance of the outer deciles: a spread that most numbers do not have
OUTER_DECILES = 2.563  # their distance, in standard deviations of a normal distribution
LINEAR = 5.0  # standard deviations


@dataclass
class Moments:
    """Weight, mean and spread of finite numbers, computed in chunks.

    Numbers are taken relative to the first one: however far they lie from zero, and wherever the
    parts begin, nothing of their spread is rounded away. ``mean`` is relative to the first number,
    ``squares`` are weighted squared distances from the
    mean.

    >>> moments = Moments()
    >>> moments.update(np.array([7.0, np.nan, 9.0]))
    >>> moments.update(np.array([8.0]))
    >>> moments.center, moments.variance
    (8.0, 0.6666666666666666)
    """

    weight: float = 0.0
    first: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, numbers: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take further numbers in; those that are not finite do not count."""
        weights = np.ones(len(numbers)) if weights is None else weights
        present = np.isfinite(numbers)
        if not present.all():
            numbers, weights = numbers[present], weights[present]
        weight = float(weights.sum(dtype=np.float64))
        if not weight:
            return
        first = self.first if self.weight else float(numbers[0])
        relative = numbers - first
        mean = float((relative * weights).sum()) / weight
        relative -= mean
        squares = relative * relative * weights
        correction = float((relative * weights).sum()) ** 2 / weight
        self.first, before = first, self.weight
        self.weight += weight
        step = mean - self.mean
        self.squares += float(squares.sum()) - correction + step**2 * before * weight / self.weight
        self.mean += step * weight / self.weight

    @property
    def center(self) -> float:
        """The mean; 0 without numbers."""
        return self.first + self.mean

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean; 0 without numbers."""
        return self.squares / self.weight if self.weight else 0.0


@dataclass(frozen=True)
class EventScale:
    """Scale of the numbers of a column, or of a history's events.

    Parameters
    ----------
    shift, scale : float
        Numbers become ``(number - shift) / scale``.
    is_elapsed : bool, default=False
        Times elapsed until the impression: they become ``log1p(elapsed / scale)`` and the
        events keep their own time, because one event is seen from several impressions.
    has_outliers : bool, default=False
        Some numbers lie far off all others, whose median and spread are ``shift`` and ``scale``:
        what is scaled to more than 5 grows by its logarithm from there.

    >>> EventScale(2.0, 1.0).encode(np.array([3.0, np.nan]))
    array([1., 0.], dtype=float32)
    """

    shift: float
    scale: float
    is_elapsed: bool = False
    has_outliers: bool = False

    @classmethod
    def of(cls, moments: Moments) -> "EventScale":
        """Mean and standard deviation; as StandardScaler, which scales no constant column."""
        n, mean, variance = moments.weight, moments.center, moments.variance
        epsilon = np.finfo(np.float64).eps
        is_constant = variance <= n * epsilon * variance + (n * mean * epsilon) ** 2
        return cls(mean, 1.0 if is_constant else float(np.sqrt(variance)))

    def resist_outliers(self, sample: np.ndarray) -> "EventScale":
        """Return a scale by a sample's middle where a few far numbers make the spread of all."""
        present = sample[~np.isnan(sample)]
        median = float(np.median(present)) if len(present) else 0.0
        others = present[present != median]  # a number such as 0 may be most of a column
        middle = float(np.ptp(np.quantile(others, (0.1, 0.9)))) if len(others) else 0.0
        if self.is_elapsed or not 0 < FAR_SPREAD * middle < self.scale:
            return self
        return EventScale(median, middle / OUTER_DECILES, has_outliers=True)

    def check(self) -> None:
        """Raise ValueError where no number can be scaled by it."""
        if not (np.isfinite(self.shift) and 0 < self.scale < np.inf):
            raise ValueError("shifts must be finite and scales positive.")

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """Scale numbers, or times elapsed that are given as such: float32, 0 where missing."""
        scaled = (numbers - self.shift) / self.scale
        if self.is_elapsed:
            scaled = log_elapsed(scaled)
        elif self.has_outliers:
            beyond = np.maximum(np.abs(scaled) - LINEAR, 0)
            scaled = np.clip(scaled, -LINEAR, LINEAR) + np.sign(scaled) * np.log1p(beyond)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


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


def indicator(name: str) -> str:
    """Name of the output that is 1 where the column is missing."""
    return f"{name}_missing"
