"""Two processes train one model: the same as one process, and all of them end when one does."""

import os
import re
import shutil
import warnings

import numpy as np
import pytest
import torch.distributed as dist

from sklearn_din import Checkpoint, DINClassifier
from sklearn_din.resilient import checkpoint
from sklearn_din.resilient.ranks import Ranks
from tests import training_together as together
from tests.processes import run_together

SCRIPT = "training_together.py"
WITHIN = 1e-6  # of the weights of one process, in double precision
OTHERWISE = 2e-5  # Adam divides by the size of gradients: where they cancel out, rounding is seen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
    pytest.mark.usefixtures("one_thread"),  # as in the two processes
    pytest.mark.filterwarnings("ignore:the validation rows hardly follow"),  # labels by chance
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of two processes, case by case; docs/guide/long_training.rst runs torchrun."""
    folder = tmp_path_factory.mktemp("together")
    cases = [*together.CASES, *together.ERRORS, *together.STOPS, "killed at the end"]
    assert run_together(SCRIPT, folder, *cases) == [0, -9]
    return folder


def results(folder, case):
    found = [np.load(folder / f"{case} {rank}.npz") for rank in (0, 1)]
    return [{name: its[name] for name in its.files} for its in found]


def errors(folder, case):
    return [(folder / f"{case} {rank}.txt").read_text() for rank in (0, 1)]


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name, its in first.items():
        np.testing.assert_array_equal(its, second[name], err_msg=name)


def assert_close(found, expected, within=OTHERWISE):
    assert found.keys() == expected.keys()
    for name, its in expected.items():
        if name == "stop":
            assert found[name].tolist() == its.tolist()
        else:
            np.testing.assert_allclose(found[name], its, atol=within, rtol=1e-6, err_msg=name)


OF_EACH_PROCESS = ("dropout", "as published", "one row per batch")  # its draws, Dice's moments
ALIKE = [case for case in together.CASES if case not in (*OF_EACH_PROCESS, "no seed")]


@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_train_the_model_of_one(folder, case):
    first, second = results(folder, case)
    assert_same_bits(first, second)
    alone = together.results_of(together.fit(case))
    assert_close(first, alone, WITHIN if case in together.DOUBLE else OTHERWISE)


@pytest.mark.parametrize("case", OF_EACH_PROCESS)
def test_dropout_and_dice_of_each_process_train_one_model_that_is_about_that_of_one(folder, case):
    first, second = results(folder, case)
    assert_same_bits(first, second)
    alone = together.results_of(together.fit(case))
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=0.05)
    if case == "as published":
        moments = [name for name in first if name.endswith(("running_mean", "running_var"))]
        assert moments
        for name in moments:
            np.testing.assert_allclose(first[name], alone[name], rtol=0.3, atol=0.05)


def test_the_cases_are_what_they_say(folder):
    first = results(folder, "as usual")[0]
    assert first["stop"][0] == "patience"
    assert first["steps"].min() >= 200
    assert first["weight embeddings.tables.4"].shape == (23, 4)


def test_without_a_seed_all_take_that_of_the_first(folder):
    first, second = results(folder, "no seed")
    assert_same_bits(first, second)
    assert np.abs(first["losses"] - results(folder, "undisturbed")[0]["losses"][:2]).max() > 1e-4


@pytest.mark.parametrize("case", ["grown", "grown by lists"])
def test_a_classifier_grows_in_two_processes_as_in_one(folder, case):
    first, second = results(folder, case)
    assert_same_bits(first, second)
    assert_close(first, together.results_of(together.STOPS[case]()))


@pytest.mark.parametrize("by", ["a callback", "Ctrl-C"])
def test_who_stops_one_process_stops_all_at_the_same_step(folder, by):
    first, second = results(folder, f"stopped by {by}")
    assert_same_bits(first, second)
    assert first["stop"].tolist() == ["callback" if by == "a callback" else "user", "2"]
    assert first["steps"].max() == 12


@pytest.mark.parametrize(("case", "differs"), [
    ("other rows", r"the number of rows; y; "),
    ("other parameters", "lr"),
    ("other folders", "Checkpoint in callbacks was False and is True"),
])  # fmt: skip
def test_different_data_or_parameters_are_an_error_in_all_at_once(folder, case, differs):
    for error in errors(folder, case):
        message = f"those of rank 1 differ from those of rank 0 in: .*{differs}.*Give every process"
        assert re.search(message, error)


@pytest.mark.parametrize(("case", "rank", "error"), [
    ("missing numbers", 1, "ValueError: Input X contains NaN"),
    ("failing callback", 1, "ZeroDivisionError: a callback's own mistake"),
    ("failing rank 0", 0, "ZeroDivisionError: a callback's own mistake"),
])  # fmt: skip
def test_an_error_in_one_process_ends_the_others_with_its_words(folder, case, rank, error):
    told = errors(folder, case)
    assert told[rank].startswith(error)
    message = "RuntimeError: a training of 2 processes needs all of them, and rank"
    assert told[1 - rank].startswith(f"{message} {rank} ended with {error}")
    assert "begins anew, or with callbacks=[Checkpoint(folder)] from the" in told[1 - rank]


def test_a_loss_that_is_not_finite_in_one_process_is_named_by_all(folder):
    for error in errors(folder, "loss not finite"):
        assert error.startswith("ValueError: the loss is no longer finite in epoch 2 with lr=0.01")


def test_different_weights_at_the_end_are_an_error(folder):
    for error in errors(folder, "other weights"):
        assert "same weights, and those of rank 1 differ from those of rank 0" in error


def test_a_killed_process_ends_the_other_with_its_name_and_the_training_goes_on(folder, tmp_path):
    assert run_together(SCRIPT, tmp_path, "killed")[1] == -9
    told = (tmp_path / "killed 0.txt").read_text()
    assert "RuntimeError: a training of 2 processes needs all of them, and rank 1 is gone" in told
    kept = tmp_path / "folder"
    assert sorted(os.listdir(kept)) == [checkpoint.FILE, checkpoint.LOCK]
    shutil.copytree(kept, tmp_path / "for one")
    assert run_together(SCRIPT, tmp_path, "resumed") == [0, 0]
    expected = results(folder, "undisturbed")[0]
    for its in results(tmp_path, "resumed"):
        assert_same_bits(its, expected)
    assert os.listdir(kept) == [checkpoint.LOCK]
    alone = together.fit("undisturbed", callbacks=[Checkpoint(tmp_path / "for one")])
    assert_close(together.results_of(alone), expected)


def test_a_process_that_is_killed_after_its_training_is_named_at_once(folder):
    before, told = folder / f"{[*together.STOPS][-1]} 0.npz", folder / "killed at the end 0.txt"
    assert "rank 1 is gone or does not answer" in told.read_text()
    assert told.stat().st_mtime - before.stat().st_mtime < 60  # it waited for ten minutes


def test_a_training_started_by_torchrun_without_a_group_warns(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.warns(UserWarning, match=r"started 2 processes.*init_process_group\(\"gloo\"\)"):
        DINClassifier(max_epochs=1).fit(np.eye(4), [0, 1, 0, 1])
    monkeypatch.setenv("WORLD_SIZE", "1")
    with warnings.catch_warnings(action="error"):
        DINClassifier(max_epochs=1).fit(np.eye(4), [0, 1, 0, 1])


def test_each_process_takes_the_gpu_that_torchrun_names(monkeypatch):
    class Third(Ranks):
        def __init__(self):
            self.rank = 2

    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Third().device_for("cuda") == "cuda:1"
    assert (Third().device_for("cpu"), Third().device_for("cuda:5")) == ("cpu", "cuda:5")
