"""Click and purchase by one network, against a network for each: ``make_purchase_log``.

The later fifth of the impressions tests. What a model predicts is compared with the true
probabilities, so that few purchases blur nothing: the expected log loss, less that of the truth.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_purchase_log

AFTER = {"after": {"purchase": "click"}}
JOINT = {"one": AFTER, "one, weight 5": {**AFTER, "label_weight": {"purchase": 5}}}


def expected_log_loss(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean log loss of predictions over all labels that the truth could draw."""
    predicted = np.clip(predicted.astype(float), 1e-7, 1 - 1e-7)
    return float(-np.mean(truth * np.log(predicted) + (1 - truth) * np.log1p(-predicted)))


def compare(seed: int, *, n_users: int, purchase_rate: float) -> pd.DataFrame:
    """Return the excess of each way's log loss, by label, and the seconds of its fits."""
    log = make_purchase_log(n_users=n_users, purchase_rate=purchase_rate, random_state=seed)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    n_train = len(X) * 4 // 5
    train, test = slice(0, n_train), slice(n_train, None)
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"), DINClassifier(random_state=seed)
    )
    names, rows = list(log.y), []

    def note(way: str, predicted: list[np.ndarray], began: float) -> None:
        row = {"seed": seed, "way": way, "seconds": time.perf_counter() - began}
        for name, probability in zip(names, predicted, strict=True):
            truth = log.probability[name].to_numpy()[test]
            loss = expected_log_loss(truth, probability[:, 1])
            row[name] = loss - expected_log_loss(truth, truth)
        rows.append(row)
        print(pd.Series(row).to_string().replace("\n", "  "), flush=True)

    began = time.perf_counter()
    alone = [clone(model).fit(X[train], log.y[name][train]) for name in names]
    note("each", [one.predict_proba(X[test]) for one in alone], began)
    for way, parameters in JOINT.items():
        began = time.perf_counter()
        joint = clone(model)
        joint[-1].set_params(**parameters)
        joint.fit(X[train], log.y[train])
        note(way, joint.predict_proba(X[test]), began)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=0.01)
    options = parser.parse_args()
    tables = [
        compare(seed, n_users=options.users, purchase_rate=options.rate) for seed in options.seeds
    ]
    table = pd.concat(tables)
    for label in ("click", "purchase"):
        print(label, table.pivot(index="seed", columns="way", values=label).round(5), sep="\n")
    print(table.drop(columns="seed").groupby("way").mean().round(5))


if __name__ == "__main__":
    main()
