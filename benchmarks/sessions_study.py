"""Histories cut at long gaps, against times elapsed and ``max_age``: docs/guide/questions.rst.

``python -m benchmarks.sessions_study --cache sessions.json [--seeds 2] [--only WORD]`` runs what
the cache lacks and prints the tables; ``--table`` only prints. Sessions are skrub's
``SessionEncoder`` on the log (``pip install skrub``): a history cut at gaps is that of the
session's id in place of the user's.
"""

import json
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd

from benchmarks import workloads
from benchmarks.attention_study import (
    attention_trains,
    fill,
    fit,
    judged,
    options_of,
    print_tables,
    without_means,
)
from benchmarks.data_sets import CLICK_LOGS
from benchmarks.real_data import real_data_folder
from sklearn_din import HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log

ATTRIBUTES = ["item", "category"]
DATA_SETS = [
    "MovieLens by user",
    "MovieLens by time",
    "click log: few items, long, strong",
    "click log: recent interest",
]
MINUTE, DAY = 60, 24 * 3600
METHODS = {
    "whole history": {},
    "elapsed": {"elapsed": "ago"},
    "elapsed, in the weights alone": {"elapsed": "ago"},
    "elapsed, attention trains": {"elapsed": "ago"},
    "max_age 1 day": {"max_age": "1D"},
    "max_age 30 days": {"max_age": "30D"},
    "cut at gaps over 30 minutes": {"gap": 30 * MINUTE},
    "cut at gaps over a day": {"gap": DAY},
    "whole, and cut at a day beside it": {"gap": DAY, "is_beside": True},
}

CHANGES = {  # what is changed while the network is made
    "elapsed, in the weights alone": without_means,
    "elapsed, attention trains": partial(attention_trains, True),
}


def data(name, seed):
    """Impressions with label and part (0 training, 1 validation, 2 test), and the events."""
    if name.startswith("MovieLens"):
        return _movielens(name.rpartition(" ")[2], seed)
    return _click_log(name.removeprefix("click log: "), seed)


def _movielens(split, seed):
    """As ``workloads.movielens``: the history is what was liked strictly before."""
    folder = real_data_folder() / "ml-latest-small"
    ratings = pd.read_csv(folder / "ratings.csv.gz").sort_values(["userId", "timestamp", "movieId"])
    genres = pd.read_csv(folder / "movies.csv.gz").set_index("movieId")["genres"]
    shown = pd.DataFrame(
        {
            "user": ratings["userId"].to_numpy(),
            "item": ratings["movieId"].to_numpy(),
            "category": ratings["movieId"].map(genres.str.split("|").str[0]).to_numpy(),
            "time": pd.to_datetime(ratings["timestamp"], unit="s").to_numpy(),
            "label": (ratings["rating"] >= 4).to_numpy().astype(np.float32),
        }
    )
    if split == "user":
        shown["part"] = workloads._random_parts(shown["user"].to_numpy(), seed)
    else:
        seconds = ratings["timestamp"].to_numpy()
        shown["part"] = np.searchsorted(np.quantile(seconds, [0.8, 0.9]), seconds, side="left")
    events = shown.loc[shown["label"] == 1, ["user", "time", *ATTRIBUTES]]
    return shown, events.reset_index(drop=True)


def _click_log(regime, seed):
    """As in ``benchmarks.quality``: 80/10/10 of the impressions in the order of time."""
    options = dict(CLICK_LOGS[regime])
    options["interest_strength"] = options.pop("s")
    log = make_click_log(n_users=2500, random_state=seed, **options)
    shown = log.impressions[["user", "time", *ATTRIBUTES]].copy()
    shown["label"] = log.y.astype(np.float32)
    share = np.arange(len(shown)) / len(shown)
    shown["part"] = np.searchsorted([0.8, 0.9], share, side="right")
    events = log.events.copy()
    for frame in (shown, events):
        frame["time"] = pd.to_datetime(frame["time"], unit="s")
    return shown, events


def with_sessions(shown, events, gap):
    """Both frames with a column "session": a new one where the user did nothing for ``gap`` s.

    What was shown tells of the user's presence as events do.
    """
    from skrub import SessionEncoder

    columns = ["user", "time"]
    both = pd.concat([events[columns], shown[columns]], ignore_index=True)
    encoder = SessionEncoder("time", split_by="user", session_gap=gap)
    session = encoder.fit_transform(both)[encoder.session_id_column_].to_numpy()
    return shown.assign(session=session[len(events) :]), events.assign(
        session=session[: len(events)]
    )


def attached(shown, events, *, gap=None, is_beside=False, elapsed=None, max_age=None):
    """Impressions with histories, and which candidate each history is compared with."""
    kept = {"time": "time", "columns": ATTRIBUTES, "max_length": 50}
    if gap is not None:
        shown, events = with_sessions(shown, events, gap)
    histories = {}
    if gap is None or is_beside:
        shown = attach_history(shown, events, user="user", elapsed=elapsed, max_age=max_age, **kept)
        names = ["hist_item", "hist_category", *([elapsed] if elapsed else [])]
        histories[tuple(names)] = (*ATTRIBUTES, None)[: len(names)]
    if gap is not None:
        shown = attach_history(shown, events, user="session", prefix="session_", **kept)
        histories["session_item", "session_category"] = tuple(ATTRIBUTES)
    return shown, histories


def run(frames, method, seed):
    """Fit with histories of one kind; return what was measured on validation and test rows."""
    shown, histories = attached(*frames, **METHODS[method])
    out = ["user", "time", "label", "part", "session"]
    X = shown.drop(columns=[name for name in out if name in shown])
    encoder = HistorySequenceEncoder(histories=histories, max_length=50, neighbours=None)
    encoder.fit(X[shown["part"] == 0])
    X, y = encoder.transform(X), shown["label"].to_numpy()
    train, valid, test = (np.flatnonzero(shown["part"] == part) for part in range(3))
    order = np.concatenate([train, valid])
    with CHANGES.get(method, nullcontext)():
        classifier = fit(X[order], y[order], n_valid=len(valid), seed=seed)
    user = shown["user"].to_numpy()
    return {
        name: judged(classifier, X[rows], y[rows], user[rows])
        for name, rows in (("valid", valid), ("test", test))
    }


def main():
    options = options_of("sessions")
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    if not options.table:
        fill(results, options, names=DATA_SETS, methods=METHODS, made=data, run=run)
    print_tables(results, METHODS)


if __name__ == "__main__":
    main()
