"""The click log is what its docstring says: its truth, its times, its sizes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sklearn_din.datasets import make_click_log
from sklearn_din.logs.history import attach_history
from sklearn_din.metrics import expected_calibration_error

FRAMES_AND_ARRAYS = ("events", "impressions", "y", "probability", "relevance", "offsets")


@pytest.fixture(scope="module")
def log():
    return make_click_log(random_state=0)


def past_relevance(log, impression, recency, max_length):
    """The slow, obvious twin: what of the user's past the impression's label depends on."""
    events = log.events
    past = events[(events["user"] == impression.user) & (events["time"] < impression.time)]
    past = past.tail(max_length)
    age = np.arange(len(past))[::-1]
    fading = np.ones(len(past)) if recency is None else 0.5 ** (age / recency)
    return (past["category"] == impression.category).to_numpy() * fading


def interest(log):
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    return np.bincount(row, weights=log.relevance, minlength=len(log.y))


def ceiling(**parameters):
    log = make_click_log(random_state=0, **parameters)
    return roc_auc_score(log.y, log.probability)


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
    rest = pd.Series(logit - 1.5 * strength * np.log1p(interest(log)))
    rest += 0.4 * np.log(log.impressions["price"])
    by_device = rest.groupby(log.impressions["device"])
    assert by_device.std().max() < 1e-6  # nothing is left but the device and a constant
    assert by_device.mean().idxmax() == "desktop"
    assert by_device.mean().idxmin() == "tablet"


def test_three_impressions_in_ten_are_clicked_with_the_stated_probability(log):
    assert log.probability.mean() == pytest.approx(0.3, abs=1e-6)
    assert set(log.y) == {0, 1}
    assert expected_calibration_error(log.y, log.probability) < 0.01


def test_the_ceiling_is_within_reach_and_far_from_perfect():
    assert 0.75 < ceiling() < 0.8


def test_a_stronger_interest_raises_the_ceiling():
    ceilings = [ceiling(n_users=1000, interest_strength=strength) for strength in (0, 0.5, 1, 2)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] < 0.62  # price and device matter only a bit
    assert ceilings[3] > 0.85


def test_with_recency_counting_is_not_enough():
    log = make_click_log(recency=2, interest_strength=2, random_state=0)
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    count = np.bincount(row, weights=log.relevance > 0, minlength=len(log.y))
    assert roc_auc_score(log.y, interest(log)) > roc_auc_score(log.y, count) + 0.02


def test_later_events_do_not_tell_the_label(log):
    last = log.events.groupby(["user", "item"])["time"].max().rename("last").reset_index()
    shown = log.impressions.merge(last, on=["user", "item"], how="left")
    comes_back = (shown["last"] >= shown["time"]).to_numpy()
    surprise = (log.y - log.probability)[comes_back]
    assert comes_back.sum() > 500
    assert abs(surprise.mean()) < 3 * 0.5 / np.sqrt(comes_back.sum())


def test_events_and_impressions_come_in_the_order_of_time(log):
    for frame in (log.events, log.impressions):
        assert frame["time"].is_monotonic_increasing
        assert frame["time"].dtype == "datetime64[ns]"
        assert frame.index.equals(pd.RangeIndex(len(frame)))


def test_relevance_is_aligned_with_what_attach_history_attaches(log):
    attached = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["category"], max_length=50
    )
    history = [np.asarray(cell) for cell in attached["hist_category"]]
    np.testing.assert_array_equal([len(cell) for cell in history], np.diff(log.offsets))
    shown = np.repeat(log.impressions["category"], np.diff(log.offsets))
    np.testing.assert_array_equal(np.concatenate(history) == shown, log.relevance)


def test_some_times_are_tied(log):
    tied_events = log.events.duplicated(["user", "time"]).mean()
    shown_at_an_event = log.impressions.merge(
        log.events[["user", "time"]].drop_duplicates(), on=["user", "time"]
    )
    assert 0.005 < tied_events < 0.05
    assert 0.005 < len(shown_at_an_event) / len(log.impressions) < 0.05


def test_an_item_has_one_category_and_one_price(log):
    columns = ["item", "category"]
    pairs = pd.concat([log.events[columns], log.impressions[columns]]).drop_duplicates()
    assert not pairs["item"].duplicated().any()
    assert (log.impressions.groupby("item")["price"].nunique() == 1).all()


def test_few_items_are_popular(log):
    counts = log.events["item"].value_counts()
    assert counts.iloc[: len(counts) // 10].sum() > 0.3 * len(log.events)


def test_users_have_several_interests_but_not_all(log):
    shares = log.events.groupby("user")["category"].value_counts(normalize=True)
    long = log.events["user"].value_counts().loc[lambda n: n >= 20].index
    top = shares.groupby("user").nlargest(5).groupby(level=0).sum()
    assert shares.groupby("user").max()[long].median() < 0.6
    assert top[long].median() > 0.7


def test_the_past_is_sometimes_empty_and_never_longer_than_max_length(log):
    length = np.diff(log.offsets)
    assert (length == 0).any()
    assert length.max() == 50


def test_sizes_are_as_asked():
    log = make_click_log(
        n_users=300, n_items=40, n_categories=40, mean_length=7, n_impressions=123, random_state=0
    )
    assert len(log.impressions) == len(log.y) == len(log.probability) == 123
    assert log.events["user"].nunique() == 300
    assert len(log.events) / 300 == pytest.approx(7, abs=1)
    seen = pd.concat([log.events, log.impressions])
    assert seen["item"].nunique() == seen["category"].nunique() == 40
    assert "300 users, 40 items in 40 categories" in log.DESCR


def test_the_smallest_log_there_is():
    log = make_click_log(n_users=1, n_items=1, n_categories=1, mean_length=1, random_state=0)
    assert len(log.events) == 1
    assert len(log.impressions) == 20


def test_a_seed_makes_the_same_log_and_touches_no_global_state():
    state = np.random.get_state()
    first, second = (make_click_log(n_users=20, random_state=5) for _ in range(2))
    other = make_click_log(n_users=20, random_state=6)
    for name in FRAMES_AND_ARRAYS:
        np.testing.assert_array_equal(first[name], second[name])
    assert not first.events.equals(other.events)
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_users": 0}, r"n_users must be at least 1, got 0"),
        ({"n_items": 10, "n_categories": 20}, r"n_items must be at least 20, got 10"),
        ({"mean_length": 0.5}, r"mean_length must be at least 1, got 0\.5"),
        ({"n_impressions": 0}, r"n_impressions must be at least 1, got 0"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"interest_strength": -1}, r"interest_strength must be at least 0, got -1"),
        ({"recency": 0}, r"recency must be None or a half-life above 0, got 0"),
    ],
)
def test_click_log_says_what_is_wrong(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_click_log(**parameters)
