"""A made shop whose model learns each night from what it showed, beside the same shop without.

``python -m benchmarks.tonight [--seeds 10] [--days 6]``: each day every user is shown five of 60
items by the server's own answers, and clicks by a known probability: a taste for categories, the
quality of the item, and less for what was clicked before. What was shown and clicked goes through
a store and ``read_events``. Three shops have the same users and the same first log of random lists:
one whose model stays (its histories grow), one that updates it each night, one that fits anew on
all rows. The share of items that are clicked stands beside that of the five likeliest items, which
nobody can know.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_history,
    read_events,
    update,
)
from sklearn_din.server.answers import Answers
from sklearn_din.server.posts import Posts
from sklearn_din.server.store import Store

N_USERS, N_ITEMS, N_CATEGORIES, N_SHOWN = 300, 60, 6, 5
BASE, AGAIN = -2.5, -1.5  # log-odds of a click, and what a click before adds
SHOPS = ("stays", "updates", "fits anew")
COLUMNS = ["item", "category"]
FIRST_DAY = pd.Timestamp("2026-01-01", tz="UTC")


class Shop:
    """Users with tastes, items with qualities, and who has clicked what."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = np.random.default_rng(seed + 1_000)
        self.taste = rng.normal(size=(N_USERS, N_CATEGORIES))
        self.quality = rng.normal(size=N_ITEMS) * 0.7
        self.category = np.arange(N_ITEMS) % N_CATEGORIES
        self.had = np.zeros((N_USERS, N_ITEMS))

    def probability(self, user: int) -> np.ndarray:
        """Return how likely a user clicks each item."""
        logits = BASE + self.taste[user, self.category] + self.quality + AGAIN * self.had[user]
        return 1 / (1 + np.exp(-logits))

    def click(self, user: int, items: np.ndarray) -> np.ndarray:
        """Return which of some items a user clicks."""
        clicked = self.rng.random(len(items)) < self.probability(user)[items]
        self.had[user, items[clicked]] = 1
        return clicked

    def first_log(self) -> pd.DataFrame:
        """Return two days of random lists."""
        rows = []
        for day in (-2, -1):
            for user in range(N_USERS):
                items = self.rng.permutation(N_ITEMS)[:N_SHOWN]
                time = moment(day, user)
                for item, label in zip(items, self.click(user, items), strict=True):
                    rows.append((user, item, self.category[item], time, int(label)))
        return pd.DataFrame(rows, columns=["user", *COLUMNS, "time", "label"])


def moment(day: int, user: int) -> pd.Timestamp:
    """Return when a user comes, without a zone as the log has it."""
    return (FIRST_DAY + pd.Timedelta(day, "D") + pd.Timedelta(user, "min")).tz_localize(None)


def fit(rows: pd.DataFrame, clicks: pd.DataFrame, old: Pipeline | None = None) -> Pipeline:
    """Return a model of some rows, or an old one updated by them."""
    y = rows["label"].to_numpy()
    X = attach_history(
        rows[["user", *COLUMNS, "time"]], clicks, user="user", time="time", columns=COLUMNS
    )
    if old is not None:
        return update(old, X, y)
    encoder = HistorySequenceEncoder(user="user", time="time")
    return Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0))]).fit(X, y)


def run_shop(kind: str, seed: int, n_days: int, folder: Path) -> tuple[list[float], list[float]]:
    """Return the share of clicks of each day, and the best share that was possible."""
    shop = Shop(seed)
    first = shop.first_log()
    clicks = first[first["label"] == 1]
    catalogue = first.drop_duplicates("item")[COLUMNS]
    catalogue = pd.DataFrame({"item": np.arange(N_ITEMS), "category": shop.category})
    model = fit(first, clicks)
    path = str(folder / f"{kind}-{seed}.db")
    store, shares, best = Store(path), [], []
    for day in range(n_days):
        answers = Answers(model, catalogue, clicks)
        posts = Posts(answers, store)
        n_clicks, possible = 0, 0.0
        posts.catch_up()
        for user in range(N_USERS):
            answer = answers.rank(user, None, N_SHOWN, None)
            items = np.array(answer["items"])
            possible += np.sort(shop.probability(user))[-N_SHOWN:].sum()
            clicked = shop.click(user, items)
            n_clicks += int(clicked.sum())
            keep(store, posts, day, user, answers, answer, items[clicked])
        shares.append(n_clicks / N_USERS / N_SHOWN)
        best.append(possible / N_USERS / N_SHOWN)
        if kind == "stays":
            continue
        new = read_events(path, since=moment(day, 0) if kind == "updates" else None)
        rows = new if kind == "updates" else pd.concat([first, new])
        log = pd.concat([clicks, read_events(path, rows="posted")])
        model = fit(rows, log, model if kind == "updates" else None)
    store.close()
    return shares, best


def keep(
    store: Store,
    posts: Posts,
    day: int,
    user: int,
    answers: Answers,
    answer: dict[str, list],
    clicked: np.ndarray,
) -> None:
    """Write what a server would: an answer, and the clicks on it."""
    request, time = f"{day}-{user}", moment(day, user)
    whole = answers.read_user(user)
    _, (_, *columns) = answers.show(user, whole, answer)
    events = [
        {"user": user, "item": int(item), "request": request}
        | {"time": (time + pd.Timedelta(1, "s")).isoformat()}
        for item in clicked
    ]
    with store.transaction():
        shown_at = json.dumps(time.tz_localize("UTC").isoformat())
        store.add_shown(request, user, [shown_at, *columns], "made")
        if events:
            store.add(posts.find_new(posts.read(events), events), "made")


def main() -> None:
    """Print the shares of each shop by day, with the errors of their means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--days", type=int, default=6)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in SHOPS:
            runs = [
                run_shop(kind, seed, options.days, Path(folder)) for seed in range(options.seeds)
            ]
            shares, best = (np.array([run[n] for run in runs]) for n in (0, 1))
            error = shares.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else 0
            table[kind] = 100 * shares.mean(axis=0)
            table[f"{kind}, error"] = 100 * error * np.ones(options.days)
            table[f"{kind}, possible"] = 100 * best.mean(axis=0)
            print(kind, "done", flush=True)
    days = [f"day {day + 1}" for day in range(options.days)]
    print(pd.DataFrame(table, index=days).T.round(1).to_string())


if __name__ == "__main__":
    main()
