"""Ctrl-C at any moment: what is there afterwards works, or says that it is not fitted."""

import gc
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_din import (
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    export_onnx,
    load,
    rank_candidates,
    save,
)
from sklearn_din.command_line.tables import write_table
from sklearn_din.training.early_stopping import EarlyStopping
from tests.interruptions import interrupt, n_lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ctrl_c_raises"),
    pytest.mark.filterwarnings("ignore:training was interrupted"),  # and can be used: tested here
]

N_MOMENTS = int(os.environ.get("MOMENTS", "6"))  # 500 in make proofs


def moments(function):
    """Some moments from the first line to the last one, all of them where they are few."""
    return np.unique(np.linspace(1, n_lines(function), N_MOMENTS).astype(int)).tolist()


def is_whole(raised):
    return raised is None or isinstance(raised, KeyboardInterrupt)


def test_attaching_and_ranking_change_nothing_when_they_are_interrupted(fitted, frame):
    plain = frame[["user", "item", "time"]].copy()
    candidates = frame[["item", "category", "price"]].drop_duplicates("item")
    users = frame.drop(columns=list(candidates)).head(3)
    expected = fitted.predict_proba(frame)

    def attach():
        attach_history(plain, plain, user="user", time="time", columns="item")

    def rank():
        rank_candidates(fitted, users, candidates)

    for function in (attach, rank):
        function()  # the first call of all imports what later ones have
        for moment in moments(function):
            assert isinstance(interrupt(function, moment), KeyboardInterrupt)
    pd.testing.assert_frame_equal(plain, frame[["user", "item", "time"]])
    np.testing.assert_array_equal(fitted.predict_proba(frame), expected)


def test_a_builder_whose_second_fit_is_interrupted_remembers_the_first(frame, y):
    plain = frame[["user", "item", "time"]]
    first = HistoryBuilder(user="user", time="time", columns="item").fit(plain, y)
    expected = first.transform(plain)["hist_item"].map(list)
    late = plain.assign(time=plain["time"] + pd.Timedelta("1D"))
    later = clone(first).fit(late, 1 - y).transform(plain)["hist_item"].map(list)
    for moment in moments(lambda: clone(first).fit(late, 1 - y)):
        builder = clone(first).fit(plain, y)
        assert is_whole(interrupt(lambda builder=builder: builder.fit(late, 1 - y), moment))
        found = builder.transform(plain)["hist_item"].map(list)
        assert found.equals(expected) or found.equals(later)


@pytest.mark.parametrize("step", ["encode", "din"])
def test_an_estimator_whose_fit_is_interrupted_works_or_is_not_fitted(fitted, frame, y, step):
    X = frame if step == "encode" else fitted[:-1].transform(frame)
    ask = "transform" if step == "encode" else "predict_proba"
    for moment in moments(lambda: clone(fitted[step]).fit(X, y)):
        estimator = clone(fitted[step])
        raised = interrupt(lambda estimator=estimator: estimator.fit(X, y), moment)
        assert is_whole(raised)
        try:
            getattr(estimator, ask)(X)
        except NotFittedError:
            assert raised is not None


def test_an_encoder_whose_second_fit_is_interrupted_encodes_as_before_or_is_not_fitted(frame):
    other = frame.assign(item="other", price=frame["price"] + 0.5)
    encoder = HistorySequenceEncoder(drop=["user", "time", "tags"])
    expected = [clone(encoder).fit(its).transform(frame)["item"].tolist() for its in (frame, other)]
    for moment in moments(lambda: clone(encoder).fit(other)):
        encoder.fit(frame)
        assert is_whole(interrupt(lambda: encoder.fit(other), moment))
        try:
            assert encoder.transform(frame)["item"].tolist() in expected
        except NotFittedError:
            assert not hasattr(encoder, "schema_")


def test_a_classifier_whose_second_fit_is_interrupted_predicts_as_before_or_as_after(fitted, frame):
    X = fitted[:-1].transform(frame)
    classifier = clone(fitted["din"]).set_params(max_epochs=1)
    y = np.arange(len(frame)) % 2
    first = classifier.fit(X, y).predict_proba(X)
    for moment in moments(lambda: classifier.fit(X, y)):
        classifier.fit(X, y)
        raised = interrupt(lambda: classifier.fit(X, np.where(y, "b", "a")), moment)
        assert is_whole(raised)
        found = classifier.predict_proba(X)
        assert np.isfinite(found).all()
        if classifier.classes_.tolist() == [0, 1]:
            np.testing.assert_array_equal(found, first)


@pytest.mark.parametrize("n_before", [0, 1])
def test_the_best_weights_in_the_end_are_those_of_one_check(n_before):
    checks = [{"valid_loss": 0.6}, {"valid_loss": 0.5}]

    def judge(stopping, n_checks):
        weights = {name: torch.full((2,), float(n_checks)) for name in "abc"}
        stopping.judge(checks[:n_checks], weights)

    def begin():
        stopping = EarlyStopping(1)
        if n_before:
            judge(stopping, n_before)
        return stopping

    for moment in range(1, n_lines(lambda: judge(begin(), 2)) + 1):
        stopping = begin()
        assert is_whole(interrupt(lambda given=stopping: judge(given, 2), moment))
        stopping.keep_latest()
        values = {value for weight in stopping.best.values() for value in weight.tolist()}
        assert (len(stopping.best), len(values)) in {(3, 1), (0, 0)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file
@pytest.mark.parametrize("what", ["save", "export", "scores.csv", "scores.parquet"])
def test_a_file_is_the_old_one_or_the_new_one_whole(fitted, frame, tmp_path, what):
    old, path = b"old", tmp_path / what
    write = {"save": lambda: save(fitted, path), "export": lambda: export_onnx(fitted, path)}.get(
        what, lambda: write_table(frame[["user", "price"]], path)
    )
    write()
    new = path.read_bytes()
    for moment in moments(write):
        path.write_bytes(old)
        assert is_whole(interrupt(write, moment))
        found = path.read_bytes()
        if what == "save" and found != old:  # skops names arrays by where they lay in memory
            assert zipfile.ZipFile(path).testzip() is None
        else:
            assert found in (old, new)
        assert [name for name in os.listdir(tmp_path) if name != what] == []
    gc.collect()  # closes what an interruption left open: here, not in another test
    path.write_bytes(new)
    if what == "save":
        np.testing.assert_array_equal(load(path).predict_proba(frame), fitted.predict_proba(frame))
