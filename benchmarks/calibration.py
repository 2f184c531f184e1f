"""The way back to true probabilities after sampled negatives and after ``class_weight``.

``python -m benchmarks.calibration [--seeds 3]`` trains on click logs whose true probabilities are
known: as they are; on a quarter of the negatives, before and after ``correct_for_sampling``; with
``class_weight="balanced"``, before and after ``CalibratedClassifierCV`` on the validation rows.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from benchmarks import quality, workloads
from sklearn_din.metrics import correct_for_sampling

DATA_SETS = ["click log: many items, short, strong", "click log: recent interest"]
SAMPLING_RATE = 0.25
SHOWN = ["auc", "log_loss", "ece"]


def sampled(workload, *, seed):
    """The workload with a share of the negatives that it is trained and stopped on."""
    rng, fewer = np.random.RandomState(seed), dict(workload)
    for part in ("train", "valid"):
        label = workload[part]["label"]
        kept = (label == 1) | (rng.random_sample(len(label)) < SAMPLING_RATE)
        fewer[part] = workloads.take(workload[part], kept)
    return fewer


def probabilities(workload, seed):
    """Click probability of the test rows, by what was done."""
    X, _ = quality.frame_of(workload, "test")
    found = {"best possible": workload["test"]["probability"]}
    found["as shown"] = quality.fit_ours(workload, seed=seed).predict_proba(X)[:, 1]
    raw = quality.fit_ours(sampled(workload, seed=seed), seed=seed).predict_proba(X)[:, 1]
    found["a quarter of the negatives"] = raw
    found["... corrected"] = correct_for_sampling(raw, sampling_rate=SAMPLING_RATE)
    balanced = quality.fit_ours(workload, seed=seed, class_weight="balanced")
    found["class_weight='balanced'"] = balanced.predict_proba(X)[:, 1]
    calibrated = CalibratedClassifierCV(FrozenEstimator(balanced), method="sigmoid")
    calibrated.fit(*quality.frame_of(workload, "valid"))
    found["... calibrated"] = calibrated.predict_proba(X)[:, 1]
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in DATA_SETS:
        rows = []
        for seed in range(options.seeds):
            workload = quality.data_set(name, seed)
            for what, probability in probabilities(workload, seed).items():
                rows.append({"": what, **quality.measures(workload["test"], probability)})
        table = pd.DataFrame(rows).groupby("", sort=False)[SHOWN].agg(["mean", "sem"])
        print(f"\n{name}, {options.seeds} seeds: mean (standard error)\n")
        print("| | AUC | log loss | calibration error |\n|---|---|---|---|")
        for what, line in table.iterrows():
            cells = [f"{line[m]['mean']:.4f} ({line[m]['sem']:.4f})" for m in SHOWN]
            print(f"| {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
