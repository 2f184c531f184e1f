"""Which rows should stop the training: random ones, the last ones, or those of other users.

``python -m benchmarks.validation_rows --cache validation.json [--seeds 2] [--only WORD]`` fits the
defaults on the training and validation rows of each data set of ``benchmarks.quality``, a tenth of
them set aside in each of the ways that the classifier knows, and scores the test rows once. It
prints the test GAUC, AUC and log loss of each way, and the mean differences from "random" over data
sets that are parted by time and by user; ``--table`` only prints.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from benchmarks.data_sets import DATA_SETS, data_set
from benchmarks.quality import frame_of, measures, pipeline_of

WAYS = {"time": ["random", "last", "groups"], "user": ["random", "groups"]}
SHOWN = ["gauc", "auc", "log_loss"]


def run(workload, way, *, seed):
    """Fit with one choice of validation rows; return what the test rows say."""
    X, y = frame_of(workload, "train", "valid")
    if workload.get("split") == "time":
        X["time"] //= 2  # as it was: the rows to stop by are not marked
    model = pipeline_of(workload, validation=way, early_stopping=True, random_state=seed)
    model.fit(X, y)
    test, _ = frame_of(workload, "test")
    if workload.get("split") == "time":
        test["time"] //= 2
    return measures(workload["test"], model.predict_proba(test)[:, 1])


def print_tables(results):
    """One row per data set, and the mean differences by what parts training from test."""
    records = [
        {"split": found["split"], "data": name, "way": way, **measured}
        for name, found in results.items()
        for way, seeds in found["ways"].items()
        for measured in seeds.values()
    ]
    means = pd.DataFrame(records).groupby(["split", "data", "way"], sort=False)[SHOWN].mean()
    print(means.round(4).to_markdown())
    plain = means.xs("random", level="way")
    differences = (means - plain).drop("random", level="way")
    print()
    print(differences.groupby(["split", "way"]).agg(["mean", "min", "max"]).round(4).to_markdown())


def main():
    """Run what the cache lacks, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("validation.json"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    names = [] if options.table else [name for name in DATA_SETS if options.only in name]
    for seed in range(options.seeds):
        for name in names:
            workload = data_set(name, seed)
            split = "time" if workload.get("split") == "time" else "user"
            ways = results.setdefault(name, {"split": split, "ways": {}})["ways"]
            for way in WAYS[split]:
                if str(seed) not in ways.setdefault(way, {}):
                    ways[way][str(seed)] = run(workload, way, seed=seed)
                    options.cache.write_text(json.dumps(results, indent=1))
                    print(name, way, seed, ways[way][str(seed)], flush=True)
    print_tables(results)


if __name__ == "__main__":
    main()
