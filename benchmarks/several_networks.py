"""Rare labels: the mean of several networks beside one, and what it costs.

``python -m benchmarks.several_networks [--seeds 5] [--only WORD]``: made markets, and real logs
whose ones are sampled down, to some 350 ones in the training rows; the last quarter of the rows by
time is the test. Of each, three default fits with different ``random_state``: log loss and AUC of
one (the mean of the three), of the mean of their logits and of that of their probabilities, as a
``VotingClassifier`` has it, with standard errors of pairs over seeds, each of which is another
sample of ones.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import few_labels
from benchmarks.market_log import make_market_log
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history

N_NETWORKS, N_ROWS, N_ONES, N_TEST = 3, 20_000, 350, 0.25
SETS = ["market", "movies", "videos", "MovieLens, rating 5"]


def rows_of(name, seed):
    """Return rows in the order of time and rare labels."""
    rng = np.random.default_rng(seed)
    n_rows = round(N_ROWS / (1 - N_TEST))
    if name == "market":
        rate = N_ONES / N_ROWS
        log = make_market_log(random_state=seed, n_impressions=n_rows, base_rate=rate)
        events = log.events.assign(action=log.events["action"].factorize(sort=True)[0])
        options = {"user": "user", "time": "time", "columns": ["item", "category", "action"]}
        X = attach_history(log.impressions, events, **options)
        return X.assign(time=X["time"].astype("int64") // 10**9), np.asarray(log.y).astype(int)
    X, y = few_labels.rows_of(name)
    keeps = (y == 0) | (rng.random(len(y)) < N_ONES / N_ROWS * (y == 0).sum() / y.sum())
    X, y = X[keeps], y[keeps]
    rows = np.sort(rng.choice(len(y), min(n_rows, len(y)), replace=False))
    return X.iloc[rows].reset_index(drop=True), y[rows]


def measure(name, seed):
    """Return the measures of a set's sample, by the number of networks."""
    X, y = rows_of(name, seed)
    cut = round(len(y) * (1 - N_TEST))
    began = time.process_time()
    encoder = HistorySequenceEncoder(user="user", time="time")
    train, test = encoder.fit_transform(X[:cut]), encoder.transform(X[cut:])
    seconds, logits = [time.process_time() - began], []
    for n in range(N_NETWORKS):
        began = time.process_time()
        model = DINClassifier(random_state=N_NETWORKS * seed + n).fit(train, y[:cut])
        seconds.append(time.process_time() - began)
        logits.append(logit(model.predict_proba(test)[:, 1].astype(float)))
    ways = {
        "one": logits,
        "two": [(logits[i] + logits[i - 1]) / 2 for i in range(N_NETWORKS)],
        "three": [np.mean(logits, axis=0)],
        "three, probabilities": [logit(expit(logits).mean(axis=0))],
    }
    row = {"set": name, "seed": seed, "ones": y[:cut].sum(), "seconds of one": sum(seconds[:2])}
    row |= {"worst": max(log_loss(y[cut:], expit(z)) for z in logits)}
    for way, of_way in ways.items():
        row[f"loss, {way}"] = np.mean([log_loss(y[cut:], expit(z)) for z in of_way])
        row[f"AUC, {way}"] = np.mean([roc_auc_score(y[cut:], z) for z in of_way])
    return row


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.several_networks")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a set's name")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in (name for name in SETS if options.only in name):
        rows = pd.DataFrame([measure(name, seed) for seed in range(options.seeds)])
        print(f"{name}: {rows.drop(columns='set').mean().round(4).to_dict()}", flush=True)
        for way in ("two", "three", "three, probabilities"):
            for what in ("loss", "AUC"):
                more = rows[f"{what}, {way}"] - rows[f"{what}, one"]
                error = more.std() / np.sqrt(len(more))
                print(f"  {what}, {way} less one: {more.mean():+.5f} ± {error:.5f}", flush=True)


if __name__ == "__main__":
    main()
