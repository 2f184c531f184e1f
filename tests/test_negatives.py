"""Sampled negatives are rows of their event with an item the user never chose."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import sample_negatives
from sklearn_din.logs.other_items import STRATEGIES
from sklearn_din.logs.sampling_notices import Repeats
from tests import tables

EVENTS = pd.DataFrame({
    "user": [1, 1, 2, 3, 3],
    "item": ["hat", "tie", "hat", "sock", "shoe"],
    "category": ["head", "neck", "cap", "foot", "foot"],
    "time": [5, 6, 7, 8, 9],
}, index=[4, 4, 3, 2, 1])  # fmt: skip
OPTIONS = {"item": "item", "item_columns": ["category"], "random_state": 0}
ROWS = np.arange(90)


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]", "object"])
def test_each_event_is_followed_by_its_negatives(dtype):
    events = EVENTS.astype({"item": dtype, "category": dtype, "user": "Int32"})
    before = events.copy()
    impressions, y = sample_negatives(events, user="user", n_negatives=3, **OPTIONS)
    assert impressions.index.equals(pd.RangeIndex(20))
    assert y.tolist() == [1, 0, 0, 0] * 5
    assert y.dtype == np.int64
    pd.testing.assert_frame_equal(impressions[y == 1].set_index(events.index), events)
    pd.testing.assert_series_equal(impressions.dtypes, events.dtypes)
    assert impressions["time"].tolist() == np.repeat(events["time"], 4).tolist()
    pd.testing.assert_frame_equal(events, before)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20),
       strategy=st.sampled_from(STRATEGIES), by_user=st.booleans())  # fmt: skip
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


def test_the_draw_is_repeatable_and_leaves_the_global_state_alone():
    state = np.random.get_state()[1].copy()
    first, second = (sample_negatives(EVENTS, **OPTIONS)[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    other = sample_negatives(EVENTS, n_negatives=20, **OPTIONS | {"random_state": 1})[0]
    assert not other.equals(sample_negatives(EVENTS, n_negatives=20, **OPTIONS)[0])
    assert (np.random.get_state()[1] == state).all()
    clicks = pd.DataFrame({"user": np.arange(90) % 9, "item": np.arange(90) % 31})
    clicks["time"] = np.maximum(np.arange(90) - 31, 0)  # every item is there from the start
    options = {"item": "item", "user": "user", "n_negatives": 3, "random_state": 0}
    with_time, _ = sample_negatives(clicks, time="time", **options)
    pd.testing.assert_frame_equal(with_time, sample_negatives(clicks, **options)[0])


def make_clicks(n_rows=300, n_users=100, n_items=25, seed=0):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, n_rows), rng.integers(0, n_items, n_rows)
    return pd.DataFrame({
        "user": users,
        "item": items,
        "category": np.array(["head", "neck", "foot", None], dtype=object)[items % 4],
        "price": items * 0.5,
        "tags": [["soft"] * (item % 3) for item in items],
        "age": users % 7 + 20,
        "device": rng.integers(0, 3, n_rows),
        "shop": "north",
        "time": np.arange(n_rows),
    })  # fmt: skip


def slow_owned(log, owner, column):
    """Plain-loop twin, without the question of chance: one value per owner throughout."""
    values = {}
    for who, value in zip(log[owner], log[column], strict=True):
        values.setdefault(who, set()).add(repr(value))
    return all(len(seen) == 1 for seen in values.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_rows=st.integers(200, 3000), n_odd=st.sampled_from([0, 1]))
def test_what_is_said_is_what_a_plain_loop_finds(seed, n_rows, n_odd):
    clicks = make_clicks(n_rows, seed=seed).drop(columns=["tags", "shop"])
    clicks.loc[clicks.index[:n_odd], "price"] = -1.0  # one exception among thousands
    items = clicks["item"].to_numpy()
    repeats = Repeats(items)
    for column in clicks.columns.drop("item"):
        assert repeats.owns(clicks[column]) == slow_owned(clicks, "item", column), column


def test_a_column_of_the_user_in_item_columns_is_said_and_five_items_are_no_accident():
    clicks = make_clicks()
    named = ["category", "price", "tags", "age"]
    message = r"^of item_columns, age holds one value for each 'user' and several for one"
    with pytest.warns(UserWarning, match=message) as caught:
        sample_negatives(clicks, item="item", user="user", item_columns=named)
    assert len(caught) == 1
    sample_negatives(clicks, item="item", item_columns=named)  # whose it is, is not known
    sample_negatives(make_clicks(n_items=4)[["item", "price"]], item="item")
    with pytest.warns(UserWarning, match="^price depends on 'item'"):
        sample_negatives(make_clicks(n_items=5)[["item", "price"]], item="item")


@pytest.mark.parametrize("clicks", [
    make_clicks(300, n_items=10**9)[["user", "item", "price"]],  # no item twice
    make_clicks(9)[["user", "item", "category"]],  # too few rows to tell
    make_clicks()[["user", "item", "age", "device", "shop", "time"]],
    # rare exceptions from one value: chance explains that the repeated items agree
    make_clicks().assign(price=0, tags=0, category=np.arange(300) == 299),
    # an item is always of the same user: nothing tells whose the column is
    pd.DataFrame({"item": ROWS // 3, "user": ROWS // 9, "age": ROWS // 9 % 5}),
], ids=["unique", "few rows", "others", "rare", "one user"])  # fmt: skip
def test_no_false_alarms(clicks):
    sample_negatives(clicks, item="item", user="user")


def slow_choice(events, row, user, launch=None):
    """Plain-loop twin: the items that a negative of this row may show, where items are launched."""
    event, first = events.iloc[row], events.groupby("item", sort=False)["time"].min()
    owner = events[events[user] == event[user]] if user else events.iloc[[row]]
    own, now = set(owner["item"]), event["time"]
    since = first if launch is None else launch
    order = [item for item in since.sort_values(kind="stable").index if item not in own]
    if launch is None and first[event["item"]] == now:  # nobody had it: all that come later
        return {item for item in order if since[item] >= now} or {order[-1]}  # the last one before
    is_up = since < now if launch is None else since <= now
    return {item for item in order if is_up[item]}  # of nothing, the event is left out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 9)), min_size=2, max_size=14
    ),
    strategy=st.sampled_from(STRATEGIES),
    user=st.sampled_from([None, "user"]),
)
@pytest.mark.slow
def test_negatives_of_launched_items_had_come_up_where_the_event_s_item_had(rows, strategy, user):
    events = pd.DataFrame(rows, columns=["user", "item", "time"])
    owned = events.groupby("user" if user else "item")["item"].nunique()
    if owned.max() == events["item"].nunique():
        return
    options = {"item": "item", "user": user, "time": "time", "strategy": strategy}
    options |= {"n_negatives": 60, "launched": True, "random_state": 0}
    choices = [slow_choice(events, row, user) for row in range(len(events))]
    if not any(choices):
        with pytest.raises(ValueError, match="to sample"):
            sample_negatives(events, **options)
        return
    shown, y = sample_negatives(events, **options)
    drawn = shown["item"].to_numpy().reshape(-1, 61)
    assert y.tolist() == [1, *[0] * 60] * len(drawn)
    for items, choice in zip(drawn, filter(None, choices), strict=True):
        assert set(items[1:]) <= choice
        if strategy == "uniform":
            assert set(items[1:]) == choice


@pytest.mark.parametrize("as_form", ["frame", "scan"], indirect=True)
def test_an_event_before_any_other_launch_is_left_out_with_one_line(caplog, as_form):
    events = pd.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "a"], "time": [1, 2, 9]})
    catalogue = pd.DataFrame({"item": ["a", "b", "c"], "since": [0, 0, 5]})
    options = {"item": "item", "user": "user", "time": "time", "n_negatives": 2}
    options |= {"catalogue": catalogue, "catalogue_time": "since", "random_state": 0}
    shown, y = sample_negatives(as_form(events), **options)
    assert shown["user"].tolist() == [2, 2, 2]
    assert np.asarray(y).tolist() == [1, 0, 0]
    (line,) = caplog.messages
    message = "sample_negatives: 2 of 3 events are left out: at their time there was no"
    assert line.startswith(message)
    with pytest.raises(ValueError, match="no negative to sample"):
        sample_negatives(events[:2], **options)


# Whether items were there -------------------------------------------------------------------

SHAPES = {  # items that are there at a moment from 0 to 1, of 3,000 clicks without any interest
    "uniform": (300, lambda now: 300),
    "long tail": (60_000, lambda now: 60_000),
    "launches": (300, lambda now: 10 + int(290 * now)),
    "launches in a long tail": (9_000, lambda now: 10 + int(8_990 * now)),
}


def make_noise(shape, n_clicks=3000, seed=0):
    """Clicks on anything that is there, and when each item came up."""
    chance, (n_items, n_there) = np.random.default_rng(seed), SHAPES[shape]
    names = chance.permutation(n_items)
    log = pd.DataFrame({"user": chance.integers(0, 300, n_clicks), "time": np.arange(n_clicks)})
    there = np.array([n_there(now) for now in log["time"] / n_clicks])
    log["item"] = names[(chance.random(n_clicks) * there).astype(int)]
    since = np.searchsorted(there, np.arange(n_items), side="right")
    return log, pd.DataFrame({"item": names, "since": since})


def tell_tales(shown, y):
    """AUC of "had an event before", "was shown before" and "another user has it"."""
    clicks = shown[y == 1]
    n_users = clicks.groupby("item")["user"].nunique()
    firsts = [frame.groupby("item")["time"].min() for frame in (clicks, shown)]
    facts = [shown["item"].map(first).to_numpy() < shown["time"].to_numpy() for first in firsts]
    known = shown["item"].map(n_users).fillna(0).to_numpy() - y > 0
    return [0.5 + (fact[y == 1].mean() - fact[y == 0].mean()) / 2 for fact in (*facts, known)]


@pytest.mark.parametrize("way", ["log", "catalogue", "launches"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:.* of the events are of items that nobody else has")
def test_nothing_that_was_before_tells_clicks_of_noise_from_negatives(shape, strategy, way):
    log, catalogue = make_noise(shape)
    options = {"log": {}, "catalogue": {"catalogue": catalogue[["item"]]}}
    options["launches"] = {"catalogue": catalogue, "catalogue_time": "since"}
    if (way == "catalogue" and "launches" in shape) or (way != "log" and strategy != "uniform"):
        return  # items are not there throughout; what nobody clicked is not drawn by popularity
    shown, y = sample_negatives(
        log, item="item", user="user", time="time", strategy=strategy, random_state=0,
        **options[way],
    )  # fmt: skip
    up, before, known = tell_tales(shown, y)
    assert abs(up - 0.5) < 0.03
    assert abs(before - 0.5) < 0.03
    assert abs(known - 0.5) < 0.03 or (way == "log" and "tail" in shape)


@pytest.mark.parametrize(("shape", "drawn"), [
    ("uniform", "from all items. launched=True"),
    ("launches", "from items with an event before it"),
    ("long tail", "from items with an event before it"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.* of the events are of items that nobody else has")
def test_a_line_tells_what_was_decided_and_the_draws_are_those(shape, drawn, caplog):
    log, catalogue = make_noise(shape)
    options = {"item": "item", "user": "user", "time": "time", "random_state": 0}
    shown, _ = sample_negatives(log, **options)
    (line,) = caplog.messages
    assert f"so the negatives of an event are drawn {drawn}" in line
    assert ("too few events" in line) == (shape == "long tail")
    same, _ = sample_negatives(log, launched="all" not in drawn, **options)
    pd.testing.assert_frame_equal(shown, same)
    known = {"catalogue": catalogue, "catalogue_time": "since"}  # nothing is asked
    sample_negatives(log, **known, **options)
    assert len(caplog.messages) == 1


def test_items_that_nobody_else_has_and_the_advice():
    log, catalogue = make_noise("long tail")
    (message,) = said(log, user="user", time="time")
    assert message.startswith("95% of the events are of items that nobody else has, and 0% of the")
    assert "(AUC 0.97). Trust only scores of splits by time (TimeSplit), or pass catal" in message
    (message,) = said(log.rename(columns={"time": "n"}), user="user")
    assert "Pass time=, trust only scores of splits by time (TimeSplit), or" in message
    assert said(log, user="user", time="time", catalogue=catalogue) == []
    assert said(log[:900], user="user", time="time") == []  # too few to tell


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), min_size=2, max_size=12
    ),
    since=st.lists(st.integers(0, 12), min_size=7, max_size=7),
    user=st.sampled_from([None, "user"]),
)
@pytest.mark.slow
def test_items_of_a_catalogue_are_shown_from_their_launch_on_as_they_were(rows, since, user):
    events = pd.DataFrame(rows, columns=["user", "item", "time"])
    events["price"] = events["time"] + 100.0
    catalogue = pd.DataFrame({"item": range(7), "price": np.arange(7) / 2, "since": since})
    first = events.groupby("item")["time"].min()
    launch = catalogue.set_index("item")["since"]
    launch.update(np.minimum(launch, first.reindex(launch.index, fill_value=99)))
    choices = [slow_choice(events, row, user, launch) for row in range(len(events))]
    options = {"item": "item", "item_columns": "price", "user": user, "time": "time"}
    options |= {"n_negatives": 60, "catalogue": catalogue, "catalogue_time": "since"}
    if not any(choices):
        with pytest.raises(ValueError, match="to sample"):
            sample_negatives(events, **options)
        return
    shown, y = sample_negatives(events, random_state=0, **options)
    drawn = shown["item"].to_numpy().reshape(-1, 61)
    for items, choice in zip(drawn, filter(None, choices), strict=True):
        assert set(items[1:]) == choice
    versions = pd.concat([catalogue.rename(columns={"since": "time"}), events])
    for row in shown[y == 0].drop_duplicates().itertuples():
        own = versions[versions["item"] == row.item].sort_values("time", kind="stable")
        past = own[own["time"] <= row.time]
        assert row.price == (past.iloc[-1] if len(past) else own.iloc[0])["price"]


def test_values_of_later_times_are_said():
    log, _ = make_noise("long tail")
    log = pd.concat([log, log.assign(time=log["time"] + 3000)], ignore_index=True)
    log["price"] = log["item"] % 5 + log["time"] / 100
    given = {"user": None, "time": "time", "item_columns": "price", "launched": False}
    (message,) = [text for text in said(log, **given) if "a value from the future" in text]
    assert message.startswith("24% of the negatives are of items without an event so far and take")
    assert "although ['price'] change over time: a value from the future" in message
    prices = log.groupby("item", as_index=False).first().assign(time=-1)
    given |= {"catalogue": prices, "catalogue_time": "time"}
    assert not any("a value from the future" in text for text in said(log, **given))
    log["price"] = log["item"] % 5
    given |= {"catalogue": None, "catalogue_time": None}
    assert not any("a value from the future" in text for text in said(log, **given))


def make_turning_log(n_rows=2000, seed=0):
    """Items come up over time, prices drift; nobody buys a thing twice."""
    chance = np.random.default_rng(seed)
    time = np.sort(chance.integers(0, 1000, n_rows))
    item = (chance.random(n_rows) * (20 + time / 10)).astype(int)
    log = pd.DataFrame({"user": chance.integers(0, 500, n_rows), "item": item})
    log["when"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(time, unit="h")
    start = np.exp(chance.normal(2, 0.7, size=200))
    log["price"] = start[item] * np.exp(time / 2000 + chance.normal(0, 0.03, n_rows))
    log["hour"] = log["when"].dt.hour
    log["age"] = (log["user"] * 7 % 50) + 18.0
    log["spent"] = chance.exponential(size=n_rows)
    return log.drop_duplicates(["user", "item"], ignore_index=True)


def said(log, **options):
    def call():
        sample_negatives(log, item="item", random_state=0, **options)

    return tables.said(call, filename=__file__)[0]


@pytest.mark.parametrize("user", [None, "user"])
def test_a_forgotten_column_that_changes_in_time_and_its_advice(user):
    log = make_turning_log()
    for rows in (log, log.sample(frac=1, random_state=0)):
        (message,) = said(rows, user=user, time="when")
        assert message.startswith("price depends on 'item', not in item_columns: a neg")
        assert message.endswith("the item, item_columns=['price'] and time='when'.")
    assert said(log, user=user, time="when", item_columns=["price"]) == []
    log["country"] = np.array(["fr", "de", "pl"])[log["user"] % 3]
    log["item"] = log["item"] * 3 + log["user"] % 3  # each item is bought in one country
    log.loc[::50, "item"] = 0
    assert said(log.drop(columns="price"), user="user", time="when") == []


@pytest.mark.parametrize(("given", "advice"), [
    ({}, {"time": "when"}),
    ({"time": "when", "launched": False}, {"launched": True}),
    ({"time": "when", "catalogue": 0}, {"catalogue_time": "since"}),
])  # fmt: skip
def test_negatives_before_their_items_first_event_and_the_advice(given, advice):
    log = make_turning_log().drop(columns="price")
    if "catalogue" in given:
        first = log.groupby("item", as_index=False)["when"].min()
        given = given | {"catalogue": first.rename(columns={"when": "since"})}
    (message,) = said(log, user="user", **given)
    ((name, value),) = advice.items()
    value = "" if name == "catalogue_time" else repr(value)
    assert "of the negatives would show an item before its first event, by 'when', and" in message
    assert f"(AUC 0.65). Pass {name}={value} to draw only items" in message
    assert said(log, user="user", **given | advice) == []
    with pytest.warns(UserWarning, match="before its first event"):
        shown, y = sample_negatives(log, item="item", user="user", random_state=0, **given)
    first = log.groupby("item")["when"].min()
    early = (shown["when"] < shown["item"].map(first))[y == 0].mean()
    assert float(message.partition("%")[0]) / 100 == pytest.approx(early, abs=0.02)


@pytest.mark.parametrize("start", [0, 1_400_000_000])
def test_numbers_that_order_the_events_and_users_who_come_back_are_found(start):
    times = start + 60 * pd.Series(np.arange(1000))
    log = pd.DataFrame({"item": np.arange(1000) // 10, "time": times})
    assert "before its first event, by 'time'" in said(log)[0]
    renamed = said(log.rename(columns={"time": "at"}))
    assert len(renamed) == (times.min() > 0)  # plain numbers of any name may be anything
    log = pd.DataFrame({"user": np.arange(300) % 20, "item": np.arange(300) % 20 * 7 % 6})
    log["item"] += np.arange(300) // 20 % 3
    (message,) = said(log, user="user")
    assert message.startswith("80% of the events repeat a pair of 'user' and 'item': with user=")
    assert message.endswith("Pass user=None.")
    assert said(log) == []
