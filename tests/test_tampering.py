"""A saved file that was changed runs no code, takes no memory, and never predicts wrongly."""

import random

import pytest

pytest.importorskip("skops", reason="one of the files has a step that skops keeps: '.[safe]'")

from benchmarks.mutations import REHASHED, UNHASHED, a_false_step_of_skops
from benchmarks.tampering import Judge, make_models, watch


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    models, rows = make_models()
    watch()
    return Judge(models, rows, tmp_path_factory.mktemp("tampering"))


KINDS = [*((mutate, False) for mutate in UNHASHED), *((mutate, True) for mutate in REHASHED)]


@pytest.mark.parametrize(("mutate", "rehashed"), KINDS, ids=[its[0].__name__ for its in KINDS])
def test_no_change_of_a_file_does_harm(judge, mutate, rehashed):
    chance = random.Random(mutate.__name__)
    for _ in range(12):
        needs_skops = mutate is a_false_step_of_skops
        name = chance.choice([its for its in judge.saved if not needs_skops or "skops" in its])
        content = mutate(chance, judge.saved[name])
        outcome, sentence = judge.outcome(name, content, rehashed=rehashed)
        assert outcome != "WRONG", sentence


def test_the_judge_sees_code_that_runs(judge, monkeypatch):
    def load(path):
        exec("1 + 1")
        raise ValueError

    monkeypatch.setattr("benchmarks.tampering.load", load)
    outcome, sentence = judge.outcome("pipeline", b"x", rehashed=False)
    assert (outcome, sentence[:11]) == ("WRONG", "it ran code")
