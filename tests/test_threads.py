"""How many threads a training uses, and that its result does not depend on it."""

import os
import sys

import joblib
import numpy as np
import pytest
import torch

from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.network.segments import alike_for_all_threads, product_over_rows, sum_of_products
from sklearn_din.training import threads
from sklearn_din.training.threads import ThreadChoice, choose_threads, is_fused, sums_are_alike
from tests.fitted_pipelines import attach_clicks

N_THREADS = 1, 2, 3


@pytest.fixture
def torch_threads():
    """A function that sets torch's threads; afterwards they are as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def impressions():
    frame, y = attach_clicks(n_users=60, random_state=0)
    return HistorySequenceEncoder(user="user", time="time").fit_transform(frame), y


def same_bits(compute, set_threads):
    results = []
    for n_threads in N_THREADS:
        set_threads(n_threads)
        results.append(compute())
    return all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("n_rows", [1, 7, 8, 5_001, 40_003])
def test_sums_over_rows_are_right_and_have_the_same_bits_with_any_threads(n_rows, torch_threads):
    generator = torch.Generator().manual_seed(n_rows)
    left, right = (torch.randn(n_rows, width, generator=generator) for width in (24, 16))
    exact = left.double().t() @ right.double()
    torch.testing.assert_close(product_over_rows(left, right), exact.float(), rtol=1e-4, atol=2e-3)
    same = torch.randn(n_rows, 24, generator=generator)
    total = (left.double() * same.double()).sum().float()
    torch.testing.assert_close(sum_of_products(left, same), total, rtol=1e-4, atol=2e-3)
    token = alike_for_all_threads.set(True)
    torch.testing.assert_close(product_over_rows(left, right), exact.float(), rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(sum_of_products(left, same), total, rtol=1e-4, atol=2e-3)
    try:
        assert same_bits(lambda: product_over_rows(left, right), torch_threads)
        assert same_bits(lambda: sum_of_products(left, same), torch_threads)
    finally:
        alike_for_all_threads.reset(token)


@pytest.mark.parametrize(
    "options", [{}, {"interest": "paper"}, {"pooling": "max", "neighbours": None}]
)
def test_a_training_has_the_same_bits_whatever_threads_its_steps_have(
    options, impressions, torch_threads, monkeypatch
):
    """Hence the clock may choose. Here the number changes at every step."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "SMALL_STEP", 0)
    monkeypatch.setattr(ThreadChoice, "note", lambda choice, seconds, size: choice._exchange())
    assert sums_are_alike(2), "this library of products is not one that may change threads"
    X, y = impressions
    predictions = []
    for n_threads in N_THREADS[1:]:
        torch_threads(n_threads)
        fitted = DINClassifier(max_epochs=1, random_state=0, **options).fit(X, y)
        assert torch.get_num_threads() == n_threads
        predictions.append(fitted.decision_function(X[:64]))
    assert all(np.array_equal(each, predictions[0]) for each in predictions)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"pooling": "sum"}, True),
        ({"activation": "dice"}, False),
        ({"attention_activation": "relu"}, False),
        ({"attention_normalization": "softmax"}, False),
        ({"dropout": 0.5}, False),
    ],
)
def test_where_sums_are_torchs_own_the_clock_chooses_nothing(
    options, expected, impressions, torch_threads, monkeypatch
):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    torch_threads(2)
    X, y = impressions
    module = DINClassifier(max_epochs=1, random_state=0, **options).fit(X[:100], y[:100]).module_
    assert is_fused(module) is expected
    with choose_threads(module, may_choose=True) as choice:
        assert (choice is not None) is expected
    with choose_threads(module, may_choose=False) as choice:
        assert choice is None
        assert torch.get_num_threads() == 2


def test_no_more_threads_than_the_process_may_use_nor_than_torch_was_given(
    torch_threads, monkeypatch
):
    torch_threads(8)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)  # of a container: torch counts all cores
    with choose_threads(torch.nn.Linear(1, 1), may_choose=True):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 8
    torch_threads(1)
    with choose_threads(torch.nn.Linear(1, 1), may_choose=True) as choice:
        assert choice is None
        assert torch.get_num_threads() == 1


@pytest.fixture
def idle(monkeypatch):
    """A processor for every thread, whatever else this machine does."""
    monkeypatch.setattr(threads, "are_idle", lambda n_processors: True)


def run(choice, seconds_of, n_steps):
    """Take steps that take the seconds of ``seconds_of(n_threads)``: seconds, and most used."""
    total, used = 0.0, []
    for _ in range(n_steps):
        used.append(choice.n_threads)
        seconds = seconds_of(choice.n_threads)
        choice.note(seconds, 1)
        total += seconds
    return total, max(used, key=used.count)


def quiet(n_threads):
    return 0.010 if n_threads == 2 else 0.0125


def busy(n_threads):
    return 0.8 if n_threads == 2 else 0.015


def test_the_faster_number_of_threads_is_found_and_trials_cost_little(idle):
    for seconds_of, fastest, best in [(quiet, 2, 0.010), (busy, 1, 0.015)]:
        choice = ThreadChoice(2)
        run(choice, seconds_of, 100)  # the first trial comes at once
        total, used = run(choice, seconds_of, 20_000)
        assert used == fastest
        assert total < 1.03 * 20_000 * best


def test_threads_follow_a_machine_that_becomes_busy_and_quiet_again(idle):
    choice = ThreadChoice(2)
    assert run(choice, quiet, 1_000)[1] == 2
    total, used = run(choice, busy, 2_000)
    assert used == 1
    assert total < 1.2 * 2_000 * 0.015
    run(choice, quiet, 10_000)  # what the last trial lost is paid off
    assert run(choice, quiet, 1_000)[1] == 2


def test_steps_of_any_size_are_compared_by_their_size(idle):
    choice = ThreadChoice(2)
    sizes = np.random.RandomState(0).randint(1, 50, size=3_000)
    used = []
    for size in sizes:
        used.append(choice.n_threads)
        choice.note(quiet(choice.n_threads) * size, size)
    assert used[-1_000:].count(2) > 950


def test_small_steps_are_taken_by_one_thread(torch_threads, monkeypatch):
    choice = ThreadChoice(2)
    monkeypatch.setattr(choice, "note", None)
    torch_threads(1)
    for _ in range(20):
        with choice.step(threads.SMALL_STEP - 1):
            assert torch.get_num_threads() == 1
            assert not alike_for_all_threads.get()


@pytest.mark.skipif(sys.platform != "linux", reason="the system is asked in /proc")
def test_more_threads_are_not_tried_where_all_processors_have_work(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # this process has it
    assert not threads.are_idle(1)
    choice = ThreadChoice(2)
    assert run(choice, busy, 1_000)[0] == pytest.approx(1_000 * 0.015)
    monkeypatch.setattr(os, "cpu_count", lambda: 100_000)
    assert threads.are_idle(1)
    assert run(choice, quiet, 1_000)[1] == 2
