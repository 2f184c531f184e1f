"""Nothing that was posted is lost, and nobody's post changes the answers to another."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import HistoryBuilder
from sklearn_din.server import clock
from sklearn_din.server.answers import Answers
from sklearn_din.server.histories import Histories
from sklearn_din.server.state import State
from tests.posted_events import TestClient, create_app, event, items_of, post
from tests.served_model import fit_served, wait_for

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def served():
    model, clicks = fit_served()
    return model, clicks.drop_duplicates("item")[["item", "category"]], clicks


@pytest.fixture
def state(served):
    model, catalogue, _ = served
    return State(lambda: Answers(model, catalogue))


@pytest.fixture
def client(state):
    with TestClient(create_app(state)) as client:
        yield client


def newest(state):
    return pd.Timestamp(state.answers.histories.clock.newest)


def test_a_click_joins_the_history_once(client, state):
    before, when = items_of(state, 7), newest(state)
    clicks = [event(7, 12, when + pd.Timedelta("2h")), event(7, 13, when + pd.Timedelta("1h"))]
    assert post(client, *clicks) == 2
    again = client.post("/events", json={"events": clicks}).json()
    assert (again["added"], again["known_already"], len({*again["event_ids"]})) == (0, 2, 2)
    assert items_of(state, 7) == [*before, 13, 12]
    short = {"user": 4321, "item": 12, "time": when.isoformat()}  # the catalogue has the category
    assert post(client, short, short) == 1  # equal ones of a post are a retry
    state.reload()
    assert items_of(state, 7) == [*before, 13, 12]
    row = state.answers.items.row(state.answers.items.row_of(12))
    assert state.answers.histories.of(4321)[0]["hist_category"] == [row["category"]]
    found = client.get("/page/users?search=432").json()["users"]
    assert found == [{"user": 4321, "events": 1}]


def test_nobody_moves_the_now_of_others(client, state):
    others = {user: state.answers.rank(user, None, 5, None) for user in (1, 2, 3)}
    moment = pd.Timestamp.now("UTC").tz_localize(None)
    assert post(client, event(7, 12, moment)) == 1  # years after the log
    assert {user: state.answers.rank(user, None, 5, None) for user in others} == others
    assert items_of(state, 7)[-1] == 12
    late = client.post("/events", json={"events": [event(7, 12, moment + pd.Timedelta("2D"))]})
    assert "at the latest" in late.json()["detail"]
    early = client.post("/events", json={"events": [event(7, 12, pd.Timestamp("1970-01-01"))]})
    assert "at the earliest" in early.json()["detail"]
    log = state.answers.histories.clock.newest
    assert post(client, event(7, 12, pd.Timestamp(log) - pd.Timedelta("3650D"))) == 1  # filled in


def test_now_is_the_clock_where_the_log_is_being_written():
    now = time.time_ns()
    log = pd.Series(pd.to_datetime([now - 10**6 * SECOND, now - 10**5 * SECOND]), name="time")
    assert clock.Clock(log).is_live
    assert now < clock.Clock(log).now() < now + 10 * SECOND
    old = log - pd.Timedelta("100D")
    assert not clock.Clock(old).is_live
    assert clock.Clock(old).now() == old.max().value + SECOND
    assert clock.Clock(old, now="clock").is_live
    assert not clock.Clock(log, now="newest").is_live
    numbers = pd.Series([100, 150], name="t")
    assert clock.Clock(numbers).now() == 151
    assert clock.Clock(numbers).read(200) == 200
    for wrong in (201, 150_000, 2**63 - 1, 1.5, True, "150", None, -401):
        with pytest.raises(ValueError, match=r"t must be (200 at the l|-400 at the e|an integer)"):
            clock.Clock(numbers).read(wrong)
    with pytest.raises(ValueError, match="--now clock needs dates"):
        clock.Clock(numbers, now="clock")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_times_with_and_without_a_zone_are_one_moment(zone):
    log = pd.Series(pd.to_datetime(["2024-06-01", "2024-07-01"]), name="t").dt.tz_localize(zone)
    read = clock.Clock(log)
    utc = pd.Timestamp("2024-06-15T10:00").value
    assert read.read("2024-06-15T10:00:00Z") == read.read("2024-06-15 12:00+02:00") == utc
    assert read.read("2024-06-15T12:00" if zone else "2024-06-15T10:00:00.000") == utc
    assert read.read(read.show(utc)) == utc


def test_histories_equal_those_of_one_builder_however_the_clicks_came(served):
    """The twin: all events at once, attached by the builder."""
    model, _, clicks = served
    half = len(clicks) // 2
    whole, parts = Histories(model[0]), Histories(clone(model[0]), clicks[:half])
    rows = clicks[half:].assign(time=clicks["time"].map(pd.Timestamp.isoformat))
    rows = rows[["user", "item", "category", "time"]].to_dict("records")
    for start in range(0, len(rows), 7):
        parts.add(enumerate(parts.read(rows[start : start + 7]), start=start + 1))
    now = pd.Timestamp(whole.clock.now())
    for user in clicks["user"].unique().tolist():
        shown = clicks[:1].assign(user=user, time=now)
        expected = model[0].transform(shown).iloc[0]
        for histories in (whole, parts):
            own, times = histories.of(user)
            for name in ("hist_item", "hist_category"):
                assert own[name] == expected[name].tolist()
            assert times == sorted(times)


def test_elapsed_times_and_ages_are_those_of_the_builder():
    log = pd.DataFrame({"user": 1, "item": [1, 2, 3], "time": [10, 20, 30]})
    options = {"user": "user", "time": "time", "columns": "item", "elapsed": "ago", "max_age": 15}
    histories = Histories(HistoryBuilder(**options), log)
    builder = HistoryBuilder(**options, events="all").fit(log)
    expected = builder.transform(log[:1].assign(time=histories.clock.now())).iloc[0]
    own, _ = histories.of(1)
    assert own["hist_item"] == expected["hist_item"].tolist() == [2, 3]
    np.testing.assert_allclose(own["ago"], expected["ago"])


def test_clicks_join_their_own_user_and_numbers_must_be_numbers():
    users = np.array([2**62, 2**62 + 1], "uint64")  # hashes, which float64 merges
    log = pd.DataFrame({"user": users, "item": [1, 2], "paid": [0.5, 0.7], "time": 1})
    histories = Histories(HistoryBuilder(user="user", time="time", columns=["item", "paid"]), log)
    click = {"user": 2**62 + 1, "item": 5, "paid": None, "time": 1}
    histories.add(enumerate(histories.read([click, click | {"item": None}])))
    for paid in ("much", True, [1], "x" * 2_000):
        with pytest.raises(ValueError, match="paid must be a number, as in the log, got"):
            histories.read([click | {"paid": paid}])
    own = [histories.of(user)[0]["hist_item"] for user in users.tolist()]
    assert own == [[1], [2, 5, None]]


def test_unknown_items_and_users_are_named(client, state):
    items = [state.answers.items.ids[0], 10**6]
    got = client.post("/rank", json={"user": 7, "items": items}).json()
    assert got["unknown_items"] == [10**6]
    assert got["known"] is True
    unknown = client.post("/rank", json={"user": 10**6}).json()
    assert unknown["known"] is False
    assert len(unknown["items"]) == 10
    best = unknown["items"]
    left = client.post("/rank", json={"user": 10**6, "exclude": best[:3]}).json()["items"]
    assert left[:5] == best[3:8]


def test_items_that_go_with_one_are_told(client, state, monkeypatch):
    item = state.answers.items.ids[0]
    got = client.get(f"/similar?item={item}&top_k=5").json()
    assert len(got["items"]) == 5
    assert item not in got["items"]
    assert got["titles"] == [str(other) for other in got["items"]]
    assert got["scores"] == sorted(got["scores"], reverse=True)
    assert client.get("/similar?item=987654").status_code == 422
    misspelt = client.get(f"/similar?item={item}&topk=5")
    assert misspelt.status_code == 422
    assert "topk: Extra inputs are not permitted" in misspelt.json()["detail"]

    def need_onnx(*_):
        raise ImportError("shortlist needs onnx")

    monkeypatch.setattr(state.answers._ranker, "find_similar", need_onnx)  # as of an ONNX file
    answer = client.get(f"/similar?item={item}")
    assert (answer.status_code, answer.json()) == (501, {"detail": "shortlist needs onnx"})


def test_an_id_that_is_typed_is_the_first_hit(client, state):
    ids = state.answers.items.ids
    containing = {item: [o for o in ids if str(item) in str(o)] for item in ids}
    typed = next(item for item, others in containing.items() if others[0] != item)
    hits = client.get(f"/page/items?search={typed}").json()["items"]
    assert hits[0]["item"] == typed
    assert {hit["item"] for hit in hits} == {*containing[typed]}


def test_a_first_step_that_says_no_columns_is_told(served):
    model, catalogue, _ = served
    pipeline = make_pipeline(FunctionTransformer(), *[step for _, step in model[1:].steps])
    with pytest.raises(ValueError, match="needs a Pipeline fitted on a DataFrame, whose"):
        Answers(pipeline, catalogue)


def test_the_look_for_new_files_goes_on_after_any_error(served, tmp_path, monkeypatch):
    model, catalogue, _ = served
    monkeypatch.setattr("sklearn_din.server.state.SECONDS_BETWEEN_LOOKS", 0.02)
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "1").write_text("a")
    (tmp_path / "model").write_text("a")
    state = State(lambda: Answers(model, catalogue), [tmp_path / "model", folder])

    with TestClient(create_app(state)) as client:
        (tmp_path / "model").unlink()
        (tmp_path / "model").symlink_to("model")  # ELOOP
        wait_for(lambda: state.problem is not None)
        problem = client.get("/health").json()["problem"]
        assert (problem["what"], problem["error"]) == ("files cannot be looked at", "OSError")
        assert problem["since"]
        first = state.answers
        (tmp_path / "model").unlink()
        wait_for(lambda: client.get("/health").json()["problem"]["what"] == "a file is gone")
        assert client.get("/health").json()["status"] == "old model"
        (tmp_path / "model").write_text("ab")
        wait_for(lambda: state.answers is not first)
        assert client.get("/health").json()["problem"] is None
        second = state.answers
        (folder / "2").write_text("a new part")
        wait_for(lambda: state.answers is not second)
