"""Scales of numbers: of numeric columns, and of the numbers of a history's events."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from sklearn_din.utils.spans import log_elapsed

FAR_SPREAD = 10  # times the distance of the outer deciles: a spread that most numbers do not have
OUTER_DECILES = 2.563  # their distance, in standard deviations of a normal distribution
LINEAR = 5.0  # standard deviations
LEAST_PROBABILITY = 1e-12
MOST = 1e6  # standard deviations: the products of a network overflow with larger numbers


@dataclass
class MeanAndSpread:
    """Weight, mean and spread of finite numbers, computed in chunks.

    Numbers are taken relative to the first one: however far they lie from zero, and wherever the
    parts begin, nothing of their spread is rounded away. ``mean`` is relative to the first number,
    ``squares`` are weighted squared distances from the mean.

    >>> statistics = MeanAndSpread()
    >>> statistics.update(np.array([7.0, np.nan, 9.0]))
    >>> statistics.update(np.array([8.0]))
    >>> statistics.center, statistics.variance
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
        self.add(MeanAndSpread(weight, first, mean, float(squares.sum()) - correction))

    def add(self, other: "MeanAndSpread") -> None:
        """Take the numbers of other statistics in."""
        if not other.weight:
            return
        before, self.first = self.weight, self.first if self.weight else other.first
        self.weight += other.weight
        step = (other.first - self.first) + other.mean - self.mean
        self.squares += other.squares + step**2 * before * other.weight / self.weight
        self.mean += step * other.weight / self.weight

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

    shift, scale : numbers become ``(number - shift) / scale``
    is_elapsed : times elapsed until the impression: they become ``log1p(elapsed / scale)`` and the
        events keep their own time, because one event is seen from several impressions
    is_log_odds : probabilities, of which the log-odds are scaled, in float64
    has_outliers : some numbers lie far off all others, whose median and spread are ``shift`` and
        ``scale``: what is scaled to more than 5 grows by its logarithm from there

    >>> EventScale(2.0, 1.0).encode(np.array([3.0, np.nan]))
    array([1., 0.], dtype=float32)
    """

    shift: float
    scale: float
    is_elapsed: bool = False
    has_outliers: bool = False
    is_log_odds: bool = False

    @classmethod
    def of(cls, statistics: MeanAndSpread) -> "EventScale":
        """Mean and standard deviation; as StandardScaler, which scales no constant column."""
        n, mean, variance = statistics.weight, statistics.center, statistics.variance
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

    @classmethod
    def of_elapsed(cls, sample: np.ndarray) -> "EventScale":
        """Return the scale of times elapsed: the power of two nearest to their median."""
        elapsed = sample[sample > 0]
        exponent = float(np.rint(np.log2(np.median(elapsed)))) if len(elapsed) else 0.0
        return cls(0.0, 2.0**exponent, is_elapsed=True)

    @classmethod
    def of_probabilities(cls, sample: np.ndarray) -> "EventScale":
        """Return the scale of log-odds: they are taken relative to their mean, and not scaled.

        >>> scale = EventScale.of_probabilities(np.array([0.5, 0.5]))
        >>> scale.encode(np.array([0.5, 0.25, 1e-9]))
        array([  0.       ,  -1.0986123, -20.723267 ], dtype=float32)
        """
        present = log_odds(sample[~np.isnan(sample)])
        return cls(float(present.mean()) if len(present) else 0.0, 1.0, is_log_odds=True)

    def check(self) -> None:
        """Raise ValueError where no number can be scaled by it."""
        if not (np.isfinite(self.shift) and 0 < self.scale < np.inf):
            raise ValueError("shifts must be finite and scales positive.")

    def encode(self, numbers: np.ndarray, *, missing: float = 0.0) -> np.ndarray:
        """Scale numbers, or times elapsed that are given as such: float32, missing ones at last."""
        scaled = ((log_odds(numbers) if self.is_log_odds else numbers) - self.shift) / self.scale
        if self.is_elapsed:
            scaled = log_elapsed(scaled)
        elif self.has_outliers:
            beyond = np.maximum(np.abs(scaled) - LINEAR, 0)
            scaled = np.clip(scaled, -LINEAR, LINEAR) + np.sign(scaled) * np.log1p(beyond)
        scaled = np.clip(scaled, -MOST, MOST)
        return np.nan_to_num(scaled, nan=missing).astype(np.float32)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities, float64; NaN where one is missing."""
    present = np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return logit(present)
