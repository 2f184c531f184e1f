"""What an item's level alone tells, beside the network and boosted trees that know all levels.

``python -m benchmarks.verdicts [--seeds 5] [--only WORD] [--method WORD] [--rows N]`` fits, on real
verdicts and made logs, or their last N rows, the default way; LightGBM on counts of the history
and, point in time, how often each id and the user came up and what share of it was 1, as it is and
shrunk; and the item's rate, ten rows at the average rate added. It prints AUC, GAUC, log loss, CPU
seconds (columns, fit and both predictions; OMP_NUM_THREADS=1 for one thread's), and "gauc at once":
GAUC where all test rows of a user are asked at the moment of the first one, with the history of
then. Of rows asked one after the other a user's own level changes from row to row:
that is right or wrong about the user, and orders no items.

With ``--live`` both get what is known as of each row's moment, test rows included (``"levels"`` of
``attach_aggregates``: user, item, category, user and category), as a service that counts has it.
"""

import argparse
import time
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.baselines import boosted_trees
from benchmarks.default_fit import frames_of
from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_aggregates
from sklearn_din.metrics import group_roc_auc_score

SETS = ["movies", "videos", "MovieLens by time", "market, 2 %", "answers"]
PRIOR_ROWS = 10


def ours(X, y, rows, at_once, *, user, seed, parameters, **_):
    """Click probabilities of two frames by the default way."""
    encoder = HistorySequenceEncoder(**parameters)
    classifier = DINClassifier(random_state=seed).fit(encoder.fit_transform(X), y)
    return [classifier.predict_proba(encoder.transform(Z))[:, 1] for Z in (rows, at_once)]


def rate_of_item(X, y, rows, at_once, **_):
    """The same by how often the item was 1, with ten rows at the average rate."""
    of_item = pd.Series(y).groupby(X["item"].to_numpy()).agg(["sum", "size"])
    rates = (of_item["sum"] + PRIOR_ROWS * y.mean()) / (of_item["size"] + PRIOR_ROWS)
    return [rates.reindex(rows["item"]).fillna(y.mean()).to_numpy()] * 2


def lightgbm(X, y, rows, at_once, *, user, seed, parameters, labels, rate="mean"):
    """The same by trees; the last tenth of the rows, or a tenth of the users, stops them."""
    log = X.assign(label=y)  # no column knows labels of test rows
    train, *tests = [columns_of(frame, log, user, rate) for frame in (X, rows, at_once)]
    if parameters.get("time"):
        is_late = np.arange(len(X)) >= 0.9 * len(X)
    else:
        is_late = (pd.factorize(X[user])[0] + seed) % 10 == 0
    chosen = {"train": ~is_late, "valid": is_late}
    tables = {part: train[of] for part, of in chosen.items()} | {"test": np.concatenate(tests)}
    known = {part: {"label": y[of]} for part, of in chosen.items()}
    known["test"] = {"label": np.tile(labels, 2)}
    return np.split(boosted_trees(tables, known, seed=seed), 2)


def with_levels(X, y, rows, labels, user):
    """Return both frames with levels as of each row's moment."""
    names = dict.fromkeys([*(name for name in X if f"hist_{name}" in X), user, "time"])
    log = pd.concat([X.assign(label=y), rows.assign(label=labels)])[[*names, "label"]]
    options = {"time": "time", "aggregates": "levels", "user": user}
    pair = [f"{user}_item_{name}" for name in ("rate", "count", "elapsed")]
    frames = [attach_aggregates(rows, log, **options).drop(columns=pair) for rows in (X, rows)]
    for frame in frames:
        times = frame.columns[frame.columns.str.endswith(("_elapsed", "_count"))]
        frame[times] = np.log1p(frame[times])  # no label is looked at: earlier ones alone are
    return frames


def columns_of(X, log, user, rate):
    """Counts and rates before each row's time, and what its history says of its ids: floats."""
    ids = [name for name in X if f"hist_{name}" in X]
    keys = [*ids, user]
    statistics = {f"{key}_n": (key, None, "count") for key in keys}
    statistics |= {f"{key}_{rate}": (key, "label", rate) for key in keys}
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


METHODS = {
    "DINClassifier()": ours,
    "LightGBM with rates": lightgbm,
    "LightGBM with shrunk rates": partial(lightgbm, rate="shrunk_rate"),
    "item's rate": rate_of_item,
}


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


def measure(name, seed, methods, n_rows, *, live=False):
    """Yield measures by method on one set."""
    X, y, rows, labels, users, parameters = frames_of(name, seed)
    user = parameters["user"]
    order = np.argsort(X["time"].to_numpy(), kind="stable")[-n_rows:]
    X, y, rows = X.iloc[order].reset_index(drop=True), y[order], rows.reset_index(drop=True)
    if live:
        X, rows = with_levels(X, y, rows, labels, user)
    for method, predict in methods.items():
        began = time.process_time()
        options = {"user": user, "seed": seed, "parameters": parameters, "labels": labels}
        p, q = predict(X, y, rows, at_once(rows, user), **options)
        seconds = time.process_time() - began
        yield {
            "set": name,
            "seed": seed,
            "method": method,
            **scores_of(labels, users, p, q),
            "cpu_seconds": seconds,
        }


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--method", default="", help="part of a method's name")
    parser.add_argument("--rows", type=int, default=0, help="so many of the last ones; 0: all")
    parser.add_argument("--live", action="store_true", help="levels as of each row's moment")
    options, results = parser.parse_args(), []
    methods = {name: way for name, way in METHODS.items() if options.method in name}
    for name in (name for name in SETS if options.only in name):
        for seed in range(options.seeds):
            results += measure(name, seed, methods, options.rows, live=options.live)
            print(pd.DataFrame(results[-len(methods) :]).to_string(header=False), flush=True)
    table = pd.DataFrame(results).drop(columns="seed").groupby(["set", "method"], sort=False)
    print_frame(table.mean().map("{:.4f}".format).reset_index(), "Means over seeds")
    losses = pd.DataFrame(results).pivot(index=["set", "seed"], columns="method", values="log_loss")
    gained = losses.sub(losses[next(iter(methods))], axis=0).map("{:+.4f}".format)
    print_frame(gained.reset_index().astype(str), "Log loss above the first method's, by seed")


if __name__ == "__main__":
    main()
