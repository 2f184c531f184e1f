"""One number for each row, out of a network's outputs. Torch is not needed for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import expit

Label = str | int | Mapping[str, float]  # one of several labels, or their weights


class Reading(NamedTuple):
    """One number for each row, out of a network's outputs.

    ``score`` makes of outputs the numbers that order rows, ``value_of`` makes of these what people
    read; ``name`` is that of a column of such values.
    """

    name: str
    score: Callable[[np.ndarray], np.ndarray]
    value_of: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Calibration:
    """From log-odds to probabilities: a line under a sigmoid, or a curve through points.

    >>> Calibration()(np.array([0.0])), Calibration("sigmoid", -2.0, 1.0)(np.array([0.5]))
    (array([0.5]), array([0.5]))
    """

    method: str = ""  # of a CalibratedClassifierCV
    slope: float = 1.0
    intercept: float = 0.0
    logits: np.ndarray = field(default_factory=partial(np.empty, 0))  # (n_points,), isotonic
    probabilities: np.ndarray = field(default_factory=partial(np.empty, 0))

    def check(self) -> None:
        """Raise ValueError where these are no such numbers."""
        numbers = np.array([self.slope, self.intercept])
        for array in (self.logits, self.probabilities, numbers):
            if array.dtype != np.float64 or array.ndim != 1 or not np.isfinite(array).all():
                raise ValueError("a calibration must be finite numbers.")
        if self.logits.shape != self.probabilities.shape:
            raise ValueError("a calibration's curve must have as many probabilities as log-odds.")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of the click: (n,), like the log-odds."""
        if len(self.logits):
            return np.interp(logits, self.logits, self.probabilities)
        line = np.float64(self.slope) * logits + self.intercept if self.method else logits
        return expit(line)


def read_one(
    name: str, value_of: Callable[[np.ndarray], np.ndarray], label: Label | None
) -> Reading:
    """Return how the outputs of a model of one label, or of numbers, are read."""
    if label is not None:
        raise ValueError(f"label chooses among several labels, got one and label={label!r}.")
    return Reading(name, lambda outputs: outputs, value_of)


def read_several(
    names: Sequence[str], probability: Callable[[np.ndarray], np.ndarray], label: Label | None
) -> Reading:
    """Return how outputs become the probability of a label, or a weighted sum of several.

    ``probability`` makes probabilities of log-odds.
    """
    weights = label if isinstance(label, Mapping) else {label: 1.0}
    by_name = {str(name): float(weight) for name, weight in weights.items()}
    if not set(by_name) <= set(names) or not min(by_name.values(), default=-1) >= 0:
        raise ValueError(
            f"label must be one of {list(names)}, or a dict of such names and non-negative "
            f"weights, got {label!r}."
        )
    if not isinstance(label, Mapping):
        number = list(names).index(str(label))
        return Reading("probability", lambda outputs: outputs[:, number], probability)
    factors = np.array([by_name.get(name, 0.0) for name in names], dtype=np.float32)

    def score(outputs: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(np.einsum("ij,j->i", probability(outputs), factors))

    return Reading("score", score, np.exp)
