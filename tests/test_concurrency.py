"""Threads, forks and workers: the same predictions, no hang, nothing global changed."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    attach_history,
    explain,
    rank_candidates,
    update,
)
from sklearn_din.neighbours.tables import learn_neighbours
from sklearn_din.training.leaks import warn_of_leaks
from tests.fitted_pipelines import attach_clicks
from tests.processes import run_python
from tests.tables import said

pytestmark = pytest.mark.slow

N_THREADS = 8


def in_threads(function, arguments):
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(function, arguments))


def test_threads_explain_rank_attach_and_predict_as_one_does(fitted, frame):
    candidates = frame[["item", "category", "price"]].drop_duplicates("item")
    ranker = Ranker(fitted, candidates)

    def everything(row):
        users = frame.drop(columns=[*candidates]).iloc[[row]]
        shown = frame[["user", "time"]]
        past = attach_history(shown, frame, user="user", time="time", columns="item")
        ranked = rank_candidates(fitted, users, candidates, top_k=3)
        by_ranker = [ranker.rank(user, top_k=3) for user in (users, users.iloc[0].to_dict())]
        ranked = pd.concat([ranked, *by_ranker])
        explained = explain(fitted, frame.iloc[[row]])
        return explained, ranked, past["hist_item"].map(list), fitted.predict_proba(frame[row:])

    rows = range(N_THREADS)
    for ours, theirs in zip(map(everything, rows), in_threads(everything, rows), strict=True):
        pd.testing.assert_frame_equal(ours[0], theirs[0])
        pd.testing.assert_frame_equal(ours[1], theirs[1])
        pd.testing.assert_series_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])


def test_fits_in_threads_equal_fits_one_after_the_other_and_leave_torchs_seed(fitted, frame, y):
    settings = [{"din__dropout": 0.0}, {"din__dropout": 0.3}] * 2
    models = [clone(fitted).set_params(**parameters) for parameters in settings]
    alone = [clone(model).fit(frame, y).predict_proba(frame) for model in models]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    together = in_threads(lambda model: model.fit(frame, y).predict_proba(frame), models)
    assert torch.equal(before, torch.random.get_rng_state())
    for ours, theirs in zip(alone, together, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("estimator", [DINClassifier, DINRegressor])
def test_threads_that_ask_a_model_get_its_answers_while_updates_of_it_are_made(frame, y, estimator):
    steps = [
        HistoryBuilder(user="user", time="time", columns="item", prefix="past_", events="all"),
        HistorySequenceEncoder(user="user", time="time"),
        estimator(max_epochs=1, lr=0.02, random_state=0),
    ]
    model = make_pipeline(*steps).fit(frame, y)
    is_new = np.arange(len(frame)) % 2 == 0
    later = frame.assign(item=frame["item"].mask(is_new, "new " + frame["item"]))
    later["time"] = frame["time"].max()
    ask = model.predict if estimator is DINRegressor else model.predict_proba
    expected, finished = ask(later), threading.Event()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(lambda: [ask(later) for _ in iter(finished.is_set, True)])]
        updates = pool.map(lambda rows: update(model, later[rows], y[rows]), [slice(0, 150)] * 2)
        newer = [one.predict(later) for one in updates]
        finished.set()
    for thread in asking:
        assert all((answer == expected).all() for answer in thread.result())
    np.testing.assert_array_equal(*newer)


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


BLAS = """
    import os, threading, time
    from concurrent.futures import ThreadPoolExecutor
    import scipy.linalg
    from threadpoolctl import threadpool_info
    from sklearn_din.neighbours import holding, item_scores
    from sklearn_din.utils.blas import one_thread_of_blas
    from tests.fitted_pipelines import make_frame, make_model

    def count():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def noted(compute):
        return lambda *a, **k: seen.append(count()) or compute(*a, **k)

    def bounded(_):
        with one_thread_of_blas():
            time.sleep(0.001)
            return count()

    def failing():
        raise MemoryError

    seen, before = [], count()
    item_scores.invert = noted(item_scores.invert)
    holding.expit = noted(holding.expit)
    make_model().fit(*make_frame())
    print(before, *{*map(tuple, seen)}, len(seen) > 5, count())
    with ThreadPoolExecutor(8) as pool:
        print(*{*map(tuple, pool.map(bounded, range(100)))}, count())
    try:
        one_thread_of_blas()(failing)()
    except MemoryError:
        print(count())
    begun, ended = threading.Event(), threading.Event()

    @one_thread_of_blas()
    def wait():
        begun.set()
        ended.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    begun.wait()
    if hasattr(os, "fork"):
        if not (child := os.fork()):
            os._exit(bounded(0) != {1})
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    thread.join()
    print(count())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.proof
def test_forked_children_fit_and_predict_and_products_have_one_thread_of_blas_for_a_while():
    """In fits, in threads, after exceptions and in forked children; by default its threads spin."""
    child = run_python(FORKS + BLAS, OPENBLAS_NUM_THREADS="2")
    expected = "alike\n{2} (1,) True {2}\n(1,) {2}\n{2}\n{2}\n"
    assert child.stdout == expected, child.stderr


SECONDS = """
    import time
    import torch
    from tests.fitted_pipelines import attach_clicks, make_model

    log, y = attach_clicks(n_users=300, n_items=300)
    torch.set_num_threads(1)
    before = time.process_time() - time.thread_time()
    make_model().fit(log, y)
    print(time.process_time() - time.thread_time() - before)
"""


@pytest.mark.proof
def test_a_fit_of_one_thread_takes_no_seconds_of_another_one():
    """BLAS's threads, once woken, wait by spinning; OMP_NUM_THREADS alone would hide them."""
    child = run_python(SECONDS, OPENBLAS_NUM_THREADS="2")
    assert float(child.stdout) < 0.01, child.stderr


@pytest.mark.proof
def test_fits_of_a_search_in_two_processes_have_half_of_the_threads_each(monkeypatch):
    class Threads(Callback):
        def on_batch_end(self, net, **kwargs):  # in another process, which imports it
            from sklearn_din.native_network.logits import n_native_threads

            self.seen_ = n_native_threads.get()

    def count_threads(model, X, y):
        return dict(model.net_.callbacks_)["Threads"].seen_

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    get_reusable_executor().shutdown()  # processes of other tests, started with these variables
    options = {"scoring": count_threads, "cv": 2, "n_jobs": 2, "refit": False}
    classifier = DINClassifier(max_epochs=1, callbacks=[Threads()])
    search = GridSearchCV(classifier, {"lr": [0.001, 0.01]}, **options)
    search.fit(np.eye(20, dtype=np.float32), np.arange(20) % 2)
    get_reusable_executor().shutdown()
    assert {*search.cv_results_["mean_test_score"]} == {max(joblib.cpu_count() // 2, 1)}


@pytest.mark.parametrize("order", ["time", "user"])
def test_what_is_learnt_of_rows_has_the_same_bits_whatever_threads_torch_has(order, monkeypatch):
    frame, y = attach_clicks(n_users=90, n_items=60, n_categories=8, mean_length=12, random_state=0)
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(frame)
    digests, numbers, told = set(), [], []
    leaking = X._replace(columns=X.columns | {"price": y.astype(np.float32)})
    for n_threads in (1, 2, 4):  # of as many processors
        for place, name in ((torch, "get_num_threads"), (joblib, "cpu_count")):
            monkeypatch.setattr(place, name, lambda n_threads=n_threads: n_threads)
        tables, rows = learn_neighbours(X, y == 1, order=order, y=y)
        digests.add(tables.digest())
        numbers += [rows.to_numpy(), tables.add_to(X[::2]).to_numpy()]
        told.append(said(lambda: warn_of_leaks(leaking, y))[0])
    assert len(digests) == 1
    for own, expected in zip(numbers[2:], 2 * numbers[:2], strict=True):
        np.testing.assert_array_equal(own, expected)
    assert told[0]
    assert told[1:] == [told[0]] * 2
