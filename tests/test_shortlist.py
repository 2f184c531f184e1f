"""A shortlist holds what a loop over all candidates would choose, and the network ranks it."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, DINRegressor, HistorySequenceEncoder, Ranker, rank_candidates
from sklearn_din.features.vectors import Vectors
from sklearn_din.neighbours import shortlist
from sklearn_din.neighbours.item_scores import ItemScores
from sklearn_din.neighbours.shortlist import Shortlist
from tests.fitted_pipelines import attach_clicks

N_IDS = 40


def make_scores(seed):
    draw = np.random.RandomState(seed)
    ease, cosine = (np.where(draw.rand(N_IDS, N_IDS) < 0.2, draw.randn(N_IDS, N_IDS), 0),) * 2
    both = [csr_array(matrix.astype(np.float32)) for matrix in (ease - 0.1 * cosine, abs(cosine))]
    return ItemScores(*both, *draw.rand(3, N_IDS).astype(np.float32))


def choose_by_loop(scores, candidates, histories, n, excluded, newest, alike, near, most):
    """The slow twin: score each candidate, then fill the list step by step."""
    total, known = np.zeros(len(candidates)), np.where(candidates < 0, 1, candidates)
    for of_history, events in zip(scores, histories, strict=True):
        dense = of_history.ease.toarray() + of_history.cosine.toarray()
        for event in np.where(events < 0, 1, events):
            row = np.maximum(dense[known, event], 0)
            row[np.argsort(-row, kind="stable")[most:]] = 0
            total += row
    best = [c for c in np.argsort(-total, kind="stable") if total[c] > 0]
    popular = np.argsort(-scores[0].popularity[known], kind="stable")
    groups = [(popular, n // 5), (newest, n // 10), (alike, n // 5), (near, n // 5)]
    others = [[c for c in order if c not in excluded][:size] for order, size in groups]
    ranked = [c for c in [*best, *popular] if c not in excluded]
    order = [*ranked[: n - sum(map(len, others))], *np.concatenate(others).astype(int), *ranked]
    return sorted([*dict.fromkeys(order)][:n])


def find_alike(kinds, events, popularity, most):
    """The slow twin: the most popular of each event's kind, summed over the events."""
    total = np.zeros(len(kinds))
    for event in events[events > 1]:
        own = [c for c in np.argsort(-popularity, kind="stable") if kinds[c] == event]
        total[own[:most]] += popularity[own[:most]]
    return [c for c in np.argsort(-total, kind="stable") if total[c] > 0]


@pytest.mark.parametrize("most", [1000, 3])
@pytest.mark.parametrize("n_histories", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_loop_over_all_candidates_chooses_the_same(seed, n_histories, most, monkeypatch):
    monkeypatch.setattr(shortlist, "MOST_PER_EVENT", most)
    monkeypatch.setattr(shortlist, "MOST_PER_VALUE", most)
    draw = np.random.RandomState(seed)
    scores = [make_scores(seed + n) for n in range(n_histories)]
    candidates = np.append(draw.permutation(np.arange(2, N_IDS))[:30], [-(2**31) + 5, 1])
    table = np.append([[0, 0]], draw.randn(N_IDS - 1, 2), axis=0).astype(np.float32)
    vectors = Vectors(table, np.arange(N_IDS), *(np.empty(0, np.int32),) * 2)
    units = table / np.maximum(np.linalg.norm(table, axis=1), 1e-12)[:, None]
    newest = draw.permutation(32)[:6]
    kinds = draw.randint(1, 6, 32)
    chooser = Shortlist(scores, candidates, attributes=[(kinds, 6)], newest=newest, vectors=vectors)
    for n_events, n in [(0, 10), (1, 10), (7, 10), (7, 31), (3, 50)]:
        histories = [draw.randint(1, N_IDS, n_events) for _ in scores]
        excluded = np.sort(draw.permutation(32)[:4])
        likeness = units[vectors.rows_of(candidates)] @ units[np.concatenate(histories)].sum(0)
        near = [c for c in np.argsort(-likeness, kind="stable") if likeness[c] > 0]
        events = draw.randint(1, 6, n_events)
        alike = find_alike(kinds, events, scores[0].popularity[np.maximum(candidates, 1)], most)
        groups = newest, alike, near
        expected = choose_by_loop(scores, candidates, histories, n, excluded, *groups, most)
        found = chooser.choose(histories, n, excluded, of_attributes=[events])
        assert found.tolist() == expected


def make_model(*steps, **options):
    frame, y = attach_clicks(n_users=150, n_items=80, n_categories=5, random_state=0)
    encoder = HistorySequenceEncoder(user="user", time="time", **options)
    return make_pipeline(encoder, *steps), frame, y


@pytest.fixture(scope="module")
def log():
    model, frame, y = make_model(DINClassifier(max_epochs=2, random_state=0))
    items = frame.drop_duplicates("item")[["item", "category", "price"]].reset_index(drop=True)
    users = frame.drop(columns=items.columns)[::300].reset_index(drop=True)
    return model.fit(frame, y), users, items


@pytest.mark.parametrize("exclude", [None, "history"])
def test_the_network_ranks_the_candidates_of_the_shortlist(log, exclude):
    model, users, items = log
    best = rank_candidates(model, users, items, top_k=20, shortlist=20, exclude=exclude)
    plain, short = Ranker(model, items), Ranker(model, items, shortlist=20)
    for row in range(len(users)):
        found, user = best[best["row"] == row].drop(columns="row"), users.iloc[[row]]
        assert len(found) == 20
        expected = plain.rank(user, top_k=80, exclude=exclude, only=found["item"].tolist())
        for again in (expected, short.rank(user.iloc[0], top_k=20, exclude=exclude)):
            again = again.drop(columns="row").set_axis(found.index)
            pd.testing.assert_frame_equal(again, found, rtol=0, atol=1e-6)
    full = plain.rank(users, top_k=80, exclude=exclude)
    of_all = rank_candidates(model, users, items, top_k=80, exclude=exclude, shortlist=10**6)
    pd.testing.assert_frame_equal(of_all, full)
    only = items["item"].tolist()[:29]  # which are chosen already
    expected = plain.rank(users, top_k=28, only=only)
    pd.testing.assert_frame_equal(short.rank(users, top_k=28, only=only), expected)


def test_a_new_item_is_found_by_its_vector():
    draw = np.random.RandomState(0)
    vectors = pd.DataFrame({"item": np.arange(81), "a": draw.randn(81), "b": draw.randn(81)})
    vectors.loc[80, ["a", "b"]] = 3 * vectors.loc[7, ["a", "b"]].to_numpy()
    model, frame, y = make_model(DINClassifier(**ONCE), vectors={"item": vectors})
    model.fit(frame, y)
    items = frame.drop_duplicates("item")[["item", "category", "price"]]
    items = pd.concat([items, items[:1].assign(item=80)])
    user = frame.drop(columns=items.columns).iloc[0].to_dict()
    user |= {"hist_item": [7, 7, 7], "hist_category": [1, 1, 1]}
    best = Ranker(model, items, shortlist=10).rank(user, top_k=10)
    assert 80 in best["item"].to_numpy()


ONCE = {"max_epochs": 1, "random_state": 0}  # without a seed, it now and then learns nothing


@pytest.mark.parametrize(("last", "columns", "message"), [
    (DINClassifier(**ONCE), ["category"], "of 'category', and this model has none"),
    (DINClassifier(**ONCE), ["price"], "which no history pairs with"),
    (DINClassifier(**ONCE, neighbours=None), ["item", "category"], "neighbours is not None"),
    (DINRegressor(**ONCE), ["item", "category"], "a regressor has none"),
])  # fmt: skip
def test_what_a_shortlist_needs_is_said(last, columns, message):
    model, frame, y = make_model(last)
    with pytest.raises(ValueError, match=message):
        Ranker(model.fit(frame, y), frame[columns].drop_duplicates(), shortlist=5)
