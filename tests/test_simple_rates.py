"""A fit reports a plain click rate that ranks its validation rows better than the network."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder

N = 3_000
LOG = pd.DataFrame({"user": np.random.RandomState(0).randint(50, size=N), "time": np.arange(N)})
LOG["item"], CHANCE = LOG["time"] % 30, np.random.RandomState(1)
BY_ITEM = (CHANCE.rand(N) < LOG["item"] / 30).astype(int).to_numpy()
BY_USER = (CHANCE.rand(N) < LOG["user"] / 50).astype(int).to_numpy()
KEYS = {"user": "user", "time": "time"}


def fit(y, *, lr, encoder=None, memory=None):
    """Train one epoch, by a rate at which nothing is learned or by the usual one."""
    frame = LOG.assign(hist_item=list(np.random.RandomState(0).randint(30, size=(N, 2))))
    steps = [encoder or HistorySequenceEncoder(**KEYS)]
    if memory is not None:
        frame, steps = LOG, [memory, *steps]
    parameters = {"max_epochs": 1, "lr": lr, "neighbours": None, "random_state": 0}
    return make_pipeline(*steps, DINClassifier(**parameters)).fit(frame, y)


@pytest.fixture
def reported(caplog):
    with caplog.at_level(logging.WARNING, logger="sklearn_din"):
        yield lambda: [text for text in caplog.messages if "ranks the validation rows" in text]


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
@pytest.mark.parametrize(("y", "name"), [(BY_ITEM, "item (item)"), (BY_USER, "user")])
def test_a_better_rate_is_reported_by_each_fit(reported, y, name):
    for _ in range(2):
        fit(y, lr=1e-9)
    first, second = reported()
    assert first == second
    assert first.startswith(f"the click rate of each {name} in the training rows ranks")
    rate = pd.Series(y[:2700]).groupby(LOG[name.split()[0]][:2700]).mean()
    is_late = np.arange(N) >= 2700
    from sklearn.metrics import roc_auc_score

    auc = roc_auc_score(y[is_late], LOG[name.split()[0]][is_late].map(rate))
    assert f"AUC {auc:.3f}"[:-1] in first  # rates are shrunk: nearly the same order


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
def test_random_labels_good_networks_and_running_rates_are_not_reported(reported):
    fit(CHANCE.randint(2, size=N), lr=0.003)
    fit(BY_ITEM, lr=0.02)
    fit(BY_ITEM, lr=1e-9, memory=HistoryBuilder(**KEYS, columns="item", levels="auto"))
    assert reported() == []
