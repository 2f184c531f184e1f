"""What was shown, and which of it was clicked: impressions out of a server's store."""

import json
import os
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from sklearn_din import attach_history, read_events, update
from sklearn_din.server.answers import Answers
from sklearn_din.server.shown import OWN_COLUMNS
from sklearn_din.server.state import State
from sklearn_din.server.store import Posted, Store
from sklearn_din.serving.updating import ADDED_BY_READ_EVENTS
from tests.posted_events import TestClient, create_app
from tests.served_model import fit_served

pytestmark = pytest.mark.slow

DAY = pd.Timestamp("2024-03-01T12:00", tz="UTC")


def at(minutes):
    return (DAY + pd.Timedelta(minutes, unit="min")).isoformat()


def show(store, request, user, time, items, **own):
    columns = (time, own, items, [1 / n for n in range(2, len(items) + 2)])
    facts = [{"price": 10 * item} for item in items]
    with store.transaction():
        store.add_shown(request, user, [json.dumps(c) for c in (*columns, facts)], "digest", 0)


def click(store, event_id, user, time, item, label=None, **columns):
    texts = [json.dumps(value, ensure_ascii=False) for value in (user, time, item)]
    with store.transaction():
        store.add([Posted(event_id, *texts, label, json.dumps(columns))], "digest")


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "events.db"))
    yield store
    store.close()


def test_a_click_joins_the_newest_showing_before_it_once(store):
    show(store, "r1", 7, at(0), [1, 2, 3], device="web")
    show(store, "r2", 7, at(10), [1, 2])
    show(store, "r3", "7", at(20), [1])  # another user
    show(store, "r4", 8, at(30), [4, 5])
    click(store, "a", 7, at(15), 1)  # r2, the newest one before it
    click(store, "b", 7, at(16), 3)  # r1
    click(store, "c", 7, at(90), 2)  # after the window of both
    click(store, "d", 7, at(400), 2, request="r1")  # named: whenever it comes
    click(store, "e", 8, at(29), 4)  # before it was shown
    click(store, "f", 8, at(31), 5, label=0, request="r4")  # the shown row itself
    click(store, "g", 8, at(40), 6, label=0, price=60)  # shown elsewhere
    click(store, "h", 8, at(41), 6, label=1, price=61)
    click(store, "i", 8, at(42), 9, request="unknown")
    rows = read_events(store.url)
    assert rows.attrs["joined"] == {"request": 1, "user and item": 2, "nothing shown": 4}
    expected = [
        (7, 0, 1, 1, 0), (7, 0, 2, 2, 1), (7, 0, 3, 3, 1), (7, 10, 1, 1, 1), (7, 10, 2, 2, 0),
        ("7", 20, 1, 1, 0), (8, 30, 4, 1, 0), (8, 30, 5, 2, 0), (8, 40, 6, None, 0),
        (8, 41, 6, None, 1),
    ]  # fmt: skip
    minutes = (rows["time"].dt.tz_localize("UTC") - DAY).dt.total_seconds() / 60
    got = zip(rows["user"], minutes, rows["item"], rows["position"], rows["label"], strict=True)
    assert [(u, m, i, None if p != p else p, y) for u, m, i, p, y in got] == expected
    assert rows["price"].tolist() == [10, 20, 30, 10, 20, 10, 40, 50, 60, 61]
    assert rows["device"].fillna("").tolist() == ["web"] * 3 + [""] * 7
    assert rows["score"][:3].tolist() == [1 / 2, 1 / 3, 1 / 4]
    assert (rows["known"] == rows["time"] + pd.Timedelta("1h")).all()
    clicks = read_events(store.url, rows="posted")
    assert clicks["label"].tolist() == [1] * 7  # what was shown and not clicked is no click
    assert list(clicks) == ["user", "time", "item", "price", "request", "label"]
    renamed = read_events(store.url, user="who", time="when", item="sku")
    assert list(renamed)[:3] == ["who", "when", "sku"]


def test_rows_that_may_still_be_clicked_are_left_out(store):
    now = pd.Timestamp.now("UTC")
    for minutes in (90, 30):
        time = (now - pd.Timedelta(minutes, unit="min")).isoformat()
        show(store, f"r{minutes}", 7, time, [1])
    assert len(read_events(store.url)) == 1
    assert len(read_events(store.url, window="20min")) == 2
    with pytest.raises(ValueError, match="there is no store"):
        read_events(store.url + "x")


def test_times_that_are_numbers_and_stores_that_are_empty(store):
    assert len(read_events(store.url)) == len(read_events(store.url, rows="posted")) == 0
    show(store, "r1", "a", 100, ["x", "y"])
    show(store, "r2", "a", 150, ["x"])
    click(store, "1", "a", 130, "y")
    click(store, "2", "a", 190, "x")
    show(store, "r3", "b", 180, ["x"])
    rows = read_events(store.url, window=30)
    assert rows["label"].tolist() == [0, 1, 0]
    assert rows["known"].tolist() == [130, 130, 180]
    with pytest.raises(TypeError, match="window must be a number, as the times of the store are"):
        read_events(store.url)


def test_joins_equal_those_of_a_slow_twin(store):
    rng, shown, clicks = np.random.default_rng(0), [], []
    for n in range(60):
        user, minutes = int(rng.integers(3)), int(rng.integers(0, 300))
        items = rng.permutation(6)[:3].tolist()
        shown += [(f"r{n}", user, minutes, item) for item in items]
        show(store, f"r{n}", user, at(minutes), items)
    for n in range(60):
        user, minutes, item = int(rng.integers(3)), int(rng.integers(0, 300)), int(rng.integers(6))
        named = {"request": f"r{rng.integers(70)}"} if n % 3 == 0 else {}
        clicks.append((named.get("request"), user, minutes, item))
        click(store, f"{n}", user, at(minutes), item, **named)
    labels = np.zeros(len(shown), int)
    for request, user, minutes, item in clicks:
        named = [n for n, row in enumerate(shown) if (row[0], row[3]) == (request, item)]
        before = [
            (row[2], n) for n, row in enumerate(shown)
            if (row[1], row[3]) == (user, item) and minutes - 60 <= row[2] <= minutes
        ]  # fmt: skip
        if named or before:
            labels[named[0] if named else max(before)[1]] = 1
    rows = read_events(store.url)
    order = np.argsort([row[2] for row in shown], kind="stable")
    assert rows["label"].tolist() == labels[order].tolist()
    assert 10 < labels.sum() < 60


@pytest.mark.parametrize("given", [7, {"user": 7, "device": "web"}])
def test_answers_become_rows_to_train_on(given, tmp_path):
    """Shown over HTTP, clicked, read, and learnt."""
    model, clicks = fit_served()
    catalogue = clicks.drop_duplicates("item")[["item", "category"]].assign(price=0.5)
    store = Store(str(tmp_path / "events.db"))
    state = State(lambda: Answers(model, catalogue, clicks), store=store, logs_shown=True)
    with TestClient(create_app(state)) as client:
        best = [client.post("/rank", json={"user": given, "top_k": 4}).json() for _ in range(30)]
        assert len({one["request"] for one in best}) == 30
        second = best[0]["items"][1]
        time = pd.Timestamp(state.answers.histories.clock.newest + 2 * 10**9).isoformat()
        event = {"user": 7, "item": second, "time": time, "request": best[0]["request"]}
        assert client.post("/events", json={"events": [event]}).json()["added"] == 1
        client.delete("/users/8")
    rows = read_events(tmp_path / "events.db", window="1s")
    assert rows["label"].tolist() == [0, 1, *[0] * 118]
    assert rows["score"][:4].tolist() == best[0]["probabilities"]
    assert rows["item"][:4].tolist() == best[0]["items"]
    device = "web" if isinstance(given, dict) else clicks.query("user == 7")["device"].iloc[-1]
    assert {*rows["device"]} == {device}
    assert {*rows["price"]} == {0.5}
    X = rows.drop(columns=["label", "known", "score", "request", "price"])
    X = X.rename(columns={"position": "rank"})
    X = attach_history(X, clicks, user="user", time="time", columns=["item", "category"])
    updated = update(model[1:], X, rows["label"])
    assert updated.predict_proba(X).shape == (120, 2)
    store = Store(str(tmp_path / "events.db"))
    with store.transaction():
        assert store.remove_user("7") == {"events": 1, "shown": 30}
    store.close()
    assert len(read_events(tmp_path / "events.db")) == 0


def test_clicks_of_users_with_any_letter_join_however_the_store_spells_them(store):
    for n, user in enumerate(("zoë", "漢", "\U0001f9e6", "ann")):
        show(store, f"r{n}", user, at(n), ["tür", "hat"])
        click(store, f"{n}", user, at(n + 1), "tür")
    with store.transaction():  # as a store of before has them
        store.ask("""UPDATE shown SET "user" = '"zo\\u00eb"' WHERE "user" = '"zoë"'""")
    rows = read_events(store.url)
    assert rows["label"].tolist() == [1, 0] * 4
    assert rows.attrs["joined"]["user and item"] == 4
    assert set(rows["user"]) == {"zoë", "漢", "\U0001f9e6", "ann"}


def test_names_that_meet_are_said_and_nothing_is_overwritten(store):
    """Of the catalogue, of a request, and of a posted event; the model calls users "who"."""
    facts = [{"score": 9, "time": 1950, "label": "red", "who": "x", "price": 5}]
    columns = [at(0), {"price": 4, "position": "top"}, [1], [0.5], facts]
    with store.transaction():
        store.add_shown("r1", 7, [json.dumps(c) for c in columns], "digest", 0)
    own = {"request": "r1", "time": 1950, "known": "long", "user": "y", "is_given": 1}
    texts = [json.dumps(value) for value in (7, at(1), 1)]
    with store.transaction():
        store.add([Posted("a", *texts, None, json.dumps(own))], "digest")
    click(store, "b", 7, at(2), 2, label=1, score=8)
    with pytest.warns(UserWarning, match="like others that read_events returns") as warned:
        rows = read_events(store.url, user="who")
    said = " ".join(str(one.message) for one in warned)
    assert "['score', 'time', 'label', 'who'] of items or requests are called like" in said
    assert "['price', 'position'] of items or requests" in said
    assert "'time_of_item'" in said
    first = rows.iloc[0]
    own = ("who", "item", "position", "score", "label", "request", "price")
    assert [first[name] for name in own] == [7, 1, 1, 0.5, 1, "r1", 5]
    others = ("score_of_item", "time_of_item", "label_of_item", "who_of_item")
    assert [first[name] for name in others] == [9, 1950, "red", "x"]
    assert (first["price_of_request"], first["position_of_request"]) == (4, "top")
    assert rows["score_of_item"].tolist() == [9, 8]
    with pytest.warns(UserWarning, match="'known'"):
        clicks = read_events(store.url, rows="posted")
    assert clicks["known_of_item"].tolist()[0] == "long"
    assert clicks["is_given"].tolist()[0] == 1


def test_a_store_is_read_without_writing_it_and_none_is_made_of_a_file(store, tmp_path):
    show(store, "r1", 7, at(0), [1])
    (tmp_path / "copy").mkdir()
    (tmp_path / "nothing").touch()
    with pytest.raises(ValueError, match="database of something else"):
        read_events(tmp_path / "nothing")
    assert (tmp_path / "nothing").stat().st_size == 0
    store.close()  # which leaves one file
    command = ["mount", "-t", "tmpfs", "none", str(tmp_path / "copy")]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        shutil.copy(tmp_path / "events.db", tmp_path / "copy")
        read_only = ["mount", "-o", "remount,ro", str(tmp_path / "copy")]
        subprocess.run(read_only, check=True)
        assert len(read_events(tmp_path / "copy" / "events.db")) == 1
    finally:
        subprocess.run(["umount", str(tmp_path / "copy")], check=True)


def test_update_knows_which_columns_read_events_adds():
    """Importing one from the other would load torch where events are read."""
    assert {*OWN_COLUMNS} == {"user", "time", "item", *ADDED_BY_READ_EVENTS}
