"""Columns that came since fit: added by an update without an effect, and those that are gone."""

import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.pipeline import Pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    scan_parquet,
    update,
)
from tests.click_frames import as_lists

ADDED = "columns came since fit and are added"
N_FIT = 400


@pytest.fixture(scope="module")
def log():
    """The brand, which came later, is half of what decides."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"user": rng.randint(12, size=700), "time": np.arange(700)})
    X["item"] = [f"i{n}" for n in rng.randint(30, size=700)]
    X["price"] = rng.random_sample(700)
    X["brand"] = np.array(["red", "blue", "green"])[rng.randint(3, size=700)]
    X["stock"] = rng.random_sample(700)
    X.loc[X.index % 7 == 0, "stock"] = np.nan
    X["genres"] = [["a", "b"][: n % 3] for n in range(700)]
    X["tags"] = [["x", f"t{n % 4}"] for n in range(700)]
    chance = 0.2 + 0.3 * (X["brand"] == "red") + 0.3 * (X["price"] > 0.5)
    y = (rng.random_sample(700) < chance).astype(int)
    names = ["item", "brand", "genres"]
    return attach_history(X, X[y == 1], user="user", time="time", columns=names), y


def fit_on(names, log, **parameters):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=10)
    options = {"max_epochs": 2, "random_state": 0} | parameters
    model = Pipeline([("encode", encoder), ("din", DINClassifier(**options))])
    return model.fit(X[["user", "time", *names]][:N_FIT], y[:N_FIT])


FIRST = ["item", "price", "hist_item"]


@pytest.fixture(scope="module")
def model(log):
    return fit_on(FIRST, log)


def grow(model, X):
    """The model with the columns of X, before anything is trained on them."""
    grown = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=ADDED):
        grown["encode"].partial_fit(X)
    encoded = grown["encode"].transform(X)
    net = grown["din"]._grown_net(encoded.schema, grown["din"]._target)
    return net, encoded


@pytest.mark.parametrize(
    "names",
    [
        ["brand"],
        ["stock"],
        ["tags"],
        ["brand", "hist_brand"],
        ["genres", "hist_genres"],
        ["brand", "stock", "tags", "hist_brand", "genres", "hist_genres"],
    ],
)
@pytest.mark.parametrize("options", [{}, {"interest": "paper", "hidden_units": ()}])
def test_growth_by_columns_changes_no_prediction(log, names, options):
    model = fit_on(FIRST, log, neighbours=None, **options)
    X = log[0][N_FIT:][["user", "time", *FIRST, *names]]
    net, encoded = grow(model, X)
    before = model.decision_function(X)
    np.testing.assert_allclose(net.score(encoded), before, atol=1e-5)
    assert {*names} <= {field.name for field in net.module_.schema.fields}


def test_moments_go_on_and_those_of_new_columns_are_zero(model, log):
    net, _ = grow(model, log[0][N_FIT:])
    old, new = model["din"].net_, net.module_
    is_new = torch.cat(
        [torch.full((n,), k not in old.module_.mlp_inputs) for k, n in new.mlp_inputs.items()]
    )
    name = "mlp.0.weight"
    weight, before = net.dense_parameters[name], old.dense_parameters[name]
    pairs = [(weight, before)]
    for key in ("exp_avg", "exp_avg_sq"):
        pairs.append((net.optimizer_.state[weight][key], old.optimizer_.state[before][key]))
    for grown, known in pairs:
        assert torch.equal(grown[:, ~is_new], known)
        assert not grown[:, is_new].any()
    (table,), (known,) = new.embeddings.tables.values(), old.module_.embeddings.tables.values()
    state, earlier = net.optimizer_.state[table], old.optimizer_.state[known]
    assert torch.equal(state["square"][: len(known)], earlier["square"])
    assert len(state["square"]) == len(table)
    assert not state["square"][len(known) :].any()
    assert len(state["total"]) == len(new.embeddings.sizes)


def test_an_update_learns_from_columns_that_came_since(log):
    X, y = log
    model = fit_on(["item", "hist_item"], log, neighbours=None)
    later = X[N_FIT:][["user", "time", "item", "hist_item", "price", "brand"]]
    with pytest.warns(UserWarning, match=rf"{ADDED}: price \(number\), brand \(id\). By that"):
        model = update(model, later, y[N_FIT:])
    for _ in range(15):
        model = update(model, later, y[N_FIT:])
    red = X[:N_FIT].assign(brand="red", price=0.9)
    other = X[:N_FIT].assign(brand="blue", price=0.1)
    assert (model.predict_proba(red)[:, 1] > model.predict_proba(other)[:, 1]).all()


def test_a_history_of_a_column_that_was_there_shares_its_vocabulary(log):
    X, y = log
    model = fit_on([*FIRST, "brand"], log)
    message = rf"{ADDED}: hist_brand \(history of ids compared with brand\)"
    later = X[N_FIT:].assign(hist_brand=[[*cell, "new"] for cell in X["hist_brand"][N_FIT:]])
    with pytest.warns(UserWarning, match=message):
        model = update(model, later[["user", "time", *FIRST, "brand", "hist_brand"]], y[N_FIT:])
    schema = model["encode"].schema_
    assert [b.histories for b in schema.behaviours] == [("hist_item",), ("hist_brand",)]
    assert model["encode"].vocabularies_["hist_brand"].tolist() == ["blue", "green", "red", "new"]


def test_rows_of_a_scan_and_a_builder_add_columns_too(log, tmp_path):
    X, y = log
    names = ["user", "time", "item", "price"]
    X.drop(columns=["hist_genres", "genres"]).assign(y=y).to_parquet(tmp_path / "log.parquet")
    scan = scan_parquet(tmp_path / "log.parquet", target="y")
    streamed, plain = fit_on(FIRST, log), fit_on(FIRST, log)
    with pytest.warns(UserWarning, match=ADDED):
        streamed = update(streamed, scan, scan.target_)
    with pytest.warns(UserWarning, match=ADDED):
        plain = update(plain, X.drop(columns=["hist_genres", "genres"]), y)
    np.testing.assert_allclose(streamed.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    builder = HistoryBuilder(user="user", time="time", columns="item")
    steps = [("attach", builder), *fit_on(FIRST, log).steps]
    built = Pipeline(steps).fit(X[names][:N_FIT], y[:N_FIT])
    with pytest.warns(UserWarning, match=rf"{ADDED}: brand \(id\)"):
        built = update(built, X[[*names, "brand"]][N_FIT:], y[N_FIT:])
    assert "brand" in built["encode"].schema_.names("categorical")
    built.predict_proba(X)


def test_dropped_columns_dates_and_those_beside_are_not_added(model, log):
    X = log[0][N_FIT:][["user", "time", *FIRST]]
    grown = copy.deepcopy(model).set_params(encode__drop=["note"])
    grown["encode"].partial_fit(X.assign(note="x", day=pd.Timestamp("2026-01-01")))
    assert grown["encode"].schema_.names("categorical") == ["item"]
    assert grown["encode"].n_features_in_ == 5


def test_a_new_column_that_is_the_label_is_said(model, log):
    X, y = log
    grown = copy.deepcopy(model)
    later = X[N_FIT:][["user", "time", *FIRST]].assign(clicked=y[N_FIT:] * 1.0)
    with (
        pytest.warns(UserWarning, match=ADDED),
        pytest.warns(UserWarning, match="clicked alone tells clicked rows from others"),
    ):
        grown = update(grown, later, y[N_FIT:])


def test_numbers_of_events_without_their_ids_are_refused(model, log):
    X, y = log
    ago = attach_history(
        X[["user", "time"]], X[y == 1], user="user", time="time", columns="price", prefix="past_"
    )
    later = X[N_FIT:][["user", "time", *FIRST]].assign(past_price=ago["past_price"][N_FIT:])
    with pytest.raises(ValueError, match="past_price holds one number per event, and no history"):
        update(model, later, y[N_FIT:])


def test_a_width_for_each_vocabulary_is_needed_of_those_that_came_since(log):
    X, y = log
    model = fit_on(FIRST, log, embedding_dim={"item": 4})
    later = X[N_FIT:][["user", "time", *FIRST, "brand"]]
    with (
        pytest.warns(UserWarning, match=ADDED),
        pytest.raises(ValueError, match=r"name every vocabulary once: \['brand', 'item'\]"),
    ):
        model = update(model, later, y[N_FIT:])
    model.set_params(din__embedding_dim={"item": 4, "brand": 2})
    with pytest.warns(UserWarning, match=ADDED):
        model = update(model, later, y[N_FIT:])
    assert model["din"].module_.embeddings.weight("brand").shape == (5, 2)


def test_a_classifier_takes_new_columns_only_after_its_own_training(model, log):
    X, _ = log
    encoder = copy.deepcopy(model["encode"])
    with pytest.warns(UserWarning, match=ADDED):
        encoder.partial_fit(X[N_FIT:])
    with pytest.raises(ValueError, match="an encoder that has learnt more columns since"):
        model["din"].predict_proba(encoder.transform(X))


@pytest.mark.parametrize("make", [pd.DataFrame, lambda X: pl.from_pandas(as_lists(X))])
@pytest.mark.parametrize("gone", [["price"], ["item"], ["price", "item"]])
def test_a_column_that_is_gone_names_the_way_which_works(model, log, gone, make):
    X, y = log
    later = make(X[N_FIT:][["user", "time", *FIRST]].drop(columns=gone))
    message = r"(?s)now missing.*fit again without it, or give it as missing values: X\."
    with pytest.raises(ValueError, match=message) as error:
        update(model, later, y[N_FIT:])
    grown, filled = copy.deepcopy(model), eval(str(error.value).split(": ")[-1][:-1], {"X": later})
    assert update(grown, filled, y[N_FIT:]).predict_proba(filled).shape == (300, 2)


def test_a_history_that_is_gone_names_the_function_that_makes_it(model, log):
    X, y = log
    with pytest.raises(ValueError, match=r"(?s)hist_item.*attach_history makes the history"):
        update(model, X[N_FIT:].drop(columns="hist_item"), y[N_FIT:])
