"""Defaults re-examined: one changed at a time, judged by validation rows.

``python -m benchmarks.defaults --cache defaults.json [--seeds 1] [--only WORD]`` encodes each data
set of ``benchmarks.quality`` once and fits the classifier with each variant. It prints the mean
difference from the defaults over data sets, of validation rows (which decide) and of test rows
(which are printed beside them, and decide nothing); ``--table`` only prints.
"""

import argparse
import json
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS, data_set
from benchmarks.quality import encoder_of, frame_of, measures
from sklearn_din import DINClassifier, module

VARIANTS = {
    "defaults": {},
    "embedding_l2=50": {"embedding_l2": 50.0},
    "embedding_l2=1000": {"embedding_l2": 1000.0},
    "no number hidden": {"numbers_hidden": 0.0},
    "40 % of numbers hidden": {"numbers_hidden": 0.4},
    "embedding_dim=8": {"embedding_dim": 8},
    "embedding_dim=32": {"embedding_dim": 32},
    "lr=0.001": {"lr": 0.001},
    "patience=8": {"patience": 8},
    "dropout=0.3": {"dropout": 0.3},
}
SHOWN = ["gauc", "log_loss"]


def encoded(workload):
    """Training and validation rows as one, encoded; their labels; and the encoded test rows."""
    X, y = frame_of(workload, "train", "valid")
    test, _ = frame_of(workload, "test")
    encoder = encoder_of(workload)
    return encoder.fit_transform(X, y), y, encoder.transform(test)


def run(workload, X, y, test, *, seed, numbers_hidden=module.NUMBERS_HIDDEN, **parameters):
    """Fit one variant; return what validation and test rows say of it."""
    n_valid = len(workload["valid"]["label"])
    stopping = {
        "early_stopping": True,
        "validation": "last",
        "validation_fraction": n_valid / len(y),
    }
    began = time.perf_counter()
    with patch.object(module, "NUMBERS_HIDDEN", numbers_hidden):
        classifier = DINClassifier(random_state=seed, **stopping, **parameters).fit(X, y)
    seconds = time.perf_counter() - began
    valid = measures(workload["valid"], classifier.predict_proba(X[len(y) - n_valid :])[:, 1])
    tested = measures(workload["test"], classifier.predict_proba(test)[:, 1])
    return {
        **{f"valid_{name}": value for name, value in valid.items()},
        **{f"test_{name}": value for name, value in tested.items()},
        "valid_loss": float(np.nanmin(classifier.history_["valid_loss"])),
        "epochs": classifier.n_iter_,
        "seconds": seconds,
    }


def print_tables(results):
    """Mean differences from the defaults, and on how many data sets the validation loss falls."""
    records = [
        {"data": name, "variant": variant, **measured}
        for name, found in results.items()
        for variant, seeds in found.items()
        for measured in seeds.values()
    ]
    means = pd.DataFrame(records).groupby(["data", "variant"], sort=False).mean()
    shown = ["valid_gauc", "valid_loss", "test_gauc", "test_log_loss", "seconds"]
    wide = {column: means[column].unstack() for column in shown}
    table = {}
    for variant in (name for name in VARIANTS if name in wide["valid_loss"].columns):
        difference = {c: wide[c][variant] - wide[c]["defaults"] for c in shown[:-1]}
        ratio = (wide["seconds"][variant] / wide["seconds"]["defaults"]).median()
        of_sets = int(difference["valid_loss"].notna().sum())
        better = f"{int((difference['valid_loss'] < 0).sum())} of {of_sets}"
        row = {name: f"{values.mean():+.4f}" for name, values in difference.items()}
        table[variant] = row | {"loss is smaller on": better, "time": f"{ratio:.2f}"}
    print(pd.DataFrame.from_dict(table, orient="index").to_markdown())
    for column in ("valid_gauc", "valid_loss"):
        print(f"\n{column}, difference from the defaults\n")
        difference = wide[column].sub(wide[column]["defaults"], axis=0)
        print(difference.drop(columns="defaults").round(4).to_markdown())


def main():
    """Run what the cache lacks, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("defaults.json"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    names = [] if options.table else [name for name in DATA_SETS if options.only in name]
    for seed in range(options.seeds):
        for name in names:
            found = results.setdefault(name, {})
            missing = [v for v in options.variants if str(seed) not in found.get(v, {})]
            if not missing:
                continue
            workload = data_set(name, seed)
            X, y, test = encoded(workload)
            for variant in missing:
                measured = run(workload, X, y, test, seed=seed, **VARIANTS[variant])
                found.setdefault(variant, {})[str(seed)] = measured
                options.cache.write_text(json.dumps(results, indent=1))
                shown = "  ".join(f"{key} {value:.4f}" for key, value in measured.items())
                print(f"{name} | {variant} | {seed}: {shown}", flush=True)
    print_tables(results)


if __name__ == "__main__":
    main()
