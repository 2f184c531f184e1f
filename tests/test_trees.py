"""Boosted trees beside the network: columns by plain loops, one answer wherever it is asked."""

import copy
import pickle
import signal
import warnings
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklearn_din import (
    Checkpoint,
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    attach_history,
    explain,
    export_onnx,
    forget,
    load,
    load_onnx,
    save,
    update,
)
from sklearn_din.server.answers import Answers
from sklearn_din.training import mixture
from sklearn_din.training.mixture import choose_weight, fit_trees
from sklearn_din.trees import boosted, columns, rates
from sklearn_din.trees.columns import TreeColumns
from sklearn_din.utils.typed_fields import from_dict, to_dict
from tests.encoded_impressions import make_answers, make_impressions, make_prices
from tests.plain_memory import begin_with
from tests.test_checkpoint import KilledError, ended_at

pytestmark = pytest.mark.slow

FAST = {"max_epochs": 2, "random_state": 0, "trees": True}
COLUMNS = {"user": "user", "time": "time"}


@pytest.fixture(scope="module")
def log():
    """Rows whose clicks follow a threshold of a number that trees find, and the user's own rate."""
    rng, n_rows = np.random.RandomState(0), 4000
    user, item = rng.randint(50, size=n_rows), rng.randint(30, size=n_rows)
    frame = pd.DataFrame({"user": user, "item": item, "price": rng.normal(size=n_rows)})
    frame["time"] = np.sort(rng.randint(3000, size=n_rows))
    odds = np.where(np.abs(frame["price"]) < 0.7, 2.0, -2.0) + rng.normal(size=50)[user]
    y = (rng.random_sample(n_rows) < expit(odds)).astype(int)
    X = attach_history(frame, frame[y == 1], columns=["item"], **COLUMNS)
    return X, y


@pytest.fixture(scope="module")
def encoded(log):
    return HistorySequenceEncoder(**COLUMNS).fit_transform(log[0])


@pytest.fixture(scope="module")
def model(log):
    return make_pipeline(HistorySequenceEncoder(**COLUMNS), DINClassifier(**FAST)).fit(*log)


def learn(X, y=None):
    """What trees read of rows, and the matrix of these rows as training rows."""
    y = np.arange(len(X)) % 2 if y is None else y
    return TreeColumns.learn(X, y, mixture._make_blocks(X, y), X.schema)


def read(X, rows=slice(None)):
    """Columns of some rows, but rates."""
    learnt, _ = learn(X)
    return replace(learnt, rates=()).read(X[rows])


def plain_history(X, behaviour, row, n_answers):
    """One row's columns of one behaviour by a loop over its events."""
    ragged = X.behaviours[behaviour.histories]
    begin, length = ragged.spans.starts[row], ragged.spans.lengths[row]
    events, same, result = range(begin, begin + length), [], []
    for history, candidate in behaviour.candidate_of.items():
        if candidate is not None:
            own = X.columns[candidate][row]
            same.append([e for e in events if own > 1 and ragged.columns[history][e] == own])
            result += [len(same[-1]), begin + length - 1 - same[-1][-1] if same[-1] else np.nan]
    values = [ragged.columns[name] for name in behaviour.numbers]
    for name, candidate in behaviour.candidate_of.items():
        n = n_answers if candidate is None else 0
        values += [ragged.columns[name] == answer for answer in range(2, 2 + n)]
    for chosen in (events, events[-5:], events[-1:], *same) if values else ():
        result += [np.mean([float(of[e]) for e in chosen]) if chosen else np.nan for of in values]
    return result


@pytest.mark.parametrize(
    ("X", "n_answers"), [(make_answers(40), 2), (make_impressions(40, numbers=("paid",)), 3)]
)
def test_columns_of_histories_are_those_of_plain_loops(X, n_answers, monkeypatch):
    monkeypatch.setattr(columns, "ROWS_PER_BLOCK", 7)
    expected = []
    for row in range(len(X)):
        own = [X.columns[f.name][row] for f in X.schema.fields if f.kind == "numeric"]
        for behaviour in X.schema.behaviours:
            own += plain_history(X, behaviour, row, n_answers)
        expected.append(own)
    np.testing.assert_allclose(read(X), expected, rtol=1e-12)
    alone = np.concatenate([read(X, slice(row, row + 1)) for row in range(len(X))])
    np.testing.assert_array_equal(read(X), alone)  # whatever other rows stand beside


def test_missing_numbers_are_missing_and_their_indicators_no_columns():
    X = make_prices(12)
    assert np.isnan(read(X)[:, 0]).tolist() == (X["price_missing"] > 0).tolist()
    assert learn(X)[0].numbers == ("price",)


@pytest.mark.parametrize("by", ["time", "folds"])
def test_rates_of_training_rows_are_those_of_plain_loops(log, by, monkeypatch):
    monkeypatch.setattr(rates, "HIDDEN_USERS", 0)
    X, y = log[0][:600], log[1][:600]
    options = COLUMNS if by == "time" else {"user": "user", "drop": ["time"]}
    encoder = HistorySequenceEncoder(**options)
    encoded = encoder.fit_transform(X)
    learnt, matrix = learn(encoded, y)
    names = ["user", "item"] if by == "time" else ["item"]  # without times, users are new
    assert [own.column or "user" for own in learnt.rates] == names
    times, n = X["time"].to_numpy(), len(X)
    first = np.array([(times < time).sum() for time in times]) * mixture.N_BLOCKS // n
    firsts = X["user"].map(X.reset_index().groupby("user")["index"].min())
    folds = np.random.RandomState(0).randint(mixture.N_FOLDS, size=n)[firsts]
    for row in range(0, n, 7):
        knows = first < first[row] if by == "time" else folds != folds[row]
        for name, own in zip(names[::-1], (matrix[row, -2:], matrix[row, -4:-2]), strict=False):
            counted = knows & (X[name] == X[name].iloc[row]).to_numpy()
            n_rows, n_clicks = counted.sum(), y[counted].sum()
            rate = (n_clicks + 20 * y.mean()) / (n_rows + 20) if n_rows else np.nan
            np.testing.assert_allclose(own, [rate, np.log1p(n_rows)], rtol=1e-12)
    later = learnt.read(encoded)[:, -1]
    assert np.expm1(later[0]).round() == (X["item"] == X["item"].iloc[0]).sum()


def test_a_row_that_is_given_twice_does_not_know_its_own_label():
    X = make_impressions(30)
    twice, y = X[np.tile(np.arange(30), 2)], np.tile(np.arange(30) % 2, 2)
    blocks = mixture._make_blocks(twice, y)
    assert not blocks.are_ordered
    np.testing.assert_array_equal(blocks.of_rows[:30], blocks.of_rows[30:])


def test_some_users_are_unknown_in_training_as_held_out_ones(log, encoded):
    _, matrix = learn(encoded, log[1])
    late = matrix[2000:, -3].reshape(-1)
    hidden = pd.Series(late == 0).groupby(log[0]["user"].to_numpy()[2000:]).mean()
    assert set(hidden) == {0.0, 1.0}
    assert 0.1 < hidden.mean() < 0.5


@pytest.mark.parametrize("n_users", [*range(4, 25), 1000])
def test_the_nearest_whole_number_to_three_tenths_of_users_is_unknown_in_training(n_users):
    rows = np.arange(3 * n_users)
    X = pd.DataFrame({"user": rows % n_users, "item": rows % 2, "time": rows})
    y = np.where(rows % n_users < n_users // 2, 1, rows % 3 == 0)
    encoded = HistorySequenceEncoder(**COLUMNS).fit_transform(X)
    halves = rates.Blocks(rows // n_users, are_ordered=True)
    _, columns_of_rows = rates.Rates.learn(rates.OF_USERS, encoded, y, halves)
    n_hidden = (columns_of_rows[-n_users:, 1] == 0).sum()
    assert n_hidden >= 1
    assert abs(n_hidden - 0.3 * n_users) <= 0.5


def test_no_column_reads_a_rows_time_or_position_which_a_ranking_lacks(log, encoded, monkeypatch):
    trees = fit_trees(encoded, log[1], None, encoded.schema)
    expected, rng = trees.columns.read(encoded), np.random.RandomState(0)
    assert encoded.times is not None
    for times in (None, rng.permutation(encoded.times)):
        other = encoded._replace(times=times, positions=rng.randint(1, 9, size=len(encoded)))
        np.testing.assert_array_equal(trees.columns.read(other), expected)

    def column_of_times(self, X):
        yield X.times.astype(float)

    monkeypatch.setattr(TreeColumns, "_columns_of", column_of_times)
    with pytest.raises(AttributeError, match="NoneType"):  # at fit, not only in a ranking
        trees.columns.read(encoded)


def test_where_negatives_were_drawn_there_are_no_rates():
    rows = np.arange(400)
    X = pd.DataFrame({"user": rows // 8, "item": rows % 20, "time": rows})
    for y, n_rates in ((rows % 4 == 0, 0), (rows % 16 < 4, 2)):
        encoded = HistorySequenceEncoder(**COLUMNS).fit_transform(X)
        assert len(learn(encoded, y.astype(int))[0].rates) == n_rates


def test_trees_answer_as_scikit_learn_does_to_the_bit(log, encoded):
    y = log[1].astype("float32")
    trees = fit_trees(encoded, y, None, encoded.schema)
    learnt, matrix = learn(encoded, y)
    theirs = HistGradientBoostingClassifier(**boosted.SIZE).fit(matrix, y)
    expected = theirs.decision_function(learnt.read(encoded))
    np.testing.assert_array_equal(trees.score(encoded), expected)
    again = from_dict(boosted.BoostedTrees, to_dict(trees))
    np.testing.assert_array_equal(trees.score(encoded[:9]), again.score(encoded[:9]))


def test_the_answer_is_the_mean_of_both_and_better_than_the_network(log, model):
    X, y = log
    classifier, encoded = model[-1], model[0].transform(X)
    own = classifier.net_.mixture_
    assert classifier.trees_weight_ == own.weight > 0
    network = clone(classifier).set_params(trees=False).fit(model[0].fit_transform(X), y)
    trees = own.trees.score(encoded)
    trees = own.trees.baseline + own.scale * (trees - own.trees.baseline)
    mean = (1 - own.weight) * network.decision_function(encoded) + own.weight * trees
    np.testing.assert_allclose(classifier.decision_function(encoded), mean, atol=1e-5)
    assert not hasattr(network, "trees_")


def test_weights_follow_what_held_out_rows_say():
    rng = np.random.RandomState(0)
    truth = rng.normal(size=4000) * 2
    y = (rng.random_sample(4000) < expit(truth)).astype(float)
    noisy = truth + rng.normal(size=(3, 4000))
    assert choose_weight(noisy[0], noisy[1], y) == 0.5
    assert choose_weight(truth, noisy[1] - truth, y) == 0.0
    assert choose_weight(noisy[0] - truth, truth, y) == 0.75
    twice = [np.repeat(of, 1 + (np.arange(4000) % 2)) for of in (*noisy[:2], y)]
    weighted = choose_weight(*noisy[:2], y, 1.0 + np.arange(4000) % 2)
    assert weighted == choose_weight(*twice)


def test_trees_that_know_nothing_are_drawn_to_the_base_rate(log):
    encoded = HistorySequenceEncoder(**COLUMNS).fit_transform(log[0].drop(columns="hist_item"))
    y = np.random.RandomState(1).randint(2, size=len(encoded))
    with pytest.warns(UserWarning, match="hardly follow"):
        classifier = DINClassifier(**FAST).fit(encoded, y)
    own = classifier.net_.mixture_
    assert own.trees is None or own.scale < mixture.SMALL_SCALE
    assert np.abs(classifier.predict_proba(encoded)[:, 1] - y.mean()).max() < 0.1


@pytest.mark.parametrize("knows", [True, False])
def test_where_the_base_rate_moved_trees_get_the_network_s_mean_or_no_weight(knows):
    rng, n_rows = np.random.RandomState(0), 4000
    user, item = rng.randint(200, size=n_rows), rng.randint(30, size=n_rows)
    frame = pd.DataFrame({"user": user, "item": item, "price": rng.normal(size=n_rows)})
    frame["time"] = np.arange(n_rows)
    odds = np.where(frame["time"] > 0.85 * n_rows, 0.8, -0.8)
    odds = odds + knows * np.where(np.abs(frame["price"]) < 0.7, 1.5, -1.5)
    y = (rng.random_sample(n_rows) < expit(odds)).astype(int)
    encoded = HistorySequenceEncoder(**COLUMNS).fit_transform(frame)
    kept, judge = [], mixture._judge_held_out

    def note(first, X, outputs, has_moved, *rest):
        kept.append((first, X, outputs, has_moved))
        return judge(first, X, outputs, has_moved, *rest)

    with mock.patch.object(mixture, "_judge_held_out", note), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = DINClassifier(**FAST).fit(encoded, y)
    (first, X, outputs, has_moved), own = kept[0], classifier.net_.mixture_
    assert has_moved
    if not knows:
        assert own.trees is None
        return
    unmoved = fit_trees(encoded, y.astype("float32"), None, encoded.schema)
    shift = own.trees.baseline - unmoved.baseline
    shifted = expit(first.baseline + own.scale * (first.score(X) - first.baseline) + shift)
    assert shift > 0.2
    assert shifted.mean() == pytest.approx(expit(outputs).mean())


def test_few_labels_choose_weight_and_scale_by_folds(log):
    X, y = log[0][:500], log[1][:500]
    model = make_pipeline(HistorySequenceEncoder(**COLUMNS), DINClassifier(**FAST)).fit(X, y)
    own = model[-1].net_.mixture_
    assert own.weight > 0
    assert own.scale < 1
    assert "folds" in own.why or "usual" in own.why
    alone = DINClassifier(**FAST, early_stopping=False).fit(model[0].transform(X), y)
    assert alone.trees_weight_ == mixture.USUAL_WEIGHT
    assert alone.net_.mixture_.scale == own.scale  # of the same folds
    seven = DINClassifier(**FAST).fit(model[0].transform(X)[:7], [0, 1, 0, 1, 0, 1, 0])
    assert seven.trees_weight_ in (0, mixture.USUAL_WEIGHT)


def test_an_interrupted_training_has_no_trees(log, encoded):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted"):
        classifier = DINClassifier(**FAST, callbacks=[Stop()]).fit(encoded, log[1])
    assert classifier.trees_ is None
    assert "interrupted" in classifier.summary()


def test_files_and_updates_keep_the_trees_which_are_in_summary_and_explanation(
    log, model, tmp_path
):
    X, y = log[0][-300:], log[1][-300:]
    save(model, tmp_path / "model.din")
    for other in (load(tmp_path / "model.din"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        assert other[-1].summary() == model[-1].summary()
    newer = update(model, X.assign(item=X["item"] + 7), y)
    assert newer[-1].trees_ is model[-1].trees_
    scores = (own[-1].trees_.score(own[0].transform(X)) for own in (newer, model))
    np.testing.assert_array_equal(*scores)
    assert "boosted trees: 150 on 1 numbers" in model[-1].summary()
    assert "rates of users, item" in model[-1].summary()
    parts = explain(model, X[-4:]).attrs["trees"]
    network = model.decision_function(X[-4:]) - parts
    assert np.abs(network).max() > 0
    assert len(parts) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("left", 0), ("right", 2**20), ("num_threshold", np.nan), ("feature_idx", 99)],
)
def test_damaged_nodes_are_refused(model, name, value):
    state = copy.deepcopy(to_dict(model[-1].trees_))
    state["nodes"][name][0] = value
    with pytest.raises(ValueError, match="trees"):
        from_dict(boosted.BoostedTrees, state)


def test_a_ranking_says_what_its_rows_say(log, model):
    X = log[0]
    items = X[["item", "price"]].drop_duplicates("item").reset_index(drop=True)
    user = X[["user", "time", "hist_item"]].iloc[[-1]].assign(time=10**6)  # a ranking is of now
    ranked = Ranker(model, items).rank(user, top_k=len(items)).set_index("item")
    pairs = user.merge(items, how="cross")
    expected = pd.Series(model.predict_proba(pairs[X.columns])[:, 1], index=pairs["item"])
    np.testing.assert_allclose(ranked["probability"], expected[ranked.index], atol=3e-8)
    unknown = model.predict_proba(pairs[X.columns].assign(user=-1))[:, 1]
    assert np.abs(unknown - expected.to_numpy()).max() > 1e-4  # it follows from the user


def test_a_forgotten_user_is_in_no_table_of_the_trees(log):
    X, y = log[0].drop(columns="hist_item"), log[1]
    memory = HistoryBuilder(**COLUMNS, columns=["item"])
    model = begin_with(memory, **FAST, early_stopping="auto").fit(X, y)
    users = model[-1].net_.mixture_.users
    fewer = forget(model, [int(X["user"].iloc[-1])])
    (gone,) = {*users} - {*fewer[-1].net_.mixture_.users}
    assert gone.tobytes() in pickle.dumps(users)
    assert gone.tobytes() not in pickle.dumps(fewer)
    assert len(model[-1].net_.mixture_.users) == len(users)  # the given model is unchanged
    catalogue = X[["item", "price"]].drop_duplicates("item")
    assert Answers(model, catalogue).knows(int(X["user"].iloc[-1]))
    assert not Answers(fewer, catalogue).knows(int(X["user"].iloc[-1]))


def test_forgetting_a_user_of_an_exported_model_gives_the_answers_of_the_original(log, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs pip install 'sklearn-din[onnx]'")
    X, y = log[0].drop(columns="hist_item"), log[1]
    model = begin_with(HistoryBuilder(**COLUMNS, columns=["item"]), **FAST).fit(X, y)
    export_onnx(model, tmp_path / "model.onnx")
    exported = load_onnx(tmp_path / "model.onnx", memory=model[0])
    user = int(X["user"].iloc[-1])
    rows = X[X["user"] == user].assign(time=X["time"].max() + 1)
    original, fewer = (forget(own, [user]).predict_proba(rows)[:, 1] for own in (model, exported))
    np.testing.assert_allclose(fewer, original, atol=1e-6)
    assert np.abs(exported.predict_proba(rows)[:, 1] - fewer).max() > 1e-3


def test_a_resumed_training_has_the_same_trees_and_weight(log, encoded, tmp_path):
    options = FAST | {"max_epochs": 4}
    whole = DINClassifier(**options).fit(encoded, log[1])
    with ended_at(50), pytest.raises(KilledError):
        DINClassifier(**options, callbacks=[Checkpoint(tmp_path)]).fit(encoded, log[1])
    resumed = DINClassifier(**options, callbacks=[Checkpoint(tmp_path)]).fit(encoded, log[1])
    assert to_dict(resumed.net_.mixture_)["weight"] == whole.trees_weight_
    scores = (own.decision_function(encoded) for own in (resumed, whole))
    np.testing.assert_array_equal(*scores)


def test_what_trees_cannot_do_is_an_error_that_says_so(log, model, monkeypatch):
    X, y = log
    encoded = model[0].transform(X)
    with pytest.raises(ValueError, match=r"trees=True needs one label.*trees=False"):
        DINClassifier(**FAST).fit(encoded, np.stack([y, y * (y[::-1])], axis=1))
    two = SimpleNamespace(size=2)  # processes
    with pytest.raises(ValueError, match=r"one process, got 2.*trees=False"):
        mixture.check_mixture(model[-1].net_, encoded, two)
    monkeypatch.setattr(mixture, "rows_per_pool", lambda X: 100)
    with pytest.raises(ValueError, match=r"rows in memory.*trees=False"):
        DINClassifier(**FAST).fit(encoded, y)
    with pytest.raises(TypeError, match="trees"):
        DINRegressor(trees=True)
