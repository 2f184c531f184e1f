"""Histories that hold the row's own click, and columns that are the label, are said at fit."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    sample_negatives,
)
from sklearn_din.training.leaks import RepeatShares, measure_repeats, warn_of_leaks
from tests.tables import said
from tests.test_negatives import SHAPES, make_noise

OLD = "that was clicked before: this alone separates them"
OWN = "histories seem to hold the row's own click"


def make_shop(n_users=150, n_rows=30, n_items=400, repeats=0.0, seed=0):
    """Sessions of purchases, some of things bought before, and as many negatives."""
    chance = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), n_rows)
    item = chance.integers(0, n_items, (n_users, n_rows))
    for row in range(1, n_rows):
        again = chance.random(n_users) < repeats
        before = item[np.arange(n_users), chance.integers(0, row, n_users)]
        item[:, row] = np.where(again, before, item[:, row])
    start = chance.integers(0, 40 * 86_400, n_users)
    time = start[:, None] + np.cumsum(chance.integers(60, 40_000, item.shape), axis=1)
    log = pd.DataFrame({"user": user, "item": item.ravel(), "time": time.ravel()})
    log["category"] = log["item"] % 7
    log["time"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(log["time"], unit="s")
    options = {"item_columns": ["category"], "time": "time", "random_state": seed}
    shown, y = sample_negatives(log, item="item", **options)
    return shown, log, y


def encode(shown, log):
    with warnings.catch_warnings(action="ignore"):  # of clocks and row ids: asked is what fit sees
        X = attach_history(shown, log, user="user", time="time", columns=["item", "category"])
        return HistorySequenceEncoder(user="user", time="time").fit_transform(X)


def leaks_said(X, y):
    return said(lambda: warn_of_leaks(X, np.asarray(y, dtype=np.float32)))[0]


@pytest.mark.parametrize("repeats", [0.0, 0.3, 0.6, 0.9])
def test_users_who_come_back_to_what_they_had_are_no_leak(repeats):
    shown, log, y = make_shop(repeats=repeats)
    assert leaks_said(encode(shown, log), y) == []
    late = shown.assign(time=shown["time"] + pd.Timedelta("1s"))
    messages = leaks_said(encode(late, log), y)
    assert len(messages) == (repeats < 0.9)  # there, nothing tells a click from a repetition
    assert all(f"the newest {50 if repeats < 0.5 else 2} events" in m for m in messages)


def delay(shown, by):
    return shown.assign(time=shown["time"] + pd.Timedelta(by))


FAULTS = {
    "events by day": lambda shown, log: (shown, log.assign(time=log["time"].dt.floor("D"))),
    "impressions of a later zone": lambda shown, log: (delay(shown, "8h"), log),
    "clocks one second apart": lambda shown, log: (delay(shown, "1s"), log),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rows_own_click_in_its_history_is_said_with_all_fractions(fault):
    shown, log, y = make_shop(repeats=0.2)
    X = encode(*FAULTS[fault](shown, log))
    (message,) = leaks_said(X, y)
    (behaviour,) = X.schema.behaviours
    repeats = measure_repeats(X, behaviour, np.asarray(y) == 1, n_events=50)
    assert message.startswith(
        "the candidate is among the newest 50 events of hist_item+hist_category in "
        f"{repeats.clicked:.0%} of the clicked rows and {repeats.others:.0%} of the others, while "
        f"{repeats.events:.0%} of the events repeat an earlier one: {OWN}. Usual causes: the times "
    )
    day = {name: frame.assign(time=frame["time"].dt.floor("D")) for name, frame in
           (("shown", shown), ("log", log))}  # fmt: skip
    assert leaks_said(encode(day["shown"], day["log"]), y) == []  # the advice


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(2, 30), n_events=st.integers(0, 6))
def test_the_fractions_are_those_of_a_plain_loop(seed, n_items, n_events):
    chance = np.random.default_rng(seed)
    n_rows = 300
    hist = [chance.integers(0, n_items, chance.integers(0, n_events + 1)) for _ in range(n_rows)]
    frame = pd.DataFrame({"item": chance.integers(0, n_items, n_rows), "hist_item": hist})
    frame["tag"] = frame["item"] % 2
    frame["hist_tag"] = [cell % 2 for cell in hist]
    y = chance.random(n_rows) < 0.5
    X = HistorySequenceEncoder(histories={("hist_item", "hist_tag"): ("item", "tag")})
    with warnings.catch_warnings(action="ignore"):  # all histories may be empty
        X = X.fit_transform(frame)
    long = np.array([len(cell) > 1 for cell in hist])
    repeats = measure_repeats(X, X.schema.behaviours[0], y, n_events=50)
    if min((long & y).sum(), (long & ~y).sum()) < 50:
        assert repeats is None
        return
    holds = np.array([item in cell[1:] for item, cell in zip(frame["item"], hist, strict=True)])
    again = np.array([len(cell) > 1 and cell[-1] in cell[:-1] for cell in hist])
    assert repeats.clicked == pytest.approx(holds[long & y].mean())
    assert repeats.others == pytest.approx(holds[long & ~y].mean())
    assert repeats.events == pytest.approx(again[long & y].mean())


@pytest.mark.parametrize(("clicked", "others", "events", "is_leak"), [
    (0.98, 0.06, 0.24, True),  # by day, a shop
    (0.44, 0.0, 0.0, True),  # ms against s, MovieLens: the newest 50 of all events
    (1.0, 0.172, 0.415, True),  # the same, a made click log
    (0.165, 0.0, 0.113, False),  # e-shop, the last click of each session
    (0.578, 0.161, 0.482, False),  # a made click log of few items and strong interests
    (0.607, 0.239, 0.332, False),  # a market whose events are views too
    (0.95, 0.06, 0.64, False),  # as many categories as items, and each user has five
    (0.7, 0.0, 0.68, False),  # songs, with negatives that are never of the history
])  # fmt: skip
def test_what_was_seen_of_faults_and_of_clean_logs(clicked, others, events, is_leak):
    assert RepeatShares(clicked, others, events).is_leak == is_leak


@pytest.mark.parametrize("n_items", [2, 3])
def test_users_who_go_round_a_few_items_and_ids_of_single_rows_are_no_leak(n_items):
    users, rows = np.divmod(np.arange(600), 60)
    log = pd.DataFrame({"user": users, "item": (users * 7 + rows % n_items) % 10, "time": rows})
    log["category"] = log["item"] % 2
    options = {"item_columns": ["category"], "time": "time", "random_state": 0}
    shown, y = sample_negatives(log, item="item", **options)
    assert leaks_said(encode(shown, log), y) == []
    assert leaks_said(encode(shown.assign(request=np.arange(len(y)).astype(str)), log), y) == []


@pytest.mark.parametrize(
    "label", ["label", "score", "stars", "amount", "rate", "holes", "texts", "flagged"]
)
def test_a_column_that_is_the_label(label):
    shown, log, y = make_shop(n_users=40)
    holes = np.where(np.arange(len(y)) % 9, y + np.arange(len(y)) / 1e6, np.nan)
    if label == "flagged":  # by one's own column of what is missing
        shown = shown.assign(flagged_missing=np.isnan(holes).astype(float))
    columns = {
        "label": y,
        "score": y.astype(float),
        "stars": np.where(y == 1, 4 + np.arange(len(y)) % 2, np.arange(len(y)) % 4),
        "rate": np.where(y == 1, np.nan, np.arange(len(y)) % 7 / 10),  # missing in clicks alone
        "holes": holes,
        "flagged": holes,
        "texts": np.where(np.arange(len(y)) % 9, np.where(y == 1, "yes", "no"), None),
        "amount": y * (1.0 + np.arange(len(y))),  # what was paid is known after the purchase
    }
    (message,) = leaks_said(encode(shown.assign(**{label: columns[label]}), log), y)
    assert message.startswith(f"{label} alone tells clicked rows from others with an AUC of 1.0000")
    assert f"drop the column, HistorySequenceEncoder(drop=['{label}'])" in message
    assert leaks_said(encode(shown, log), y) == []  # the advice


@pytest.mark.parametrize("smoothing", [0, 5])
def test_a_mean_of_the_label_by_user_and_item(smoothing):
    shown, log, y = make_shop(n_items=150)
    random = np.random.default_rng(0).random
    y = np.where(random(len(y)) < 0.6, y, random(len(y)) < 0.5)  # the rows alone tell little
    labels = pd.Series(y).groupby([shown["user"], shown["item"]])
    total, count = labels.transform("sum"), labels.transform("count")
    rate = (total + smoothing * y.mean()) / (count + smoothing)
    (message,) = leaks_said(encode(shown.assign(rate=rate), log), y)
    assert message.startswith("rate alone tells clicked rows from others with an AUC of 0.9")
    ones = shown.assign(clicked=y)  # the advice
    so_far = {"rate": (("user", "item"), "clicked", "mean"), "n": ("item", "clicked", "mean")}
    before = attach_aggregates(shown, ones, time="time", aggregates=so_far)
    assert leaks_said(encode(before, log), y) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drawn", ["here", "what came up", "anything"])
@pytest.mark.filterwarnings("ignore:.* of the events are of items that nobody else has")
def test_negatives_made_elsewhere_that_tell_whether_anybody_clicked_their_item(shape, drawn):
    clicks, _ = make_noise(shape)
    shown, y = sample_negatives(clicks, item="item", user="user", time="time", random_state=0)
    if drawn != "here":
        first = clicks.groupby("item")["time"].min().sort_values()
        n_up = len(first)
        if drawn == "what came up":
            n_up = first.searchsorted(clicks["time"], side="right")
        place = np.random.default_rng(0).random(len(clicks)) * n_up
        shown.loc[y == 0, "item"] = first.index[place.astype(int)]
    X = attach_history(shown, clicks, user="user", time="time", columns="item")
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(X)
    is_leak = drawn == "what came up" and "tail" in shape
    is_leak |= drawn == "anything" and shape in {"long tail", "launches"}
    assert [text for text in leaks_said(X, y) if OLD not in text] == []
    assert len(leaks_said(X, y)) == is_leak
    if drawn == "here":  # nor in a fold by user
        assert leaks_said(X[X.users % 3 > 0], y[X.users % 3 > 0]) == []


fit = DINClassifier(max_epochs=1, early_stopping=False).fit
ORDERED = {"categories": ["low", "high"], "ordered": True}


@pytest.mark.parametrize(("labels", "click", "other"), [
    *((words, max(words), min(words)) for words in (
        ["fresh", "rotten"], ["active", "churned"], ["good", "poor"], ["keep", "return"],
        ["hit", "miss"], ["no", "yes"],
    )),
    (pd.Categorical(["low", "high"], **ORDERED), "low", "high"),
    ([0, 1], None, None),
    ([False, True], None, None),
    (pd.Categorical(["high", "low"], ["high", "low"], ordered=True), "low", "high"),
])  # fmt: skip
def test_labels_that_are_words_are_said_in_one_line_and_the_advice(labels, click, other):
    X = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    y = pd.Series(labels).take(np.arange(300) % 2).reset_index(drop=True)
    lines = [line for text in said(lambda: fit(X, y)) for line in text]
    about = [line for line in lines if "counts as the click" in line]
    assert len(about) == (click is not None)
    for line in about:
        assert line.startswith(f"the label {click!r} counts as the click, since it sorts behind ")
        assert line.endswith(f"If {other!r} is the click, pass (y == {other!r}).astype(int).")
    if not about:
        return
    asked = said(lambda: fit(X, (y == other).astype(int)))  # the advice
    assert not [line for text in asked for line in text if "counts as" in line]


def test_an_order_of_labels_that_makes_the_worse_one_the_click_is_a_warning():
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    y = pd.Series(pd.Categorical(["low", "high"] * 20, **ORDERED))
    with pytest.warns(UserWarning, match=r"the label 'low' counts .* If 'high' is the click, pass"):
        fit(X, y)
    few = said(lambda: fit(X, y.astype(str)))
    assert not [line for text in few for line in text if "counts as" in line]  # check_estimator's


@pytest.mark.parametrize("kind", ["label", "mean", "count"])
def test_columns_named_like_levels_are_checked_as_any_other(kind):
    """Honest twin: levels of strictly earlier rows have the same names."""
    chance = np.random.default_rng(0)
    user, item = chance.integers(0, 60, 6000), chance.integers(0, 40, 6000)
    rows = pd.DataFrame({"user": user, "item": item, "time": np.arange(6000)})
    y = (chance.random(6000) < 0.2 + 0.6 * item / 40).astype(int)
    log = rows.assign(y=y)
    names = {"user": "user", "time": "time"}
    honest = attach_aggregates(rows, log, **names, label="y", aggregates="levels", levels=["item"])
    histories = {"user": "user", "time": "time", "columns": ["item"]}
    for is_own in (False, True):
        X = attach_history(honest, log[y == 1], **histories)
        if is_own and kind == "label":
            X["item_rate"] = y + chance.normal(0, 0.01, 6000)
        elif is_own and kind == "mean":
            X["item_rate"] = log.groupby("item")["y"].transform("mean")
        elif is_own:
            X["item_count"] = log.groupby("user")["y"].cumsum().astype(float)
        encoded = HistorySequenceEncoder(user="user", time="time").fit_transform(X)
        said = leaks_said(encoded, y)
        assert any(line.startswith("item_") for line in said) == is_own, said


def test_a_column_whose_name_has_a_space_is_named_once_by_its_whole_name():
    chance = np.random.default_rng(0)
    y = chance.integers(0, 2, 6000)
    rows = pd.DataFrame({"user": chance.integers(0, 60, 6000), "time": np.arange(6000)})
    frame = rows.assign(item=chance.integers(0, 400, 6000))
    for name in ("my clicks", "my count"):
        frame[name] = pd.Series(y).groupby(rows["user"]).cumsum() + chance.normal(0, 0.01, 6000)
    X = attach_history(frame, frame[y == 1], user="user", time="time", columns=["item"])
    said = leaks_said(HistorySequenceEncoder(user="user", time="time").fit_transform(X), y)
    assert [line.partition(" changes")[0] for line in said] == ["my clicks", "my count"]


@pytest.mark.parametrize("limit", [4, 6])
def test_stars_of_which_the_label_is_made_are_named_as_such_and_other_stars_are_silent(limit):
    chance, n = np.random.default_rng(0), 2_000
    rows = pd.DataFrame({"user": chance.integers(99, size=n), "item": chance.integers(50, size=n)})
    stars = chance.integers(1, 6, size=n)
    rows["category"], rows["time"] = stars.astype(str), np.arange(n)
    own = limit == 4
    messages = leaks_said(encode(rows, rows), stars >= limit if own else chance.random(n) < 0.4)
    assert ["most rows show a value of category" in message for message in messages] == [True] * own
    assert not [message for message in messages if "nobody ever" in message]
