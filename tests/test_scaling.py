"""Numbers: columns, and those that go with a history's events."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_din import HistorySequenceEncoder, attach_history, scan_parquet
from sklearn_din.encoding.scaling import EventScale, MeanAndSpread
from tests.click_frames import encoder, with_windows
from tests.fitted_pipelines import make_model


def test_numbers_are_standardised_and_missing_ones_indicated_where_the_name_is_free():
    frame = pd.DataFrame({"price": [1.0, 3.0, np.nan], "size": [2.0, 2.0, 2.0]})
    X = HistorySequenceEncoder().fit_transform(frame)
    assert X.keys() == ["price", "price_missing", "size"]
    assert X["price"].dtype == np.float32
    assert X["price"].tolist() == [-1.0, 1.0, 0.0]
    assert X["price_missing"].tolist() == [0.0, 0.0, 1.0]
    assert X["size"].tolist() == [0.0, 0.0, 0.0]
    nothing = pd.DataFrame({"price": [np.nan, np.nan], "price_missing": [True, False]})
    X = HistorySequenceEncoder().fit_transform(nothing)
    assert X.keys() == ["price", "price_missing"]  # which stays the column of that name
    assert X["price"].tolist() == [0.0, 0.0]
    assert X["price_missing"].dtype == np.int32
    for constant in (0.0, 7.0, 0.1, 1e38):  # is not scaled
        X = HistorySequenceEncoder().fit_transform(pd.DataFrame({"price": [constant] * 1000}))
        assert (X["price"] == 0).all()


@pytest.mark.parametrize("n_parts", [1, 3])
def test_numbers_that_are_compared_have_one_scale_of_all_rows_and_their_events(n_parts, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"item": rng.integers(9, size=60), "price": rng.normal(40, 3, 60)})
    lengths = rng.integers(0, 5, 60)
    frame["hist_item"] = [rng.integers(9, size=n).tolist() for n in lengths]
    frame["hist_price"] = [[*rng.normal(20, 9, n), None][-n:] if n else [] for n in lengths]
    frame["hist_cost"] = frame["hist_price"]
    frame.loc[::7, "price"] = None
    table = frame
    if n_parts > 1:
        frame.to_parquet(tmp_path / "rows.parquet", row_group_size=20)
        table = scan_parquet(tmp_path / "rows.parquet")
    encoder = HistorySequenceEncoder()
    X = encoder.fit_transform(table)
    past = np.array([n for cell in frame["hist_price"] for n in cell], dtype=float)
    both = np.array([*frame["price"].dropna(), *past[~np.isnan(past)]])
    for name in ("price", "hist_price"):
        scale = encoder.scales_[name]
        assert (scale.shift, scale.scale) == pytest.approx((both.mean(), both.std()))
    assert encoder.scales_["hist_cost"].shift == pytest.approx(np.nanmean(past))
    expected = (past - both.mean()) / both.std()
    np.testing.assert_allclose(X["hist_price"][X["hist_item_mask"]], expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(X["hist_cost"]).all()
    np.testing.assert_array_equal(X["price_missing"], frame["price"].isna())


@pytest.mark.parametrize("column", ["price", "hist_price"])
def test_numbers_that_fill_gaps_of_others_leave_predictions_finite(column):
    frame = with_windows(columns=["item", "price"])
    model = make_model(encoder(), max_epochs=1).fit(frame, np.arange(len(frame)) % 2)
    for lowest in (-1e20, float(np.finfo(np.float32).min)):  # what rasters hold for no data
        filled = [lowest] * len(frame)
        if column != "price":
            filled = [np.full(len(cell), lowest) for cell in frame["hist_price"]]
        assert np.isfinite(model.predict_proba(frame.assign(**{column: filled}))).all()


def test_times_elapsed_are_scaled_logs_of_row_time_minus_time():
    frame = with_windows(elapsed="hist_elapsed")
    elapsed = [np.asarray(cell) for cell in frame["hist_elapsed"]]
    scale = 2.0 ** np.round(np.log2(np.median(np.concatenate(elapsed))))
    X = encoder().fit_transform(frame)
    mask = X["hist_elapsed_mask"]
    for row, cell in enumerate(elapsed):
        expected = np.log1p(cell / scale)
        np.testing.assert_allclose(X["hist_elapsed"][row][mask[row]], expected, rtol=1e-6)
    assert X["hist_elapsed"].dtype == np.float32


DURATIONS = {
    "ns": lambda column: column.astype("timedelta64[ns]"),
    "s": lambda column: column.astype("timedelta64[s]"),
    "objects": lambda column: column.astype(object).where(column.notna(), None),
    "objects of numpy": lambda column: pd.Series(list(column.to_numpy()), dtype=object),
    "nanosecond objects of numpy": lambda column: pd.Series(
        list(column.to_numpy().astype("timedelta64[ns]")), dtype=object
    ),
    "arrow": lambda column: column.convert_dtypes(dtype_backend="pyarrow"),
}


@pytest.mark.parametrize(("how", "as_form"), [
    *((how, "frame") for how in DURATIONS), ("ns", "polars"), ("ns", "Arrow"), ("ns", "scan"),
], indirect=["as_form"])  # fmt: skip
def test_durations_are_numbers_of_seconds_also_in_histories(how, as_form):
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"user": np.arange(200) % 9, "item": rng.integers(0, 20, 200)})
    log = log.assign(time=np.arange(200), dwell=rng.integers(1, 900, 200).astype(float))
    log.loc[::7, "dwell"] = np.nan
    of_numbers = log.assign(dwell=log["dwell"] + 0.25)  # no whole numbers, which are ids
    of_durations = log.assign(dwell=pd.to_timedelta(log["dwell"], unit="s"))
    columns = {"user": "user", "time": "time", "columns": ["item", "dwell"]}
    fitted = HistorySequenceEncoder(user="user", time="time")
    expected = fitted.fit_transform(attach_history(of_numbers, of_numbers, **columns))
    table = as_form(of_durations.assign(dwell=DURATIONS[how](of_durations["dwell"])))
    X = fitted.fit_transform(attach_history(table, table, **columns))
    assert fitted.schema_["dwell"].kind == "numeric"
    assert fitted.schema_["hist_dwell"].kind == "numeric_history"
    assert fitted.schema_.behaviours == expected.schema.behaviours
    for name in expected:
        np.testing.assert_allclose(X[name], expected[name], atol=1e-5, err_msg=name)


PRICES = np.random.default_rng(0).lognormal(3, 0.6, 4500).round(2)
MOSTLY_ZERO = np.where(np.arange(4500) % 10, 0.0, PRICES)


@pytest.mark.parametrize(("prices", "in_histories", "as_form"), [
    (PRICES, False, "frame"), (PRICES, True, "scan"), (-PRICES, True, "frame"),
    (-PRICES, False, "scan"), (MOSTLY_ZERO, True, "frame"), (MOSTLY_ZERO, False, "scan"),
], indirect=["as_form"])  # fmt: skip
@pytest.mark.slow
def test_one_number_far_off_leaves_the_others_apart_and_is_said(prices, in_histories, as_form):
    def encode(prices, name="price"):
        columns = {name: prices, "item": np.arange(4500) % 7}
        if in_histories:
            ids = list(np.arange(4500)[:, None] % 7)
            columns = {"hist_item": ids, name: list(prices[:, None]), "item": columns["item"]}
        frame = as_form(pd.DataFrame(columns))
        return HistorySequenceEncoder().fit_transform(frame)[name].ravel()

    others = np.arange(4500) != 7
    with pytest.warns(UserWarning, match="some numbers of price are so extreme .* np.log1p"):
        encoded = encode(np.where(others, prices, 1e9))
    clean = encode(np.where(others, prices, np.nan))  # the advice: nothing is said
    assert encoded[others].std() > 0.2
    assert encoded[7] == encoded.max() < 30
    order = np.argsort(prices[others], kind="stable")
    assert (np.diff(encoded[others][order]) >= 0).all()
    assert np.corrcoef(encoded[others], clean[others])[0, 1] > 0.95


def test_numbers_far_off_grow_by_their_logarithm_as_by_a_plain_loop():
    scale = EventScale(3.0, 2.0, has_outliers=True)
    numbers = [3.0, 5.5, 13.0, 13.5, 1e3, 1e9, -7.0, -8.0, -1e6, 1e300]
    expected = []
    for number in numbers:
        z = (number - 3.0) / 2.0
        far = 5 + math.log(1 + abs(z) - 5) if abs(z) > 5 else abs(z)
        expected.append(math.copysign(far, z))
    encoded = scale.encode(np.array(numbers))
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)
    assert (np.diff(encoded[np.argsort(numbers)]) > 0).all()


# The law of parts: what is learnt does not depend on where the parts of a table begin

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), max_size=30)


@given(st.lists(NUMBERS, min_size=1, max_size=5), st.sampled_from([0.0, 1.7e9]))
def test_moments_of_parts_are_those_of_all_numbers(parts, offset):
    parts = [np.array(part, dtype=np.float64) + offset for part in parts]
    moments, whole = MeanAndSpread(), MeanAndSpread()
    for part in parts:
        moments.update(part)
    together = np.concatenate(parts)
    whole.update(together)
    spread = max(np.sqrt(whole.variance), 1e-9)
    assert moments.weight == np.isfinite(together).sum()
    np.testing.assert_allclose(moments.center, whole.center, rtol=1e-12, atol=1e-12 * spread)
    np.testing.assert_allclose(np.sqrt(moments.variance), spread, rtol=1e-12, atol=1e-9)
