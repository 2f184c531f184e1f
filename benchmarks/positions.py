"""Clicks that depend on the position, and who finds the relevance behind them.

``python -m benchmarks.positions [--seeds 3] [--strength 1]`` makes click logs
(``make_click_log``) whose impressions were shown at one of ten positions. The log-odds of a click
are those of the candidate's relevance less ``strength * log(position)``. Half of the items are
placed fairly, at a position drawn anew each time; each other item has a place of its own, near
which it is always shown, whatever its relevance: its clicks tell more of the place than of it.

Models learn the clicks of the first 80 % by time. The table has the AUC of their predictions for
the later rows against what would be clicked at one and the same position, of all items and of
those with places of their own; GAUC; and the mean prediction over the mean of what the log has.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_score

N_POSITIONS = 10
METHODS = {  # parameters of the encoder; whether the column is there to train on
    "position=": ({"position": "rank"}, True),
    "a number among others": ({"numeric": ["rank"]}, True),
    "without the column": ({}, False),
}


def shown_log(*, seed, strength, **options):
    """Return impressions with ranks, clicks, clicks at one position, and whether places are own."""
    log = make_click_log(random_state=seed, **options)
    rng = np.random.RandomState(seed)
    shown, n = log.impressions, len(log.y)
    items = shown["item"].to_numpy()
    place = rng.random_sample(items.max() + 1) * N_POSITIONS
    is_unfair = (rng.random_sample(items.max() + 1) < 0.5)[items]
    near = np.where(is_unfair, place[items] + rng.normal(size=n), rng.uniform(0, N_POSITIONS, n))
    rank = np.clip(near, 0, N_POSITIONS - 1).astype(int) + 1
    clicked = rng.random_sample(n) < expit(logit(log.probability) - strength * np.log(rank))
    columns = ["item", "category"]
    X = attach_history(shown, log.events, user="user", time="time", columns=columns)
    return X.assign(rank=rank), clicked.astype(int), log.y, is_unfair


def measures(X, clicked, relevant, is_unfair, *, method, seed):
    """Return what the table shows of a method."""
    parameters, has_rank = METHODS[method]
    is_test = X["time"].rank(method="first", pct=True).to_numpy() > 0.8
    encoder = HistorySequenceEncoder(user="user", time="time", **parameters)
    model = make_pipeline(encoder, DINClassifier(random_state=seed))
    train = X[~is_test]
    model.fit(train if has_rank else train.drop(columns="rank"), clicked[~is_test])
    asked = X[is_test].drop(columns="rank")
    if "numeric" in parameters:  # a request has no position yet: the average one
        asked = asked.assign(rank=X["rank"][~is_test].mean())
    probability = model.predict_proba(asked)[:, 1]
    y, unfair = relevant[is_test], is_unfair[is_test]
    return {
        "AUC": roc_auc_score(y, probability),
        "AUC of unfair items": roc_auc_score(y[unfair], probability[unfair]),
        "GAUC": group_roc_auc_score(y, probability, groups=asked["user"]),
        "mean over the log's": probability.mean() / clicked[is_test].mean(),
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strength", type=float, default=1.0)
    options = parser.parse_args()
    results = []
    for seed in range(options.seeds):
        log = shown_log(seed=seed, strength=options.strength)
        for method in METHODS:
            row = measures(*log, method=method, seed=seed)
            results.append({"method": method} | row)
            print(method, seed, *(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
    means = pd.DataFrame(results).groupby("method", sort=False).mean()
    print_frame(means.map("{:.3f}".format), f"strength {options.strength}")


if __name__ == "__main__":
    main()
