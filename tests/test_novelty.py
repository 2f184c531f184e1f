"""New items: how many come up is measured over time, and training hides as many."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklearn_din import DINClassifier, HistorySequenceEncoder, load, save
from sklearn_din.features import EncodedFeatures, Field, Schema
from sklearn_din.module import DIN
from sklearn_din.network.batch import Batch
from sklearn_din.training.novelty import MOST_BLOCKS, measure_novelty
from sklearn_din.training.occurrences import count_occurrences, embedding_decay
from tests.encoded_impressions import make_impressions, make_labels


def turning(n=400, seed=3, *, still_until=11):
    """Impressions in time whose items come up one after the other, and categories too.

    The number "score" is looked up by the item, "trend" by the category.
    """
    X = make_impressions(n, seed=seed)
    rng = np.random.default_rng(seed)
    schema = X.schema
    fields = (
        *schema.fields,
        Field("score", "numeric", candidate="item"),
        Field("trend", "numeric", candidate="category"),
    )
    newest = np.maximum(still_until, 2 + np.arange(n) * 10 // n)
    item = (newest - rng.integers(0, 2, n)).clip(1, 11).astype(np.int32)
    columns = X.columns | {
        "item": item,
        "category": np.where(item > 9, 5, item // 3 + 1).astype(np.int32),
        "score": rng.normal(size=n).astype(np.float32),
        "trend": rng.normal(size=n).astype(np.float32),
    }
    for ragged in X.behaviours.values():  # nothing in histories tells of later items
        for name, values in ragged.columns.items():
            if name.startswith("hist_"):
                values[:] = values.clip(1, 2)
    order = rng.permutation(n)
    schema = Schema(fields, schema.behaviours, schema.max_length)
    return EncodedFeatures(schema, columns, X.behaviours, times=np.arange(n))[order]


def novelty_row_by_row(X, *, share, n_blocks):
    """Twin of ``measure_novelty`` for rows of different times: sets of ids, one row at a time."""
    n = len(X)
    in_time = np.argsort(X.times)
    size = max(1, round(share * n))
    patterns = []
    for block in range(n_blocks, 0, -1):
        start = n - block * size
        seen = {"item": {0, 1}, "category": {0, 1}}
        for row in in_time[:start]:
            for name, ids in seen.items():
                ids.add(int(X[name][row]))
                history = X[f"hist_{name}"][row][X[f"hist_{name}_mask"][row]]
                ids.update(history.tolist())
        for row in in_time[start : start + size]:
            patterns.append([int(X[name][row]) not in ids for name, ids in seen.items()])
    return np.array(patterns), seen


@pytest.mark.parametrize(("share", "n_blocks"), [(0.1, MOST_BLOCKS), (0.2, 2), (0.6, 1)])
def test_novelty_is_what_a_plain_loop_over_rows_finds(share, n_blocks):
    X = turning(still_until=0)
    found = measure_novelty(X, share=share)
    patterns, seen = novelty_row_by_row(X, share=share, n_blocks=n_blocks)
    assert found.shares == dict(zip(["item", "category"], patterns.mean(axis=0), strict=True))
    assert found.shares["item"] >= found.shares["category"] > 0.01
    for pattern, frequency in zip(found.patterns, found.frequencies, strict=True):
        assert frequency == pytest.approx((patterns == pattern).all(axis=1).mean())
    for name, ids in seen.items():
        assert set(np.flatnonzero(found.known[name])) == ids


def test_ids_of_histories_and_the_unknown_id_are_not_new():
    X = turning(still_until=0)
    for ragged in X.behaviours.values():
        if "hist_item" in ragged.columns:
            ragged.columns["hist_item"][:] = np.arange(len(ragged.columns["hist_item"])) % 12
    X.columns["category"][:] = 1
    assert measure_novelty(X, share=0.1).shares == {"item": 0.0, "category": 0.0}


@pytest.mark.parametrize("times", [None, np.ones(400), np.full(400, np.nan)])
def test_without_times_that_order_rows_nothing_is_known(times):
    X = turning(still_until=0)
    X.times = times
    found = measure_novelty(X, share=0.1)
    assert found.shares == {}
    assert found.hidden == {}


def test_a_step_hides_ids_as_often_and_together_as_they_are_new():
    X = turning(4000, still_until=0)
    found = measure_novelty(X, share=0.1)
    shown, rows, factors = found.hide(X, np.random.RandomState(0))
    is_hidden = {name: shown[name] != X[name][rows] for name in ("item", "category")}
    for name, share in found.shares.items():
        assert is_hidden[name].sum() / len(X) == pytest.approx(share, rel=0.15)
    assert not (is_hidden["category"] & ~is_hidden["item"]).any()
    assert factors.sum() == pytest.approx(len(X), rel=0.05)


def test_what_is_looked_up_by_a_hidden_id_is_hidden_too_and_nothing_else():
    X = turning(still_until=0)
    before = {name: values.copy() for name, values in X.columns.items()}
    found = measure_novelty(X, share=0.1)
    shown, rows, factors = found.hide(X, np.random.RandomState(0))
    drawn = found.patterns[
        np.random.RandomState(0).choice(len(found.patterns), size=len(X), p=found.frequencies)
    ]
    copied = [row for row in range(len(X)) if drawn[row].any()]
    assert rows.tolist() == [*range(len(X)), *copied]
    share = found.frequencies[[not pattern.any() for pattern in found.patterns]].sum()
    for place, row in enumerate(rows):
        item, category = drawn[row] if place >= len(X) else (False, False)
        assert factors[place] == (np.float32(1) if place >= len(X) else np.float32(share))
        assert shown["item"][place] == (1 if item else before["item"][row])
        assert shown["score"][place] == (0 if item else before["score"][row])
        assert shown["category"][place] == (1 if category else before["category"][row])
        assert shown["trend"][place] == (0 if category else before["trend"][row])
        assert shown["price"][place] == before["price"][row]
    for name, values in before.items():
        assert np.array_equal(X[name], values)


def test_the_network_sees_nothing_of_a_hidden_candidate():
    X = turning(still_until=0)[:50]
    for name in ("item", "category"):  # candidates that are in the histories
        X.columns[name][:] = 2
    others = EncodedFeatures(X.schema, dict(X.columns), X.behaviours)
    others.columns["item"] = np.full(50, 7, dtype=np.int32)
    others.columns["category"] = np.full(50, 3, dtype=np.int32)
    found = measure_novelty(turning(still_until=0), share=0.1)
    everywhere = {name: np.zeros_like(known) for name, known in found.known.items()}
    all_new = type(found)(found.shares, everywhere, found.patterns, found.frequencies)
    batches = [Batch(all_new.hide_new(part)) for part in (X, others)]
    module = DIN(X.schema).eval()
    interest = module.interest_modules[0]
    assert not any(bits.any() for bits in interest._matches(batches[0]).same)
    assert any(bits.any() for bits in interest._matches(Batch(X)).same)
    with torch.no_grad():
        logits = [module(batch) for batch in batches]
        assert torch.equal(*logits)
        assert not torch.equal(module(Batch(X)), module(Batch(others)))


def quick(**parameters):
    return DINClassifier(**{"max_epochs": 2, "batch_size": 50, "random_state": 0} | parameters)


def weights_of(classifier):
    parameters = classifier.module_.parameters()
    return torch.nn.utils.parameters_to_vector(parameters).detach()


def fitted(X, **parameters):
    return quick(**parameters).fit(X, make_labels(X))


@pytest.mark.filterwarnings("ignore:nothing was found to learn")  # by a few validation rows
def test_a_still_catalogue_is_trained_bit_for_bit_as_without_times():
    X = turning(still_until=11)
    with_times = fitted(X, early_stopping=True, validation="random")
    assert with_times.novelty_ == {"item": 0.0, "category": 0.0}
    X.times = None
    without = fitted(X, early_stopping=True, validation="random")
    assert without.novelty_ == {}
    assert torch.equal(weights_of(with_times), weights_of(without))


def test_a_share_below_one_in_a_hundred_hides_nothing():
    X = turning(still_until=11)
    newest = np.argmax(X.times)
    X.columns["item"][np.flatnonzero(X["item"] == 9)] = 10
    X.columns["item"][newest] = 9
    classifier = fitted(X)
    assert classifier.novelty_["item"] == 1 / 200
    X.times = None
    assert torch.equal(weights_of(classifier), weights_of(fitted(X)))


def test_the_published_network_is_trained_as_published():
    X = turning(still_until=0)
    classifier = fitted(X, interest="paper")
    assert classifier.novelty_["item"] > 0.1
    X.times = None
    assert torch.equal(weights_of(classifier), weights_of(fitted(X, interest="paper")))


class SeenItems(Callback):
    """Items of all batches, of one epoch after the other; rows are known by their price."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.train, self.valid = [], []

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        rows = zip(batch[0].numbers[:, 0].tolist(), batch[0].ids["item"].tolist(), strict=True)
        (self.train if training else self.valid).append(dict(rows))


def test_fits_with_hidden_ids_can_be_repeated_and_every_step_hides_others():
    X = turning(still_until=0)
    seen = SeenItems()
    first = fitted(X, callbacks=[seen])
    assert torch.equal(weights_of(first), weights_of(fitted(X)))
    epochs = [{}, {}]
    for step, batch in enumerate(seen.train):
        epochs[step // 8] |= batch
    assert epochs[0].keys() == epochs[1].keys()
    hidden = [np.mean([item == 1 for item in epoch.values()]) for epoch in epochs]
    assert hidden == pytest.approx([first.novelty_["item"]] * 2, abs=0.08)
    assert any(epochs[0][row] != epochs[1][row] for row in epochs[0])


def test_validation_by_time_judges_ids_that_are_not_in_the_training_rows_as_unknown():
    X = turning(still_until=0)
    seen = SeenItems()
    fitted(X, early_stopping=True, callbacks=[seen])
    is_late = X.times >= 360
    known = {*X["item"][~is_late].tolist(), 2}
    expected = {
        float(price): int(item) if item in known else 1
        for price, item in zip(X["price"][is_late], X["item"][is_late], strict=True)
    }
    assert 1 in expected.values()
    assert seen.valid[0] == expected


def test_the_unknown_id_s_l2_follows_how_often_training_shows_it():
    X = turning(still_until=0)
    shares = {"item": 0.25}
    counts = np.zeros(12)
    for row in range(len(X)):
        counts[X["item"][row]] += 1
        counts[1] += 0.25
        for item in X["hist_item"][row][X["hist_item_mask"][row]]:
            counts[item] += 1
    found = embedding_decay(count_occurrences(X, shares), 2.0)
    np.testing.assert_allclose(found["item"], 2 / np.maximum(counts, 1), rtol=1e-6)
    np.testing.assert_array_equal(
        found["category"], embedding_decay(count_occurrences(X), 2.0)["category"]
    )


def test_a_pipeline_finds_new_items_by_the_encoders_time(tmp_path):
    frame = pd.DataFrame(
        {
            "day": range(10),
            "item": [*"abababxbya"],
            "hist_item": [["a"], [], ["b"], [], ["a"], ["b"], ["b"], ["a"], ["a"], ["b"]],
        }
    )
    model = make_pipeline(HistorySequenceEncoder(time="day"), quick(max_epochs=1))
    model.fit(frame, [0, 1] * 5)
    assert model[-1].novelty_ == {"item": 0.4}  # x and y, among the newer five
    save(model, tmp_path / "model.din")
    assert load(tmp_path / "model.din")[-1].novelty_ == {"item": 0.4}
    assert pickle.loads(pickle.dumps(model))[-1].novelty_ == {"item": 0.4}
