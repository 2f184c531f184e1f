"""Long histories: what exact attention over 1,000 to 10,000 events costs, and what it finds.

``python -m benchmarks.long_histories [--rounds 3] [--quality-seeds 3]`` prints two tables.

Speed: impressions whose users have 10,000 past events, histories cut to the newest T of them, for T
of 50 to 10,000. Seconds of a training step of 256 impressions and of scoring one request (one
user, 500 candidates), median of the rounds, all T in turn in each round. "searched": before the
network, each impression's history is cut to the newest 100 events of the candidate's category, as
the hard search of SIM (Pi et al. 2020) does. ETA (Chen et al. 2021) retrieves as many events by
hashes of embeddings, so it leaves the network as many events to read; what its hashing costs is not
counted. The search itself is timed apart, by numpy.

Quality: a made log in which every event of the whole history counts, and one in which an event
loses half of its relevance each 50 events. Test GAUC by T, beside the ceiling.
"""

import argparse
import statistics
import time

import numpy as np
import pandas as pd
import torch
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_score

LENGTHS = (50, 200, 1_000, 3_000, 10_000)
SEARCHED = 100
N_ITEMS, N_CATEGORIES = 20_000, 200
STEP_ROWS, N_STEPS, N_CANDIDATES = 256, 4, 500
HISTORIES = {("hist_item", "hist_category"): ("item", "category")}


def long_log(*, n_users=N_STEPS * STEP_ROWS // 8, n_events=LENGTHS[-1], seed=0):
    """Eight impressions per user after all of the user's events, and the events."""
    rng = np.random.RandomState(seed)
    category = rng.randint(N_CATEGORIES, size=N_ITEMS)
    items = rng.randint(N_ITEMS, size=n_users * n_events)
    times = np.tile(np.arange(n_events), n_users)
    users = np.repeat(np.arange(n_users), n_events)
    events = pd.DataFrame({"user": users, "item": items, "time": times})
    shown = pd.DataFrame({"user": np.repeat(np.arange(n_users), 8), "time": n_events})
    shown["item"] = rng.randint(N_ITEMS, size=len(shown))
    for table in (events, shown):
        table["category"] = category[table["item"]]
    return events, shown, rng.randint(2, size=len(shown))


def with_history(shown, events, max_length):
    """Impressions with the newest events of their users."""
    columns = ["item", "category"]
    return attach_history(
        shown, events, user="user", time="time", columns=columns, max_length=max_length
    ).drop(columns=["user", "time"])


def searched(frame, *, most=SEARCHED):
    """Cut each history to the newest events of the candidate's category; return it and seconds."""
    began = time.perf_counter()
    items, categories = (frame[name].array for name in ("hist_item", "hist_category"))
    kept = [
        np.flatnonzero(np.asarray(past) == now)[-most:]
        for past, now in zip(categories, frame["category"], strict=True)
    ]
    cut = frame.assign(
        hist_item=pd.Series([np.asarray(p)[k] for p, k in zip(items, kept, strict=True)]),
        hist_category=pd.Series([np.asarray(p)[k] for p, k in zip(categories, kept, strict=True)]),
    )
    return cut, time.perf_counter() - began


class Steps(Callback):
    """Seconds of each training step."""

    def on_train_begin(self, net, **kwargs):
        """Start the clock."""
        self.times = [time.perf_counter()]

    def on_batch_end(self, net, training=False, **kwargs):
        """Note the end of a step."""
        self.times.append(time.perf_counter())


def step_and_request(X, y):
    """Median seconds of a training step after the first, and of one request."""
    steps = Steps()
    classifier = DINClassifier(
        batch_size=STEP_ROWS, max_epochs=2, early_stopping=False, callbacks=[steps], random_state=0
    ).fit(X, y)
    request = X[np.zeros(N_CANDIDATES, dtype=int)]
    classifier.predict_proba(request)
    began = time.perf_counter()
    classifier.predict_proba(request)
    return statistics.median(np.diff(steps.times)[1:]), time.perf_counter() - began


def speed(rounds):
    """Print the first table."""
    events, shown, y = long_log()
    inputs = {}
    for length in LENGTHS:
        frame = with_history(shown, events, length)
        encoder = HistorySequenceEncoder(histories=HISTORIES, max_length=length, neighbours=None)
        inputs[f"newest {length:,}"] = encoder.fit_transform(frame)
    cut, seconds = searched(frame)
    inputs[f"searched, at most {SEARCHED}"] = HistorySequenceEncoder(
        histories=HISTORIES, max_length=SEARCHED, neighbours=None
    ).fit_transform(cut)
    taken = {name: [] for name in inputs}
    for _ in range(rounds):
        for name, X in inputs.items():
            taken[name].append(step_and_request(X, y))
    micros = 1e6 * seconds / len(y)
    print(f"{torch.get_num_threads()} threads; the search takes {micros:.0f} us per row")
    print("\n| history | events per row | step of 256 rows, ms | per event, ns | request, ms |")
    print("|---|---|---|---|---|")
    for name, X in inputs.items():
        step, request = (statistics.median(t) for t in zip(*taken[name], strict=True))
        n_events = next(iter(X.behaviours.values())).spans.lengths.mean()
        per_event = 1e9 * step / (STEP_ROWS * n_events)
        numbers = (n_events, 1e3 * step, per_event, 1e3 * request)
        print(f"| {name} | {' | '.join(f'{number:,.0f}' for number in numbers)} |")


def quality(seeds, *, n_users=600, n_events=1_500):
    """Print the second table."""
    print("\n| relevance | history | test GAUC, seeds | best possible |\n|---|---|---|---|")
    for title, recency in (("all events count", None), ("half after 50 events", 50.0)):
        found = {}
        for seed in range(seeds):
            log = make_click_log(
                n_users=n_users,
                n_items=2_000,
                n_categories=100,
                mean_length=n_events,
                n_impressions=30 * n_users,
                recency=recency,
                max_length=LENGTHS[-1],
                random_state=seed,
            )
            for length in (50, 200, 1_000, 3_000):
                found.setdefault(length, []).append(_gauc(log, length, seed))
        for length, pairs in found.items():
            ours, best = np.mean(pairs, axis=0)
            each = ", ".join(f"{pair[0]:.4f}" for pair in pairs)
            print(f"| {title} | newest {length:,} | {ours:.4f} ({each}) | {best:.4f} |", flush=True)


def _gauc(log, length, seed):
    frame = with_history(log.impressions, log.events, length)
    is_train = np.arange(len(frame)) < 0.8 * len(frame)
    model = Pipeline(
        [
            ("encode", HistorySequenceEncoder(histories=HISTORIES, max_length=length)),
            ("din", DINClassifier(random_state=seed)),
        ]
    ).fit(frame[is_train], log.y[is_train])
    groups = log.impressions["user"][~is_train]
    scores = (model.predict_proba(frame[~is_train])[:, 1], log.probability[~is_train])
    return [group_roc_auc_score(log.y[~is_train], score, groups=groups) for score in scores]


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality-seeds", type=int, default=3)
    options = parser.parse_args()
    speed(options.rounds)
    quality(options.quality_seeds)


if __name__ == "__main__":
    main()
