"""Levels on the server: those of the model's memory, moved by what is posted, of its keys alone."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import export_onnx, rank_candidates, remember, save
from sklearn_din.command_line.options import read_serve_options
from sklearn_din.command_line.serving import load_answers
from sklearn_din.server.answers import Answers
from sklearn_din.server.state import State
from sklearn_din.server.store import Store
from tests.test_row_memory import fit, make_rows

KEYS = ("user", "item", "kind")


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


def post(state, *events):
    state._commit([(None, state.add, ([*events],))])
    state.answers.levels._next_join = 0.0
    state.posts.catch_up()


def answers_of(state):
    return state.answers.items.ids


def numbers(state, user):
    answers = state.answers
    return answers.predict([{"user": user, "item": item} for item in answers.items.ids])


def test_rankings_and_rows_are_those_of_the_pipeline_as_of_now(served):
    model, catalogue, _rows = served
    state = state_of(served)
    for user in (3, 5):
        now = state.answers.levels.at(state.answers.histories.now_of(user))
        users = pd.DataFrame({"user": [user], "time": [now]})
        ranked = rank_candidates(model, users, catalogue, top_k=12)
        answer = state.answers.rank(user, None, 12, None)
        np.testing.assert_allclose(answer["probabilities"], ranked["probability"], atol=1e-6)
        by_item = dict(zip(answers_of(state), numbers(state, user)["probabilities"], strict=True))
        own = [by_item[item] for item in answer["items"]]
        np.testing.assert_allclose(own, ranked["probability"], atol=1e-6)
    state.close()


def test_posted_rows_move_levels_of_their_keys_alone(served):
    state = state_of(served)
    levels, log = state.answers.levels, state.answers.histories
    asked = [{"user": user, "item": "a", "kind": 0} for user in (3, 5)]
    asked += [{"user": 5, "item": "b", "kind": 1}]
    now = [log.now_of(3) + 10**12] * 3
    before = levels.of_rows(asked, now)
    time = log.moments.show(log.moments.newest + (5 * 10**9 if log.moments.are_dates else 5))
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
    words = levels.describe(asked[0], now[0])
    assert words[0] == (
        f"user: yes to {after['user_rate'][0]:.0%} of {after['user_count'][0]:.0f} rows so far"
    )
    assert levels.describe({"user": 77, "item": "a"}, now[0])[0] == "user: no row so far"
    assert state.answers.reasons(state.answers.read_user(3), 0)["notes"][: len(words)]
    post(state, {"user": 3, "item": "a", "time": time, "label": 0})  # the same row: once
    np.testing.assert_array_equal(levels.of_rows(asked, now)["user_count"], after["user_count"])
    state.close()


def test_what_was_posted_is_what_is_remembered_and_forgotten(served, tmp_path):
    model, catalogue, _rows = served
    store = str(tmp_path / "events.db")
    state = state_of(served, Store(store))
    log = state.answers.histories
    step = 10**9 if log.moments.are_dates else 1
    moments = [log.moments.newest + (n + 1) * step for n in range(6)]
    times = [log.moments.show(moment) for moment in moments]
    events = [
        {"user": 3 + 2 * (n % 2), "item": "ab"[n % 2], "time": time, "event_id": n}
        for n, time in enumerate(times)
    ]
    events = [event | {"label": int(n > 2)} for n, event in enumerate(events)]
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
    state.answers.levels._next_join = 0.0
    state.posts.catch_up()
    assert state.answers.levels.of_rows(asked, now)["user_count"] == whole["user_count"] - 1
    with pytest.warns(UserWarning, match="files that are served have events of this user"):
        state._commit([(None, state.forget, ("5",))])
    state.answers.levels._next_join = 0.0
    state.posts.catch_up()
    assert state.answers.levels.of_rows(asked, now)["item_count"] == whole["item_count"] - 3
    stranger = state.answers.rank(5, None, 12, None)["probabilities"]
    assert stranger == pytest.approx(state.answers.rank(77, None, 12, None)["probabilities"])
    state.close()
    again.close()


def test_levels_are_made_anew_once_for_all_that_wait_and_only_where_rows_go(served, monkeypatch):
    state = state_of(served)
    made_anew, read = [], state.posts._read

    def count(rows, *, joins=True):
        made_anew.extend([1] * (not joins))
        read(rows, joins=joins)

    monkeypatch.setattr(state.posts, "_read", count)
    newest = state.answers.histories.moments
    time = newest.show(newest.newest)
    post(state, *({"user": user, "item": "a", "time": time} for user in range(900, 920)))
    with pytest.warns(UserWarning, match="files that are served"):
        outcomes = state._commit([(None, state.forget, (user,)) for user in ("12345", "3")])
    assert [type(error).__name__ for _, error in outcomes] == ["UnknownError", "NoneType"]
    assert made_anew == []
    state._commit([(None, state.forget, (str(user),)) for user in range(900, 920)])
    assert made_anew == [1]
    state.close()


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
