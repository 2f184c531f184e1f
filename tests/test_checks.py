"""What is wrong with a log is said at fit; honest twins of each fault are silent."""

import html
import warnings
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_aggregates,
    check,
)
from sklearn_din.server.answers import Answers
from sklearn_din.training.label_means import find_label_means
from sklearn_din.training.wrong_histories import find_clocks_of_some, find_wrong_rows
from sklearn_din.utils.plain_values import read_value
from tests.click_frames import as_lists, attach, encode
from tests.fitted_pipelines import make_model
from tests.tables import as_scan, said


def make_log():
    """Clicks and as many other rows of 80 users; whose rows a user clicks is drawn by the item."""
    chance = np.random.default_rng(0)
    shown = pd.DataFrame({"user": np.repeat(np.arange(80), 50)})
    shown["item"] = chance.integers(0, 200, len(shown))
    shown["category"] = shown["item"] % 30
    times = np.sort(chance.integers(0, 60 * 86_400, (80, 50)), axis=1).ravel()
    shown["time"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(times, unit="s")
    taste = chance.uniform(0.1, 0.9, 200)[shown["item"]] * chance.uniform(0.3, 1, 80)[shown["user"]]
    return shown, (chance.random(len(shown)) < taste).astype(int)


SHOWN, Y = make_log()
CLICKS = SHOWN[Y == 1]
ATTACHED = attach(SHOWN, CLICKS)


def take_histories(X, rows):
    moved = {name: X[name].array.take(rows) for name in ("hist_item", "hist_category")}
    return X.assign(**moved)


def shuffle_within_users(X, chance):
    rows = np.arange(len(X))
    for _, own in X.groupby("user").indices.items():
        rows[own] = chance.permutation(own)
    return rows


@pytest.mark.parametrize("fault", ["all rows", "within users"])
def test_histories_on_other_rows_are_said(fault):
    X, chance = ATTACHED, np.random.default_rng(1)
    rows = chance.permutation(len(X)) if fault == "all rows" else shuffle_within_users(X, chance)
    finding = find_wrong_rows(encode(take_histories(X, rows)))
    assert "does not continue the earlier one" in finding.verdict
    assert finding.name == "histories on their rows"
    assert find_wrong_rows(encode(X)) is None  # the advice


def test_histories_from_newest_to_oldest_are_said():
    X = attach(SHOWN, CLICKS, max_length=40)
    turned = X.assign(**{n: [cell[::-1] for cell in X[n]] for n in ("hist_item", "hist_category")})
    assert "are they newest first?" in find_wrong_rows(encode(turned)).verdict


def recently_viewed(X):
    cells = [list(dict.fromkeys(list(cell)[::-1]))[:10][::-1] for cell in X["hist_item"]]
    return X.drop(columns="hist_category").assign(hist_item=cells)


def without_own_item(X):
    cells = [[e for e in cell if e != item] for cell, item in zip(X["hist_item"], X["item"])]  # noqa: B905
    return X.drop(columns="hist_category").assign(hist_item=cells)


HONEST = {
    "as attached": lambda shown, clicks: attach(shown, clicks),
    "a day's events": lambda shown, clicks: attach(shown, clicks, max_age="6D"),
    "a unique recently-viewed list": lambda *log: recently_viewed(attach(*log)),
    "the own item taken out": lambda *log: without_own_item(attach(*log)),
    "dated by day": lambda *log: attach(*(r.assign(time=r["time"].dt.floor("D")) for r in log)),
    "one row per user": lambda shown, clicks: attach(shown.groupby("user").tail(1), clicks),
    "hours beside hours": lambda *log: attach(*(r.assign(category=r["time"].dt.hour) for r in log)),
    "full histories": lambda shown, clicks: attach(shown, clicks, max_length=3),
    "rows in any order": lambda shown, clicks: attach(shown.sample(frac=1, random_state=0), clicks),
}


@pytest.mark.parametrize("honest", HONEST)
def test_histories_of_their_own_rows_are_silent(honest):
    X = HONEST[honest](SHOWN, CLICKS)
    y = pd.Series(Y).reindex(X.index).to_numpy()
    encoded = encode(X)
    assert find_wrong_rows(encoded) is None
    assert find_clocks_of_some(encoded, y == 1) is None


@pytest.mark.parametrize("late", ["1s", "5h"])
def test_a_clock_that_is_late_for_a_fifth_of_the_users_is_said(late):
    is_late = SHOWN["user"] % 5 == 0
    moved = SHOWN.assign(time=SHOWN["time"] + is_late.astype(int) * pd.Timedelta(late))
    finding = find_clocks_of_some(encode(attach(moved, CLICKS)), Y == 1)
    assert "of the users, the clicked item is already among the newest" in finding.verdict
    assert find_clocks_of_some(encode(ATTACHED), Y == 1) is None  # the advice


def with_number(make):
    return encode(SHOWN.assign(number=np.asarray(make(SHOWN.assign(y=Y)), float)))


def rate_so_far(rows, how):
    rate = {"rate": ("item", "y", how)}
    return attach_aggregates(rows, rows, time="time", aggregates=rate)["rate"]


def findings(X, y):
    return list(find_label_means(X, np.asarray(y) == 1))


MEANS = {
    "of the item": lambda rows: rows.groupby("item")["y"].transform("mean"),
    "of the user": lambda rows: rows.groupby("user")["y"].transform("mean"),
    "of the category": lambda rows: rows.groupby("category")["y"].transform("mean"),
}
NUMBERS = {
    "a price per item": lambda rows: np.random.default_rng(2).lognormal(size=200)[rows["item"]],
    "noise": lambda rows: np.random.default_rng(2).normal(size=len(rows)),
    "the rate so far": lambda rows: rate_so_far(rows, "mean"),
    "the shrunk rate so far": lambda rows: rate_so_far(rows, "shrunk_rate"),
    "the hour": lambda rows: rows["time"].dt.hour,
}


@pytest.mark.parametrize("mean", MEANS)
def test_means_of_the_label_over_all_rows_are_said(mean):
    found = findings(with_number(MEANS[mean]), Y)
    assert ["number" in finding.verdict for finding in found] == [True]


@pytest.mark.parametrize("number", NUMBERS)
def test_honest_numbers_are_silent(number):
    assert findings(with_number(NUMBERS[number]), Y) == []


def test_last_months_rate_of_an_item_is_silent():
    is_late = (SHOWN["time"] >= "2024-02-01").to_numpy()
    rates = pd.Series(Y[~is_late]).groupby(SHOWN["item"][~is_late].to_numpy()).mean()
    later = SHOWN[is_late].reset_index(drop=True)
    number = later["item"].map(rates).fillna(Y.mean())
    assert findings(encode(later.assign(number=number)), Y[is_late]) == []


@pytest.mark.parametrize("kind", ["transform", "partial_fit"])
def test_a_history_builder_is_given_rows_of_another_unit(kind):
    chance = np.random.default_rng(0)
    log = pd.DataFrame({"user": chance.integers(0, 9, 200), "item": chance.integers(0, 50, 200)})
    log["time"] = 1_700_000_000 + np.sort(chance.integers(0, 10**6, 200))
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all").fit(log)
    later = log.assign(time=log["time"] + 10**6)
    assert said(lambda: getattr(builder, kind)(later)) == ([], [])
    messages, _ = said(lambda: getattr(builder, kind)(later.assign(time=later["time"] * 1000)))
    (message,) = messages
    assert message.startswith("the times of X look like ms since 1970 and those of the events of")
    assert message.endswith("Give both one unit, X['time'] // 1000.")


@pytest.mark.parametrize(("labels", "n_warnings", "n_lines"), [
    ((1, 2, 2), 1, 0), ((2, 1, 1), 0, 1), ((0, 1, 1), 0, 0), ((-1, 1, 1), 0, 0),
], ids=["1 is rare", "2 is rare", "0 and 1", "-1 and 1"])  # fmt: skip
def test_labels_one_and_two(labels, n_warnings, n_lines):
    X = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    y, classifier = np.resize(labels, 300), DINClassifier(max_epochs=1)
    messages, lines = said(lambda: classifier.fit(X, y))
    about = [line for line in lines if "counts as the click" in line]
    assert (len(messages), len(about)) == (n_warnings, n_lines)
    assert all("(1 = yes, 2 = no), pass (y == 1).astype(int)." in m for m in [*messages, *about])
    line = "click: 2, of the labels [1, 2]"
    assert classifier.summary().endswith(line) == (2 in labels)


def test_columns_that_may_be_of_another_kind_are_named_in_one_line_each():
    n = 1_000
    frame = pd.DataFrame({"item": np.arange(n) % 40, "weekday": np.arange(n) % 7})
    frame["age"], frame["code"] = 18 + np.arange(n) % 60, 10_000 + (np.arange(n) * 7919) % 900
    frame["price"] = np.where(np.arange(n) % 5, np.arange(n) * 1.5, np.nan)
    frame["hist_item"] = [[n % 40] for n in range(n)]
    _, lines = said(lambda: HistorySequenceEncoder(categorical=["code"]).fit(frame))
    assert [line.partition(" hold")[0] for line in lines] == ["age"]
    named = HistorySequenceEncoder(categorical=["code"], numeric=["age"])
    assert said(lambda: named.fit(frame)) == ([], [])  # the advice


def test_elapsed_times_that_are_guessed_are_named_and_the_choice_is_kept():
    chance = np.random.default_rng(0)
    items = [list(chance.integers(0, 9, 4)) for _ in range(1_000)]
    frame = pd.DataFrame({"item": chance.integers(0, 9, 1_000), "hist_item": items})
    frame["hist_stock"] = [sorted(chance.random(4) * 90, reverse=True) for _ in range(1_000)]
    guess = HistorySequenceEncoder()
    _, lines = said(lambda: guess.fit(frame))
    assert guess.scales_["hist_stock"].is_elapsed
    assert ["elapsed=['hist_stock'] says that they are" in line for line in lines] == [True]
    for elapsed in ([], ["hist_stock"]):
        encoder = HistorySequenceEncoder(elapsed=elapsed)
        assert said(lambda encoder=encoder: encoder.fit(frame)) == ([], [])
        assert encoder.scales_["hist_stock"].is_elapsed == bool(elapsed)
    rises = frame.assign(hist_stock=[cell[::-1] for cell in frame["hist_stock"]])
    said_so = HistorySequenceEncoder(elapsed=["hist_stock"]).fit(rises)
    assert said_so.scales_["hist_stock"].is_elapsed
    assert guess.scales_ == HistorySequenceEncoder(elapsed=["hist_stock"]).fit(frame).scales_
    with pytest.raises(ValueError, match="elapsed: the histories of numbers has no column 'item'"):
        HistorySequenceEncoder(elapsed=["item"]).fit(frame)


# check: all of it in one call -------------------------------------------------------------------

NAMES = ["columns", "labels", "own clicks in histories", "histories on their rows"]
NAMES += ["columns that are the label", "counts of the own row", "means of the label"]
NAMES += ["clicks before", "rows logged twice", "guests", "rows of one page"]


def test_check_says_of_each_check_that_nothing_was_found_or_what_it_needs():
    table = check(ATTACHED, Y, user="user", time="time")
    assert list(table.columns) == ["name", "verdict", "what to do"]
    verdicts = table.set_index("name")["verdict"].to_dict()
    assert verdicts == dict.fromkeys(NAMES, "nothing found")
    table = check(ATTACHED.drop(columns=["user", "time"]))
    left_out = table[table["verdict"] == "not checked"].set_index("name")["what to do"].to_dict()
    of_labels = dict.fromkeys([*NAMES[2:3], *NAMES[4:-2]], "Pass y, one label of two kinds.")
    of_users = {"histories on their rows": "Pass user= and time=.", "guests": "Pass user=."}
    of_both = {"rows of one page": "Pass y, one label of two kinds, user= and time=."}
    assert left_out == of_labels | of_users | of_both


def test_a_printed_check_cuts_no_sentence():
    table = check(ATTACHED.assign(rate=Y.astype(float)), Y)
    printed = " ".join(repr(table).split())
    in_notebooks = html.unescape(table._repr_html_())
    for sentences in (*table["verdict"], *table["what to do"]):
        assert sentences in printed
        assert sentences in in_notebooks
    assert max(map(len, repr(table).splitlines())) <= 88


def test_check_finds_what_fit_warns_of_and_says_nothing_itself(tmp_path):
    X = ATTACHED.assign(rate=MEANS["of the item"](SHOWN.assign(y=Y)), y=Y)
    X = take_histories(X, np.random.default_rng(1).permutation(len(X)))
    scan, X = as_scan(X, tmp_path, target="y"), X.drop(columns="y")
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier, tables = DINClassifier(max_epochs=1, random_state=0), []
    messages, _ = said(lambda: classifier.fit(encoder.fit_transform(X), Y))
    calls = [partial(check, X, Y), partial(check, pl.from_pandas(as_lists(X)), Y)]
    for call in (*calls, partial(check, scan)):
        assert said(lambda call=call: tables.append(call(user="user", time="time"))) == ([], [])
    for table in tables:
        found = table[table["verdict"] != "nothing found"]
        assert {*found["name"]} >= {"histories on their rows", "means of the label"}
        texts = (found["verdict"] + " " + found["what to do"]).tolist()
        assert messages == [text for text in texts if "quantities" not in text]


def test_check_of_many_rows_looks_at_some_users(monkeypatch):
    monkeypatch.setattr("sklearn_din.inspection.check.CHECKED_ROWS", 2_000)
    moved = take_histories(ATTACHED, np.random.default_rng(1).permutation(len(ATTACHED)))
    for rows, is_found in ((moved, True), (ATTACHED, False)):
        table = check(rows, Y, user="user", time="time").set_index("name")
        assert (table.loc["histories on their rows", "verdict"] != "nothing found") == is_found


def test_check_names_a_mistake_that_fit_refuses():
    table = check(pd.DataFrame({"item": ["a", "b"], "hist_item": ["[1, 2]", "[3]"]}))
    assert table["verdict"].tolist()[0].startswith("hist_item holds text such as '[1, 2]'")
    with pytest.raises(ValueError, match="X has no column 'usr'; did you mean 'user'"):
        check(pd.DataFrame({"user": [1], "item": [2]}), user="usr")


@pytest.mark.parametrize("longest", [7, 60])
def test_the_encoder_keeps_the_longest_history_and_the_server_holds_as_many_events(longest):
    clicks = pd.concat([CLICKS] * 3, ignore_index=True)  # three clicks at each moment
    X = attach(SHOWN, clicks, max_length=longest)
    with warnings.catch_warnings(action="ignore"):  # of clicks that are there several times
        model = make_model(max_epochs=1).fit(X, Y)
        assert model[0].longest_history_ == longest
        items = SHOWN.drop_duplicates("item")[["item", "category"]]
        answers = Answers(model, items, history=clicks)
    lengths = [len(answers.histories.of(user)[1]) for user in range(80)]
    assert max(lengths) == longest
    state = model[0].__getstate__()
    assert read_value(state["text"], state["arrays"])["fitted"]["learnt"]["longest"] == longest
