"""Explanations speak the caller's own values."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistorySequenceEncoder, explain
from sklearn_din.inspection import explain as module_of_explain
from tests.abilities import outputs
from tests.click_frames import as_lists
from tests.fitted_pipelines import attach_clicks, make_model


def test_explain_gives_the_weights_beside_the_values_in_the_frame(fitted, frame_and_labels):
    frame, y = frame_and_labels
    table = explain(fitted, frame)
    for row, events in table.groupby("row"):
        assert events["hist_item"].tolist() == list(frame["hist_item"].iloc[row])
        assert events["hist_category"].tolist() == list(frame["hist_category"].iloc[row])
        assert events["position"].tolist() == list(range(len(events)))
    weights = fitted[-1].attention_weights(fitted[:-1].transform(frame))
    shared = ["row", "behaviour", "position", "weight"]
    pd.testing.assert_frame_equal(table[shared], weights[shared])
    without = frame[:1].assign(hist_item=[[]], hist_category=[[]])
    for by, column in (("weight", "weight"), ("leave_out", "effect")):
        table = explain(fitted, without, by=by)
        assert len(table) == 0
        assert table.columns[-2:].tolist() == [column, "share"]
    bag = make_model(HistorySequenceEncoder(), max_epochs=1).fit(frame[["item", "tags"]], y)
    with pytest.raises(ValueError, match=r"^by='leave_out' needs a history with a candidate"):
        explain(bag, frame[["item", "tags"]], by="leave_out")


def leave_each_out_of_the_frame(model, frame, columns):
    """The slow twin: drop one event from the frame's histories and predict again."""
    rows, without = [], []
    for row in range(len(frame)):
        for position in range(len(frame[columns[0]].iloc[row])):
            one = frame.iloc[[row]].copy()
            for name in columns:
                cell = list(one[name].iloc[0])
                one[name] = pd.Series([cell[:position] + cell[position + 1 :]], one.index)
            rows.append(row)
            without.append(one)
    return outputs(model, frame)[rows] - outputs(model, pd.concat(without))


@pytest.fixture(scope="module")
def rich():
    """Two behaviours, times elapsed, item neighbours; as lists."""
    X, y = attach_clicks(elapsed="hist_elapsed", n_users=20, n_items=20, n_categories=4)
    X = as_lists(X.assign(tags=[["red", "new"][: row % 3] for row in range(len(X))]))
    X["seen"] = [cell[::2] for cell in X["hist_item"]]
    histories = {
        ("hist_item", "hist_category", "hist_elapsed"): ("item", "category", None),
        "seen": "item",
        "tags": None,
    }
    encoder = HistorySequenceEncoder(histories=histories, user="user", time="time", max_length=99)
    model = make_model(encoder, max_epochs=3, lr=0.02, early_stopping=False).fit(X, y)
    rows, behaviours = X.tail(5), [["hist_item", "hist_category", "hist_elapsed"], ["seen"]]
    return model, rows, [leave_each_out_of_the_frame(model, rows, names) for names in behaviours]


@pytest.mark.parametrize("per_block", [1 << 20, 40, 1])
@pytest.mark.slow
def test_leaving_out_equals_dropping_the_event_from_the_frame(rich, monkeypatch, per_block):
    model, rows, expected = rich
    monkeypatch.setattr(module_of_explain, "EVENTS_PER_BLOCK", per_block)
    assert model[-1].net_.neighbours_.pairs, "neighbours are computed anew without the event"
    table = explain(model, rows, by="leave_out")
    by_behaviour = table.groupby("behaviour")["effect"]
    assert len(by_behaviour) == 2, "tags are no events"
    for (_, effects), of_frame in zip(by_behaviour, expected, strict=True):
        np.testing.assert_allclose(effects, of_frame, atol=2e-5)
    assert table["effect"].abs().max() > 0.01
    weights = explain(model, rows)
    shared = [name for name in weights if name not in ("weight", "share")]
    assert {*table} == {*shared, "effect", "share"}
    pd.testing.assert_frame_equal(table[shared], weights[shared])
    totals = table["share"].abs().groupby([table["row"], table["behaviour"]]).sum()
    np.testing.assert_allclose(totals, 1, atol=1e-5)
