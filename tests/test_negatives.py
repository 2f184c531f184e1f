"""Sampled negatives are rows of their event with an item the user never chose."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din.logs.negatives import sample_negatives

EVENTS = pd.DataFrame(
    {
        "user": [1, 1, 2, 3, 3],
        "item": ["hat", "tie", "hat", "sock", "shoe"],
        "category": ["head", "neck", "cap", "foot", "foot"],
        "time": [5, 6, 7, 8, 9],
    },
    index=[4, 4, 3, 2, 1],
)
OPTIONS = {"item": "item", "item_columns": ["category"], "random_state": 0}


def test_each_event_is_followed_by_its_negatives():
    before = EVENTS.copy()
    impressions, y = sample_negatives(EVENTS, user="user", n_negatives=3, **OPTIONS)
    assert impressions.index.equals(pd.RangeIndex(20))
    assert y.tolist() == [1, 0, 0, 0] * 5
    assert y.dtype == np.int64
    positives = impressions[y == 1].set_index(EVENTS.index)
    pd.testing.assert_frame_equal(positives, EVENTS)
    assert impressions["time"].tolist() == np.repeat(EVENTS["time"], 4).tolist()
    pd.testing.assert_frame_equal(EVENTS, before)


def test_item_columns_follow_the_item_by_its_last_row():
    impressions, y = sample_negatives(EVENTS, n_negatives=50, **OPTIONS)
    last = {"hat": "cap", "tie": "neck", "sock": "foot", "shoe": "foot"}
    negatives = impressions[y == 0]
    assert negatives["category"].tolist() == [last[item] for item in negatives["item"]]
    assert impressions["category"].iloc[0] == "head"  # the event itself stays as it was


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20),
    strategy=st.sampled_from(["uniform", "popularity"]),
    by_user=st.booleans(),
)
def test_a_negative_is_never_ones_own_and_always_of_the_catalogue(rows, strategy, by_user):
    events = pd.DataFrame(rows, columns=["user", "item"])
    catalogue = set(events["item"])
    owned = events.groupby("user")["item"].agg(set)
    user = "user" if by_user else None
    options = {"item": "item", "user": user, "strategy": strategy, "n_negatives": 4}
    if len(catalogue) == 1 or (by_user and any(items == catalogue for items in owned)):
        with pytest.raises(ValueError, match=r"no negative to sample|at least two items"):
            sample_negatives(events, **options)
        return
    impressions, y = sample_negatives(events, random_state=0, **options)
    own_items = impressions["item"].to_numpy()[y == 1].repeat(4)
    negatives = impressions[y == 0]
    for who, item, own in zip(negatives["user"], negatives["item"], own_items, strict=True):
        assert item in catalogue
        assert item not in (owned[who] if by_user else {own})


@pytest.mark.parametrize(("strategy", "shares"), [
    ("uniform", {"b": 1 / 3, "c": 1 / 3, "d": 1 / 3}),
    ("popularity", {"b": 3 / 6, "c": 2 / 6, "d": 1 / 6}),
])  # fmt: skip
def test_items_are_drawn_by_the_strategys_shares(strategy, shares):
    events = pd.DataFrame({"user": [1] + [2] * 6, "item": list("abbbccd")})
    options = {"item": "item", "user": "user", "strategy": strategy, "random_state": 0}
    impressions, y = sample_negatives(events, n_negatives=20_000, **options)
    drawn = impressions["item"][(y == 0) & (impressions["user"] == 1)]
    for item, share in shares.items():
        assert (drawn == item).mean() == pytest.approx(share, abs=0.015)


def test_a_user_who_lacks_one_item_gets_it():
    events = pd.DataFrame({"user": [1] * 999 + [2], "item": range(1000)})
    impressions, y = sample_negatives(events, item="item", user="user", random_state=0)
    assert set(impressions["item"][(y == 0) & (impressions["user"] == 1)]) == {999}


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]", "object"])
def test_dtypes_are_kept(dtype):
    events = EVENTS.astype({"item": dtype, "category": dtype, "user": "Int32"})
    impressions, _ = sample_negatives(events, **OPTIONS)
    pd.testing.assert_series_equal(impressions.dtypes, events.dtypes)


def test_the_draw_is_repeatable_and_leaves_the_global_state_alone():
    state = np.random.get_state()[1].copy()
    first, second = (sample_negatives(EVENTS, **OPTIONS)[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    other = sample_negatives(EVENTS, n_negatives=20, **OPTIONS | {"random_state": 1})[0]
    assert not other.equals(sample_negatives(EVENTS, n_negatives=20, **OPTIONS)[0])
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        (EVENTS, {"item": "itm"}, "events has no column 'itm'; did you mean 'item'"),
        (EVENTS, {"user": "usr"}, "events has no column 'usr'; did you mean 'user'"),
        (EVENTS, {"item_columns": "kind"}, "events has no column 'kind'"),
        (EVENTS, {"n_negatives": 0}, "n_negatives must be an integer of at least 1, got 0"),
        (EVENTS, {"strategy": "hard"}, "strategy must be one of uniform, popularity, got 'hard'"),
        (EVENTS.iloc[:0], {}, "events must have at least one row, got none"),
        (EVENTS.iloc[:1], {}, "events must have at least two items to sample from, got only 'hat'"),
        (EVENTS.assign(item=[None, *"abcd"]), {}, r"events\['item'\] must not be missing, got 1"),
        (EVENTS.assign(user=[np.nan, 1, 1, 1, 1]), {"user": "user"}, r"events\['user'\] must not"),
        (EVENTS.iloc[:2], {"user": "user"}, "user 1 has every item of the log, so there is no neg"),
    ],
)
def test_bad_input_is_named(events, options, message):
    with pytest.raises(ValueError, match=message):
        sample_negatives(events, **OPTIONS | options)
