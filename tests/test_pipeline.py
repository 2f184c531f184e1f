"""Encoder and classifier together, in scikit-learn's tools, on made and on real logs."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_html_repr

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    sample_negatives,
)
from sklearn_din.datasets import fetch_movielens, make_click_log
from sklearn_din.metrics import group_roc_auc_scorer
from tests.fitted_pipelines import attach_clicks


def make_pipeline(drop=("user", "time"), **parameters):
    options = {"max_epochs": 2, "random_state": 0, **parameters}
    encoder = HistorySequenceEncoder(drop=list(drop))
    return Pipeline([("encode", encoder), ("din", DINClassifier(**options))])


@pytest.fixture(scope="module")
def log():
    return attach_clicks(n_users=150, n_items=60, n_categories=8, random_state=0)


@pytest.fixture(scope="module")
def fitted(log):
    return make_pipeline(max_epochs=4).fit(*log)


def test_cross_val_score_by_user_beats_chance(log):
    X, y = log
    scores = cross_val_score(
        make_pipeline(max_epochs=6), X, y, scoring="roc_auc", cv=GroupKFold(3), groups=X["user"]
    )
    assert (scores > 0.6).all()


@pytest.mark.usefixtures("own_processes")
def test_grid_search_in_two_processes_compares_base_model_and_attention(log):
    X, y = log
    grid = {"din__embedding_dim": [4, 8], "din__pooling": ["attention", "sum"]}
    search = GridSearchCV(make_pipeline(), grid, scoring="roc_auc", cv=2, n_jobs=2)
    search.fit(X.head(1000), y[:1000])
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict_proba(X.tail(5)).shape == (5, 2)


def test_gauc_scores_inside_cross_validate_and_grid_search(log):
    X, y = log
    scoring = {"auc": "roc_auc", "gauc": group_roc_auc_scorer("user")}
    found = cross_validate(
        make_pipeline(), X, y, scoring=scoring, cv=GroupKFold(2), groups=X["user"]
    )
    assert np.isfinite(found["test_gauc"]).all()
    search = GridSearchCV(make_pipeline(), {"din__lr": [1e-3]}, scoring=scoring["gauc"], cv=2)
    assert 0 < search.fit(X, y).best_score_ < 1


def test_calibrated_classifier_wraps_the_pipeline(log):
    X, y = log
    calibrated = CalibratedClassifierCV(make_pipeline(), cv=2, method="sigmoid").fit(X, y)
    assert calibrated.predict_proba(X.head(3)).shape == (3, 2)


@pytest.mark.parametrize("routing", [True, False])
def test_sample_weight_and_groups_reach_the_classifier(log, routing):
    X, y = log
    with sklearn.config_context(enable_metadata_routing=routing):
        model = make_pipeline(early_stopping=True, validation="groups")
        if routing:
            model.named_steps["din"].set_fit_request(sample_weight=True, groups=True)
            model.fit(X, y, sample_weight=np.ones(len(y)), groups=X["user"])
        else:
            model.fit(X, y, din__sample_weight=np.ones(len(y)), din__groups=X["user"])
    assert model["din"].history_["valid_loss"].notna().all()


def test_pandas_output_never_turns_ids_into_quantities(log, fitted):
    X, y = log
    with sklearn.config_context(transform_output="pandas"):
        model = make_pipeline(max_epochs=4).fit(X, y)
        probability = model.predict_proba(X)
    np.testing.assert_array_equal(probability, fitted.predict_proba(X))
    model.set_output(transform="pandas")
    np.testing.assert_array_equal(model.predict_proba(X), probability)


def test_it_prints_as_text_and_html(fitted):
    assert "DINClassifier" in repr(fitted)
    assert "HistorySequenceEncoder" in estimator_html_repr(fitted)


def test_a_pickled_pipeline_predicts_the_same_bits(log, fitted):
    X, _ = log
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_the_callers_frame_is_left_as_it_was(log):
    X, y = log
    before = X.copy(deep=True)
    clone(make_pipeline()).fit(X, y).predict(X)
    pd.testing.assert_frame_equal(
        X.drop(columns=["hist_item", "hist_category"]),
        before.drop(columns=["hist_item", "hist_category"]),
    )
    assert X["hist_item"].map(list).tolist() == before["hist_item"].map(list).tolist()


def test_new_users_items_and_empty_histories_are_fine_at_predict(log, fitted):
    X, _ = log
    new = X.head(4).assign(item=[9999, 9998, 9997, 9996], user="nobody")
    new["hist_item"] = [[], None, [424242], [1, 2]]
    new["hist_category"] = [[], None, [77], [1, 2]]
    probability = fitted.predict_proba(new)
    assert np.isfinite(probability).all()


def test_many_candidates_of_one_user_equal_single_rows(log, fitted):
    X, _ = log
    rows = X.iloc[[50] * 20].assign(item=X["item"].iloc[:20].to_numpy())
    together = fitted.predict_proba(rows)
    alone = np.concatenate([fitted.predict_proba(rows.iloc[[i]]) for i in range(20)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_windows_and_lists_of_the_same_histories_train_the_same_model(log):
    X, y = log
    pairs = {("hist_item", "hist_category"): ("item", "category")}
    lists = X.assign(**{name: X[name].map(list) for name in ("hist_item", "hist_category")})
    encoder = HistorySequenceEncoder(drop=["user", "time"], histories=pairs)
    model = Pipeline([("encode", encoder), ("din", DINClassifier(max_epochs=2, random_state=0))])
    from_windows = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clone(model).fit(lists, y).predict_proba(lists), from_windows)


def test_history_builder_serves_inside_a_pipeline():
    log = make_click_log(n_users=60, n_items=40, n_categories=6, random_state=1)
    X, y = log.impressions, log.y
    rank = X.groupby("user")["time"].rank(pct=True)
    early = (rank < 0.5).to_numpy()
    builder = HistoryBuilder(user="user", time="time", columns=["item", "category"])
    model = Pipeline([("history", builder), *make_pipeline().steps])
    model.fit(X[early], y[early])
    before = model.predict_proba(X[~early])
    model["history"].partial_fit(X[~early], y[~early])
    assert (model.predict_proba(X[~early]) != before).any()


def test_eshop_attention_beats_the_base_model(shared_data):
    clicks = pd.read_csv(shared_data / "eshop-clicks" / "clicks.csv.gz")
    clicks = clicks[clicks["session"] <= 4000]
    last = clicks.groupby("session")["order"].transform("max")
    chosen = clicks[(clicks["order"] == last) & (last > 1)]
    X, y = sample_negatives(
        chosen[["session", "order", "item", "category"]],
        user="session",
        item="item",
        item_columns=["category"],
        n_negatives=4,
        random_state=0,
    )
    X = attach_history(X, clicks, user="session", time="order", columns=["item", "category"])
    train, test = next(GroupShuffleSplit(1, random_state=0).split(X, y, X["session"]))
    auc = {}
    for pooling, interest in (("attention", "extended"), ("sum", "paper")):
        model = make_pipeline(
            ("session", "order"), max_epochs=5, pooling=pooling, interest=interest
        )
        model.fit(X.iloc[train], y[train])
        auc[pooling] = roc_auc_score(y[test], model.predict_proba(X.iloc[test])[:, 1])
    assert auc["attention"] > 0.75
    assert auc["attention"] > auc["sum"]


def test_movielens_runs_with_genres_as_a_bag(shared_data):
    data = fetch_movielens("latest-small", data_home=shared_data, download_if_missing=False)
    ratings = data.ratings.merge(data.movies, on="item").query("user <= 100")
    liked = ratings[ratings["rating"] >= 4]
    X = attach_history(
        ratings[["user", "item", "genres", "time"]],
        liked,
        user="user",
        time="time",
        columns=["item"],
    )
    y = (ratings["rating"] >= 4).to_numpy().astype(int)
    order = np.argsort(ratings["time"].to_numpy(), kind="stable")
    train, test = order[:-1000], order[-1000:]
    encoder = HistorySequenceEncoder(
        drop=["user", "time"], histories={"hist_item": "item", "genres": None}, separator="|"
    )
    model = Pipeline([("encode", encoder), ("din", DINClassifier(max_epochs=4, random_state=0))])
    model.fit(X.iloc[train], y[train])
    assert roc_auc_score(y[test], model.predict_proba(X.iloc[test])[:, 1]) > 0.55
