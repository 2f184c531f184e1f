"""Numbers on a common scale: numeric columns, and the numbers that go with a history's events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from sklearn_din._spans import Spans, log_elapsed
from sklearn_din.encoding.events import Events

SAMPLED_ROWS = 50_000
SHRINKING_STEPS = 20  # so many without one that grows are no accident


class NumericColumns:
    """Standardise columns; a missing number gets the mean and is told apart by an indicator.

    Parameters
    ----------
    names : sequence of str
    numbers : ndarray of shape (n_rows, n_columns)
        The training rows, NaN where missing.
    taken : collection of str, default=()
        Names that no indicator may have: the frame has a column of that name already.

    Attributes
    ----------
    names : list of str
    has_missing : list of str
        Those with missing numbers at fit. Each gets a second output, 1 where it is missing.

    Examples
    --------
    >>> columns = NumericColumns(["price"], np.array([[1.0], [3.0], [np.nan]]))
    >>> columns.encode(np.array([[3.0], [np.nan]]))
    {'price': array([1., 0.], dtype=float32), 'price_missing': array([0., 1.], dtype=float32)}
    """

    def __init__(
        self, names: Sequence[str], numbers: np.ndarray, *, taken: Collection[str] = ()
    ) -> None:
        self.names = list(names)
        any_missing = np.isnan(numbers).any(axis=0)
        self.has_missing = [
            name
            for name, is_missing in zip(names, any_missing, strict=True)
            if is_missing and indicator(name) not in taken
        ]
        no_number = np.isnan(numbers).all(axis=0)
        scaler = StandardScaler().set_output(transform="default")
        self.scaler = scaler.fit(np.where(no_number, 0.0, numbers)) if self.names else None

    @classmethod
    def of_scalers(
        cls,
        names: Sequence[str],
        scalers: Sequence[StandardScaler],
        any_missing: Sequence[bool] | np.ndarray,
        *,
        taken: Collection[str],
    ) -> NumericColumns:
        """Join scalers of one column each, whose numbers came in parts, those missing left out.

        Parameters
        ----------
        names : sequence of str
        scalers : sequence of StandardScaler
        any_missing : sequence of bool
            Whether the column has missing numbers.
        taken : collection of str
            Names that no indicator may have.
        """
        self = cls(names, np.zeros((1, len(names))))
        pairs = zip(self.names, any_missing, strict=True)
        self.has_missing = [n for n, is_so in pairs if is_so and indicator(n) not in taken]
        if self.scaler is not None:
            self.scaler.mean_ = np.concatenate([its.mean_ for its in scalers])
            self.scaler.var_ = np.concatenate([its.var_ for its in scalers])
            self.scaler.scale_ = np.concatenate([its.scale_ for its in scalers])
            counts = np.array([its.n_samples_seen_ for its in scalers])
            self.scaler.n_samples_seen_ = counts if np.ptp(counts) else counts[0]
        return self

    @property
    def scales(self) -> dict[str, EventScale]:
        """Mean and standard deviation by name."""
        if self.scaler is None:
            return {}
        pairs = zip(self.scaler.mean_.tolist(), self.scaler.scale_.tolist(), strict=True)
        return {name: EventScale(*pair) for name, pair in zip(self.names, pairs, strict=True)}

    def encode(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return float32 outputs by name."""
        encoded: dict[str, np.ndarray] = {}
        if self.scaler is None:
            return encoded
        scaled = self.scaler.transform(numbers)
        missing = np.isnan(scaled)
        scaled[missing] = 0.0
        for position, name in enumerate(self.names):
            encoded[name] = scaled[:, position].astype(np.float32)
            if name in self.has_missing:
                encoded[indicator(name)] = missing[:, position].astype(np.float32)
        return encoded


@dataclass(frozen=True)
class EventScale:
    """How the numbers of a history's events are scaled.

    Parameters
    ----------
    shift, scale : float
        Numbers become ``(number - shift) / scale``.
    is_elapsed : bool, default=False
        Times elapsed until the impression: they become ``log1p(elapsed / scale)`` and the
        events keep their own time, because one event is seen from several impressions.

    Examples
    --------
    >>> scale = EventScale.learn(np.array([1.0, 3.0, np.nan]), np.array([1, 1, 5]))
    >>> scale.encode(np.array([3.0, np.nan]))
    array([1., 0.], dtype=float32)
    """

    shift: float
    scale: float
    is_elapsed: bool = False

    @classmethod
    def of_events(cls, name: str, events: Events) -> EventScale:
        """Learn how the numbers of one history are scaled."""
        numbers = events.numbers[name]
        sampled = slice(None, None, max(1, len(events.spans) // SAMPLED_ROWS))
        spans = events.spans.take(sampled)
        if name in events.anchors:
            return cls.learn_elapsed(spans.elapsed(numbers, events.anchors[name][sampled]))
        if are_elapsed(numbers, spans):
            return cls.learn_elapsed(numbers[spans.index()])
        return cls.learn(numbers, events.counts)

    @classmethod
    def learn(cls, numbers: np.ndarray, counts: np.ndarray) -> EventScale:
        """Mean and standard deviation, each event counted once for every row that holds it."""
        present = np.isfinite(numbers)
        numbers, counts = numbers[present], counts[present]
        if not len(numbers):
            return cls(0.0, 1.0)
        shift = np.average(numbers, weights=counts)
        return cls.of_moments(shift, np.average((numbers - shift) ** 2, weights=counts))

    @classmethod
    def of_moments(cls, shift: float, variance: float) -> EventScale:
        """Scale by a mean and a variance; one without a spread worth the name stays as it is."""
        spread = np.sqrt(variance)
        negligible = 10 * np.finfo(np.float64).eps * abs(shift)
        return cls(float(shift), float(spread) if spread > negligible else 1.0)

    @classmethod
    def learn_elapsed(cls, elapsed: np.ndarray) -> EventScale:
        """Power of two nearest to the median of the positive times elapsed.

        Dividing by a power of two is exact: it makes no difference whether times are divided
        before they are subtracted, as for windows, or after, as for the same histories as lists.
        """
        elapsed = elapsed[elapsed > 0]
        scale = 2.0 ** np.round(np.log2(np.median(elapsed))) if len(elapsed) else 1.0
        return cls(0.0, float(scale), is_elapsed=True)

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """Scale numbers, or times elapsed that are given as such: float32, 0 where missing."""
        scaled = (numbers - self.shift) / self.scale
        if self.is_elapsed:
            scaled = log_elapsed(scaled)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def encode_times(self, times: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale event times and the times of their rows: their differences are then scaled.

        :class:`sklearn_din.features.Ragged` takes the difference and its ``log1p`` when it is
        read, because one event is seen from several rows.
        """
        return times / self.scale, anchors / self.scale


def are_elapsed(numbers: np.ndarray, spans: Spans) -> bool:
    """Whether numbers are times elapsed, which a file has parted from their anchors.

    From the oldest event to the newest they never grow and are never negative, in every row;
    quantities such as prices do not keep to that.
    """
    values = numbers[spans.index()]
    if len(values) == 0 or not values.min() >= 0:
        return False
    steps = np.diff(values)
    inside = np.ones(len(steps), dtype=bool)
    starts = Spans.from_lengths(spans.lengths).starts[spans.lengths > 0]
    inside[starts[1:] - 1] = False  # from one row's newest event to the next row's oldest
    steps = steps[inside]
    return bool((steps < 0).sum() >= SHRINKING_STEPS and (steps <= 0).all())


def indicator(name: str) -> str:
    """Name of the output that is 1 where the column is missing."""
    return f"{name}_missing"
