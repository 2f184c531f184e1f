"""A saved file that was changed runs no code, takes no memory, and never predicts wrongly."""

import random

import pytest

from tests.tampered_files import DAMAGES, FORGERIES, Judge, make_models, watch


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    models, rows = make_models()
    watch()
    return Judge(models, rows, tmp_path_factory.mktemp("tampering"))


@pytest.mark.parametrize("mutate", [*DAMAGES, *FORGERIES], ids=lambda mutate: mutate.__name__)
def test_no_change_of_a_file_does_harm(judge, mutate):
    chance = random.Random(mutate.__name__)
    for _ in range(12):
        name = chance.choice(list(judge.saved))
        content = mutate(chance, judge.saved[name])
        outcome, sentence = judge.outcome(name, content, is_forged=mutate in FORGERIES)
        assert outcome != "WRONG", sentence


def test_the_judge_sees_code_that_runs(judge, monkeypatch):
    def load(path):
        exec("1 + 1")
        raise ValueError

    monkeypatch.setattr("tests.tampered_files.load", load)
    outcome, sentence = judge.outcome("pipeline", b"x", is_forged=False)
    assert (outcome, sentence[:11]) == ("WRONG", "it ran code")
