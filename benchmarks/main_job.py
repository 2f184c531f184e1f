"""The main job on real input: e-shop clicks, MovieLens, and the click log with known truth.

``python -m benchmarks.main_job [eshop] [movielens] [click_log]``: AUC and GAUC of base models and
DIN over five seeds. The data folder is ``../shared/data``, or the variable SKLEARN_DIN_DATA.
"""

import os
import sys
import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, sample_negatives
from sklearn_din.datasets import fetch_movielens, make_click_log
from sklearn_din.metrics import group_roc_auc_score
from tests.real_data import real_data_folder

SEEDS = range(5)
MODELS = {
    "sum pooling (the paper's base model)": {"pooling": "sum", "interest": "paper"},
    "mean pooling": {"pooling": "mean", "interest": "paper"},
    "DIN as published": {"interest": "paper"},
    "sum pooling, extended": {"pooling": "sum"},
    "DIN (default)": {},
}


def pipeline(drop, **parameters):
    encoder = HistorySequenceEncoder(drop=drop)
    return Pipeline([("encode", encoder), ("din", DINClassifier(**parameters))])


def eshop(seed):
    """Last click of each session against four sampled products; history from the session."""
    clicks = pd.read_csv(real_data_folder() / "eshop-clicks" / "clicks.csv.gz")
    last = clicks.groupby("session")["order"].transform("max")
    chosen = clicks.loc[
        (clicks["order"] == last) & (last > 1), ["session", "order", "item", "category", "price"]
    ].astype({"price": float})
    X, y = sample_negatives(
        chosen,
        user="session",
        item="item",
        item_columns=["category", "price"],
        n_negatives=4,
        random_state=seed,
    )
    X = attach_history(X, clicks, user="session", time="order", columns=["item", "category"])
    return X, y, X["session"], None, ["session", "order"]


def click_log(seed):
    """The embedded log: its best possible AUC is known."""
    log = make_click_log(random_state=seed)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    return X, log.y, X["user"], log.probability, ["user", "time"]


def compare(make):
    """AUC and GAUC on one fold a seed, by group; mean and standard error."""
    rows = []
    for seed in SEEDS:
        X, y, groups, truth, drop = make(seed)
        folds = GroupKFold(5, shuffle=True, random_state=seed).split(X, y, groups)
        train, test = next(folds)
        scores = {}
        if truth is not None:
            scores["best possible"] = truth[test], 0.0
        for name, parameters in MODELS.items():
            began = time.perf_counter()
            model = pipeline(drop, random_state=seed, **parameters).fit(X.iloc[train], y[train])
            seconds = time.perf_counter() - began
            scores[name] = model.predict_proba(X.iloc[test])[:, 1], seconds
        for name, (probability, seconds) in scores.items():
            auc = roc_auc_score(y[test], probability)
            gauc = group_roc_auc_score(y[test], probability, groups=groups.iloc[test])
            rows.append((name, auc, gauc, seconds))
    table = pd.DataFrame(rows, columns=["model", "AUC", "GAUC", "fit seconds"])
    summary = table.groupby("model", sort=False).agg(["mean", "sem"])
    summary = summary.drop(columns=("fit seconds", "sem"))
    if "best possible" in summary.index:
        ceiling = summary.loc["best possible", ("AUC", "mean")]
        share = (summary[("AUC", "mean")] - 0.5) / (ceiling - 0.5)
        summary[("share of the way", "mean")] = share
    print(summary.to_string(float_format="{:.4f}".format), flush=True)


def movielens():
    """GridSearchCV over embedding_dim x pooling, and cross_val_score, by user."""
    data = fetch_movielens("latest-small", data_home=real_data_folder(), download_if_missing=False)
    ratings = data.ratings.merge(data.movies[["item", "genres"]], on="item")
    y = (ratings["rating"] >= 4).to_numpy().astype(int)
    X = attach_history(
        ratings[["user", "item", "genres", "time"]],
        ratings[y == 1],
        user="user",
        time="time",
        columns=["item"],
    )
    encoder = HistorySequenceEncoder(
        drop=["user", "time"], histories={"hist_item": "item", "genres": None}, separator="|"
    )
    model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0))])
    folds = GroupKFold(3)
    scores = cross_val_score(model, X, y, scoring="roc_auc", cv=folds, groups=X["user"])
    print(f"cross_val_score by user: AUC {scores.mean():.4f} +- {scores.std():.4f}", flush=True)
    grid = {"din__embedding_dim": [8, 16], "din__pooling": ["attention", "sum"]}
    search = GridSearchCV(model, grid, scoring="roc_auc", cv=folds, n_jobs=1)
    began = time.perf_counter()
    search.fit(X, y, groups=X["user"])
    print(f"GridSearchCV, {len(y):,} rows, {time.perf_counter() - began:.0f} s:")
    found = pd.DataFrame(search.cv_results_)[
        ["param_din__embedding_dim", "param_din__pooling", "mean_test_score", "std_test_score"]
    ]
    print(found.to_string(index=False, float_format="{:.4f}".format), flush=True)


def main():
    chosen = sys.argv[1:] or ["eshop", "movielens", "click_log"]
    print(f"load {np.round(os.getloadavg()[0], 1)}, {os.cpu_count()} cores")
    for name in chosen:
        print(f"\n{name}", flush=True)
        if name == "movielens":
            movielens()
        else:
            compare({"eshop": eshop, "click_log": click_log}[name])


if __name__ == "__main__":
    main()
