"""Encoded rows stay encoded rows: what would make a plain matrix of them is told what to do."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, learning_curve
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder, history_importance
from sklearn_din.utils.warnings import log_once
from tests.fitted_pipelines import attach_clicks

SENTENCE = (
    r"^a matrix of numbers was requested, got EncodedFeatures with ids or histories \(item, "
    r"category, device and 2 more\): .* Let nothing stand between .* X\.to_numpy"
)


@pytest.fixture(scope="module")
def log():
    return attach_clicks(n_users=30, n_items=20, n_categories=4, random_state=0)


@pytest.fixture(scope="module")
def encoded(log):
    return encoder().fit_transform(log[0])


@pytest.fixture(scope="module")
def expected(log):
    """What encoder and classifier predict with nothing between them."""
    return make_pipeline(encoder(), din()).fit(*log).predict_proba(log[0])


def encoder():
    return HistorySequenceEncoder(user="user", time="time")


def din(**parameters):
    return DINClassifier(**{"max_epochs": 1, "random_state": 0, **parameters})


def refused():
    return pytest.raises(TypeError, match=SENTENCE)


def price_of(frame):
    return frame[["price"]].to_numpy()


def scale_price():
    """The advice: what changes columns stands before the encoder, and frames come out of it."""
    return ColumnTransformer(
        [("scale", StandardScaler(), ["price"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")


# What stands between ------------------------------------------------------------------------


@pytest.mark.parametrize("between", [StandardScaler(), SelectKBest(k=3)])
def test_a_step_between_encoder_and_classifier_that_asks_for_a_matrix(log, expected, between):
    with refused():
        make_pipeline(encoder(), between, din()).fit(*log)
    without = make_pipeline(encoder(), din()).fit(*log)
    np.testing.assert_array_equal(without.predict_proba(log[0]), expected)


def test_a_scaler_before_the_encoder_changes_only_the_rounding_and_unions_none(log, expected):
    model = make_pipeline(scale_price(), encoder(), din()).fit(*log)
    np.testing.assert_allclose(model.predict_proba(log[0]), expected, atol=0.02)
    assert isinstance(model[:-1].transform(log[0]), EncodedFeatures)
    union = FeatureUnion([("encode", encoder()), ("price", FunctionTransformer(price_of))])
    frame = log[0].drop(columns="price")
    with refused():
        make_pipeline(union, din()).fit(*log)
    frame = frame.assign(price=log[0]["price"])[log[0].columns]  # into the frame, says the advice
    model = make_pipeline(encoder(), din()).fit(frame, log[1])
    np.testing.assert_array_equal(model.predict_proba(frame), expected)


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_a_matrix_that_came_from_encoded_rows_trains_and_it_is_said_once(
    log, encoded, caplog, learn
):
    for X in (encoded.to_numpy(), pd.DataFrame(encoded.to_numpy())):
        getattr(din(), learn)(X, log[1])
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("DINClassifier was given numbers alone, without ids and histories")
    log_once.cache_clear()
    names = (Pipeline, HistorySequenceEncoder, DINClassifier)
    code = re.search(r"Pipeline\(\[.*\]\)", message)[0]
    advised = eval(code, {its.__name__: its for its in names})
    advised.set_params(din=din(), encode__drop=["user", "time"]).fit(*log)
    assert len(caplog.records) == 1  # nothing is said of that one


# Tools that make arrays of their rows ---------------------------------------------------------


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(max_depth=2)])
def test_another_model_gets_the_matrix_where_it_is_asked_for(log, encoded, model):
    classifier = din().fit(encoded, log[1])
    for ask in (
        lambda: make_pipeline(encoder(), model).fit(*log),
        lambda: np.asarray(encoded),
        lambda: pd.DataFrame(encoded),
        lambda: permutation_importance(classifier, encoded, log[1], n_repeats=1),
    ):
        with refused():
            ask()
    assert (
        len(history_importance(make_pipeline(encoder(), din()).fit(*log), *log, n_repeats=1)) == 5
    )
    as_matrix = FunctionTransformer(EncodedFeatures.to_numpy)
    fitted = make_pipeline(encoder(), as_matrix, StandardScaler(), model).fit(*log)
    direct = make_pipeline(StandardScaler(), model).fit(encoded.to_numpy(), log[1])
    assert fitted.predict_proba(log[0]).shape == direct.predict_proba(encoded.to_numpy()).shape


def test_numbers_alone_are_a_matrix_and_learnt_without_a_word(log, caplog):
    make_pipeline(encoder(), din()).fit(log[0][["user", "time", "price"]], log[1])
    assert not caplog.records
    prices = HistorySequenceEncoder().fit_transform(log[0][["price"]])
    np.testing.assert_array_equal(np.asarray(prices)[:, 0], prices["price"])
    np.testing.assert_array_equal(np.asarray(prices), prices.to_numpy())
    assert np.asarray(prices, dtype=np.float32).dtype == np.float32
    assert StandardScaler().fit_transform(prices).shape == (len(log[1]), 1)


# What never makes an array --------------------------------------------------------------------


def test_scikit_learns_own_ways_with_rows_never_ask_for_a_matrix(log, encoded):
    X, y = log
    options = {"cv": 2, "scoring": "roc_auc"}
    assert cross_val_predict(din(), encoded, y, cv=2).shape == y.shape
    assert GridSearchCV(din(), {"pooling": ["sum"]}, **options).fit(encoded, y).best_score_ > 0
    assert len(learning_curve(din(), encoded, y, train_sizes=[0.5], **options)) == 3
    frozen = make_pipeline(FrozenEstimator(encoder().fit(X)), din()).fit(X, y)
    unchanged = make_pipeline(encoder(), FunctionTransformer(), din()).fit(X, y)
    for model in (frozen, unchanged):
        assert isinstance(model[:-1].transform(X), EncodedFeatures)
