"""What came of an event, in histories: by a plain loop over all that was told."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

from sklearn_din import (
    LABEL,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    TimeSplit,
    attach_history,
    export_onnx,
    forget,
    live_predictions,
    load,
    load_onnx,
    rank_candidates,
    remember,
    save,
    update,
)
from sklearn_din.server.answers import Answers
from sklearn_din.server.json_values import plain
from sklearn_din.server.state import State
from sklearn_din.server.store import Store
from sklearn_din.training import aged_levels
from tests.plain_memory import PlainMemory, begin_with, make_calls, make_flights

pytestmark = pytest.mark.slow

NAMES = {"user": "user", "time": "time", "columns": ["item"], "elapsed": "ago"}
FLIGHTS = {**NAMES, "events": "all", "outcomes": ["late", LABEL], "known": "known"}
OF_ROWS = ["user", "item", "time"]


def make_outcomes():
    """Calls of rows, with how late they were, and labels."""
    for rows, values in make_calls("outcomes", is_known=True, seed=0):
        yield rows.assign(late=values[:, 0]), values[:, 1]


def assert_histories(shown, asked, loop, events):
    for i, (user, now) in enumerate(zip(asked["user"], asked["time"], strict=True)):
        past = loop.past(user, now)
        past = [row for row in past if events == "all" or row[-1][1] == 1]
        expected = {
            "hist_item": [name[1] for _, name, _ in past],
            "hist_late": [late for *_, (late, _) in past],
            "hist_label": [label for *_, (_, label) in past],
            "ago": [now - known for known, *_ in past],
        }
        for name in expected.keys() & {*shown}:
            own = [np.nan if value is pd.NA else value for value in shown[name].iloc[i]]
            np.testing.assert_array_equal(np.array(own), expected[name])


@pytest.mark.parametrize("known", ["known", "time"])
@pytest.mark.parametrize("levels", [None, "auto"])
@pytest.mark.parametrize("events", ["all", "positive"])
def test_histories_with_outcomes_are_those_of_a_plain_loop(events, levels, known):
    outcomes = ["late", LABEL] if events == "all" else "late"
    names = {**FLIGHTS, "events": events, "levels": levels, "outcomes": outcomes, "known": known}
    builder, loop = HistoryBuilder(**names), PlainMemory()
    for n, (rows, y) in enumerate(make_outcomes()):
        rows, asked = rows[[*OF_ROWS, "late", *({known} - {"time"})]], rows[OF_ROWS]
        shown = builder.fit_transform(rows, y) if n == 0 else builder.partial_fit(rows, y)
        loop.tell(rows, np.column_stack([rows["late"], y]), known)
        if n == 0:
            assert_histories(shown, asked, loop, events)
            assert list(shown) == builder.get_feature_names_out().tolist()
            assert not {"late", "known"} & {*shown}
        assert builder.next_moment() > max(loop.moments())
        asked = pd.concat([asked, asked.assign(time=999)], ignore_index=True)
        assert_histories(builder.transform(asked), asked, loop, events)


@pytest.mark.parametrize("events", ["all", "positive"])
def test_outcomes_are_what_was_told_last_in_any_order_and_twice_is_once(events):
    rng = np.random.RandomState(0)
    rows, y = next(make_outcomes())
    rows, y = rows.drop_duplicates(OF_ROWS, ignore_index=True), y[: len(rows)]
    y = y[: len(rows)]
    outcomes = ["late", LABEL] if events == "all" else ["late"]
    names = {**FLIGHTS, "events": events, "outcomes": outcomes}
    once = HistoryBuilder(**names).fit(rows, y)
    has_label, has_late = rng.random_sample((2, len(rows))) < 0.5
    parts = [  # of each row a part of what came of it, then the other one
        (rows.assign(late=rows["late"].where(own)), np.where(label, y, np.nan))
        for own, label in ((has_late, has_label), (~has_late, ~has_label))
    ]
    asked = rows[OF_ROWS].assign(time=999)
    for order in ([0, 1], [1, 0], [0, 0, 1, 1], [1, 0, 0]):
        builder = HistoryBuilder(**names)
        for n in order:
            builder.partial_fit(*parts[n])
        in_order = ["time", "user", "item"]
        own, expected = (b.events_.sort_values(in_order) for b in (builder, once))
        own, expected = (e.reset_index(drop=True) for e in (own, expected))
        pd.testing.assert_frame_equal(own, expected, check_dtype=False)
        before = pickle.dumps(builder)
        for told in (parts[n], (rows, y), (rows.assign(late=np.nan), y * np.nan)):
            assert pickle.dumps(builder.partial_fit(*told)) == before
        assert builder.transform(asked)["hist_late"].map(sorted).tolist() == (
            once.transform(asked)["hist_late"].map(sorted).tolist()
        )


def test_equal_rows_with_a_key_of_levels_of_their_own_are_different_rows():
    rows = pd.DataFrame({"user": [1, 1], "item": ["a", "a"], "time": [1, 1], "late": [1.0, 2.0]})
    names = {**FLIGHTS, "known": "time", "levels": ["gate"]}
    rows["gate"] = ["A", "B"]
    builder = HistoryBuilder(**names).fit(rows, [0, 1]).partial_fit(rows[1:].assign(late=9.0), [1])
    assert builder.events_["late"].tolist() == [1.0, 9.0]


def test_whole_outcomes_stay_what_they_are_and_lists_and_dates_may_be_told():
    rows = pd.DataFrame({"user": [1, 1, 2], "item": list("aba"), "late": [10, 20, 30]})
    rows["time"] = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True)
    rows["landing"] = rows["time"] + pd.Timedelta("3h")
    rows["why"] = [["fog"], [], ["fog", "strike"]]
    names = {**NAMES, "outcomes": ["late", "why"], "known": "landing", "events": "all"}
    builder = HistoryBuilder(**names).fit(rows)
    told = rows.assign(late=[None, 20.0, None], why=[None, ["snow"], None])
    told["landing"] = (told["landing"] + pd.Timedelta("1h")).dt.tz_convert("Asia/Tokyo")
    builder.partial_fit(told)
    now = rows[OF_ROWS].assign(time=rows["time"].max())
    shown = builder.transform(now)
    assert [list(cell) for cell in shown["hist_late"]] == [[10, 20], [10, 20], []]
    assert builder.events_["late"].dtype == np.int64
    assert [list(own) for own in shown["hist_why"][0]] == [["fog"], ["snow"]]
    assert list(shown["ago"][0]) == [45 * 3600, 20 * 3600]


def test_polars_frames_get_the_histories_of_pandas():
    rows, y = next(make_outcomes())
    expected = HistoryBuilder(**FLIGHTS).fit_transform(rows, y)
    shown = HistoryBuilder(**FLIGHTS).fit_transform(pl.from_pandas(rows), y)
    assert isinstance(shown, pl.DataFrame)
    for name in ("hist_item", "hist_late", "hist_label", "ago"):
        assert shown[name].to_list() == [list(cell) for cell in expected[name]]


@pytest.mark.parametrize(("change", "message"), [
    ({"known": None}, r"set known= to the column that says when, or known='time' where they"),
    ({"outcomes": ["item"]}, r"outcomes must be no other columns' names, got \['item'\]"),
    ({"outcomes": ["late", "known"]}, r"columns' names, got \['known'\]"),
    ({"levels": ["late"]}, r"columns' names, got \['late'\]"),
    ({"events": "positive"}, "LABEL is the same of each event with events='positive'"),
    ({"outcomes": ["early"]}, "X .outcomes. has no column 'early'"),
    ({"outcomes": ["late", "late"]}, "outcomes must name each column once"),
])  # fmt: skip
def test_outcomes_that_cannot_be_are_refused_with_what_to_do(change, message):
    rows, y = next(make_outcomes())
    with pytest.raises(ValueError, match=message):
        HistoryBuilder(**{**FLIGHTS, **change}).fit(rows, y)


def test_what_is_told_must_have_outcomes_and_labels_and_no_earlier_moment():
    rows, y = next(make_outcomes())
    builder = HistoryBuilder(**FLIGHTS).fit(rows, y)
    for told, label, message in (
        (rows.drop(columns="late"), y, "now missing:\n- late"),
        (rows, None, "needs y to know"),
        (rows.assign(known=rows["time"] - 1), y, "'known'.* must not be earlier than 'time'"),
        (rows.assign(known=np.nan), y, "must say when each label was known"),
    ):
        with pytest.raises(ValueError, match=message):
            builder.partial_fit(told, label)
    assert builder.transform(rows[OF_ROWS])["hist_label"].iloc[-1] is not None


@pytest.fixture(scope="module")
def fitted():
    rows, y = make_flights()
    model = begin_with(HistoryBuilder(**FLIGHTS, levels="auto"))
    return model.fit(rows[:1000], y[:1000]), rows[1000:].reset_index(drop=True), y[1000:]


def test_a_model_remembers_outcomes_and_predicts_rows_without_them(fitted):
    model, rows, y = fitted
    asked, before = rows[OF_ROWS], model.predict_proba(rows[OF_ROWS])
    assert {"late", "known"}.isdisjoint(field.name for field in model[1].schema_.fields)
    told, newer = remember(model, rows, y), update(model, rows, y)
    all_rows, labels = make_flights()
    for own in (told, newer):
        shown = own[0].transform(asked)
        expected = clone(own[0]).fit(all_rows, labels).transform(asked)
        for name in ("hist_item", "hist_late", "hist_label", "ago"):
            assert [*map(list, shown[name])] == [*map(list, expected[name])]
    again = remember(told, rows.assign(late=np.nan), y * np.nan)
    np.testing.assert_array_equal(again.predict_proba(asked), told.predict_proba(asked))
    np.testing.assert_array_equal(model.predict_proba(asked), before)
    assert not np.allclose(told.predict_proba(asked), before)


def test_live_predictions_and_forget_know_outcomes(fitted):
    model, rows, y = fitted
    live = live_predictions(model, rows[:40], y[:40], every="1h")  # each row is alone in its hour
    np.testing.assert_allclose(
        live, remember(model, rows, y).predict_proba(rows[:40])[:, 1], atol=1e-6
    )
    told, (all_rows, labels) = forget(remember(model, rows, y), ["3", "7"]), make_flights()
    is_other = ~all_rows["user"].isin(["3", "7"]).to_numpy()
    once = clone(model[0]).fit(all_rows[is_other], labels[is_other])
    shown, expected = (own.transform(rows[OF_ROWS]) for own in (told[0], once))
    for name in ("hist_late", "hist_label"):
        assert [*map(list, shown[name])] == [*map(list, expected[name])]


AS_LABELS = {
    "integers": lambda y: y.astype(int),
    "floats": lambda y: y.astype(float),
    "Int64": lambda y: pd.Series(y, dtype="Int64"),
    "booleans": lambda y: y == 1,
    "text": lambda y: y.astype(int).astype(str),
}


@pytest.mark.parametrize("levels", [None, "auto"])
def test_labels_of_any_dtype_make_one_model_and_take_each_others_tellings(levels):
    rows, y = make_flights(160)
    first, later, asked = rows[:100], rows[100:], rows[OF_ROWS].assign(time=rows["known"].max())
    memory = HistoryBuilder(**FLIGHTS, levels=levels)
    expected = begin_with(clone(memory)).fit(first, y[:100])
    told, newer = (call(expected, later, y[100:]) for call in (remember, update))
    p, after = (own.predict_proba(asked) for own in (told, newer))
    kinds = [*AS_LABELS.values()]
    for n, kind in enumerate(kinds):
        model = begin_with(clone(memory)).fit(first, kind(y[:100]))
        for other in kinds:
            as_told = remember(model, later, other(y[100:]))
            pd.testing.assert_frame_equal(as_told[0].events_, told[0].events_)
            np.testing.assert_array_equal(as_told.predict_proba(asked), p)
        updated = update(model, later, kinds[n - 1](y[100:]))
        np.testing.assert_array_equal(updated.predict_proba(asked), after)


def test_a_missing_label_is_unknown_two_columns_of_one_label_are_refused_and_two_labels_not():
    rows, y = make_flights(60)
    some = np.where(np.arange(60) % 3, y, np.nan)
    builder = HistoryBuilder(**FLIGHTS).fit(rows, some)
    asked = rows[OF_ROWS].assign(time=rows["known"].max())
    encoder = HistorySequenceEncoder(user="user", time="time").fit(builder.transform(asked))
    assert encoder.schema_["hist_label"].kind == "history"
    assert encoder.vocabularies_["hist_label"].tolist() == [0, 1]
    untold = HistoryBuilder(**FLIGHTS).fit(rows, y).partial_fit(rows.assign(user="new"), y * np.nan)
    assert encoder.transform(untold.transform(asked)).schema == encoder.schema_
    with pytest.raises(ValueError, match=r"the first says what was not clicked. Give the column"):
        HistoryBuilder(**FLIGHTS).fit(rows, np.column_stack([1 - y, y]))
    several = np.column_stack([y, y * (np.arange(60) % 2)])
    assert HistoryBuilder(**FLIGHTS).fit(rows, several).events_[LABEL].tolist() == y.tolist()


@pytest.mark.parametrize(("stars", "wrong", "needed", "levels"), [
    ([3, 4, 5, 1], [3.5, np.inf, "bad", [1]], "whole numbers", "auto"),
    ([0.5, 3.0, np.nan, 2.0], [np.inf, "bad", [1]], "finite numbers", None),
    (["low", "high", "low", "low"], [3.5, [1], True], "text", "auto"),
    ([True, False, True, True], [2, "bad"], "true and false", None),
    ([["fog"], [], ["ice"], []], ["fog", 3], "lists", "auto"),
    ([["fog"], [], ["ice"], []], ["fog", 3], "lists", None),
])  # fmt: skip
def test_what_is_told_is_of_the_kind_of_fit_or_refused_and_changes_nothing(
    stars, wrong, needed, levels
):
    rows, y = make_flights(200)
    names = {**FLIGHTS, "outcomes": ["stars", LABEL], "levels": levels}
    rows = rows.drop(columns="late").assign(stars=[stars[n % 4] for n in range(200)])
    model = begin_with(HistoryBuilder(**names)).fit(rows, y)
    asked = rows[OF_ROWS].assign(time=rows["known"].max())
    for tell in (remember, update, lambda m, X, y: copy.copy(m[0]).partial_fit(X, y)):
        for value in wrong:
            told = rows[:4].assign(stars=pd.Series([None, value] * 2, dtype=object))
            with pytest.raises(ValueError, match=f"'stars'. must hold {needed}, as at fit, got"):
                tell(model, told, y[:4])
        for label in (0.5, np.inf, "maybe"):
            with pytest.raises(ValueError, match=r"that were not seen at fit: \[0, 1\]"):
                tell(model, rows[:4], [0, 1, 0, label])
    none = remember(model, rows[:9].assign(stars=None, user="1"), y[:9] * np.nan)
    again = remember(none, rows[:9].assign(stars=rows["stars"][::-1].to_numpy()[:9]), y[:9])
    assert np.isfinite(again.predict_proba(asked)).all()
    assert again[0].events_["stars"].dropna().map(type).nunique() == 1


def test_rankings_files_and_onnx_know_outcomes(fitted, tmp_path):
    model, rows, y = fitted
    told, candidates = remember(model, rows, y), rows[["item"]].drop_duplicates()
    users = pd.DataFrame({"user": ["1", "2", "stranger"], "time": [rows["known"].max()] * 3})
    pairs = users.merge(candidates, how="cross")
    expected = told.predict_proba(pairs[OF_ROWS])[:, 1].reshape(3, -1).max(axis=1)
    for ranked in (
        rank_candidates(told, users, candidates, top_k=1),
        Ranker(told, candidates).rank(users, top_k=1),
    ):
        np.testing.assert_allclose(ranked["probability"], expected, atol=1e-6)
    latest = Ranker(told, candidates).rank({"user": "1"}, top_k=1)
    assert np.isfinite(latest["probability"]).all()
    now = pairs[OF_ROWS]
    save(told, tmp_path / "model.din")
    save(told[0], tmp_path / "memory.din")
    for other in (load(tmp_path / "model.din"), pickle.loads(pickle.dumps(told))):
        np.testing.assert_array_equal(other.predict_proba(now), told.predict_proba(now))
        once_more = remember(other, rows.assign(late=7.0), y).predict_proba(now)
        np.testing.assert_array_equal(
            once_more, remember(told, rows.assign(late=7.0), y).predict_proba(now)
        )
    export_onnx(told, tmp_path / "model.onnx")
    onnx = load_onnx(tmp_path / "model.onnx", memory=load(tmp_path / "memory.din"))
    np.testing.assert_allclose(onnx.predict_proba(now), told.predict_proba(now), atol=1e-5)


def test_attached_by_hand_it_is_the_same_where_outcomes_are_known_at_once(fitted):
    rows, y = make_flights()
    memory = HistoryBuilder(**{**FLIGHTS, "known": "time"})
    log = rows.assign(label=y)
    names = {"user": "user", "time": "time", "elapsed": "ago"}
    attached = attach_history(rows[OF_ROWS], log, **names, columns=["item", "late", "label"])
    shown = memory.fit_transform(rows.drop(columns="known"), y)
    for name in attached:
        assert [*map(np.ndarray.tolist, map(np.asarray, shown[name]))] == (
            [*map(np.ndarray.tolist, map(np.asarray, attached[name]))]
        )


@pytest.mark.parametrize("name", ["known", "late", LABEL])
def test_a_file_whose_events_lack_what_came_of_them_is_refused(name):
    rows, y = make_flights(60)
    builder = HistoryBuilder(**{**FLIGHTS, "events": "positive", "outcomes": "late"}).fit(rows, y)
    builder.events_ = builder.events_.drop(columns=name)
    broken = pickle.dumps(builder)
    with pytest.raises(ValueError, match=f"events_ has no column '{name}'"):
        pickle.loads(broken)


@pytest.mark.parametrize("by", ["rows", "users", "time"])
def test_outcomes_by_coins_tell_nothing(by):
    rows, y = make_flights(4_000)
    splitters = {
        "rows": ShuffleSplit(1, test_size=0.3, random_state=0),
        "users": GroupShuffleSplit(1, test_size=0.3, random_state=0),
        "time": TimeSplit(1, test_size=0.3, time="time", known="known"),
    }
    train, test = next(splitters[by].split(rows, y, *([rows["user"]] if by == "users" else [])))
    names = {**FLIGHTS, "elapsed": None, "levels": "auto"}
    model = begin_with(HistoryBuilder(**names), max_epochs=5)
    model.fit(rows.iloc[train], y[train])
    asked = rows[OF_ROWS].iloc[test]
    told = remember(model, rows.iloc[test], y[test])
    for own in [told] if by == "users" else [model, told]:  # to the model they are strangers
        probability = own.predict_proba(asked)[:, 1]
        assert abs(roc_auc_score(y[test], probability) - 0.5) < 0.04


def state_of(model, rows, store=None):
    catalogue = rows[["item"]].drop_duplicates()
    return State(lambda: Answers(model, catalogue, now="newest"), store=store)


def post(state, *events):
    (answer,) = state._commit([(None, state.add, ([*events],))])
    if answer[1] is not None:
        raise answer[1]
    if state.answers.levels is not None:
        state.answers.levels._next_join = 0.0
        state.posts.catch_up()
    return answer[0]


def as_posts(rows, y, **others):
    """Rows as they are posted: dates as text, what is missing left out."""
    for row, label in zip(rows.to_dict("records"), y, strict=True):
        texts = {n: v.isoformat() for n, v in row.items() if isinstance(v, pd.Timestamp)}
        event = {n: v for n, v in (row | texts).items() if not pd.isna(v)} | others
        yield event if np.isnan(label) else event | {"label": int(label)}


def assert_served(state, builder, users):
    log = state.answers.histories
    for user in users:
        now = log.clock.column([log.now_of(user)]).astype(builder.events_["time"].dtype)
        asked = pd.DataFrame({"user": [user], "item": ["flight 1"], "time": now})
        expected, (own, times) = builder.transform(asked), log.of(user)
        for name in ("hist_item", "hist_late", "hist_label", "ago"):
            assert own[name] == plain(expected[name].iloc[0])
        ago = (now[0] - pd.to_datetime(times)).total_seconds()
        assert ago.tolist() == own["ago"]


@pytest.mark.parametrize("levels", [None, "auto"])
def test_the_server_has_the_histories_of_the_builder_that_was_told_each_post(levels, tmp_path):
    all_rows, labels = make_flights(330)
    rows, y = all_rows[300:].reset_index(drop=True), labels[300:]
    model = begin_with(HistoryBuilder(**FLIGHTS, levels=levels)).fit(all_rows[:300], labels[:300])
    users, path = ["1", "3", "stranger", *rows["user"][:5]], str(tmp_path / "events.db")
    state = state_of(model, all_rows, Store(path))
    assert_served(state, model[0], users)
    post(state, {"user": "new", "item": "flight 2", "time": "2024-02-01", "late": 4})
    assert state.answers.histories.of("new")[0]["hist_late"] == [4.0]
    assert post(state, *as_posts(rows, y))["added"] == len(rows)
    told = remember(model, rows, y)
    assert_served(state, told[0], users)
    if levels is not None:  # as of several moments, some between an event and what came of it
        asked = rows.assign(time=all_rows["known"].max())[OF_ROWS]
        asked = pd.concat([asked, asked.assign(time=rows["time"] + pd.Timedelta("3h"))])
        for name, level in told[0].memory_.levels(asked, "time").items():
            served = state.answers.levels.builder.memory_.levels(asked, "time")[name]
            np.testing.assert_allclose(served, level, rtol=1e-12)
    assert post(state, *as_posts(rows, y))["known_already"] == len(rows)
    state.close()
    state = state_of(told, all_rows, Store(path))  # which knows the posts, too
    assert_served(state, told[0], users)
    best = state.answers.rank("1", None, 3, None)
    now = state.answers.histories.clock.column([state.answers.histories.now_of("1")])
    people = pd.DataFrame({"user": ["1"], "time": now.astype(rows["time"].dtype)})
    ranked = rank_candidates(told, people, all_rows[["item"]].drop_duplicates(), top_k=3)
    np.testing.assert_allclose(best["probabilities"], ranked["probability"], atol=1e-6)
    state.close()


def test_an_outcome_may_be_posted_later_with_the_id_of_its_event(fitted):
    model, rows, y = fitted
    rows, y = rows[:20], y[:20].astype(float)
    state = state_of(model, make_flights()[0])
    none = rows.assign(late=np.nan, known=rows["time"])
    for n, (row, label) in enumerate(zip(as_posts(none, y), y, strict=True)):
        post(state, {name: row[name] for name in row if name != "label"} | {"event_id": n})
        assert post(state, row | {"event_id": n, "label": int(label)})["replaced"] == 1
    told = remember(model, none, y)
    assert_served(state, told[0], rows["user"][:4])
    assert post(state, *(r | {"event_id": n} for n, r in enumerate(as_posts(rows, y * np.nan))))[
        "replaced"
    ] == len(rows)
    told = remember(told, rows, y)
    assert_served(state, told[0], rows["user"][:4])
    for event, message in (
        ({"late": "soon"}, "late must be a number"),
        ({"known": "2024-01-01"}, "known must not be earlier than time"),
        ({"gate": "A"}, "gate"),
    ):
        with pytest.raises(ValueError, match=message):
            post(state, {**next(as_posts(rows[-1:], y[-1:])), **event})
    state.close()


def test_a_post_of_another_kind_is_refused_and_all_others_are_answered():
    rows, y = make_flights(200)
    rows = rows.drop(columns="late").assign(stars=np.arange(200) % 5)
    model = begin_with(HistoryBuilder(**{**FLIGHTS, "outcomes": ["stars", LABEL]})).fit(rows, y)
    log = rows.assign(stars=rows["stars"].where(rows.index % 2 == 0))  # floats, as of a file
    answers = Answers(model, rows[["item"]].drop_duplicates(), log, now="newest")
    state = State(lambda: answers, store=None)
    event = next(as_posts(rows[-1:], y[-1:]))
    for wrong, message in (
        ({"stars": 3.5}, "stars must be integers, such as 0, got 3.5"),
        ({"stars": "3"}, "stars must be integers, such as 0, got '3'"),
        ({"stars": True}, "stars must be"),
        ({"label": True}, "label must be 1, or 0"),
        ({"label": 0.5}, "label must be 1, or 0"),
    ):
        with pytest.raises(ValueError, match=message):
            post(state, {**event, **wrong})
    post(state, {**event, "user": "1"}, {**event, "user": "2", "stars": None})
    for user in ("1", "2", "3"):
        assert np.isfinite(state.answers.rank(user, None, 3, None)["probabilities"]).all()
    state.close()


@pytest.mark.parametrize("events", ["all", "positive"])
@pytest.mark.parametrize("levels", [None, "auto"])
def test_an_event_waits_until_something_is_told_of_it(levels, events):
    rows, y = make_flights(115)
    names = {**FLIGHTS, "levels": levels, "events": events, "outcomes": ["late"]}
    model = begin_with(HistoryBuilder(**names)).fit(rows[:100], y[:100])
    rows, y = rows[100:].reset_index(drop=True), y[100:].astype(float)
    state = state_of(model, rows)
    histories, users = state.answers.histories, [*rows["user"], "stranger"]

    def served(posted):
        known = posted.answers.levels and posted.answers.levels.builder.memory_
        levels = known and known.levels(rows[OF_ROWS].assign(time=rows["known"].max()), "time")
        return [posted.answers.histories.of(user) for user in users], levels

    before = served(state)
    posts = [event | {"event_id": n} for n, event in enumerate(as_posts(rows, y))]
    alone = [{n: v for n, v in p.items() if n not in ("late", "label", "known")} for p in posts]
    assert post(state, *alone)["added"] == len(rows)
    np.testing.assert_equal(served(state), before)
    assert [*histories.posted] == []
    assert post(state, *posts)["replaced"] == len(rows)
    at_once = state_of(model, rows)
    post(at_once, *posts)
    np.testing.assert_equal(served(state), served(at_once))
    if levels is not None:
        told = remember(model, rows, y)[0].memory_
        levels = told.levels(rows[OF_ROWS].assign(time=rows["known"].max()), "time")
        np.testing.assert_equal(served(state)[1], levels)
    state.close()
    at_once.close()


@pytest.mark.parametrize("moments", ["distinct", "equal", "datetimes"])
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_some_training_rows_have_the_histories_of_a_memory_that_ended_before_them(
    kind, moments, monkeypatch
):
    """An event that became known at the very moment at which the memory ended is not among them."""
    monkeypatch.setattr(aged_levels, "AGED_SHARE", 1.0)
    rng = np.random.RandomState(0)
    rows = pd.DataFrame({"user": rng.randint(4, size=200), "time": np.arange(200) * 10})
    rows["item"], rows["late"] = rng.randint(3, size=200), rng.randint(90, size=200) / 2
    rows["known"] = rows["time"] + 10 * rng.randint(1, 60, size=200)
    if moments == "distinct":
        rows["known"] += rng.permutation(200) / 200
    elif moments == "datetimes":
        for name in ("time", "known"):
            hours = pd.to_timedelta(rows[name], "h")
            rows[name] = pd.Timestamp("2024-05-01 10:00:00.3") + hours / 7
    memory = HistoryBuilder(**{**FLIGHTS, "outcomes": "late", "elapsed": None})
    attached = memory.fit_transform(rows)
    assert [*attached] == [*memory.get_feature_names_out()]
    given = pl.from_pandas(attached) if kind == "polars" else attached
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=3)
    X = encoder.fit_transform(given)
    scale = X.schema["hist_outcome_age"].elapsed_scale
    aged = aged_levels.age_levels(X, share=0.25)
    ahead, (key,) = np.random.RandomState(0).random_sample((2, 200))[0], X.behaviours
    n_cut = n_equal = 0
    second = pd.Timedelta("1s") if moments == "datetimes" else 1
    for i in range(200):
        until = rows["time"][max(i - int(np.ceil(ahead[i] * 2 * 0.25 * 200)), 0)]
        own = rows[(rows["user"] == rows["user"][i]) & (rows["known"] < until)]
        newest, n_older = own.sort_values("known", kind="stable").tail(3), max(len(own) - 3, 0)
        one = aged[i : i + 1]
        ids = encoder.inverse_transform_ids("hist_item", one["hist_item"][0])
        np.testing.assert_array_equal(ids, newest["item"])
        ages = np.log1p((rows["time"][i] - newest["known"]) / second / scale)
        np.testing.assert_allclose(one["hist_outcome_age"][0], ages, atol=1e-5)
        assert (
            0 if one.behaviours[key].n_older is None else one.behaviours[key].n_older
        ) == n_older
        known = rows["known"][rows["user"] == rows["user"][i]]
        n_cut += len(own) < (known < rows["time"][i]).sum()
        n_equal += (known == until).sum()
    assert n_cut > 100
    assert (n_equal > 20) == (moments != "distinct")
    monkeypatch.setattr(aged_levels, "AGED_SHARE", 0.0)
    np.testing.assert_array_equal(
        aged_levels.age_levels(X, share=0.25)["hist_item"], X["hist_item"]
    )


def test_ages_stand_beside_the_users_own_times_and_clicks_have_none():
    rows, y = next(make_outcomes())
    names = [*HistoryBuilder(**FLIGHTS).fit_transform(rows, y)]
    assert names[-2:] == ["ago", "hist_outcome_age"]
    shown = attach_history(rows, rows, **{**NAMES, "elapsed": "outcome_age"})
    X = HistorySequenceEncoder(user="user", time="time", drop=["late", "known"])
    assert X.fit_transform(shown).schema["outcome_age"].what == "age"  # whoever made it
    assert "hist_outcome_age" not in HistoryBuilder(**NAMES).fit_transform(rows, y > 0)
