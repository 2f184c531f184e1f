"""Early stopping on small logs, where it costs a tenth of the rows, beside training without.

``python -m benchmarks.small_logs [--seeds 1]`` trains on the rows of some groups and prints GAUC
and log loss of the workload's validation rows, which ``fit`` never sees.
"""

import argparse

import numpy as np

from benchmarks import quality, workloads

DATA_SETS = [
    "e-shop by session, uniform",
    "e-shop by time, popularity",
    "MovieLens by user",
    "MovieLens by user, means",
    "click log: many items, short, strong",
    "click log: recent interest",
]
SIZES = [300, 1000, 2000, 4000, 9000]
CHOICES = {
    "3 epochs": {"max_epochs": 3, "early_stopping": False},
    "20 epochs": {"max_epochs": 20, "early_stopping": False},
    "early stopping": {"early_stopping": True},
}


def measure(workload, n_rows, seed):
    """GAUC and log loss by choice, trained on the first ``n_rows`` of shuffled groups."""
    train, valid = workload["train"], workload["valid"]
    groups, group = np.unique(train["group"], return_inverse=True)
    place = np.random.RandomState(seed + 1).permutation(len(groups))[group]
    kept = np.sort(np.argsort(place, kind="stable")[:n_rows])
    X, y = quality.frame_of({**workload, "train": workloads.take(train, kept)}, "train")
    X_valid, _ = quality.frame_of(workload, "valid")
    found = {}
    for choice, options in CHOICES.items():
        pipeline = quality.pipeline_of(workload, random_state=seed, **options).fit(X, y)
        measures = quality.measures(valid, pipeline.predict_proba(X_valid)[:, 1])
        found[choice] = [measures["gauc"], measures["log_loss"]]
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_logs")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"| GAUC, log loss | rows | {' | '.join(CHOICES)} |\n|---|---|{'---|' * len(CHOICES)}")
    for name in DATA_SETS:
        made = [quality.data_set(name, seed) for seed in range(options.seeds)]
        for n_rows in SIZES:
            runs = [measure(workload, n_rows, seed) for seed, workload in enumerate(made)]
            cells = [np.mean([run[choice] for run in runs], axis=0) for choice in CHOICES]
            shown = " | ".join(f"{gauc:.3f}, {loss:.3f}" for gauc, loss in cells)
            print(f"| {name} | {n_rows:,} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
