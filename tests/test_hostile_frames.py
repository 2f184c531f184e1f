"""Frames that nobody should have made: a right answer or a clear error, never anything else."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.hostile_frames import draw_frame, fingerprint, verdict
from benchmarks.hostile_steps import STEPS
from sklearn_din import HistorySequenceEncoder, attach_history, sample_negatives
from sklearn_din.command_line.tables import as_ids
from sklearn_din.logs.aggregates import attach_aggregates

N_FRAMES = {1: 80, 5: 45, 10: 30}  # by how often the benchmark runs a step: by its cost


@pytest.mark.parametrize("name", STEPS)
def test_hostile_frames_end_in_answers_or_errors_of_our_own(name):
    step, endings = STEPS[name], set()
    for number in range(N_FRAMES[step.every]):
        frame = draw_frame(np.random.default_rng([7, number]))
        if not step.takes(frame):
            continue
        ending, said = verdict(step.run, frame)
        assert ending != "FAILURE", f"frame {number}: {said}"
        endings.add(ending)
    assert "own error" in endings
    assert "answer" in endings or name.startswith("command line")


def test_the_judge_sees_foreign_errors_and_changed_frames():
    frame = draw_frame(np.random.default_rng([7, 0]))
    assert verdict(lambda its: its["no such column"], frame)[0] == "FAILURE"
    assert verdict(lambda its: its.insert(0, "new", 1), frame.copy()) == (
        "FAILURE",
        "the caller's frame was changed",
    )
    assert fingerprint(frame) == fingerprint(frame.copy())


def test_a_column_of_the_log_may_have_an_empty_name():
    log = pd.DataFrame({"": ["hat", "sock"], "user": [1, 1], "time": [1, 2]})
    past = attach_history(log, log, user="user", time="time", columns=[""], prefix="past_")
    assert [list(cell) for cell in past["past_"]] == [[], ["hat"]]
    shown, _ = sample_negatives(log, item="", random_state=0)
    assert shown[""].tolist() == ["hat", "sock", "sock", "hat"]


@pytest.mark.parametrize("key", [[1], {"a": 1}, {1}, np.arange(2)], ids=str)
def test_keys_that_cannot_be_compared_are_named(key):
    keys = np.empty(2, dtype=object)
    keys[:] = [key, key]
    log = pd.DataFrame({"user": keys, "item": [1, 2], "time": [1, 2]})
    count = {"n": ("user", None, "count")}
    with pytest.raises(TypeError, match=r"events\['user'\] must hold one key per row"):
        attach_history(log, log, user="user", time="time", columns=["item"])
    with pytest.raises(TypeError, match=r"events\['user'\] must hold one key per row"):
        attach_aggregates(log, log, time="time", aggregates=count)
    with pytest.raises(ValueError, match=r"events\['user'\] must hold ids, got "):
        sample_negatives(log, item="item", user="user")


def test_half_precision_keys_are_numbers_like_others():
    log = pd.DataFrame({"user": np.array([1, 1, 2], np.float16), "item": [1, 2, 3], "time": 1})
    log["time"] = [1, 2, 3]
    numbers = {"n": ("user", None, "count"), "mean": ("user", "user", "mean")}
    attached = attach_aggregates(log, log, time="time", aggregates=numbers)
    assert attached["n"].tolist() == [0, 1, 0]
    assert attached["mean"].tolist()[1] == 1.0


def test_complex_numbers_are_no_numbers_to_us():
    log = pd.DataFrame({"user": [1, 1], "spent": [1 + 2j, 2j], "time": [1, 2]})
    with pytest.raises(TypeError, match=r"needs numbers for a mean, but .* has dtype complex128"):
        attach_aggregates(log, log, time="time", aggregates={"m": ("user", "spent", "mean")})
    encoder = HistorySequenceEncoder().fit(pd.DataFrame({"spent": [1.5, 2.5]}))
    with pytest.raises(ValueError, match="spent must hold numbers, got complex numbers"):
        encoder.transform(log[["spent"]])


def test_halves_of_ids_in_a_file_are_read_without_a_warning():
    assert as_ids(pd.Series([1, 2], dtype="float16", name="item")).tolist() == [1, 2]
