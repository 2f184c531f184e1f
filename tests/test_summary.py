"""The summary says what the network is: nothing left out, nothing made up."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.native.logits import engine_text
from tests.encoded_impressions import make_impressions, make_labels

OFF = (
    "item neighbours: off, neither user nor time is named, "
    "HistorySequenceEncoder(user=..., time=...)"
)
FEW = "item neighbours: off, no history has a candidate with 16 ids or more"


def test_the_summary_of_a_small_network_is_this_text():
    X = make_impressions(32, numbers=("elapsed",))
    widths = {"item": 8, "category": 4, "tags": 2}
    classifier = DINClassifier(embedding_dim=widths, max_epochs=1).fit(X, make_labels(X))
    assert classifier.summary().splitlines() == [
        "column         kind                vocabulary  ids  width",
        "price          number                                   1",
        "item           id                  item         12      8",
        "category       id                  category      6      4",
        "hist_item      history of ids      item         12      8",
        "hist_category  history of ids      category      6      4",
        "elapsed        history of numbers                       1",
        "tags           history of ids      tags          5      2",
        "",
        "behaviour                        compared with   becomes interest by",
        "hist_item+hist_category+elapsed  item, category  attention, "
        "/ sqrt(length), newest 5 events",
        "tags                             nothing         sum, / sqrt(length), newest 5 events",
        "",
        "part                                  layers                        parameters",
        "embedding of item                     12 x 8                                96",
        "embedding of category                 6 x 4                                 24",
        "embedding of tags                     5 x 2                                 10",
        "attention of hist_item+hist_category  56 -> 64 -> 16 -> 1 (PReLU)        4,707",
        "MLP                                   46 -> 200 -> 80 -> 1 (PReLU)      25,563",
        "total                                                                   30,400",
        "",
        engine_text(classifier.module_),
        "",
        FEW,
    ]


def test_the_summary_names_columns_that_are_not_used():
    frame = pd.DataFrame({"price": [1.0, 2.0], "born": pd.to_datetime(["2000-01-01"] * 2)})
    frame["tags"] = [[pd.Timestamp("2000-01-01")]] * 2
    model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    lines = model.fit(frame, [0, 1])[-1].summary().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["price", "born", "tags"]
    assert lines[2:4] == ["born    not used", "tags    not used"]


@pytest.mark.parametrize(("encoder", "options", "last"), [
    ({"user": "user"}, {}, "item neighbours: for item"),
    ({"drop": ["user"]}, {}, OFF),
    ({"user": "user"}, {"neighbours": None}, "item neighbours: off, neighbours=None"),
    ({"user": "user", "drop": ["item"]}, {}, FEW),
])  # fmt: skip
def test_the_summary_says_why_neighbours_are_off(encoder, options, last):
    frame = pd.DataFrame({"user": [0, 1] * 20, "item": np.arange(40) % 16})
    frame["hist_item"] = [[0], [1, 0]] * 20
    with warnings.catch_warnings(action="ignore"):  # of a history without a candidate
        X = HistorySequenceEncoder(**encoder).fit_transform(frame)
    classifier = DINClassifier(max_epochs=1, **options).fit(X, [0, 0, 1, 1] * 10)
    summary = classifier.summary()
    assert summary.splitlines()[-1] == last
    assert summary.count("14 numbers") == ("off" not in last)  # one line for all of them
