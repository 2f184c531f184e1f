"""Parts that all made logs share: sizes checked, seconds as dates, log-odds of a given mean."""

from numbers import Real

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

DAY = 86_400  # seconds
_START = np.datetime64("2024-01-01", "ns")

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]


def check_at_least(least: float, **values: object) -> None:
    """Raise where one of the named values is no number or is smaller than ``least``."""
    for name, value in values.items():
        if not isinstance(value, Real):
            raise ValueError(f"{name} must be a number, got {value!r}.")
        if not float(value) >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def find_intercept(logit: Floats, mean: float, factor: Floats | float = 1.0) -> float:
    """Return the constant that makes the mean probability of log-odds the given one.

    ``factor`` multiplies the probabilities.
    """
    return brentq(lambda b: (factor * expit(logit + b)).mean() - mean, -100, 100, xtol=1e-14)


def add_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its seconds since the first of January 2024 as dates."""
    return frame.assign(time=_START + frame["time"].to_numpy().astype("timedelta64[s]"))


def spread_over_days(
    gap: Integers, first: Integers, user: Integers, rng: np.random.RandomState
) -> Integers:
    """Return times of events, user after user: a random second of sixty days, then gap by gap."""
    elapsed = np.cumsum(gap)
    return elapsed + (rng.randint(DAY, 60 * DAY, size=first.size) - elapsed[first])[user]


def find_past(
    impressions: pd.DataFrame, events: pd.DataFrame, max_length: int
) -> tuple[Integers, Integers, Integers]:
    """Find the newest earlier events of each impression's user.

    Times are in seconds, events sorted by user, then time. Returned are by past event, oldest to
    newest in one impression after the other: the impression, the row of ``events``, and the rank
    in that past, of which 0 is the newest.
    """
    span = 1 + max(events["time"].max(), impressions["time"].max())
    event_key = events["user"].to_numpy() * span + events["time"].to_numpy()
    user = impressions["user"].to_numpy()
    end = np.searchsorted(event_key, user * span + impressions["time"].to_numpy(), side="left")
    begin = np.maximum(np.searchsorted(event_key, user * span, side="left"), end - max_length)
    first = np.cumsum(end - begin) - (end - begin)
    row = np.repeat(np.arange(len(impressions)), end - begin)
    event = np.arange(len(row)) - first[row] + begin[row]
    return row, event, end[row] - 1 - event
