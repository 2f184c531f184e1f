"""Rules that need no network: scored on the models' folds, they stand beside the models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.command_line.study import Study
from sklearn_din.logs.aggregates import attach_aggregates

MANY_ERRORS = 3  # standard errors of an AUC by chance that a rule must be ahead to be named
RULES = ("popularity", "click rate so far", "shown before or not", "in own history or not")


def predict_by_rules(
    study: Study, folds: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return what each rule says of every impression, learnt from the rows that its fold trains on.

    "So far" and "before" are strictly before the row's time, in those rows; the own history is the
    row's. Where a rule says yes or no, those rows tell which of the two is clicked more.
    """
    X, y, item = study.X, study.y, study.roles.item
    rows = pd.DataFrame({"item": X[item], "time": X[study.roles.time], "click": y})
    histories = zip(X[item], X[f"hist_{item}"], strict=True)
    in_history = np.array([shown in history for shown, history in histories])
    predicted = {name: np.empty(len(y)) for name in RULES}
    so_far = {"shown": ("item", None, "count"), "clicks": ("item", "click", "sum")}
    for train, test in folds:
        log, rate = rows.iloc[train], y[train].mean()
        past = attach_aggregates(rows, log, time="time", aggregates=so_far)
        is_shown = past["shown"].to_numpy() > 0
        n_clicks = rows["item"].map(log.loc[log["click"] == 1, "item"].value_counts())
        rules = [
            n_clicks.fillna(0).to_numpy(dtype=np.float64),
            ((past["clicks"] + rate) / (past["shown"] + 1)).to_numpy(),
            _rate_where(is_shown, y, train),
            _rate_where(in_history, y, train),
        ]
        for name, values in zip(RULES, rules, strict=True):
            predicted[name][test] = values[test]
    return predicted


def _rate_where(is_so: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return the share of clicks in the training rows of which the same is true."""
    rates = pd.Series(y[train]).groupby(is_so[train]).mean()
    return pd.Series(is_so).map(rates).fillna(y[train].mean()).to_numpy()


def note_better_rules(auc: Mapping[Any, float], y: np.ndarray, *, models: Sequence[str]) -> str:
    """Return a sentence about the best rule where it is ahead of a model, beyond chance.

    ``auc`` is that of rules and models. Empty text where no rule is ahead.
    """
    best = max(RULES, key=auc.__getitem__)
    counts = np.bincount(y, minlength=2)
    margin = MANY_ERRORS * np.sqrt((1 / counts).sum() / 12)
    beaten = [f"{name}, {auc[name]:.4f}" for name in models if auc[best] > auc[name] + margin]
    if not beaten:
        return ""
    return (
        f"note: the rule {best!r} alone has an AUC of {auc[best]:.4f}, more than "
        f"{', and '.join(beaten)}. A gain over the base model says little then: compare DIN with "
        "the rule, and see how the rows without a click came about."
    )
