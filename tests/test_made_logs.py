"""The made logs, those of the benchmarks too, are what their docstrings say: truth, sizes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.answer_log import make_answer_log
from benchmarks.market_log import make_market_log
from benchmarks.purchase_log import make_purchase_log
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import expected_calibration_error

SKILLS_PER_TOPIC = 5
# What both logs promise


@pytest.mark.parametrize("make", [make_click_log, make_answer_log])
def test_the_ceiling_is_within_reach_and_calibrated(make):
    log = make(random_state=0)
    assert 0.75 < roc_auc_score(log.y, log.probability) < 0.8
    assert expected_calibration_error(log.y, log.probability) < 0.01
    assert set(log.y) == {0, 1}


@pytest.mark.parametrize("make", [make_click_log, make_answer_log, make_market_log])
def test_a_seed_makes_the_same_log_and_touches_no_global_state(make):
    state = np.random.get_state()
    n_impressions = 1400 if make is make_market_log else 200
    options = {"n_users": 20, "n_impressions": n_impressions}
    first, second = (make(**options, random_state=5) for _ in range(2))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert not first.events.equals(make(**options, random_state=6).events)
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_users": 0}, "n_users must be at least 1, got 0"),
        ({"n_items": 10, "n_categories": 20}, "n_items must be at least 20, got 1"),
        ({"mean_length": 0.5}, r"mean_length must be at least 1, got 0\.5"),
        ({"n_impressions": 0}, "n_impressions must be at least 1, got 0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"interest_strength": -1}, "interest_strength must be at least 0, got -1"),
        ({"recency": 0}, "recency must be None or a half-life above 0, got 0"),
        ({"n_users": "5"}, "n_users must be a number, got '5'"),
    ],
)
def test_a_log_says_what_is_wrong(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_click_log(**parameters)


# The click log


def past_relevance(log, impression, recency, max_length):
    """The slow, obvious twin: what of the user's past the impression's label depends on."""
    events = log.events
    past = events[(events["user"] == impression.user) & (events["time"] < impression.time)]
    past = past.tail(max_length)
    age = np.arange(len(past))[::-1]
    fading = np.ones(len(past)) if recency is None else 0.5 ** (age / recency)
    return (past["category"] == impression.category).to_numpy() * fading


@pytest.mark.parametrize(("recency", "max_length"), [(None, 50), (2.5, 50), (None, 3), (1, 7)])
def test_relevance_agrees_with_a_loop_over_impressions(recency, max_length):
    log = make_click_log(
        n_users=15, n_categories=4, recency=recency, max_length=max_length, random_state=1
    )
    assert log.offsets[0] == 0
    for i, impression in enumerate(log.impressions.itertuples()):
        expected = past_relevance(log, impression, recency, max_length)
        got = log.relevance[log.offsets[i] : log.offsets[i + 1]]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("strength", [0, 1, 2])
def test_probability_follows_the_formula_of_the_docstring(strength):
    log = make_click_log(n_users=100, interest_strength=strength, random_state=0)
    logit = np.log(log.probability / (1 - log.probability))
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    past = np.bincount(row, weights=log.relevance, minlength=len(log.y))
    rest = pd.Series(logit - 1.5 * strength * np.log1p(past))
    rest += 0.4 * np.log(log.impressions["price"])
    by_device = rest.groupby(log.impressions["device"])
    assert by_device.std().max() < 1e-6  # nothing is left but the device and a constant
    assert by_device.mean().idxmax() == "desktop"
    assert by_device.mean().idxmin() == "tablet"


# The answer log


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


# The market log

NEWEST = 50


def interest(log, impression):
    """The slow, obvious twin: what the log-odds of a click owe to the user's past."""
    events = log.events
    past = events[(events["user"] == impression.user) & (events["time"] < impression.time)]
    past = past.tail(NEWEST)
    of_category = past[past["category"] == impression.category]

    def share_of_carts(some):
        return ((some["action"] == "cart").sum() + 1) / (len(some) + 8)

    return (
        1.3 * np.log1p((past["item"] == impression.item).sum())
        + 0.3 * np.log1p(len(of_category))
        + 3 * share_of_carts(past)
        + 3 * share_of_carts(of_category)
    )


@pytest.mark.parametrize("mood", [0.0, 2.0])
def test_the_markets_truth_agrees_with_a_loop_over_impressions(mood):
    sizes = {"n_users": 10, "n_impressions": 700, "n_items": 60}
    log = make_market_log(**sizes, base_rate=0.2, mood=mood, random_state=1)
    logit = np.log(log.probability / (1 - log.probability)) - log.quality[log.impressions["item"]]
    past = [interest(log, impression) for impression in log.impressions.itertuples()]
    rest = pd.Series(logit - past)
    visit = log.impressions["time"].astype("int64") // (86_400 * 10**9 // 5)
    rest -= rest.groupby(visit).transform("mean")
    by_day = rest.groupby([log.impressions["user"], log.impressions["time"].dt.date])
    assert by_day.std().max() < 1e-9  # nothing is left but a visit's constant and a day's mood
    assert by_day.mean().std() == pytest.approx(mood, abs=0.3)
    expected = pd.Series(log.probability).groupby(visit).mean()
    np.testing.assert_allclose(expected, 0.2, rtol=1e-9)


# The purchase log


def test_purchases_and_seconds_are_as_likely_as_the_log_says():
    log = make_purchase_log(n_users=2000, purchase_rate=0.1, random_state=0)
    y, probability = log.y, log.probability
    assert (y["purchase"] <= y["click"]).all()
    assert (probability["purchase"] < probability["click"]).all()
    assert probability["purchase"].mean() == pytest.approx(0.1)
    for name in ("click", "purchase"):
        assert expected_calibration_error(y[name], probability[name]) < 0.01
        assert 0.75 < roc_auc_score(y[name], probability[name]) < 0.9
    assert log.seconds.mean() == pytest.approx(log.expected_seconds.mean(), rel=0.02)
    error = np.log(log.seconds) - np.log(log.expected_seconds)
    assert error.std() == pytest.approx(0.8, abs=0.01)
    assert error.mean() == pytest.approx(-(0.8**2) / 2, abs=0.01)


def test_the_clicks_of_a_purchase_log_are_those_of_a_click_log():
    log, clicks = (make(n_users=50, random_state=0) for make in (make_purchase_log, make_click_log))
    np.testing.assert_array_equal(log.y["click"], clicks.y)
    pd.testing.assert_frame_equal(log.impressions, clicks.impressions)
