"""Warnings about honest logs that a commit does not give: there must be none.

``python -m benchmarks.honest_frames [COMMIT] [--frames 200] [--only WORD]`` makes random honest
logs (prices per item or that drift, rates of last month, scores shown, ranks, new items only, equal
times of coarse clocks, counts of earlier rows, levels of our own memory, sessions, guests that are
missing), takes the package's made logs and the real sets, and collects what attaching, ``check``,
and encoding later rows say. Without a commit it prints all of it; with one, what is new.
``--costs`` prints seconds instead: of each check on a million encoded rows of 20 columns, of
encoding them, and of a training of one epoch.
"""

import argparse
import json
import os
import re
import time
import warnings

import numpy as np
import pandas as pd

from benchmarks.default_fit import SETS, frames_of
from tests.real_data import VARIABLE, real_data_folder

N_DAYS = 60
DAY = 86_400


def make_log(seed):
    """Impressions in the order of time, labels, and the click log of their past."""
    rng = np.random.default_rng(seed)
    n_rows, n_users = int(rng.integers(2_000, 12_000)), int(rng.integers(30, 800))
    n_items, n_categories = int(rng.integers(20, 1_000)), int(rng.integers(3, 25))
    weight = rng.dirichlet(np.full(n_users, rng.choice([0.3, 2.0])))
    user = rng.choice(n_users, n_rows, p=weight)
    moment = np.sort(rng.integers(0, N_DAYS * DAY, n_rows))
    if rng.random() < 0.3:  # requests of several candidates at one moment
        size = int(rng.integers(2, 12))
        user, moment = np.repeat(user, size)[:n_rows], np.repeat(moment, size)[:n_rows]
    launch = np.sort(rng.uniform(0, N_DAYS * DAY, n_items)) * (rng.random() < 0.3)
    item = (rng.beta(1, rng.choice([1.0, 4.0]), n_rows) * n_items).astype(int)
    item = np.minimum(item, np.maximum(np.searchsorted(launch, moment, side="right") - 1, 0))
    category, taste = rng.integers(0, n_categories, n_items), rng.normal(size=(n_users, 25))
    quality, will = rng.normal(scale=0.8, size=n_items), rng.normal(scale=0.8, size=n_users)
    odds = quality[item] + will[user] + 0.8 * taste[user, category[item]]
    odds += rng.choice([0.0, 1.0]) * np.sin(moment / DAY / 5) + rng.choice([-3.5, -1.5, 0.0])
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-odds))).astype(int)
    X = pd.DataFrame({"user": user, "item": item, "category": category[item], "time": moment})
    return X, y, odds, rng


def add_columns(X, y, odds, rng):
    """Add some honest columns to a log."""
    n_items, rows = X["item"].max() + 1, X.assign(y=y)
    of = {key: rows.groupby(key)["y"] for key in ("user", "item", "category")}
    month = (rng.random(len(X)) < 1 / (1 + np.exp(-odds))).astype(float)  # other rows of old
    price = rng.lognormal(3, 1, n_items)
    steps = np.exp(np.cumsum(rng.normal(scale=0.02, size=(N_DAYS, n_items)), axis=0))
    request = X.groupby(["user", "time"]).cumcount()
    columns = {
        "price": price[X["item"]],
        "price_now": (price * steps)[X["time"] // DAY, X["item"]],
        "price_round": np.round(price[X["item"]]),
        "rate_last_month": pd.Series(month).groupby(X["item"]).transform("mean"),
        "user_last_month": pd.Series(month).groupby(X["user"]).transform("mean"),
        "score": odds + rng.normal(scale=rng.choice([0.3, 1.0, 3.0]), size=len(X)),
        "rank": request.astype(float),
        "shown_before": rows.groupby("item").cumcount().astype(float),
        "session_row": rows.groupby(["user", X["time"] // DAY]).cumcount().astype(float),
        "clicks_before": of["user"].cumsum() - y,
        "item_clicks": of["item"].cumsum() - y,
        "mean_before": of["user"].transform(lambda own: own.shift().expanding().mean()),
        "item_mean": of["item"].transform(lambda own: own.shift().expanding().mean()),
        "last_three": of["user"].transform(lambda own: own.shift().rolling(3, 1).mean()),
        "since_click": X["time"] - X["time"].where(y == 1).groupby(X["user"]).transform(
            lambda own: own.ffill().shift()
        ),
        "age_of_user": (X["time"] - X.groupby("user")["time"].transform("min")) / DAY,
        "stock": 50 - of["item"].cumsum() % 50 + y,
        "budget": 100 - (of["user"].cumsum() - y) * 3.5,
        "noise": rng.normal(size=len(X)),
    }  # fmt: skip
    names = rng.choice([*columns], size=rng.integers(1, 7), replace=False)
    return X.assign(**{name: np.asarray(columns[name], dtype=float) for name in names})


def random_rows(seed):
    """Training rows, labels, later rows, and the encoder's parameters."""
    from sklearn_din import attach_aggregates, attach_history

    X, y, odds, rng = make_log(seed)
    X = add_columns(X, y, odds, rng)
    grain = int(rng.choice([1, 3_600, DAY], p=[0.6, 0.2, 0.2]))
    X["time"] = X["time"] // grain * grain
    if rng.random() < 0.2:
        X["item"] = "film " + X["item"].astype(str)
    if rng.random() < 0.25:
        X = attach_aggregates(
            X, X.assign(label=y), time="time", aggregates="levels", user="user", label="label"
        )
    columns = ["item", "category"]
    clicks = X.loc[y == 1, ["user", "time", *columns]]
    chosen = {"max_length": int(rng.choice([3, 20, 50]))} | (
        {"elapsed": "ago"} if rng.random() < 0.3 else {}
    )
    X = attach_history(X, clicks, user="user", time="time", columns=columns, **chosen)
    if rng.random() < 0.3:  # guests
        X["user"] = X["user"].where(rng.random(len(X)) < 0.6)
    if rng.random() < 0.5:
        X["time"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(X["time"], unit="s")
    n_train = int(0.8 * len(X))
    rows = X.iloc[n_train:].copy()
    if rng.random() < 0.2:  # tomorrow's news
        rows["item"] = rows["item"].astype(str) + " new"
        X["item"] = X["item"].astype(str)
        for frame in (X, rows):
            frame["hist_item"] = [[*map(str, cell)] for cell in frame["hist_item"]]
    return X.iloc[:n_train], y[:n_train], rows, {"user": "user", "time": "time"}


def messages_of(make):
    """All that is said of some rows, without figures."""
    from sklearn_din import HistorySequenceEncoder, check
    from sklearn_din.utils.warnings import collect_messages

    with collect_messages() as messages:
        X, y, rows, parameters = make()
    known = {name: parameters[name] for name in ("user", "time") if name in parameters}
    table = check(X, y, **known)
    said = table[~table["verdict"].isin(["nothing found", "not checked"])]
    messages += [f"{name}: {verdict}" for name, verdict in zip(said["name"], said["verdict"])]  # noqa: B905
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = HistorySequenceEncoder(**parameters).fit(X)
    with collect_messages() as later:
        encoder.transform(rows)
    messages += [f"later rows: {message}" for message in later]
    return sorted({re.sub(r"[0-9][0-9.,]*", "#", message) for message in messages})


def collect(n_frames, only):
    """Messages by log."""
    logs = {f"random {seed}": (lambda seed=seed: random_rows(seed)) for seed in range(n_frames)}
    for name in SETS:
        logs[name] = lambda name=name: _of_set(name)
    said = {}
    for name, make in logs.items():
        if only in name:
            said[name] = messages_of(make)
    return said


def _of_set(name):
    X, y, rows, _, _, parameters = frames_of(name, 0)
    return X, y, rows, parameters


def print_costs(n_rows=1_000_000):
    """Print what the checks of a fit cost."""
    from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
    from sklearn_din.training.leaks import CHECKS

    rng = np.random.default_rng(0)
    n_ids = {"user": n_rows // 20, "item": 20_000, "category": 200, "time": 10**8}
    n_ids |= {f"id_{n}": 10 ** (1 + n % 4) for n in range(6)}
    X = pd.DataFrame({name: rng.integers(0, most, n_rows) for name, most in n_ids.items()})
    for n in range(10):
        X[f"number_{n}"] = rng.normal(size=n_rows)
    X, y = X.sort_values("time", ignore_index=True), rng.random(n_rows) < 0.2
    began = time.perf_counter()
    X = attach_history(X, X[y], user="user", time="time", columns=["item", "category"])
    print(f"attach_history {time.perf_counter() - began:.2f} s", flush=True)
    began = time.perf_counter()
    encoded = HistorySequenceEncoder(user="user", time="time").fit_transform(X)
    print(f"encoding {time.perf_counter() - began:.2f} s", flush=True)
    for name, find in CHECKS.items():
        began = time.perf_counter()
        found = list(find(encoded, y.astype(np.float32)))
        print(f"{name} {time.perf_counter() - began:.2f} s, {len(found)} found", flush=True)
    began = time.perf_counter()
    DINClassifier(max_epochs=1, early_stopping=False).fit(encoded, y)
    print(f"fit of one epoch, checks included {time.perf_counter() - began:.2f} s", flush=True)


def main():
    """Print what is said, or what is said here and not by the commit."""
    from benchmarks import guard

    parser = argparse.ArgumentParser(prog="python -m benchmarks.honest_frames")
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--only", default="", help="logs whose name has this word")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--costs", action="store_true")
    options = parser.parse_args()
    if options.costs:
        print_costs()
        return
    said = collect(options.frames, options.only)
    if options.json:
        print(json.dumps(said))
        return
    before = {}
    if options.commit:
        os.environ[VARIABLE] = str(real_data_folder())
        arguments = ["--json", "--frames", str(options.frames), f"--only={options.only}"]
        with guard.check_out(options.commit) as other:
            before = json.loads(guard.ask(other, *arguments, file=__file__))
    new = {name: sorted({*texts} - {*before.get(name, [])}) for name, texts in said.items()}
    for name, texts in new.items():
        for text in texts:
            print(f"{name}: {text}")
    print(f"{len(new)} logs, {sum(map(len, new.values()))} warnings")


if __name__ == "__main__":
    main()
