"""Every plain mistake: the call, by public names, and the sentence that answers it."""

import datetime as dt
import inspect
import re
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping

from sklearn_din import (
    DIN,
    AttentionDisplay,
    DINClassifier,
    DINRegressor,
    EncodedFeatures,
    Field,
    HistoryBuilder,
    HistorySequenceEncoder,
    Schema,
    TimeSplit,
    attach_aggregates,
    attach_history,
    explain,
    history_importance,
    rank_candidates,
    sample_negatives,
    scan_parquet,
)
from sklearn_din.datasets import fetch_movielens, make_click_log
from sklearn_din.metrics import (
    correct_for_sampling,
    group_hit_rate_score,
    group_mrr_score,
    group_ndcg_score,
    group_recall_score,
    group_roc_auc_score,
    group_roc_auc_scorer,
    relative_improvement,
)
from sklearn_din.module import OPTIONS
from sklearn_din.training.early_stopping import CHECK
from tests.encoded_impressions import make_impressions, make_schema
from tests.fitted_pipelines import CANDIDATE, edit_state, fit_pipeline, make_frame, quick
from tests.tables import as_scan
from tests.test_history import CLICKS, attach
from tests.test_history import SHOWN as ROWS
from tests.test_negatives import EVENTS

CALLS = []


def refuses(*rows):
    """Note the rows of a function that makes a call: what it is given, the sentence, the error.

    Given is a dict of keywords, a tuple of positions, or one value. The error is a ValueError where
    none is named. A function of ``scan`` gets what makes a scan of a frame; one of ``ours`` and
    ``theirs`` is called for frames and for scans.
    """

    def note(call):
        for number, (given, sentence, *error) in enumerate(rows):
            row = (call, given, sentence, *(error or [ValueError]))
            CALLS.append(pytest.param(*row, id=f"{call.__name__}-{number}"))
        return call

    return note


def exactly(sentence):
    """The whole sentence, to the letter."""
    return f"^{re.escape(sentence)}$"


# The encoder ----------------------------------------------------------------------------------

SHOWN = pd.DataFrame({
    "item": ["hat", "sock"],
    "category": [1, 2],
    "price": [1.5, 2.5],
    "hist_item": [["sock"], ["hat", "shoe"]],
    "hist_category": [[2], [1, 3]],
})  # fmt: skip
PAIRED = {"hist_item": "item"}
WITHOUT_CANDIDATE = (
    "histories must be 'auto' or a dict of history and candidate columns, such as {'hist_item': "
    "'item'}, got "
)
NO_ROWS = r"Found array with 0 sample\(s\) \(shape=\(0, 5\)\) while a minimum of 1"
WITH_VECTORS = SHOWN.assign(vector=[[0.5, 1.5], [2.5, 1.0]])
INFINITE = SHOWN.assign(price=[1.0, np.inf]), r"X contains infinity in price\. Replace it by"
NO_FRAME = (
    "X must be a DataFrame with one row per impression, got {}. Use pd.DataFrame(X); for one "
    "impression pd.DataFrame([record]); for a file pd.read_csv(path)."
)
NO_FRAMES = [
    (({"item": ["hat"]},), exactly(NO_FRAME.format("dict")), TypeError),
    (([{"item": "hat"}],), exactly(NO_FRAME.format("list of dicts")), TypeError),
    (("clicks.csv",), exactly(NO_FRAME.format("str")), TypeError),
    ((None,), exactly(NO_FRAME.format("None")), TypeError),
]


def unordered(cells, kind):
    """Return a row for histories that have no order, under each way to name histories."""
    X = SHOWN.assign(hist_item=pd.Series(cells, dtype=object))
    sentence = f"hist_item has cells of type {kind}: a history cell is a list, oldest to newest."
    return [({"X": X, "histories": histories}, exactly(sentence)) for histories in ("auto", PAIRED)]


@refuses(
    ({"drop": ["itme"]}, r"X \(drop\) has no column 'itme'; did you mean 'item'\?"),
    ({"numeric": ["prize"]}, r"X \(numeric\) has no column 'prize'; did you mean 'price'\?"),
    ({"histories": {"clicks": "item"}}, r"X \(histories\) has no column 'clicks'\. Its col"),
    ({"histories": {("hist_item", "hist_category"): "item"}}, r"one candidate.* 'item' for \("),
    ({"histories": PAIRED | {("hist_item", "hist_category"): (None, None)}}, "column once"),
    ({"histories": {"price": None}}, r"one history per cell .* dtype float64\. Build hist"),
    ({"numeric": ["price"], "categorical": ["price"]}, r"\['price'\] among the categor"),
    ({"numeric": ["item"], "histories": PAIRED}, r"\['item'\] among the candidates and in n"),
    ({"drop": ["item"], "histories": PAIRED}, r"\['item'\] among the candidates and in drop\."),
    ({"numeric": ["item"]}, r"item must hold numbers, got dtype .* with 'hat'\. Convert"),
    ({"categorical": ["price"]}, r"price must hold ids, got floats with fractions .* 1\.5"),
    ({"drop": [*SHOWN]}, "no column is left to encode: X needs a column of ids"),
    ({"histories": {"hist_item": "category"}}, r"holds integers and hist_item holds text"),
    ({"max_length": 0}, r"The 'max_length' parameter .* in the range \[1, inf\)\. Got 0"),
    ({"histories": "hist_item"}, exactly(f"{WITHOUT_CANDIDATE}'hist_item'.")),
    ({"histories": ["hist_item"]}, exactly(f"{WITHOUT_CANDIDATE}['hist_item'].")),
    ({"separator": ""}, exactly("separator must be text of at least one character, got ''.")),
    *NO_FRAMES,
    (SHOWN.assign(hist_item_mask=1), r"\['hist_item_mask'\] would hide the masks"),
    (SHOWN.set_axis(["item", *[*SHOWN][:4]], axis=1), "distinct column names, got 'item'"),
    (SHOWN[:0], NO_ROWS),
    INFINITE,
    *(({"X": SHOWN.assign(hist_price=[[1.5], [2.5]]), "histories": histories},
       r"hist_price holds one number per .* histories=\{\('hist_item', 'hist_price'\): \('it")
      for histories in ("auto", {"hist_price": None})),
    *unordered([{"a": 1}, {"b": 2}], "dict"),
    *unordered([["hat"], {"tie"}], "set"),
    (SHOWN.assign(item=True, hist_item=[[1], [1, 0]]), "hist_item holds integers and item holds b"),
    ({"X": SHOWN.assign(at="2024-01-01"), "time": "at"},
     r"X\['at'\] must hold integers, floats or datetimes", TypeError),
    ({"X": SHOWN.assign(at=np.nan), "time": "at"}, r"X\['at'\] must not have missing times, got 2"),
    ({"X": SHOWN, "user": "itm"}, r"X \(user, time and position\) has no column 'itm'; did"),
    (HistorySequenceEncoder().fit_transform(SHOWN), "X is encoded already", TypeError),
    (pl.from_pandas(SHOWN).lazy(), r"^X must be a frame in memory.* Call .collect\(\)", TypeError),
    (WITH_VECTORS, r"vector holds 2 numbers in every row, as vectors of .*vectors=\{'item': X\["),
    ({"X": SHOWN.add_prefix("rest__"), "user": "item"},
     r"no column 'item'; did you mean 'rest__item'\? ColumnTransformer\(verb"),
    ({"X": SHOWN.add_prefix("rest__"), "numeric": ["rest__prize"]},
     r"did you mean 'rest__price'\? Its columns"),
)  # fmt: skip
def fit_an_encoder(X=SHOWN, **parameters):
    HistorySequenceEncoder(**parameters).fit(X)


@refuses(
    *NO_FRAMES,
    (SHOWN[:0], NO_ROWS),
    INFINITE,
    (SHOWN.assign(hist_item=["hat", "sock"]), "must hold one history .*got text such as"),
    (SHOWN.assign(item=SHOWN["hist_item"]), r"item must hold ids .* belongs in histories"),
    (SHOWN.drop(columns="hist_item"), r"seen at fit time, yet now missing:\n- hist_item"),
    (SHOWN.rename(columns={"hist_item": "hist_thing"}),
     r"(?s)unseen at fit time:\n- hist_thing\n.* yet now missing:\n- hist_item"),
    (SHOWN.assign(price=pd.Timestamp("2024-01-01")), r"price must hold numbers, got dates"),
    (SHOWN.assign(price="dear"), "price must hold numbers, got dtype"),
    (SHOWN.assign(price=1e300), r"Input X contains a value too large for float32 in price, 1e\+3"),
    *((SHOWN.assign(item=values), r"item must hold ids .*'a'.*\. Give each part of such a ")
      for values in (
          pd.Series([{"a": 1}, {"a": 2}]),
          pd.Series([{"a": 1}] * 2, dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
      )),
    (SHOWN.assign(category=0.5), "category must hold ids, got floats with fractions"),
    (SHOWN.assign(category=np.inf), r"category must hold ids, got floats .* such as .*inf"),
    (SHOWN.assign(item=["hat", 2.5]), r"item must hold ids, got floats .* such as .*2\.5"),
    (SHOWN.iloc[0], exactly("X must be a DataFrame, got a Series. For one row use X.iloc[[i]]."),
     TypeError),
)  # fmt: skip
def transform_by_an_encoder(X):
    HistorySequenceEncoder().fit(SHOWN).transform(X)


@refuses(
    (([1, 2], ["hat"]), "item was learnt as integers and now holds text: they could"),
    ((["hat"], [3]), "item was learnt as text and now holds integers: they could"),
    (([True], [7]), "item was learnt as booleans and now holds integers: they could"),
)
def grow_an_encoder(known, new):
    encoder = HistorySequenceEncoder(categorical=["item"]).fit(pd.DataFrame({"item": known}))
    encoder.partial_fit(pd.DataFrame({"item": pd.Series(new, dtype=object)}))


@refuses(
    ({"genres": "a,b"}, "which it is compared with and holds ids: of text,"),
    ({"genres": [[0.5], [1.5]]}, "such as 0.5, and lists must hold ids"),
)
def fit_lists(**columns):
    lists = {"genres": [["a"], ["b"]], "hist_genres": [[["a"]], [["b"], ["a"]]]}
    encoder = HistorySequenceEncoder(histories={"hist_genres": "genres"})
    encoder.fit(pd.DataFrame(lists | columns))


def test_vectors_are_given_as_the_error_says():
    vectors = {"item": WITH_VECTORS[["item", "vector"]].drop_duplicates("item")}
    encoder = HistorySequenceEncoder(drop=["vector"], vectors=vectors).fit(WITH_VECTORS)
    assert encoder.schema_.vector_sizes == {"item": 2}


@refuses(({}, "the column of users must hold one key per row", TypeError))
def fit_users_that_are_lists(*, ours):
    HistorySequenceEncoder(user="category").fit(ours(SHOWN.assign(category=[[1], [2, 3]])))


CELL = r"(?s)clicks must hold one history per cell .* got .*{}.* attach_history"


@refuses(
    ([1, 2], CELL.format("dtype int64")),
    (pd.Series(["a|b"] * 2, dtype=object), CELL.format("'a.b', and separator is None")),
    (["a|b", "c"], CELL.format("text such as 'a.b', and separator is None")),
    ([[1], 2], CELL.format(r"2 \(int\) in row 1")),
    ([[1], "ab"], CELL.format(r"'ab' \(str\) in row 1")),
)
def name_as_a_history(cells):
    HistorySequenceEncoder(histories={"clicks": None}).fit(pd.DataFrame({"clicks": cells}))


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


@pytest.mark.parametrize("n_rows", [4, 8])
def test_events_that_are_lists_of_numbers_whatever_share_of_the_log_is_encoded(n_rows):
    log = pd.DataFrame({"user": [1, 2] * 4, "time": range(8), "item": list("abcdabcd")})
    log["tags"] = [[0.5, 2.0], [0.5], [1.5], [2.5]] * 2
    shown = attach_history(log, log, user="user", time="time", columns=["item", "tags"])
    encoder = HistorySequenceEncoder(drop=["user", "time", "tags"])
    with pytest.raises(ValueError, match="hist_tags holds a list of numbers for each"):
        encoder.fit(shown.iloc[:n_rows])


# Histories, aggregates and negatives of a log ---------------------------------------------------

DATED = CLICKS.assign(time=pd.to_datetime(CLICKS["time"], unit="D"))
ONE_NAME = [
    ({"user": ["user"]}, exactly("user must be one column name, got ['user']."), TypeError),
    ({"time": ["time"]}, exactly("time must be one column name, got ['time']."), TypeError),
]


DOUBLE = "double[pyarrow]"  # of it NaN is no missing value to pandas
NO_TIMES = CLICKS.assign(time=["1", "2", "3", "4"])
KEYED = CLICKS.assign(user=[[1], {"a": 1}, {1}, None])
AGE = "max_age must be (positive|a duration such as '30D' .*), got '?"


@refuses(
    ((CLICKS.to_dict(), CLICKS), "impressions must be a pandas, polars or Arrow frame, got dict. "
     "What takes frames stands before the encoder .*; wrap an array or a dict in", TypeError),
    ((CLICKS, CLICKS.to_numpy()), "events must be a pandas, polars or Arrow frame, got nd",
     TypeError),
    ((CLICKS, pl.from_pandas(CLICKS).lazy()), r"^events must be a frame in memory, got the lazy "
     r"polars LazyFrame. Call .collect\(\)", TypeError),
    ((CLICKS[["user", "user", "time"]], CLICKS),
     "impressions must have distinct column names, got 'user' more than once"),
    ((CLICKS.drop(columns="time"), CLICKS), "impressions has no column 'time'"),
    ((CLICKS, NO_TIMES), r"events\['time'\] must hold integers, floats or datetimes, got dtype "
     r".*pd.to_datetime", TypeError),
    ((pl.from_pandas(NO_TIMES), CLICKS),
     r"impressions\['time'\] must hold .*in polars with \.str\.to_datetime\(\)", TypeError),
    ((CLICKS.set_index("user"), CLICKS),
     r"impressions has no column 'user'; it is the index: use reset_index\(\). Its columns"),
    *(((KEYED, events), rf"{frame}\['user'\] must hold one key per row", TypeError)
      for events, frame in ((KEYED, "events"), (CLICKS.assign(user=1), "impressions"))),
    ((CLICKS, CLICKS.assign(time=True)), "integers, floats or datetimes, got dtype bool",
     TypeError),
    ((CLICKS, CLICKS.assign(time=[1, 2, 3, np.inf])), "must be finite"),
    ((DATED.assign(time=DATED["time"].dt.tz_localize("UTC")), DATED),
     "datetimes without a zone, as events, got datetimes with a zone", TypeError),
    *(((DATED, DATED, max_age), AGE + re.escape(str(max_age)), (ValueError, TypeError))
      for max_age in ["30 moons", "30", [1], 30, "-1D"]),
)  # fmt: skip
def attach_frames(impressions, events, max_age=None):
    attach(impressions, events, max_age=max_age)


@refuses(
    ({"user": "usr"}, "events has no column 'usr'; did you mean 'user'"),
    ({"user": None}, "events has no column None. Its columns are"),
    ({"time": "item"}, r"events\['item'\] must hold integers, floats or datetimes", TypeError),
    ({"columns": ["itm"]}, "events has no column 'itm'; did you mean 'item'"),
    ({"columns": []}, "columns must name at least one event column, got none"),
    ({"columns": 3}, "columns must be a column name or a list of names, got int", TypeError),
    ({"columns": ["item", "item"]}, "columns must name each column once"),
    ({"elapsed": "hist_item"}, "the new columns must have distinct names"),
    *ONE_NAME,
    ({"prefix": ""}, r"impressions already has columns \['item'\]. Drop them, or"),
    ({"max_length": 0}, "max_length must be an integer of at least 1, got 0"),
    ({"max_length": 2.5}, "max_length must be an integer of at least 1, got 2.5"),
    ({"max_age": -1}, "max_age must be positive, got -1. None keeps every age"),
    ({"max_age": "30D"}, "max_age must be a number in the time's unit because the tim", TypeError),
    ({"max_age": dt.timedelta(3)}, "because the times are numbers, got datetime", TypeError),
    ((CLICKS.assign(time=[1, 2, np.nan, 4]), CLICKS),
     r"impressions\['time'\] must not have missing times, got 1 \(NaN or NaT\)"),
    ((CLICKS, CLICKS.assign(time=pd.array(pa.array([1, float("nan"), None, 4]), dtype=DOUBLE))),
     r"events\['time'\] must not have missing times, got 2"),
    ((DATED, DATED.assign(time=DATED["time"].where(DATED["user"] != "bob"))),
     r"events\['time'\] must not have missing times, got 1"),
    ((CLICKS, DATED), "must hold datetimes without a zone, as events, got numbers", TypeError),
    ((CLICKS.assign(user=[1, 2, 3, 4]), CLICKS),
     "'user' must hold values of one kind in impressions and events, got numbers and text",
     TypeError),
)  # fmt: skip
def attach_tables(impressions=CLICKS, events=CLICKS, *, ours, theirs, **options):
    attach(ours(impressions), theirs(events), **options)


@refuses(
    *((("user", values), rf"\['user'\] must hold text or numbers .* are {kind}", TypeError)
      for values, kind in ((DATED["time"], "timestamp"), ([["a"]] * 4, "list"))),
    (("item", [[["a"]]] * 4), "numbers, text or dates, or lists of them, got 'item'", TypeError),
)  # fmt: skip
def attach_a_scan(column, values, *, scan):
    attach(*[scan(CLICKS.assign(**{column: values}))] * 2)


RATINGS = CLICKS.assign(rating=[4.0, 2.0, np.nan, 3.0])


@refuses(
    ({"memory": 0}, "memory must be bytes"),
    ({"target": []}, "target must name one column or several, got none"),
    ({"target": "rating"}, "'rating' must not be missing, got 1 missing"),
)
def scan_with_options(*, scan, **options):
    scan(RATINGS, **options).target_  # noqa: B018


@refuses(
    (lambda scan: scan[3], "One row is X", TypeError),
    (lambda scan: scan[[0.5]], "index array", TypeError),
    (lambda scan: scan[[100]], "row 100 is not there: the scan has 4 rows", IndexError),
    (lambda scan: scan[np.ones(3, dtype=bool)], "must have 4 values", IndexError),
    (lambda scan: scan["itm"], "did you mean 'item'"),
    (lambda scan: scan.target_, "name the column that is to be predicted", AttributeError),
    (lambda scan: sample_negatives(attach(scan, scan), item="item"), "be without history columns"),
)
def use_a_scan(use, *, scan):
    use(scan(CLICKS))


BUILDER = {"user": "user", "time": "time", "columns": ["item"]}


@refuses(
    ({"y": None}, r"needs y .* got None. Pass y, or set events='all'"),
    ({"y": [1] * 5}, r"two classes, got one class only: \[1\]\. Set events='all'"),
    ({"y": [0, 1, 2, 0, 1]}, r"Only binary .* 3 classes, \[0, 1, 2\] among them\. Set"),
    ({"y": [0, 1]}, "inconsistent numbers of samples"),
    ({"X": ROWS.to_numpy()}, "X must be a pandas, polars or Arrow frame, got nda", TypeError),
    ({"X": ROWS.drop(columns="item")}, "X has no column 'item'"),
    ({"X": ROWS.assign(time="now")}, r"X\['time'\] must hold integers, floats or", TypeError),
    ({"X": ROWS.assign(hist_item=0)}, r"X already has columns \['hist_item'\]"),
    ({"events": "clicks"}, "The 'events' parameter of HistoryBuilder"),
    ({"max_length": 0}, "The 'max_length' parameter of HistoryBuilder"),
    *ONE_NAME,
)
def fit_a_builder(X=ROWS, y=(0, 1, 1, 1, 0), **parameters):
    HistoryBuilder(**BUILDER | parameters).fit(X, y)


@refuses(
    (({"m": ("user", "rating")},), r"aggregates\['m'\] must be \(key, column, stati"),
    (({"rating": ("user", None, "count")},), "already has a column 'rating'. Drop"),
    (({"m": ("user", "rating", "max")},), r"with one of mean, sum, .* 'max'\)"),
    (({"m": ("usr", "rating", "mean")},), "impressions has no column 'usr'"),
    (({"m": ("user", "ratng", "mean")},), "events has no column 'ratng'; did you"),
    (([("user", "rating", "mean")],), "must be a dict of new columns.* got list", TypeError),
    (({"m": ("user", None, "mean")},), "'count' alone takes None as column"),
    (({"m": ("user", "item", "mean")},),
     r"needs numbers for a mean, but events\['item'\] has dtype .*use 'count'", TypeError),
    (({"m": ("user", "rating", "shrunk_rate")},),
     r"needs zeros and ones, got 4.0 in events\['rating'\]. Convert them, .* or use 'mean'"),
    (({"n": ("user", None, "count")}, ["time"]),
     exactly("time must be one column name, got ['time']."), TypeError),
)  # fmt: skip
def aggregate(aggregates, time="time", *, ours):
    attach_aggregates(ours(RATINGS), ours(RATINGS), time=time, aggregates=aggregates)


LISTED = {"catalogue": EVENTS.drop_duplicates("item")}


@refuses(
    ({"item": "itm"}, "events has no column 'itm'; did you mean 'item'"),
    ({"user": "usr"}, "events has no column 'usr'; did you mean 'user'"),
    ({"item_columns": "kind"}, "events has no column 'kind'"),
    ({"n_negatives": 0}, "n_negatives must be an integer of at least 1, got 0"),
    ({"launched": "yes"}, "launched must be one of auto, True, False, got 'yes'"),
    ({"launched": True}, "launched=True and catalogue_time need time=, got"),
    ({"catalogue_time": "x"}, "catalogue_time needs catalogue="),
    (LISTED | {"catalogue_time": "category"}, "catalogue_time need time="),
    ({"time": "time", "catalogue_time": "x"}, "catalogue_time needs catalogue=, got "),
    ({"catalogue": EVENTS[["item"]]}, "catalogue has no column 'category'"),
    ({"strategy": "hard"}, "strategy must be one of uniform, popularity, got 'hard'"),
    ({"item": ["item"]}, exactly("item must be one column name, got ['item']."), TypeError),
    *ONE_NAME[:1],
    ({"events": EVENTS.assign(item=[1, 2, 3, 4, 5])} | LISTED, "kind of .* got 'hat' beside 1"),
    ({"events": pl.from_pandas(EVENTS).lazy()}, "^events must be a frame in memory", TypeError),
    ({"events": EVENTS[:0]}, "events must have at least one row, got none"),
)
def sample_of_a_frame(events=EVENTS, **options):
    options = {"item": "item", "item_columns": ["category"], "random_state": 0} | options
    sample_negatives(events, **options)


@refuses(
    (EVENTS[:1], "events must have at least two items to sample from, got only 'hat'"),
    (EVENTS.assign(item=[None, *"abcd"]), r"events\['item'\] must not be missing, got 1"),
    (EVENTS.assign(item=[np.nan, 1, 2, 3, 4]), r"events\['item'\] must not be missing, got 1"),
    (EVENTS.assign(item=[[1]] * 5), "'item'.* must hold (one key per row|text or num)", TypeError),
    ({"events": EVENTS.assign(user=[[1]] * 5), "user": "user"},
     "'user'.* must hold (one key per row|text or num)", TypeError),
    ({"events": EVENTS.assign(user=[np.nan, 1, 1, 1, 1]), "user": "user"}, r"\['user'\] must not"),
    ({"events": EVENTS[:2], "user": "user"}, "user 1 has every item of the log, so there is no n"),
    ({"events": EVENTS.assign(time=[np.nan, 1, 2, 3, 4]), "time": "time"}, "missing times, got 1"),
)  # fmt: skip
def sample_of_a_table(events, *, ours, **options):
    options = {"item": "item", "item_columns": ["category"], "random_state": 0} | options
    sample_negatives(ours(events), **options)


@refuses(
    ({"n_splits": 0}, "n_splits must be an integer of at least 1, got 0"),
    ({"test_size": 1.5}, r"a fraction of the rows between 0 and 1, or None, got 1\.5"),
    ({"test_size": 0}, "test_size must be a number of rows of at least 1"),
    ({"test_size": 2}, "2 test blocks of 2 rows leave none of the 4 rows to train on first"),
    ({"n_splits": 4, "test_size": 1}, "4 folds need rows of at least 5 different times, got 4"),
    ({"gap": 2}, r"fold 0 has nothing to train on: .* more than gap=2\. Use a smaller gap"),
    ({"gap": -1}, "gap must not be negative or missing, got -1"),
    ({"gap": float("nan")}, "gap must not be negative or missing, got nan"),
    ({"time": "tme"}, r"X has no column 'tme'; did you mean 'time'\?"),
    ({"time": None}, r"time=None finds none in a DataFrame\. .* TimeSplit\(time='time'\)"),
    ({"y": [0, 1, 0]}, "inconsistent numbers of samples"),
    ({"X": np.eye(2), "time": None}, r"finds none in a ndarray\. .*TimeSeriesSplit"),
    ({"X": np.eye(2)}, r"time='time'\) reads a column of X, got a ndarray", TypeError),
)
def split_by_time(X=None, y=None, **parameters):
    X = pd.DataFrame({"time": [1, 2, 3, 4], "times": [1, 2, 3, 4]}) if X is None else X
    list(TimeSplit(**{"n_splits": 2, "time": "time", **parameters}).split(X, y))


DAYS = pd.date_range("2024-01-01", periods=3)


@refuses(
    (([1.0, np.nan, 3.0], 0), r"X\['time'\] must not have missing times, got 1 .* drop it or fill"),
    ((DAYS.where([True, False, True]), 0), "missing times, got 1"),
    ((["2024-01-01"] * 3, 0), "numbers with pd.to_numeric, dates with pd.to_datetime", TypeError),
    (([1, 2, 3], "1D"), "gap must be a number in the time's unit because the times", TypeError),
    ((DAYS, 3), "gap must be a duration such as '1D' because the times are datetimes, got 3",
     TypeError),
    ((DAYS, "3"), "gap must be a duration such"),
    ((DAYS, "soon"), "'12h', got 'soon'"),
    ((DAYS, "-1D"), "must not be negative"),
    (([1, 2, 3], float("inf")), "nothing to train on"),
)  # fmt: skip
def split_times(times, gap):
    list(TimeSplit(1, time="time", gap=gap).split(pd.DataFrame({"time": times})))


@refuses(
    (({"item": np.array([12], dtype=np.int32)},), r"item must lie in range\(0, 12\), got .* 12"),
    (({"item": np.array([-5], dtype=np.int32)},), "range\\(0, 12\\), got values from -5 to"),
    (({"item": np.array([3], dtype=np.int64)},), "item must hold int32 ids, got int64"),
    (({},), r"columns must be \['item', 'price'\], got \[\]"),
    (({"price": np.zeros(3)},), r"one row per impression, got lengths \{'item': 1, 'price': 3\}"),
)
def hold_encoded(columns):
    schema = Schema((Field("item", "categorical", "item", 12), Field("price", "numeric")))
    item = {"item": np.array([3], dtype=np.int32), "price": np.zeros(1)} if columns else {}
    EncodedFeatures(schema, item | columns)


NO_CALLBACKS = "callbacks must be skorch callbacks, such as EarlyStopping(), got"
WIDTH = "embedding_dim['item'] must be an integer of at least 1, got"
BUILD = "a torch build for it. Use device='auto'"
BINS = ((0.0, 1.0, 0.5), (1.0, 2.0, 0.3))
OTHER_BINS = [((0.0, 1.0),), ((1.0, 1.0, 0.5),), ((0.0, np.nan, 0.5),), [[0.0, 1.0, 0.5]]]
ENCODED, HALVES = make_impressions(20), np.arange(20) % 2


@refuses(
    *(({name: "other"}, rf"'{name}' parameter .* must be a str among .*") for name in OPTIONS),
    ({"max_epochs": 0}, "'max_epochs' parameter"),
    ({"embedding_dim": {"item": 4}}, r"name every vocabulary once: \['category', 'item', 'tags'"),
    ({"embedding_dim": {"item": 0}}, exactly(f"{WIDTH} 0.")),
    ({"hidden_units": (0,)}, "each of hidden_units must be an integer of at least 1, got 0"),
    ({"attention_units": (8, 0)}, "of attention_units must be an integer of at least 1, got 0"),
    ({"attention_units": ()}, exactly("attention_units must have at least one layer, got ().")),
    ({"device": "gpu"}, exactly("device must be 'auto', 'cpu', 'cuda' or 'cuda:0', got 'gpu'.")),
    *(
        ({"device": device}, exactly(f"device='{device}' needs a CUDA GPU and {BUILD}."))
        for device in (["cuda", "cuda:0"] if not torch.cuda.is_available() else [])
    ),
    ({"callbacks": ["early"]}, exactly(f"{NO_CALLBACKS} 'early'.")),
    ({"callbacks": [EarlyStopping(), int]}, exactly(f"{NO_CALLBACKS} <class 'int'>.")),
    ({"class_weight": {"yes": 2}},
     exactly("class_weight must name the labels [0, 1], got ['yes'].")),
    ({"early_stopping": True, "validation": "groups"},
     r"HistorySequenceEncoder\(user='user'\), or pass fit.* din__groups=X\['user'\]"),
    ({"validation": "groups", "groups": ["ann"] * 3}, "groups must have one value per row"),
    ({"early_stopping": True, "validation": "groups", "groups": [None, "ann"] * 10},
     "got 10 rows without a user or group"),
    ({"early_stopping": True, "validation": "groups", "groups": ["ann"] * 20},
     exactly("validation='groups' needs at least two groups, got 1. Use validation='random' or "
             "'last'.")),
    *(({"early_stopping": True, "validation": how, "validation_fraction": 0.99},
       exactly("validation_fraction=0.99 of 20 rows leaves no training rows. Lower it, or give "
               "more rows.")) for how in ("last", "random")),
    ({"early_stopping": True, "validation": "groups", "groups": [*"ab"] * 10,
      "validation_fraction": 0.8}, "validation_fraction=0.8 of 2 groups leaves .* more groups"),
    *(({"sample_weight": weights}, "sample_weight must")
      for weights in ([1.0, 2.0], [-1.0] * 20, [0.0] * 20)),
)  # fmt: skip
def fit_a_classifier(sample_weight=None, groups=None, **parameters):
    quick(**parameters).fit(ENCODED, HALVES, sample_weight=sample_weight, groups=groups)


@refuses(
    *((order, f"neighbours='{order}' puts .* of {order}s, and X has none")
      for order in ("time", "user"))
)  # fmt: skip
def learn_neighbours_of_many_items(order):
    X = pd.DataFrame({"item": range(20), "hist_item": [[item] for item in range(20)]})
    quick(neighbours=order).fit(HistorySequenceEncoder().fit_transform(X), HALVES)


@refuses(
    ([1] * 4, r"y must have two classes, got one class only: \[1\].*sample_negatives"),
    ([0, 1, 2, 1], r"Only binary .* y has 3 classes, \[0, 1, 2\] .* DINRegressor predict"),
    ([0, 1, np.nan, 1], "y must not be missing, got 1 NaN labels"),
    (np.array(["a", "b", None, "a"], dtype=object), "y must not be missing, got 1 NaN labels"),
    ([0, 1], "inconsistent numbers of samples"),
    ([0.5, 1.5, 0.25, 0.1], "Unknown label type: continuous"),
    (np.array([0, 1, 0, 1], dtype=object), r"got objects such as 0\. Convert .*y\.astype\(int\)"),
)
def fit_labels(y):
    quick().fit(ENCODED[:4], y)


@refuses(
    ((ENCODED[:0], ENCODED), "needs at least one impression, got zero rows"),
    ((pd.DataFrame({"item": ["a"]}), None), r"numbers only, got \['item'\].*HistorySequenceEncod"),
    ((ENCODED, np.zeros((3, 4))), "fitted on EncodedFeatures, got ndarray"),
    ((ENCODED, pd.DataFrame({"item": ["a"]})), "Features, got .*Bagging"),
    ((ENCODED, make_impressions(5, numbers=("hist_ago",))), "another encoder.*hist_ago"),
    ((np.eye(4), make_impressions(3)), "was fitted on a plain array or frame, got EncodedFeat"),
    # so large that the loss diverges
    ((np.column_stack([np.ones(20), np.full((20, 39), 3e38)]), None),
     r"no longer finite in epoch 1 with lr=0.003.*3e\+38.*'x1'"),
)  # fmt: skip
def fit_and_predict(X, later):
    quick().fit(X, np.arange(len(X)) % 2).predict(later)


UNFITTED = [
    (HistorySequenceEncoder(), "transform", SHOWN),
    (HistorySequenceEncoder(), "get_feature_names_out"),
    (HistorySequenceEncoder(), "inverse_transform_ids", "item", [2]),
    (HistoryBuilder(**BUILDER), "transform", ROWS),
    (HistoryBuilder(**BUILDER), "get_feature_names_out"),
    *((DINClassifier(), method, ENCODED)
      for method in ("predict", "predict_proba", "decision_function", "attention_weights")),
]  # fmt: skip


@refuses(
    *((given, f"This {type(given[0]).__name__} instance is not fitted yet", NotFittedError)
      for given in UNFITTED)
)  # fmt: skip
def use_unfitted(estimator, method, *arguments):
    getattr(estimator, method)(*arguments)


AFTER = {"purchase": "click"}
CLICK, PURCHASE = HALVES, HALVES * (np.arange(20) % 3 > 0)


@refuses(
    ({"purchase": 1, "after": AFTER}, "label 'purchase': y must have two classes, got one"),
    ({"purchase": [0, "no"] * 10}, "label 'purchase': "),
    ({"purchase": np.nan}, "label 'purchase': y must have two classes, got none: every"),
    ({"click": 1 - CLICK, "after": AFTER}, "there is no purchase without a click"),
    ({"after": {"sale": "click"}}, r"must name labels, \['click', 'purchase'\], got \['sa"),
    ({"after": {"purchase": "tap"}}, r"must name labels, \['click', 'purchase'\], got 'ta"),
    *(({"after": after}, re.escape(f"comes after itself, nor in a circle, got {after}. Leave"))
      for after in ({"click": "purchase", **AFTER}, {"click": "click"})),
    *(({"label_weight": weights}, "label_weight must be finite numbers from 0 on, not")
      for weights in ({"purchase": -1}, {"click": np.inf}, {"click": 0, "purchase": 0})),
    ({"class_weight": "balanced"}, "class_weight is about the two kinds of one label"),
)  # fmt: skip
def fit_several_labels(click=CLICK, purchase=PURCHASE, **parameters):
    quick(**parameters).fit(ENCODED, pd.DataFrame({"click": click, "purchase": purchase}))


@refuses(
    (([1.0, -2.0], "log1p"), "loss='log1p' needs numbers from 0 on, got a y of -2"),
    (([1.0, np.nan],), "Input y contains NaN"),
    (([1.0, 1e39],), r"y must fit float32, as predictions do, got 1e\+39"),
    (([[1.0, 2.0], [3.0, 4.0]],), "y should be a 1d array"),
    (([1.0, 2.0], "absolute"), "The 'loss' parameter of DINRegressor must be"),
)
def fit_a_regressor(y, loss="squared"):
    DINRegressor(loss=loss, max_epochs=1).fit(ENCODED[:2], y)


def test_another_loss_cannot_go_on():
    regressor = DINRegressor(max_epochs=1).fit(ENCODED, np.arange(20.0))
    with pytest.raises(ValueError, match="net_ takes y as finite numbers, one for each of 20"):
        regressor.net_.fit(ENCODED, np.full(20, np.inf))
    regressor.set_params(loss="log1p")
    with pytest.raises(ValueError, match="the loss of fit, 'squared', but loss is 'log1p' now"):
        regressor.partial_fit(ENCODED, np.arange(20.0))


@refuses(
    *(((s,), "Load it with the version that saved it") for s in ({"lr": 0.1}, {}, None, [1])),
    ((DINClassifier().__getstate__(), 1), r"and \['momentum'\] differ: another version"),
)
def restore(state, momentum=None):
    if momentum is not None:
        state = edit_state(state, lambda values: values["parameters"].update(momentum=momentum))
    DINClassifier().__setstate__(state)


@refuses(
    ({"stop_reason": "bored"}, "training cannot end by 'bored'"),
    ({"history": {}}, "a training's history must be a list"),
    ({"checks": [dict.fromkeys(CHECK, 1)]}, "the validation checks must be columns of floats"),
    ({"device": 3}, "a device must be text, got 3"),
    ({"options": {"after": (None,) * 99}}, "a network's labels cannot come after"),
    ({"options": {"position_shares": (1,)}}, "shares of positions must be numbers, got"),
    *(({"options": {"bins": bins}}, "bins of numbers must have a start, end and average, got")
      for bins in (None, {"taste": BINS}, *({"price": own} for own in (*OTHER_BINS, ())))),
    ({"options": {"hidden_units": 8}}, "widths must be tuples, got 8 and"),
    ({"options": {"hidden_units": (8,) * 99}}, "a larger network than there are weights"),
    ({"novelty": {"shares": {"price": 0.1}}}, "shares of new ids must be those of candidates"),
    ({"novelty": {"shares": {"item": 2.0}}}, "shares of new ids must be shares, got"),
    ({"novelty": {"first_seen": {"shop": np.zeros(1, int)}}}, "must be those of vocabularies"),
    ({"training": {"order": 0}}, "the order of rows must be a RandomState"),
    ({"training": {"labels": [1]}}, "labels must be the numbers of rows without and with"),
    ({"training": {"moments": {"bias": {}}}}, "moments must be those of the network's param"),
)  # fmt: skip
def restore_a_network(**changes):
    def edit(values):
        net = values["fitted"]["net"]
        for name, change in changes.items():
            net[name] = net[name] | change if isinstance(net[name], dict) else change

    state = quick().fit(ENCODED, HALVES).__getstate__()
    DINClassifier().__setstate__(edit_state(state, edit))


# Vectors --------------------------------------------------------------------------------------

VECTORS = pd.DataFrame({"item": ["hat", "sock"], "v0": [0.5, 1.0], "v1": [1.0, 0.0]})


@refuses(
    ([VECTORS], "vectors must be a dict of a column of ids and its frame", TypeError),
    (({"user": VECTORS},), r"must belong to a column of ids of X, which are \['category'"),
    (({"item": VECTORS.set_index("item")},), "with a column 'item', whose values they"),
    (({"item": pd.concat([VECTORS] * 2)},), "one row for each value of 'item'"),
    (({"item": VECTORS[["item"]]},), "must hold finite numbers, equally many"),
    (({"item": VECTORS.assign(v0=np.nan)},), "must hold finite numbers"),
    (({"item": VECTORS.assign(v0="a")},), "must hold numbers: one column for each"),
    (({"item": VECTORS.assign(item="x" + VECTORS["item"])},), "no value of the training rows"),
    (({"item": VECTORS, "hist_item": VECTORS},), "are of values that have vectors already"),
)
def encode_with_vectors(vectors):
    HistorySequenceEncoder(vectors=vectors).fit_transform(SHOWN)


# Plain calls and metrics ------------------------------------------------------------------------

CHOICES = (
    "rows are chosen by a slice, a 1-D index array or a 1-D bool mask, and columns by name, got "
    "{!r}. One row is X[i : i + 1], one value X['item'][3]."
)
DECODED = HistorySequenceEncoder().fit(SHOWN)
KINDS = "numeric, categorical, list, history, list_history, numeric_history"
RATE = "sampling_rate must be the fraction of negatives kept"


@refuses(
    *((lambda ids=ids: DECODED.inverse_transform_ids("item", ids),
       exactly(f"ids must be integers, got {got}. Original values need no decoding."))
      for ids, got in [(["a"], "'a'"), (pd.Series(["2"]), "'2'"), ([2.5], "2.5"), ("a", "'a'")]),
    *((lambda key=key: ENCODED[key], exactly(CHOICES.format(key)), TypeError)
      for key in [(3, "item"), 3, [0.5], ["item"]]),
    (lambda: scan_parquet("nowhere"), "'nowhere', where there is none", FileNotFoundError),
    (lambda: scan_parquet(pd.DataFrame()), "got DataFrame", TypeError),
    (lambda: scan_parquet(Path(__file__).parent), "a folder of files that end in .* a glob",
     FileNotFoundError),
    (lambda: make_click_log(n_users=0), "n_users must be at least 1, got 0"),
    (lambda: make_click_log(n_items=10, n_categories=20), "n_items must be at least 20, got 1"),
    (lambda: make_click_log(recency=0), "recency must be None or a half-life above 0, got 0"),
    (lambda: make_click_log(n_users="5"), "n_users must be a number, got '5'"),
    (lambda: fetch_movielens("2m"), r"one of \['latest-small', '1m', .*\], got '2m'"),
    (lambda: Field("price", "number"), exactly(f"kind must be one of {KINDS}, got 'number'.")),
    (lambda: pd.Series([1], dtype="window"),
     "a history cell must be a list, tuple, array or missing, got int", TypeError),
    (lambda: pd.Series([np.zeros((2, 2))], dtype="window"), "must have one dimension, got 2"),
    *((lambda kind=kind: kind().fit(ENCODED, HALVES, eval_set=[]),
       rf"^{kind.__name__}\.fit\(\) got .* 'eval_set'", TypeError)
      for kind in (DINClassifier, DINRegressor)),
    *((lambda kind=kind: kind().fit(csr_array(np.eye(20)), HALVES),
       r"Use '\.toarray\(\)'", TypeError)
      for kind in (HistorySequenceEncoder, DINClassifier)),
    *((lambda name=name: DIN(make_schema(), **{name: "other"}),
       exactly(f"{name} must be one of {', '.join(map(str, words))}, got 'other'."))
      for name, words in OPTIONS.items()),
    *((lambda rate=rate: correct_for_sampling([0.5], sampling_rate=rate), RATE)
      for rate in (0, -0.1, 1.5, np.nan)),
    (lambda: correct_for_sampling([[0.5, 0.5]], sampling_rate=0.5), r"\(1, 2\)\. Pass .*, 1\]"),
    (lambda: relative_improvement(0.7, 0.5), r"base_score must be above 0\.5.*compare the"),
    (lambda: relative_improvement(70, 60), "^score must be an AUC between 0 and 1, got 70"),
    (lambda: relative_improvement(0.7, 60), "base_score must be an AUC .*, got 60"),
    (lambda: relative_improvement("0.7", 0.6), "^score must be an AUC .*, got '0.7'"),
    (lambda: correct_for_sampling([-2.0, 0.5], sampling_rate=1), r"from -2\.0 to 0\.5.*not deci"),
)  # fmt: skip
def ask(call):
    call()


AT_K = [group_ndcg_score, group_recall_score, group_hit_rate_score, group_mrr_score]
GAUC = [group_roc_auc_score]
NO_RATINGS = {"y_true": [], "y_score": [], "groups": []}
EACH = [*AT_K, *GAUC]


@refuses(
    *(
        ((score, change), message, (ValueError, TypeError))
        for scores, change, message in [
            (AT_K, {"k": 0}, r"k must be an integer of at least 1 or None \(the whole .*, got 0"),
            (AT_K, {"k": True}, "k must be an integer of at least 1"),
            (AT_K, {"y_true": [0, 0, 0]}, "got 0 with a positive. Evaluate on rows"),
            (AT_K, NO_RATINGS, "got 0 with a positive"),
            (GAUC, {"y_true": [1, 1, 1]}, "at least one group with both classes, got 2 groups"),
            (GAUC, NO_RATINGS, "group with both classes, got 0 groups"),
            (GAUC, {"sample_weight": [0, 0, 0]}, "not 0 throughout"),
            (GAUC, {"groups": CLICKS[:3]}, r"groups must be one column, X\['user'\], got a DataF"),
            (GAUC, {"groups": np.ones((3, 1))}, r"X\['user'\], got shape \(3, 1\)\."),
            (EACH, {"y_true": [0, 1, 2]}, "y_true must have two labels, got 3: .* y_true >= 4"),
            (EACH, {"y_true": [0, 1, np.nan]}, "y_true must not be missing, got 1 missing lab"),
            (EACH, {"y_score": [0.1, np.nan, 0.2]}, "y_score must not be NaN, got 1"),
            (EACH, {"y_score": [[0.1, 0.9]] * 3}, r"shape \(3, 2\)\. Pass .* predict_proba\(X"),
            (EACH, {"groups": ["ann", None, "bob"]}, "groups must not be missing, got 1 rows"),
            (EACH, {"groups": [[7, "web"]] * 3}, r"groups must hold one key .* got \[7, 'web'"),
            (EACH, {"groups": ["ann", "bob"]}, "inconsistent numbers of samples"),
            (EACH, {"sample_weight": [1, 1]}, "sample_weight must have 3 values, got 2"),
            (EACH, {"sample_weight": [1, -1, 1]}, r"must be finite.* from -1\.0 to 1\.0"),
        ]
        for score in scores
    )
)
def score_by_group(score, change):
    inputs = {"y_true": [0, 1, 1], "y_score": [0.1, 0.2, 0.3], "groups": ["ann", "ann", "bob"]}
    score(**inputs | change)


PRICED = pd.DataFrame({"user": [1, 1, 2, 2], "price": [0.0, 1.0, 2.0, 3.0]})


@refuses(
    ((None,), r"no groups\. Name .* name the column .*set_score_req"),
    (("session",), r"\(groups='session'\) .* are \['user', 'price'\]\. Pass"),
    (("user", PRICED.to_numpy()), r"got a ndarray whose columns are None\. Pass X as a DataFrame"),
)
def score_by_users(groups, X=PRICED):
    model = LogisticRegression().fit(X, [0, 1, 0, 1])
    group_roc_auc_scorer(groups)(model, X, [0, 1, 0, 1])


@cache
def fitted():
    """A Pipeline, the rows it was fitted on, users and candidates."""
    frame, y = make_frame()
    users = frame.drop_duplicates("user", keep="last").drop(columns=[*CANDIDATE, "tags"])
    candidates = frame.drop_duplicates("item")[[*CANDIDATE, "tags"]]
    candidates = candidates.assign(title="Title of " + candidates["item"])
    return fit_pipeline(frame, y), frame, y, users, candidates


NAN = pd.DataFrame([{"user": 1, "item": "car"}])


@refuses(
    (lambda u, c: (u, c, {"top_k": 0}), r"top_k must be an integer of at least 1, got 0"),
    (lambda u, c: (u, c[:0]), "candidates must have at least one row, got none"),
    (lambda u, c: (u[:0].assign(price=1.0), c), r"got \['price'\] in both frames"),
    (lambda u, c: (u.assign(price=1.0), c), r"got \['price'\] in both frames"),
    (lambda u, c: (u, c.drop(columns="price")), r"\['price'\], which are neither in users"),
    (lambda u, c: (u, c.assign(rank=1)), r"columns \['rank'\] of its own"),
    (lambda u, c: (u.merge(c, how="cross"), c[["title"]]), "candidate would score the same"),
    (lambda u, c: (u, ["i1", "i2"]), "must be a pandas, polars or Arrow frame, got list",
     TypeError),
    (lambda u, c: (u.drop(columns="hist_item"), c.assign(hist_item=[[1]] * len(c))),
     r"same events, got \['hist_item'\] among the cand"),
    *((lambda u, c, options=options: (u, c, options), message) for options, message in [
        ({"exclude": "past"}, "must be one of history, None, got 'past'"),
        ({"exclude": NAN[["item"]]}, r"got \[\] and \['item'\]. users has \['user'"),
        ({"only": NAN.assign(device="x")}, r"candidates, got .* 'device'\] and \['item"),
        ({"exclude": NAN.astype(str)}, "'user' must be of one kind, got text and"),
        ({"only": NAN}, "pairs of the users and candidates .* none"),
        ({"shortlist": 0}, "shortlist must be"),
    ]),
)  # fmt: skip
def rank(change):
    users, candidates, *options = change(*fitted()[3:])
    rank_candidates(fitted()[0], users, candidates, **dict(*options))


SCALED = make_pipeline(StandardScaler(), quick())
WHOLE = "needs the whole fitted Pipeline"


@refuses(
    (lambda model, X, y: explain(model[-1], X), rf"{WHOLE}.*got DINClassifier\.", TypeError),
    (lambda model, X, y: explain(model[:-1], X), "got a Pipeline of HistorySequenceEn", TypeError),
    (lambda model, X, y: explain(SCALED.fit(np.eye(4), [0, 1] * 2), X),
     "needs a HistorySequenceEncoder among", TypeError),
    (lambda model, X, y: explain(clone(model), X), "not fitted yet", NotFittedError),
    (lambda model, X, y: explain(model, X, by="effect"),
     exactly("by must be one of weight, leave_out, got 'effect'.")),
    (lambda model, X, y: history_importance(model, X, y, n_repeats=0),
     "n_repeats must be an integer of at least 1, got 0"),
    (lambda model, X, y: history_importance(model, X, [0, 1]), "inconsistent numbers of samples"),
    (lambda model, X, y: history_importance(model, np.eye(2), [0, 1]),
     "polars or Arrow frame, got ndarray", TypeError),
    (lambda model, X, y: history_importance(quick(), X, y), f"history_importance {WHOLE}",
     TypeError),
    (lambda model, X, y: AttentionDisplay.from_estimator(quick(), X), WHOLE, TypeError),
)  # fmt: skip
def use_a_model(call):
    call(*fitted()[:3])


# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "given", "sentence", "error"), CALLS)
def test_a_mistake_is_answered_by_its_sentence(call, given, sentence, error, tmp_path):
    named = inspect.signature(call).parameters
    ways = {"scan": [partial(as_scan, folder=tmp_path, group=2)]}
    ways |= {name: [lambda frame: frame, *ways["scan"]] for name in ("ours", "theirs")}
    args, options = (given, {}) if isinstance(given, tuple) else ([given], {})
    if isinstance(given, dict):
        args, options = (), given
    tables = [name for name in ways if name in named]
    for way in product(*(ways[name] for name in tables)):
        with pytest.raises(error, match=sentence):
            call(*args, **options, **dict(zip(tables, way, strict=True)))
