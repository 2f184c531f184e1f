"""Numbers of a row among the rows of one request."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    attach_history,
    attach_request,
    export_onnx,
    load_onnx,
    rank_candidates,
    scan_parquet,
)
from sklearn_din.training.neutral_requests import hide_requests
from tests.fitted_pipelines import make_model
from tests.tables import FORMS


def shelves(n_requests=60, seed=0):
    """Rows of requests of 1 to 9 rows, with equal and missing prices, some without a request."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 10, n_requests)
    frame = pd.DataFrame({"search": np.repeat(np.arange(n_requests), sizes).astype(float)})
    frame["price"] = chance.integers(0, 8, len(frame)) * 1.5
    frame.loc[chance.random(len(frame)) < 0.1, "price"] = np.nan
    frame.loc[frame["search"] % 20 == 0, "search"] = np.nan
    frame["rate"] = chance.random(len(frame))
    return frame


def compare_by_loops(frame, request, name):
    """The same by its definition, row by row."""
    rows = []
    for n, value in enumerate(frame[name]):
        is_own = (frame[request] == frame[request].iloc[n]) & frame[name].notna()
        others = frame[name][is_own].tolist()
        if np.isnan(value) or len(set(others)) < 2:
            rows.append((0.5, 0.0, 0.0))
            continue
        n_below = sum(o < value for o in others) + 0.5 * (others.count(value) - 1)
        share = n_below / (len(others) - 1)
        to_mean = np.clip((value - np.mean(others)) / np.std(others), -3, 3)
        rows.append((share, to_mean, float(value == max(others)) - float(value == min(others))))
    names = [f"{name}_share", f"{name}_to_mean", f"{name}_is_best"]
    return pd.DataFrame(rows, columns=names, index=frame.index)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_a_request_are_those_of_plain_loops(seed):
    frame = shelves(seed=seed).sample(frac=1, random_state=seed)  # in any order
    attached = attach_request(frame, request="search", columns=["price", "rate"])
    expected = frame.join(compare_by_loops(frame, "search", "price"))
    expected = expected.join(compare_by_loops(frame, "search", "rate"))
    pd.testing.assert_frame_equal(attached, expected)


@pytest.mark.parametrize("form", ["polars", "Arrow"])
def test_every_kind_of_table_has_the_same_numbers(form, tmp_path):
    frame = shelves().drop(columns="rate")
    attached = attach_request(FORMS[form](frame, tmp_path), request="search", columns="price")
    expected = attach_request(frame, request="search", columns="price")
    for name in ("price_share", "price_to_mean", "price_is_best"):
        assert_allclose(np.asarray(attached[name], dtype=float), expected[name], atol=1e-15)


def test_numbers_hang_on_neither_units_nor_other_requests():
    frame = shelves().dropna()
    numbers = attach_request(frame, request="search", columns="price").iloc[:, -3:]
    units = attach_request(frame.assign(price=frame["price"] * 100 + 7), request="search",
                           columns="price").iloc[:, -3:]  # fmt: skip
    assert_allclose(units, numbers, atol=1e-9)
    alone = frame[frame["search"] == 3.0]
    alone = attach_request(alone, request="search", columns="price").iloc[:, -3:]
    pd.testing.assert_frame_equal(alone, numbers.loc[alone.index])
    huge = pd.DataFrame({"search": 1, "price": [-1.7e308, 1e300, 1.7e308, np.inf]})
    huge = attach_request(huge, request="search", columns="price")
    assert huge["price_is_best"].tolist() == [-1, 0, 1, 0]
    assert np.isfinite(huge[["price_share", "price_to_mean"]]).all(axis=None)


def test_a_request_may_be_several_columns():
    frame = pd.DataFrame({"user": [1, 1, 1, 2], "day": [5, 5, 6, 5], "price": [2, 3, 9, 1]})
    attached = attach_request(frame, request=["user", "day"], columns="price")
    assert attached["price_share"].tolist() == [0, 1, 0.5, 0.5]


def test_a_scan_is_refused(tmp_path):
    shelves(30).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TypeError, match="attach_request takes frames, got a scan"):
        attach_request(scan_parquet(tmp_path / "a.parquet"), request="search", columns=["price"])


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"columns": "prize"}, ValueError, "no column 'prize'; did you mean 'price'"),
    ({"columns": []}, ValueError, "columns must name at least one column"),
    ({"request": []}, ValueError, "request must name at least one column"),
    ({"columns": "name"}, TypeError, "must hold numbers to compare, but frame\\['name'\\]"),
    ({"columns": "taken"}, ValueError, "already has the columns \\['taken_share'\\]"),
])  # fmt: skip
def test_what_cannot_be_compared_is_named(given, error, words):
    frame = pd.DataFrame({"search": [1, 1], "price": [2.0, 3.0], "name": ["a", "b"]})
    frame = frame.assign(taken=frame["price"], taken_share=0.5)
    with pytest.raises(error, match=words):
        attach_request(frame, **{"request": "search", "columns": "price"} | given)


def make_log(n_users=60, n_items=25):
    """Shelves of five items with their prices of the day, one of which is bought."""
    chance, rows = np.random.default_rng(0), []
    for day in range(6):
        for user in range(n_users):
            items = chance.permutation(n_items)[:5]
            prices = chance.lognormal(1, 1) * chance.lognormal(0, 0.3, 5)
            bought = prices.argmin() if chance.random() < 0.5 else chance.integers(5)
            rows += [
                (user, f"i{item}", prices[n], f"{user}-{day}", day, int(n == bought))
                for n, item in enumerate(items)
            ]
    names = ["user", "item", "price", "shelf", "day", "bought"]
    return pd.DataFrame(rows, columns=names)


LOG = make_log()
BOUGHT = LOG[LOG["bought"] == 1]
NAMES = {"user": "user", "time": "day", "columns": "item"}
ROWS = attach_history(attach_request(LOG, request="shelf", columns="price"), BOUGHT, **NAMES)
ROWS = ROWS.drop(columns=["shelf", "bought"])
ITEMS = pd.DataFrame({"item": sorted(set(LOG["item"]))})
ITEMS["price"] = np.random.default_rng(1).integers(1, 15, len(ITEMS)) * 1.0
USERS = attach_history(pd.DataFrame({"user": range(5), "day": 7}), BOUGHT, **NAMES)


@pytest.fixture(scope="module", params=["encoder", "a step before"])
def model(request):
    encoder = HistorySequenceEncoder(user="user", time="day")
    before = [FunctionTransformer(feature_names_out="one-to-one")]
    steps = [*(before if request.param == "a step before" else []), encoder]
    model = make_pipeline(*steps, DINClassifier(max_epochs=3, random_state=0))
    return model.fit(ROWS, LOG["bought"].to_numpy())


def rank_by_hand(model, users, is_in_list):
    """The list of each user as a request of its own."""
    pairs = users.assign(row=range(len(users))).merge(ITEMS, how="cross")
    pairs = pairs[is_in_list(pairs)]
    pairs = attach_request(pairs, request="row", columns="price")
    probability = model.predict_proba(pairs[list(model.feature_names_in_)])[:, 1]
    return pairs[["row", "item"]].assign(expected=probability)


@pytest.mark.parametrize(("options", "is_in_list"), [
    ({}, lambda pairs: pairs["item"] != ""),
    ({"exclude": ["i3", "i7"]}, lambda pairs: ~pairs["item"].isin(["i3", "i7"])),
    ({"only": ["i1", "i2", "i9"]}, lambda pairs: pairs["item"].isin(["i1", "i2", "i9"])),
    ({"only": ["i4"]}, lambda pairs: pairs["item"] == "i4"),
], ids=["all", "exclude", "only", "one"])  # fmt: skip
def test_the_list_that_is_ranked_is_the_request(model, options, is_in_list):
    ranked = rank_candidates(model, USERS, ITEMS, top_k=len(ITEMS), **options)
    by_hand = rank_by_hand(model, USERS, is_in_list)
    both = ranked.merge(by_hand, on=["row", "item"], validate="1:1")
    assert len(both) == len(ranked) == len(by_hand)
    assert_allclose(both["probability"], both["expected"], atol=1e-6)
    with pytest.raises(ValueError, match="price"):  # which is compared
        rank_candidates(model, USERS, ITEMS[["item"]], **options)


def test_a_list_on_a_shortlist_is_the_request(model):
    ranked = rank_candidates(model, USERS, ITEMS, top_k=8, shortlist=8)
    names = ["row", "item"]
    kept = ranked.set_index(names).index
    by_hand = rank_by_hand(model, USERS, lambda pairs: pairs.set_index(names).index.isin(kept))
    both = ranked.merge(by_hand, on=["row", "item"], validate="1:1")
    assert_allclose(both["probability"], both["expected"], atol=1e-6)


def test_an_onnx_file_ranks_lists_as_its_model_does(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    model = model[-2:]
    export_onnx(model, tmp_path / "model.onnx", layout="ranking")
    ranked = rank_candidates(model, USERS, ITEMS, exclude=["i2"])
    of_file = rank_candidates(load_onnx(tmp_path / "model.onnx"), USERS, ITEMS, exclude=["i2"])
    assert_allclose(of_file["probability"], ranked["probability"], atol=1e-5)


def test_levels_that_a_memory_makes_are_compared_within_the_list():
    builder = HistoryBuilder(**NAMES, levels=["item"])
    rows = LOG[["user", "day", "item"]]
    builder.fit(rows, LOG["bought"].to_numpy())
    made = builder.transform(rows)
    made = attach_request(made.assign(shelf=LOG["shelf"]), request="shelf", columns="item_rate")
    made = made.drop(columns="shelf")
    model = make_model(HistorySequenceEncoder(user="user", time="day"))
    model.fit(made, LOG["bought"].to_numpy())
    ranked = Ranker(model, ITEMS[["item"]], memory=builder).rank(USERS, top_k=len(ITEMS))
    pairs = USERS.assign(row=range(len(USERS))).merge(ITEMS[["item"]], how="cross")
    levels = ["item_rate", "item_count", "item_elapsed", "recent_rate"]
    pairs = pairs.join(builder.transform(pairs[["user", "day", "item"]])[levels])
    pairs = attach_request(pairs, request="row", columns="item_rate")
    probability = model.predict_proba(pairs[list(model.feature_names_in_)])[:, 1]
    both = ranked.merge(pairs[["row", "item"]].assign(expected=probability), on=["row", "item"])
    assert len(both) == len(pairs)
    assert_allclose(both["probability"], both["expected"], atol=1e-6)


def test_a_tenth_of_the_training_rows_is_neutral():
    encoder = HistorySequenceEncoder(user="user", time="day").fit(ROWS)
    alone = ROWS.assign(price_share=0.5, price_to_mean=0.0, price_is_best=0.0)
    encoded, alone = encoder.transform(ROWS), encoder.transform(alone)
    shown = hide_requests(encoded)
    names = ["price_share", "price_to_mean", "price_is_best"]
    is_changed = np.any([encoded[name] != shown[name] for name in names], axis=0)
    assert 0.05 < is_changed.mean() < 0.12
    for name in encoded.schema.names("numeric"):
        is_hidden = is_changed & (name in names)
        assert_allclose(shown[name], np.where(is_hidden, alone[name], encoded[name]))


def test_a_server_ranks_lists_and_predicts_rows_alone(model):
    pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
    from sklearn_din.server.answers import Answers

    answers = Answers(model[-2:], ITEMS)
    user = {"user": 2, "day": 7, "hist_item": USERS["hist_item"].iloc[2].tolist()}
    names = ["i1", "i4", "i8"]
    ranked = answers.rank({n: user[n] for n in answers.user_columns}, names, 3, None)
    third = USERS.iloc[[2]]
    by_hand = rank_by_hand(model, third, lambda pairs: pairs["item"].isin(names))
    expected = by_hand.set_index("item")["expected"]
    assert_allclose(ranked["probabilities"], expected[ranked["items"]], atol=1e-6)
    row = {n: user[n] for n in answers.user_columns} | {"item": "i4"}
    (alone,) = answers.predict([row])["probabilities"]
    by_hand = rank_by_hand(model, third, lambda pairs: pairs["item"] == "i4")
    assert alone == pytest.approx(by_hand["expected"].item(), abs=1e-6)
