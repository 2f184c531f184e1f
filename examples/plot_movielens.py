"""
MovieLens: will they like this movie?
=====================================

Real ratings (MovieLens latest-small). A rating of 4 or more is a click; the history is what the
user liked before. Films have titles, so the attention is easy to interpret.

The example looks for MovieLens in the folder given by the environment variable
``SKLEARN_DIN_DATA``, or in scikit-learn's data folder. It downloads nothing: without a copy, it
prints a message and stops. ``fetch_movielens()`` downloads one.
"""

import os

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from sklearn_din import (
    AttentionDisplay,
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    explain,
)
from sklearn_din.datasets import fetch_movielens

try:
    movielens = fetch_movielens(
        "latest-small", data_home=os.environ.get("SKLEARN_DIN_DATA"), download_if_missing=False
    )
except OSError:
    movielens = None
    print("There is no copy of MovieLens here: nothing below is run.")

# %%
# Attach histories and aggregates before the split: both contain only strictly earlier events.
# The genres, such as ``"Comedy|Drama"``, are split at the separator into a bag of ids.


def impressions_of(movielens):
    ratings = movielens.ratings.merge(movielens.movies, on="item").sort_values("time")
    ratings["liked"] = (ratings["rating"] >= 4).astype(int)
    liked = ratings[ratings["liked"] == 1]
    shown = ratings[["user", "item", "genres", "time"]]
    X = attach_history(shown, liked, user="user", time="time", columns="item", max_length=20)
    aggregates = {
        "user_mean": ("user", "rating", "mean"),
        "item_mean": ("item", "rating", "mean"),
        "item_count": ("item", None, "count"),
    }
    X = attach_aggregates(X, ratings, time="time", aggregates=aggregates)
    return X.reset_index(drop=True), ratings["liked"].to_numpy()


def fit(X, y, *, drop=()):
    encoder = HistorySequenceEncoder(
        histories={"hist_item": "item", "genres": None},
        separator="|",
        user="user",
        time="time",
        drop=drop,
    )
    din = DINClassifier(max_epochs=2, early_stopping=True, random_state=0)
    return Pipeline([("encode", encoder), ("din", din)]).fit(X, y)


# %%
# Train on the first 80 % of the ratings and test on the rest, with and without the aggregates. Most
# of the later ratings are by new users, about whom embeddings know little, while a
# mean rating shows after a few films how strict someone is.

if movielens is not None:
    X, y = impressions_of(movielens)
    cut = int(0.8 * len(X))
    is_new = ~X["user"][cut:].isin(X["user"][:cut])
    print(f"{is_new.mean():.0%} of the test rows are of users not seen in training")
    models = {
        "history alone": fit(X[:cut], y[:cut], drop=["user_mean", "item_mean", "item_count"]),
        "with aggregates": fit(X[:cut], y[:cut]),
    }
    for name, model in models.items():
        auc = roc_auc_score(y[cut:], model.predict_proba(X[cut:])[:, 1])
        print(f"{name:>15}: AUC {auc:.3f}")

# %%
# Which liked films counted for one other film, by title.

if movielens is not None:
    lengths = np.array([len(history) for history in X["hist_item"]])
    chosen = np.flatnonzero((y == 1) & (lengths >= 15) & (np.arange(len(y)) >= cut))[:500]
    best = chosen[models["with aggregates"].predict_proba(X.iloc[chosen])[:, 1].argmax()]
    titles = movielens.movies.set_index("item")["title"]
    weights = explain(models["with aggregates"], X.iloc[[best]]).query("hist_item.notna()")
    AttentionDisplay(
        weights=weights[["weight"]].to_numpy().T,
        events=weights["hist_item"].map(titles).tolist(),
        candidates=[titles[X["item"].iloc[best]]],
    ).plot()
