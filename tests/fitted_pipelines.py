"""A small click log of every kind of column, and a Pipeline fitted on it."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.utils.plain_values import read_value, write_value

CANDIDATE = ["item", "category", "price"]


def attach_clicks(*, columns=("item", "category"), elapsed=None, random_state=0, **options):
    """Impressions of a made click log with their histories, and which were clicked."""
    log = make_click_log(random_state=random_state, **options)
    named = {"user": "user", "time": "time", "columns": list(columns), "elapsed": elapsed}
    return attach_history(log.impressions, log.events, **named), log.y


def make_frame(n_users=12, seed=0):
    sizes = {"n_users": n_users, "n_items": 30, "n_categories": 5, "mean_length": 4}
    frame, y = attach_clicks(**sizes, random_state=seed)
    frame["tags"] = [["red", "new"][: row % 3] for row in range(len(frame))]
    frame["item"] = "i" + frame["item"].astype(str)
    frame["hist_item"] = [[f"i{item}" for item in cell] for cell in frame["hist_item"]]
    frame["age"] = np.where(frame["user"] % 4, frame["user"] / 7.0, np.nan)
    frame["price"] = frame["price"].where(frame["category"] != 2)
    return frame, y


def quick(kind=DINClassifier, **parameters):
    """An estimator that trains two epochs."""
    return kind(**{"max_epochs": 2, "random_state": 0, **parameters})


def make_model(encoder=None, kind=DINClassifier, **parameters):
    """Encoder, by default of users and times, and a quick estimator, by default a classifier."""
    if encoder is None:  # numbers of item neighbours, whatever folds of so few rows say
        encoder = HistorySequenceEncoder(user="user", time="time")
        parameters = {"neighbours": "time", **parameters}
    return Pipeline([("encode", encoder), ("din", quick(kind, **parameters))])


def fit_pipeline(frame, y):
    histories = {("hist_item", "hist_category"): ("item", "category"), "tags": None}
    encoder = HistorySequenceEncoder(histories=histories, drop=["user", "time"])
    return make_model(encoder, lr=0.02, early_stopping=False).fit(frame, y)


def make_rows(n_users=8, n_items=9, n_rows=80, seed=0):
    """Impressions in the order of their times, with missing numbers, and their labels."""
    random_state = np.random.RandomState(seed)
    frame = pd.DataFrame({"user": random_state.randint(n_users, size=n_rows)})
    frame["time"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(n_rows), "h")
    frame["item"] = [f"i{n}" for n in random_state.randint(n_items, size=n_rows)]
    frame["price"] = np.where(random_state.rand(n_rows) < 0.1, np.nan, random_state.rand(n_rows))
    return frame, random_state.randint(2, size=n_rows)


def edit_state(state, edit):
    """Return the state of an estimator, as files and pickles hold it, with other values."""
    values = read_value(state["text"], state["arrays"])
    edit(values)
    text, arrays = write_value(values, keeps_objects=True)
    return state | {"text": text, "arrays": arrays}
