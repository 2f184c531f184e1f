"""Faults that inflate or ruin the reported number: the right AUC, the reported one, the warnings.

``python -m benchmarks.silent_faults`` trains a small DIN on each log as it should be and with each
fault, and prints both AUCs and the warnings. ``rules`` does so for faults that the rows show only
together, and for their honest twins, of which nothing should be said. ``clean`` counts the
warnings on logs without a fault: all data sets of the comparison and a hundred made logs. ``cost``
times ``check`` beside a fit on a million rows. Without an argument, all but ``cost``.
"""

from __future__ import annotations

import argparse
import time
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
from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    sample_negatives,
)
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


def move(X, rows):
    names = [name for name in X if name.startswith("hist_")]
    return X.assign(**{name: X[name].array.take(rows) for name in names})


def with_others_histories(log):
    X, y = right(log)
    return move(X, np.random.default_rng(0).permutation(len(X))), y


def with_histories_shuffled_within_users(log):
    X, y = right(log)
    rows, chance = np.arange(len(X)), np.random.default_rng(0)
    for own in X.groupby("user").indices.values():
        rows[own] = chance.permutation(own)
    return move(X, rows), y


def by_clock_of_a_fifth(log):
    late = log.shown["user"].isin(log.shown["user"].unique()[::5]).astype(int)
    moved = log.shown.assign(time=log.shown["time"] + late * DAY / 12)
    return attach(log, shown=moved), log.y


def with_mean(*keys):
    def fault(log):
        X, y = right(log)
        means = pd.Series(y).groupby([X[key] for key in keys]).transform("mean")
        return X.assign(mean=means.astype(float)), y

    return fault


def with_labels_one_and_two(log):
    X, y = right(log)
    return X, 2 - y


def attached(**options):
    return lambda log: (attach(log, **options), log.y)


def with_rows_by_day(log):
    days = (frame.assign(time=frame["time"].dt.floor("D")) for frame in (log.shown, log.clicks))
    shown, clicks = days
    return attach(log, shown=shown, clicks=clicks), log.y


def with_unique_lists(log):
    X, y = right(log)
    cells = [list(dict.fromkeys(list(cell)[::-1]))[:10][::-1] for cell in X["hist_item"]]
    return X.drop(columns="hist_category").assign(hist_item=cells), y


def without_own_item(log):
    X, y = right(log)
    pairs = zip(X["hist_item"], X["item"], strict=True)
    cells = [[event for event in cell if event != item] for cell, item in pairs]
    return X.drop(columns="hist_category").assign(hist_item=cells), y


def with_price(log):
    X, y = right(log)
    codes, items = pd.factorize(X["item"])
    return X.assign(price=np.random.default_rng(0).lognormal(size=len(items))[codes]), y


def with_rates_so_far(log):
    X, y = right(log)
    rates = {"rate": ("item", "y", "shrunk_rate"), "own": ("user", "y", "mean")}
    known = attach_aggregates(X, X.assign(y=y), time="time", aggregates=rates)
    return known, y


def with_rates_of_earlier_rows(log):
    X, y = right(log)
    is_early = X["time"] < X["time"].quantile(0.4)
    rates = pd.Series(y[is_early]).groupby(X["item"][is_early].to_numpy()).mean()
    rest = X[~is_early].reset_index(drop=True)
    return rest.assign(rate=rest["item"].map(rates).fillna(y.mean())), y[~is_early]


def with_hours(log):
    X, y = right(log)
    hours = X["time"].dt.hour
    own = log.clicks.assign(hour=log.clicks["time"].dt.hour)
    names = [*log.columns, "hour"]
    return attach(log, shown=log.shown.assign(hour=hours), clicks=own, columns=names), y


def with_one_row_per_user(log):
    X, y = right(log)
    rows = X.groupby("user").sample(1, random_state=0).index.sort_values()
    return X.iloc[rows].reset_index(drop=True), y[rows]


RULES = {
    "histories of other rows": with_others_histories,
    "histories shuffled within users": with_histories_shuffled_within_users,
    "a fifth of the users two hours late": by_clock_of_a_fifth,
    "the item's mean of the label": with_mean("item"),
    "the mean by user and category": with_mean("user", "category"),
    "labels 1 = yes, 2 = no": with_labels_one_and_two,
}
TWINS = {
    "a day's events (max_age)": attached(max_age="1D"),
    "full histories (max_length=3)": attached(max_length=3),
    "rows dated by day": with_rows_by_day,
    "a unique recently-viewed list": with_unique_lists,
    "the own item taken out": without_own_item,
    "a price per item": with_price,
    "rates so far": with_rates_so_far,
    "rates of earlier rows": with_rates_of_earlier_rows,
    "hist_hour beside hour": with_hours,
    "one row per user": with_one_row_per_user,
}
AT_PREDICT = {
    "items in upper case": lambda item: f"i{item}".upper(),
    "an added space": lambda item: f"i{item} ",
    "another prefix": lambda item: f"sku-i{item}",
    "unchanged": lambda item: f"i{item}",
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


def print_rules() -> None:
    """Print a row for each rule, and for each honest twin, of which nothing should be said."""
    print_table(["log", "rows", "right AUC", "AUC", "warnings"], rule_rows())


def rule_rows() -> Iterator[list[str]]:
    for make_log in [*LOGS, shop]:
        log = make_log()
        best, messages = outcome(right, log)
        yield [log.name, "as they should be", best, best, messages]
        for name, make in (RULES | TWINS).items():
            has_same_rows = name in RULES and "mean" not in name
            result, messages = outcome(make, log, right if has_same_rows else None)
            yield [log.name, name + ("" if name in RULES else " (honest)"), best, result, messages]
        yield from (
            [log.name, name, best, *respelt(log, spell)] for name, spell in AT_PREDICT.items()
        )


def respelt(log: Log, spell: Callable[[object], str]) -> list[str]:
    """Return the AUC, and what is said, where items are written in another way at predict."""
    X, y = right(log)
    X = X.assign(item=[f"i{item}" for item in X["item"]])
    X["hist_item"] = [[f"i{item}" for item in cell] for cell in X["hist_item"]]
    late = X["time"] >= X["time"].quantile(0.8)
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"),
        DINClassifier(max_epochs=3, random_state=0),
    )
    model.fit(X[~late], y[~late])
    asked = X[late].assign(item=[spell(item[1:]) for item in X["item"][late]])
    warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        auc = roc_auc_score(y[late], model.predict_proba(asked)[:, 1])
    messages = dict.fromkeys(str(warning.message)[:SHOWN] for warning in caught)
    return [f"{auc:.3f}", "; ".join(messages) or "nothing"]


def print_cost() -> None:
    """Print the seconds of check and of a fit on a million rows."""
    from sklearn_din import check  # which older states lack, whose warnings are compared

    log = make_click_log(n_users=20_000, n_items=5_000, n_categories=50, random_state=0)
    X = attach_history(log.impressions, log.events, user="user", time="time", columns=["item"])
    times = -(-1_000_000 // len(X))
    X = pd.concat([X.assign(user=X["user"] + n * 20_000) for n in range(times)], ignore_index=True)
    y = np.tile(log.y, times)
    start = time.process_time()
    table = check(X, y, user="user", time="time")
    checked = time.process_time() - start
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"),
        DINClassifier(max_epochs=1, random_state=0),
    )
    start = time.process_time()
    model.fit(X, y)
    fitted = time.process_time() - start
    print(table.to_string())
    print(f"{len(X):,} rows: check {checked:.1f} s, a fit of one epoch {fitted:.1f} s")


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


PARTS = {"faults": print_faults, "rules": print_rules, "clean": print_clean, "cost": print_cost}


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help="which ones; none: all but cost"
    )
    for part in parser.parse_args().parts or [part for part in PARTS if part != "cost"]:
        log_once.cache_clear()
        PARTS[part]()


if __name__ == "__main__":
    main()
