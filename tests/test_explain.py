"""Explanations speak the caller's own values."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_din.estimator import DINClassifier
from sklearn_din.inspection.explain import decode_weights, explain
from sklearn_din.inspection.fitted import FittedPipeline
from sklearn_din.transformers import HistorySequenceEncoder


def test_explain_names_every_event_by_the_value_in_the_frame(fitted, frame_and_labels):
    frame, _ = frame_and_labels
    table = explain(fitted, frame)
    for row, events in table.groupby("row"):
        assert events["hist_item"].tolist() == list(frame["hist_item"].iloc[row])
        assert events["hist_category"].tolist() == list(frame["hist_category"].iloc[row])
        assert events["position"].tolist() == list(range(len(events)))


def test_explain_gives_the_weights_of_the_classifier(fitted, frame_and_labels):
    frame, _ = frame_and_labels
    table = explain(fitted, frame[:20])
    weights = fitted[-1].attention_weights(fitted[:-1].transform(frame[:20]))
    pd.testing.assert_frame_equal(
        table[["row", "behaviour", "position", "weight"]],
        weights[["row", "behaviour", "position", "weight"]],
    )


def test_shares_are_weights_over_the_sum_of_absolute_weights():
    class FixedWeights:
        def attention_weights(self, X):
            return X

    class FixedNames:
        def inverse_transform_ids(self, name, ids):
            return np.array(["hat", "sock", None], dtype=object)[ids]

    given = pd.DataFrame(
        {
            "row": [0, 0, 0, 2, 2],
            "behaviour": ["clicks", "clicks", "carts", "clicks", "clicks"],
            "position": [0, 1, 0, 0, 1],
            "hist_item": [0, 1, 2, 0, 0],
            "weight": np.array([3.0, -1.0, -2.0, 0.0, 0.0], dtype="float32"),
        }
    )
    table = decode_weights(FittedPipeline(None, FixedNames(), FixedWeights()), given)
    assert table["share"].tolist() == [0.75, -0.25, -1.0, 0.0, 0.0]
    assert table["hist_item"].tolist() == ["hat", "sock", None, "hat", "hat"]


def test_a_value_not_seen_at_fit_is_none(fitted, frame_and_labels):
    frame, _ = frame_and_labels
    one = frame[:1].assign(hist_item=[["i1", "never seen"]], hist_category=[[1, 2]])
    assert explain(fitted, one)["hist_item"].tolist()[1] is None


def test_explain_of_rows_without_a_past_is_an_empty_table(fitted, frame_and_labels):
    frame, _ = frame_and_labels
    one = frame[:1].assign(hist_item=[[]], hist_category=[[]])
    table = explain(fitted, one)
    assert len(table) == 0
    assert table.columns[-2:].tolist() == ["weight", "share"]


def test_explain_takes_the_best_pipeline_of_a_search(frame_and_labels):
    frame, y = frame_and_labels
    frame = frame[["item", "hist_item"]]
    pipeline = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    search = GridSearchCV(pipeline, {"dinclassifier__pooling": ["sum"]}, cv=2).fit(frame, y)
    pd.testing.assert_frame_equal(explain(search, frame), explain(search.best_estimator_, frame))


def test_explain_needs_the_fitted_pipeline(fitted, frame_and_labels):
    frame, _ = frame_and_labels
    with pytest.raises(TypeError, match=r"needs the whole fitted Pipeline.*got DINClassifier\."):
        explain(fitted[-1], frame)
    with pytest.raises(TypeError, match="got a Pipeline of HistorySequenceEncoder"):
        explain(fitted[:-1], frame)
    with pytest.raises(TypeError, match="needs a HistorySequenceEncoder among"):
        explain(make_pipeline(DINClassifier().fit([[0.0], [1.0]], [0, 1])), frame)
    with pytest.raises(NotFittedError):
        explain(make_pipeline(HistorySequenceEncoder(), DINClassifier()), frame)
