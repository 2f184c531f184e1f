"""Quality of predictions: our defaults, base models, other DINs, an analyst's means.

``python -m benchmarks.quality --cache results.json [--seeds 5] [--rival-seeds 1] [--only WORD]``
runs what the cache lacks (``make quality``) and prints the tables; ``--table`` only prints. Every
method gets the same training rows, and the same validation rows to stop by; the test rows are
scored once. Ours are the default way: a frame, ``HistorySequenceEncoder``, ``DINClassifier``.
The opponents of ``neighbours.py`` know what goes together. The rivals run in the environment of
RIVALS_PYTHON (``rivals-requirements.txt``).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline

from benchmarks import baselines, neighbours, rivals, workloads
from benchmarks.data_sets import DATA_SETS, REAL, data_set
from benchmarks.quality_tables import print_tables
from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.metrics import group_roc_auc_score

OURS = {
    "DINClassifier()": {},
    "interest='paper'": {"interest": "paper"},
    "base model": {"interest": "paper", "pooling": "sum"},
    "mean": {"interest": "paper", "pooling": "mean"},
    "sum, extended": {"pooling": "sum"},
    "mean, extended": {"pooling": "mean"},
}
VARIANTS = {  # one default changed, run where --methods asks
    "no item neighbours": {"neighbours": None},
    "Dice": {"activation": "dice", "attention_activation": "dice"},
    "embedding_l2=50": {"embedding_l2": 50.0},
    "embedding_l2=1000": {"embedding_l2": 1000.0},
    "embedding_dim=8": {"embedding_dim": 8},
    "batch_size=1024": {"batch_size": 1024},
    "patience=8": {"patience": 8},
    "random validation rows": {"validation": "random"},
}
ANALYST = {
    "LightGBM": baselines.lightgbm,
    "logistic regression": baselines.logistic_regression,
    "EASE": neighbours.ease,
    "item-kNN": neighbours.item_knn,
    "stack": neighbours.stack,
    "popularity": neighbours.popularity,
}
RIVALS = ["deepctr-torch", "torch-rechub"]
CEILING = "best possible"  # of the made logs
METHODS = [*OURS, *VARIANTS, *RIVALS, *ANALYST, CEILING]
UNRANKED = {CEILING, "popularity", *VARIANTS}


def encoder_of(workload):
    """Return the encoder as a user would write it, with the columns of users and times.

    Times only where training and test are divided by time.
    """
    alone, attributes = workload.get("events_alone", {}), workload["attributes"]
    histories = tuple(f"hist_{name}" for name in workloads.event_attributes(workload))
    by_time = workload.get("split") == "time"
    return HistorySequenceEncoder(
        histories={histories: (*attributes, *[None] * len(alone))},
        user="group",
        time="time" if by_time else None,
        drop=() if by_time else ["time"],
    )


def frame_of(workload, *parts):
    """Return the parts' rows, one after the other, as a frame, and their labels.

    The time is doubled, and one more in the validation rows: so no validation row has a training
    row's time, and ``validation="last"`` finds exactly them. Where training and test are divided by
    time, the new items of the validation rows share one id that no training row has.
    """
    by_time = workload.get("split") == "time"
    frames = [
        workloads.to_frame(workload, part, new_as_one=by_time and part == "valid") for part in parts
    ]
    for part, frame in zip(parts, frames, strict=True):
        frame["time"] = 2 * frame["time"] + (part == "valid")
    labels = [workload[part]["label"] for part in parts]
    return pd.concat(frames, ignore_index=True), np.concatenate(labels)


def pipeline_of(workload, **parameters):
    """The default way: encoder and classifier, the classifier with the given parameters."""
    return Pipeline([("encode", encoder_of(workload)), ("din", DINClassifier(**parameters))])


def fit_ours(workload, *, seed, **parameters):
    """Train on "train", stopping by "valid": the last rows of what ``fit`` is given."""
    X, y = frame_of(workload, "train", "valid")
    stopping = {"early_stopping": True, "validation": "last"}
    stopping["validation_fraction"] = len(workload["valid"]["label"]) / len(y)
    pipeline = pipeline_of(workload, random_state=seed, **{**stopping, **parameters})
    return pipeline.fit(X, y)


def measures(rows, probability):
    """Return AUC, GAUC, log loss and expected calibration error of one method on test rows."""
    label = rows["label"]
    observed, predicted = calibration_curve(label, probability, n_bins=10, strategy="quantile")
    return {
        "auc": roc_auc_score(label, probability),
        "gauc": group_roc_auc_score(label, probability, groups=rows["group"]),
        "log_loss": log_loss(label, np.clip(probability, 1e-7, 1 - 1e-7)),
        "ece": abs(observed - predicted).mean(),
    }


def run(name, method, seed, workload):
    """Fit one method on one data set; return what was measured."""
    began, more = time.perf_counter(), {}
    ours = OURS | VARIANTS
    if method in ours:
        pipeline = fit_ours(workload, seed=seed, **ours[method])
        X, _ = frame_of(workload, "test")
        probability = pipeline.predict_proba(X)[:, 1]
        more["epochs"] = pipeline["din"].n_iter_
    elif method in ANALYST:
        probability = ANALYST[method](workload, seed=seed)
    elif method == CEILING:
        probability = workload["test"]["probability"]
    else:
        probability = _rival(method, workload, seed)
    seconds = time.perf_counter() - began
    return {**measures(workload["test"], probability), **more, "seconds": seconds}


def _rival(name, workload, seed):
    with tempfile.TemporaryDirectory() as folder:
        path, scores = Path(folder) / "workload.npz", Path(folder) / "scores.npy"
        plain = {key: value for key, value in workload.items() if key not in workloads.PARTS}
        for part in workloads.PARTS:
            known = workload[part].items()
            plain[part] = {k: v for k, v in known if k not in ("relevance", "probability")}
        workloads.save(plain, path)
        rivals.run_child(name, "quality", npz=path, seed=seed, scores=scores)
        return np.load(scores)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality")
    parser.add_argument("--cache", type=Path, default=Path("quality.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival-seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    if not options.table:
        _fill(results, options)
    print_tables(results, data_sets=DATA_SETS, methods=METHODS, unranked=UNRANKED)


def _fill(results, options):
    methods = options.methods or [*OURS, *ANALYST, CEILING, *RIVALS]
    for seed in range(max(options.seeds, options.rival_seeds)):
        for name in (name for name in DATA_SETS if options.only in name):
            missing = [m for m in methods if str(seed) not in results.get(name, {}).get(m, {})]
            limit = {m: options.rival_seeds if m in RIVALS else options.seeds for m in missing}
            missing = [m for m in missing if seed < limit[m]]
            if name in REAL:
                missing = [m for m in missing if m != CEILING]
            workload = data_set(name, seed) if missing else None
            for method in missing:
                result = run(name, method, seed, workload)
                results.setdefault(name, {}).setdefault(method, {})[str(seed)] = result
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                shown = "  ".join(f"{key} {value:.4f}" for key, value in result.items())
                print(f"{name} | {method} | {seed}: {shown}", flush=True)


if __name__ == "__main__":
    main()
