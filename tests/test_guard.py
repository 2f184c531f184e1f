"""The benchmark that compares with a commit: what it says, and when it fails."""

import json

import pytest

from benchmarks import guard


@pytest.fixture
def seconds_of(monkeypatch):
    """Seconds by job that are answered for the commit; this checkout takes one."""
    answers = {}

    def ask(checkout, *arguments):
        if "predictions" in arguments:
            guard.np.savez(arguments[-1], model=guard.np.zeros(2))
            return ""
        is_this = checkout == guard.HERE
        return json.dumps(1.0 if is_this else answers.get(arguments[-1], 1.0))

    monkeypatch.setattr(guard, "ask", ask)
    monkeypatch.setattr(guard, "check_out", lambda commit: guard.tempfile.TemporaryDirectory())
    return answers


def test_a_job_that_takes_a_fifth_longer_fails_and_is_named(seconds_of, capsys):
    assert guard.main(["HEAD", "--rounds", "2"]) == 0
    assert capsys.readouterr().out.endswith("more than 1.1 times as long: nothing\n")
    seconds_of["predict"] = 1 / 1.2
    assert guard.main(["HEAD", "--rounds", "2"]) == 1
    assert capsys.readouterr().out.endswith("more than 1.1 times as long: predict\n")


def test_a_job_beyond_the_limit_is_measured_once_more(seconds_of, monkeypatch):
    rounds = iter([[{"commit": 1.0, "this": 2.0}], [{"commit": 1.0, "this": 0.1}] * 3])
    monkeypatch.setattr(guard, "time_in_turn", lambda other, n_rounds, job: next(rounds))
    times = guard.compare_times(guard.HERE, 1, ["predict"])
    assert times.loc["predict", "ratio"] == pytest.approx(0.1)
