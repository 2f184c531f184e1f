"""Base model against DIN, cross-validated by user."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from sklearn_din.command_line.models import MODELS, Parameters, make_model
from sklearn_din.command_line.study import Study
from sklearn_din.metrics import group_roc_auc_score, relative_improvement

Folds = list[tuple[np.ndarray, np.ndarray]]


class Comparison(NamedTuple):
    """One row of scores per model, and the last model's probability of each impression."""

    table: pd.DataFrame
    probability: np.ndarray


def folds_by_user(study: Study, n_folds: int) -> Folds:
    """Rows to train and to test on; raise where a fold could not be trained or judged."""
    n_users = study.users.nunique()
    if n_users < n_folds:
        raise ValueError(
            f"--folds {n_folds} needs at least {n_folds} users, the log has {n_users}."
        )
    folds = list(GroupKFold(n_folds).split(study.X, study.y, study.users))
    for number, rows in enumerate(folds, 1):
        if any(len(np.unique(study.y[part])) < 2 for part in rows):
            raise ValueError(
                f"fold {number} of {n_folds} has clicks alone or none, among the rows to train or "
                "to test on: there are too few users of each kind. Give fewer --folds."
            )
    return folds


def cross_validate(study: Study, folds: Folds, settings: Parameters) -> Comparison:
    """AUC and GAUC of each model on users it has not seen, each fold printed when it is done."""
    rows = []
    probability = np.empty(len(study.y), dtype=np.float32)
    for name, parameters in MODELS.items():
        scores = []
        for number, (train, test) in enumerate(folds, 1):
            began = time.perf_counter()
            model = make_model(study.roles, {**settings, **parameters}, order="user")
            model.fit(study.X.iloc[train], study.y[train])
            probability[test] = model.predict_proba(study.X.iloc[test])[:, 1]
            scores.append(_score(study, probability, test))
            print(
                f"{name}, fold {number} of {len(folds)}: AUC {scores[-1][0]:.4f}, "
                f"{model[-1].n_iter_} epochs, {time.perf_counter() - began:.1f} s",
                flush=True,
            )
        rows.append((name, *np.mean(scores, axis=0)))
    if study.ceiling is not None:
        rows.append(("best possible", *_score(study, study.ceiling, np.arange(len(study.y)))))
    table = pd.DataFrame(rows, columns=["model", "AUC", "GAUC"]).set_index("model")
    base = table["AUC"].iloc[0]
    if base > 0.5:
        table["RelaImpr"] = [f"{relative_improvement(auc, base):+.1%}" for auc in table["AUC"]]
    return Comparison(table, probability)


def _score(study: Study, probability: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """AUC, and GAUC by user."""
    y, users = study.y[rows], study.users.iloc[rows]
    return (
        roc_auc_score(y, probability[rows]),
        group_roc_auc_score(y, probability[rows], groups=users),
    )
