"""The GAUC scorer finds the groups in a column of X or in the metadata."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_din import HistorySequenceEncoder
from sklearn_din.metrics import group_roc_auc_score, group_roc_auc_scorer
from tests.fitted_pipelines import make_model

RNG = np.random.default_rng(0)
X = pd.DataFrame({"user": RNG.integers(0, 12, 200), "price": RNG.normal(size=200)})
y = (X["price"] + RNG.normal(size=200) > 0).astype(int)


@pytest.fixture
def model():
    price = make_column_transformer(("passthrough", ["price"]))
    return make_pipeline(price, LogisticRegression(random_state=0))


@sklearn.config_context(enable_metadata_routing=True)
def test_scorer_takes_the_groups_by_metadata_routing_as_its_copies_do(model):
    by_column = cross_val_score(model, X, y, scoring=group_roc_auc_scorer("user"), cv=3, params={})
    scorer, groups = group_roc_auc_scorer().set_score_request(groups=True), {"groups": X["user"]}
    by_metadata = cross_val_score(model, X, y, scoring=scorer, cv=3, params=groups)
    np.testing.assert_array_equal(by_column, by_metadata)
    model.fit(X, y)
    scorer = group_roc_auc_scorer("user")
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert copy(model, X, y) == scorer(model, X, y)
        assert repr(copy) == "group_roc_auc_scorer(groups='user')"


@pytest.mark.parametrize("routed", [True, False])
def test_groups_for_the_splitter_do_not_disturb_the_column(model, routed):
    groups = {"params": {"groups": X["user"]}} if routed else {"groups": X["user"]}
    with sklearn.config_context(enable_metadata_routing=routed):
        scoring = {"gauc": group_roc_auc_scorer("user"), "auc": "roc_auc"}
        scores = cross_validate(model, X, y, scoring=scoring, cv=GroupKFold(4), **groups)
    assert np.isfinite(scores["test_gauc"]).all()


@sklearn.config_context(enable_metadata_routing=True)
def test_scorer_takes_sample_weight_by_metadata_routing(model):
    model[-1].set_fit_request(sample_weight=False)
    weight = np.random.default_rng(1).random(len(y))
    scorer = group_roc_auc_scorer("user").set_score_request(sample_weight=True)
    fold = [(np.arange(200), np.arange(200))]
    [got] = cross_val_score(model, X, y, scoring=scorer, cv=fold, params={"sample_weight": weight})
    score = model.fit(X, y).decision_function(X)
    assert got == group_roc_auc_score(y, score, groups=X["user"], sample_weight=weight)


@pytest.mark.parametrize("as_form", ["frame", "Arrow", "polars"], indirect=True)
def test_scorer_takes_the_users_that_the_encoder_was_told_of(as_form):
    model = make_model(HistorySequenceEncoder(user="user"), max_epochs=1).fit(X, y)
    expected = group_roc_auc_score(y, model.decision_function(X), groups=X["user"])
    assert group_roc_auc_scorer()(model, as_form(X), y) == pytest.approx(expected, abs=1e-6)
    assert group_roc_auc_scorer("user")(model, as_form(X), y) == pytest.approx(expected, abs=1e-6)
    encoded = model[:-1].transform(as_form(X))
    assert group_roc_auc_scorer()(model[-1], encoded, y) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="no column 'user', which the encoder calls the user"):
        group_roc_auc_scorer()(model, X.drop(columns="user"), y)
    renamed = X.rename(columns={"user": "users"})  # no role
    model = make_model(HistorySequenceEncoder(drop="users"), max_epochs=1).fit(renamed, y)
    with pytest.raises(ValueError, match=r"got no groups\. .*HistorySequenceEncoder\(user='user'"):
        group_roc_auc_scorer()(model, renamed, y)
