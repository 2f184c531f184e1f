"""DINClassifier on encoded features: labels, weights, validation, seeds, pickling, attention."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sklearn_din import DINClassifier
from sklearn_din.training.batches import ImpressionBatches, ScoringBatches
from sklearn_din.training.early_stopping import AVERAGED_CHECKS, best_check
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels, weights_of
from tests.fitted_pipelines import quick

X = make_impressions(400, seed=3)
y = make_labels(X, seed=3)


@pytest.fixture(scope="module")
def fitted():
    return DINClassifier(max_epochs=3, random_state=0).fit(X, y)


@pytest.mark.slow
def test_it_learns_whether_the_candidates_category_is_in_the_history():
    X = make_impressions(4000)
    y = make_labels(X)
    for interest, epochs in {"extended": 4, "paper": 20}.items():
        classifier = DINClassifier(max_epochs=epochs, interest=interest, random_state=0)
        classifier.fit(X[:3000], y[:3000])
        assert roc_auc_score(y[3000:], classifier.decision_function(X[3000:])) > 0.85


def test_probabilities_decisions_and_labels_agree_and_are_float32(fitted):
    probability, decision = fitted.predict_proba(X), fitted.decision_function(X)
    assert probability.dtype == decision.dtype == np.float32
    assert fitted.predict_proba(X[:0]).shape == (0, 2)
    np.testing.assert_allclose(fitted.predict_proba(X[7:8]), probability[7:8], atol=1e-6)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-decision)), rtol=1e-5)
    np.testing.assert_array_equal(fitted.predict(X), (decision > 0).astype(int))


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.slow
def test_equal_seeds_give_equal_bits_and_what_is_global_stays(seed):
    labels = y.copy()
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    threads = torch.get_num_threads()
    first, again = (quick(random_state=seed, dropout=0.2).fit(X, y) for _ in range(2))
    alike = np.array_equal(first.predict_proba(X), again.predict_proba(X))
    assert alike == (seed is not None)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(y, labels)
    other = quick(dropout=0.2, random_state=1).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("n", [33, 32, 2, 3])
def test_a_last_batch_of_one_row_never_breaks_training(n):
    rows = np.concatenate([np.flatnonzero(y)[: n // 2], np.flatnonzero(y == 0)[: n - n // 2]])
    options = {"activation": "dice", "attention_activation": "dice", "batch_size": 32}
    classifier = quick(**options).fit(X[rows], y[rows])
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize("validation", ["random", "groups"])
def test_rows_of_weight_zero_are_left_out(validation):
    parameters = {"early_stopping": True, "validation": validation}
    users = np.arange(400) // 4
    weights, wrong = np.where(users % 3, 2.0, 0.0), np.where(users % 3, y, 1 - y)
    rows = np.flatnonzero(weights)
    fitted = quick(**parameters).fit(X, wrong, sample_weight=weights, groups=users.tolist())
    without = quick(**parameters).fit(
        X[rows], y[rows], sample_weight=weights[rows], groups=users[rows]
    )
    np.testing.assert_array_equal(fitted.predict_proba(X), without.predict_proba(X))


def test_weights_of_one_equal_none_and_weights_of_classes_are_those_of_rows():
    reference = quick().fit(X, y).predict_proba(X)
    for weight in (1.0, 7.0):
        weighted = quick().fit(X, y, sample_weight=np.full(len(y), weight))
        np.testing.assert_allclose(weighted.predict_proba(X), reference, atol=1e-5)
    heavy = quick(max_epochs=4, class_weight={0: 1, 1: 5}).fit(X, y)
    by_rows = quick(max_epochs=4).fit(X, y, sample_weight=np.where(y == 1, 5.0, 1.0))
    np.testing.assert_allclose(by_rows.predict_proba(X), heavy.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_the_average_of_the_best_check_comes_back():
    seen = []

    def spoil(net, **_):
        if len(net.history) > 6:
            for parameter in net.module_.parameters():
                parameter.data.mul_(-3)

    watch = On(epoch_begin=spoil, epoch_end=lambda net, **_: seen.append(weights_of(net)))
    classifier = quick(max_epochs=15, patience=2, early_stopping=True, lr=1e-4)
    classifier.set_params(callbacks=[watch]).fit(X, y)
    losses = classifier.history_["valid_loss"]
    best = losses.idxmin()
    assert len(losses) == best + 3
    assert classifier.net_.stop_reason_ == "patience"
    average = seen[0]
    for check, weights in enumerate(seen[: best + 1], start=1):
        average = average + (weights - average) / min(check, AVERAGED_CHECKS)
    best = best_check(classifier.net_.checks_)
    n_last = classifier.module_.output.in_features + 1
    average[-n_last:] *= best["scales"][0]
    average[-1] += (1 - best["scales"][0]) * classifier.net_.constant_
    torch.testing.assert_close(weights_of(classifier), average, rtol=0, atol=1e-7)


def test_it_validates_where_asked_to_and_of_itself_from_three_thousand_rows():
    X = make_impressions(3000)
    y = make_labels(X)
    for early_stopping, n, validates in (
        (True, 2999, True),
        (False, 3000, False),
        ("auto", 2999, False),
        ("auto", 3000, True),
    ):
        fitted = quick(max_epochs=1, early_stopping=early_stopping).fit(X[:n], y[:n])
        assert fitted.history_["valid_loss"].notna().all() == validates


@pytest.mark.parametrize("batch_size", [50, 100, 1000])
def test_l2_is_one_prior_whatever_the_batch_size(batch_size):
    rows = np.r_[0:400, 0:40, 7, 7]  # rows given twice share their events
    X_twice, y_twice = X[rows], y[rows]
    passed = []
    watch = On(train_begin=lambda net, **_: passed.append(net.optimizer_.param_groups[1]["decay"]))
    classifier = quick(embedding_l2=3.0, batch_size=batch_size, callbacks=[watch])
    classifier.fit(X_twice, y_twice)
    (passed,) = passed
    embeddings = classifier.module_.embeddings
    share = (y_twice.sum() + 1) / (len(rows) + 2)  # of clicks, with a row of each kind more
    strength = 3.0 / (4 * share * (1 - share)) / min(batch_size, len(rows))
    for vocabulary, n_ids in embeddings.sizes.items():
        names = [name for name in X if name in (vocabulary, f"hist_{vocabulary}")]
        ids = np.concatenate([X_twice[name].ravel() for name in names])
        counts = np.bincount(ids, minlength=n_ids)
        decay = passed[embeddings.offset_of[vocabulary] :][1:n_ids]  # but for padding
        np.testing.assert_allclose(decay, strength / np.maximum(counts[1:], 1), rtol=1e-6)
    groups = classifier.net_.optimizer_.param_groups
    assert all(group["decay"] is None for group in groups)  # of use in training only
    classifier.set_params(callbacks=None).partial_fit(X[:20], y[:20])  # it still takes steps


def test_attention_weights_are_tidy_and_name_every_event(fitted):
    table = fitted.attention_weights(X)
    ids, mask = X["hist_item"], X["hist_item_mask"]
    assert list(table) == ["row", "behaviour", "position", "hist_item", "hist_category", "weight"]
    assert len(table) == mask.sum()
    assert table["hist_item"].dtype == pd.Int32Dtype()
    np.testing.assert_array_equal(ids[table["row"], table["position"]], table["hist_item"])
    assert table["weight"].notna().all()
    alone = fitted.attention_weights(X[7:8])
    of_row = table[table["row"] == 7]
    np.testing.assert_allclose(alone["weight"], of_row["weight"], rtol=1e-4)


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (6, 3), (2, 5), (4, 1), (101, 100)])
@pytest.mark.slow
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
