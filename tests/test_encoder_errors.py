"""What the encoder refuses, and the sentence it says."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_din.large.parquet_scan import scan_parquet
from sklearn_din.logs.history import attach_history
from sklearn_din.transformers import HistorySequenceEncoder
from tests.click_frames import as_lists, encoder, same, with_windows


def impressions():
    return pd.DataFrame(
        {
            "item": ["hat", "sock"],
            "category": [1, 2],
            "price": [1.5, 2.5],
            "hist_item": [["sock"], ["hat", "shoe"]],
            "hist_category": [[2], [1, 3]],
        }
    )


PAIRED = {"hist_item": "item"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"drop": ["itme"]}, r"X \(drop\) has no column 'itme'; did you mean 'item'\?"),
        ({"categorical": ["colour"]}, r"X \(categorical\) has no column 'colour'\. Its columns"),
        ({"numeric": ["prize"]}, r"X \(numeric\) has no column 'prize'; did you mean 'price'\?"),
        ({"histories": {"clicks": "item"}}, r"X \(histories\) has no column 'clicks'\. Its col"),
        ({"histories": {"hist_item": "thing"}}, r"X \(histories\) has no column 'thing'\. Its"),
        ({"histories": {("hist_item", "hist_category"): "item"}}, r"one candidate.* 'item' for \("),
        (
            {"histories": PAIRED | {("hist_item", "hist_category"): (None, None)}},
            "each history column once",
        ),
        ({"histories": {"price": None}}, r"one history per cell .* dtype float64\. Build hist"),
        ({"numeric": ["price"], "categorical": ["price"]}, r"\['price'\] among the categor"),
        ({"numeric": ["item"], "histories": PAIRED}, r"\['item'\] among the candidates and in n"),
        ({"drop": ["item"], "histories": PAIRED}, r"\['item'\] among the candidates and in drop\."),
        ({"numeric": ["item"]}, r"item must hold numbers, got dtype .* with 'hat'\. Convert"),
        ({"categorical": ["price"]}, r"price must hold ids, got floats with fractions .* 1\.5"),
        ({"drop": [*impressions()]}, "no column is left to encode: X needs a column of ids"),
        ({"histories": {"hist_item": "category"}}, r"holds integers and hist_item holds text"),
        ({"unknown": "ignore"}, r"The 'unknown' parameter .* among \{.*'(error|embed)'.*'ignore'"),
        ({"max_length": 0}, r"The 'max_length' parameter .* in the range \[1, inf\)\. Got 0"),
        ({"histories": "none"}, r"'auto' or a dict .* \{'hist_item': 'item'\}, got 'none'"),
    ],
)
def test_parameters_that_do_not_fit_the_frame(parameters, message):
    with pytest.raises(ValueError, match=message):
        HistorySequenceEncoder(**parameters).fit(impressions())


NO_ROWS = r"Found array with 0 sample\(s\) \(shape=\(0, 5\)\) while a minimum of 1"
BAD_FRAMES = [
    (lambda X: X.assign(hist_item_mask=1), r"\['hist_item_mask'\] would hide the masks"),
    (lambda X: X.set_axis(["item", *X.columns[:4]], axis=1), "distinct column names, got 'item'"),
    (lambda X: X.iloc[:0], NO_ROWS),
    (lambda X: X.assign(price=[1.0, np.inf]), r"X contains infinity in price\. Replace it by"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FRAMES)
def test_frames_that_nothing_can_be_learnt_from(change, message):
    with pytest.raises(ValueError, match=message):
        HistorySequenceEncoder().fit(change(impressions()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *BAD_FRAMES[2:],
        (lambda X: X.assign(hist_item=["hat", "sock"]), "must hold one history .*got text such as"),
        (lambda X: X.assign(item=X["hist_item"]), r"item must hold ids .* belongs in histories"),
    ],
)
def test_frames_that_cannot_be_encoded(change, message):
    fitted = HistorySequenceEncoder().fit(impressions())
    with pytest.raises(ValueError, match=message):
        fitted.transform(change(impressions()))


@pytest.mark.parametrize("histories", ["auto", {"hist_price": None}])
def test_numbers_of_events_without_their_ids(histories):
    frame = impressions().assign(hist_price=[[1.5], [2.5]])
    message = (
        r"hist_price holds one number per .* histories=\{\('hist_item', 'hist_price'\): \('item"
    )
    with pytest.raises(ValueError, match=message):
        HistorySequenceEncoder(histories=histories).fit(frame)


@pytest.mark.parametrize(
    "values", [[1, True, 2], [True, 1.0, "a"], [np.True_, None, 1], [0, False]]
)
def test_a_column_that_holds_true_and_1_is_refused_in_whatever_order(values):
    for some in (values, values[::-1]):
        ids = pd.DataFrame({"item": pd.Series(some, dtype=object)})
        log = pd.DataFrame({"user": 1, "time": range(len(some)), "item": ids["item"]})
        asked = pd.DataFrame({"user": [1, 1], "time": [8, 9], "item": ["a", "b"]})
        attached = attach_history(asked, log, user="user", time="time", columns=["item"])
        lists = pd.DataFrame({"item": ["a", "b"], "hist_item": [some, some]})
        message = r"item holds (True and 1|False and 0), which Python .* or all of them text"
        for frame in (ids, attached.drop(columns=["user", "time"]), lists):
            with pytest.raises(ValueError, match=message):
                HistorySequenceEncoder().fit(frame)
        with pytest.raises(ValueError, match=message):
            HistorySequenceEncoder().fit(ids.assign(item="a")).transform(ids)
    for apart in (ids["item"].map(str, na_action="ignore"), [True, None, 7][: len(ids)]):
        HistorySequenceEncoder().fit(pd.DataFrame({"item": apart}))


def test_a_column_that_is_missing_at_transform_is_named_beside_those_that_are_new():
    frame = impressions()
    fitted = HistorySequenceEncoder(drop=["category"]).fit(frame)
    with pytest.raises(ValueError, match=r"seen at fit time, yet now missing:\n- hist_item"):
        fitted.transform(frame.drop(columns="hist_item"))
    message = r"(?s)unseen at fit time:\n- hist_thing\n.* yet now missing:\n- hist_item"
    with pytest.raises(ValueError, match=message):
        fitted.transform(frame.rename(columns={"hist_item": "hist_thing"}))


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "scan"])
def test_moved_and_further_columns_are_taken_by_name(kind, tmp_path):
    frame = as_lists(with_windows())
    fitted = encoder(user="user", drop=["time"]).fit(frame)
    expected = fitted.transform(frame)
    moved = frame[frame.columns[::-1]].assign(colour="red", hist_colour=[["red"]] * len(frame))
    names = list(moved.columns)
    if kind == "scan":
        moved.to_parquet(tmp_path / "moved.parquet")
        moved = scan_parquet(tmp_path)
    elif kind != "pandas":
        moved = pa.Table.from_pandas(moved) if kind == "arrow" else pl.from_pandas(moved)
    found = fitted.transform(moved)
    same(found, expected)
    assert found.users.tolist() == expected.users.tolist()
    of_fit = frame[frame.columns[::-1]]
    same(fitted.partial_fit(of_fit).transform(frame), expected)
    assert not isinstance(moved, pd.DataFrame) or list(moved.columns) == names


@pytest.mark.parametrize("n_rows", [4, 8])
def test_events_that_are_lists_of_numbers_whatever_share_of_the_log_is_encoded(n_rows):
    log = pd.DataFrame({"user": [1, 2] * 4, "time": range(8), "item": list("abcdabcd")})
    log["tags"] = [[0.5, 2.0], [0.5], [1.5], [2.5]] * 2
    shown = attach_history(log, log, user="user", time="time", columns=["item", "tags"])
    encoder = HistorySequenceEncoder(drop=["user", "time", "tags"])
    with pytest.raises(ValueError, match="hist_tags holds a list of numbers for each"):
        encoder.fit(shown.iloc[:n_rows])


def test_encoded_rows_and_unfitted_use():
    message = "This HistorySequenceEncoder instance is not fitted yet"
    X = HistorySequenceEncoder().fit_transform(impressions())
    with pytest.raises(TypeError, match="X is encoded already"):
        HistorySequenceEncoder().fit(X)
    for use in (
        lambda encoder: encoder.transform(impressions()),
        lambda encoder: encoder.get_feature_names_out(),
        lambda encoder: encoder.inverse_transform_ids("item", [2]),
    ):
        with pytest.raises(NotFittedError, match=message):
            use(HistorySequenceEncoder())
