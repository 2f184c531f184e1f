"""Levels of what came of earlier rows: by loops, attached or remembered, told late or twice."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import get_scorer, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    TimeSplit,
    attach_aggregates,
    attach_history,
    export_onnx,
    live_predictions,
    live_scoring,
    load,
    load_onnx,
    rank_candidates,
    remember,
    save,
    update,
)
from sklearn_din.logs import history_builder, row_memory
from sklearn_din.module import DIN
from sklearn_din.network.number_bins import find_ranges
from sklearn_din.training import aged_levels
from tests.fitted_pipelines import edit_state, make_model
from tests.plain_memory import PlainMemory, begin_with

KEYS = ["user", "item", "kind", ("user", "item"), ("user", "kind")]
NAMES = {"user": "user", "time": "time", "columns": ["item", "kind"]}
OF_ROWS = ("user", "item", "kind", "time")
QUICK = {"hidden_units": (8,)}


@pytest.fixture
def all_levels(monkeypatch):
    """Levels of all pairs and of the latest rows, however few rows there are."""
    monkeypatch.setattr(history_builder, "COME_BACK", 0)
    monkeypatch.setattr(history_builder, "ROWS_OF_RECENT", 0)


pytestmark = [pytest.mark.usefixtures("all_levels", "one_database"), pytest.mark.slow]


def make_rows(n_rows=400, seed=0):
    """Rows of few users and items, some of one moment, and what came of them."""
    rng = np.random.RandomState(seed)
    item = rng.randint(12, size=n_rows)
    rows = pd.DataFrame({"user": rng.choice([3, 5, 8, 9], n_rows)})
    rows["item"], rows["kind"] = np.array(list("abcdefghijkl"))[item], item % 3
    rows["time"] = np.sort(rng.randint(n_rows // 2, size=n_rows))
    return rows, (rng.random_sample(n_rows) < 0.2 + 0.05 * item).astype(int)


@pytest.mark.parametrize("delay", [0, 20])
def test_levels_are_those_of_plain_loops(monkeypatch, delay):
    monkeypatch.setattr(row_memory, "RECENT_ROWS", 30)
    rows, y = make_rows(150)
    known = (rows["time"] + np.random.RandomState(1).randint(delay + 1, size=len(rows))).to_numpy()
    names = {**NAMES, "known": "known"} if delay else NAMES
    given = rows.assign(known=known) if delay else rows
    memory = HistoryBuilder(**names, levels="auto", events="all").fit(given, y)
    shown = memory.transform(rows)
    loop = PlainMemory(OF_ROWS, KEYS)
    loop.tell(given, y, "known" if delay else None)
    for i in range(0, len(rows), 7):
        levels, recent = loop.levels(rows.iloc[i], recent=30)
        for key, expected in levels.items():
            name = key if isinstance(key, str) else "_".join(key)
            own = shown[[f"{name}_rate", f"{name}_count", f"{name}_elapsed", "recent_rate"]].iloc[i]
            np.testing.assert_allclose(own.astype(float), [*expected, recent], rtol=1e-12)
    assert "known" not in shown
    assert shown.columns.tolist() == memory.get_feature_names_out().tolist()


@pytest.mark.parametrize(("as_form", "as_known"), [
    *(("frame", as_known) for as_known in (None, "known")), ("polars", "known"), ("Arrow", None),
    *(("scan", as_known) for as_known in (None, "known")), ("small scan", "known"),
], indirect=["as_form"])  # fmt: skip
def test_a_memory_gives_what_is_attached_to_the_bit(as_form, as_known):
    rows, y = make_rows(200)
    rows["known"] = rows["time"] + 3
    names = NAMES if as_known is None else {**NAMES, "known": as_known, "events": "all"}
    memory = HistoryBuilder(**names, levels="auto").fit(rows, y)
    shown = memory.transform(rows)
    options = {"time": "time", "aggregates": "levels", "label": "label", "levels": KEYS}
    log = as_form(rows.assign(label=y))
    attached = attach_aggregates(as_form(rows), log, **options, known=as_known)
    for name in memory.memory_.names:
        np.testing.assert_array_equal(attached[name], shown[name], err_msg=name)


@pytest.mark.parametrize("as_form", ["frame", "small scan"], indirect=True)
@pytest.mark.parametrize("labels", ["several", "numbers"])
def test_several_labels_and_numbers_have_levels_too(labels, as_form):
    rows, y = make_rows(200)
    values = np.column_stack([y, np.where(rows["time"] % 3 == 0, np.nan, 1 - y)])
    log = rows.assign(click=values[:, 0], buy=values[:, 1])
    target = log[["click", "buy"]]
    if labels == "numbers":
        target = log[["click"]].assign(click=np.random.RandomState(0).normal(size=len(y)))
        log, target = rows.assign(click=target["click"]), target["click"].to_numpy()
    events = "positive" if labels == "several" else "all"
    memory = HistoryBuilder(**NAMES, levels=KEYS[:4], events=events).fit(rows, target)
    options = {"time": "time", "aggregates": "levels", "levels": KEYS[:4]}
    options["label"] = ["click", "buy"] if labels == "several" else "click"
    attached = attach_aggregates(as_form(rows), as_form(log), **options)
    shown = memory.transform(rows)
    what = "user_buy_rate" if labels == "several" else "user_mean"
    assert what in memory.memory_.names
    for name in memory.memory_.names:
        np.testing.assert_allclose(attached[name], shown[name], rtol=1e-12, err_msg=name)


def test_rows_may_come_in_parts_late_and_twice():
    rows, y = make_rows()
    rows = rows.drop_duplicates().reset_index(drop=True)
    y = y[: len(rows)]
    whole = HistoryBuilder(**NAMES, levels="auto").fit(rows, y)
    expected = whole.transform(rows)
    for order in (np.arange(len(rows)), np.random.RandomState(0).permutation(len(rows))):
        memory = HistoryBuilder(**NAMES, levels="auto")
        for part in np.array_split(order, 7):
            memory.partial_fit(rows.iloc[part], y[part])
            before = memory.transform(rows.iloc[:3])
            memory.partial_fit(rows.iloc[part], y[part])  # sent twice, it counts once
            pd.testing.assert_frame_equal(memory.transform(rows.iloc[:3]), before)
        for name in memory.memory_.names:
            own = memory.transform(rows)[name]
            np.testing.assert_allclose(own, expected[name], rtol=1e-12, err_msg=name)
        is_in_order = (np.diff(order) > 0).all()
        assert not is_in_order or memory.transform(rows).equals(expected)  # to the bit


@pytest.mark.parametrize("label", [1.0, np.nan])
def test_a_memory_is_kept_as_hashes_and_an_infinite_label_in_it_refused(label, tmp_path):
    rows, y = make_rows()
    users = rows.assign(user=rows["user"].map("ann.{}@example.org".format))
    memory = HistoryBuilder(**NAMES, levels="auto")
    memory.fit(users, np.where(np.arange(len(y)) == 7, label, y))
    expected = memory.transform(users)
    save(memory, tmp_path / "memory.din")
    for kept in (pickle.loads(pickle.dumps(memory)), load(tmp_path / "memory.din")):
        pd.testing.assert_frame_equal(kept.transform(users), expected)
        assert not hasattr(kept.memory_, "users")

    def shorten(values):
        values["fitted"]["memory_"]["values"] = values["fitted"]["memory_"]["values"][:3]

    state = edit_state(memory.__getstate__(), shorten)
    with pytest.raises(ValueError, match="remembered rows"):
        HistoryBuilder.__new__(HistoryBuilder).__setstate__(state)
    memory.memory_.values[9] = np.inf
    with pytest.raises(ValueError, match="remembered rows must be finite"):
        copy.deepcopy(memory)


def test_polars_times_in_units_and_missing_users():
    rows, y = make_rows()
    rows["user"] = rows["user"].where(rows["user"] != 9).astype("Int64")
    rows["time"] = pd.to_datetime(rows["time"], unit="h").astype("datetime64[s]")
    memory = HistoryBuilder(**NAMES, levels="auto").fit(pl.from_pandas(rows), y)
    shown = memory.transform(pl.from_pandas(rows))
    expected = HistoryBuilder(**NAMES, levels="auto").fit(rows, y)
    for name in memory.memory_.names:
        own = expected.transform(rows)[name]
        np.testing.assert_array_equal(shown[name].to_numpy().astype(float), own, err_msg=name)
    assert (expected.transform(rows)["user_count"][rows["user"].isna()] == 0).all()
    finer = rows.assign(time=(rows["time"] + pd.Timedelta("1ms")).astype("datetime64[ms]"))
    expected.partial_fit(finer, y)
    assert expected.memory_.unit == "ms"
    now = expected.transform(rows.iloc[-1:].assign(time=pd.Timestamp("2000-01-01")))
    assert now["item_count"].item() == 2 * (rows["item"] == rows["item"].iloc[-1]).sum()


@pytest.mark.parametrize(("change", "message"), [
    ({"user": lambda rows: "u" + rows["user"].astype(str)}, "must hold whole numbers, as at fit"),
    ({n: lambda r: pd.to_datetime(r["item"].map(ord)) for n in ("time", "known")}, "hold numbers"),
    ({"known": lambda rows: rows["time"] - 1}, "400 rows whose label was known before"),
    ({"known": lambda rows: rows["time"].where(rows["time"] > 5)}, "Leave those rows out"),
])  # fmt: skip
def test_what_cannot_be_remembered_is_said(change, message):
    rows, y = make_rows()
    rows["known"] = rows["time"]
    memory = HistoryBuilder(**NAMES, levels="auto", known="known").fit(rows, y)
    with pytest.raises((TypeError, ValueError), match=message):
        memory.partial_fit(rows.assign(**change), y)


def test_a_fit_that_fails_leaves_the_memory_as_it_was():
    rows, y = make_rows()
    memory = HistoryBuilder(**NAMES, levels=["user"], events="all").fit(rows, y)
    before = memory.transform(rows)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        memory.fit(rows, np.arange(len(rows) - 1.0))
    pd.testing.assert_frame_equal(memory.transform(rows), before)


def test_some_training_rows_are_shown_by_a_memory_that_ended_before_them(monkeypatch):
    monkeypatch.setattr(aged_levels, "AGED_SHARE", 1.0)
    rows, y = make_rows()
    rows = rows.assign(time=pd.to_datetime(rows["time"], unit="h"))
    encoder = HistorySequenceEncoder(user="user", time="time")
    X = encoder.fit_transform(HistoryBuilder(**NAMES, levels="auto").fit_transform(rows, y))
    assert encoder.scales_["item_elapsed"].is_elapsed
    aged = aged_levels.age_levels(X, share=0.25)
    ahead, _ = np.random.RandomState(0).random_sample((2, len(X)))
    moments = np.searchsorted(rows["time"], rows["time"])
    for i in range(0, len(rows), 9):
        until = max(moments[i] - int(np.ceil(ahead[i] * 2 * 0.25 * len(X))), 0)
        known = np.flatnonzero(moments < until)
        if len(np.unique(y[known])) < 2:
            continue
        ended = HistoryBuilder(**NAMES, levels="auto").fit(rows.iloc[known], y[known])
        twin = encoder.transform(ended.transform(rows.iloc[[i]]))
        for name in (n for n in twin.columns if n.endswith(("_count", "_elapsed", "_missing"))):
            np.testing.assert_allclose(aged.columns[name][i], twin.columns[name], atol=1e-5)
        since = [j for j in range(len(rows)) if moments[j] >= until]
        for key in ("user", "item"):  # the rate of then, shrunk to the average of then
            first = next(j for j in since if rows[key].iloc[j] == rows[key].iloc[i])
            assert aged.columns[f"{key}_rate"][i] == X.columns[f"{key}_rate"][first]
        assert aged.columns["recent_rate"][i] == X.columns["recent_rate"][i]


def test_levels_are_those_of_the_frames_columns_whatever_the_labels_and_what_is_dropped():
    rows, y = make_rows()
    labels = pd.DataFrame({"click": y, "buy": 1 - y})
    attached = HistoryBuilder(**NAMES, levels=[("user", "item")]).fit_transform(rows, labels)
    encoder = HistorySequenceEncoder(user="user", time="time", drop=["user_item_buy_elapsed"])
    X = encoder.fit_transform(attached)
    aged, ranges = aged_levels.age_levels(X, share=0.5), find_ranges(X)
    most = dict(zip(X.schema.names("numeric"), DIN(X.schema, ranges=ranges).bins.most, strict=True))
    for name in ("user_item_click_count", "user_item_buy_count"):
        assert X.schema[name].of == ("user", "item")
        assert most[name] == np.float32(ranges[name][1])  # counts end there
        assert not np.array_equal(aged.columns[name], X.columns[name])


def test_rows_without_users_or_times_or_levels_are_shown_as_they_are():
    rows, y = make_rows()
    attached = HistoryBuilder(**NAMES, levels="auto").fit_transform(rows, y)
    for names in ({"time": "time", "drop": "user"}, {"user": "user", "drop": "time"}):
        X = HistorySequenceEncoder(**names).fit_transform(attached)
        aged = aged_levels.age_levels(X, share=0.1)
        np.testing.assert_array_equal(aged.columns["user_count"], X.columns["user_count"])
        is_same = np.array_equal(aged.columns["item_count"], X.columns["item_count"])
        assert is_same == ("user" in names)
    X = HistorySequenceEncoder(**{n: n for n in ("user", "time")}).fit_transform(rows)
    assert aged_levels.age_levels(X, share=0.1) is X


def test_auto_has_pairs_that_come_back_and_a_recent_rate_of_many_rows(monkeypatch):
    monkeypatch.setattr(history_builder, "COME_BACK", 0.5)
    monkeypatch.setattr(history_builder, "ROWS_OF_RECENT", 400)
    rows, y = make_rows()
    rows["item"] = np.arange(400) // 3  # a user has had the kind before, the item hardly ever
    for n_rows in (400, 399):
        names = HistoryBuilder(**NAMES, levels="auto").fit(rows[:n_rows], y[:n_rows]).memory_.names
        assert "user_kind_rate" in names
        assert "user_item_rate" not in names
        assert ("recent_rate" in names) == (n_rows == 400)
    twice = pd.concat([rows, rows.assign(time=rows["time"] + 1000)])
    for later, is_there in ((twice, True), (twice.assign(time=5), False)):  # of one moment: no
        names = HistoryBuilder(**NAMES, levels="auto").fit(later, np.tile(y, 2)).memory_.names
        assert ("user_item_rate" in names) == is_there
    named = HistoryBuilder(**NAMES, levels=[("user", "item")]).fit(rows[:99], y[:99])
    assert {"user_item_rate", "recent_rate"} <= {*named.memory_.names}


def fit(rows, y, **options):
    return begin_with(HistoryBuilder(**NAMES, levels="auto"), **QUICK, **options).fit(rows, y)


def test_rankings_are_those_of_rows_made_by_hand(tmp_path):
    rows, y = make_rows(600)
    model = fit(rows, y)
    new = pd.DataFrame({"item": ["new"], "kind": [1]})
    candidates = pd.concat([rows[["item", "kind"]].drop_duplicates("item"), new])
    users = pd.DataFrame({"user": [3, 99, None, 5], "time": [50, 200, 400, 400]})
    later = rows.iloc[:200].assign(time=rows["time"].iloc[:200] + 1000)
    newer = remember(model, later, y[:200])
    export_onnx(newer, tmp_path / "model.onnx")
    save(newer[0], tmp_path / "memory.din")
    onnx = load_onnx(tmp_path / "model.onnx", memory=load(tmp_path / "memory.din"))
    with pytest.raises(TypeError, match=r"pass load\('memory.din'\)"):
        load_onnx(tmp_path / "model.onnx", memory=tmp_path / "memory.din")
    short = clone(model[0]).set_params(max_length=3).fit(rows, y)
    other = clone(model[0]).fit(rows, np.where(y == 1, 5, 3))
    for stranger in (short, other):
        with pytest.raises(ValueError, match="got one of other parameters, labels or columns"):
            load_onnx(tmp_path / "model.onnx", memory=stranger)
    past = rank_candidates(model, users, candidates, top_k=20)
    pairs = users.assign(row=range(4)).merge(candidates, how="cross")
    for way in (model, newer, onnx):
        ranked = rank_candidates(way, users, candidates, top_k=20)
        by_rows = (newer if way is onnx else way).predict_proba(pairs[[*OF_ROWS]])[:, 1]
        own = ranked.sort_values(["row", "probability"])["probability"]
        expected = pairs.assign(p=by_rows).sort_values(["row", "p"])["p"]
        np.testing.assert_allclose(own, expected, atol=2e-6)
        np.testing.assert_allclose(ranked["probability"], past["probability"], atol=2e-6)
    now = users[["user"]]  # who does not say when is asked for now
    moment = users.assign(time=newer[0].next_moment())
    np.testing.assert_allclose(
        rank_candidates(newer, now, candidates)["probability"],
        rank_candidates(newer, moment, candidates)["probability"],
    )
    assert not np.allclose(
        rank_candidates(newer, now, candidates, top_k=20)["probability"],
        rank_candidates(model, now, candidates, top_k=20)["probability"],
    )


def test_remember_leaves_the_old_model_and_the_weights(tmp_path):
    rows, y = make_rows()
    model = fit(rows, y)
    later = rows.assign(time=rows["time"] + 1000)
    before, state = model.predict_proba(later), copy.deepcopy(model[0].memory_)
    newer = remember(model, later, y)
    np.testing.assert_array_equal(model.predict_proba(later), before)
    np.testing.assert_array_equal(model[0].memory_.values, state.values)
    assert newer[-1] is model[-1]
    assert len(newer[0].memory_.times) == 2 * len(rows)
    learnt = update(model, later, y)
    assert len(learnt[0].memory_.times) == 2 * len(rows)
    with pytest.raises(TypeError, match="remember needs a HistoryBuilder"):
        remember(make_pipeline(model[1], model[2]), later, y)


def test_each_period_is_asked_by_the_labels_that_were_known_when_it_began():
    rows, y = make_rows(500)
    late = np.random.RandomState(0).randint(40, size=len(rows))
    rows["known"] = rows["time"] + late
    memory = HistoryBuilder(**NAMES, levels="auto", events="all", known="known")
    train, test = next(TimeSplit(1, test_size=0.5, time="time", known="known").split(rows))
    model = begin_with(memory, **QUICK).fit(rows.iloc[train], y[train])
    X, labels = rows.iloc[test].reset_index(drop=True), y[test]
    live = live_predictions(model, X, labels, every=30)
    for begin in range(X["time"].min(), X["time"].max() + 1, 30):
        is_new = X["known"].between(begin - 30, begin - 1)
        now = X["time"].between(begin, begin + 29)
        model = remember(model, X[is_new], labels[is_new]) if is_new.any() else model
        np.testing.assert_array_equal(live[now], model.predict_proba(X[now])[:, 1])


def test_live_predictions_know_the_periods_before():
    rows, y = make_rows()
    is_late = rows["time"] >= 150
    model = fit(rows[~is_late], y[~is_late])
    late, labels = rows[is_late].sample(frac=1, random_state=0), y[is_late]
    labels = pd.Series(y)[late.index].to_numpy()
    live = live_predictions(model, late, labels, every=10)
    known = model
    for begin in range(150, 200, 10):
        part = late["time"].between(begin, begin + 9).to_numpy()
        np.testing.assert_array_equal(live[part], known.predict_proba(late[part])[:, 1])
        known = remember(known, late[part], labels[part])
    at_once = remember(model, late, labels).predict_proba(late)[:, 1]
    np.testing.assert_array_equal(live_predictions(model, late, labels, every=0), at_once)
    with pytest.raises(ValueError, match="every must be positive, or 0 for"):
        live_predictions(model, late, labels, every=-1)


@pytest.mark.parametrize("kind", ["numbers", "clicks", "several"])
def test_a_live_scorer_scores_what_is_said_in_between(kind):
    rows, y = make_rows()
    is_click = np.column_stack([y, rows["kind"] > 0]) if kind == "several" else y
    labels = {"numbers": y + 0.5 * rows["kind"], "clicks": np.array(["no", "yes"])[y]}
    labels = np.asarray(labels.get(kind, is_click))
    memory = HistoryBuilder(**NAMES, levels="auto", events="all")
    model = begin_with(memory, DINRegressor if kind == "numbers" else DINClassifier, **QUICK)
    model.fit(rows[:300], labels[:300])
    X, y, told = rows[300:], is_click[300:], labels[300:]
    said = live_predictions(model, X, told, every=25)
    name, expected = "r2", r2_score(told, said) if kind == "numbers" else None
    if expected is None:
        name, expected = "roc_auc", roc_auc_score(y, said)
        accuracy = ((said > 0.5) == y).reshape(100, -1).all(axis=1).mean()
        assert live_scoring("accuracy", every=25)(model, X, told) == pytest.approx(accuracy)
    assert live_scoring(name, every=25)(model, X, told) == pytest.approx(expected)
    assert get_scorer(name)(model, X, told) != pytest.approx(expected)


def test_a_ranker_asks_levels_of_a_memory_beside_users_with_histories():
    """As the server does, whose memory is told what is posted."""
    rows, y = make_rows(600)
    model = fit(rows, y)
    candidates = rows[["item", "kind"]].drop_duplicates("item")
    ranker = Ranker(model[1:], candidates, memory=model[0])
    whole = rank_candidates(model, pd.DataFrame({"user": [3], "time": [400]}), candidates, top_k=20)
    with_histories = model[0].transform(rows.iloc[:1].assign(user=3, time=400))
    user = {name: with_histories[name].iloc[0] for name in ("hist_item", "hist_kind")}
    user = {name: list(events) for name, events in user.items()} | {"user": 3}
    for own in (user | {"time": 400}, pd.DataFrame([user | {"time": 400}])):
        ranked = ranker.rank(own, top_k=20)
        np.testing.assert_allclose(ranked["probability"], whole["probability"], atol=1e-6)
    now = rank_candidates(model, pd.DataFrame({"user": [3]}), candidates)
    np.testing.assert_allclose(ranker.rank(user)["probability"], now["probability"], atol=1e-6)
    later = rows.iloc[:50].assign(time=500)
    ranker.memory = remember(model[0], later, y[:50])
    assert not np.allclose(ranker.rank(user)["probability"], whole["probability"][:10])
    with pytest.raises(ValueError, match="'item_rate' is a level of item, which differs"):
        rank_candidates(model[1:], with_histories.drop(columns=["item", "kind"]), candidates)


def test_histories_that_tell_labels_before_they_were_known_are_said():
    rows, y = make_rows()
    late = HistoryBuilder(**NAMES, levels="auto", known="known")
    with pytest.warns(UserWarning, match="they tell labels too early"):
        late.fit(rows.assign(known=rows["time"] + 1), y)
    late.fit(rows.assign(known=rows["time"]), y)  # at once: nothing is said
    late.set_params(events="all").fit(rows.assign(known=rows["time"] + 1), y)
    with pytest.raises(ValueError, match="from when on labels count in levels, and there are none"):
        late.set_params(levels=None).fit(rows.assign(known=rows["time"]), y)


@pytest.mark.parametrize("levels", [["recent"], ["user_item", ("user", "item")]])
def test_levels_of_one_name_are_refused_where_they_are_fitted_or_attached(levels):
    rows, y = make_rows()
    rows = rows.assign(recent=rows["kind"], user_item=rows["kind"])
    names = {"user": "user", "time": "time"}
    with pytest.raises(ValueError, match="levels must have distinct names, got"):
        HistoryBuilder(**names, columns=["item"], levels=levels).fit(rows, y)
    with pytest.raises(ValueError, match="levels must have distinct names"):
        attach_aggregates(
            rows, rows.assign(y=y), **names, label="y", aggregates="levels", levels=levels
        )


def test_levels_of_a_user_that_differ_among_candidates_are_refused_whatever_their_names():
    """Also where names hold an underscore."""
    rows, y = make_rows()
    rows = rows.rename(columns={"user": "user_id", "item": "item_id"})
    names = {"user": "user_id", "time": "time"}
    X = attach_aggregates(
        rows, rows.assign(y=y), **names, aggregates="levels", levels=[("user_id", "item_id")]
    )
    X = attach_history(X, rows[y == 1], **names, columns=["item_id"])
    model = make_model(HistorySequenceEncoder(**names), max_epochs=1).fit(X, y)
    items = rows[["item_id", "kind"]].drop_duplicates()
    with pytest.raises(ValueError, match="'user_id_item_id_rate' is a level of user_id with item"):
        rank_candidates(model, X.iloc[-2:].drop(columns=items.columns), items)


def test_a_value_without_an_id_shares_no_level_with_a_known_one(monkeypatch):
    """Unknown values have ids below 0, whose numbers known ids have, too."""
    monkeypatch.setattr(aged_levels, "AGED_SHARE", 1.0)
    rows, y = make_rows(600)
    attached = HistoryBuilder(**NAMES, levels=["item"]).fit_transform(rows, y)
    X = HistorySequenceEncoder(user="user", time="time").fit_transform(attached)
    for unknown in range(-13, -1):
        X.columns["item"] = np.append(X.columns["item"][:-1], np.int32(unknown))
        aged = aged_levels.age_levels(X, share=0.5)
        assert aged.columns["item_count"][-1] == X.columns["item_count"][-1]
