"""Posted events in a database: none lost, none twice, none late for ever, none of who is gone.

Where PostgreSQL is installed it is asked, too.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from sklearn_din import HistoryBuilder
from sklearn_din.command_line.options import serve_parser
from sklearn_din.server import posts as posting
from sklearn_din.server import store as stores
from sklearn_din.server.answers import Answers
from sklearn_din.server.histories import Histories
from sklearn_din.server.posts import Posts
from sklearn_din.server.state import State
from sklearn_din.server.store import Posted, Store, StoreError
from tests.page_server import start_server
from tests.posted_events import JSON, TestClient, create_app, event, items_of, post
from tests.postgres import find_programs, start_postgres
from tests.served_model import fit_served, wait_for, write_served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served():
    model, clicks = fit_served()
    return model, clicks.drop_duplicates("item")[["item", "category"]], clicks


@pytest.fixture(scope="module")
def postgres():
    pytest.importorskip("psycopg", reason="the extra [postgres] is not installed")
    if find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with start_postgres() as url:
        yield url


def new_url(request, tmp_path):
    """What --events gets, of an empty store."""
    if request.param != "PostgreSQL":
        return None if request.param == "memory" else str(tmp_path / "events.db")
    url = request.getfixturevalue("postgres")
    ask_postgres(url, "DROP SCHEMA IF EXISTS sklearn_din CASCADE")
    return url


any_url = pytest.fixture(params=["memory", "SQLite", "PostgreSQL"], name="any_url")(new_url)
url = pytest.fixture(params=["SQLite", "PostgreSQL"], name="url")(new_url)  # may be shared


def ask_postgres(url, query):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def serve(served, url, *, logs_shown=False, **history):
    """A client of a server on a store, and its state."""
    model, catalogue, _ = served
    answers = partial(Answers, model, catalogue, **history)
    state = State(answers, store=Store(url), logs_shown=logs_shown)
    with TestClient(create_app(state)) as client:
        yield client, state


def send(client, *events):
    return client.post("/events", json={"events": events})


def fill(client, n_added=0):
    """Post until no more is taken; how many were, and the last answer."""
    while True:
        answer = send(client, *(event(n, 12, event_id=f"{n_added}-{n}") for n in range(100)))
        if answer.status_code != 200:
            return n_added, answer
        n_added += answer.json()["added"]


def test_events_are_there_at_the_next_start_as_they_were_posted(served, url):
    with serve(served, url) as (client, state):
        before = items_of(state, 7)
        shown = event(7, 14, label=0, device="web", request="r1")
        assert post(client, event(7, 12), event(7, 13, "2024-03-05T01:00+02:00"), shown) == 3
        n_events = state.answers.histories.n_events
        assert items_of(state, 7) == [*before, 12, 13]  # what was not clicked is no event
    with serve(served, url) as (client, state):
        assert items_of(state, 7) == [*before, 12, 13]
        assert state.answers.histories.n_events == n_events
        assert post(client, event(7, 12), shown) == 0
        query = 'SELECT "user", "time", item, label, columns FROM events ORDER BY sequence'
        assert state._store.ask(query) == [
            ("7", '"2024-03-04T00:00:00+00:00"', "12", None, '{"category":1}'),
            ("7", '"2024-03-05T01:00+02:00"', "13", None, '{"category":1}'),
            ("7", '"2024-03-04T00:00:00+00:00"', "14", 0,
             '{"category":1,"device":"web","request":"r1"}'),
        ]  # fmt: skip


VALUES = [True, 7, "7", 0.5, -0.0, 2**63 - 1, "\u2028 é 漢 \U0001f9e6", "a'b\"c\\", "?%s", ""]


def test_values_of_every_kind_come_back(any_url):
    store = Store(any_url)
    rows = [
        Posted(f"{n}", *map(json.dumps, (value, "2024-01-01", [value, None])), None, "{}")
        for n, value in enumerate(VALUES)
    ]
    with store.transaction():
        store.add(rows, "digest")
    read = [[json.loads(row[n]) for n in (1, 3)] for row in store.read_rows("events", 0)]
    assert repr(read) == repr([[value, [value, None]] for value in VALUES])
    assert store.find_stored(["0", "5", "99"]).keys() == {"0", "5"}
    assert store.user_key(7) == store.user_key("7") == store.user_key(7.0)
    store.close()


def test_an_id_is_one_event_and_every_event_can_be_taken_back(served, any_url):
    with serve(served, any_url) as (client, state):
        before = items_of(state, 7)
        answer = send(client, event(7, 12), event(7, 12)).json()
        assert (answer["added"], len({*answer["event_ids"]})) == (1, 1)
        (made, _) = answer["event_ids"]
        ids = [made, "a", "x/y", "line\nfeed", "5"]
        given = [*ids[1:4], 5]  # ids are text: 5 is "5"
        assert post(client, *(event(7, 12, event_id=name) for name in given)) == 4
        assert post(client, event(7, 13, event_id="a"), event(7, 13, event_id=5)) == 0
        assert items_of(state, 7) == [*before, *[12] * 5]
        for n, name in enumerate(ids, start=1):
            path = urllib.request.quote(name, safe="")
            assert client.delete(f"/events/{path}").json() == {"removed": 1}
            assert client.delete(f"/events/{path}").status_code == 404
            for _ in range(2):
                assert items_of(state, 7) == [*before, *[12] * (5 - n)]
                assert state.answers.histories.n_of(7) == len(before) + 5 - n
                state.reload()
        assert post(client, event(7, 12), event(7, 14, event_id="a")) == 2  # the ids are free


@pytest.mark.parametrize("own_id", [{}, {"event_id": "a"}])
def test_an_event_that_is_posted_with_another_label_replaces_the_first(served, url, own_id):
    with serve(served, url) as (client, state), serve(served, url) as (_, other):
        before = items_of(state, 7)

        def answer(**label):
            posted = send(client, event(7, 12, **own_id, **label))
            wait_for(lambda: items_of(other, 7) == items_of(state, 7))
            state.reload()  # as at a start
            assert items_of(other, 7) == items_of(state, 7)
            names = "added", "known_already", "replaced"
            counts = [posted.json().get(name, 0) for name in names]
            return counts, items_of(state, 7)[len(before) :]

        assert answer(label=0) == ([1, 0, 0], [])
        assert answer(label=0) == ([0, 1, 0], [])
        assert answer() == ([0, 0, 1], [12])
        assert answer(label=1) == ([0, 1, 0], [12])  # without a label it is a click
        assert answer(label=0) == ([0, 0, 1], [])
        both = [event(7, 12, **own_id, label=label) for label in (0, 1)]
        assert post(client, *both) == 0  # of one post the last one counts
        assert items_of(state, 7) == [*before, 12]
        query = 'SELECT count(*) FROM events WHERE "user" IS NOT NULL'
        assert state._store.ask(query) == [(1,)]


def test_a_post_is_whole_and_a_failing_write_changes_no_answer(served, any_url, monkeypatch):
    with serve(served, any_url) as (client, state):
        assert post(client, event(7, 12, event_id="a")) == 1
        before, n_events = items_of(state, 7), state.answers.histories.n_events
        assert send(client, event(7, 13), event("x", 14)).status_code == 422

        def fail(table, columns, rows):
            insert(table, columns, rows[:1])
            raise StoreError("the connection is lost.")

        insert = state._store._insert
        monkeypatch.setattr(state._store, "_insert", fail)
        for answer in (
            send(client, event(7, 13), event(7, 14)),
            client.delete("/events/a"),
            client.delete("/users/7"),
        ):
            assert answer.status_code == 503
            assert "is lost. Posts may be repeated: by its event_id" in answer.json()["detail"]
            problem = client.get("/health").json()["posted"]["problem"]
            assert problem is None or problem["error"] == "StoreError"
        state.reload()
        assert (items_of(state, 7), state.answers.histories.n_events) == (before, n_events)
        monkeypatch.undo()
        assert post(client, event(7, 13), event(7, 14)) == 2
        assert client.delete("/events/a").status_code == 200
        assert client.get("/health").json()["posted"]["problem"] is None


def test_all_posts_that_wait_are_one_transaction(served, any_url, monkeypatch):
    with serve(served, any_url) as (client, state):
        held, n_transactions, begin = threading.Event(), [], state._store.transaction

        def count():
            n_transactions.append(1)
            held.wait(10)
            return begin()

        monkeypatch.setattr(state._store, "transaction", count)
        monkeypatch.setattr("sklearn_din.server.state.SECONDS_TO_WRITE", 30)
        with ThreadPoolExecutor(20) as pool:
            posts = [pool.submit(post, client, event(0, 12))]
            wait_for(lambda: n_transactions)
            posts += [pool.submit(post, client, event(n, 12)) for n in range(1, 20)]
            wait_for(lambda: state._writes.qsize() == 19)
            held.set()
            assert [one.result() for one in posts] == [1] * 20
        assert len(n_transactions) == 2


def test_the_bound_of_memory_is_kept_and_none_vanishes(served, monkeypatch):
    monkeypatch.setattr(stores, "MOST_BYTES", 200_000)
    with serve(served, None) as (client, state):
        n_added, answer = fill(client)
        assert answer.status_code == 507
        assert "as many as are kept in memory" in answer.json()["detail"]
        n_events = state.answers.histories.n_events
        state.reload()
        assert state.answers.histories.n_events == n_events
        assert len(state._store.read_rows("events", 0)) == n_added > 100
        assert state._store.n_bytes() <= 200_000
        assert client.delete("/users/7").status_code in (200, 507)


def test_a_full_disk_is_507_and_changes_nothing(served, tmp_path):
    """On a file system of one megabyte, where one can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with serve(served, str(tmp_path / "events.db")) as (client, state):
            assert post(client, event(7, 13, event_id="a")) == 1
            assert fill(client)[1].status_code == 507
            (tmp_path / "more").write_bytes(b"x" * os.statvfs(tmp_path).f_bavail * 4096)
            n_events, items = state.answers.histories.n_events, items_of(state, 7)
            gone = [client.delete("/events/a").status_code for _ in range(2)]
            assert gone in ([507, 507], [200, 404])
            state.reload()
            assert state.answers.histories.n_events == n_events - (gone[0] == 200)
            assert gone[0] == 200 or items_of(state, 7) == items
            (tmp_path / "more").unlink()
            assert client.delete("/events/a").status_code == (404 if gone[0] == 200 else 200)
        with serve(served, str(tmp_path / "events.db")) as (_, state):
            assert state.answers.histories.n_events == n_events - 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_wal_that_was_torn_loses_only_what_was_not_acknowledged(served, tmp_path):
    with serve(served, str(tmp_path / "events.db")) as (client, state):
        before = len(items_of(state, 7))
        assert post(client, event(7, 12)) == 1
        for name in ("events.db", "events.db-wal"):  # as a machine that loses its power has them
            (tmp_path / f"torn-{name}").write_bytes((tmp_path / name).read_bytes())
    wal = tmp_path / "torn-events.db-wal"
    wal.write_bytes(wal.read_bytes() + wal.read_bytes()[-3_000:])
    with serve(served, str(tmp_path / "torn-events.db")) as (client, state):
        assert len(items_of(state, 7)) == before + 1
        assert post(client, event(7, 12), event(7, 13)) == 1


def test_what_is_no_store_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--events :memory: keeps nothing"):
        Store(":memory:")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="cannot be opened: Is a directory"):
        Store(str(tmp_path))
    (tmp_path / "text").write_text("no database" * 999)
    with pytest.raises(StoreError, match="cannot be asked: file is not a database"):
        Store(str(tmp_path / "text"))
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(ValueError, match=r"database of something else, with \['recipes'\]"):
        Store(str(tmp_path / "other.db"))
    store = Store(str(tmp_path / "events.db"))
    with store.transaction():
        store.ask("UPDATE meta SET value = '99' WHERE key = 'version'")
    store.close()
    with pytest.raises(ValueError, match="has tables of version 99"):
        Store(str(tmp_path / "events.db"))
    with pytest.raises(ValueError, match="cannot be opened: No such file or directory"):
        Store(str(tmp_path / "none" / "events.db"))
    assert (tmp_path / "events.db").stat().st_mode & 0o77 == 0


def test_what_a_new_model_cannot_take_is_counted_and_stops_nothing(served, any_url, caplog):
    model, catalogue, _ = served
    store = Store(any_url)
    with store.transaction():
        texts = [
            ('"x"', '"2024-03-04T00:00:00+00:00"', "12", None, "{}"),  # a user as text
            ("7", "17", "12", None, "{}"),  # a time as a number
            ("7", '"soon"', "12", None, "{}"),
            ("7", '"2024-03-04T00:00:00+00:00"', '["12"]', None, "{}"),
            ("7", '"2024-03-04T00:00:00+00:00"', "12", None, "{}"),  # without its category
            ("7", '"2024-03-04T00:00:00+00:00"', "987654", None, "{}"),
        ]  # an item that is gone
        store.add([Posted(f"{n}", *row) for n, row in enumerate(texts)], "of then")  # fmt: skip
    state = State(lambda: Answers(model, catalogue), store=store)
    with TestClient(create_app(state)) as client:
        posted = client.get("/health").json()["posted"]
        assert (posted["left_out"], posted["without_a_value"]) == (4, 2)
        assert "4 values or events that were posted for others are left out" in caplog.text
        own = state.answers.histories.of(7)[0]
        category = catalogue.set_index("item")["category"][12]
        assert own["hist_item"][-2:] == [12, 987654]
        assert own["hist_category"][-2:] == [category, None]
        assert client.post("/rank", json={"user": 7}).status_code == 200
        state._load = lambda: Answers(model[1:], catalogue)  # without any log
        state.reload()
        posted = client.get("/health").json()["posted"]
        assert (posted["left_out"], state.problem) == (6, None)
        assert send(client, event(7, 12)).status_code == 422
        state._load = lambda: Answers(model, catalogue)
        state.reload()
        assert items_of(state, 7)[-2:] == [12, 987654]


def test_blocks_join_as_single_events_do(served, any_url, monkeypatch):
    """The twin: each event read by itself, out of a request."""
    model, catalogue, _ = served
    rng = np.random.default_rng(0)
    monkeypatch.setattr(posting, "BLOCK", 7)
    monkeypatch.setattr(stores, "BLOCK", 7)
    with serve(served, any_url) as (client, state):
        events = [
            event(int(rng.integers(0, 9)), int(item), f"2024-03-0{rng.integers(1, 9)}T00:00:00Z")
            for item in rng.choice(catalogue["item"], 60)
        ]
        post(client, *events, *(row | {"event_id": f"{n}"} for n, row in enumerate(events[:20])))
        alone = Histories(model[0])
        rows = alone.read(events) + alone.read(events[:20])
        for row in dict.fromkeys(zip(rows, [*[""] * 60, *range(20)], strict=True)):
            alone.add([(0, row[0])])
        fresh = Posts(Answers(model, catalogue), state._store)
        fresh.catch_up()
        for histories in (state.answers.histories, fresh.answers.histories):
            assert histories.n_events == alone.n_events
            for user in range(9):
                own, expected = histories.of(user), alone.of(user)
                assert own[1] == expected[1]
                assert sorted(own[0]["hist_item"]) == sorted(expected[0]["hist_item"])


def test_posts_do_not_hold_a_reload_up_and_none_is_missed(served, any_url):
    with serve(served, any_url) as (client, state):
        n_before, is_over, n_posted = state.answers.histories.n_events, threading.Event(), []

        def post_on(first):
            for n in itertools.count(first, 3):
                if is_over.is_set():
                    return
                n_posted.append(post(client, event(n % 9, 12, event_id=f"{n}")))

        with ThreadPoolExecutor(3) as pool:
            posts = [pool.submit(post_on, first) for first in range(3)]
            for _ in range(3):
                first, n_then = state.answers, len(n_posted)
                state.reload()
                assert state.answers is not first
                wait_for(lambda n=n_then: len(n_posted) > n)
            is_over.set()
            assert [one.result() for one in posts] == [None] * 3
        assert state.answers.histories.n_events == n_before + sum(n_posted)


def test_what_the_history_has_too_counts_once(served, any_url):
    model, catalogue, clicks = served
    row = clicks.iloc[0]
    known = event(int(row["user"]), int(row["item"]), row["time"].isoformat())
    known["category"] = int(row["category"])
    with serve(served, any_url) as (client, state):
        n_events, n_own = state.answers.histories.n_events, state.answers.histories.n_of(7)
        assert post(client, known) == 0
        added = event(7, 12, "2024-03-04T00:00:00")
        assert post(client, *(added | {"event_id": n} for n in (1, 2, 3))) == 3
        log = pd.DataFrame([added, added]).assign(time=lambda frame: pd.to_datetime(frame["time"]))
        state._load = lambda: Answers(model, catalogue, log)
        state.reload()
        for n in (3, 2, 2, 2):  # as often as posted, or as the log has it
            assert state.answers.histories.n_events == n_events + n
            assert state.answers.histories.n_of(7) == n_own + n
            assert items_of(state, 7)[-n:] == [12] * n
            client.delete(f"/events/{4 - n if n == 3 else 'none'}")
            if n == 2:
                client.delete("/events/2")
                client.delete("/events/3")


def test_a_column_of_lists_takes_lists():
    log = pd.DataFrame({"user": 1, "item": [1, 2], "tags": [["a", "b"], []], "time": [1, 2]})
    builder = HistoryBuilder(user="user", time="time", columns=["item", "tags"])
    histories = Histories(builder, log)
    click = {"user": 1, "item": 3, "tags": ["c"], "time": 2}
    histories.add(enumerate(histories.read([click])))
    assert [list(tags) for tags in histories.of(1)[0]["hist_tags"]] == [
        ["a", "b"], [], ["c"]]  # fmt: skip
    for wrong in ("c", [1], [["c"]], True):
        with pytest.raises(ValueError, match="tags must be"):
            histories.read([click | {"tags": wrong}])


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\x00", "a\x00"])
def test_half_characters_and_nul_are_no_text(served, any_url, text):
    with serve(served, any_url) as (client, _):
        body = json.dumps({"events": [event(text, 12)]}).encode()
        assert client.post("/events", content=body, headers=JSON).status_code == 422
        for wrong in ({"event_id": text}, {"device": text}):
            body = json.dumps({"events": [event(7, 12, **wrong)]}).encode()
            answer = client.post("/events", content=body, headers=JSON)
            assert answer.status_code == 422
            assert "half characters" in answer.json()["detail"]
        raw = b'{"user": "\xed\xa0\x80"}'
        assert client.post("/rank", content=raw, headers=JSON).status_code == 400
        assert client.get("/page/users").status_code == 200
        assert post(client, event(7, 12, event_id="\\u0000 \U0001f9e6")) == 1


def test_two_servers_see_each_others_events_and_removals(served, url):
    with serve(served, url) as (client, state), serve(served, url) as (other, others):
        before = items_of(state, 7)
        assert post(client, event(7, 12, event_id="a"), event(8, 13)) == 2
        wait_for(lambda: items_of(others, 7) == [*before, 12], seconds=3)
        assert post(other, event(7, 12, event_id="a"), event(8, 13)) == 0
        assert post(other, event(7, 14)) == 1
        wait_for(lambda: items_of(state, 7) == [*before, 12, 14], seconds=3)
        assert other.delete("/events/a").status_code == 200
        wait_for(lambda: items_of(state, 7) == [*before, 14], seconds=3)
        assert client.delete("/users/7").json()["removed"] == 1
        assert items_of(state, 7) == []
        wait_for(lambda: items_of(others, 7) == [], seconds=3)
        assert post(other, event(7, 15)) == 1  # who comes back is new
        wait_for(lambda: items_of(state, 7) == [15], seconds=3)


def test_two_that_post_at_the_same_time_lose_none_and_have_none_twice(served, url):
    with serve(served, url) as (client, state), serve(served, url) as (other, others):

        def post_some(one, first):
            return [post(one, event(n % 9, 12, event_id=f"{n}")) for n in range(first, first + 60)]

        n_before = state.answers.histories.n_events
        with ThreadPoolExecutor(4) as pool:
            added = pool.map(post_some, (client, other, client, other), (0, 30, 60, 90))
            assert sum(map(sum, added)) == 150
        for one in (state, others):
            wait_for(lambda one=one: one.answers.histories.n_events == n_before + 150)


def test_the_slower_of_two_transactions_is_seen_too(served, url):
    """One holds its transaction open for two seconds after it got its number."""
    with serve(served, url) as (client, state):
        slow, before = Store(url), items_of(state, 7)
        row = Posted("slow", "7", '"2024-03-04T00:00:00+00:00"', "13", None, '{"category":1}')
        done, released = [], threading.Event()

        def be_slow():
            with slow.transaction():
                slow.add([row], "")
                done.append("written")
                released.wait(30)
            done.append("committed")

        thread = threading.Thread(target=be_slow)
        thread.start()
        wait_for(lambda: done == ["written"])
        threading.Timer(2, released.set).start()
        assert client.post("/rank", json={"user": 7}).status_code == 200  # nobody else waits
        assert post(client, event(7, 14, "2024-03-05T00:00:00")) == 1
        thread.join()
        assert done == ["written", "committed"]
        wait_for(lambda: items_of(state, 7) == [*before, 13, 14], seconds=3)
        numbers = [sequence for sequence, *_ in state._store.read_rows("events", 0)]
        assert numbers == sorted(numbers)
        slow.close()


def test_a_connection_that_is_lost_is_opened_anew(served, postgres):
    with serve(served, postgres) as (client, _):
        assert post(client, event(7, 12, event_id="before")) in (0, 1)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        ask_postgres(postgres, f"{end} WHERE application_name = 'sklearn_din'")
        answers = [send(client, event(7, 12, event_id="x")) for _ in range(3)]
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[-1].status_code == 200
        assert sum(a.json().get("added", 0) for a in answers) <= 1
        wait_for(lambda: client.get("/health").json()["posted"]["problem"] is None)


def test_who_is_forgotten_stands_in_none_of_the_bytes(served, tmp_path):
    """After splits, merges and rows of many pages; the file, its log and what is shared of it."""
    model, catalogue, clicks = served
    rng = np.random.default_rng(0)
    name_of = {user: f"person-{user}-{'x' * 9}" for user in range(300)}
    log = clicks.assign(user=clicks["user"].map(lambda user: f"of-the-log-{user}"))
    catalogue = catalogue.assign(category=catalogue["category"].astype(int))
    state = State(lambda: Answers(model[1:], catalogue, log), store=Store(str(tmp_path / "db")))
    with TestClient(create_app(state)) as client:
        gone, numbers = [], itertools.count()
        for _ in range(12):
            users = rng.choice(list(name_of), 120)
            post(client, *(
                event(name_of[u], 12, event_id=f"{next(numbers)}-{name_of[u]}",
                      request=name_of[u] * int(rng.choice([1, 1, 5]))) for u in users
            ))  # fmt: skip
            for user in rng.choice(list(name_of), 10, replace=False):
                gone.append(name_of.pop(user))
                assert client.delete(f"/users/{gone[-1]}").status_code in (200, 404)
        files = [path for path in tmp_path.iterdir() if path.name.startswith("db")]
        assert len(files) == 3
        for path in files:
            content = path.read_bytes()
            assert [name for name in gone if f"{name}".encode() in content] == []
        assert any(name_of[u].encode() in (tmp_path / "db").read_bytes() for u in name_of)
        found = client.get("/page/users?search=person").json()["users"]
        assert not {user["user"] for user in found} & {*gone}


def test_answers_leave_out_of_files_who_is_forgotten(served, any_url):
    *_, clicks = served
    with serve(served, any_url, history=clicks) as (client, state):
        assert items_of(state, 7)
        unknown = client.post("/rank", json={"user": 10**6}).json()
        answer = client.delete("/users/7").json()
        assert (answer["removed"], answer["shown"]) == (0, 0)
        assert "until the history's file and the model have been made anew" in answer["notes"][0]
        for _ in range(2):
            got = client.post("/rank", json={"user": 7}).json()
            assert (got["items"], got["known"]) == (unknown["items"], False)
            assert client.get("/page/users?search=7").json()["users"] == []
            assert client.get("/openapi.json").status_code == 200
            shown = client.post("/page/user", json={"user": "7"}).json()
            assert (shown["events"], shown["n_events"]) == ([], 0)
            assert {*shown["context"].values()} == {None}
            state.reload()
        assert client.delete("/users/7").status_code == 200  # again
        assert client.delete("/users/nobody%0A").status_code == 404


@pytest.mark.proof
def test_every_post_that_was_answered_is_there_after_kill_9(served, tmp_path):
    """Killed while clients post; other servers see what PostgreSQL has once it is answered."""
    write_served(tmp_path)
    url = str(tmp_path / "events.db")
    acknowledged = []
    child, port, printed = start_server(tmp_path / "model.din", "--events", url, stderr=None)
    assert ": personal data of the users\n" in printed[0]

    def post_until_it_ends(first):
        with contextlib.suppress(OSError, http.client.HTTPException):
            for n in itertools.count(first, 2):
                body = json.dumps({"events": [event(n, 12, event_id=n)]}).encode()
                request = urllib.request.Request(f"http://127.0.0.1:{port}/events", body, JSON)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    acknowledged.extend([n] * json.load(answer)["added"])

    try:
        posting = [threading.Thread(target=post_until_it_ends, args=(n,)) for n in (0, 1)]
        for thread in posting:
            thread.start()
        while len(acknowledged) < 100:
            posting[0].join(0.01)
    finally:
        child.kill()
        child.communicate()
    for thread in posting:
        thread.join()
    with serve(served, url) as (client, _):
        assert post(client, *(event(n, 12, event_id=n) for n in acknowledged)) == 0  # all are known
        assert post(client, event(10**6, 12)) == 1


@pytest.mark.proof
def test_a_signal_ends_the_server_whatever_is_being_loaded(tmp_path, monkeypatch):
    """Files that take a minute to load are replaced, and loading has begun."""
    write_served(tmp_path)
    slow = "import time; from sklearn_din.command_line import serving; from pathlib import Path\n"
    slow += "load, calls = serving.load_answers, []\n"
    slow += "def wait(options):\n    calls.append(1)\n"
    slow += f"    if len(calls) > 1: Path({str(tmp_path / 'began')!r}).touch(); time.sleep(60)\n"
    slow += "    return load(options)\n"
    slow += "serving.load_answers = wait\n"
    code = slow + "import sys; from sklearn_din.__main__ import main; sys.exit(main())"
    child, _, _ = start_server(tmp_path / "model.din", code=code)
    try:
        os.utime(tmp_path / "model.din")
        wait_for((tmp_path / "began").exists, seconds=30)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)  # six seconds, where the processors are not busy
        assert child.returncode == 0
    finally:
        child.kill()


def test_a_refused_post_leaves_nothing_and_its_neighbours_stand(served, any_url, monkeypatch):
    """All wait for one transaction; one has a NUL, one fails in the middle of its events."""
    with serve(served, any_url) as (_, state):
        log = state.answers.histories
        add, n_before = state._store.add, log.n_events

        def add_singly(rows, digest):
            for row in rows:
                add([row], digest)
                if row.event_id == "wrong":
                    raise ValueError("the second event is wrong.")

        monkeypatch.setattr(state._store, "add", add_singly)
        posts = [[event(7, 12, event_id=f"a{n}"), event(8, 12, event_id=f"b{n}")] for n in range(9)]
        posts[3][0]["event_id"] = "wrong"
        if any_url and any_url.startswith("postgresql"):
            posts[5][1]["event_id"] = "nul\0"  # which comes through no route
        outcomes = state._commit([(None, state.add, (rows,)) for rows in posts])
        errors = [n for n, (_, error) in enumerate(outcomes) if error is not None]
        assert errors == ([3, 5] if "nul\0" in posts[5][1]["event_id"] else [3])
        assert {type(outcomes[n][1]) for n in errors} == {ValueError}
        assert log.n_events == n_before + 2 * (9 - len(errors))
        assert not state._store.find_stored(
            ["wrong", "b3", "a5"] if len(errors) == 2 else ["wrong"]
        )


@pytest.mark.parametrize("moved", ["rm events.db*", "rm events.db-wal", "mv other.db events.db"])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(served, tmp_path, moved):
    Store(str(tmp_path / "other.db")).close()
    with serve(served, str(tmp_path / "events.db")) as (client, _):
        assert post(client, event(7, 12, event_id="a")) == 1
        assert client.get("/health").json()["status"] == "ok"
        subprocess.run(f"mkdir kept; cp -l events.db* kept; {moved}", shell=True, cwd=tmp_path)
        before = (tmp_path / "kept" / "events.db-wal").read_bytes()
        answer = send(client, event(7, 13))
        assert answer.status_code == 503
        assert "no longer the file that was opened" in answer.json()["detail"]
        assert client.post("/rank", json={"user": 7}).status_code == 200
        health = client.get("/health").json()
        assert health["status"] == "no posts"
        assert health["posted"]["problem"]["error"] == "StoreError"
        assert (tmp_path / "kept" / "events.db-wal").read_bytes() == before
        subprocess.run("mv -f kept/* .", shell=True, cwd=tmp_path)
        assert post(client, event(7, 13)) == 1
        wait_for(lambda: client.get("/health").json()["status"] == "ok")


def test_a_file_that_goes_while_a_post_is_written_gets_no_acknowledgement(served, tmp_path):
    with serve(served, str(tmp_path / "events.db")) as (client, state):
        add = state._store.add

        def add_and_remove(*given):
            add(*given)
            (tmp_path / "events.db").unlink()

        state._store.add = add_and_remove
        assert send(client, event(7, 13)).status_code == 503


@contextlib.contextmanager
def stop_postgres(url, *, all_of_it):
    """Stop what serves our connections, or all, as a machine that hangs; then let it go on."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sklearn_din'"
    pids = [pid for (pid,) in ask_postgres(url, query)]
    ((folder,),) = ask_postgres(url, "SHOW data_directory")
    if all_of_it:
        with open(f"{folder}/postmaster.pid") as file:
            pids.append(int(file.readline()))
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("all_of_it", [False, True])
def test_posts_do_not_wait_for_a_database_that_is_stopped(served, postgres, all_of_it):
    body = event(7, 12, event_id="meanwhile")
    with serve(served, postgres) as (client, _):
        assert send(client, body).status_code == 200
        with stop_postgres(postgres, all_of_it=all_of_it), ThreadPoolExecutor(3) as pool:
            began = time.monotonic()
            posts = [pool.submit(send, client, body) for _ in range(3)]
            assert [one.result().status_code for one in posts] == [503] * 3
            assert time.monotonic() - began < 5
            health = client.get("/health").json()
            assert health["status"] == "no posts"
            assert health["posted"]["problem"]["error"] == "StoreError"
            if not all_of_it:  # a connection of its own answers
                wait_for(lambda: send(client, body).status_code == 200)
        wait_for(lambda: send(client, body).status_code == 200)
        wait_for(lambda: client.get("/health").json()["status"] == "ok")


@pytest.mark.proof
def test_a_signal_ends_the_server_whose_database_does_not_answer(tmp_path, postgres):
    write_served(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        child, port, _ = start_server(tmp_path / "model.din", "--events", postgres, stderr=log)
    try:
        body = json.dumps({"events": [event(7, 12)]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/events", body, JSON)
        with stop_postgres(postgres, all_of_it=True), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(urllib.request.urlopen, request, timeout=30)
            time.sleep(0.5)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=30)
            assert time.monotonic() - began < 6
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                waiting.result()
            refused.value.close()
    finally:
        child.kill()
    assert child.returncode == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_lock_that_others_hold_is_503_and_no_post_waits_for_ever(served, url):
    with serve(served, url) as (client, _):
        holder = Store(url)
        with holder.transaction():
            began = time.monotonic()
            assert send(client, event(7, 12)).status_code == 503
            assert time.monotonic() - began < 5
        holder.close()
        wait_for(lambda: send(client, event(7, 12)).status_code == 200)


def test_a_ranking_in_flight_does_not_show_who_was_forgotten_meanwhile(served, url, monkeypatch):
    """The twin: one that began afterwards is written. 7 has events; nobody has asked for 55."""
    begun, released = threading.Event(), threading.Event()

    def wait_and_rank(*given):
        begun.set()
        released.wait(10)
        return best(*given)

    showing = serve(served, url, logs_shown=True)
    with showing as (client, state), ThreadPoolExecutor(1) as pool:
        best = state.answers.best
        for user in (7, 55):
            monkeypatch.setattr(state.answers, "best", wait_and_rank)
            begun.clear()
            released.clear()
            ranking = pool.submit(client.post, "/rank", json={"user": user})
            assert begun.wait(10)
            assert client.delete(f"/users/{user}").status_code == 200
            released.set()
            assert ranking.result().status_code == 200
            monkeypatch.undo()
        assert client.post("/rank", json={"user": 8}).status_code == 200
        assert client.delete("/users/99").status_code == 404  # answered after what waits
        assert [row[2] for row in state._store.read_rows("shown", 0)] == ["8"]
        assert client.post("/rank", json={"user": 7}).status_code == 200
        wait_for(lambda: len(state._store.read_rows("shown", 0)) == 2)  # as nobody's


def test_a_user_is_forgotten_however_the_id_is_typed_and_nobody_is_no_user_called_none(
    served, any_url
):
    nobody = {"device": "web", "hist_item": [], "hist_category": []}
    with serve(served, any_url, logs_shown=True) as (client, state):
        assert client.post("/rank", json={"user": nobody}).status_code == 200
        assert post(client, event(70, 12)) == 1
        for n, typed in enumerate(("7", "007", "%2B7", "%207", "7%0A"), start=1):
            assert post(client, event(7, 12)) == 1
            assert client.delete(f"/users/{typed}").json()["removed"] == 1
            assert items_of(state, 7) == []
            for unknown in ("7_0", "71", "None", "x"):
                assert client.delete(f"/users/{unknown}").status_code == 404
            assert items_of(state, 70) == [12]
            assert len(state._store.read_removed(0)) == n  # strangers leave nothing behind
        assert len(state._store.read_rows("shown", 0)) == 1


def test_posts_of_one_moment_cost_no_square(served, monkeypatch):
    """Comparisons are counted; the twin counts by a loop. A log of days, and a bot in it."""
    _, _, clicks = served
    days = clicks.assign(time=clicks["time"].dt.normalize())
    bot = days.iloc[[0] * 300].assign(item=np.arange(300) % 30)
    builder = HistoryBuilder(user="user", time="time", columns=["item", "category"])
    histories = Histories(builder, pd.concat([days, bot]))
    user, when = int(bot["user"].iloc[0]), bot["time"].iloc[0].isoformat()
    n_read, read = [], histories._in_log
    monkeypatch.setattr(histories, "_in_log", lambda *g: n_read.append(1) or read(*g))
    rows = [event(user, n % 40, when) for n in range(2_000)]
    rows = [row | {"category": int(bot["category"].iloc[0])} for row in rows]
    in_log = [(u, i, c) for u, i, c, t in zip(*(pd.concat([days, bot])[n] for n in (
        "user", "item", "category", "time")), strict=True) if t == bot["time"].iloc[0]]  # fmt: skip
    n_before, posted, n_new = histories.n_events, [], 0
    for number, one in enumerate(histories.read(rows)):
        key = (one.user, *one.values)
        assert histories.has(one) == (key in in_log or key in posted)
        n_new += posted.count(key) >= in_log.count(key)
        posted.append(key)
        histories.add([(number, one)])
    assert histories.n_events == n_before + n_new
    assert len(n_read) == 1


def test_an_open_reader_holds_no_post_up_and_what_it_keeps_is_said(served, tmp_path):
    path = str(tmp_path / "events.db")
    with serve(served, path) as (client, _):
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        assert post(client, event(7, 12, event_id="a"), event(8, 12, device="of-8")) == 2
        reader.execute("SELECT * FROM events").fetchall()
        assert client.delete("/users/8").status_code == 200
        began = time.monotonic()
        for n in range(20):
            post(client, event(7, 13, event_id=f"{n}"))
        assert time.monotonic() - began < 20 * 0.1  # each waited for .2 s
        assert client.get("/health").json()["posted"]["erased"] is False
        reader.close()
        wait_for(lambda: client.get("/health").json()["posted"]["erased"])
        assert b"of-8" not in (tmp_path / "events.db-wal").read_bytes()


def test_an_id_that_was_forgotten_stands_in_no_message(served, any_url):
    *_, clicks = served
    with serve(served, any_url) as (client, state):
        first = state.answers.histories.example()["user"]
        assert client.delete(f"/users/{first}").status_code == 200
        example = client.get("/openapi.json").json()["components"]["schemas"]["EventsRequest"]
        shown = example["example"]["events"][0]
        own = clicks[(clicks["user"] == shown["user"]) & (clicks["item"] == shown["item"])]
        assert shown["user"] != first
        assert len(own)
        message = client.post("/rank", json={"user": "x"}).json()["detail"]
        assert f"such as {shown['user']}, got" in message
        assert client.post("/events", json={"events": [shown]}).json()["added"] == 0
        assert "forgotten-id" not in client.delete("/events/forgotten-id").text


@pytest.mark.parametrize(
    "url",
    ["postgresql://din:se%cret@host/db", "postgresql://din:se cret@host/db",
     "postgresql://din:cret/se@host/db", "postgresql://din:secret@[::1/db",
     "postgresql://din:secret@host:port/db"],
)  # fmt: skip
def test_an_address_that_cannot_be_read_is_not_repeated(url):
    pytest.importorskip("psycopg", reason="the extra [postgres] is not installed")
    with pytest.raises(ValueError, match="may hold a password: it is not repeated") as refused:
        Store(url)
    assert refused.value.__context__ is None
    assert "cret" not in str(refused.value)


def test_the_store_may_come_from_a_variable(monkeypatch):
    monkeypatch.setenv("SKLEARN_DIN_EVENTS", "postgresql://din:secret@host/db")
    assert serve_parser().get_default("store") == "postgresql://din:secret@host/db"
    monkeypatch.setenv("SKLEARN_DIN_EVENTS", "")
    assert serve_parser().get_default("store") is None
