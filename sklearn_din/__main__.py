"""The main job: base model against DIN, cross-validated by user, on the embedded or your own log.

``python -m sklearn_din`` runs on the embedded click log, whose best possible AUC is known.
``python -m sklearn_din log.csv --user U --item I --time T`` runs on a CSV or Parquet log.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_din.datasets.click_log import make_click_log
from sklearn_din.estimator import DINClassifier
from sklearn_din.inspection.display import AttentionDisplay
from sklearn_din.logs.history import attach_history
from sklearn_din.logs.negatives import sample_negatives
from sklearn_din.metrics import group_roc_auc_score, relative_improvement
from sklearn_din.transformers import HistorySequenceEncoder

MODELS = {
    "base model (sum pooling)": {"pooling": "sum", "interest": "paper"},
    "DIN": {},
}


class Study(NamedTuple):
    """Impressions with histories, their labels and users, and the best possible scores."""

    X: pd.DataFrame
    y: np.ndarray
    user: str
    time: str
    ceiling: np.ndarray | None


def embedded_study() -> Study:
    """Return the embedded click log, whose true click probabilities are known."""
    log = make_click_log(random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    return Study(X, log.y, "user", "time", log.probability)


def own_study(options: argparse.Namespace) -> Study:
    """Read a log; without a label column each row is a click and negatives are sampled."""
    log = read_log(Path(options.log))
    columns = [options.item, *options.category]
    needed = [options.user, options.time, *columns, *([options.label] if options.label else [])]
    missing = [name for name in needed if name not in log]
    if missing:
        raise SystemExit(f"{options.log} has no column {missing}; it has {list(log.columns)}.")
    if pd.api.types.is_string_dtype(log[options.time].dtype):
        log[options.time] = pd.to_datetime(log[options.time])
    if options.label:
        X, y = log.drop(columns=options.label), log[options.label].to_numpy()
        if len(np.unique(y)) != 2:
            raise SystemExit(f"--label needs two values, {options.label!r} has {pd.unique(y)[:5]}.")
        y = (y == np.unique(y)[1]).astype(int)
        clicks = X[y == 1]
    else:
        clicks = log
        X, y = sample_negatives(
            log,
            user=options.user,
            item=options.item,
            item_columns=options.category,
            n_negatives=4,
            random_state=0,
        )
    X = X[[options.user, options.time, *columns]]
    X = attach_history(X, clicks, user=options.user, time=options.time, columns=columns)
    return Study(X, y, options.user, options.time, None)


def read_log(path: Path) -> pd.DataFrame:
    """Read a CSV (also compressed) or Parquet file."""
    if not path.exists():
        raise SystemExit(f"no file {path}. Give the path of a CSV or Parquet click log.")
    is_parquet = path.suffix in (".parquet", ".pq")
    return pd.read_parquet(path) if is_parquet else pd.read_csv(path)


def make_model(study: Study, **parameters: object) -> Pipeline:
    """Encoder and classifier, as in the README."""
    encoder = HistorySequenceEncoder(drop=[study.user, study.time])
    return Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0, **parameters))])  # type: ignore[arg-type]


def cross_validate(study: Study, *, n_folds: int) -> pd.DataFrame:
    """AUC and GAUC of each model on users it has not seen; one row per model."""
    users = study.X[study.user]
    folds = list(GroupKFold(n_folds).split(study.X, study.y, users))
    rows = []
    for name, parameters in MODELS.items():
        scores = []
        for number, (train, test) in enumerate(folds, 1):
            began = time.perf_counter()
            model = make_model(study, **parameters).fit(study.X.iloc[train], study.y[train])
            probability = model.predict_proba(study.X.iloc[test])[:, 1]
            scores.append(score(study.y[test], probability, users.iloc[test]))
            print(
                f"{name}, fold {number} of {n_folds}: AUC {scores[-1][0]:.4f}, "
                f"{model[-1].n_iter_} epochs, {time.perf_counter() - began:.1f} s",
                flush=True,
            )
        rows.append((name, *np.mean(scores, axis=0)))
    if study.ceiling is not None:
        rows.append(("best possible", *score(study.y, study.ceiling, users)))
    table = pd.DataFrame(rows, columns=["model", "AUC", "GAUC"]).set_index("model")
    base = table["AUC"].iloc[0]
    if base > 0.5:
        table["RelaImpr"] = [f"{relative_improvement(auc, base):+.1%}" for auc in table["AUC"]]
    return table


def score(y: np.ndarray, probability: np.ndarray, users: pd.Series) -> tuple[float, float]:
    """AUC, and GAUC by user."""
    return roc_auc_score(y, probability), group_roc_auc_score(y, probability, groups=users)


def draw_attention(study: Study, path: Path) -> None:
    """Picture of one impression's history: which past events counted."""
    model = make_model(study, **MODELS["DIN"]).fit(study.X, study.y)
    histories = study.X[next(name for name in study.X if str(name).startswith("hist_"))]
    lengths = np.array([len(history) for history in histories])
    clicked = np.flatnonzero((study.y == 1) & (lengths >= min(15, lengths.max())))
    best = clicked[model.predict_proba(study.X.iloc[clicked])[:, 1].argmax()]
    display = AttentionDisplay.from_estimator(model, study.X.iloc[[best]])
    display.figure_.savefig(path, dpi=120, bbox_inches="tight")
    print(f"attention of impression {study.X.index[best]}: {path}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_din", description=__doc__)
    parser.add_argument("log", nargs="?", help="CSV or Parquet click log; embedded log if absent")
    parser.add_argument("--user", help="column of users")
    parser.add_argument("--item", help="column of items")
    parser.add_argument("--time", help="column of times: numbers or dates")
    parser.add_argument("--category", nargs="*", default=[], help="columns that follow the item")
    parser.add_argument("--label", help="column of clicks; without it each row is a click")
    parser.add_argument("--folds", type=int, default=3, help="folds by user (default 3)")
    parser.add_argument("--picture", default="attention.png", help="default attention.png")
    options = parser.parse_args(arguments)
    if options.log and not (options.user and options.item and options.time):
        parser.error("a log needs --user, --item and --time: the names of its columns")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the main job."""
    options = parse(arguments)
    study = own_study(options) if options.log else embedded_study()
    n_users = study.X[study.user].nunique()
    print(f"{len(study.X):,} impressions of {n_users:,} users, {study.y.mean():.1%} clicked")
    print(cross_validate(study, n_folds=options.folds).to_string(float_format="{:.4f}".format))
    draw_attention(study, Path(options.picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
