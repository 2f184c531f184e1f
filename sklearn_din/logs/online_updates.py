"""Update an online model row by row: Bayesian probit regression with one weight per key.

Graepel, Quinonero Candela, Borchert, Herbrich: Web-Scale Bayesian Click-Through Rate Prediction for
Sponsored Search Advertising in Microsoft's Bing Search Engine (AdPredictor), ICML 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sklearn_din.native import online_rows

LEAST_PROBABILITY, LEAST_SHRINKAGE = 1e-12, 1e-9
PRIOR_OF_BIAS = 1.0


class Rows(NamedTuple):
    """Labelled rows in the order in which the model learns them.

    keys : (n_columns, n_rows) int32, the number of each row's key in its column, -1 if missing
    times : (n_rows,) float64, ascending
    labels : (n_rows,) int8, 0 or 1
    """

    keys: np.ndarray
    times: np.ndarray
    labels: np.ndarray


class Questions(NamedTuple):
    """Rows to predict.

    keys : (n_columns, n_rows) int32, as of :class:`Rows`
    after : (n_rows,) int64, ascending, the number of labelled rows that are known before each
    times : (n_rows,) float64
    """

    keys: np.ndarray
    after: np.ndarray
    times: np.ndarray

    @classmethod
    def none(cls, n_columns: int) -> Questions:
        """Return no question."""
        return cls(np.empty((n_columns, 0), np.int32), np.empty(0, np.int64), np.empty(0))


@dataclass(eq=False)
class State:
    """Weights of all keys of all columns, and of the bias, which is the last one.

    Mean and variance of a weight are ``shift / precision`` and ``1 / precision``.

    first_keys : (n_columns + 1,) int64, where the keys of each column begin, and the bias
    precisions, shifts, updated : (n_keys + 1,) float64; ``updated`` is the time of the last update,
        and a precision of 0 means that there was none
    """

    first_keys: np.ndarray
    precisions: np.ndarray
    shifts: np.ndarray
    updated: np.ndarray

    @classmethod
    def of_new_keys(cls, n_keys: Sequence[int]) -> State:
        """Return the state of keys that were never updated, so many of each column."""
        first = np.append(0, np.cumsum(n_keys, dtype=np.int64)).astype(np.int64)
        return cls(first, *np.zeros((3, first[-1] + 1)))


class History(NamedTuple):
    """Precision and shift of a row's weights after it was learnt: (n_columns + 1, n_rows) each."""

    precisions: np.ndarray
    shifts: np.ndarray


def fade(
    precision: np.ndarray, shift: np.ndarray, elapsed: np.ndarray, prior: float, half_life: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of weights some time after their last update.

    A precision of 0 stands for a weight without an update. Without a half-life (0) nothing fades.

    >>> fade(np.array([0.0, 4.0]), np.array([0.0, 2.0]), np.array([9.0, 5.0]), 0.5, 5.0)
    (array([0.        , 0.33333333]), array([0.5       , 0.33333333]))
    """
    is_known = precision > 0
    if half_life > 0:
        kept = np.power(0.5, np.maximum(elapsed, 0.0) / half_life)
        precision = np.where(is_known, 1 / prior + (precision - 1 / prior) * kept, 0.0)
        shift = shift * kept
    precision = np.where(is_known, precision, 1.0)
    return np.where(is_known, shift / precision, 0.0), np.where(is_known, 1 / precision, prior)


def update(
    rows: Rows,
    priors: np.ndarray,
    half_life: float,
    state: State,
    *,
    questions: Questions | None = None,
    with_history: bool = False,
) -> tuple[np.ndarray, History | None]:
    """Learn rows one after the other, in place; return the rates of questions, and the history.

    Parameters
    ----------
    priors : (n_columns + 1,), the prior variance of each column's weights, and of the bias
    half_life : in which what was learnt fades by half, in the unit of the times; 0 for none
    state : the weights before the rows, which becomes that after them
    questions : rows to predict, each from the rows before it alone
    with_history : whether to return the weights after each row
    """
    asked = Questions.none(len(rows.keys)) if questions is None else questions
    rates, shape = np.empty(len(asked.times)), (len(priors), len(rows.times))
    history = History(np.zeros(shape), np.zeros(shape)) if with_history else None
    arrays: dict[str, np.ndarray | None] = {
        "keys": np.ascontiguousarray(rows.keys, np.int32),
        "times": np.ascontiguousarray(rows.times, np.float64),
        "labels": np.ascontiguousarray(rows.labels, np.int8),
        "priors": np.ascontiguousarray(priors, np.float64),
        "first_keys": state.first_keys,
        "precisions": state.precisions,
        "shifts": state.shifts,
        "updated": state.updated,
        "row_precisions": None if history is None else history.precisions,
        "row_shifts": None if history is None else history.shifts,
        "asked_keys": np.ascontiguousarray(asked.keys, np.int32),
        "asked_after": np.ascontiguousarray(asked.after, np.int64),
        "asked_times": np.ascontiguousarray(asked.times, np.float64),
        "rates": rates,
    }
    if not online_rows.update_rows(arrays, half_life):
        update_in_python(rows, priors, half_life, state, asked, rates, history)
    return rates, history


def update_in_python(
    rows: Rows,
    priors: np.ndarray,
    half_life: float,
    state: State,
    asked: Questions,
    rates: np.ndarray,
    history: History | None,
) -> None:
    """Do what the native code does, in the same order of operations, to the same bits."""
    n_columns, first = len(rows.keys), state.first_keys.tolist()
    prior_of = [float(prior) for prior in priors]

    def weight_at(column: int, key: int, time: float) -> tuple[float, float]:
        prior = prior_of[column]
        if key < 0:
            return 0.0, prior
        at = first[column] + key
        precision, shift = float(state.precisions[at]), float(state.shifts[at])
        if precision == 0:
            return 0.0, prior
        if half_life > 0 and column < n_columns:
            kept = 0.5 ** (max(time - float(state.updated[at]), 0.0) / half_life)
            precision, shift = 1 / prior + (precision - 1 / prior) * kept, shift * kept
        return shift / precision, 1 / precision

    def read(keys: list[int], time: float) -> list[tuple[float, float]]:
        return [weight_at(column, key, time) for column, key in enumerate([*keys, 0])]

    def answer(number: int) -> None:
        weights = read(asked.keys[:, number].tolist(), float(asked.times[number]))
        spread = math.sqrt(1 + sum(variance for _, variance in weights))
        mean = sum(mean for mean, _ in weights)
        rates[number] = 0.5 * math.erfc(-mean / spread / math.sqrt(2))

    n_answered = 0
    for row in range(len(rows.times) + 1):
        while n_answered < len(rates) and asked.after[n_answered] <= row:
            answer(n_answered)
            n_answered += 1
        if row == len(rows.times):
            break
        keys, time = rows.keys[:, row].tolist(), float(rows.times[row])
        weights, sign = read(keys, time), 1 if rows.labels[row] else -1
        spread = math.sqrt(1 + sum(variance for _, variance in weights))
        z = sign * sum(mean for mean, _ in weights) / spread
        probability = 0.5 * math.erfc(-z / math.sqrt(2))
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        v = density / probability if probability > LEAST_PROBABILITY else -z
        w = v * (v + z)
        for column, (key, (mean, variance)) in enumerate(zip([*keys, 0], weights, strict=True)):
            if key < 0:
                continue
            at = first[column] + key
            mean += sign * variance / spread * v
            variance *= max(1 - variance / (spread * spread) * w, LEAST_SHRINKAGE)
            state.precisions[at], state.shifts[at] = 1 / variance, mean / variance
            state.updated[at] = time
            if history is not None:
                history.precisions[column, row] = state.precisions[at]
                history.shifts[column, row] = state.shifts[at]
