"""A small Pipeline with its log, and a catalogue with titles, as files that are served."""

import time

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder, save
from sklearn_din.datasets import make_click_log

TITLES = ["<script>alert(1)</script>", "a very long title " * 20, "Füße & «Hüte»"]


def make_served(seed=0):
    """A Pipeline that is to remember its clicks, and what was shown and clicked."""
    log = make_click_log(n_users=12, n_items=30, n_categories=5, mean_length=6, random_state=0)
    shown = log.impressions.drop(columns="price").assign(rank=np.arange(len(log.y)) % 5 + 1)
    builder = HistoryBuilder(user="user", time="time", columns=["item", "category"])
    encoder = HistorySequenceEncoder(user="user", time="time", position="rank")
    classifier = DINClassifier(max_epochs=2, random_state=seed, lr=0.01)
    steps = [("history", builder), ("encode", encoder), ("din", classifier)]
    return Pipeline(steps), shown, log.y


def fit_served(seed=0):
    """That Pipeline, fitted, and the clicks."""
    model, shown, y = make_served(seed)
    return model.fit(shown, y), shown[y == 1]


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def write_served(folder):
    """model.din, items.parquet and log.parquet; returns the Pipeline, the catalogue and the log."""
    model, clicks = fit_served()
    catalogue = clicks.drop_duplicates("item")[["item", "category"]].reset_index(drop=True)
    n_other = len(catalogue) - len(TITLES)
    catalogue["title"] = [*TITLES, *(f"Item number {n}" for n in range(n_other))]
    catalogue["rank_of_title"] = np.arange(len(catalogue))
    save(model, folder / "model.din")
    catalogue.to_parquet(folder / "items.parquet")
    clicks.to_parquet(folder / "log.parquet")
    return model, catalogue, clicks
