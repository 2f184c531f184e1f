"""Plain mistakes, and the sentence that each is answered with."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import EarlyStopping

from sklearn_din import (
    DIN,
    DINClassifier,
    Field,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    sample_negatives,
)
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.module import OPTIONS
from sklearn_din.training.validation import split_rows
from tests.encoded_impressions import make_impressions, make_schema

CLICKS = pd.DataFrame(
    {"user": [1, 1, 1, 2, 2], "time": [1, 2, 3, 1, 2], "item": ["hat", "tie", "hat", "cap", "tie"]}
)
DATED = CLICKS.assign(time=pd.to_datetime(CLICKS["time"], unit="D"))
SHOWN = pd.DataFrame(
    {"item": ["hat", "sock"], "price": [1.5, 2.5], "hist_item": [["sock"], ["hat", "shoe"]]}
)


def says(sentence, error=ValueError):
    """Expect the whole sentence, to the letter."""
    return pytest.raises(error, match=f"^{re.escape(sentence)}$")


# Rows set aside -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "share", "got", "more"),
    [
        ("last", 0.99, "0.99 of 2 rows", "rows"),
        ("random", 0.99, "0.99 of 2 rows", "rows"),
        ("groups", 0.8, "0.8 of 2 groups", "groups"),
    ],
)
def test_a_split_that_leaves_nothing_to_train_on(how, share, got, more):
    seeds = np.random.RandomState(0)
    message = f"validation_fraction={got} leaves no training rows. Lower it, or give more {more}."
    with says(message):
        split_rows(np.array([0.0, 1.0]), ["a", "b"], how=how, fraction=share, seeds=seeds)
    halves = split_rows(np.array([0.0, 1.0]), ["a", "b"], how=how, fraction=0.5, seeds=seeds)
    assert sorted(np.concatenate(halves)) == [0, 1]


def split_one_group():
    split_rows(np.zeros(2), ["a"] * 2, how="groups", fraction=0.5, seeds=np.random.RandomState(0))


KINDS = "numeric, categorical, list, history, list_history, numeric_history"
COUNT = {"n": ("user", None, "count")}
PAIR = [0, 1], [0.1, 0.2]
SENTENCES = {
    "validation='groups' needs at least two groups, got 1.": split_one_group,
    f"kind must be one of {KINDS}, got 'number'.": lambda: Field("price", "number"),
    "separator must be text of at least one character, got ''.": lambda: HistorySequenceEncoder(
        separator=""
    ).fit(SHOWN),
    "time must be one column name, got ['time'].": lambda: attach_aggregates(
        CLICKS, CLICKS, time=["time"], aggregates=COUNT
    ),
    "user must be one column name, got ['user'].": lambda: sample_negatives(
        CLICKS, item="item", user=["user"]
    ),
    "item must be one column name, got ['item'].": lambda: sample_negatives(CLICKS, item=["item"]),
    "groups must be one column, X['user'], got a DataFrame.": lambda: group_roc_auc_score(
        *PAIR, groups=CLICKS[:2]
    ),
    "groups must be one column, X['user'], got shape (2, 1).": lambda: group_roc_auc_score(
        *PAIR, groups=np.ones((2, 1))
    ),
}


@pytest.mark.parametrize("message", SENTENCES)
def test_sentences(message):
    with says(message, (ValueError, TypeError)):
        SENTENCES[message]()


# The network --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_network_that_do_not_exist(name):
    with says(f"{name} must be one of {', '.join(map(str, OPTIONS[name]))}, got 'other'."):
        DIN(make_schema(), **{name: "other"})


# The classifier -----------------------------------------------------------------------------


CALLBACKS = "callbacks must be skorch callbacks, such as EarlyStopping(), got"
BUILD = "a torch build for it"
WIDTH = "embedding_dim['item'] must be an integer of at least 1, got"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "gpu"}, "device must be 'auto', 'cpu', 'cuda' or 'cuda:0', got 'gpu'."),
        ({"device": "cuda"}, f"device='cuda' needs a CUDA GPU and {BUILD}. Use device='auto'."),
        ({"callbacks": ["early"]}, f"{CALLBACKS} 'early'."),
        ({"callbacks": [EarlyStopping(), int]}, f"{CALLBACKS} <class 'int'>."),
        ({"embedding_dim": {"item": 0}}, f"{WIDTH} 0."),
        ({"embedding_dim": {"item": "8"}}, f"{WIDTH} '8'."),
        ({"attention_units": ()}, "attention_units must have at least one layer, got ()."),
        ({"class_weight": {"yes": 2}}, "class_weight must name the labels [0, 1], got ['yes']."),
    ],
)
def test_parameters_of_the_classifier(parameters, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    X = make_impressions(20)
    with says(message):
        DINClassifier(**parameters).fit(X, np.arange(20) % 2)


# The encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "got"),
    [
        ({"item": ["hat"]}, "dict"),
        ([{"item": "hat"}], "list of dicts"),
        ("clicks.csv", "str"),
        (Path("clicks.csv"), type(Path()).__name__),
        (None, "None"),
    ],
)
def test_what_is_no_frame(X, got):
    message = (
        f"X must be a DataFrame with one row per impression, got {got}. Use pd.DataFrame(X); "
        "for one impression pd.DataFrame([record]); for a file pd.read_csv(path)."
    )
    with says(message, TypeError):
        HistorySequenceEncoder().fit(X)
    with says(message, TypeError):
        HistorySequenceEncoder().fit(SHOWN).transform(X)


def test_one_row_as_a_series():
    fitted = HistorySequenceEncoder().fit(SHOWN)
    with says("X must be a DataFrame, got a Series. For one row use X.iloc[[i]].", TypeError):
        fitted.transform(SHOWN.iloc[0])
    assert len(fitted.transform(SHOWN.iloc[[0]])) == 1


@pytest.mark.parametrize("histories", ["auto", {"hist_item": "item"}])
@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([{"a": 1}, {"b": 2}], "dict"),
        ([{"hat", "sock"}, {"tie"}], "set"),
        ([["hat"], {"tie"}], "set"),
        ([frozenset({"hat"}), frozenset({"tie"})], "frozenset"),
    ],
)
def test_cells_that_have_no_order(histories, cells, kind):
    frame = SHOWN.assign(hist_item=pd.Series(cells, dtype=object))
    message = f"hist_item has cells of type {kind}: a history cell is a list, oldest to newest."
    with says(message):
        HistorySequenceEncoder(histories=histories).fit(frame)


@pytest.mark.parametrize("histories", ["hist_item", ["hist_item"]])
def test_histories_without_their_candidates(histories):
    with says(
        "histories must be 'auto' or a dict of history and candidate columns, such as "
        f"{{'hist_item': 'item'}}, got {histories!r}."
    ):
        HistorySequenceEncoder(histories=histories).fit(SHOWN)


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (["a"], "'a'"),
        (["2"], "'2'"),
        (pd.Series(["2"]), "'2'"),
        ([2.5], "2.5"),
        ([True], "True"),
        ("a", "'a'"),
    ],
)
def test_ids_that_are_none(ids, got):
    fitted = HistorySequenceEncoder().fit(SHOWN)
    with says(f"ids must be integers, got {got}. Original values need no decoding."):
        fitted.inverse_transform_ids("item", ids)


@pytest.mark.parametrize("key", [(3, "item"), (3, 4), 3, [0.5], ["item"]])
def test_what_chooses_no_rows(key):
    with says(
        "rows are chosen by a slice, a 1-D index array or a 1-D bool mask, and columns by name, "
        f"got {key!r}. One row is X[i : i + 1], one value X['item'][3].",
        TypeError,
    ):
        make_impressions(8)[key]


# Histories and negatives --------------------------------------------------------------------


def test_labels_that_fit_never_saw():
    builder = HistoryBuilder(user="user", time="time", columns="item")
    builder.fit(CLICKS, [0, 1, 0, 1, 1])
    with says("y has labels [2] that were not seen at fit: [0, 1]."):
        builder.partial_fit(CLICKS, [2] * 5)
    assert len(builder.events_) == 3
    builder.partial_fit(CLICKS, [0] * 5)  # nothing was clicked today: not an error
    later = CLICKS.assign(time=CLICKS["time"] + 9)
    assert builder.partial_fit(later, [True] * 5).classes_.tolist() == [0, 1]
    assert len(builder.events_) == 8


@pytest.mark.parametrize("max_age", ["30 moons", "30", [1], 30, "-1D"])
def test_ages_that_are_no_durations(max_age):
    start = "max_age must be (positive|a duration such as '30D' .*), got '?"
    with pytest.raises((ValueError, TypeError), match=start + re.escape(f"{max_age}")):
        attach_history(DATED, DATED, user="user", time="time", columns="item", max_age=max_age)
