"""New items: how many come up is measured over time, and training hides as many."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_din import EncodedFeatures, Field, Schema
from sklearn_din.training.novelty import (
    HIDING_RATE,
    MOST_BLOCKS,
    ShownRows,
    _end_of_beginning,
    measure_novelty,
)
from tests import fitted_pipelines
from tests.encoded_impressions import make_impressions, make_labels, weights_of


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
    schema = Schema(fields, schema.behaviours)
    return EncodedFeatures(schema, columns, X.behaviours, times=np.arange(n))[order]


def novelty_row_by_row(X, *, share, n_blocks):
    """Twin of ``measure_novelty`` for rows of different times: sets of ids, one row at a time."""
    n = len(X)
    in_time = np.argsort(X.times)
    size = max(1, round(share * n))
    is_new = []
    for block in range(n_blocks, 0, -1):
        start = n - block * size
        seen = {"item": {0, 1}, "category": {0, 1}}
        for row in in_time[:start]:
            for name, ids in seen.items():
                ids.add(int(X[name][row]))
                history = X[f"hist_{name}"][row][X[f"hist_{name}_mask"][row]]
                ids.update(history.tolist())
        for row in in_time[start : start + size]:
            is_new.append([int(X[name][row]) not in ids for name, ids in seen.items()])
    return np.mean(is_new, axis=0)


@pytest.mark.parametrize(("share", "n_blocks"), [(0.1, MOST_BLOCKS), (0.2, 2), (0.6, 1)])
def test_novelty_is_what_a_plain_loop_over_rows_finds(share, n_blocks):
    X = turning(still_until=0)
    found, _ = measure_novelty(X, share=share)
    shares = novelty_row_by_row(X, share=share, n_blocks=n_blocks)
    assert found.shares == dict(zip(["item", "category"], shares, strict=True))
    assert found.shares["item"] >= found.shares["category"] > 0.01
    for X.times in (None, np.ones(400), np.full(400, np.nan)):  # which order nothing
        found, _ = measure_novelty(X, share=share)
        assert found.shares == {}
        assert not found.first_seen


def first_rows(X):
    """By vocabulary and id, how many rows are earlier than the first row that has it: a loop."""
    first = {name: {} for name in ("item", "category", "tags")}
    for row in range(len(X)):
        now = int((X.times < X.times[row]).sum())
        for name, known in first.items():
            ids = [X[name][row]] if name in X.columns else []
            history = "tags" if name == "tags" else f"hist_{name}"
            for i in {*ids, *X[history][row][X[f"{history}_mask"][row]].tolist()} - {1}:
                known[int(i)] = min(known.get(int(i), now), now)
    return first


def test_a_row_shows_what_a_model_of_earlier_rows_would_know():
    X = turning(still_until=0)
    X.times = X.times // 3  # ties
    before = copy.deepcopy(X)
    novelty, moments = measure_novelty(X, share=0.1)
    assert moments.tolist() == [int((X.times < now).sum()) for now in X.times]
    until = moments - np.random.default_rng(0).integers(0, 80, len(X))
    shown, first = novelty.hide(X, until), first_rows(X)

    def expected(name, ids, row):
        return [-i if first[name].get(i, -(10**9)) >= until[row] else i for i in ids]

    flat = {"item": [], "category": [], "tags": []}
    for row in range(len(X)):
        for name in ("item", "category"):
            (own,) = expected(name, [int(X[name][row])], row)
            assert shown.columns[name][row] == own
            number = {"item": "score", "category": "trend"}[name]
            assert shown[number][row] == (0 if own < 0 else X[number][row])
        assert shown["price"][row] == X["price"][row]
        for name, values in flat.items():
            history = "tags" if name == "tags" else f"hist_{name}"
            own = expected(name, X[history][row][X[f"{history}_mask"][row]].tolist(), row)
            values += own
    for name, values in flat.items():
        history = "tags" if name == "tags" else f"hist_{name}"
        behaviour = X.schema.behaviour_of(history).histories
        assert shown.behaviours[behaviour].flat(history).tolist() == values
        assert min(values) < -1
    for name in X:
        assert np.array_equal(X[name], before[name])
        if name.endswith("mask"):
            assert np.array_equal(shown[name], X[name])


def test_times_elapsed_and_numbers_of_events_stay_where_ids_are_hidden():
    X = make_impressions(60, seed=3, numbers=("hist_price",))
    X.times = np.arange(60)
    novelty, moments = measure_novelty(X, share=0.1)
    novelty = replace(novelty, first_seen={"item": np.full(12, 2**40)})
    key = ("hist_item", "hist_category")
    X.behaviours[key].row_times["hist_price"] = np.full(60, 9.0)
    shown = novelty.hide(X, moments)
    assert (shown["hist_item"] <= 1).all()
    assert np.array_equal(shown["hist_price"], X["hist_price"])


def test_a_step_shows_most_rows_as_they_will_be_seen_and_the_others_as_they_are():
    X = turning(still_until=0)
    novelty, moments = measure_novelty(X, share=0.1)
    novelty = replace(novelty, start=100)
    until = novelty.draw_cutoffs(moments, np.random.RandomState(0))
    assert np.isinf(until[moments < 100]).all()
    late = moments >= 100
    assert np.isfinite(until[late]).mean() == pytest.approx(HIDING_RATE, abs=0.06)
    ahead = (moments - until)[np.isfinite(until)]
    assert ahead.min() >= 0
    assert 70 < ahead.max() <= 80 == novelty.reach
    rows = np.random.default_rng(0).permutation(len(X))[:100]
    drawn = ShownRows(novelty, moments).draw(rows, np.random.RandomState(0))
    until = novelty.draw_cutoffs(moments[rows], np.random.RandomState(0))
    assert np.array_equal(drawn, until)
    assert (novelty.hide(X[rows], until).columns["item"] < 0).any()


# It learns no item neighbours: the rows have such numbers already.
quick = partial(fitted_pipelines.quick, batch_size=50, neighbours=None)


def fitted(X, **parameters):
    return quick(**parameters).fit(X, make_labels(X))


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")  # by a few validation rows
@pytest.mark.parametrize(
    ("n_new", "options"), [(0, {"early_stopping": True, "validation": "random"}), (1, {})]
)
def test_a_still_catalogue_is_trained_bit_for_bit_as_without_times(n_new, options):
    X = turning(still_until=11)
    if n_new:  # fewer than one row in a hundred
        X.columns["item"][np.flatnonzero(X["item"] == 9)] = 10
        X.columns["item"][np.argmax(X.times)] = 9
    with_times = fitted(X, **options)
    assert with_times.novelty_ == {"item": n_new / 200, "category": 0.0}
    X.times = None
    without = fitted(X, **options)
    assert without.novelty_ == {}
    assert torch.equal(weights_of(with_times), weights_of(without))


@pytest.mark.parametrize(("n_new", "hides"), [(1, False), (2, True)])
def test_ids_are_hidden_from_one_new_row_in_a_hundred_on(n_new, hides):
    X = turning(still_until=11)
    X.columns["item"][X["item"] == 9] = 10
    X.columns["item"][np.argsort(X.times)[-n_new:]] = 9  # of the newer 200 rows
    novelty, _ = measure_novelty(X, share=0.1)
    assert novelty.shares["item"] == n_new / 200
    assert bool(novelty.first_seen) is hides


def test_a_first_pass_of_partial_fit_hides_ids_as_an_epoch_of_fit_does():
    X, options = turning(still_until=0), {"early_stopping": False, "embedding_l2": 0.0}
    first = quick(**options).partial_fit(X, make_labels(X))
    assert first.novelty_["item"] > 0.01
    assert torch.equal(weights_of(first), weights_of(fitted(X, max_epochs=1, **options)))


class SeenItems(Callback):
    """Items of all batches, of one epoch after the other; rows are known by their price."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.train, self.valid, self.events = [], [], []

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        rows = zip(batch[0].numbers[:, 0].tolist(), batch[0].ids["item"].tolist(), strict=True)
        (self.train if training else self.valid).append(dict(rows))
        if not training:
            self.events.append({*batch[0].ids["hist_item"].tolist()})


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
def test_validation_by_time_judges_ids_that_are_not_in_the_training_rows_as_unknown():
    X = turning(still_until=0)
    key = ("hist_item", "hist_category")
    X.behaviours[key].columns["hist_item"][:] = 11  # which comes up with the last rows alone
    early = np.flatnonzero(X.times < 360)
    X.behaviours[key].spans.lengths[early] = 0
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
    assert seen.events[0] == {1}


def test_random_validation_rows_are_shown_as_training_shows_them_at_all_checks_alike():
    X = turning(still_until=0)
    seen = SeenItems()
    fitted(X, early_stopping=True, validation="random", callbacks=[seen])
    assert seen.valid[0] == seen.valid[1]
    items = {float(price): int(item) for price, item in zip(X["price"], X["item"], strict=True)}
    hidden = [item == 1 for price, item in seen.valid[0].items() if items[price] != 1]
    assert 0.2 < np.mean(hidden) < 0.7


def test_the_l2_of_the_unknown_id_follows_how_often_training_shows_it():
    X = turning(still_until=0)
    novelty, moments = measure_novelty(X, share=0.1)
    shown = ShownRows(novelty, moments)
    draws, random = np.zeros(3), np.random.RandomState(0)
    for _ in range(200):
        n_hidden = count_negative(novelty.hide(X, shown.draw(slice(None), random)))
        draws += [n_hidden[name] / 200 for name in novelty.first_seen]
    expected = shown.count_hidden(X)
    np.testing.assert_allclose(draws, list(expected.values()), rtol=0.05)
    first = fitted(X, early_stopping=False)
    counts = first.net_.occurrences_["item"]
    unknown = (X["hist_item"] == 1).sum() + (X["item"] == 1).sum()
    assert counts[1] == pytest.approx(unknown + expected["item"], rel=1e-6)


@pytest.mark.parametrize(("by_tenth", "start"), [
    ([0.5] * 10, 0),  # what comes up goes soon: the log begins like any other day
    ([1.0, 0.9, *[0.5] * 8], 20),
    ([*np.linspace(1, 0.6, 5), *[0.1] * 5], 50),  # old items: no later than in the middle
])  # fmt: skip
def test_nothing_is_hidden_where_more_is_new_because_the_log_begins(by_tenth, start):
    assert _end_of_beginning(np.arange(100), np.repeat(by_tenth, 10), n_rows=100) == start


def count_negative(X):
    counts = {name: int((X.columns[name] < 0).sum()) for name in ("item", "category")}
    counts["tags"] = 0
    for key, ragged in X.behaviours.items():
        for name in key:
            counts[name.removeprefix("hist_")] += int((ragged.flat(name) < 0).sum())
    return counts


def test_further_rows_go_on_counting_moments():
    X = turning(still_until=0)
    X.columns["item"][:] = np.maximum(X["item"], 2)
    first, second = X[X.times < 200], X[X.times >= 200]
    novelty, _ = measure_novelty(first, share=0.1)
    both, moments = measure_novelty(X, share=0.1)
    grown, later = novelty.extend(second)
    assert np.array_equal(later, moments[X.times >= 200])
    assert grown.n_rows == both.n_rows
    for name, first_seen in both.first_seen.items():
        assert np.array_equal(grown.first_seen[name], first_seen)
    fields = (replace(f, n_ids=f.n_ids + 1) if f.has_ids else f for f in X.schema.fields)
    wider = replace(X.schema, fields=tuple(fields))
    assert all(first[-1] > 2**60 for first in grown.widen(wider).first_seen.values())
