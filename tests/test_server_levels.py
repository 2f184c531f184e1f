"""Levels on the server: those of the model's memory, moved by what is posted, of its keys alone."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import export_onnx, rank_candidates, remember, save
from sklearn_din.command_line.options import read_serve_options
from sklearn_din.command_line.serving import load_answers
from sklearn_din.server.answers import Answers
from sklearn_din.server.app import create_app
from sklearn_din.server.state import State
from sklearn_din.server.store import Store
from tests.plain_memory import PlainMemory
from tests.test_row_memory import KEYS, OF_ROWS, fit, make_rows
from tests.test_server import TestClient


@pytest.fixture(scope="module", params=["numbers", "dates"])
def served(request):
    rows, y = make_rows(600)
    rows = rows[rows["user"] != 9]
    y = y[rows.index]
    if request.param == "dates":
        rows = rows.assign(time=pd.to_datetime(rows["time"], unit="h", utc=True))
    model = fit(rows, y)
    return model, rows[["item", "kind"]].drop_duplicates("item").reset_index(drop=True), rows


def state_of(served, store=None):
    model, catalogue, _ = served
    return State(lambda: Answers(model, catalogue), store=store)


@pytest.fixture
def state(served):
    state = state_of(served)
    yield state
    state.close()


def post(state, *events):
    state._commit([(None, state.add, ([*events],))])
    join(state)


def join(state):
    """Have what waits in the levels, as a while later."""
    state.answers.levels._next_join = 0.0
    state.posts.catch_up()


def step_of(clock):
    """Return a second, or 1 where times are numbers."""
    return 10**9 if clock.are_dates else 1


def test_rankings_and_rows_are_those_of_the_pipeline_as_of_now(served, state):
    model, catalogue, _ = served
    for user in (3, 5):
        now = state.answers.levels.at(state.answers.histories.now_of(user))
        users = pd.DataFrame({"user": [user], "time": [now]})
        ranked = rank_candidates(model, users, catalogue, top_k=12)
        answer = state.answers.rank(user, None, 12, None)
        np.testing.assert_allclose(answer["probabilities"], ranked["probability"], atol=1e-6)
        numbers = state.answers.predict([{"user": user, "item": item} for item in answer["items"]])
        np.testing.assert_allclose(numbers["probabilities"], ranked["probability"], atol=1e-6)


def test_levels_are_those_of_plain_loops_and_labels_that_are_posted_again_replace(served, state):
    model, _, rows = served
    y = served_labels(model, rows)
    dates = rows["time"].dtype.kind != "i"
    moments = rows["time"].astype("datetime64[ns, UTC]").astype(np.int64) if dates else rows["time"]
    again, clock = rows.iloc[-1].to_dict(), state.answers.histories.clock
    again |= {"time": clock.show(moments.iloc[-1].item()), "label": 1 - int(y[-1])}
    post(state, again)
    y[-1] = again["label"]
    loop = PlainMemory(OF_ROWS, KEYS)
    loop.tell(rows.assign(time=moments), y)
    for now in (moments.iloc[len(rows) // 2].item(), moments.max() + 10**12):  # the first: a row's
        for row in rows[["user", "item", "kind"]].iloc[[-1, 7, 90]].to_dict("records"):
            shown = state.answers.levels.of_rows([row], [now])
            for key, expected in loop.levels(row | {"time": now})[0].items():
                name = key if isinstance(key, str) else "_".join(key)
                names = [f"{name}_rate", f"{name}_count", f"{name}_elapsed"]
                found = np.array([shown[name].item() for name in names])
                found[2] *= 1e9 if dates else 1
                np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_page_shows_what_rank_answers_for_the_same_user(state):
    with TestClient(create_app(state)) as client:
        best = client.post("/rank", json={"user": 3}).json()
        user = client.post("/page/user", json={"user": "3"}).json()
        strip = {"events": [e["event"] for e in user["events"]], "context": user["context"]}
        shown = client.post("/page/rank", json=strip).json()["best"]
        why = client.post("/page/why", json={**strip, "item": "a"}).json()
        explained = client.post("/explain", json={"user": 3, "item": best["items"][0]}).json()
        same = client.post("/page/why", json={**strip, "item": best["items"][0]}).json()
        nobody = client.post("/page/rank", json={"events": []}).json()["best"]
        two = {"events": [{"item": "a"}, {"item": "b"}]}
        added = client.post("/page/rank", json=two).json()["best"]
    assert [b["item"] for b in shown] == best["items"]
    np.testing.assert_allclose([b["number"] for b in shown], best["probabilities"], atol=1e-6)
    assert [[*level["of"]] for level in why["levels"][:2]] == [["user"], ["item"]]
    assert explained["probability"] == pytest.approx(best["probabilities"][0], abs=1e-6)
    assert [event["effect"] for event in explained["events"]] == same["effect"]
    assert [event["item"] for event in explained["events"]] == [e["item"] for e in strip["events"]]
    assert explained["levels"] == same["levels"]
    unknown = state.answers.rank({"hist_item": [], "hist_kind": []}, None, 10, None)
    assert [b["number"] for b in nobody] == pytest.approx(unknown["probabilities"], abs=1e-6)
    assert len(added) == 10
    assert added != nobody


def test_posted_rows_move_levels_of_their_keys_alone(served, state):
    levels, log = state.answers.levels, state.answers.histories
    asked = [{"user": user, "item": "a", "kind": 0} for user in (3, 5)]
    asked += [{"user": 5, "item": "b", "kind": 1}]
    now = [log.now_of(3) + 10**12] * 3
    before = levels.of_rows(asked, now)
    time = log.clock.show(log.clock.newest + 5 * step_of(log.clock))
    post(state, {"user": 3, "item": "a", "time": time, "label": 0})
    after = levels.of_rows(asked, now)
    moved = {name: (after[name] - before[name]).tolist() for name in before if "count" in name}
    assert moved == {
        "user_count": [1, 0, 0],
        "item_count": [1, 1, 0],
        "kind_count": [1, 1, 0],
        "user_item_count": [1, 0, 0],
        "user_kind_count": [1, 0, 0],
    }
    assert after["user_rate"][0] < before["user_rate"][0]
    assert log.n_of(3) == state_of(served).answers.histories.n_of(3)
    count, rate = after["user_count"][0], after["user_rate"][0]
    of_user = {"of": {"user": 3}, "label": "", "rows": count, "rate": rate}
    assert levels.describe(asked[0], now[0])[0] == of_user
    nobody = levels.describe({"user": 77, "item": "a"}, now[0])
    assert [level["rows"] > 0 for level in nobody[:2]] == [False, True]
    post(state, {"user": 3, "item": "a", "time": time, "label": 0})  # the same row: once
    np.testing.assert_array_equal(levels.of_rows(asked, now)["user_count"], after["user_count"])


def test_what_was_posted_is_what_is_remembered_and_forgotten(served, tmp_path):
    model, catalogue, _ = served
    store = str(tmp_path / "events.db")
    state = state_of(served, Store(store))
    log = state.answers.histories
    moments = [log.clock.newest + (n + 1) * step_of(log.clock) for n in range(6)]
    events = [
        {"user": 3 + 2 * (n % 2), "item": "ab"[n % 2], "event_id": n, "label": int(n > 2)}
        for n in range(6)
    ]
    for event, moment in zip(events, moments, strict=True):
        event["time"] = log.clock.show(moment)
    post(state, *events[:3])
    post(state, *events[3:])
    at = state.answers.levels.at
    later = pd.DataFrame(events)[["user", "item", "label"]].assign(time=[at(m) for m in moments])
    later = later.merge(catalogue, on="item")
    told = remember(model, later[["user", "item", "kind", "time"]], later["label"].to_numpy())
    for user in (3, 5):
        users = pd.DataFrame({"user": [user], "time": [at(log.now_of(user))]})
        ranked = rank_candidates(told, users, catalogue, top_k=12)
        answer = state.answers.rank(user, None, 12, None)
        np.testing.assert_allclose(answer["probabilities"], ranked["probability"], atol=1e-6)
    again = state_of(served, Store(store))
    assert again.answers.rank(5, None, 12, None) == state.answers.rank(5, None, 12, None)
    asked, now = [{"user": 5, "item": "b", "kind": 1}], [moments[-1] + 10**12]
    whole = state.answers.levels.of_rows(asked, now)
    state._commit([(None, state.remove, ("5",))])
    join(state)
    assert state.answers.levels.of_rows(asked, now)["user_count"] == whole["user_count"] - 1
    with pytest.warns(UserWarning, match="files that are served have events of this user"):
        state._commit([(None, state.forget, ("5",))])
    join(state)
    assert state.answers.levels.of_rows(asked, now)["item_count"] == whole["item_count"] - 3
    stranger = state.answers.rank(5, None, 12, None)["probabilities"]
    assert stranger == pytest.approx(state.answers.rank(77, None, 12, None)["probabilities"])
    state.close()
    again.close()


def test_posts_in_any_parts_and_a_restart_give_the_same_levels(served, tmp_path):
    _, _, rows = served
    states = [state_of(served, Store(str(tmp_path / f"{n}.db"))) for n in range(2)]
    log = states[0].answers.histories
    step = step_of(log.clock)
    later = [log.clock.show(log.clock.newest + n * step) for n in range(1, 9)]
    names, told = ["user", "item", "kind"], states[0].answers.levels._own.memory_
    events = rows[names].iloc[[5, 40, 40]].to_dict("records")  # rows of the model's memory
    for n, place in enumerate([5, 40, 40]):
        events[n] |= {"time": log.clock.show(told.times[place].item()), "label": n % 2}
    events += [{"user": 3, "item": "b", "kind": 1, "time": t, "label": 0} for t in later[::2]]
    events += [events[-1]] * 2  # equal ones, by other ids
    events = [own | {"event_id": n} for n, own in enumerate(events)]
    events += [events[4] | {"label": 1}, events[0] | {"label": 1}]  # what came of them later
    post(states[0], *events[:-2])
    post(states[0], *events[-2:])
    for own in events:
        post(states[1], own)
    states.append(state_of(served, Store(str(tmp_path / "1.db"))))
    asked = rows[names].drop_duplicates().to_dict("records")
    now = [log.clock.newest + 10 * step] * len(asked)
    first, *others = (state.answers.levels.of_rows(asked, now) for state in states)
    assert sum(first["user_item_count"]) == len(told.times) + 7  # of nine two are known already
    for levels in others:
        for name, own in levels.items():
            np.testing.assert_allclose(own, first[name], rtol=1e-12, err_msg=name)
    for state in states:
        state.close()


def test_the_answer_of_a_post_says_from_when_it_counts_and_which_items_no_catalogue_has(state):
    clock = state.answers.histories.clock
    now, step = clock.now(), step_of(clock)
    early, late = (clock.show(moment) for moment in (now - step, now + 5 * step))
    events = [{"user": 3, "item": "a", "time": early}]
    assert {*state.add(events)} == {"added", "event_ids"}
    posted = [{"user": 3, "item": item, "kind": 1, "time": late} for item in ("b", "none")]
    answer = state.add(posted)
    assert answer["unknown_items"] == ["none"]
    assert (answer["counts_from"], answer["now"]) == (late, clock.show(now))


def test_levels_stay_after_a_deletion_until_the_new_ones_are_there(state):
    levels, log = state.answers.levels, state.answers.histories
    time = log.clock.show(log.clock.newest)
    asked, now = [{"user": 3, "item": "a", "kind": 0}], [log.now_of(3) + 10**12]
    counts = [levels.of_rows(asked, now)["user_count"].item()]
    post(state, *({"user": 3, "item": item, "time": time, "event_id": item} for item in "ab"))
    levels._next_join = np.inf  # as long after a join
    counts.append(levels.of_rows(asked, now)["user_count"].item())
    state._commit([(None, state.remove, ("a",))])
    counts.append(levels.of_rows(asked, now)["user_count"].item())
    join(state)
    counts.append(levels.of_rows(asked, now)["user_count"].item())
    assert np.diff(counts).tolist() == [2, 0, -1]


def test_what_was_shown_joins_histories_of_models_that_hold_it():
    rows, y = make_rows(300)
    model = fit(rows, y)
    model[0].set_params(events="all").fit(rows, y)
    catalogue = rows[["item", "kind"]].drop_duplicates("item").reset_index(drop=True)
    state = State(lambda: Answers(model, catalogue))
    time = int(rows["time"].max()) + 1
    post(state, {"user": 3, "item": "a", "time": time, "label": 0})
    told = remember(model, pd.DataFrame([{"user": 3, "item": "a", "kind": 0, "time": time}]), [0])
    now = pd.DataFrame({"user": [3], "item": ["a"], "kind": [0], "time": [time + 1]})
    expected = told[0].transform(now)["hist_item"].iloc[0].tolist()
    assert state.answers.histories.of(3)[0]["hist_item"] == expected
    post(state, {"user": 3, "item": "a", "time": time, "label": 1})
    assert state.answers.histories.of(3)[0]["hist_item"] == expected


def test_levels_are_made_anew_once_for_all_that_wait_and_only_where_rows_go(state, monkeypatch):
    made_anew, read = [], state.posts._read

    def count(rows, *, joins=True):
        made_anew.extend([1] * (not joins))
        read(rows, joins=joins)

    monkeypatch.setattr(state.posts, "_read", count)
    clock = state.answers.histories.clock
    time = clock.show(clock.newest)
    post(state, *({"user": user, "item": "a", "time": time} for user in range(900, 920)))
    with pytest.warns(UserWarning, match="files that are served"):
        outcomes = state._commit([(None, state.forget, (user,)) for user in ("12345", "3")])
    assert [type(error).__name__ for _, error in outcomes] == ["UnknownError", "NoneType"]
    assert made_anew == []
    state._commit([(None, state.forget, (str(user),)) for user in range(900, 920)])
    assert made_anew == [1]


@pytest.mark.parametrize("kind", ["din", "onnx"])
def test_serve_makes_levels_of_a_history_with_labels(served, tmp_path, kind):
    model, catalogue, rows = served
    later = rows.assign(time=rows["time"] + (rows["time"].max() - rows["time"].min()))
    y = (np.arange(len(later)) % 3 == 0).astype(int)
    told = remember(model, later, y)
    if kind == "din":
        save(model, tmp_path / "model.din")
        log = later.assign(clicked=y)
    else:  # such a file has no memory
        export_onnx(model, tmp_path / "model.onnx")
        y = np.append(served_labels(model, rows), y)
        log = pd.concat([rows, later], ignore_index=True).assign(clicked=y)
    catalogue.to_parquet(tmp_path / "items.parquet")
    log.to_parquet(tmp_path / "log.parquet")
    files = ["--catalogue", tmp_path / "items.parquet", "--history", tmp_path / "log.parquet"]
    arguments = [tmp_path / f"model.{kind}", *files, "--label", "clicked==1"]
    answers = load_answers(read_serve_options([*map(str, arguments)]))
    user = 3
    now = answers.levels.at(answers.histories.now_of(user))
    ranked = rank_candidates(told, pd.DataFrame({"user": [user], "time": [now]}), catalogue)
    answer = answers.rank(user, None, 10, None)
    np.testing.assert_allclose(answer["probabilities"], ranked["probability"], atol=1e-5)


def served_labels(model, rows):
    """The labels of fit, which the memory has in the order of the rows."""
    return model[0].memory_.values[:, 0].astype(int)
