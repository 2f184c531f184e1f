"""Rows that are told again, with another label: by a plain loop over all that was told."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    forget,
    live_predictions,
    live_scoring,
    load,
    remember,
    sample_negatives,
    save,
    update,
)
from sklearn_din.logs import row_memory
from sklearn_din.utils.warnings import collect_messages
from tests.plain_memory import PlainMemory, begin_with, make_calls, make_flights
from tests.tables import as_scan

pytestmark = pytest.mark.slow

RECENT = 12
LATE = pd.Timestamp("2122-08-01")
KEYS = [("user",), ("item",), ("user", "item")]
NAMES = {"user": "user", "time": "time", "columns": ["item"]}


def as_target(values):
    return values[:, 0] if values.shape[1] == 1 else pd.DataFrame(values, columns=["a", "b"])


@pytest.mark.parametrize("as_known", [None, "known"])
@pytest.mark.parametrize("labels", ["clicks", "several", "numbers"])
def test_levels_of_rows_told_again_are_those_of_a_plain_loop(monkeypatch, labels, as_known):
    monkeypatch.setattr(row_memory, "RECENT_ROWS", RECENT)
    names = {**NAMES, "levels": KEYS, "events": "all", "known": as_known}
    builder, loop = HistoryBuilder(**names), PlainMemory(keys=KEYS)
    of_clicks = labels != "numbers"
    for rows, values in make_calls(labels, is_known=as_known is not None, seed=0):
        builder.partial_fit(rows, as_target(values))
        loop.tell(rows, values, as_known)
        asked = rows[["user", "item", "time"]].iloc[:6]
        asked = pd.concat([asked, asked.assign(time=max(loop.moments()) + 1)], ignore_index=True)
        shown = builder.transform(asked)
        for i, row in enumerate(asked.to_dict("records")):
            for number, label in enumerate(("a", "b") if labels == "several" else ("",)):
                levels, recent = loop.levels(row, number, of_clicks=of_clicks, recent=RECENT)
                what = "rate" if of_clicks else "mean"
                for key, expected in levels.items():
                    name = "_".join([*key, *([label] if label else [])])
                    columns = [f"{name}_{part}" for part in (what, "count", "elapsed")]
                    own = shown[columns].iloc[i].astype(float)
                    np.testing.assert_allclose(own, expected, rtol=1e-9, atol=1e-9, err_msg=name)
                name = "_".join(["recent", *([label] if label else []), what])
                np.testing.assert_allclose(shown[name].iloc[i], recent, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("as_known", [None, "known"])
@pytest.mark.parametrize("labels", ["clicks", "several", "numbers"])
def test_nothing_told_later_moves_an_earlier_level(labels, as_known):
    builder = HistoryBuilder(**NAMES, levels=KEYS, events="all", known=as_known)
    first, *calls = make_calls(labels, is_known=as_known is not None, seed=0)
    builder.partial_fit(first[0], as_target(first[1]))
    told = first[0]
    for rows, values in calls:
        told = pd.concat([told, rows])
        # no level of these rows has a moment later than what is told now
        earlier = told[told["time"] <= min(rows[as_known or "time"])][["user", "item", "time"]]
        before = builder.transform(earlier)[builder.memory_.names]
        builder.partial_fit(rows, as_target(values))
        pd.testing.assert_frame_equal(builder.transform(earlier)[before.columns], before)


@pytest.mark.parametrize(
    ("labels", "levels"), [("clicks", KEYS), ("several", KEYS), ("numbers", KEYS), ("clicks", None)]
)
def test_a_memory_is_what_was_told_last_of_each_row(monkeypatch, labels, levels):
    monkeypatch.setattr(row_memory, "RECENT_ROWS", 1_000)
    events = "all" if labels == "numbers" else "positive"
    names = {**NAMES, "levels": levels, "events": events}
    for seed in range(2):
        builder, loop = HistoryBuilder(**names), PlainMemory(keys=KEYS)
        for rows, values in make_calls(labels, is_known=False, seed=seed):
            if levels is None:  # without a memory of rows, twins and missing labels are unknown
                rows, values = rows.drop_duplicates(), values[rows.drop_duplicates().index]
                rows, values = rows[~np.isnan(values[:, 0])], values[~np.isnan(values[:, 0])]
            builder.partial_fit(rows, as_target(values))
            loop.tell(rows, values)
        told, last = zip(*((name, own[-1][1]) for name, own in loop.rows), strict=True)
        rows, values = pd.DataFrame(told, columns=["user", "item", "time"]), np.array(last)
        once = HistoryBuilder(**names).fit(rows, as_target(values))
        in_order = ["user", "time", "item"]
        own, expected = (b.events_.sort_values(in_order)[in_order] for b in (builder, once))
        assert own.values.tolist() == expected.values.tolist()
        if levels is not None:
            asked = rows.assign(time=10_000)
            for name in builder.memory_.names:
                both = [b.transform(asked)[name] for b in (builder, once)]
                np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("as_known", [None, "known"])
def test_an_index_that_has_grown_is_the_index_made_anew_and_files_keep_it(tmp_path, as_known):
    names = {**NAMES, "levels": KEYS, "events": "all", "known": as_known}
    grew = 0
    for seed in (0, 3):
        builder = HistoryBuilder(**names)
        for rows, values in make_calls("clicks", is_known=as_known is not None, seed=seed):
            builder.partial_fit(rows, values[:, 0])
            grew += "_index" in builder.memory_.__dict__
            asked = rows[["user", "item", "time"]]
            asked = pd.concat([asked, asked.assign(time=300)], ignore_index=True)
            shown = builder.transform(asked)
            pd.testing.assert_frame_equal(
                pickle.loads(pickle.dumps(builder)).transform(asked), shown
            )
        save(builder, tmp_path / "memory.din")
        pd.testing.assert_frame_equal(load(tmp_path / "memory.din").transform(asked), shown)
    assert grew or as_known  # the first rows told again of a memory that was asked


def make_rows(n_rows=1_200):
    rows, y = make_flights(n_rows)
    return rows[["user", "item", "time"]], y


@pytest.fixture(scope="module")
def fitted():
    """A Pipeline with a memory, fitted on rows with a price, and later rows with their labels."""
    rows, y = make_rows()
    model = begin_with(HistoryBuilder(**NAMES, levels="auto"))
    model.fit(rows[:1000].assign(price=1.5), y[:1000])
    return model, rows[1000:].reset_index(drop=True), y[1000:]


def test_the_loop_of_days_and_nights_says_nothing_and_takes_what_is_named(fitted):
    model, rows, y = fitted
    of_server = rows.assign(price=1.5, position=1, score=0.2, request="r", label=y)
    for part in np.array_split(np.arange(len(rows)), 3):
        told = remember(model, rows.iloc[part], y[part])  # without the price
        same = remember(model, of_server.iloc[part], y[part])
        model = update(told, of_server.iloc[part], y[part])
        names = [*NAMES["columns"], "user", "time", "price"]
        X = of_server.iloc[part][names]
        np.testing.assert_array_equal(told.predict_proba(X), same.predict_proba(X))
        assert len(model[0].memory_.times) == len(told[0].memory_.times)
    for call in (remember, update):  # an empty night
        newer = call(model, of_server.iloc[:0, :2], [])
        np.testing.assert_array_equal(newer.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows, y: (rows, y * 0 + 1), "all of the 200 rows that are remembered are clicks"),
    (lambda rows, y: (rows.assign(item=rows["item"].str.title()), y), "write 'item' in one"),
    (lambda rows, y: (rows.assign(user="id-0" + rows["user"]), y), "write 'user' in one way"),
    (lambda rows, y: (rows, pd.Series(y, index=rows.index[::-1])), "the same index labels"),
    (lambda rows, y: (rows.assign(time=rows["time"].where(rows.index != 7, pd.Timestamp(0))), y),
     "1 rows are decades away from all others, such as one of 1970-01-01"),
    (lambda rows, y: (rows.assign(time=rows["time"].where(rows.index < 9, LATE)), y),
     "191 rows are decades away from all others, such as one of 21"),
])  # fmt: skip
def test_remember_says_what_fit_and_update_say(fitted, change, message):
    model, rows, y = fitted
    with pytest.warns(UserWarning, match=message):
        remember(model, *change(rows, y))


def test_clicks_told_evening_by_evening_are_said_as_if_told_at_once(fitted, tmp_path):
    model, rows, _ = fitted
    rows = rows.assign(price=1.5)
    evenings, ones = [rows[at : at + 40] for at in (0, 40, 80)], np.ones(40, dtype=int)
    for call, message in (
        (remember, "all of the 120 rows that are remembered are clicks: all rates rise"),
        (update, "all of the 120 rows given to update are clicks"),
    ):
        told = model
        for evening in evenings[:2]:
            told = call(told, evening, ones)
        save(told, tmp_path / "model.din")  # each evening by a process of its own
        for again in (told, load(tmp_path / "model.din")):
            with pytest.warns(UserWarning, match=message):
                call(again, evenings[2], ones.astype(str))
        honest = call(call(told, rows[120:121], [0]), evenings[2], ones)  # says nothing
        assert honest[0]._n_clicks_alone == 40
    rows, _ = make_rows(1_000)  # where nearly all rows are clicks, nothing is said
    builder = HistoryBuilder(**NAMES, levels="auto").fit(rows, np.arange(1_000) % 40 > 0)
    for at in (0, 40, 80):
        builder = remember(builder, rows[at : at + 40].assign(item="flight 1"), [1] * 40)


@pytest.mark.parametrize("every", [0, "1D"])
def test_live_predictions_and_scores_refuse_labels_in_another_order(fitted, every):
    model, rows, y = fitted
    rows = rows.assign(price=1.5).set_axis(rows.index.astype(str))
    shuffled = pd.Series(y, index=rows.index).sample(frac=1, random_state=0)
    for call in (partial(live_predictions, every=every), live_scoring("roc_auc", every=every)):
        with pytest.raises(ValueError, match="X and y must have their rows in one order, got"):
            call(model, rows, shuffled)


def test_a_memory_of_other_users_than_the_encoders_is_said_at_fit(recwarn):
    rows, y = make_rows(200)
    rows["guest"] = np.arange(200) % 50
    memory = HistoryBuilder(**NAMES, levels="auto")
    for encoder, is_said in (({"user": "guest"}, True), ({"user": "user"}, False), ({}, False)):
        classifier = DINClassifier(max_epochs=1, random_state=0)
        pipeline = make_pipeline(memory, HistorySequenceEncoder(time="time", **encoder), classifier)
        with collect_messages() as messages:
            pipeline.fit(rows, y)
        said = [m for m in messages if m.startswith("HistoryBuilder(user='user') attached")]
        assert len(said) == is_said
        if said:
            assert "HistorySequenceEncoder(user='user')" in said[0]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("levels", [None, "auto"])
def test_the_moment_after_nothing_is_of_the_kind_of_the_times(levels, zone):
    rows, y = make_rows(100)
    for times in (rows["time"].dt.tz_localize(zone), np.arange(100), np.arange(100) / 2):
        shown = rows.assign(time=times)
        memory = HistoryBuilder(**NAMES, levels=levels).fit(shown, y)
        nothing = forget(memory, rows["user"].unique())
        moment, later = nothing.next_moment(), memory.next_moment()
        assert len(nothing.transform(shown[:1].assign(time=moment))["hist_item"].iloc[0]) == 0
        assert moment < later  # in a zone or in none, too
        assert np.asarray(moment).dtype.kind == np.asarray(later).dtype.kind


def test_remember_refuses_probabilities_in_a_line_and_what_is_not_fitted(fitted, tmp_path):
    model, rows, y = fitted
    with pytest.raises(ValueError, match="and others that were not seen at fit") as error:
        remember(model, rows, np.linspace(0.1, 0.9, len(y)))
    assert len(str(error.value)) < 300
    with pytest.raises(NotFittedError):
        remember(make_pipeline(HistoryBuilder(**NAMES)), rows, y)
    with pytest.raises(ValueError, match="X has no column 'item'"):
        remember(model, rows[["user", "time"]], y)
    other = HistorySequenceEncoder(user="guest").fit(rows.assign(guest=rows["user"]))
    with pytest.warns(UserWarning, match=r"name different users, \['guest', 'user'\]"):
        remember(make_pipeline(model[0], other), rows, y)
    with pytest.raises(TypeError, match="HistoryBuilder keeps its log in memory and takes frames"):
        HistoryBuilder(**NAMES).fit(as_scan(rows, tmp_path), y)


def test_levels_of_sampled_negatives_are_said():
    rows, y = make_rows()
    memory = HistoryBuilder(**NAMES, levels="auto")
    X, labels = sample_negatives(rows[y == 1], item="item", n_negatives=2, random_state=0)
    with pytest.warns(UserWarning, match="each click has 2 rows without one behind it"):
        memory.fit(X, labels)


def test_who_is_forgotten_was_never_told(fitted):
    model, rows, y = fitted
    told = remember(model, rows, y)
    told = remember(told, rows[:30], 1 - y[:30])
    gone = ["3", 7, 11.0]
    forgotten, before = forget(told, gone), told.predict_proba(rows.assign(price=1.5))
    all_rows, labels = make_rows()
    labels[1000:1030] = 1 - labels[1000:1030]
    is_other = ~all_rows["user"].isin(["3", "7", "11"])
    loop = HistoryBuilder(**NAMES, levels="auto").fit(all_rows[is_other], labels[is_other])
    now = all_rows[-200:].assign(time=all_rows["time"].max() + pd.Timedelta("1h"))
    shown, expected = forgotten[0].transform(now.assign(price=1.5)), loop.transform(now)
    assert shown["hist_item"].map(sorted).tolist() == expected["hist_item"].map(sorted).tolist()
    for name in loop.memory_.names:
        np.testing.assert_allclose(shown[name], expected[name], rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(told.predict_proba(rows.assign(price=1.5)), before)
    with pytest.raises(TypeError, match="forget needs a HistoryBuilder"):
        forget(model[1:], gone)


def test_no_level_of_a_user_who_is_forgotten_is_left():
    rows, y = make_rows()
    y = (y & (rows["user"].astype(int) % 2)).to_numpy()
    model = begin_with(HistoryBuilder(**NAMES), early_stopping="auto").fit(rows, y)
    assert model[-1].net_.neighbours_.reads_users
    now = rows[-5:].assign(user="3", time=rows["time"].max() + pd.Timedelta("1h"))
    p = forget(model, ["3"]).predict_proba(now)
    np.testing.assert_allclose(p, model.predict_proba(now.assign(user="stranger")), atol=1e-6)
    assert not np.allclose(p, model.predict_proba(now), atol=1e-3)


def test_histories_hold_lists_beside_levels_of_other_columns(tmp_path):
    rows, y = make_rows(300)
    rows["tags"] = [[f"tag {len(item)}", item] for item in rows["item"]]
    names = {**NAMES, "columns": ["item", "tags"]}
    memory = HistoryBuilder(**names, levels="auto").fit(rows, y)
    plain = HistoryBuilder(**NAMES, levels="auto").fit(rows.drop(columns="tags"), y)
    assert memory.memory_.names == plain.memory_.names
    now = rows[-20:].assign(time=rows["time"].max() + pd.Timedelta("1h"))
    shown, expected = memory.transform(now), plain.transform(now.drop(columns="tags"))
    for name in plain.memory_.names:
        np.testing.assert_array_equal(shown[name], expected[name])
    newest = rows[(rows["user"] == now["user"].iloc[0]) & (y == 1)].iloc[-1]
    assert list(shown["hist_tags"].iloc[0][-1]) == newest["tags"]
    save(memory, tmp_path / "memory.din")
    again = load(tmp_path / "memory.din").partial_fit(rows, 1 - y)  # the same rows, told again
    assert len(again.events_) == (y == 0).sum()
    pd.testing.assert_series_equal(again.transform(now)["item_count"], shown["item_count"])


def test_a_history_that_a_user_has_is_ranked_by_as_it_is(fitted):
    model, rows, _ = fitted
    candidates = rows[["item"]].drop_duplicates()
    user = {"user": "3", "time": rows["time"].max(), "price": 1.5}
    histories = [["flight 1", "flight 2"], ["flight 7"]]
    own = [Ranker(model, candidates).rank(user | {"hist_item": own}) for own in histories]
    inner = Ranker(model[1:], candidates, memory=model[0])
    for ranked, history in zip(own, histories, strict=True):
        expected = inner.rank(user | {"hist_item": history})
        np.testing.assert_allclose(ranked["probability"], expected["probability"], atol=1e-6)
    assert not own[0].equals(own[1])


def make_hours(zone=None, pause="0h"):
    """A row each hour; nine users in turn. Some thousand hours, then what is asked."""
    hours = pd.Series(np.arange(1300))
    rows = pd.DataFrame({"user": hours % 9, "item": hours % 7, "late": hours % 2})
    rows["time"] = pd.Timestamp("2026-01-01", tz=zone) + pd.to_timedelta(hours, "h")
    for end in range(9, 1000, 90):  # pauses, of ten rows in a hundred
        rows.loc[:end, "time"] -= pd.Timedelta(pause)
    return rows


def fit_hours(rows, **options):
    memory = HistoryBuilder(user="user", time="time", columns="item", events="all", **options)
    return memory.fit(rows, rows["late"])


KINDS_OF_MEMORY = [{"levels": "auto"}, {"outcomes": "late", "known": "time"}]


@pytest.mark.parametrize(("options", "zone", "n_told", "pause", "is_said"), [
    (KINDS_OF_MEMORY[0], None, 1000, "0h", True),
    (KINDS_OF_MEMORY[1], "Asia/Tokyo", 1000, "0h", True),
    (KINDS_OF_MEMORY[0], "Asia/Tokyo", 1276, "0h", False),
    (KINDS_OF_MEMORY[1], None, 1276, "0h", False),
    (KINDS_OF_MEMORY[0], "Asia/Tokyo", 1000, "20D", False),
    (KINDS_OF_MEMORY[1], None, 1000, "20D", False),
])  # fmt: skip
def test_rows_long_after_all_that_was_told_are_said(n_told, pause, is_said, options, zone):
    rows = make_hours(zone, pause)
    memory = fit_hours(rows[:n_told], **options)
    with collect_messages() as messages:
        memory.transform(rows[n_told : n_told + 19])  # too few
        memory.transform(rows[n_told:])
    then, here = [], []  # by a plain loop
    told = {user: own.tolist() for user, own in rows[:n_told].groupby("user")["time"]}
    for ages, asked in ((then, rows[:n_told]), (here, rows[n_told:])):
        for user, time in zip(asked["user"], asked["time"], strict=True):
            known = [moment for moment in told[user] if moment < time]
            ages += [time - max(known)] if known else []
    then, here = (pd.Series(a).quantile(q, "lower") for a, q in ((then, 0.95), (here, 0.5)))
    assert (here > 10 * then) == is_said
    said = f"{next(iter(options))} were up to {then} old in nearly all rows that were"
    said += f" told of these users, and are {here} old in most of these, up to "
    said += f"{rows['time'].max()}: remember"
    assert [message[: len(said)] for message in messages] == [said] * is_said


def test_each_fitted_memory_reports_once_how_old_it_is():
    rows = make_hours()
    with collect_messages() as messages:
        for options in KINDS_OF_MEMORY:  # levels are tried first, then outcomes
            for n_told in (1000, 1010, 1020):  # as folds are
                fit_hours(rows[:n_told], **options).transform(rows[n_told : n_told + 280])
        days = rows.assign(time=pd.Timestamp("2026-01-01") + (rows["time"] - rows["time"][0]) * 24)
        fit_hours(days[:1000], **options).transform(days[1000:])  # of another log
        told = fit_hours(rows[:1000], **options)
        for evening in range(1000, 1300, 24):
            told.transform(rows[evening : evening + 24])
            told = remember(told, *(own[evening : evening + 24] for own in (rows, rows["late"])))
    assert [message.split()[0] for message in messages] == ["levels"] * 3 + ["outcomes"] * 4
