"""Item neighbours: against plain loops, without a look at the future, in every place they reach."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    ItemNeighbours,
    _log_once,
    attach_history,
    export_onnx,
    load,
    rank_candidates,
    save,
)
from sklearn_din.datasets import make_click_log
from sklearn_din.neighbours import cooccurrence, item_scores, tables
from sklearn_din.neighbours import pairs as neighbour_pairs
from sklearn_din.serving import OnnxServer

PARTS = ("sum", "mean", "max", "newest", "decayed")


@pytest.fixture(autouse=True)
def every_attribute_has_neighbours(monkeypatch):
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 3)


@pytest.fixture(scope="module")
def log():
    log = make_click_log(n_users=120, n_items=60, n_categories=8, mean_length=12, random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    return X, log.y


def numbers_of(X):
    """The columns of item neighbours, unscaled, by name."""
    return {f.name: X[f.name] for f in X.schema.fields if f.candidate}


def blocks_of_users(users):
    """In sorted order of users, five blocks drawn by a fixed permutation."""
    names = np.unique(users)
    place = np.random.RandomState(0).permutation(len(names)) * 5 // len(names)
    return place[np.searchsorted(names, users)]


def blocks_of_times(times):
    """A row's block follows from how many rows are earlier."""
    return np.array([5 * (times < time).sum() // len(times) for time in times])


def plain_numbers(X, y, blocks, column, row, upto):
    """One row's twelve numbers by loops, from the items of each user in the blocks before one."""
    sets = {}
    for other in range(len(X)):
        if blocks[other] < upto:
            mine = sets.setdefault(X["user"].iloc[other], set())
            mine |= set(X[f"hist_{column}"].iloc[other][-50:])
            if y[other]:
                mine.add(X[column].iloc[other])
    candidate, events = X[column].iloc[row], list(X[f"hist_{column}"].iloc[row][-50:])
    items = sorted({item for own in sets.values() for item in own})
    if not items:
        return np.zeros(13)
    place = {item: n for n, item in enumerate(items)}
    had = np.zeros((len(sets), len(items)))
    for n, own in enumerate(sets.values()):
        had[n, [place[item] for item in own]] = 1
    gram = had.T @ had
    inverse = np.linalg.inv(gram + item_scores.EASE_L2 * np.eye(len(items)))
    found = []
    for score in ("ease", "cosine"):
        values = []
        for event in events:
            if event not in place or candidate not in place or event == candidate:
                values.append(0.0)
                continue
            i, j = place[event], place[candidate]
            if score == "ease":
                values.append(-inverse[i, j] / inverse[j, j])
            else:
                root = np.sqrt(gram[i, i] * gram[j, j])
                values.append(gram[i, j] / (root + item_scores.SHRINKAGE))
        decayed = sum(v * 0.8**rank for rank, v in enumerate(reversed(values)))
        n = max(len(values), 1)
        raw = [sum(values), sum(values) / n, max(values, default=0.0), (values or [0])[-1], decayed]
        found += [np.sign(v) * np.log1p(abs(v)) for v in raw]
    share = gram[place[candidate], place[candidate]] if candidate in place else 0.0
    popularity = np.log1p(share / gram.diagonal().mean())
    seen = np.flatnonzero(blocks < upto)
    own = seen[X[column].iloc[seen].to_numpy() == candidate]
    rate, prior = y[seen].mean(), item_scores.PRIOR_ROWS
    odds = (y[own].sum() + prior * rate) / ((1 - y[own]).sum() + prior * (1 - rate))
    click_rate = np.log(odds * (1 - rate) / rate) if len(own) else 0.0
    return np.array([*found, popularity, click_rate, float(popularity > 0)])


@pytest.mark.parametrize("order", ["time", "user"])
def test_numbers_are_those_of_plain_loops(log, order):
    X, y = log
    rng = np.random.RandomState(0)
    rows = np.sort(rng.choice(len(X), 300, replace=False))
    X, y = X.iloc[rows], y[rows]
    encoder = HistorySequenceEncoder(user="user", time="time", neighbours=order)
    trained = encoder.fit_transform(X, y)
    blocks = blocks_of_users(X["user"].to_numpy())
    if order == "time":
        blocks = blocks_of_times(X["time"].to_numpy())
    for column in ("item", "category"):
        names = [f.name for f in trained.schema.fields if f.name.startswith(f"hist_{column}_")]
        scale = np.array([encoder.scales_[name].scale for name in names])
        given_at_fit = np.column_stack([trained[name] for name in names]) * scale
        later = encoder.transform(X)
        afterwards = np.column_stack([later[name] for name in names]) * scale
        for row in rng.choice(len(X), 25, replace=False):
            wanted = plain_numbers(X, y, blocks, column, row, blocks[row])
            np.testing.assert_allclose(given_at_fit[row], wanted, atol=2e-5)
            wanted = plain_numbers(X, y, blocks, column, row, 5)
            np.testing.assert_allclose(afterwards[row], wanted, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(0, 4))
def test_nothing_at_or_after_a_row_s_block_reaches_it(log, seed, block):
    X, y = log
    rng = np.random.RandomState(seed)
    rows = np.sort(rng.choice(len(X), 400, replace=False))
    X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    blocks = blocks_of_times(X["time"].to_numpy())
    late = np.flatnonzero(blocks >= block)
    other, other_y = X.copy(), y.copy()
    for column in ("item", "category"):
        other.loc[late, column] = rng.permutation(other.loc[late, column])
    other_y[late] = 1 - other_y[late]
    encoder = HistorySequenceEncoder(user="user", time="time")
    before, after = encoder.fit_transform(X, y), encoder.fit_transform(other, other_y)
    kept = np.flatnonzero((blocks <= block) & (other["item"] == X["item"]).to_numpy())
    kept = kept[(other["category"] == X["category"]).to_numpy()[kept]]
    scales = encoder.scales_
    first = HistorySequenceEncoder(user="user", time="time").fit(X, y).scales_
    for name, values in numbers_of(before).items():
        own = values[kept] * first[name].scale
        np.testing.assert_allclose(own, after[name][kept] * scales[name].scale, atol=1e-5)


def test_own_clicks_do_not_reach_a_user(log):
    X, y = log
    user = X["user"].iloc[0]
    own = (X["user"] == user).to_numpy()
    encoder = HistorySequenceEncoder(user="user")
    before = encoder.fit_transform(X.drop(columns="time"), y)
    scales = encoder.scales_
    after = encoder.fit_transform(X.drop(columns="time"), np.where(own, 1 - y, y))
    for name, values in numbers_of(before).items():
        again = after[name][own] * encoder.scales_[name].scale
        np.testing.assert_allclose(values[own] * scales[name].scale, again, atol=1e-5)


def test_the_order_of_rows_changes_nothing(log):
    X, y = log
    rows = np.random.RandomState(1).permutation(len(X))
    for parameters in ({"user": "user"}, {"user": "user", "time": "time"}):
        encoder = HistorySequenceEncoder(drop=["time"] * ("time" not in parameters), **parameters)
        plain = numbers_of(encoder.fit_transform(X, y))
        shuffled = numbers_of(encoder.fit_transform(X.iloc[rows], y[rows]))
        for name, values in plain.items():
            np.testing.assert_allclose(values[rows], shuffled[name], atol=1e-4)


def test_patience_does_not_part_validation_and_test():
    """Leave-one-out numbers would let the network read the label off, and patience find it."""
    log = make_click_log(n_users=400, n_items=100, n_categories=10, mean_length=12, random_state=1)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    cut = int(0.8 * len(X))
    losses = []
    for patience in (4, 30):
        model = make_pipeline(
            HistorySequenceEncoder(user="user", time="time"),
            DINClassifier(
                validation="random", patience=patience, max_epochs=15, random_state=0, lr=0.004
            ),
        ).fit(X[:cut], log.y[:cut])
        losses.append(log_loss(log.y[cut:], model.predict_proba(X[cut:])[:, 1]))
    assert abs(losses[0] - losses[1]) < 0.01


def test_unknown_candidates_have_zeros(log):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    rows = X[:20].assign(item=-1)
    for name, values in numbers_of(encoder.transform(rows)).items():
        assert (values == 0).all() == name.startswith("hist_item_")


def test_only_the_best_neighbours_are_kept(monkeypatch, log):
    X, y = log
    monkeypatch.setattr(item_scores, "MOST_NEIGHBOURS", 3)
    monkeypatch.setattr(item_scores, "MOST_EXACT", 40)
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    counts = np.diff(encoder._neighbours[0].scores.cosine.indptr)
    assert counts.max() == 3
    ease = encoder._neighbours[0].scores.ease
    assert np.count_nonzero(np.diff(ease.indptr)) == 40
    monkeypatch.undo()
    whole = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    full = whole._neighbours[0].scores.cosine.toarray()
    wanted = np.zeros_like(full)
    for row, values in enumerate(full):
        best = np.argsort(-values, kind="stable")[:3]  # of equal ones the first
        wanted[row, best] = values[best]
    np.testing.assert_array_equal(encoder._neighbours[0].scores.cosine.toarray(), wanted)


def test_users_with_many_items_are_cut(monkeypatch):
    users, items = np.repeat([0, 1], [50, 3]), np.r_[np.arange(2, 52), [2, 3, 4]]
    both = cooccurrence.Interactions(users, items, np.zeros(53, dtype=int), (2, 52))
    assert both.cap() is both
    monkeypatch.setattr(cooccurrence, "MOST_PAIRS", 500)
    cut = both.cap()
    assert np.bincount(cut.users).tolist() == [15, 3]
    assert len(set(cut.items[cut.users == 0])) == 15


def test_chunks_of_events_change_nothing(monkeypatch, log):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    whole = numbers_of(encoder.transform(X))
    monkeypatch.setattr(item_scores, "EVENTS_PER_CHUNK", 37)
    for name, values in numbers_of(encoder.transform(X)).items():
        np.testing.assert_array_equal(values, whole[name])


def test_what_is_needed_is_said(log):
    X, y = log
    with pytest.raises(ValueError, match=r"neighbours='time' puts .* time=None"):
        HistorySequenceEncoder(user="user", neighbours="time").fit(X, y)
    with pytest.raises(ValueError, match="user=None and time=None"):
        ItemNeighbours().fit(X, y)
    with pytest.raises(ValueError, match="inconsistent"):
        HistorySequenceEncoder(user="user").fit(X.drop(columns="time"), y[:-1])


def test_that_they_are_off_is_logged_once(log, caplog):
    X, _ = log
    many = pd.concat([X] * 3, ignore_index=True)[:1000]
    assert len(many) == 1000
    _log_once.log_once.cache_clear()
    for _ in range(2):
        HistorySequenceEncoder(drop=["user", "time"]).fit(many)
    assert [record.getMessage()[:23] for record in caplog.records] == ["item neighbours are off"]


def test_none_gives_none(log):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time", neighbours=None)
    assert not numbers_of(encoder.fit_transform(X, y))
    plain = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(X[:900])
    assert not numbers_of(plain)


def test_rows_of_nobody_are_each_of_a_user_of_their_own(log):
    X, y = log
    X = X.assign(user=X["user"].mask(np.arange(len(X)) % 7 == 0))
    encoder = HistorySequenceEncoder(user="user", time="time", neighbours="user")
    for values in numbers_of(encoder.fit_transform(X, y)).values():
        assert np.isfinite(values).all()


def test_names_of_the_frame_stay_theirs(log):
    X, y = log
    X = X.assign(hist_item_ease_sum=1.5)
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    names = encoder.get_feature_names_out().tolist()
    assert "hist_item_ease_sum" in names
    assert "hist_item_ease_sum_" in names


@pytest.fixture(scope="module")
def model(log):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time")
    return make_pipeline(encoder, DINClassifier(max_epochs=2, random_state=0)).fit(X, y)


def test_they_survive_pickle_and_save(model, log, tmp_path):
    X, _ = log
    probability = model.predict_proba(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), probability)
    save(model, tmp_path / "model.din")
    np.testing.assert_array_equal(load(tmp_path / "model.din").predict_proba(X), probability)


def test_ranking_computes_them_for_each_pair(model, log):
    X, _ = log
    users = X[["user", "device", "hist_item", "hist_category"]][:4].reset_index(drop=True)
    candidates = X[["item", "category", "price"]].drop_duplicates("item")[:30]
    best = rank_candidates(model, users, candidates, top_k=30).sort_values(["row", "item"])
    pairs = users.merge(candidates.sort_values("item"), how="cross")
    columns = [name for name in X.columns if name != "time"]
    wanted = model.predict_proba(pairs[columns])[:, 1]
    np.testing.assert_allclose(best["probability"], wanted, atol=1e-6)


def test_onnx_computes_them_by_itself(model, log, tmp_path):
    X, _ = log
    export_onnx(model, tmp_path / "model.onnx")
    server = OnnxServer(tmp_path / "model.onnx")
    assert not [name for name in server.columns_ if "ease" in name]
    rows = X[:200]
    columns = {name: rows[name].tolist() for name in server.columns_}
    columns |= {n: [list(c) for c in rows[n]] for n in ("hist_item", "hist_category")}
    answers = server.predict(columns)
    np.testing.assert_allclose(answers, model.predict_proba(rows)[:, 1], atol=2e-6)


def test_other_models_get_the_columns(log):
    X, y = log
    added = ItemNeighbours(user="user", time="time")
    trained = added.fit_transform(X, y)
    assert list(trained.columns[: len(X.columns)]) == list(X.columns)
    encoder = HistorySequenceEncoder(user="user", time="time")
    encoded = encoder.fit_transform(X, y)
    for name, values in numbers_of(encoded).items():
        np.testing.assert_allclose(trained[name], values * encoder.scales_[name].scale, rtol=1e-6)
    lists = pl.DataFrame({n: [list(c) for c in X[n]] for n in ("hist_item", "hist_category")})
    table = pl.from_pandas(X.drop(columns=["hist_item", "hist_category"])).hstack(lists)
    assert isinstance(added.fit_transform(table, y), pl.DataFrame)


def test_attributes_with_one_vocabulary_each_have_their_pair():
    shown = pd.DataFrame({"u": [1, 2], "item": [3, 4], "hist_a": [[3], [4]], "hist_b": [[4], []]})
    histories = {"hist_a": "item", "hist_b": "item"}
    encoder = HistorySequenceEncoder(histories=histories, user="u").fit(shown, [1, 0])
    assert [pair.history for pair in encoder._neighbours] == ["hist_a", "hist_b"]
    assert {n for pair in encoder._neighbours for n in pair.names} <= encoder.scales_.keys()


def test_later_clicks_are_counted_as_fit_would_have():
    """Where every event is a clicked row and no history is cut, growing equals fitting all."""
    rng = np.random.RandomState(0)
    clicks = pd.DataFrame(
        {"user": rng.permutation(np.repeat(np.arange(20), 12)), "item": rng.randint(15, size=240)}
    ).assign(time=np.arange(240))
    clicks.loc[200:, "item"] = rng.randint(20, size=40)  # new items among them
    stranger = pd.DataFrame({"user": [99], "item": [3], "time": [-1]})  # shown, not clicked
    shown = pd.concat([stranger, clicks], ignore_index=True)
    X = attach_history(shown, clicks, user="user", time="time", columns=["item"])
    y = np.arange(241) > 0
    whole = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    parts = HistorySequenceEncoder(user="user", time="time").fit(X[:150], y[:150])
    for rows in (slice(150, 190), slice(190, 241)):
        parts.partial_fit(X[rows], y[rows])
    names = parts.vocabularies_["item"]
    order = np.r_[0, 1, 2 + np.searchsorted(whole.vocabularies_["item"], names)]
    wanted = cooccurrence.both_triangles(whole._neighbours[0].counts).toarray()
    ours = cooccurrence.both_triangles(parts._neighbours[0].counts).toarray()
    np.testing.assert_array_equal(ours, wanted[np.ix_(order, order)])
    ease = whole._neighbours[0].scores.ease.toarray()[np.ix_(order, order)]
    np.testing.assert_allclose(parts._neighbours[0].scores.ease.toarray(), ease, atol=1e-6)


def test_later_rows_are_encoded_before_their_clicks_count(log):
    X, y = log
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X[:800], y[:800])
    other = pickle.loads(pickle.dumps(encoder))
    one = encoder.partial_fit_transform(X[800:], y[800:])
    two = other.partial_fit_transform(X[800:], 1 - y[800:])
    for name, values in numbers_of(one).items():
        np.testing.assert_array_equal(values, two[name])
    afterwards = encoder.transform(X[800:])
    assert any((afterwards[name] != values).any() for name, values in numbers_of(one).items())


def test_counts_are_kept_for_popular_items_and_neighbours(monkeypatch, log):
    X, y = log
    monkeypatch.setattr(item_scores, "MOST_EXACT", 20)
    monkeypatch.setattr(tables, "MOST_COUNTED", 0)
    monkeypatch.setattr(item_scores, "MOST_NEIGHBOURS", 3)
    pair = HistorySequenceEncoder(user="user", time="time").fit(X, y)._neighbours[0]
    monkeypatch.undo()
    whole = HistorySequenceEncoder(user="user", time="time").fit(X, y)._neighbours[0]
    kept = cooccurrence.both_triangles(pair.counts).toarray()
    every = cooccurrence.both_triangles(whole.counts).toarray()
    popular = np.argsort(-every.diagonal(), kind="stable")[:20]
    near = (pair.scores.cosine + pair.scores.cosine.T).toarray() > 0
    wanted = near | np.eye(len(every), dtype=bool)
    wanted[np.ix_(popular, popular)] = True
    np.testing.assert_array_equal(kept, np.where(wanted, every, 0))


def test_attributes_with_few_ids_have_none(monkeypatch, log):
    X, y = log
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 64)
    encoder = HistorySequenceEncoder(user="user", time="time").fit(X, y)
    assert [pair.history for pair in encoder._neighbours] == ["hist_item"]
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 10)  # eight categories, padding and unknown
    encoder.fit(X, y)
    assert [pair.history for pair in encoder._neighbours] == ["hist_item", "hist_category"]
