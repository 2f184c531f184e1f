"""Constant and scale of answers, read again from those to rows told: by plain loops over rows."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    export_onnx,
    forget,
    live_predictions,
    load,
    load_onnx,
    remember,
    save,
    update,
)
from sklearn_din.features.live_answers import LiveAnswers

N = 600


def make_rows(n_rows=4 * N, moved=0.7):
    """Rows of a rate that rises behind the first N rows, and their labels."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"user": rng.randint(40, size=n_rows), "item": rng.randint(20, size=n_rows)})
    X["time"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n_rows), "h")
    odds = rng.normal(size=20)[X["item"]] + moved * (np.arange(n_rows) >= N) - 0.5
    return X, (rng.random_sample(n_rows) < expit(odds)).astype(int)


def fit(X, y, **options):
    memory = HistoryBuilder(user="user", time="time", columns="item", levels="auto", events="all")
    encoder = HistorySequenceEncoder(user="user", time="time")
    return make_pipeline(memory, encoder, DINClassifier(random_state=0, **options)).fit(X, y)


@pytest.fixture(scope="module")
def fitted():
    X, y = make_rows()
    return fit(X[:N], y[:N]), X, y


def line_by_loops(z, y, users):
    """The constant and scale of least loss, taken as far as users agree."""
    slopes = [np.zeros(2) for _ in range(max(users) + 1)]
    for own, label, user in zip(z, y, users, strict=True):
        slopes[user] += (label - expit(own)) * np.array([1, own])
    agreed, spread = sum(slopes), sum(np.outer(own, own) for own in slopes)
    chi_squared = agreed @ np.linalg.solve(spread, agreed)

    def loss(line):
        p = expit(line[0] + line[1] * z)
        squares = line[0] ** 2 + (line[1] - 1) ** 2
        return -np.log(np.where(y == 1, p, 1 - p)).sum() + 2 * squares

    best = minimize(loss, [0, 1], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
    return [0, 1] + max(0, 1 - 5 / chi_squared) * (best - [0, 1])


def test_answers_are_those_of_the_rows_before_and_their_line_that_of_a_plain_loop(fitted):
    model, X, y = fitted
    told = model
    for part in np.array_split(np.arange(N, 2 * N), 5):
        told = remember(told, X.iloc[part], y[part])
    answers, rows = told[-1].net_.answers_, np.arange(N, 2 * N, 40)
    for row in rows:  # asked with all that came before
        builder = remember(model[0], X[N:row], y[N:row]) if row > N else model[0]
        encoded = model[1].transform(builder.transform(X[row : row + 1]))
        expected = model[-1].decision_function(encoded)[0]
        assert answers.rows[row - N, 0] == pytest.approx(expected, abs=1e-5)
    z, labels = answers.rows.T
    expected = line_by_loops(z, labels, X["user"][N : 2 * N].to_numpy())
    np.testing.assert_allclose(answers.lines[:, 0], expected, atol=1e-3)
    np.testing.assert_array_equal(labels, y[N : 2 * N])
    at_once = remember(model, X[N : 2 * N], y[N : 2 * N])[-1].net_.answers_
    np.testing.assert_allclose(at_once.lines, answers.lines, atol=1e-5)
    encoded = model[1].transform(told[0].transform(X[2 * N :]))
    own = model[-1].decision_function(encoded)
    moved = answers.lines[0] + answers.lines[1] * own
    np.testing.assert_allclose(told[-1].decision_function(encoded), moved, atol=1e-5)


def test_it_pays_where_a_rate_moves_and_no_row_is_answered_by_later_labels(fitted):
    model, X, y = fitted
    told, later = remember(model, X[N : 3 * N], y[N : 3 * N]), slice(3 * N, None)
    p = live_predictions(told, X[later], y[later], every="1D")
    unread = make_pipeline(told[0], model[1], model[-1])
    before = unread.predict_proba(X[N : 3 * N])
    np.testing.assert_array_equal(told.predict_proba(X[N : 3 * N]), before)
    q = live_predictions(model, X[N:], y[N:], every=0)[2 * N :]  # one call, so the weights' own
    assert log_loss(y[later], p) < log_loss(y[later], q) - 0.005


def test_the_line_survives_files_and_onnx_and_goes_with_who_is_forgotten(fitted, tmp_path):
    model, X, y = fitted
    told, now = remember(model, X[N : 3 * N], y[N : 3 * N]), X[3 * N :]
    assert "log-odds z of rows later than 2026-03-16" in told[-1].summary()
    p = told.predict_proba(now)
    save(told, tmp_path / "model.din")
    for again in (load(tmp_path / "model.din"), pickle.loads(pickle.dumps(told))):
        np.testing.assert_array_equal(again.predict_proba(now), p)
    export_onnx(told, tmp_path / "model.onnx")
    again = load_onnx(tmp_path / "model.onnx", memory=told[0])
    np.testing.assert_allclose(again.predict_proba(now), p, atol=1e-5)
    both = [remember(m, now, y[3 * N :])[-1].net_.answers_.lines for m in (told, again)]
    np.testing.assert_allclose(*both, atol=1e-4)
    gone = forget(told, [3])[-1].net_.answers_
    assert len(gone.rows) == (X["user"][3 * N - 1_000 : 3 * N] != 3).sum()
    assert update(told, now, y[3 * N :])[-1].net_.answers_ is None


def test_nothing_is_read_of_clicks_alone_rows_told_again_and_answers_that_mean_something_else(
    fitted,
):
    model, X, y = fitted
    some, labels = X[N : 2 * N], y[N : 2 * N]
    with pytest.warns(UserWarning, match="are clicks"):
        alone = remember(model, some, labels * 0 + 1)
    np.testing.assert_array_equal(alone[-1].net_.answers_.lines, [[0], [1]])
    few = remember(model, some[:5], np.array([1, 1, 1, 1, 0]))  # of five users chance says as much
    np.testing.assert_array_equal(few[-1].net_.answers_.lines, [[0], [1]])
    told = remember(model, some, labels)
    with pytest.warns(UserWarning, match="are clicks"):
        then_alone = remember(told, X[2 * N : 3 * N - 300], y[2 * N : 3 * N - 300] * 0 + 1)
    before = told[-1].net_.answers_
    last = np.flatnonzero(before.rows[:, 1] == 0)[-1] + 1  # later clicks may be alone, too
    alike = LiveAnswers(before.rows[:last], before.users[:last], before.until)
    np.testing.assert_array_equal(then_alone[-1].net_.answers_.lines, alike.lines)
    again = remember(told, some, labels)[-1].net_.answers_
    assert len(again.rows) == len(told[-1].net_.answers_.rows)
    assert remember(model, X[:N], y[:N])[-1].net_.answers_ is None  # its own training rows
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), ensemble=False).fit(some, labels)
    learner = remember(calibrated, some, labels).calibrated_classifiers_[0].estimator
    assert learner.estimator[-1].net_.answers_ is None
    weighted = fit(X[:N], y[:N], class_weight="balanced", max_epochs=1)
    assert remember(weighted, some, labels)[-1].net_.answers_ is None


def test_each_of_several_labels_has_a_line_and_trees_have_that_of_the_mean():
    X, y = make_rows()
    several = np.column_stack([y, (y + np.arange(len(y))) % 2])
    told = remember(fit(X[:N], several[:N]), X[N : 3 * N], several[N : 3 * N])
    answers = told[-1].net_.answers_
    for n in range(2):
        own = LiveAnswers(answers.rows[:, [n, 2 + n]], answers.users, answers.until)
        np.testing.assert_array_equal(own.lines[:, 0], answers.lines[:, n])
    assert answers.lines[0, 0] != 0
    mixed = fit(X[:N], y[:N], trees=True)
    told = remember(mixed, X[N : 3 * N], y[N : 3 * N])
    encoded = told[:-1].transform(X[3 * N :])
    constant, scale = told[-1].net_.answers_.lines[:, 0]
    expected = constant + scale * mixed[-1].decision_function(encoded)
    np.testing.assert_allclose(told[-1].decision_function(encoded), expected, atol=1e-5)
