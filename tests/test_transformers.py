"""An encoder gives the ids of the obvious loop, whatever the kind, order and number of rows."""

import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_din import EncodedFeatures, HistorySequenceEncoder
from sklearn_din.encoding import histories
from sklearn_din.encoding.item_columns import ItemColumns
from sklearn_din.utils.warnings import log_once
from tests.click_frames import as_lists, encoder, same, with_windows


def slow_ids(train, frame, *, max_length, min_frequency=1, max_ids=None):
    """Ids of item and hist_item by counting one Python value after the other."""
    counts = Counter(train["item"].tolist())
    for cell in train["hist_item"]:
        counts.update(list(cell)[-max_length:])
    often = [value for value, count in counts.items() if count >= min_frequency]
    kept = sorted(sorted(often, key=lambda value: (-counts[value], value))[:max_ids])
    ids = {value: position + 2 for position, value in enumerate(kept)}
    histories = [[ids.get(v, 1) for v in list(cell)[-max_length:]] for cell in frame["hist_item"]]
    return [ids.get(value, 1) for value in frame["item"]], histories


@pytest.mark.parametrize("layout", ["windows", "lists"])
@pytest.mark.parametrize("parameters", [
    {"max_length": 50},
    {"max_length": 3},
    {"max_length": 3, "min_frequency": 6},
    {"max_length": 4, "max_ids": 5},
])  # fmt: skip
def test_ids_are_those_of_the_obvious_loop(layout, parameters):
    frame = with_windows()
    frame = frame if layout == "windows" else as_lists(frame)
    train, test = frame.iloc[:40], frame.iloc[40:]
    fitted = encoder(**parameters).fit(train)
    for rows in (train, test):
        X = fitted.transform(rows)
        candidates, histories = slow_ids(train, rows, **parameters)
        assert X["item"].tolist() == candidates
        mask = X["hist_item_mask"]
        assert [r[m].tolist() for r, m in zip(X["hist_item"], mask, strict=True)] == histories


def test_fit_transform_reads_once_equals_fit_then_transform_and_windows_share_the_log(monkeypatch):
    frame = with_windows(n_events=200, n_users=2, elapsed="hist_elapsed")
    expected = encoder().fit(frame).transform(frame)
    calls, read = [], histories.keep_newest
    monkeypatch.setattr(histories, "keep_newest", lambda *a: calls.append(1) or read(*a))
    X = encoder().fit_transform(frame)
    same(X, expected)
    assert len(calls) == 1
    (clicks,) = X.behaviours.values()
    assert len(clicks.columns["hist_item"]) <= len(frame) < clicks.spans.lengths.sum()
    assert clicks.columns["hist_item"].dtype == np.int32


def test_unknown_and_missing_are_one_and_never_padding():
    train = pd.DataFrame({"item": ["a", "b"], "hist_item": [["a"], ["c"]]})
    test = pd.DataFrame({"item": ["z", None, "c"], "hist_item": [["z", None, "a"], None, []]})
    X = HistorySequenceEncoder().fit(train).transform(test)
    assert X["item"].tolist() == [1, 1, 4]
    assert X["hist_item"].tolist() == [[1, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert X["hist_item_mask"].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_rows_encode_alike_alone_together_in_any_order_and_by_copies_that_hold_no_rows():
    frame = with_windows(elapsed="hist_elapsed")
    fitted = encoder().fit(frame)
    X = fitted.transform(frame)
    order = np.random.default_rng(0).permutation(len(frame))
    same(fitted.transform(frame.iloc[order]), X[order])
    same(fitted.transform(frame.iloc[[7]]), X[7:8])
    assert encoder().fit(frame.iloc[order]).schema_ == fitted.schema_
    small, large = with_windows(n_events=60), with_windows(n_events=6000)
    fitted = encoder().fit(small)
    same(pickle.loads(pickle.dumps(fitted)).transform(small), fitted.transform(small))
    same(clone(fitted).fit_transform(small), fitted.transform(small))
    assert len(pickle.dumps(encoder().fit(large))) < len(pickle.dumps(fitted)) + 1000


def test_feature_names_are_those_of_the_matrix_and_output_stays_encoded():
    fitted = encoder(max_length=2).fit(with_windows(columns=["item"]))
    names = fitted.get_feature_names_out()
    assert names.tolist() == ["item", "category", "price", "hist_item_0", "hist_item_1"]
    X = fitted.transform(with_windows(columns=["item"]))
    assert X.to_numpy().shape == X.shape == (60, 5)
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        fitted.get_feature_names_out(["a"] * fitted.n_features_in_)
    frame = with_windows()
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(encoder().fit_transform(frame), EncodedFeatures)
    pipeline = make_pipeline(encoder()).set_output(transform="pandas")
    assert isinstance(pipeline.fit_transform(frame), EncodedFeatures)


def test_a_frame_that_is_asked_for_is_refused_in_one_line_of_the_log(caplog):
    log_once.cache_clear()
    for _ in range(2):
        encoder().set_output(transform="polars")
        encoder().set_output(transform=None)
    (message,) = caplog.messages
    assert "set_output(transform='polars') changes nothing: it returns EncodedFeatures" in message


def test_empty_histories_warn_at_fit_and_pass_at_predict():
    frame = as_lists(with_windows(columns=["item"]))
    empty = frame.assign(hist_item=[[]] * 30 + [None] * 30)
    with pytest.warns(UserWarning, match="every history of hist_item is empty at fit"):
        X = encoder().fit_transform(empty)
    assert X["hist_item"].shape == (60, 0)
    assert not encoder().fit(frame).transform(empty)["hist_item_mask"].any()


class Forbidden:
    """Labels that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"{name} of y was asked for")


@pytest.mark.parametrize("method", ["fit_transform", "fit", "partial_fit"])
def test_labels_are_never_looked_at(method):
    frame = with_windows(n_events=80)
    expected = encoder().fit(frame).transform(frame)
    for y in (Forbidden(), np.ones((80, 1)), [None], np.arange(3)):
        made = getattr(encoder(), method)(frame, y)
        same(made if method == "fit_transform" else made.transform(frame), expected)


def test_plain_arrays_are_numeric_throughout_and_columns_without_names_taken_by_position():
    array = np.array([[1, 10], [3, 20]])
    X = HistorySequenceEncoder().fit_transform(array)
    assert X.keys() == ["x0", "x1"]
    assert X.schema.names("numeric") == ["x0", "x1"]
    assert X["x0"].tolist() == [-1.0, 1.0]
    frame = pd.DataFrame({"price": [1.0, 3.0], "item": ["a", "b"]})
    fitted = HistorySequenceEncoder().fit(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        X = fitted.transform(frame.to_numpy())
    same(X, fitted.transform(frame))
    frame = pd.DataFrame(np.array([[1.0, 2.0], [3.0, 4.0]]))
    fitted = HistorySequenceEncoder().fit(frame)
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.transform(frame).keys() == ["x0", "x1"]
    with pytest.warns(UserWarning, match="X has feature names, but"):
        named = fitted.transform(frame.set_axis(["a", "b"], axis=1))
    assert named["x1"].tolist() == [-1.0, 1.0]


def test_moved_and_further_columns_are_taken_by_name(as_form):
    frame = as_lists(with_windows())
    fitted = encoder(user="user", drop=["time"]).fit(frame)
    expected = fitted.transform(frame)
    moved = frame[frame.columns[::-1]].assign(colour="red", hist_colour=[["red"]] * len(frame))
    names = list(moved.columns)
    found = fitted.transform(as_form(moved))
    same(found, expected)
    assert found.user_keys.hashes.tolist() == expected.user_keys.hashes.tolist()
    of_fit = frame[frame.columns[::-1]]
    same(fitted.partial_fit(of_fit).transform(frame), expected)
    assert list(moved.columns) == names


def test_the_columns_that_follow_from_the_item_are_those_that_one_group_at_a_time_has():
    rng = np.random.default_rng(0)
    item = rng.integers(-1, 60, 800)
    columns = {"item": item, "kind": item % 7, "shop": rng.integers(-1, 3, 800)}
    columns["kind"][item % 30 == 4] = rng.integers(0, 7, (item % 30 == 4).sum())  # 2 of 60
    codes = {name: (values, np.arange(60)) for name, values in columns.items()}
    counted = ItemColumns(["item", "kind", "shop"])
    counted.update(codes)
    table = pd.DataFrame(columns)
    for (owner, other), (n_repeated, n_same) in counted._counts.items():
        groups = [group[other] for n, group in table.groupby(owner) if n >= 0 and len(group) > 1]
        assert n_repeated == len(groups)
        assert n_same == sum(group.nunique() == 1 for group in groups)
    assert counted.finish({"item": 60, "kind": 7, "shop": 3}) == ("item", ())
    codes["kind"] = item % 7, np.arange(60)
    exact = ItemColumns(["item", "kind", "shop"])
    exact.update(codes)
    assert exact.finish({"item": 60, "kind": 7, "shop": 3}) == ("item", ("kind",))
