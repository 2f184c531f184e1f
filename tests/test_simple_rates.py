"""Where a rate of the training rows is ahead of the network on later rows, fit says so once."""

import logging

import numpy as np
import pandas as pd
import pytest

from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.utils.warnings import log_once


def fit(y, *, lr, n_rows=3000):
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"user": chance.randint(50, size=n_rows), "time": np.arange(n_rows)})
    frame["item"] = np.arange(n_rows) % 30
    frame["hist_item"] = list(chance.randint(30, size=(n_rows, 2)))
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    parameters = {"max_epochs": 1, "lr": lr, "neighbours": None, "random_state": 0}
    DINClassifier(**parameters).fit(X, y)


pytestmark = pytest.mark.filterwarnings("ignore:nothing was found to learn")


@pytest.fixture
def logged(caplog):
    log_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="sklearn_din"):
        yield lambda: [text for text in caplog.messages if "in the training rows ranks" in text]


def test_a_rate_of_the_item_that_is_ahead_is_said_once(logged):
    y = (np.random.RandomState(1).rand(3000) < np.arange(3000) % 30 / 30).astype(int)
    for _ in range(2):
        fit(y, lr=1e-9)  # nothing is learnt
    (said,) = logged()
    assert said.startswith("the rate of clicks of each column 'item' in the training rows ranks")
    assert "AUC 0.8" in said
    assert "attach_aggregates(...) with 'levels'" in said


def test_rates_that_say_nothing_are_not_mentioned(logged):
    fit(np.random.RandomState(1).randint(2, size=3000), lr=0.003)
    assert logged() == []
