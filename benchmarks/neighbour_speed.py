"""What item neighbours cost: learning them, and a fit of the defaults with them and without.

``python -m benchmarks.neighbour_speed [--rounds 3]`` prints the seconds of ``fit_transform`` for
1,000,000 rows of 20 events and 10,000 items, by users and by time, with neighbours and without; and
the seconds of a fit of the whole Pipeline on 300,000 rows and 12,000 items, both ways in turn. Each
round has its own ``random_state``: when early stopping ends a fit is chance, and decides what it
takes. The ratio is that of the sums over rounds.
"""

import argparse
import statistics
import time

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history


def make_log(*, n_users, n_items, n_rows, n_events, seed=0):
    """Impressions with the last ``n_events`` of the user's events, Zipf-like items, and labels."""
    rng = np.random.RandomState(seed)
    chance = np.cumsum(1 / (np.arange(n_items) + 20.0) ** 0.9)
    each = n_rows // n_users
    items = np.searchsorted(chance / chance[-1], rng.random_sample(n_users * (each + n_events)))
    events = pd.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), each + n_events),
            "item": items,
            "time": np.tile(np.arange(each + n_events), n_users),
        }
    )
    y = (rng.random_sample(n_users * each) < 0.3).astype(int)
    shown = events[events["time"] >= n_events].reset_index(drop=True)
    shown["item"] = np.where(y == 1, shown["item"], rng.randint(n_items, size=len(shown)))
    X = attach_history(
        shown, events, user="user", time="time", columns=["item"], max_length=n_events
    )
    return X, y


def seconds(function):
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def encoding(rounds):
    """Print what learning costs."""
    X, y = make_log(n_users=50_000, n_items=10_000, n_rows=1_000_000, n_events=20)
    for name, parameters in {
        "by user": {"user": "user", "drop": "time"},
        "by time": {"user": "user", "time": "time"},
    }.items():
        taken = {"with": [], "without": []}
        for _ in range(rounds):
            for way, neighbours in (("with", "auto"), ("without", None)):
                encoder = HistorySequenceEncoder(neighbours=neighbours, **parameters)
                taken[way].append(seconds(lambda e=encoder: e.fit_transform(X, y)))
        middle = {way: statistics.median(times) for way, times in taken.items()}
        print(
            f"fit_transform, {len(X):,} rows, {name}: {middle['with']:.1f} s with neighbours, "
            f"{middle['without']:.1f} s without",
            flush=True,
        )


def fitting(rounds):
    """Print what a whole fit costs with neighbours and without."""
    X, y = make_log(n_users=15_000, n_items=12_000, n_rows=300_000, n_events=20)
    taken, epochs = {"auto": [], "None": []}, {"auto": [], "None": []}
    for seed in range(rounds):
        for way, neighbours in (("auto", "auto"), ("None", None)):
            encoder = HistorySequenceEncoder(user="user", time="time", neighbours=neighbours)
            model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=seed))])
            taken[way].append(seconds(lambda m=model: m.fit(X, y)))
            epochs[way].append(model["din"].n_iter_)
            found = f"{taken[way][-1]:.1f} s, {epochs[way][-1]} epochs"
            print(f"neighbours={way}, seed {seed}: {found}", flush=True)
    total = {way: sum(times) for way, times in taken.items()}
    of_epochs = sum(epochs["auto"]) / sum(epochs["None"])
    ratio = total["auto"] / total["None"]
    print(f"fit, {len(X):,} rows: {ratio:.2f} x in all; {of_epochs:.2f} x the epochs {epochs}")


def main():
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    encoding(options.rounds)
    fitting(options.rounds)


if __name__ == "__main__":
    main()
