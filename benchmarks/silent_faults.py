"""Faults that inflate or ruin the reported number: the right AUC, the reported one, the warnings.

``python -m benchmarks.silent_faults`` trains a small DIN on each log as it should be and with each
fault, and prints both AUCs and the warnings. ``clean`` counts the warnings on logs without
a fault: all data sets of the comparison and a hundred made logs. Without an argument, both.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks import quality, workloads
from benchmarks.answer_log import make_answer_log
from benchmarks.data_sets import DATA_SETS, data_set
from benchmarks.market_log import make_market_log
from benchmarks.tables import print_table
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, sample_negatives
from sklearn_din.datasets import make_click_log
from sklearn_din.utils.warnings import log_once, warn_once

SHOWN = 110  # characters of a warning in the table
MADE_LOGS = 100
DAY = pd.Timedelta("1D")


class Log:
    """Clicks, impressions with labels, and the columns that describe an item."""

    def __init__(self, name, clicks, shown=None, y=None, *, columns=("item", "category")):
        self.name, self.clicks, self.columns = name, clicks, list(columns)
        if shown is None:
            shown, y = self.sample(time="time")
        self.shown, self.y = shown.reset_index(drop=True), np.asarray(y)

    def sample(self, *, price=False, item_columns=("category",), **options):
        """Impressions of a log that has only clicks, with its column of prices or without."""
        clicks = self.clicks if price else self.clicks.drop(columns="price", errors="ignore")
        options = {"n_negatives": 2, "random_state": 0, **options}
        return sample_negatives(clicks, item="item", item_columns=list(item_columns), **options)


@cache
def movielens():
    """Ratings of 150 users, liked from four stars on; the events are what was liked."""
    ratings = pd.read_csv(workloads.real_data_folder() / "ml-latest-small" / "ratings.csv.gz")
    ratings = ratings[ratings["userId"] <= 150].rename(columns={"userId": "user"})
    frame = ratings.assign(item=ratings["movieId"], category=ratings["movieId"] % 20)
    frame["time"] = pd.to_datetime(ratings["timestamp"], unit="s")
    y = (ratings["rating"] >= 4).to_numpy().astype(int)
    frame = frame[["user", "item", "category", "time"]]
    return Log("MovieLens", frame[y == 1].reset_index(drop=True), frame, y)


@cache
def eshop():
    """Clicks of a thousand sessions; negatives are sampled."""
    clicks = pd.read_csv(workloads.real_data_folder() / "eshop-clicks" / "clicks.csv.gz")
    clicks = clicks[clicks["session"] % 24 == 0].rename(columns={"session": "user"})
    seconds = clicks["order"] * 40 + clicks["user"] * 7919 % 80_000
    clicks["time"] = pd.to_datetime(clicks["date"]) + pd.to_timedelta(seconds, unit="s")
    clicks = clicks.sort_values("time", kind="stable")[["user", "item", "category", "time"]]
    return Log("e-shop", clicks.reset_index(drop=True))


@cache
def shop():
    """A made shop: items come up over time, users come back to them, prices drift."""
    chance = np.random.default_rng(0)
    n_users, n_rows = 300, 30
    when = np.sort(chance.integers(0, 90 * 86_400, (n_users, n_rows)), axis=1)
    taste = chance.integers(0, 10, n_users)
    category = np.where(chance.random(when.shape) < 0.6, taste[:, None], chance.integers(0, 10))
    n_up = 30 + when // (86_400 * 2)  # one more item per category every other day
    item = category + 10 * (n_up * chance.random(when.shape)).astype(int)
    for row in range(1, n_rows):
        again = chance.random(n_users) < 0.3
        item[:, row] = np.where(again, item[:, row - 1], item[:, row])
    frame = pd.DataFrame({"user": np.repeat(np.arange(n_users), n_rows), "item": item.ravel()})
    frame["category"] = frame["item"] % 10
    frame["time"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(when.ravel(), unit="s")
    base = np.exp(np.random.default_rng(1).normal(2, 0.6, frame["item"].max() + 1))
    frame["price"] = base[frame["item"]] * np.exp(when.ravel() / (86_400 * 200))
    return Log("made shop", frame.sort_values("time", ignore_index=True))


@cache
def click_log():
    """The made click log, with the clicks among the events."""
    log = make_click_log(n_users=500, n_items=300, n_categories=20, random_state=0)
    columns = ["user", "item", "category", "time"]
    clicks = pd.concat([log.events[columns], log.impressions[log.y == 1][columns]])
    clicks = clicks.sort_values("time", kind="stable", ignore_index=True)
    return Log("click log", clicks, log.impressions[columns], log.y)


LOGS = [movielens, eshop, click_log]


def attach(log, *, shown=None, clicks=None, **options):
    """Impressions with their histories."""
    shown = log.shown if shown is None else shown
    clicks = log.clicks if clicks is None else clicks
    options = {"columns": log.columns, **options}
    return attach_history(shown, clicks, user="user", time="time", **options)


def right(log):
    return attach(log), log.y


def by_day(log):
    return attach(log, clicks=log.clicks.assign(time=log.clicks["time"].dt.floor("D"))), log.y


def by_unit(log):
    ms, s = (f["time"].astype(f"datetime64[{u}]").astype("int64") for f, u in
             ((log.shown, "ms"), (log.clicks, "s")))  # fmt: skip
    return attach(log, shown=log.shown.assign(time=ms), clicks=log.clicks.assign(time=s)), log.y


def by_zone(log):
    return attach(log, shown=log.shown.assign(time=log.shown["time"] + DAY / 12)), log.y


def by_clock(log):
    return attach(log, shown=log.shown.assign(time=log.shown["time"] + DAY / 86_400)), log.y


def by_hand(log):
    X, y = right(log)
    for name in log.columns:
        cells = zip(X[f"hist_{name}"], X[name], y, strict=True)
        X[f"hist_{name}"] = [[*cell, own] if click else [*cell] for cell, own, click in cells]
    return X, y


def with_label(log):
    X, y = right(log)
    return X.assign(clicked=y), y


def with_other_ids(log):
    X, y = right(log)
    return X.assign(item=[f"{item:>08}" for item in X["item"].astype(str)],
                    hist_item=[[str(i) for i in cell] for cell in X["hist_item"]]), y  # fmt: skip


def with_padding(log):
    X, y = right(log)
    for name in log.columns:
        if pd.api.types.is_integer_dtype(X[name]):
            cells = [np.asarray(cell) + 1 for cell in X[f"hist_{name}"]]
            X[f"hist_{name}"] = [np.pad(cell, (0, 50 - len(cell))) for cell in cells]
            X[name] += 1
    return X, y


def with_row_ids(log):
    X, y = right(log)
    return X.assign(request=[f"r{number}" for number in range(len(y))]), y


def with_unix_times(log):
    X, y = right(log)
    return X.assign(at=X["time"].astype("datetime64[s]").astype("int64")), y


def sampled(**options):
    def fault(log):
        shown, y = log.sample(**options)
        return attach(log, shown=shown), y

    return fault


EVERYWHERE = {
    "events by day, impressions by second": by_day,
    "ms against s": by_unit,
    "two hours of another zone": by_zone,
    "clocks one second apart": by_clock,
    "histories by hand, with the click": by_hand,
    "the label left in X": with_label,
    "candidate '00042', history '42'": with_other_ids,
    "histories padded with zeros": with_padding,
    "text that numbers the rows": with_row_ids,
    "Unix times as integers": with_unix_times,
}
SAMPLED = {
    "negatives before their item came up": sampled(),
    "repeats, never a negative (user=)": sampled(time="time", user="user"),
    "a price that drifts, forgotten": sampled(time="time", price=True),
}


def aucs(X, y, expected=None) -> tuple[float, float]:
    """AUC on the last fifth of the rows by time, and on that of the rows as they should be."""
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"),
        DINClassifier(max_epochs=3, random_state=0),
    )
    results = []
    for rows, labels in ((X, y), expected or (X, y)):
        late = rows["time"] >= rows["time"].quantile(0.8)
        if not results:
            model.fit(rows[~late], labels[~late])
        results.append(roc_auc_score(labels[late], model.predict_proba(rows[late])[:, 1]))
    return results[0], results[1]


def outcome(make: Callable, log: Log, expected: Callable | None = None) -> tuple[str, str]:
    """Return the AUCs with a fault or without one, and what was messages on the way."""
    warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = aucs(*make(log), None if expected is None else expected(log))
    messages = dict.fromkeys(str(warning.message)[:SHOWN] for warning in caught)
    number = f"{results[0]:.3f}" + ("" if expected is None else f", there {results[1]:.3f}")
    return number, "; ".join(messages) or "nothing"


def print_faults() -> None:
    """Print a row for each fault and log; "there" is on rows as they should be."""
    print_table(["log", "fault", "right AUC", "AUC", "warnings"], fault_rows())


def fault_rows() -> Iterator[list[str]]:
    for make_log in [*LOGS, shop]:
        log = make_log()
        is_shop = log.name == "made shop"
        best, messages = outcome(right, log)
        yield [log.name, "none", best, best, messages]
        for name, fault in (SAMPLED if is_shop else EVERYWHERE).items():
            honest = right if is_shop else None
            if "price" in name:
                honest = sampled(time="time", price=True, item_columns=["category", "price"])
                best, _ = outcome(honest, log)
            result, messages = outcome(fault, log, honest)
            yield [log.name, name, best, result, messages]


def made_log(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A small made log of some kind and size, with its histories."""
    chance = np.random.default_rng(seed)
    if seed % 5 == 3:
        log = make_market_log(n_users=150, n_impressions=4000, random_state=seed)
    elif seed % 5 == 4:
        log = make_answer_log(n_users=150, random_state=seed)
    else:
        n_items = int(chance.choice([20, 40, 100, 300]))
        log = make_click_log(
            n_users=150,
            n_items=n_items,
            n_categories=int(min(n_items, chance.choice([5, 20, 50]))),
            mean_length=int(chance.choice([3, 10, 40])),
            interest_strength=float(chance.choice([0.5, 1.0, 2.0, 4.0])),
            random_state=seed,
        )
    names = [n for n in log.events if n in log.impressions and n not in ("user", "time")]
    X = attach_history(log.impressions, log.events, user="user", time="time", columns=names)
    return X, log.y


def print_clean() -> None:
    """Count the warnings on logs without a fault."""
    n_warnings = 0
    for name in [*DATA_SETS, *range(MADE_LOGS)]:
        warn_once.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(name, str):
                workload = data_set(name, 0)
                X, y = quality.frame_of(workload, "train", "valid")
                encoder = quality.encoder_of(workload)
                later = quality.frame_of(workload, "test")[0]
            else:
                X, y = made_log(name)
                encoder, later = HistorySequenceEncoder(user="user", time="time"), X.tail(500)
            encoded = encoder.fit_transform(X, y)
            encoder.transform(later)
            classifier = DINClassifier(max_epochs=1, random_state=0, neighbours=None)
            classifier.fit(encoded[:20_000], y[:20_000])
        for warning in caught:
            n_warnings += 1
            print(f"{name}: {warning.message}", flush=True)
    print(f"{n_warnings} warnings on {len(DATA_SETS)} data sets and {MADE_LOGS} made logs")


PARTS = {"faults": print_faults, "clean": print_clean}


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which ones; none: all")
    for part in parser.parse_args().parts or PARTS:
        log_once.cache_clear()
        PARTS[part]()


if __name__ == "__main__":
    main()
