"""The made logs, those of the benchmarks too, are what their docstrings say: truth, sizes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from benchmarks.answer_log import make_answer_log
from benchmarks.market_log import make_market_log
from sklearn_din.datasets import make_click_log

# What both logs promise


@pytest.mark.parametrize("make", [make_click_log, make_answer_log, make_market_log])
def test_the_ceiling_is_within_reach_and_calibrated(make):
    log = make(random_state=0)
    assert 0.75 < roc_auc_score(log.y, log.probability) < 0.8
    curve = calibration_curve(log.y, log.probability, n_bins=10, strategy="quantile")
    assert abs(np.subtract(*curve)).mean() < 0.01
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
    options = {"recency": recency, "max_length": max_length, "random_state": 1}
    log = make_click_log(n_users=8, n_categories=4, **options)
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
