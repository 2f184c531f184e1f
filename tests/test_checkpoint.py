"""Checkpoint: a training that was killed goes on, to the same bits as an undisturbed one."""

import copy
import errno
import functools
import logging
import os
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklearn_din import Checkpoint, DINClassifier
from sklearn_din.resilient import checkpoint, fingerprint
from sklearn_din.resilient.checkpoint import FILE, read_checkpoint, write_checkpoint
from sklearn_din.training import validation_checks
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.net import DINNet
from sklearn_din.training.seeding import random_state_of
from tests.abilities import ABILITIES, CLICKS, FRAME, VECTORS, encode_grown, make_encoder, outputs
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels, turning_catalogue
from tests.interruptions import interrupt, n_lines
from tests.test_faults import small_disk

# A forked child computes with one thread: so must the training that it is compared with.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:the validation rows hardly follow"),  # some have nothing
]

X = make_impressions(240, seed=3)
y = make_labels(X, seed=3)
SMALL = {"embedding_dim": 3, "attention_units": (4,), "hidden_units": (5,), "lr": 0.02}
SMALL |= {"batch_size": 24, "max_epochs": 2, "early_stopping": True, "random_state": 0}
WEIGHTS = np.random.default_rng(0).random(len(X))
GROUPS = np.arange(len(X)) % 20


# Parameters and what else is given to fit, by what is special about them
CASES = {
    "as usual": ({}, {}),
    "dropout": ({"dropout": 0.2}, {}),
    "no validation": ({"early_stopping": False}, {}),
    "two checks per epoch": ({"batches_per_check": 4}, {}),
    "patience": ({"lr": 0.3, "max_epochs": 20, "patience": 1}, {}),
    "groups": ({"validation": "groups"}, {"groups": [("web",) * (n % 2) + (n,) for n in GROUPS]}),
    "weights": ({"class_weight": {0: 1, 1: 3.5}}, {"sample_weight": WEIGHTS}),
    "new items": ({"validation": "last"}, {"X": turning_catalogue(X)}),
    "moved rate": (
        {"validation": "last"},
        {"y": np.where(np.arange(240) < 216, y, GROUPS % 8 > 0)},
    ),
    "two widths": ({"embedding_dim": {"item": 3, "category": 2, "tags": 2}}, {}),
    "as published": ({"interest": "paper", "activation": "dice", "embedding_l2": 0.0}, {}),
    "numbers alone": ({}, {"X": np.random.default_rng(1).normal(size=(len(X), 3))}),
    "balanced": ({"class_weight": "balanced", "pooling": "sum"}, {}),
    "new ids": ({}, {"X": encode_grown(), "y": CLICKS}),
}
LISTS = make_encoder().fit_transform(FRAME)
for ability, (kind, options, own_y) in ABILITIES.items():
    CASES[ability] = ({"estimator": kind, **options}, {"X": LISTS, "y": own_y})


@pytest.fixture(autouse=True)
def no_wait_for_the_disk(monkeypatch):
    """A sync guards against a loss of power, of which there is none here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def at_each_batch(monkeypatch):
    monkeypatch.setattr(checkpoint, "MINUTES_BETWEEN_WRITES", 0.0)


def fit(
    folder, given=None, batches_per_check=50, estimator=DINClassifier, callbacks=(), **parameters
):
    callbacks = [*callbacks, *([Checkpoint(folder)] if folder else [])]
    classifier = estimator(**SMALL | {"callbacks": callbacks} | parameters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation_checks, "BATCHES_PER_CHECK", batches_per_check)
        return classifier.fit(**{"X": X, "y": y} | (given or {}))


@functools.cache
def undisturbed(case):
    parameters, given = CASES[case]
    return fit(None, given, **parameters)


class KilledError(Exception):
    """Stands for the end of the process: nothing in the package catches it."""


def kill():
    raise KilledError


@contextmanager
def ended_at(batch, end=kill):
    """Call ``end`` in the place of a training's step of that number, counted from here."""
    step, count = DINNet.train_step, 0

    def train_step(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == batch:
            end()
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DINNet, "train_step", train_step)
        yield


def kill_at(batch, *args, **kwargs):
    """Fit until the process ends in the place of a step."""
    with ended_at(batch), pytest.raises(KilledError):
        fit(*args, **kwargs)


def files(folder):
    """Names of a folder's files but the lock's, which is empty and stays."""
    names = os.listdir(folder)
    assert not any((folder / name).stat().st_size for name in names if name == checkpoint.LOCK)
    return [name for name in names if name != checkpoint.LOCK]


def start_child(run):
    """Run a function in a forked process, and return its id."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            run()
            os._exit(0)
        os._exit(1)
    return pid


def end_of(pid):
    """Wait for a process; return the signal that ended it, 0 if none did."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def checks_of(classifier):
    """The net's own history without times, single batches and numbers that are not there."""
    without = ("dur", "batches")
    rows = [{k: v for k, v in row.items() if k not in without} for row in classifier.net_.history]
    return [{k: v for k, v in row.items() if v == v} for row in rows]  # the AUC may be NaN


def assert_same_bits(found, expected, given=None):
    weights = [c.module_.state_dict() for c in (found, expected)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    own, its = (c.history_.drop(columns="seconds") for c in (found, expected))
    assert own.equals(its)
    assert checks_of(found) == checks_of(expected)
    shown = {"X": X} | (given or {})
    np.testing.assert_array_equal(outputs(found, shown["X"]), outputs(expected, shown["X"]))
    for name in ("n_iter_", "novelty_", "feature_names_in_"):
        assert np.all(getattr(found, name, None) == getattr(expected, name, None)), name
    assert found.net_.stop_reason_ == expected.net_.stop_reason_
    for name in ("seed_", "batch_size_", "n_epochs_"):
        assert getattr(found.net_, name) == getattr(expected.net_, name)
    np.testing.assert_equal(*(c.net_.order_.get_state() for c in (found, expected)))
    states = [c.net_.optimizer_.state_dict()["state"] for c in (found, expected)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    for name, counts in expected.net_.occurrences_.items():
        np.testing.assert_array_equal(found.net_.occurrences_[name], counts)


SELDOM = "as usual", "two checks per epoch", "new items", "lists"  # are written at checks alone


@pytest.mark.parametrize(
    ("case", "minutes"), [*((case, 0.0) for case in CASES), *((case, 10.0) for case in SELDOM)]
)
@pytest.mark.slow
def test_a_training_that_was_ended_goes_on_to_the_same_bits(case, minutes, tmp_path, monkeypatch):
    """Ended twice: written at each batch it goes on in the middle of a check."""
    monkeypatch.setattr(checkpoint, "MINUTES_BETWEEN_WRITES", minutes)
    parameters, given = CASES[case]
    for batch in (14, 5) if minutes else (3, 13):
        kill_at(batch, tmp_path, given, **parameters)
    assert files(tmp_path) == [checkpoint.FILE]
    assert_same_bits(fit(tmp_path, given, **parameters), undisturbed(case), given)
    assert not files(tmp_path)


@pytest.mark.usefixtures("at_each_batch")
@pytest.mark.parametrize("case", ["as usual", "no validation", "new items"])
def test_a_training_that_was_ended_after_the_last_batch_of_an_epoch_goes_on(case, tmp_path):
    parameters, given = CASES[case]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "on_epoch_end", lambda *_, **__: kill())
        with pytest.raises(KilledError):
            fit(tmp_path, given, **parameters)
    assert_same_bits(fit(tmp_path, given, **parameters), undisturbed(case), given)


def test_the_cases_are_what_they_say():
    assert undisturbed("patience").net_.stop_reason_ == "patience"
    assert best_check(undisturbed("numbers alone").net_.checks_)["scales"][0] < 0.1
    assert undisturbed("two checks per epoch").history_["epoch"][0] == 0.5
    assert undisturbed("new items").net_.novelty_.first_seen
    assert len(undisturbed("two widths").module_.embeddings.tables) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.usefixtures("at_each_batch")
@pytest.mark.slow
def test_five_kills_and_the_same_bits(tmp_path):
    """SIGKILL before a drawn batch, and at a drawn moment, perhaps in the middle of a write."""
    chance = np.random.default_rng(0)
    for batch in chance.integers(2, 7, size=3).tolist():
        with ended_at(batch, end=lambda: os.kill(os.getpid(), signal.SIGKILL)):
            assert end_of(start_child(lambda: fit(tmp_path))) == -signal.SIGKILL
    for seconds in chance.uniform(0.05, 0.2, size=2).tolist():
        pid = start_child(lambda: fit(tmp_path))
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
    assert_same_bits(fit(tmp_path), undisturbed("as usual"))
    assert not files(tmp_path)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_after_ctrl_c_the_classifier_works_and_the_next_fit_goes_on(tmp_path):
    with (
        ended_at(14, lambda: signal.raise_signal(signal.SIGINT)),
        pytest.warns(UserWarning, match="full training, which continues from the latest"),
    ):
        stopped = fit(tmp_path)
    assert stopped.net_.stop_reason_ == "user"
    assert files(tmp_path) == [checkpoint.FILE]
    assert_same_bits(fit(tmp_path), undisturbed("as usual"))


@pytest.mark.usefixtures("at_each_batch", "ctrl_c_raises")
@pytest.mark.filterwarnings("ignore:training was interrupted")
@pytest.mark.slow
def test_ctrl_c_at_any_line_leaves_a_folder_to_go_on_in(tmp_path):
    def run():
        fit(tmp_path, max_epochs=1)

    expected = fit(None, max_epochs=1)
    for moment in np.linspace(1, n_lines(run), 8).astype(int).tolist():
        assert isinstance(interrupt(run, moment), KeyboardInterrupt | None)
        assert_same_bits(fit(tmp_path, max_epochs=1), expected)
        assert not files(tmp_path)


def test_a_training_that_had_ended_before_its_file_was_removed_ends_at_once(tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: kill() if path.name == FILE else None)
        with pytest.raises(KilledError):
            fit(tmp_path)
    expected = undisturbed("as usual")
    monkeypatch.setattr(DINNet, "train_step", lambda *_: pytest.fail("trained again"))
    assert_same_bits(fit(tmp_path), expected)


def test_without_a_seed_the_seeds_of_the_first_fit_count(tmp_path):
    kill_at(14, tmp_path, random_state=None)
    seeds = random_state_of(read_checkpoint(tmp_path / checkpoint.FILE)["seeds"])
    assert_same_bits(fit(tmp_path, random_state=None), fit(None, random_state=seeds))


def test_a_random_state_is_drawn_from_when_the_training_is_over(tmp_path):
    own, twin = np.random.RandomState(5), np.random.RandomState(5)
    kill_at(14, tmp_path, random_state=own)
    expected = fit(None, random_state=twin)
    assert_same_bits(fit(tmp_path, random_state=own), expected)
    assert own.randint(2**31) == twin.randint(2**31)
    kill_at(14, tmp_path, random_state=np.random.RandomState(5))
    with pytest.raises(ValueError, match=r"random_state was 'RandomState .* and is 'RandomState"):
        fit(tmp_path, random_state=own)
    with pytest.raises(ValueError, match="usual RandomState, got one of PCG64"):
        fit(tmp_path / "other", random_state=np.random.RandomState(np.random.PCG64(0)))


def test_it_says_where_it_goes_on(tmp_path, caplog):
    kill_at(14, tmp_path)
    with caplog.at_level(logging.INFO, logger="sklearn_din"):
        fit(tmp_path)
    said = f"training goes on from {tmp_path / checkpoint.FILE}: epoch 2 of 2"
    assert [record.getMessage() for record in caplog.records] == [said]


OTHER = {
    "lr": ({"lr": 0.5}, {}, "lr was 0.02 and is 0.5"),
    "units": ({"hidden_units": (5, 5)}, {}, r"hidden_units was \[5\] and is \[5, 5\]"),
    "seed": ({"random_state": 1}, {}, "random_state was 0 and is 1"),
    "no seed": ({"random_state": None}, {}, "random_state was 0 and is None"),
    "class weight": ({"class_weight": {1: 2.0}}, {}, r"differs in: weights \(.*class_weight\)"),
    "callbacks": ({"callbacks": [On(strength=2)]}, {}, "On', {'on_strength': 2}"),
    "y": ({}, {"y": 1 - y}, "differs in: y. Choose"),
    "labels": ({}, {"y": np.array(["a", "b"])[y]}, "differs in: y. Choose"),
    "rows": ({}, {"X": X[:200], "y": y[:200]}, "the number of rows; y; X"),
    "sample weight": ({}, {"sample_weight": WEIGHTS}, r"differs in: weights \(sample_weight, .*"),
    "groups": ({}, {"groups": GROUPS}, "differs in: groups. Choose"),
    "both": ({"lr": 0.5}, {"y": 1 - y}, "lr was 0.02 and is 0.5; y. Choose"),
}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A folder with the checkpoint of a training."""
    folder = tmp_path_factory.mktemp("unfinished")
    kill_at(14, folder)
    return folder


@pytest.mark.parametrize("what", OTHER)
def test_other_parameters_and_other_data_are_named(what, unfinished):
    parameters, given, message = OTHER[what]
    before = (unfinished / checkpoint.FILE).read_bytes()
    with pytest.raises(ValueError, match=f"{message}.*folder, or delete '.*' to train from"):
        fit(unfinished, given, **parameters)
    assert (unfinished / checkpoint.FILE).read_bytes() == before
    assert files(unfinished) == [checkpoint.FILE]


def test_every_array_of_the_data_counts(unfinished):
    arrays = {
        "price": X.columns["price"],
        "item": X.columns["item"],
        "hist_item": X.behaviours["hist_item", "hist_category"].columns["hist_item"],
        "tags": X.behaviours["tags",].columns["tags"],
    }
    for name, array in arrays.items():
        before = array[-1]
        array[-1] = 2 if before == 1 else 1
        with pytest.raises(ValueError, match=rf"differs in: X \({name}\)\. Choose"):
            fit(unfinished)
        array[-1] = before


def test_fixed_vectors_count():
    other = {"film": VECTORS["film"].assign(a=[0.1, 0.2, 0.3, 0.5, 0.8, 0.9])}
    encoded = make_encoder().set_params(vectors=other).fit_transform(FRAME)
    digests, expected = fingerprint.digests_of(encoded), fingerprint.digests_of(LISTS)
    assert {name for name in expected if digests[name] != expected[name]} == {"vectors="}


def test_versions_of_the_package_must_agree(unfinished, tmp_path, monkeypatch):
    shutil.copy(unfinished / checkpoint.FILE, tmp_path)
    monkeypatch.setattr(checkpoint, "__version__", "9.0")
    with pytest.raises(ValueError, match=r"of sklearn_din .*, and this is 9.0: install"):
        fit(tmp_path)


def test_learning_rates_that_a_callback_has_changed_go_on(tmp_path):
    def halve(net, **_):
        net.optimizer_.param_groups[0]["lr"] /= 2

    expected = fit(None, callbacks=[On(epoch_end=halve)])
    kill_at(14, tmp_path, callbacks=[On(epoch_end=halve)])
    with pytest.warns(UserWarning, match="does not store the state of other callbacks"):
        assert_same_bits(fit(tmp_path, callbacks=[On(epoch_end=halve)]), expected)


def test_folds_and_searches_one_after_the_other_share_a_folder(tmp_path):
    classifier = DINClassifier(**SMALL | {"max_epochs": 1}, callbacks=[Checkpoint(tmp_path)])
    plain = clone(classifier).set_params(callbacks=None)
    assert clone(classifier).callbacks[0].folder == tmp_path
    np.testing.assert_array_equal(
        cross_val_score(classifier, X, y, cv=2), cross_val_score(plain, X, y, cv=2)
    )
    search = GridSearchCV(classifier, {"lr": [0.01, 0.02]}, cv=2).fit(X, y)
    assert set(search.cv_results_["param_lr"]) == {0.01, 0.02}
    assert not files(tmp_path)


def test_partial_fit_and_a_fitted_net_know_nothing_of_the_folder(tmp_path):
    kept = Checkpoint(tmp_path / "a")
    classifier = DINClassifier(**SMALL, callbacks=[kept])
    classifier.partial_fit(X, y)
    assert not files(tmp_path)
    classifier.fit(X, y)
    assert vars(kept) == {"folder": tmp_path / "a"}
    assert not files(tmp_path / "a")
    classifier.partial_fit(X, y)


def test_the_nets_own_fit_goes_on_too(tmp_path):
    fitted = fit(tmp_path)
    with ended_at(14), pytest.raises(KilledError):
        fitted.net_.fit(X, y)
    with ended_at(10, end=lambda: pytest.fail("it began anew")):
        fitted.net_.fit(X, y)
    assert_same_bits(fitted, undisturbed("as usual"))


def test_a_held_checkpoint_is_copied_and_pickled_as_its_folder_alone(tmp_path):
    copies = []
    note = On(epoch_end=lambda net, **_: copies.extend(copy.deepcopy(net.callbacks[1:])))
    fit(tmp_path, callbacks=[note], max_epochs=1)
    assert [vars(its) for its in copies] == [{"folder": str(tmp_path)}]
    with pytest.raises(ValueError, match="folder of a Checkpoint must be text, got"):
        copies[0].__setstate__({"folder": 1})


def test_every_flipped_bit_is_an_error_and_so_is_a_missing_end(unfinished, tmp_path):
    content = (unfinished / checkpoint.FILE).read_bytes()
    path, chance = tmp_path / "flipped", np.random.default_rng(0)
    for position in [*range(0, 200), *chance.integers(len(content), size=200).tolist(), -1]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(chance.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="is damaged or of another kind: its SHA-256"):
            read_checkpoint(path)
    for left in (0, 7, 1000, -1):
        path.write_bytes(content[:left])
        with pytest.raises(ValueError, match=r"a whole, unchanged checkpoint.*Delete it to train"):
            read_checkpoint(path)


def test_a_whole_file_of_another_kind_is_an_error_and_never_run(tmp_path):
    path = tmp_path / checkpoint.FILE
    for wrong in ({"format": "another"}, {"format": checkpoint.FORMAT, "run": On(strength=1)}):
        write_checkpoint(path, wrong)
        with pytest.raises(ValueError, match="is damaged or of another kind"):
            read_checkpoint(path)


def test_a_full_disk_stops_the_training_and_says_what_to_do(tmp_path):
    with small_disk(), pytest.raises(OSError, match="Make room and fit") as raised:
        fit(tmp_path)
    assert raised.value.errno == errno.EFBIG
    assert not files(tmp_path)


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    count = 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count == 3:  # a file, its folder, and now the second file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sklearn_din.utils.whole_files.os.fsync", full)
    with pytest.raises(
        OSError, match=r"cannot be written: No space.* the checkpoint before this one"
    ):
        fit(tmp_path)
    assert files(tmp_path) == [checkpoint.FILE]
    assert len(read_checkpoint(tmp_path / checkpoint.FILE)["history"]) == 1
    assert_same_bits(fit(tmp_path), undisturbed("as usual"))


def test_ctrl_c_while_torch_ends_a_file_does_not_end_the_process(tmp_path, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    def write():
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(tmp_path / checkpoint.FILE, {"weights": torch.ones(1000)})

    monkeypatch.setattr(torch.serialization._open_zipfile_writer_buffer, "__exit__", press)
    assert end_of(start_child(write)) == 0
    assert not files(tmp_path)


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path):
    (tmp_path / f".partial-0123-{checkpoint.FILE}").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    fit(tmp_path)
    assert files(tmp_path) == ["notes.txt"]


def test_a_folder_that_cannot_be_used_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(DINNet, "train_step", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_bytes(b"")
    for folder in ("/proc/self/runs", tmp_path / "file"):
        with pytest.raises(OSError, match=str(folder)):
            fit(folder)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_folder_in_use_by_another_process_is_an_error(tmp_path):
    read, write = os.pipe()

    def hold():
        with checkpoint.lock_folder(tmp_path):
            os.write(write, b"held")
            time.sleep(60)

    pid = start_child(hold)
    os.read(read, 4)
    with pytest.raises(RuntimeError, match=r"one training at a time, and .* is held by another"):
        fit(tmp_path)
    os.kill(pid, signal.SIGKILL)
    end_of(pid)
    with checkpoint.lock_folder(tmp_path):
        pass


def test_a_second_training_of_the_same_process_is_refused(tmp_path):
    with (
        ended_at(3, lambda: fit(tmp_path)),
        pytest.raises(RuntimeError, match="one training at a time"),
    ):
        fit(tmp_path)
    with checkpoint.lock_folder(tmp_path / "a"), checkpoint.lock_folder(tmp_path / "b"):
        with pytest.raises(RuntimeError), checkpoint.lock_folder(tmp_path / "a"):
            pass
        assert os.listdir(tmp_path / "a") == [checkpoint.LOCK]
