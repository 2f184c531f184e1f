"""Rows with positions for the abilities that each path (streamed, resumed, grown, joint) takes."""

import numpy as np
import pandas as pd

from sklearn_din import DINClassifier, DINRegressor, HistorySequenceEncoder, attach_history

GENRES = {"f0": ["b", "a"], "f1": ["b"], "f2": ["a", "c", "d"], "f3": [], "f4": None}
VECTORS = {  # f7 has never been shown
    "film": pd.DataFrame({"film": [*GENRES, "f7"], "a": np.arange(6) / 5, "b": [1, 0, 2, 0, 1, 3]})
}
CANDIDATE = ["film", "genres"]


def make_rows(n=240):
    """Films with lists of genres and prices, histories of them and of places; clicks."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"user": rng.randint(9, size=n), "time": np.arange(n)})
    X["price"] = rng.random_sample(n)
    X["rank"] = np.where(X["time"] % 7 == 0, np.nan, X["time"] % 5 + 1)
    X["film"] = rng.choice(list(GENRES), size=n)
    X["genres"] = X["film"].map(GENRES)
    y = (rng.random_sample(n) < np.where(X["film"].isin(["f0", "f2"]), 0.7, 0.3)).astype(int)
    events = X.assign(place=rng.randint(3, size=n))[y == 1]
    names = [*CANDIDATE, "place", "price"]
    return attach_history(X, events, user="user", time="time", columns=names), y


FRAME, CLICKS = make_rows()
LABELS = pd.DataFrame({"click": CLICKS, "purchase": CLICKS * (FRAME["price"] > 0.5)})
LABELS["purchase"] = LABELS["purchase"].where(FRAME.index % 3 > 0)
ORDERED = {"after": {"purchase": "click"}, "label_weight": {"purchase": 2.0}}
# An estimator of y, by what is special about it
ABILITIES = {
    "lists": (DINClassifier, {}, CLICKS),
    "several labels": (DINClassifier, ORDERED, LABELS),
    "numbers": (DINRegressor, {"loss": "log1p"}, np.exp(3 * FRAME["price"].to_numpy())),
}


def make_encoder():
    roles = {"user": "user", "time": "time", "position": "rank"}
    return HistorySequenceEncoder(**roles, max_length=9, vectors=VECTORS)


def encode_grown(encoder=None):
    """Rows as an encoder gives them that met the last ones at ``partial_fit``."""
    encoder = encoder or make_encoder().fit(FRAME[FRAME["film"] != "f2"])
    return encoder.partial_fit(FRAME).transform(FRAME)


def outputs(estimator, X):
    """What a fitted estimator, or a Pipeline, says of rows: log-odds, or numbers."""
    decide = getattr(estimator, "decision_function", None)
    return estimator.predict(X) if decide is None else decide(X)


def answers(estimator, X):
    """What is served of rows: probabilities, or numbers."""
    numbers = outputs(estimator, X)
    return 1 / (1 + np.exp(-numbers)) if hasattr(estimator, "decision_function") else numbers
