"""Frames that nobody should have made: a right answer or a clear error, never anything else."""

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sklearn_din import (
    HistorySequenceEncoder,
    attach_history,
    load,
    sample_negatives,
    save,
    scan_parquet,
)
from sklearn_din.command_line.tables import read_ids
from sklearn_din.logs.aggregates import attach_aggregates
from tests.hostile_frames import STEPS, draw_frame, fingerprint, verdict

N_FRAMES = {1: 80, 5: 45, 10: 30}  # by how often the benchmark runs a step: by its cost
SELDOM_ANSWERED = ("command line", "update of a good model")


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
    assert "answer" in endings or name.startswith(SELDOM_ANSWERED)


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
    assert read_ids(pd.Series([1, 2], dtype="float16", name="item")).tolist() == [1, 2]


@pytest.mark.parametrize("other", [[[True], [False]], [["1"], ["0"]]], ids=["booleans", "text"])
def test_a_candidate_without_a_name_shares_its_vocabulary_and_can_be_kept(other, tmp_path):
    frame = pd.DataFrame({"time": [1, 2], "": [cell[0] for cell in other], "hist_": other})
    encoder = HistorySequenceEncoder(time="time")
    X = encoder.fit_transform(frame, [0, 1])
    assert X[""].tolist() == X["hist_"].ravel().tolist()
    save(encoder, tmp_path / "encoder.din")
    for again in (load(tmp_path / "encoder.din"), pickle.loads(pickle.dumps(encoder))):
        assert again.schema_ == encoder.schema_
        assert again.transform(frame)[""].tolist() == X[""].tolist()


def test_booleans_and_integers_share_no_vocabulary():
    frame = pd.DataFrame({"item": [True, True], "hist_item": [[1], [1, 0]]})
    with pytest.raises(ValueError, match="hist_item holds integers and item holds booleans: they"):
        HistorySequenceEncoder().fit(frame)


def test_a_history_of_booleans_beside_one_of_integers_is_encoded_as_it_is_alone():
    frame = pd.DataFrame({"item": ["hat", "sock"]})
    frame["hist_seen"] = [np.array([True]), np.array([2**31, 7])]
    encoder = HistorySequenceEncoder(histories={"hist_seen": None})
    X = encoder.fit_transform(frame)
    for row in range(2):
        alone = encoder.transform(frame.iloc[[row]])["hist_seen"][0]
        assert alone.tolist() == X["hist_seen"][row, : len(alone)].tolist()


def test_users_that_are_lists_are_named(tmp_path):
    frame = pd.DataFrame(
        {"user": [[1], [2, 3]], "item": ["hat", "sock"], "hist_item": [["hat"]] * 2}
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    encoder = HistorySequenceEncoder(user="user")
    for X in (frame, scan_parquet(tmp_path / "rows.parquet")):
        with pytest.raises(TypeError, match="the column of users must hold one key per row"):
            encoder.fit(X, [0, 1])


def test_negatives_of_a_scan_need_items_that_are_there_and_can_be_compared(tmp_path):
    path = tmp_path / "log.parquet"
    for items, message in (
        ([[1], [2, 3]], r"events\['item'\] must hold ids, got list"),
        ([0.5, float("nan")], r"events\['item'\] must not be missing, got 1 rows without"),
    ):
        pq.write_table(pa.table({"item": items, "user": items[::-1]}), path)
        for user in (None, "user"):
            with pytest.raises(
                (ValueError, TypeError), match=f"{message}|hold text or numbers|'user'"
            ):
                sample_negatives(scan_parquet(path), item="item", user=user, random_state=0)
