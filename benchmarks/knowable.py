"""The best that training rows let anybody know of a turning catalogue.

``probability`` of such a log (``made_logs.turning``) is made with every item's quality. Nobody can
know a new item's quality, and of a known one its clicks say only so much. ``turning`` here is told
how the log was made, and learns nothing but the qualities: the most probable ones given the
training rows, with their remaining spread. No method can be expected to predict better. ``python -m
benchmarks.knowable`` checks that the logs are made as is said here.
"""

import numpy as np

from benchmarks import made_logs
from benchmarks.made_logs import INTERCEPT, QUALITY, RECENT
from benchmarks.workloads import UNKNOWN

N_STEPS = 30  # Newton steps to the most probable qualities
N_NODES = 21  # of the quadrature over what is left open of a quality


def turning(workload, *, seed=0):
    """Click probabilities of the test rows: true interest, quality as far as it can be known."""
    train, test = workload["train"], workload["test"]
    quality, spread = _qualities(train, workload["attributes"]["item"])
    logit = interest(test) + quality[test["item"]]
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    logits = logit[:, None] + spread[test["item"]][:, None] * nodes
    return _sigmoid(logits) @ (weights / weights.sum())


def interest(rows):
    """Log-odds of a click without the item's quality, as the log was made."""
    offsets = rows["hist_offsets"]
    row = np.repeat(np.arange(len(rows["label"])), np.diff(offsets))
    rank = offsets[1:][row] - 1 - np.arange(len(row))  # 0 is the newest event
    logit = np.full(len(rows["label"]), INTERCEPT)
    for name in ("category", "topic"):
        same = rows[f"hist_{name}"] == rows[name][row]
        logit += np.log1p(np.bincount(row[same], minlength=len(logit)))
    newest = row[same & (rank < 3)]
    return logit + RECENT * (np.bincount(newest, minlength=len(logit)) > 0)


def _qualities(rows, n_items):
    """Most probable quality of each item, and its standard deviation (Laplace), by id."""
    known, logit, item = rows["item"] > UNKNOWN, interest(rows), rows["item"]
    quality = np.zeros(n_items)
    for _ in range(N_STEPS):
        chance = _sigmoid(logit + quality[item])
        slope = np.bincount(item, known * (rows["label"] - chance), minlength=n_items)
        curvature = np.bincount(item, known * chance * (1 - chance), minlength=n_items)
        curvature += QUALITY**-2
        quality += (slope - quality * QUALITY**-2) / curvature
    return quality, curvature**-0.5


def _sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def check():
    """Raise where a made log without its interest is not one quality per item."""
    log = made_logs.turning(new_share=0.6, n_users=200, n_shown=40, hide_unseen=False, cap=10)
    qualities = {}
    for part in ("train", "valid", "test"):
        rows = log[part]
        logit = np.log(rows["probability"] / (1 - rows["probability"]))
        for item, quality in zip(rows["item"], logit - interest(rows), strict=True):
            qualities.setdefault(item, []).append(quality)
    assert len(qualities) > 40
    assert max(np.ptp(values) for values in qualities.values()) < 1e-9
    log = made_logs.turning(new_share=0.6, n_users=200, n_shown=40)
    probability, rows = turning(log), log["test"]
    new = np.flatnonzero(rows["item"] == UNKNOWN)
    order = new[np.argsort(interest(rows)[new])]
    assert (np.diff(probability[order]) >= -1e-12).all()  # of a new item: its interest alone


if __name__ == "__main__":
    check()
