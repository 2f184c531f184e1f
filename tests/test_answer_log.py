"""The answer log is what its docstring says: its truth, its times, its sizes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sklearn_din import attach_history
from sklearn_din.datasets import make_answer_log
from sklearn_din.metrics import expected_calibration_error

FRAMES_AND_ARRAYS = (
    "events",
    "impressions",
    "y",
    "probability",
    "relevance",
    "offsets",
    "difficulty",
)
SKILLS_PER_TOPIC = 5


@pytest.fixture(scope="module")
def log():
    return make_answer_log(random_state=0)


def true_probability(log, impression, *, strength, max_length):
    """The slow, obvious twin: the formula of the docstring, from the frames alone."""
    events = log.events
    past = events[(events["user"] == impression.user) & (events["time"] < impression.time)]
    past = past.tail(max_length)
    same_topic = past["skill"] // SKILLS_PER_TOPIC == impression.skill // SKILLS_PER_TOPIC
    counts = np.where(past["skill"] == impression.skill, 1.0, 0.5 * same_topic)
    right = counts[(past["answer"] == "right").to_numpy()].sum()
    share = (right + 1) / (counts.sum() + 2)
    logit = 5 * strength * (share - 0.5) - log.difficulty[impression.item]
    return 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize(("strength", "max_length"), [(1.0, 50), (2.0, 4), (0.0, 50)])
def test_the_truth_agrees_with_a_loop_over_impressions(strength, max_length):
    log = make_answer_log(
        n_users=15, n_skills=12, answer_strength=strength, max_length=max_length, random_state=1
    )
    expected = [
        true_probability(log, impression, strength=strength, max_length=max_length)
        for impression in log.impressions.itertuples()
    ]
    np.testing.assert_allclose(log.probability, expected, rtol=1e-6)


def test_the_truth_is_the_ceiling(log):
    attached = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["skill", "answer"]
    )
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    right = np.concatenate(attached["hist_answer"].tolist()) == "right"
    same_skill = np.concatenate(attached["hist_skill"].tolist()) == log.impressions["skill"][row]

    def share(counts):
        return (np.bincount(row, counts * right, minlength=len(log.y)) + 1) / (
            np.bincount(row, counts, minlength=len(log.y)) + 2
        )

    everything = roc_auc_score(log.y, share(np.ones(len(row))))
    by_skill = roc_auc_score(log.y, share(same_skill.to_numpy().astype(float)))
    by_relevance = roc_auc_score(log.y, share(log.relevance))
    ceiling = roc_auc_score(log.y, log.probability)
    assert everything < by_skill < by_relevance < ceiling  # difficulty is still to come
    assert 0.75 < ceiling < 0.8
    assert expected_calibration_error(log.y, log.probability) < 0.01


def test_relevance_is_aligned_with_what_attach_history_attaches(log):
    attached = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["skill"], max_length=50
    )
    history = [np.asarray(cell) for cell in attached["hist_skill"]]
    np.testing.assert_array_equal([len(cell) for cell in history], np.diff(log.offsets))
    shown = np.repeat(log.impressions["skill"], np.diff(log.offsets))
    np.testing.assert_array_equal(np.concatenate(history) == shown, log.relevance == 1)


def test_stronger_answers_raise_the_ceiling():
    logs = [make_answer_log(n_users=500, answer_strength=s, random_state=0) for s in (0, 1, 2)]
    ceilings = [roc_auc_score(log.y, log.probability) for log in logs]
    assert ceilings == sorted(ceilings)


def test_an_item_has_one_skill_and_tables_come_in_the_order_of_time(log):
    pairs = pd.concat([log.events[["item", "skill"]], log.impressions[["item", "skill"]]])
    assert not pairs.drop_duplicates()["item"].duplicated().any()
    for frame in (log.events, log.impressions):
        assert frame["time"].is_monotonic_increasing
        assert frame["time"].dtype == "datetime64[ns]"
        assert frame.index.equals(pd.RangeIndex(len(frame)))


def test_sizes_are_as_asked():
    log = make_answer_log(
        n_users=300, n_items=40, n_skills=12, mean_length=7, n_impressions=123, random_state=0
    )
    assert len(log.impressions) == len(log.y) == len(log.probability) == 123
    assert log.events["user"].nunique() == 300
    assert len(log.events) / 300 == pytest.approx(7, abs=1)
    seen = pd.concat([log.events, log.impressions])
    assert set(seen["skill"]) <= set(range(12))
    assert "300 users, 40 items of 12 skills" in log.DESCR


def test_a_seed_makes_the_same_log_and_touches_no_global_state():
    state = np.random.get_state()
    first, second = (make_answer_log(n_users=20, random_state=5) for _ in range(2))
    other = make_answer_log(n_users=20, random_state=6)
    for name in FRAMES_AND_ARRAYS:
        np.testing.assert_array_equal(first[name], second[name])
    assert not first.events.equals(other.events)
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_users": 0}, r"n_users must be at least 1, got 0"),
        ({"n_items": 10, "n_skills": 20}, r"n_items must be at least 20, got 10"),
        ({"mean_length": 0.5}, r"mean_length must be at least 1, got 0\.5"),
        ({"answer_strength": -1}, r"answer_strength must be at least 0, got -1"),
        ({"max_length": "long"}, r"max_length must be a number, got 'long'"),
    ],
)
def test_answer_log_says_what_is_wrong(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_answer_log(**parameters)
