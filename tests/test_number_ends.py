"""Numbers end where training's did: what lies beyond is read as the end, wherever a model goes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    export_onnx,
    load,
    load_onnx,
    rank_candidates,
    remember,
    save,
    update,
)
from sklearn_din.features.number_ends import find_range
from sklearn_din.features.schema import Field, Schema
from sklearn_din.network.number_bins import check_bins, find_ranges
from tests.plain_memory import begin_with
from tests.test_number_bins import encode

QUICK = {"max_epochs": 2, "hidden_units": (8,), "random_state": 0, "early_stopping": False}
SCHEMA = Schema((Field("price", "numeric"), Field("hist_price", "numeric_history")))
PRICES = np.random.RandomState(0).normal(10, 1, size=400)


def fit(kind=DINClassifier, frame=None, **parameters):
    """A model of prices and labels by chance."""
    frame = pd.DataFrame({"price": PRICES}) if frame is None else frame
    y = np.random.RandomState(1).randint(2, size=len(frame))
    return make_pipeline(HistorySequenceEncoder(), kind(**QUICK, **parameters)).fit(frame, y)


def read(model, **columns):
    """What the network of a model reads of rows' numbers."""
    X = model[0].transform(pd.DataFrame(columns))
    X = model[-1].net_.neighbours_.add_to(X)
    names = X.schema.names("numeric")
    bins = model[-1].module_.bins
    numbers = np.stack([X.columns[name] for name in names], axis=1)
    return dict(zip(names, bins(bins.starts.new_tensor(numbers)).numpy().T, strict=False))


@pytest.mark.parametrize("n_rows", [1, 7, 20, 99, 1_000, 40_000])
def test_a_range_is_what_a_thousandth_of_the_rows_reach_and_at_least_five(n_rows):
    """Five of many rows that have a flag make it a range, four do not."""
    values = np.random.RandomState(n_rows).permutation(n_rows) / n_rows
    low, high = find_range(values)
    reaching = max(n_rows // 1_000, min(5, 1 + n_rows // 20))
    assert [(values <= low).sum(), (values >= high).sum()] == [reaching, reaching]
    if n_rows >= 20:
        values[:1] = 1e9
        assert find_range(values)[1] <= 1
    for n_set, high in ((4, 0.0), (5, 1.0)):
        assert find_range(np.arange(20_000) < n_set) == (0.0, high)


def test_missing_and_infinite_numbers_reach_nothing_and_stay_missing():
    price = np.where(np.arange(400) % 3 == 0, np.nan, PRICES)
    model = fit(frame=pd.DataFrame({"price": price}))
    X = model[0].transform(pd.DataFrame({"price": [*PRICES[np.isfinite(price)]]}))
    assert find_ranges(X)["price"] == model[-1].module_.options["ranges"]["price"]
    seen = read(model, price=[np.nan, 9_999.0])
    assert (seen["price"][0], *seen["price_missing"]) == (0, 1, 0)
    assert find_ranges(encode(price=[np.nan, np.inf])) == {}


@pytest.mark.parametrize("interest", ["extended", "paper"])
@pytest.mark.parametrize("kind", [DINClassifier, DINRegressor])
def test_what_is_beyond_is_read_as_one_range_beyond_training(kind, interest):
    model = fit(kind, interest=interest)
    low, high = np.sort(PRICES)[[4, -5]]
    ends = [2 * low - high, 2 * high - low]
    prices = np.array([-1e30, -9_999.0, ends[0], ends[1], 9_999.0, 1e30])
    predicted = model.predict(pd.DataFrame({"price": prices}))
    np.testing.assert_array_equal(predicted, np.repeat(predicted[[2, 3]], 3))
    inside = read(model, price=np.linspace(*ends, 9))["price"]
    np.testing.assert_allclose(np.diff(inside), np.diff(inside)[0], rtol=1e-4)


@pytest.mark.parametrize("interest", ["extended", "paper"])
def test_a_column_that_was_constant_is_that_constant(interest):
    frame = pd.DataFrame({"price": PRICES, "shop": 10.0})
    model = fit(frame=frame, interest=interest)
    expected = model.predict_proba(frame)
    for shop in (100.0, -1e9, np.nan):
        np.testing.assert_array_equal(model.predict_proba(frame.assign(shop=shop)), expected)


@pytest.mark.slow
def test_coin_flips_stay_near_their_rate_whatever_the_price():
    rates = []
    for seed in range(3):
        rng = np.random.RandomState(seed)
        frame = pd.DataFrame({"price": rng.normal(10, 1, 600), "item": rng.randint(9, size=600)})
        y = (rng.random_sample(600) < 0.3).astype(int)
        model = make_pipeline(HistorySequenceEncoder(), DINClassifier(random_state=seed))
        model.fit(frame, y)
        rates += model.predict_proba(frame[:9].assign(price=9_999.0))[:, 1].tolist()
    assert 0.1 < min(rates) <= max(rates) < 0.6


def told(n_times, n=300):
    """A model of a memory, told its n rows so many times as later ones; its rows, later still."""
    rng = np.random.RandomState(0)
    rows = pd.DataFrame({"user": rng.randint(9, size=n), "item": rng.randint(7, size=n)})
    rows["time"], y = np.arange(n), rng.randint(2, size=n)
    memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
    model = begin_with(memory, **QUICK).fit(rows, y)
    for time in range(1, n_times):
        model = remember(model, rows.assign(time=rows["time"] + n * time), y)
    return model, rows.assign(time=rows["time"] + n * n_times)


def test_counts_of_a_memory_that_grows_end_where_training_did_and_rates_move_on():
    seen = {}
    for n_times in (1, 9):
        model, rows = told(n_times)
        raw = model[0].transform(rows)
        seen[n_times] = read(model[1:], **raw)
        at_fit = model[-1].module_.options["ranges"]
        for name in ("user_count", "item_count", "user_item_count"):
            assert seen[n_times][name].max() == np.float32(at_fit[name][1])
    encoded = model[1].transform(raw)["item_count"]
    assert encoded.min() > seen[9]["item_count"].max()
    np.testing.assert_array_equal(seen[9]["user_rate"], model[1].transform(raw)["user_rate"])


@pytest.mark.parametrize(("n_rows", "is_read"), [(2_999, False), (3_000, True)])
def test_times_elapsed_of_a_memory_are_read_from_3000_rows_on(n_rows, is_read, tmp_path):
    model, rows = told(1, n_rows)
    save(model, tmp_path / "model.din")
    saved = load(tmp_path / "model.din")
    for each in (model, saved, update(saved, rows, np.arange(n_rows) % 2)):
        raw = each[0].transform(rows.assign(time=rows["time"] + n_rows))
        seen = read(each[1:], **raw)
        assert [seen[f"{key}_elapsed"].any() for key in ("user", "item")] == [is_read] * 2
        assert seen["user_count"].any()


@pytest.mark.parametrize(("n_far", "widens"), [(4, False), (5, True)])
def test_an_update_widens_by_what_five_of_its_rows_reach(n_far, widens):
    model = fit()
    later = pd.DataFrame({"price": np.append(np.sort(PRICES)[100:140], 60.0 + np.arange(n_far))})
    before = model[-1].module_.options["ranges"]["price"]
    newer = update(model, later, np.arange(len(later)) % 2)
    seen = [read(own, price=[50.0, 60.0, 9_999.0])["price"] for own in (model, newer)]
    assert [len(np.unique(own)) for own in seen] == [1, 3 if widens else 1]
    assert model[-1].module_.options["ranges"]["price"] == before
    low, high = newer[-1].module_.options["ranges"]["price"]
    assert (low == before[0], high > before[1]) == (True, widens)
    X = model[0].transform(later)
    net = model[-1].net_  # in place, with the network as it is
    net.partial_fit(X, np.arange(len(later)) % 2)
    assert net.module_.options["ranges"]["price"] == (low, high)


def test_the_first_partial_fit_finds_ranges_as_fit_does():
    X = HistorySequenceEncoder().fit_transform(pd.DataFrame({"price": PRICES}))
    y = np.arange(400) % 2
    fitted, first = (DINClassifier(**QUICK).fit(X, y), DINClassifier(**QUICK).partial_fit(X, y))
    assert first.module_.options["ranges"] == fitted.module_.options["ranges"]


@pytest.mark.parametrize("ranges", [
    *(None, [], {"age": (0.0, 1.0)}),
    *({"price": own} for own in ((1.0, 0.0), (0, 1), (0.0,), [0.0, 1.0], (0.0, np.inf), None)),
])  # fmt: skip
def test_ranges_of_a_file_that_are_none_are_refused(ranges):
    with pytest.raises(ValueError, match="ranges of numbers must have a start and an end"):
        check_bins({}, ranges, SCHEMA)
    check_bins({}, {"price": (0.0, 0.0), "hist_price": (0.0, 1.0)}, SCHEMA)


@pytest.fixture(scope="module")
def flights():
    """A model of prices and what came late, and rows; labels are coin flips."""
    rng, n = np.random.RandomState(0), 1_000
    rows = pd.DataFrame({"user": rng.randint(40, size=n), "item": rng.randint(30, size=n)})
    rows = rows.assign(time=np.arange(n), price=rng.rand(n), late=rng.normal(10, 3, size=n))
    names = {"user": "user", "time": "time", "columns": ["item", "price"], "elapsed": "ago"}
    told = {"events": "all", "known": "time", "outcomes": "late"}
    model = begin_with(HistoryBuilder(**names, **told), **QUICK)
    return model.fit(rows, (rng.rand(n) < 0.31).astype(int)), rows


def with_event(model, rows, **columns):
    """The model, told one event of each user."""
    event = rows.drop_duplicates("user").assign(**{"time": 1_001, **columns})
    return remember(model, event, np.zeros(len(event)))


@pytest.mark.parametrize("column", ["late", "price"])
def test_numbers_of_events_end_one_range_beyond_training(flights, column, tmp_path):
    model, rows = flights
    asked = rows[:60].assign(time=1_100)
    name = f"hist_{column}"
    low, high = model[-1].module_.options["ranges"][name]
    scale = model[1]._learnt.numbers[name].scale
    end = (2 * high - low) * scale.scale + scale.shift
    expected = with_event(model, rows, **{column: end}).predict_proba(asked)
    for value in (9_999.0, 1e6):
        told = with_event(model, rows, **{column: value})
        probability = told.predict_proba(asked)
        np.testing.assert_allclose(probability, expected, atol=1e-5)
        save(told, tmp_path / "model.din")
        export_onnx(told, tmp_path / "model.onnx")
        onnx = load_onnx(tmp_path / "model.onnx", memory=told[0])
        for other in (load(tmp_path / "model.din"), onnx):
            np.testing.assert_allclose(other.predict_proba(asked), probability, atol=1e-5)
        people, candidates = asked[["user", "time"]][:3], asked[["item", "price"]]
        candidates = candidates.drop_duplicates("item")
        kept = [rank_candidates(m, people, candidates, top_k=5) for m in (told, onnx)]
        np.testing.assert_allclose(*(k["probability"] for k in kept), atol=1e-5)
    inside = with_event(model, rows, **{column: (end + rows[column].max()) / 2})
    assert not np.allclose(inside.predict_proba(asked), expected, atol=1e-5)
    assert 0.1 < expected[:, 1].min() <= expected[:, 1].max() < 0.7


def test_an_update_widens_the_ends_of_events_numbers(flights):
    model, rows = flights
    later = rows[:300].assign(time=rows["time"][:300] + 2_000, late=40.0 + rows.index[:300] % 7)
    newer = update(model, later, np.arange(300) % 2)
    before, after = (own[-1].module_.options["ranges"] for own in (model, newer))
    assert after["hist_late"][1] > before["hist_late"][1] + 3
    asked, seen = rows[:60].assign(time=9_000), []
    for own in (model, newer):
        each = [with_event(own, rows, late=v, time=8_000).predict_proba(asked) for v in (40, 9e3)]
        seen.append(np.abs(each[0] - each[1]).max())
    assert seen[0] == 0 < seen[1]
