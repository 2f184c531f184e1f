"""Boosted trees on rates so far, and scores of rows of a user that are asked at once.

"gauc_at_once" is GAUC where all test rows of a user are asked at the moment of the first one, with
the history of then. Of rows asked one after the other a user's own level changes from row to row:
that is right or wrong about the user, and orders no items.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.baselines import boosted_trees
from sklearn_din import attach_aggregates
from sklearn_din.metrics import group_roc_auc_score


def lightgbm(X, y, rows, at_once, *, user, seed, parameters, labels):
    """Click probabilities of two frames by trees, stopped by the last tenth of rows, or of users.

    Columns are counts of the history and, point in time, how often each id and the user came up
    and what share of it was 1.
    """
    log = X.assign(label=y)  # no column knows labels of test rows
    train, *tests = [columns_of(frame, log, user) for frame in (X, rows, at_once)]
    if parameters.get("time"):
        is_late = np.arange(len(X)) >= 0.9 * len(X)
    else:
        is_late = (pd.factorize(X[user])[0] + seed) % 10 == 0
    chosen = {"train": ~is_late, "valid": is_late}
    tables = {part: train[of] for part, of in chosen.items()} | {"test": np.concatenate(tests)}
    known = {part: {"label": y[of]} for part, of in chosen.items()}
    known["test"] = {"label": np.tile(labels, 2)}
    return np.split(boosted_trees(tables, known, seed=seed), 2)


def columns_of(X, log, user):
    """Counts and rates before each row's time, and what its history says of its ids: floats."""
    ids = [name for name in X if f"hist_{name}" in X]
    keys = [*ids, user]
    statistics = {f"{key}_n": (key, None, "count") for key in keys}
    statistics |= {f"{key}_mean": (key, "label", "mean") for key in keys}
    columns = attach_aggregates(
        X[[*keys, "time"]], log[[*keys, "time", "label"]], time="time", aggregates=statistics
    )[[*statistics]]
    numbers = X.select_dtypes("number").drop(columns=[*keys, "time"], errors="ignore")
    events = {name: np.concatenate(X[name].tolist()) for name in X if name.startswith("hist_")}
    lengths = X[f"hist_{ids[0]}"].map(len).to_numpy()
    row = np.repeat(np.arange(len(X)), lengths)
    newest_first = np.cumsum(lengths)[row] - np.arange(len(row))
    chosen = {"history": np.full(len(row), True)}
    chosen |= {name: events[f"hist_{name}"] == X[name].to_numpy()[row] for name in ids}
    for name, which in chosen.items():
        counts = np.bincount(row[which], minlength=len(X))
        columns[f"{name}_events"], columns[f"{name}_share"] = counts, counts / lengths.clip(1)
        last = pd.Series(newest_first[which]).groupby(row[which]).min()
        columns[f"{name}_last"] = last.reindex(np.arange(len(X))).to_numpy()
        for other in events.keys() - {f"hist_{key}" for key in ids}:
            means = pd.Series(events[other][which].astype(float)).groupby(row[which]).mean()
            columns[f"{other}_of_{name}"] = means.reindex(np.arange(len(X))).to_numpy()
    return columns.join(numbers).to_numpy(dtype=np.float32, na_value=np.nan)


def at_once(rows, user):
    """Return rows with the time and the histories of their user's first one."""
    of_moment = [name for name in rows if name.startswith("hist_") or name == "time"]
    order = np.argsort(rows["time"].to_numpy(), kind="stable")
    users = rows[user].to_numpy()
    first = pd.Series(order[::-1], index=users[order[::-1]]).groupby(level=0).last()
    moments = rows[of_moment].iloc[first.reindex(users).to_numpy()]
    return rows.assign(**{name: moments[name].array for name in of_moment})


def scores_of(labels, users, p, q):
    """Scores of the test rows' probabilities, and of those with all of a user's asked at once."""
    return {
        "auc": roc_auc_score(labels, p),
        "gauc": group_roc_auc_score(labels, p, groups=users),
        "log_loss": log_loss(labels, p),
        "gauc_at_once": group_roc_auc_score(labels, q, groups=users),
    }
