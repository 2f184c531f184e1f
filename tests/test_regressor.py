"""DINRegressor: the classifier's network on numbers, through every tool that takes a classifier."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error, r2_score

from benchmarks.purchase_log import make_purchase_log
from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistorySequenceEncoder,
    explain,
    history_importance,
    predict_to_parquet,
)
from sklearn_din.training.target import Numbers
from tests import fitted_pipelines
from tests.click_frames import attach
from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import make_frame, make_model

quick = partial(fitted_pipelines.quick, DINRegressor)


@pytest.fixture(scope="module")
def rows():
    frame, y = make_frame()
    noise = np.random.RandomState(0).gamma(2.0, size=len(y))
    return frame.drop(columns="tags"), 20.0 * (1 + y) * noise


@pytest.fixture(scope="module")
def fitted(rows):
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    return make_model(encoder, DINRegressor, lr=0.02, loss="log1p").fit(*rows)


@pytest.mark.parametrize("loss", ["squared", "log1p"])
@pytest.mark.slow
def test_it_learns_seconds_better_than_their_mean_and_not_beyond_the_truth(loss):
    log = make_purchase_log(n_users=400, random_state=0)
    X = attach(log.impressions, log.events)
    train, test = slice(0, 6400), slice(6400, None)
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = make_model(encoder, DINRegressor, loss=loss, max_epochs=8)
    model.fit(X[train], log.seconds[train])
    to_scale, truth = np.asarray, log.expected_seconds[test]
    if loss == "log1p":
        to_scale, truth = np.log1p, log.expected_seconds[test] / np.exp(0.8**2 / 2)  # the median
    predicted = model.predict(X[test])
    r2, ceiling = (
        r2_score(to_scale(log.seconds[test]), to_scale(those)) for those in (predicted, truth)
    )
    assert 0.5 * ceiling < r2 < ceiling


def test_units_and_shifts_of_y_change_predictions_by_as_much_and_log1p_is_its_logarithm():
    X = make_impressions(300)
    y = np.random.RandomState(0).gamma(1.0, 50.0, size=300)
    plain, seconds = quick().fit(X, y), quick().fit(X, 1000 + 60 * y)
    np.testing.assert_allclose(seconds.predict(X), 1000 + 60 * plain.predict(X), rtol=1e-4)
    logarithm = quick().fit(X, np.log1p(y)).predict(X)
    found = quick(loss="log1p").fit(X, y).predict(X)
    np.testing.assert_allclose(found, np.expm1(logarithm), rtol=1e-4)


def test_losses_in_history_are_one_less_r2_and_the_best_check_is_kept():
    X = make_impressions(3000)
    y = X.columns["price"] + np.random.RandomState(0).normal(size=3000)
    regressor = quick(validation="last", refit=None, max_epochs=6).fit(X, y)
    held_out = slice(2700, None)
    error = mean_squared_error(y[held_out], regressor.predict(X[held_out])) / y.var()
    assert regressor.history_["valid_loss"].min() == pytest.approx(error, rel=1e-3)
    assert regressor.history_["valid_auc"].isna().all()


def test_no_fit_ends_worse_than_the_mean():
    X = make_impressions(1200)
    y = np.random.RandomState(0).normal(size=1200)
    with pytest.warns(UserWarning, match=r"hardly follow .* near the mean \("):
        regressor = quick(validation="last", refit=None, lr=0.1).fit(X, y)
    assert np.abs(regressor.predict(X) - y[:1080].mean()).mean() < 0.2
    held_out, mean = y[1080:], np.full(120, y[:1080].mean())
    loss = mean_squared_error(held_out, regressor.predict(X)[1080:])
    assert loss <= mean_squared_error(held_out, mean) + 1e-3


@pytest.mark.parametrize("damage", [{"spread": 0.0}, {"mean": np.nan}, {"of_what": "cubed"}])
def test_a_damaged_scale_is_refused(fitted, damage):
    broken = pickle.loads(pickle.dumps(fitted[-1]))
    broken._target = Numbers(**{"of_what": "log1p", "mean": 0.0, "spread": 1.0, **damage})
    with pytest.raises(ValueError, match="DINRegressor cannot take this state"):
        DINRegressor().__setstate__(broken.__getstate__())
    DINRegressor().__setstate__(fitted[-1].__getstate__())


def test_rows_of_any_regressor_are_scored_in_a_file(tmp_path):
    X = pd.DataFrame({"seconds": [1.0, 2.0]})
    model = LinearRegression().fit(X, [1.0, 2.0])
    for n in (2, 0):
        path = predict_to_parquet(model, X[:n], tmp_path / str(n), columns="seconds")
        assert pq.read_table(path).column_names == ["seconds", "prediction"]
        np.testing.assert_allclose(pq.read_table(path)["prediction"], X["seconds"][:n])


def test_columns_matter_by_r2_and_explanations_name_no_click(fitted, rows):
    frame, y = rows
    assert "click" not in explain(fitted, frame.head(5), by="leave_out").attrs
    table = history_importance(fitted, frame, y, scoring="r2", n_repeats=1, random_state=0)
    assert set(table["feature"]) >= {"item", "price"}
    with pytest.raises(ValueError, match="must be one that regressors have, such as 'r2', got"):
        history_importance(fitted, frame, y)
    assert "MLP" in fitted[-1].summary()


def test_the_parameters_are_the_classifiers_but_for_those_of_labels():
    ours, theirs = set(DINRegressor().get_params()), set(DINClassifier().get_params())
    assert ours - theirs == {"loss"}
    assert theirs - ours == {"class_weight", "neighbours", "trees", "after", "label_weight"}
