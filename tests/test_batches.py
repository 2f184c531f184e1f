import numpy as np
import pytest
import torch

from sklearn_din.training.batches import ImpressionBatches, ScoringBatches
from tests.encoded_impressions import make_impressions


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (6, 3), (2, 5), (4, 1), (101, 100)])
def test_each_epoch_gives_every_row_once_with_its_label_and_weight(n, batch_size):
    X, order = make_impressions(n), np.random.RandomState(0)
    prices = X["price"].copy()
    batches = ImpressionBatches(X, prices, prices, batch_size=batch_size, shuffle=order)
    for _ in range(2):
        seen = []
        for batch, labels in batches:
            torch.testing.assert_close(batch.numbers[:, 0], labels)
            torch.testing.assert_close(batch.weights, labels)
            seen += labels.tolist()
        assert sorted(seen) == sorted(prices.tolist())


def test_runs_of_one_history_are_scored_as_shared_and_others_are_not():
    X = make_impressions(6)
    runs = X[np.repeat([3, 1, 4], 40)]
    batches = [batch for batch, _ in ScoringBatches(runs)]
    assert [len(batch) for batch in batches] == [40, 40, 40]
    assert all(batch.shared for batch in batches)
    runs.behaviours[("hist_item", "hist_category")].row_times["when"] = np.arange(120.0)
    for others in (X, runs):  # equal windows at other times are no shared history
        assert not any(batch.shared for batch, _ in ScoringBatches(others))
        assert sum(len(batch) for batch, _ in ScoringBatches(others)) == len(others)


def test_a_bag_of_each_candidate_leaves_the_history_shared():
    X = make_impressions(64)
    clicks, tags = ("hist_item", "hist_category"), ("tags",)
    X.behaviours[clicks] = X.behaviours[clicks].take(np.full(64, 3))
    (batch,) = (batch for batch, _ in ScoringBatches(X))
    assert batch.shared
    assert (len(batch.offsets[clicks]), len(batch.offsets[tags])) == (2, 65)
    X.behaviours[tags] = X.behaviours[tags].take(np.full(64, 5))
    (batch,) = (batch for batch, _ in ScoringBatches(X))
    assert len(batch.offsets[tags]) == 2
