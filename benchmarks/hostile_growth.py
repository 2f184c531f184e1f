"""Hostile frames for models that grow and for files: steps of ``hostile_draws.py``.

A model that is asked to learn from a hostile frame learns all of it or nothing: where it refuses,
its answers about what it knew are the same to the bit.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks.hostile_steps import (
    Step,
    assert_row_by_row,
    assert_same_columns,
    good_frame,
    good_model,
    labels_of,
    small_pipeline,
)
from sklearn_din import HistorySequenceEncoder, inspect, load, save, update


def grow(frame: pd.DataFrame) -> object:
    """Fit on the first rows and grow by the others: what was known keeps its ids."""
    first, later = np.array_split(np.arange(len(frame)), 2)
    known = frame.iloc[first]
    encoder = HistorySequenceEncoder().fit(known)
    before = encoder.transform(known)
    try:
        encoder.partial_fit(frame.iloc[later])
    except (ValueError, TypeError):
        assert_same_columns(encoder.transform(known), before)
        raise
    assert_same_columns(encoder.transform(known), before)
    X = encoder.transform(frame)
    for name in X.schema.names("categorical", "numeric"):
        assert not np.isnan(X[name]).any(), name
    return X


def learn(frame: pd.DataFrame) -> object:
    """Update a good model by the frame."""
    names = ["item", "price", "hist_item"]
    return _updated(copy.deepcopy(good_model()), good_frame(), frame[names])


def learn_later(frame: pd.DataFrame) -> object:
    """Fit a model on the first rows, and update it by the others."""
    first, later = np.array_split(np.arange(len(frame)), 2)
    known = frame.iloc[first]
    model = small_pipeline().fit(known, labels_of(known))
    return _updated(model, known, frame.iloc[later])


def _updated(model: Pipeline, known: pd.DataFrame, later: pd.DataFrame) -> object:
    """Update a model, which is finite afterwards, or as it was to the bit."""
    before = model.predict_proba(known)
    try:
        update(model, later, labels_of(later))
    except (ValueError, TypeError):
        assert (model.predict_proba(known) == before).all(), "half an update"
        raise
    assert np.isfinite(model.predict_proba(known)).all()
    probability = model.predict_proba(later)
    assert_row_by_row(probability, last=model.predict_proba(later.iloc[-1:]))
    return probability


def keep(frame: pd.DataFrame) -> object:
    """Save an encoder that knows the frame: the loaded one encodes it to the same ids."""
    encoder = HistorySequenceEncoder().fit(frame)
    expected = encoder.transform(frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.din"
        save(encoder, path)
        try:
            again = load(path, trusted=inspect(path)["untrusted"])
        except ValueError as error:
            raise AssertionError("what was saved cannot be loaded") from error
    assert_same_columns(again.transform(frame), expected)
    assert again.schema_ == encoder.schema_
    return again


STEPS = {
    "partial_fit": Step(grow, least_rows=2),
    "update": Step(learn_later, least_rows=4, every=5),
    "update of a good model": Step(learn, frozenset({"item", "price", "hist_item"})),
    "save and load": Step(keep),
}
