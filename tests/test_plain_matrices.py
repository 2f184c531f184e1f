"""Encoded rows stay encoded rows: what would make a plain matrix of them is told what to do."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder
from sklearn_din.utils.warnings import log_once
from tests.fitted_pipelines import attach_clicks, quick

SENTENCE = (
    r"^a matrix of numbers was requested, got EncodedFeatures with ids or histories \(item, "
    r"category, device and 2 more\): .* Let nothing stand between .* X\.to_numpy"
)


def encoder():
    return HistorySequenceEncoder(user="user", time="time")


LOG = attach_clicks(n_users=30, n_items=20, n_categories=4, random_state=0)
X, y = encoder().fit_transform(LOG[0]), LOG[1]


def test_what_would_make_a_matrix_of_encoded_rows_is_told_what_to_do():
    classifier = quick().fit(X, y)
    union = FeatureUnion([("all", encoder()), ("again", encoder())])
    for ask in (
        lambda: make_pipeline(encoder(), StandardScaler(), quick()).fit(*LOG),
        lambda: make_pipeline(encoder(), SelectKBest(k=3), quick()).fit(*LOG),
        lambda: make_pipeline(union, quick()).fit(*LOG),
        lambda: make_pipeline(encoder(), LogisticRegression()).fit(*LOG),
        lambda: make_pipeline(encoder(), RandomForestClassifier(max_depth=2)).fit(*LOG),
        lambda: np.asarray(X),
        lambda: pd.DataFrame(X),
        lambda: permutation_importance(classifier, X, y, n_repeats=1),
    ):
        with pytest.raises(TypeError, match=SENTENCE):
            ask()


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_a_matrix_of_encoded_rows_trains_and_is_said_once(caplog, learn):
    for matrix in (X.to_numpy(), pd.DataFrame(X.to_numpy())):
        caplog.clear()
        log_once.cache_clear()
        getattr(quick(), learn)(matrix, y)
        assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("DINClassifier was given numbers alone, without ids and histories")
    log_once.cache_clear()
    names = (Pipeline, HistorySequenceEncoder, DINClassifier)
    code = re.search(r"Pipeline\(\[.*\]\)", message)[0]
    advised = eval(code, {its.__name__: its for its in names})
    advised.set_params(din=quick(), encode__drop=["user", "time"]).fit(*LOG)
    assert len(caplog.records) == 1  # nothing is said of that one


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(max_depth=2)])
def test_another_model_gets_the_matrix_where_it_is_asked_for(model):
    as_matrix = FunctionTransformer(EncodedFeatures.to_numpy)
    fitted = make_pipeline(encoder(), as_matrix, StandardScaler(), model).fit(*LOG)
    direct = make_pipeline(StandardScaler(), model).fit(X.to_numpy(), y)
    assert fitted.predict_proba(LOG[0]).shape == direct.predict_proba(X.to_numpy()).shape


def test_numbers_alone_are_a_matrix_and_learnt_without_a_word(caplog):
    make_pipeline(encoder(), quick()).fit(LOG[0][["user", "time", "price"]], y)
    assert not caplog.records
    prices = HistorySequenceEncoder().fit_transform(LOG[0][["price"]])
    np.testing.assert_array_equal(np.asarray(prices)[:, 0], prices["price"])
    np.testing.assert_array_equal(np.asarray(prices), prices.to_numpy())
    assert np.asarray(prices, dtype=np.float32).dtype == np.float32
    assert StandardScaler().fit_transform(prices).shape == (len(y), 1)
