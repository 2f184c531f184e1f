"""Sampled negatives of clicks without any interest: no model should beat the true odds.

``python -m benchmarks.noise_negatives`` makes clicks of five shapes, in which users differ in
nothing: items uniform, by Zipf's law, in a long tail, launched over time, in season. It draws
negatives as the README does, and with a catalogue (in the tail, where the log cannot know), trains
DIN and prints its AUC, by user and by time, beside that of the true odds of a click at the row's
moment. ``--ways`` picks item neighbours and counts of earlier clicks; ``--seeds`` the seeds.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    sample_negatives,
)

SHAPES = {"uniform": 400, "Zipf": 2_000, "long tail": 100_000, "launches": 600, "seasons": 600}
TEST = 0.33
CLICKS_PER_USER = 10
N_NEGATIVES = 2
WAYS = ("plain", "counts", "neighbours")


class Noise:
    """Clicks whose odds depend on the item and the moment alone."""

    def __init__(self, shape: str, n_clicks: int, seed: int) -> None:
        self.shape, n_items = shape, SHAPES[shape]
        chance = np.random.default_rng(seed)
        self.phases = np.sort(chance.random(n_items))  # of launches, or of seasons
        self.phases[: n_items // 20] = 0.0  # a log begins with some items
        self.names = chance.permutation(n_items)
        self.place = np.argsort(self.names)
        now = np.sort(chance.random(n_clicks))
        points, places = chance.random(n_clicks), np.empty(n_clicks, dtype=np.int64)
        for row, moment in enumerate(now):
            edges = np.cumsum(self.odds(np.arange(n_items), moment))
            places[row] = np.searchsorted(edges, points[row] * edges[-1], side="right")
        users = chance.integers(0, n_clicks // CLICKS_PER_USER, n_clicks)
        self.clicks = pd.DataFrame({"user": users, "item": self.names[places], "time": now})

    def odds(self, places: np.ndarray, now: np.ndarray | float) -> np.ndarray:
        """Return the odds that a click at some moment is on the item at each place."""
        if self.shape == "Zipf":
            return 1.0 / (1 + places)
        if self.shape == "launches":
            return (self.phases[places] <= now).astype(float)
        if self.shape == "seasons":
            return np.exp(2 * np.cos(2 * np.pi * (now - self.phases[places])))
        return np.ones(len(places))

    def best_auc(self, shown: pd.DataFrame, y: np.ndarray) -> float:
        """Return the AUC of the true odds."""
        return roc_auc_score(y, self.odds(self.place[shown["item"]], shown["time"].to_numpy()))


def measure(noise: Noise, catalogue: pd.DataFrame | None, seed: int, ways: list[str]) -> pd.Series:
    """Return the AUC of the true odds and of each model, by user and by time."""
    clicks = noise.clicks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown, y = sample_negatives(
            clicks,
            user="user",
            item="item",
            time="time",
            n_negatives=N_NEGATIVES,
            catalogue=catalogue,
            random_state=seed,
        )
        X = attach_history(shown, clicks, user="user", time="time", columns="item")
        counts = {"n_before": ("item", None, "count")}
        counted = attach_aggregates(X, clicks, time="time", aggregates=counts)
    users = shown["user"].to_numpy()
    tests = {
        "user": users < TEST * (users.max() + 1),
        "time": (shown["time"] > clicks["time"].quantile(1 - TEST)).to_numpy(),
    }
    aucs = {}
    for split, test in tests.items():
        aucs[split, "true odds"] = noise.best_auc(shown[test], y[test])
        for way in ways:
            rows = counted if way == "counts" else X
            model = make_pipeline(
                HistorySequenceEncoder(user="user", time="time")
                if split == "time"
                else HistorySequenceEncoder(user="user", drop=["time"]),
                DINClassifier(
                    neighbours="auto" if way == "neighbours" else None,
                    early_stopping=False,
                    max_epochs=2,
                    random_state=seed,
                ),
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(rows[~test], y[~test])
                scores = model.predict_proba(rows[test])[:, 1]
            aucs[split, way] = roc_auc_score(y[test], scores)
    return pd.Series(aucs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clicks", type=int, default=3_000)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    options = parser.parse_args()
    for shape in options.shapes:
        for is_listed in (False, True) if shape == "long tail" else (False,):
            results = []
            for seed in range(options.seeds):
                noise = Noise(shape, options.clicks, seed)
                catalogue = pd.DataFrame({"item": noise.names}) if is_listed else None
                results.append(measure(noise, catalogue, seed, options.ways))
            table = pd.DataFrame(results)
            errors = table.std() / np.sqrt(len(table))
            means = [
                f"{mean:.3f} ({error:.3f})"
                for mean, error in zip(table.mean(), errors, strict=True)
            ]
            name = f"{shape}, catalogue" if is_listed else shape
            print(pd.DataFrame([means], [name], table.columns).to_string(), flush=True)


if __name__ == "__main__":
    main()
