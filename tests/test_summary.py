"""The summary says what the network is: nothing left out, nothing made up."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder
from sklearn_din.native_network.logits import engine_text
from tests.encoded_impressions import make_impressions, make_labels

OFF = "off", "neither user nor time is named, HistorySequenceEncoder(user=..., time=...)"
FEW_ROWS = "fewer than 3,000 rows, or than 300 of the rarer label"
FEW = "off", "no history has a candidate with 16 ids or more"


def decisions(text):
    """The first table of a summary: value and reason by decision."""
    header, *rows = text.partition("\n\n")[0].splitlines()
    starts = [header.index(name) for name in ("decision", "value", "reason")]
    cells = [
        [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows
    ]
    return {name: (value, reason) for name, value, reason in cells}


def test_the_summary_of_a_small_network_is_this_text():
    X = make_impressions(32, numbers=("elapsed",))
    widths = {"item": 8, "category": 4, "tags": 2}
    classifier = DINClassifier(embedding_dim=widths, max_epochs=1).fit(X, make_labels(X))
    table, _, others = classifier.summary().partition("\n\n")
    assert decisions(table) == {
        "max_length of hist_item+hist_category": ("newest 5 events", "the encoder's max_length"),
        "max_length of tags": ("newest 5 events", "the encoder's max_length"),
        "weighted events are divided by": ("sqrt(length)", "interest='extended'"),
        "item neighbours": FEW,
        "numbers in bins": ("none", "fewer than 1,000 rows, or bins predict no better"),
        "batch size": ("64", "32 training rows"),
        "validation rows": ("none, but folds", FEW_ROWS),
        "scale of the logits": ("1", "smallest loss in the folds, within half a standard error"),
        "length of training": ("1 epoch", "max_epochs"),
    }
    assert others.splitlines() == [
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
    ]


def test_the_summary_names_columns_that_are_not_used():
    frame = pd.DataFrame({"price": [1.0, 2.0], "born": pd.to_datetime(["2000-01-01"] * 2)})
    frame["tags"] = [[pd.Timestamp("2000-01-01")]] * 2
    model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    lines = model.fit(frame, [0, 1])[-1].summary().partition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["price", "born", "tags"]
    assert lines[2:4] == ["born    not used", "tags    not used"]


@pytest.mark.parametrize(("encoder", "options", "last"), [
    ({"user": "user"}, {}, ("for item", "neighbours='auto'")),
    ({"drop": ["user"]}, {}, OFF),
    ({"user": "user"}, {"neighbours": None}, ("off", "neighbours=None")),
    ({"user": "user", "drop": ["item"]}, {}, FEW),
])  # fmt: skip
def test_the_summary_says_why_neighbours_are_off(encoder, options, last):
    frame = pd.DataFrame({"user": [0, 1] * 20, "item": np.arange(40) % 16})
    frame["hist_item"] = [[0], [1, 0]] * 20
    with warnings.catch_warnings(action="ignore"):  # of a history without a candidate
        X = HistorySequenceEncoder(**encoder).fit_transform(frame)
    classifier = DINClassifier(max_epochs=1, **options).fit(X, [0, 0, 1, 1] * 10)
    summary = classifier.summary()
    assert decisions(summary)["item neighbours"] == last
    assert summary.count("14 numbers") == ("off" not in last)  # one line for all of them


def log_of(n_rows):
    """Rows of users with times: random labels, numbers of three values."""
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"user": chance.randint(50, size=n_rows), "time": np.arange(n_rows)})
    frame["item"], frame["price"] = chance.randint(30, size=n_rows), chance.randint(3, size=n_rows)
    return frame.astype({"price": float}), (chance.rand(n_rows) < 0.3).astype(int)


def test_the_first_table_tells_what_was_held_out_and_how_long_the_training_was(capsys):
    X, y = log_of(3_200)
    X["hist_item"] = [[1, 2]] * len(X)
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=2, patience=99, random_state=0, verbose=1)
    with warnings.catch_warnings(action="ignore"):  # of random labels
        model = make_pipeline(encoder, classifier).fit(X, y)
        printed = capsys.readouterr().out
        without = clone(classifier).set_params(early_stopping=False, verbose=0)
        plain = make_pipeline(encoder, without).fit(X, y)[-1]
    found = decisions(model[-1].summary())
    assert model[-1].summary().partition("\n\n")[0] in printed
    assert found["validation rows"] == ("320 of 3,200, last", "the rows have times")
    refit = "2 epochs and a pass over the validation rows"
    assert found["length of training"] == (refit, "max_epochs")
    scale = f"{max(model[-1].net_.checks_[-1]['scales']):.3g}"
    assert found["scale of the logits"] == (scale, "Platt scaling on 320 validation rows")
    assert decisions(plain.summary())["validation rows"] == ("none", "early_stopping=False")
    assert capsys.readouterr().out == ""


def test_elapsed_times_of_a_small_memory_are_listed_as_ignored():
    X, y = log_of(400)
    memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
    encoder = HistorySequenceEncoder(user="user", time="time")
    with warnings.catch_warnings(action="ignore"):  # of random labels
        model = make_pipeline(memory, encoder, DINClassifier(max_epochs=1)).fit(X, y)
    found = decisions(model[-1].summary())
    reason = "fewer than 3,000 training rows"
    assert found["elapsed times that are ignored"] == ("user_elapsed, item_elapsed", reason)
    assert found["running rates"][0].startswith("user_rate, user_count, user_elapsed and")
