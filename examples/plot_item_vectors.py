"""
Films that nobody has rated yet
===============================

An item launched after training has no embedding, but its title has a vector: words
weighted by TF-IDF and reduced to 64 numbers by TruncatedSVD. With one vector per film, the encoder
knows new films by their titles.

The example looks for MovieLens in the folder given by the environment variable
``SKLEARN_DIN_DATA``, or in scikit-learn's data folder. It downloads nothing: without a copy, it
prints a message and stops. ``fetch_movielens()`` downloads one.
"""

import os

import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import fetch_movielens

try:
    movielens = fetch_movielens(
        "latest-small", data_home=os.environ.get("SKLEARN_DIN_DATA"), download_if_missing=False
    )
except OSError:
    movielens = None
    print("There is no copy of MovieLens here: nothing below is run.")

# %%
# Turn titles and genres into vectors. Any text model works, as long as there is one row per film.


def vectors_of(movies):
    text = movies["title"] + " " + movies["genres"].str.replace("|", " ")
    words = TfidfVectorizer(min_df=2, sublinear_tf=True).fit_transform(text)
    table = TruncatedSVD(64, random_state=0).fit_transform(words)
    return pd.DataFrame({"item": movies["item"], "vector": list(table)})


# %%
# Test on the newest fifth of the ratings. Most of its films were rated before, some were not.


def split_of(movielens):
    ratings = movielens.ratings.sort_values("time", kind="stable", ignore_index=True)
    y = (ratings["rating"] >= 4).to_numpy()
    shown = ratings[["user", "item", "time"]]
    X = attach_history(shown, shown[y], user="user", time="time", columns="item")
    return X, y, int(0.8 * len(X))


def fit(X, y, vectors):
    encoder = HistorySequenceEncoder(user="user", time="time", vectors=vectors)
    classifier = DINClassifier(max_epochs=2, random_state=0)
    return Pipeline([("encode", encoder), ("din", classifier)]).fit(X, y)


def auc_of(models, X, y, is_new):
    rows = {}
    for name, model in models.items():
        click = model.predict_proba(X)[:, 1]
        of_new = roc_auc_score(y[is_new], click[is_new])
        rows[name] = {"all films": roc_auc_score(y, click), "new films": of_new}
    return pd.DataFrame(rows).T


if movielens is not None:
    X, y, cut = split_of(movielens)
    is_new = ~X["item"][cut:].isin(set(X["item"][:cut])).to_numpy()
    vectors = {"item": vectors_of(movielens.movies)}
    models = {"ids": fit(X[:cut], y[:cut], None), "vectors": fit(X[:cut], y[:cut], vectors)}
    auc = auc_of(models, X[cut:], y[cut:], is_new)
    axes = auc.plot.barh(figsize=(6, 2.5), color=["#3b82f6", "#ea7a30"], width=0.7)
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="AUC of the newest fifth (chance: .5)", xlim=(0.3, 0.9))
    axes.figure.tight_layout()
    axes.figure.show()
    print(auc.round(3))
