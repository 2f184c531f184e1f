"""Few labels: the logits are drawn towards the base rate by a factor that folds ask for."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    Checkpoint,
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
)
from sklearn_din.training import few_labels, rows
from sklearn_din.training.alone import Given
from sklearn_din.training.copies import find_originals
from sklearn_din.training.validation import are_few, split_rows

FAST = {"max_epochs": 3, "random_state": 0}
N_ROWS = 240


def make_rows(n_rows=N_ROWS, *, rate=0.3, seed=0):
    """Return impressions of 20 users, and labels that hang on item and history."""
    chance = np.random.RandomState(seed)
    rows, items = np.arange(n_rows), chance.randint(5, size=(n_rows, 4))
    frame = pd.DataFrame({"user": rows % 20, "time": rows, "item": items[:, 0]})
    frame["hist_item"] = list(items[:, 1:])
    is_liked = (items[:, :1] + items[:, 1:] == 4).any(axis=1)
    return frame, (chance.rand(n_rows) < np.where(is_liked, rate, rate / 4)).astype(int)


def make_rows_of_twenty_items():
    """Return encoded rows, and labels that item and history decide more."""
    frame, y = make_rows(rate=0.8)
    groups = frame["user"] % 4 * 5
    frame["item"] += groups
    frame["hist_item"] += groups  # of each cell's array
    return HistorySequenceEncoder(user="user", time="time").fit_transform(frame), y


def logits_of(classifier, X):
    return classifier.decision_function(X).astype(float)


def fit_without_folds(monkeypatch, X, y, **parameters):
    with monkeypatch.context() as patched:
        patched.setattr(rows, "are_few", lambda net, y: False)
        return DINClassifier(**FAST, **parameters).fit(X, y)


def folds_of(validation, X, y):
    if validation == "random":
        return StratifiedKFold(3, shuffle=True, random_state=0).split(y, y)
    if validation == "groups":
        return GroupKFold(3).split(y, groups=X.users)
    return TimeSplit(3, test_size=0.2).split(X)


@pytest.mark.parametrize("validation", ["last", "random", "groups"])
def test_the_factor_is_that_of_a_plain_loop_over_folds(monkeypatch, validation):
    frame, y = make_rows(rate=0.8)
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    few = DINClassifier(**FAST, validation=validation).fit(X, y)
    whole = fit_without_folds(monkeypatch, X, y)
    factors, losses = [number / 40 for number in range(41)], []
    for train, test in folds_of(validation, X, y):
        fold = fit_without_folds(monkeypatch, X[train], y[train])
        rate = np.log(y[train].mean() / (1 - y[train].mean()))
        shrunk = [rate + factor * (logits_of(fold, X[test]) - rate) for factor in factors]
        losses.append([log_loss(y[test], 1 / (1 + np.exp(-logits))) for logits in shrunk])
    behind = np.array(losses) - np.array(losses)[:, [np.mean(losses, axis=0).argmin()]]
    allowed = 0.5 * behind.std(axis=0, ddof=1) / np.sqrt(3)
    means = zip(factors, behind.mean(axis=0), allowed, strict=True)
    factor = max(0.02, min(f for f, mean, most in means if mean <= most))
    rate = np.log(y.mean() / (1 - y.mean()))
    expected = rate + factor * (logits_of(whole, X) - rate)
    np.testing.assert_allclose(logits_of(few, X), expected, atol=1e-4)


@pytest.mark.parametrize("neighbours", ["auto", "time"])
@pytest.mark.parametrize("is_better_with", [True, False])
def test_items_may_be_off(monkeypatch, is_better_with, neighbours, caplog):
    X, y = make_rows_of_twenty_items()

    def score(given, fit, train, test):
        is_better = fit.keywords.get("uses_items", True) is is_better_with
        return 0.0, (2 * given.y[test] - 1) * is_better

    monkeypatch.setattr(few_labels, "_score_by_network", score)
    model = DINClassifier(**FAST, neighbours=neighbours).fit(X, y)
    tables = model.net_.neighbours_
    looked_up, [pair] = tables.add_to(X), tables.pairs
    used = any(np.abs(looked_up[name]).max() > 1e-20 for name in pair.names)
    assert used is (is_better_with or neighbours == "time")
    assert ("off: folds of so few rows" in model.summary()) is not used
    many = X[np.arange(1_000) % len(X)]
    tables.grow(many, *np.zeros((2, len(many)), dtype=bool))
    assert any("stay off" in message for message in caplog.messages) is not used


def test_what_the_user_sets_wins(monkeypatch):
    frame, y = make_rows(rate=0.8)
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    latest = DINClassifier(**FAST, early_stopping=False).fit(X, y)
    without = fit_without_folds(monkeypatch, X, y, early_stopping=False)
    np.testing.assert_array_equal(logits_of(latest, X), logits_of(without, X))
    assert DINClassifier(**FAST).fit(X, y).n_iter_ == 3
    once = DINClassifier(max_epochs=1, random_state=0).fit(X, y)
    assert once.n_iter_ == 1


def test_a_fold_knows_no_id_that_came_up_after_it():
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(make_rows()[0])
    counts = np.array([0, 0, 3, 0, 1, 2, 2])  # of padding, unknown, and five items
    hidden = few_labels._hide_new_ids(X, {"item": counts})
    assert hidden["item"].tolist() == np.where(X["item"] == 3, 1, X["item"]).tolist()
    assert (hidden["hist_item"] == np.where(X["hist_item"] == 3, 1, X["hist_item"])).all()


def test_a_fold_is_predicted_with_the_ids_hidden_that_its_training_rows_lack():
    frame, y = make_rows()
    frame["item"] = np.arange(N_ROWS) // 2  # of two rows each
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    train, test = np.arange(99), np.arange(99, N_ROWS)

    def fit(fold, *rows, **options):
        fold.stop_reason_, fold.constant_ = "max_epochs", 0.0
        fold.score = lambda shown: shown["item"]

    net = DINClassifier(max_epochs=1, random_state=0).fit(X, y).net_
    _, shown = few_labels._score_by_network(Given(net, X, y, None), fit, train, test)
    known = {*X["item"][train], *X["hist_item"][train].ravel()}
    assert shown.tolist() == [item if item in known else 1 for item in X["item"][test]]
    assert 0 < (shown == 1).sum() < len(test)


def test_labels_that_are_too_rare_for_folds_are_drawn_to_the_base_rate(monkeypatch):
    frame, _ = make_rows()
    X = HistorySequenceEncoder(user="user").fit_transform(frame.drop(columns="time"))
    y = (np.arange(N_ROWS) == 7).astype(int)
    rare, whole = DINClassifier(**FAST).fit(X, y), fit_without_folds(monkeypatch, X, y)
    rate = np.log(1 / (N_ROWS - 1))
    expected = rate + few_labels.LEAST_FACTOR * (logits_of(whole, X) - rate)
    np.testing.assert_allclose(logits_of(rare, X), expected, atol=1e-5)


@pytest.mark.parametrize(("n_rows", "n_clicks", "expected"), [
    (2_999, 1_500, True), (3_000, 1_500, False),
    (9_000, 299, True), (9_000, 300, False), (9_000, 8_701, True), (9_000, 8_700, False),
    (100, 0, False), (9, 4, False), (10, 4, True),
])  # fmt: skip
def test_labels_are_few_by_rows_or_by_the_rarer_label(n_rows, n_clicks, expected):
    net = DINClassifier(max_epochs=1, random_state=0).fit(np.eye(2), [0, 1]).net_
    assert are_few(net, np.arange(n_rows) < n_clicks) is expected


@pytest.mark.slow
def test_rare_labels_that_say_nothing_end_at_the_base_rate():
    losses, base = [], []
    for seed in range(3):
        frame, _ = make_rows(800, seed=seed)
        y = (np.random.RandomState(seed).rand(800) < 0.05).astype(int)
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = DINClassifier(random_state=0).fit(encoder.fit_transform(frame[:400]), y[:400])
        p = model.predict_proba(encoder.transform(frame[400:]))[:, 1]
        losses.append(log_loss(y[400:], p))
        base.append(log_loss(y[400:], np.full(400, y[:400].mean())))
    assert np.mean(losses) < np.mean(base) + 0.002


@pytest.mark.slow
def test_some_tens_of_rows_that_say_nothing_end_near_the_base_rate_with_a_memory_too():
    excess = []
    for seed in range(3):
        chance, n_rows = np.random.RandomState(seed), 30 + 15 * seed
        frame = pd.DataFrame({"user": chance.randint(20, size=n_rows + 300)})
        frame["item"], frame["time"] = chance.randint(30, size=len(frame)), np.arange(len(frame))
        y = (chance.rand(len(frame)) < 0.3).astype(int)
        memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = make_pipeline(memory, encoder, DINClassifier(random_state=0))
        p = model.fit(frame[:n_rows], y[:n_rows]).predict_proba(frame[n_rows:])[:, 1]
        base = np.full(300, y[:n_rows].mean())
        excess.append(log_loss(y[n_rows:], p) - log_loss(y[n_rows:], base))
    assert np.mean(excess) < 0.05


def plain_originals(frame, y):
    """The first row equal in everything; its own number where equal rows have unequal labels."""
    keys = [tuple(map(str, row)) for row in frame.itertuples(index=False)]
    found = []
    for row, key in enumerate(keys):
        equal = [other for other in range(len(keys)) if keys[other] == key]
        found.append(row if len({*y[equal]}) > 1 else equal[0])
    return found


@pytest.mark.parametrize("columns", [[], ["user"], ["user", "time"]])
def test_copies_are_those_of_a_plain_loop(columns):
    chance = np.random.RandomState(0)
    n, of_chance = 150, lambda: chance.randint(2, size=150)
    frame = pd.DataFrame({"user": of_chance(), "item": of_chance(), "time": of_chance()})
    frame["hist_item"] = [[*chance.randint(2, size=chance.randint(3))] for _ in range(n)]
    frame["tags"] = [["a", "b"][: chance.randint(1, 3)] for _ in range(n)]
    frame["price"] = of_chance() / 2
    y = of_chance() * of_chance()
    named = dict(zip(columns, columns, strict=True))
    frame = frame.drop(columns=[name for name in ("user", "time") if name not in columns])
    X = HistorySequenceEncoder(**named).fit_transform(frame)
    expected = plain_originals(frame, y)
    assert 0 < len({*expected}) < n
    assert find_originals(X, y).tolist() == expected
    both = np.column_stack([y, y])
    assert find_originals(X, both).tolist() == expected


@pytest.mark.parametrize("columns", [[], ["user"]])
def test_without_times_folds_part_neither_copies_nor_a_user_s_rows(columns):
    frame, y = make_rows(rate=0.8)
    frame["item"], y = np.arange(N_ROWS), np.tile(y, 2)
    twice = pd.concat([frame, frame], ignore_index=True).drop(columns="time")
    keys = twice["user" if columns else "item"].to_numpy()
    twice = twice.drop(columns=[] if columns else "user")
    X = HistorySequenceEncoder(**dict(zip(columns, columns, strict=True))).fit_transform(twice)
    folds = list(few_labels._make_folds(SimpleNamespace(validation="auto"), X, y, None))
    assert len(folds) == 3
    for train, test in folds:
        assert not {*keys[train]} & {*keys[test]}
        assert abs(y[test].mean() - y.mean()) < 0.1
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(2 * N_ROWS))
    originals, seeds = find_originals(X, y), np.random.RandomState(0)
    options = {"how": "random", "fraction": 0.1, "seeds": seeds}
    train, valid = split_rows(y, None, originals=originals, **options)
    assert not {*twice["item"][train]} & {*twice["item"][valid]}
    assert len(valid) == 0.1 * len(y)


def test_a_training_of_few_labels_is_kept_by_a_checkpoint(tmp_path):
    frame, y = make_rows()
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    kept = DINClassifier(**FAST, callbacks=[Checkpoint(tmp_path)]).fit(X, y)
    plain = DINClassifier(**FAST).fit(X, y)
    np.testing.assert_array_equal(kept.predict_proba(X), plain.predict_proba(X))


def test_what_a_fold_learns_of_its_rows_is_learnt_once(monkeypatch):
    (X, y), n_learnt = make_rows_of_twenty_items(), []
    learn, train = rows._learn_rows, rows.train_new
    monkeypatch.setattr(rows, "_learn_rows", lambda *a: n_learnt.append(1) or learn(*a))
    shared = DINClassifier(**FAST).fit(X, y)
    assert len(n_learnt) == 4  # three folds, each asked with and without items, and all rows

    def train_without(*arguments, learnt=None, **options):
        train(*arguments, **options)

    monkeypatch.setattr(rows, "train_new", train_without)  # which the folds call
    apart = DINClassifier(**FAST).fit(X, y)
    assert len(n_learnt) == 4 + 7
    np.testing.assert_array_equal(logits_of(shared, X), logits_of(apart, X))
