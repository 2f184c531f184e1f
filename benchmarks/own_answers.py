"""Means of the user's ratings and answers over what is equal to the candidate, as columns.

``python -m benchmarks.own_answers [--seeds 3] [--only WORD]`` fits the default way on logs whose
events have a number (a rating, a right answer); with two kinds of columns beside it, the mean of
the user's past numbers and, over events of the candidate's category or skill, their mean distance
from that, both shrunk by four events; with live levels of user, item, category and the user's pairs
(``benchmarks.verdicts``); with both. It prints log loss, AUC, GAUC and CPU seconds, and what the
columns change with errors of pairs.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.answer_log import make_answer_log
from benchmarks.default_fit import frames_of
from benchmarks.tables import print_changes, print_means
from benchmarks.verdicts import with_levels
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.metrics import group_roc_auc_score
from tests.real_data import real_data_folder

SHRINKING = 4.0  # events
AT = {"user": "user", "time": "time"}


def movies(seed):
    """Return verdicts on films with past ratings, by time."""
    X, y, rows, labels, _, options = frames_of("movies", seed)
    return X, y, rows, labels, "hist_rating", ["category"], options


def movielens(split, seed):
    """Return ratings of four or more with all past ratings, by time or by user."""
    folder = real_data_folder() / "ml-latest-small"
    rated = pd.read_csv(folder / "ratings.csv.gz")
    rated = rated.sort_values(["timestamp", "userId", "movieId"], ignore_index=True)
    genres = pd.read_csv(folder / "movies.csv.gz").set_index("movieId")["genres"]
    X = pd.DataFrame({"user": rated["userId"], "item": rated["movieId"]})
    X["category"], X["time"] = X["item"].map(genres.str.split("|").str[0]), rated["timestamp"]
    columns = ["item", "category", "rating"]
    X = attach_history(X, X.assign(rating=rated["rating"]), columns=columns, **AT)
    y = (rated["rating"] >= 4).to_numpy().astype(int)
    if split == "time":
        return _part(X, y, X["time"] >= X["time"].quantile(0.9), "rating", ["category"], AT)
    chosen = np.random.RandomState(seed).choice(X["user"].unique(), 61, replace=False)
    options = {"user": "user", "drop": ["time"]}
    return _part(X, y, X["user"].isin(chosen), "rating", ["category"], options)


def answers(seed):
    """Return students' answers with the past ones as numbers, by user."""
    log = make_answer_log(n_users=3_000, random_state=seed)
    events = log.events.assign(answer=(log.events["answer"] == "right") + 0.5)
    X = attach_history(log.impressions, events, columns=["item", "skill", "answer"], **AT)
    X["time"] = X["time"].astype("int64") // 10**9
    chosen = np.random.RandomState(seed).choice(3_000, 300, replace=False)
    options = {"user": "user", "drop": ["time"]}
    return _part(X, log.y, X["user"].isin(chosen), "answer", ["item", "skill"], options)


def _part(X, y, is_test, number, attributes, options):
    frames = [X[part].reset_index(drop=True) for part in (~is_test, is_test)]
    return frames[0], y[~is_test], frames[1], y[is_test], f"hist_{number}", attributes, options


def with_own(X, number, attributes, center):
    """Return the frame with the columns."""
    row = np.repeat(np.arange(len(X)), X[number].map(len))
    past = np.concatenate(X[number].tolist()).astype(float) - center

    def mean(numbers, chosen):
        total = np.bincount(row, chosen * numbers, minlength=len(X))
        return total / (np.bincount(row, chosen, minlength=len(X)) + SHRINKING)

    of_all = mean(past, np.ones(len(row)))
    columns = {"own": of_all}
    for name in attributes:
        is_same = np.concatenate(X[f"hist_{name}"].tolist()) == X[name].to_numpy()[row]
        columns[f"own_{name}"] = mean(past - of_all[row], is_same)
    return X.assign(**columns)


SETS = {
    "movies": movies,
    "MovieLens by time": lambda seed: movielens("time", seed),
    "MovieLens by user": lambda seed: movielens("user", seed),
    "answers": answers,
}


def measure(name, seed):
    """Yield measures by way on one set."""
    X, y, rows, labels, number, attributes, options = SETS[name](seed)
    X, rows = X.reset_index(drop=True), rows.reset_index(drop=True)
    center = np.concatenate(X[number].tolist()).astype(float).mean()
    for pairs in ("", "pairs"):
        frames = with_levels(X, y, rows, labels, "user") if pairs else (X, rows)
        for own in ("", "own"):
            given = frames
            if own:
                given = [with_own(frame, number, attributes, center) for frame in frames]
            began = time.process_time()
            encoder = HistorySequenceEncoder(**options)
            classifier = DINClassifier(random_state=seed).fit(encoder.fit_transform(given[0]), y)
            p = classifier.predict_proba(encoder.transform(given[1]))[:, 1]
            yield {
                "set": name,
                "seed": seed,
                "way": " and ".join(filter(None, (pairs, own))) or "default",
                "loss": log_loss(labels, p),
                "auc": roc_auc_score(labels, p),
                "gauc": group_roc_auc_score(labels, p, groups=rows["user"]),
                "cpu_seconds": time.process_time() - began,
            }


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_answers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="sets whose name has this word")
    options, results = parser.parse_args(), []
    for name in [name for name in SETS if options.only in name]:
        for seed in range(options.seeds):
            for measured in measure(name, seed):
                results.append(measured)
                print(measured, flush=True)
    losses = print_means(results)
    more = {"own": losses["own"] - losses["default"]}
    more = pd.DataFrame(more | {"beside pairs": losses["pairs and own"] - losses["pairs"]})
    print_changes(more, "Log loss with the columns above that without")


if __name__ == "__main__":
    main()
