"""Levels of users: against plain loops, without a look at the row's own label, wherever they go."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import DINRegressor, HistorySequenceEncoder, attach_history, scan_parquet, update
from sklearn_din.features import Schema
from sklearn_din.neighbours import levels as levels_file
from sklearn_din.neighbours.levels import UserLevels
from sklearn_din.neighbours.tables import NeighbourTables, learn_neighbours
from sklearn_din.server.answers import Answers
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.typed_fields import to_dict
from tests.fitted_pipelines import make_model

COLUMNS = {"user": "user", "time": "time"}
LEVELS = ("rate", "count", "elapsed")  # that a memory makes
SHORT = {"max_epochs": 3, "early_stopping": False}


def make_log(n_rows=1500):
    """Impressions of users who differ in how often they click, some at the same moment."""
    rng = np.random.RandomState(0)
    user = rng.randint(60, size=n_rows)
    times = np.sort(rng.randint(n_rows // 2, size=n_rows))
    log = pd.DataFrame({"user": user, "item": rng.randint(50, size=n_rows), "time": times})
    odds = -0.5 + 1.5 * rng.normal(size=60)[user]
    y = (rng.random_sample(n_rows) < 1 / (1 + np.exp(-odds))).astype(int)
    return attach_history(log, log[y == 1], user="user", time="time", columns=["item"]), y


X, Y = make_log()


def learn(X, y, **parameters):
    encoded = HistorySequenceEncoder(**COLUMNS).fit_transform(X)
    is_click = (y if y.ndim == 1 else y[:, 0]) == 1
    return encoded, *learn_neighbours(encoded, is_click, order="time", y=y, **parameters)


def has_levels(tables):
    return any(isinstance(part, UserLevels) for part in tables.parts)


def plain_level(levels, X, y, counted, user):
    """One user's level by a loop over the rows that count."""
    own = [label for label, u, c in zip(y, X["user"], counted, strict=True) if c and u == user]
    own = np.array([label for label in own if not np.isnan(label)])
    average, prior = levels.averages[0], levels.priors[0]
    if not levels.of_clicks:
        return (own - average).sum() / (len(own) + prior)
    odds = (own.sum() + prior * average) / ((1 - own).sum() + prior * (1 - average))
    return np.log(odds * (1 - average) / average)


@pytest.mark.parametrize("of_clicks", [True, False])
def test_levels_are_those_of_plain_loops(of_clicks, monkeypatch):
    monkeypatch.setattr(levels_file, "SHARE_WITHOUT", 0)
    y = Y if of_clicks else Y + np.random.RandomState(0).normal(size=len(Y))
    encoded, tables, trained = learn(X, y)
    levels, times = tables.parts[-1], X["time"].to_numpy()
    assert levels.of_clicks == of_clicks
    later = tables.add_to(HistorySequenceEncoder(**COLUMNS).fit(X).transform(X))["user_level"]
    now = encoded[:]
    now.times = None
    end, rng = tables.add_to(now)["user_level"], np.random.RandomState(1)
    for row in rng.choice(len(X), 60, replace=False):
        user, ends = X["user"].iloc[row], tables.order.ends
        reached = max([e for e in ends if e < times[row]], default=-1)
        for value, counted in (
            (trained["user_level"][row], times < times[row]),  # in training, the exact moment
            (later[row], times <= reached),  # afterwards, the last table that ended before it
            (end[row], times >= 0),
        ):
            expected = plain_level(levels, X, y, counted, user)
            np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_strangers_have_the_level_zero_to_the_bit(seed):
    rng = np.random.RandomState(seed)
    y = (rng.random_sample(len(X)) < rng.random_sample(60)[X["user"]]).astype(int)
    encoded, tables, _ = learn(X, y)
    encoded.users = encoded.users + 1_000
    assert (tables.add_to(encoded)["user_level"] == 0).all()


def test_users_of_sampled_negatives_have_none():
    y = np.tile([0, 1], len(X) // 2)  # each click beside one negative of its user and moment
    pairs = X.iloc[np.arange(len(X)) // 2 * 2].reset_index(drop=True)
    _, tables, trained = learn(pairs, y)
    assert not has_levels(tables)
    assert "user_level" not in trained
    without_users = HistorySequenceEncoder(time="time").fit_transform(X)
    assert not has_levels(learn_neighbours(without_users, y == 1, order="time", y=y)[0])
    without_times = HistorySequenceEncoder(user="user", drop="time").fit_transform(X)
    # In Y users differ: without times a level would be the prior or a leak.
    assert not has_levels(learn_neighbours(without_times, Y == 1, order="user", y=Y)[0])


def test_a_fifth_of_the_training_rows_knows_nobody():
    _, tables, trained = learn(X, Y)
    assert 0.17 < (trained["user_level"] == 0).mean() < 0.25
    assert "user_level" in tables.extend(Schema((trained.schema["item"],))).names("numeric")


def test_several_labels_have_a_level_each_where_users_differ():
    rng = np.random.RandomState(0)
    bought = np.where(rng.random_sample(len(Y)) < 0.1, np.nan, Y)
    labels = np.column_stack([rng.randint(2, size=len(Y)), bought])  # coin flips, and some missing
    _, tables, _ = learn(X, labels, labels=("seen", "bought"))
    levels = tables.parts[-1]
    assert levels.names[-1] == "user_level_bought"
    assert levels.labels.tolist()[-1] == 1
    n_known = np.bincount(X["user"][~np.isnan(bought)], minlength=60)
    order = np.argsort(Keys.read(np.arange(60)).hashes)
    np.testing.assert_array_equal(levels.n_rows[-1, :, -1], n_known[order])
    of_memory = {f"user_bought_{what}": rng.normal(size=len(X)) for what in LEVELS}
    assert not has_levels(learn(X.assign(**of_memory), labels, labels=("seen", "bought"))[1])


def test_later_rows_are_counted_as_fit_would_have():
    early, late = X[:1000], X[1000:]
    late = late[late["time"] > early["time"].max()]
    encoder = HistorySequenceEncoder(**COLUMNS).fit(X)
    rows = [encoder.transform(frame) for frame in (early, late)]
    y_late = Y[late.index]
    tables, _ = learn_neighbours(rows[0], Y[:1000] == 1, order="time", y=Y[:1000])
    grown = tables.grow(rows[1], y_late == 1, y_late)
    for _ in range(2):  # rows given twice count once
        np.testing.assert_array_equal(grown.parts[-1].users, np.unique(grown.parts[-1].users))
        hashes = Keys.read(pd.concat([early, late])["user"]).hashes
        users, counts = np.unique(hashes, return_counts=True)
        np.testing.assert_array_equal(grown.parts[-1].users, users)
        np.testing.assert_array_equal(grown.parts[-1].n_rows[-1, :, 0], counts)
        grown = grown.grow(rows[1], y_late == 1, y_late)
    assert len(grown.parts[-1].n_rows) == len(grown.order.ends)
    kept = grown.add_to(rows[0][:50])["user_level"]
    assert np.isfinite(kept).all()


def test_rows_of_nobody_move_the_tables_on_and_add_nothing():
    encoder = HistorySequenceEncoder(**COLUMNS).fit(X)
    early, late = encoder.transform(X[:900]), encoder.transform(X[900:])
    early.times = early.times // 200  # fewer moments than tables may end at
    tables, _ = learn_neighbours(early, Y[:900] == 1, order="time", y=Y[:900])
    late.users = None
    grown = tables.grow(late, Y[900:] == 1, Y[900:])
    asked = early[:]
    asked.times = None
    now = [of.add_to(asked)["user_level"] for of in (tables, grown)]
    np.testing.assert_array_equal(*now)
    NeighbourTables.from_dict(to_dict(grown), early.schema)


def test_a_row_a_server_and_an_update_know_the_user():
    model = make_model(HistorySequenceEncoder(**COLUMNS), **SHORT).fit(X, Y)
    assert "levels of 60 users: user_level" in model[-1].summary()
    rows = X[-40:].drop(columns="time").reset_index(drop=True)
    nobody = model.predict_proba(rows.assign(user=-1))[:, 1]
    assert np.abs(model.predict_proba(rows)[:, 1] - nobody).max() > 0.02
    np.testing.assert_array_equal(nobody, model.predict_proba(rows.drop(columns="user"))[:, 1])
    candidates = pd.DataFrame({"item": range(50)})
    answers = Answers(model, candidates, history=X[["user", "item", "time"]][Y == 1])
    row = {"user": 3, "item": 7}
    told = answers.predict([row, {**row, "user": 999}])["probabilities"]
    expected = model.predict_proba(pd.DataFrame([{**answers.read_user(3), "item": 7}]))[0, 1]
    assert told[0] == pytest.approx(expected, abs=1e-6)
    later = X[-40:].assign(time=X["time"].max() + 1 + np.arange(40))
    newer = update(model, later, np.ones(40, dtype=int))
    levels = newer[-1].net_.neighbours_.parts[-1]
    assert levels.totals[-1].sum() == Y.sum() + 40


@pytest.mark.parametrize("columns", [COLUMNS, {"user": "user"}])
def test_users_of_scans_are_those_of_frames(columns, tmp_path):
    """Numbers in text, whose ranks in a file are other users' numbers."""
    shown = X.assign(user=(60 - X["user"]).astype(str))[[*columns.values(), "item", "hist_item"]]
    paths = [tmp_path / "all.parquet", tmp_path / "some.parquet"]
    some = shown["user"].isin([*map(str, range(40, 60))]).to_numpy()
    for path, rows in zip(paths, (shown, shown[some]), strict=True):
        rows.to_parquet(path)
    encoder = HistorySequenceEncoder(**columns).fit(shown)
    sources = [encoder.transform(source) for source in (shown, scan_parquet(paths[0]))]
    order = "time" if "time" in columns else "user"
    fitted = [learn_neighbours(source, Y == 1, order=order, y=Y)[0] for source in sources]
    rows = [encoder.transform(source) for source in (shown[some], scan_parquet(paths[1]))]
    numbers = [tables.add_to(of) for tables in fitted for of in rows]
    for name in fitted[0].names:
        for other in numbers[1:]:
            np.testing.assert_allclose(other[name], numbers[0][name], atol=1e-6)


def test_a_regressor_knows_the_user_s_mean():
    y = Y + np.random.RandomState(0).normal(size=len(Y))
    model = make_model(HistorySequenceEncoder(**COLUMNS), DINRegressor, **SHORT).fit(X, y)
    assert model[-1].net_.neighbours_.names == ["user_level"]  # and no pairs of items
    rows = X[-40:].drop(columns="time")
    nobody = rows.drop(columns="user")
    assert np.abs(model.predict(rows) - model.predict(nobody)).max() > 0.02
    encoder = HistorySequenceEncoder(user="user", drop="time")
    without_times = make_model(encoder, DINRegressor, **SHORT).fit(X, y)
    assert not without_times[-1].net_.neighbours_.names
    model[-1].partial_fit(model[0].transform(nobody), y[-40:])  # whose rows and when is not known
    assert model[-1].net_.neighbours_.parts[-1].n_rows[-1].sum() == len(X)


@pytest.mark.parametrize("events", ["all rows", "clicks", "all rows, outcomes unknown"])
def test_users_have_none_where_histories_show_what_came_of_all_rows(events):
    rated = X[["user", "item", "time"]].assign(liked=Y)
    rated["time"] = np.arange(len(X))  # so that each row's newest event is the row before
    if events == "clicks":
        rated = rated[Y == 1]
    columns = ["item"] if "unknown" in events else ["item", "liked"]
    shown = rated[["user", "item", "time"]] if events != "clicks" else X[["user", "item", "time"]]
    rows = attach_history(shown, rated, user="user", time="time", columns=columns)
    _, tables, trained = learn(rows, Y)
    assert has_levels(tables) == (events != "all rows")
    assert ("user_level" in trained) == (events != "all rows")
