"""Threads, forks and workers: the same predictions, no hang, nothing global changed."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    load,
    rank_candidates,
    save,
    update,
)
from sklearn_din.inspection.explain import explain
from tests.fitted_pipelines import fit_pipeline

HOUSE = Path(__file__).resolve().parents[1]
N_THREADS = 16


def in_threads(function, arguments):
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(function, arguments))


def test_threads_explain_rank_attach_and_predict_as_one_does(fitted, frame):
    def everything(row):
        users = frame.drop(columns=["item", "category", "price"]).iloc[[row]]
        candidates = frame[["item", "category", "price"]].drop_duplicates("item")
        past = attach_history(
            frame[["user", "time"]], frame, user="user", time="time", columns="item"
        )
        ranked = rank_candidates(fitted, users, candidates, top_k=3)
        explained = explain(fitted, frame.iloc[[row]])
        return explained, ranked, past["hist_item"].map(list), fitted.predict_proba(frame[row:])

    for ours, theirs in zip(
        map(everything, range(N_THREADS)), in_threads(everything, range(N_THREADS)), strict=True
    ):
        pd.testing.assert_frame_equal(ours[0], theirs[0])
        pd.testing.assert_frame_equal(ours[1], theirs[1])
        pd.testing.assert_series_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])


def test_fits_in_threads_equal_fits_one_after_the_other_and_leave_torchs_seed(frame, y):
    settings = [{"din__dropout": 0.0}, {"din__dropout": 0.3}] * 2
    models = [clone(fit_pipeline(frame, y)).set_params(**parameters) for parameters in settings]
    alone = [clone(model).fit(frame, y).predict_proba(frame) for model in models]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    together = in_threads(lambda model: model.fit(frame, y).predict_proba(frame), models)
    assert torch.equal(before, torch.random.get_rng_state())
    for ours, theirs in zip(alone, together, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("estimator", [DINClassifier, DINRegressor])
def test_every_answer_is_one_models_while_eight_updates_replace_it(frame, y, estimator):
    parts = [frame.iloc[start::10] for start in range(9)]
    parts = [part.assign(item=f"{n} " + part["item"]) for n, part in enumerate(parts)]
    labels = [y[start::10] for start in range(9)]
    rows = pd.concat([part.iloc[:4] for part in parts]).assign(time=frame["time"].max())
    steps = [
        HistoryBuilder(user="user", time="time", columns="item", prefix="past_", events="all"),
        HistorySequenceEncoder(user="user", time="time"),
        estimator(max_epochs=1, lr=0.02, random_state=0),
    ]
    model = make_pipeline(*steps).fit(parts[0], labels[0])
    ask = model.predict if estimator is DINRegressor else model.predict_proba
    answers, finished = [ask(rows)], threading.Event()

    def ask_often(_):
        return [ask(rows) for _ in iter(finished.is_set, True)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-3)
    try:
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask_often, n) for n in range(8)]
            for part, own in zip(parts[1:], labels[1:], strict=True):
                update(model, part, own)
                answers.append(ask(rows))
            finished.set()
        given = [answer for thread in asking for answer in thread.result()]
    finally:
        finished.set()
        sys.setswitchinterval(interval)
    assert all(abs(a - b).max() > 1e-4 for a, b in pairwise(answers))
    distances = [min(abs(answer - one).max() for one in answers) for answer in given]
    assert max(distances) < 1e-6, f"{sum(d > 1e-6 for d in distances)} of {len(given)} are mixed"


class UpdateOnce(FunctionTransformer):
    """A step that lets ``update`` change the model when its turn to be copied comes."""

    changes: ClassVar = []

    def __getstate__(self):
        with ThreadPoolExecutor() as pool:
            while self.changes:
                pool.submit(self.changes.pop()).result()
        return super().__getstate__()


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "joblib": lambda model: joblib.load(*joblib.dump(model, "model.joblib")),
    "save": lambda model: save(model, "m") or load("m", trusted=[f"{__name__}.UpdateOnce"]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_made_while_update_runs_is_of_one_model(frame, y, kind, tmp_path, monkeypatch):
    copied = COPIES[kind]
    monkeypatch.chdir(tmp_path)
    new = frame[::3].assign(item="new " + frame["item"])
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = make_pipeline(encoder, UpdateOnce(), DINClassifier(max_epochs=1, random_state=0))
    expected = model.fit(frame, y).predict_proba(new)
    UpdateOnce.changes.append(lambda: update(model, new, y[::3]))
    np.testing.assert_array_equal(copied(model).predict_proba(new), expected)
    for whole in (copied(model), make_pipeline(*map(copied, (encoder, *model[1:])))):
        np.testing.assert_array_equal(whole.predict_proba(new), model.predict_proba(new))
    assert abs(model.predict_proba(new) - expected).max() > 1e-4


def test_a_state_that_is_held_makes_no_later_copy_an_old_one(frame, y):
    model = fit_pipeline(frame, y)
    held = [step.__getstate__() for step in model]
    update(model, frame, y)
    copied = copy.deepcopy(model).predict_proba(frame)
    np.testing.assert_array_equal(copied, model.predict_proba(frame))
    assert held


FORKS = """
    import multiprocessing, os, sys, warnings
    import torch
    from tests.fitted_pipelines import fit_pipeline, make_frame

    torch.set_num_threads(2)
    frame, y = make_frame()
    model = fit_pipeline(frame, y)
    expected = model.predict_proba(frame)
    read, write = os.pipe()
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
    if not os.fork():
        threads = [torch.get_num_threads()]  # until a network of ours runs
        alike = (model.predict_proba(frame) == expected).all()
        threads.append(torch.get_num_threads())
        fit_pipeline(frame, y)
        os.write(write, b"1" if alike and threads == [2, 1] else b"0")
        os._exit(0)
    assert os.read(read, 1) == b"1"
    os.wait()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(model.predict_proba, [frame] * 4):
            assert (found == expected).all()
    assert torch.get_num_threads() == 2
    print("alike")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fitted_model_predicts_and_is_fitted_in_forked_children():
    code = textwrap.dedent(FORKS)
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, timeout=120
    )
    assert child.stdout == "alike\n", child.stderr
