"""Steps of ``hostile_frames.py``: what is done with each frame, and what a right answer is.

A step calls one function of the package and asserts what must hold of its answer, whatever the
frame: the answer about a row does not depend on the rows beside it, probabilities are finite,
negatives are items that the user has not. A model that learns from a hostile frame
learns all of it or nothing: where it raises, its predictions of earlier rows are the same to the
bit.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import (
    DINClassifier,
    EncodedFeatures,
    HistorySequenceEncoder,
    attach_history,
    inspect,
    load,
    rank_candidates,
    sample_negatives,
    save,
    update,
)
from sklearn_din.__main__ import main as command_line
from sklearn_din.inspection.explain import explain
from sklearn_din.logs.aggregates import attach_aggregates

CLOSE = 1e-5  # of two float32 probabilities of one row
GOOD = ["item", "price", "hist_item"]  # what the good model takes


class RefusedError(ValueError):
    """The command line's own error, or a frame that pandas cannot write to a file."""


def attach(frame: pd.DataFrame) -> object:
    """Attach the frame's own history to it; a row alone has the same one."""
    roles = {"user": "user", "time": "time", "columns": ["item"], "prefix": "past_"}
    attached = attach_history(frame, frame, **roles)
    alone = attach_history(frame.iloc[-1:], frame, **roles)
    first, second = attached["past_item"].array[-1], alone["past_item"].array[0]
    assert len(first) == len(second)
    assert all(one is two or equal_values(one, two) for one, two in zip(first, second, strict=True))
    return attached


def aggregate(frame: pd.DataFrame) -> object:
    """Attach counts and means; a row alone has the same ones, and a mean lies among its values."""
    number = "price" if "price" in frame else "item"
    aggregates = {
        "n so far": ("user", None, "count"),
        "mean so far": ("user", number, "mean"),
        "sum of pair": (("user", "item"), number, "sum"),
    }
    attached = attach_aggregates(frame, frame, time="time", aggregates=aggregates)
    alone = attach_aggregates(frame.iloc[-1:], frame, time="time", aggregates=aggregates)
    for name in aggregates:
        ours, theirs = attached[name].to_numpy()[-1:], alone[name].to_numpy()
        assert np.array_equal(ours, theirs, equal_nan=True), name
    assert attached["n so far"].between(0, len(frame) - 1).all()
    return attached


def negatives(frame: pd.DataFrame) -> object:
    """Sample negatives: the events as they were, and items that their users have not."""
    user = "user" if "user" in frame else None
    other = [name for name in ("category",) if name in frame]
    shown, y = sample_negatives(
        frame, item="item", user=user, item_columns=other, n_negatives=2, random_state=0
    )
    assert list(shown.columns) == list(frame.columns)
    assert (shown.dtypes == frame.dtypes).all()
    assert_negatives(shown["item"].tolist(), y, frame, user)
    return shown


def encode(frame: pd.DataFrame) -> object:
    """Fit and transform, and ask that rows alone are encoded as all together."""
    encoder = HistorySequenceEncoder()
    X = encoder.fit_transform(frame)
    again = encoder.transform(frame.iloc[:1])
    for name in X.schema.names("categorical", "numeric"):
        assert np.array_equal(again[name], X[name][:1], equal_nan=True), name
        assert not np.isnan(X[name]).any(), name
    return X


def classify(frame: pd.DataFrame) -> object:
    """Train one epoch and ask for finite probabilities that no neighbour changes."""
    X = encode(frame)
    classifier = small_pipeline()[-1].fit(X, labels_of(frame))
    probability = classifier.predict_proba(X)
    assert_row_by_row(probability, classifier.predict_proba(X[:1]), row=0)
    return probability


def serve(frame: pd.DataFrame) -> object:
    """Score the frame by a model that was fitted on a good one."""
    model, rows = good_model(), frame[GOOD]
    probability = model.predict_proba(rows)
    assert_row_by_row(probability, model.predict_proba(rows.iloc[-1:]))
    return probability


def rank(frame: pd.DataFrame) -> object:
    """Rank the frame's own candidates: the probabilities of scoring pairs as one frame."""
    model = small_pipeline().fit(frame, labels_of(frame))
    candidates = frame[["item"]]
    users = frame.drop(columns="item")
    ranked = rank_candidates(model, users, candidates, top_k=len(frame))
    assert len(ranked) == len(frame) ** 2
    probability = ranked["probability"].to_numpy()
    assert np.isfinite(probability).all()
    best = ranked[ranked["rank"] == 1]
    for row in range(len(frame)):
        pairs = users.iloc[[row] * len(frame)].reset_index(drop=True)
        pairs.insert(frame.columns.get_loc("item"), "item", candidates["item"].array)
        expected = model.predict_proba(pairs)[:, 1]
        assert np.allclose(best["probability"].iloc[row], expected.max(), atol=CLOSE), row
    return ranked


def explained(frame: pd.DataFrame) -> object:
    """Explain the frame's rows: finite weights, of the events that the encoder kept."""
    model = small_pipeline().fit(frame, labels_of(frame))
    weights = explain(model, frame)
    assert np.isfinite(weights["weight"]).all()
    assert weights["row"].between(0, len(frame) - 1).all()
    assert weights["share"].abs().le(1 + CLOSE).all()
    return weights


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
    return _updated(good_model(), good_frame(), frame[GOOD])


def learn_later(frame: pd.DataFrame) -> object:
    """Fit a model on the first rows, and update it by the others."""
    first, later = np.array_split(np.arange(len(frame)), 2)
    known = frame.iloc[first]
    model = small_pipeline().fit(known, labels_of(known))
    return _updated(model, known, frame.iloc[later])


def _updated(model: Pipeline, known: pd.DataFrame, later: pd.DataFrame) -> object:
    """Update a model: the new one is finite, the old one as it was to the bit."""
    before = model.predict_proba(known)
    try:
        newer = update(model, later, labels_of(later))
    finally:
        assert (model.predict_proba(known) == before).all(), "the old model changed"
    assert np.isfinite(newer.predict_proba(known)).all()
    probability = newer.predict_proba(later)
    assert_row_by_row(probability, newer.predict_proba(later.iloc[-1:]))
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


def command(frame: pd.DataFrame, write: str = "to_csv") -> object:
    """Run the command line on the frame as a file; a mistake is one line and status 2."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / ("log.csv" if write == "to_csv" else "log.parquet")
        try:
            getattr(_without_histories(frame), write)(log, index=False)
        except Exception as error:  # pandas cannot write it
            raise RefusedError("no such file can be written") from error
        return _run_command(log)


def command_parquet(frame: pd.DataFrame) -> object:
    """Run the command line on the frame as Parquet."""
    cells = (cell for number in range(frame.shape[1]) for cell in frame.iloc[:, number].tolist())
    if any(isinstance(cell, np.generic) for cell in cells):
        raise RefusedError("writing it would crash Arrow")
    return command(frame, "to_parquet")


def _without_histories(frame: pd.DataFrame) -> pd.DataFrame:
    """The command line makes them itself, and refuses columns of their names."""
    return frame[[name for name in frame.columns if not name.startswith("hist_")]]


def _run_command(log: Path) -> object:
    output = log.with_name("scored.csv")
    arguments = [str(log), "--user", "user", "--item", "item", "--time", "time"]
    arguments += ["--picture", str(log.with_name("attention.png")), "--output", str(output)]
    arguments += ["--folds", "2", "--epochs", "1", "--negatives", "1", "--drop-bad"]
    messages = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(messages):
        try:
            status = command_line(arguments)
        except SystemExit as error:
            status = error.code
    lines = [line for line in messages.getvalue().splitlines() if not line.startswith("note: ")]
    assert "Traceback" not in messages.getvalue()
    assert status in (0, 2), status
    assert len(lines) == (0 if status == 0 else 1), lines
    if status:
        assert not output.exists(), "a failed run left a file"
        raise RefusedError(lines[0])
    probability = pd.read_csv(output)["probability"]
    assert probability.between(0, 1).all()
    return probability


class Step(NamedTuple):
    """One function under test: what it needs of a frame, and how often a benchmark runs it."""

    run: Callable[[pd.DataFrame], object]
    needs: frozenset[str] = frozenset()
    least_rows: int = 1
    every: int = 1

    def takes(self, frame: pd.DataFrame) -> bool:
        """Return whether the frame has the columns and the rows that the step is about."""
        return self.needs <= set(frame.columns) and len(frame) >= self.least_rows


LOG = frozenset({"user", "item", "time"})
STEPS = {
    "attach_history": Step(attach, LOG),
    "attach_aggregates": Step(aggregate, LOG),
    "sample_negatives": Step(negatives, frozenset({"item"})),
    "encoder": Step(encode),
    "classifier": Step(classify, least_rows=2, every=5),
    "predict": Step(serve, frozenset(GOOD)),
    "rank_candidates": Step(rank, frozenset({"item"}), least_rows=2, every=5),
    "explain": Step(explained, frozenset({"item", "hist_item"}), least_rows=2, every=5),
    "command line, CSV": Step(command, LOG, least_rows=4, every=10),
    "command line, Parquet": Step(command_parquet, LOG, least_rows=4, every=10),
    "partial_fit": Step(grow, least_rows=2),
    "update": Step(learn_later, least_rows=4, every=5),
    "update of a good model": Step(learn, frozenset(GOOD)),
    "save and load": Step(keep),
}


def assert_row_by_row(probability: np.ndarray, alone: np.ndarray, row: int = -1) -> None:
    """Probabilities are finite, and that of one row alone is the same."""
    assert np.isfinite(probability).all()
    assert np.allclose(alone[0], probability[row], atol=CLOSE), "a neighbour changes the prediction"


def assert_negatives(shown: list, y: np.ndarray, events: pd.DataFrame, user: str | None) -> None:
    """Two negatives follow each event: items of the catalogue that its user has not."""
    assert list(y) == [1, 0, 0] * len(events)
    owners = events[user].tolist() if user else list(range(len(events)))
    items = events["item"].tolist()
    own, catalogue = set(zip(owners, items, strict=True)), set(items)
    for row, item in enumerate(shown):
        assert item in catalogue, item
        assert row % 3 == 0 or (owners[row // 3], item) not in own, item


def assert_same_columns(actual: EncodedFeatures, expected: EncodedFeatures, *, atol=None) -> None:
    """All columns are there and the same: to the bit, or as close as ``atol`` says."""
    assert set(actual) == set(expected)
    for name in expected:
        both = actual[name], expected[name]
        assert np.array_equal(*both) if atol is None else np.allclose(*both, atol=atol), name


def labels_of(frame: pd.DataFrame) -> np.ndarray:
    return np.arange(len(frame)) % 2


def small_pipeline() -> Pipeline:
    sizes = {"max_epochs": 1, "embedding_dim": 2, "hidden_units": (4,)}
    classifier = DINClassifier(**sizes, random_state=0)
    return Pipeline([("encode", HistorySequenceEncoder()), ("din", classifier)])


def good_frame() -> pd.DataFrame:
    """Eight rows that are as they should be."""
    frame = pd.DataFrame({"item": ["hat", "sock"] * 4, "price": np.arange(8.0)})
    frame["hist_item"] = [["hat"], [], ["sock", "hat"], ["tie"]] * 2
    return frame


@cache
def good_model() -> Pipeline:
    """Return a model that was fitted on them."""
    return small_pipeline().fit(good_frame(), labels_of(good_frame()))


def equal_values(one: object, other: object) -> bool:
    """Return whether two values read the same; NaN is itself, an array its elements."""
    return type(one) is type(other) and repr(one) == repr(other)
