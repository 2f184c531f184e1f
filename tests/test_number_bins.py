"""Numbers in bins: against plain interpolation, hidden with their number, the same everywhere."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss

from sklearn_din import (
    DINRegressor,
    HistorySequenceEncoder,
    Ranker,
    attach_history,
    export_onnx,
    load,
    load_onnx,
    save,
    scan_parquet,
    update,
)
from sklearn_din.features import EncodedFeatures, Field, Schema
from sklearn_din.features.level_columns import find_levels
from sklearn_din.features.request_columns import find_compared
from sklearn_din.module import DIN
from sklearn_din.native_network.logits import engine_text, logits_of
from sklearn_din.network.batch import Batch
from sklearn_din.network.number_bins import N_BINS, NumberBins, choose_bins, find_bins
from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import make_model
from tests.padded_network import numbers_and_bins, padded_logits
from tests.test_native import gradients_of

BINS = {"price": ((-1.0, 0.0, 0.7), (0.0, 0.5, 0.4), (0.5, 2.0, 0.2))}


def encode(**columns):
    meanings = {"price_missing": ("missing", ("price",))} | find_levels(columns)
    meanings |= find_compared(columns)
    read = [meanings.get(name, ("", ())) for name in columns]
    fields = [Field(n, "numeric", what=w, of=of) for n, (w, of) in zip(columns, read, strict=True)]
    own = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}
    return EncodedFeatures(Schema(tuple(fields)), own)


def make_log():
    """Impressions that are clicked where one number lies in the middle; another is mostly 0."""
    rng, n_rows = np.random.RandomState(0), 1_500
    X = pd.DataFrame({"user": rng.randint(40, size=n_rows), "time": np.arange(n_rows)})
    X["item"] = rng.randint(30, size=n_rows)
    X["price"] = np.where(rng.random_sample(n_rows) < 0.1, np.nan, rng.lognormal(3, 1, n_rows))
    X["stock"] = np.where(rng.random_sample(n_rows) < 0.7, 0.0, rng.exponential(size=n_rows))
    y = (rng.random_sample(n_rows) < np.where(X["price"].between(15, 30), 0.8, 0.2)).astype(int)
    return attach_history(X, X[y == 1], user="user", time="time", columns=["item"]), y


ROWS, CLICKS = make_log()


@pytest.fixture(scope="module")
def model():
    return make_model(hidden_units=(8, 4), embedding_dim=4).fit(ROWS, CLICKS)


def bins_of(model):
    return model[-1].module_.options["bins"]


def test_inputs_are_those_of_plain_interpolation():
    numbers = torch.tensor(np.random.RandomState(0).normal(size=(50, 2)) * 3, dtype=torch.float32)
    module = DIN(Schema((Field("price", "numeric"), Field("age", "numeric"))), bins=BINS)
    arrays = {"price": numbers[:, 0], "age": numbers[:, 1]}
    expected = numbers_and_bins(module, arrays)
    assert module.mlp_inputs == {"price": 4, "age": 1}
    np.testing.assert_allclose(module.bins(numbers), torch.cat(expected, dim=1), atol=1e-6)


def test_bins_hold_equal_parts_of_the_rows_and_equal_quantiles_are_one():
    rng, n = np.random.RandomState(0), 4_000
    price, zeros = rng.lognormal(size=n), np.maximum(rng.normal(size=n), 0)
    bins = find_bins(encode(price=price, zeros=zeros, one=np.ones(n), two=rng.randint(2, size=n)))
    assert len(bins["price"]) == N_BINS
    assert 2 < len(bins["zeros"]) < N_BINS
    assert bins.keys() == {"price", "zeros"}
    for name, values in {"price": price, "zeros": zeros}.items():
        inputs = NumberBins([name], bins, {})(torch.tensor(values[:, None], dtype=torch.float32))
        np.testing.assert_allclose(inputs[:, 1:].mean(0), 0, atol=1e-4)
    starts = [start for start, _, _ in bins["price"]]
    shares = np.mean(price[:, None] < starts, axis=0)
    np.testing.assert_allclose(shares, np.linspace(0.01, 0.99, N_BINS + 1)[:-1], atol=1e-3)


PRICE = np.random.RandomState(0).normal(size=3_000)
MISSING = np.arange(3_000) % 3 == 0


def test_missing_and_infinite_numbers_do_not_count_and_huge_ones_move_no_bin():
    holes = np.where(MISSING, 0, PRICE)
    holes[1] = np.inf
    expected = find_bins(encode(price=PRICE[~MISSING][1:]))
    assert find_bins(encode(price=holes, price_missing=MISSING))["price"] == expected["price"]
    assert find_bins(encode(price=np.full(3_000, np.nan))) == {}
    huge = find_bins(encode(price=np.append(PRICE, [1e9, -999])))["price"]
    np.testing.assert_allclose(huge, find_bins(encode(price=PRICE))["price"], atol=0.02)


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_a_column_of_ones_own_that_says_what_is_missing_leaves_the_bins(dtype):
    frame = pd.DataFrame({"price": np.where(MISSING, PRICE.mean(), PRICE)})
    frame["price_missing"] = MISSING.astype(dtype)
    counted = np.flatnonzero(~MISSING | (dtype is not float))  # others are ids
    X = HistorySequenceEncoder().fit_transform(frame)
    expected = find_bins(encode(price=X["price"][counted]))
    assert find_bins(X)["price"] == expected["price"]


def test_learnt_numbers_means_and_counts_so_far_and_few_rows_have_none_and_hundreds_fewer():
    values = PRICE[:2_000]
    names = ["user_rate", "user_count", "user_elapsed", "recent_rate", "film_mean", "learnt"]
    compared = ["price", "price_share", "price_to_mean", "price_is_best"]  # within a request
    X = encode(**dict.fromkeys([*names, *compared], values))
    assert find_bins(X, leave_out=["learnt"]).keys() == {*compared}
    assert find_bins(X[:999], leave_out=["learnt"]) == {}
    rng = np.random.RandomState(0)
    for n_numbers, n_bins in ((40, 6), (128, 2), (129, 0)):
        X = encode(**{f"x{i}": rng.normal(size=1_000) for i in range(n_numbers)})
        assert {*map(len, find_bins(X).values())} == {n_bins} - {0}


USER = np.random.RandomState(1).randint(60, size=4_000)


@pytest.mark.parametrize(("price_of_user", "share_of_ones", "has_bins"), [
    (False, lambda price: np.where(price > 1, 0.8, 0.3), True),  # of some thirty more ones
    (False, lambda price: np.where(abs(price) > 1, 0.6, 0.4), True),  # by 1.8 errors
    (False, lambda price: np.where(price > 1, 0.5, 0.45), False),  # too little
    (False, lambda price: np.clip(0.5 + 0.15 * price, 0, 1), False),  # a line
    (False, lambda price: np.full(len(price), 0.4), False),  # nothing
    (True, lambda price: np.where(USER % 2 == 0, 0.9, 0.1), False),  # of each user alone
])  # fmt: skip
def test_bins_stay_where_they_tell_much_of_other_users_rows(price_of_user, share_of_ones, has_bins):
    rng = np.random.RandomState(0)
    price = rng.normal(size=60)[USER] if price_of_user else rng.normal(size=len(USER))
    y = (rng.random_sample(len(USER)) < share_of_ones(price)).astype(np.float32)
    X = encode(price=price)
    X.users = USER
    found = choose_bins(X, y, None)
    assert found == (find_bins(X) if has_bins else {})
    shown, first = rng.permutation(len(y))[:3_000], np.where(np.arange(len(y)) % 50, y, np.nan)
    labels = np.column_stack([first, rng.random_sample(len(y))])[shown]  # of several, some missing
    assert choose_bins(X, labels, shown) == found


def test_a_regressor_has_bins_too_and_the_paper_network_reads_numbers_as_they_are():
    model = make_model(HistorySequenceEncoder(drop=["time"]), DINRegressor).fit(ROWS, CLICKS * 3.0)
    assert bins_of(model).keys() == {"price", "stock"}
    assert bins_of(make_model(interest="paper", max_epochs=1).fit(ROWS, CLICKS)) == {}
    module = DIN(make_impressions(4).schema, interest="paper", bins=BINS)
    assert module.options["bins"] == {}


def test_a_threshold_is_learnt_that_a_number_alone_does_not_show(monkeypatch):
    parameters = {"neighbours": None, "max_epochs": 8}
    losses = []
    for _ in range(2):
        model = make_model(**parameters).fit(ROWS[:1_200], CLICKS[:1_200])
        losses.append(log_loss(CLICKS[1_200:], model.predict_proba(ROWS[1_200:])[:, 1]))
        monkeypatch.setattr("sklearn_din.training.training.choose_bins", lambda *given: {})
    assert losses[0] < losses[1] - 0.02


def test_a_number_is_hidden_together_with_its_bins():
    X = make_impressions(2_000)
    module = DIN(X.schema, bins=BINS).train()
    inputs, shown = module._numbers(Batch(X)), module.bins(Batch(X).numbers)
    is_hidden = (inputs == 0).all(dim=1)
    assert 0.1 < is_hidden.float().mean() < 0.2
    torch.testing.assert_close(inputs[~is_hidden], shown[~is_hidden])


def test_native_code_computes_networks_with_bins():
    X = make_impressions(64)
    module = DIN(X.schema, bins=BINS, ranges={"price": (-0.3, 0.1)}).eval()
    ways = module, lambda batch: logits_of(module, batch)
    (expected, by_torch), (logits, found) = (gradients_of(way, module, X) for way in ways)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, by_torch, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(expected, padded_logits(module, X).detach())
    assert "NumberBins" not in engine_text(module)


def test_saved_copied_and_ranked_they_are_the_same(model, tmp_path):
    X = ROWS.tail(30)
    expected = model.predict_proba(X)
    assert bins_of(model).keys() == {"price", "stock"}
    save(model, tmp_path / "model.din")
    again = load(tmp_path / "model.din")
    assert bins_of(again) == bins_of(model)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    candidates = X[["item", "price", "stock"]].drop_duplicates("item")
    user = X.tail(1).drop(columns=candidates.columns).assign(time=9_999)
    ranked = Ranker(model, candidates).rank(user, top_k=len(candidates))
    shown = user.merge(ranked[candidates.columns], how="cross")
    by_rows = model.predict_proba(shown[X.columns])[:, 1]
    np.testing.assert_allclose(ranked["probability"], by_rows, rtol=1e-5)


@pytest.mark.parametrize("layout", ["rows", "ranking"])
def test_an_exported_file_computes_them(model, tmp_path, layout):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    X = ROWS.tail(30).assign(time=9_999, price=[np.nan, 1e9, -999.0, *np.arange(27.0)])
    export_onnx(model, tmp_path / "model.onnx", layout=layout)
    exported = load_onnx(tmp_path / "model.onnx")
    np.testing.assert_allclose(exported.predict_proba(X), model.predict_proba(X), atol=1e-5)


def test_an_update_leaves_them_where_they_are_and_a_scan_has_those_of_its_rows(model, tmp_path):
    later = {"price": 10 * ROWS["price"], "time": ROWS["time"] + 1_500, "item": ROWS["item"] + 7}
    assert bins_of(update(model, ROWS.assign(**later), CLICKS)) == bins_of(model)
    frame = ROWS[["user", "time", "item", "price", "stock"]]
    frame.assign(click=CLICKS).to_parquet(tmp_path / "rows.parquet", row_group_size=200)
    frame[CLICKS == 1].to_parquet(tmp_path / "events.parquet")
    scan = scan_parquet(tmp_path / "rows.parquet", target="click", cache_dir=tmp_path)
    events = scan_parquet(tmp_path / "events.parquet", cache_dir=tmp_path)
    rows = attach_history(scan, events, user="user", time="time", columns=["item"])
    streamed = clone(model).fit(rows, rows.target_)
    for name, bins in bins_of(model).items():
        np.testing.assert_allclose(bins_of(streamed)[name], bins, atol=1e-5)
