"""A catalogue's evaluation equals the metrics over all pairs scored one by one."""

import logging

import numpy as np
import pandas as pd
import pytest

from sklearn_din import evaluate_ranking, metrics, rank_candidates
from sklearn_din.serving import evaluation

METRICS = {
    "ndcg": metrics.group_ndcg_score,
    "recall": metrics.group_recall_score,
    "hit_rate": metrics.group_hit_rate_score,
    "mrr": metrics.group_mrr_score,
}


@pytest.fixture
def relevant(users, candidates):
    rng = np.random.default_rng(0)
    pairs = users[["user"]].merge(candidates[["item"]], how="cross")
    pairs = pairs[rng.random(len(pairs)) < 0.1]
    return pairs[pairs["user"] != users["user"].iloc[3]].sample(frac=1, random_state=0)


class Shown:
    """A ranking by hand: ann is shown hat, sock, shoe and bob shoe, hat, sock."""

    ORDER = {"ann": ["hat", "sock", "shoe"], "bob": ["shoe", "hat", "sock"]}

    def __init__(self, pipeline, candidates, *, label):
        """It is no Ranker, but has a ranking."""

    def rank(self, users, *, top_k, **_):
        parts = [
            pd.DataFrame({"row": row, "rank": [1, 2, 3], "item": self.ORDER[name]}).head(top_k)
            for row, name in enumerate(users["user"])
        ]
        return pd.concat(parts, ignore_index=True)


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(evaluation, "Ranker", Shown)
    users = pd.DataFrame({"user": ["ann", "bob", "cem"]})
    candidates = pd.DataFrame({"item": ["hat", "shoe", "sock"]})
    return None, users, candidates


@pytest.mark.parametrize(("relevant", "expected"), [
    # k=1, then k=2: ndcg, recall, hit_rate, mrr
    ([("ann", "hat"), ("bob", "sock")], [(1 / 2,) * 4, (1 / 2,) * 4]),
    ([("ann", "hat"), ("bob", "car")], [(1 / 2,) * 4, (1 / 2,) * 4]),
    ([("bob", "hat")], [(0, 0, 0, 0), (1 / np.log2(3), 1, 1, 1 / 2)]),
    ([("bob", "hat"), ("bob", "hat")], [(0, 0, 0, 0), (1 / np.log2(3), 1, 1, 1 / 2)]),
    ([("ann", "hat"), ("ann", "car")], [(1, 1 / 2, 1, 1), (1 / (1 + 1 / np.log2(3)), 1 / 2, 1,
                                                           1)]),
])  # fmt: skip
def test_scores_by_hand(by_hand, relevant, expected):
    relevant = pd.DataFrame(relevant, columns=["user", "item"])
    table = evaluate_ranking(*by_hand, relevant, k=[1, 2])
    assert table.index.name == "k"
    assert table.columns.tolist() == [*METRICS, "coverage", "n_users", "n_left_out"]
    np.testing.assert_allclose(table[list(METRICS)], expected)
    assert (table["n_users"] + table["n_left_out"]).tolist() == [3, 3]


def test_its_progress_is_in_the_log(fitted, users, candidates, relevant, caplog):
    with caplog.at_level(logging.INFO, logger="sklearn_din"):
        table = evaluate_ranking(fitted, users, candidates, relevant)
        n_pairs = table["n_users"].item() * len(candidates)
        rank_candidates(fitted, users[:0], candidates)  # nothing to wait for
    (message,) = caplog.messages
    assert message.startswith(f"ranking pairs of users and candidates: {n_pairs:,} rows in ")


def test_users_without_a_row_are_named_in_a_warning(by_hand):
    relevant = pd.DataFrame({"user": ["ann", "dan", "dan"], "item": ["hat", "hat", "shoe"]})
    with pytest.warns(UserWarning, match=r"names 1 users who have no row in users, such as 'dan'"):
        table = evaluate_ranking(*by_hand, relevant, k=1)
    assert table["recall"].tolist() == [1.0]
    assert table["n_users"].tolist() == [1]


def test_what_was_had_already_neither_ranks_nor_counts(fitted, users, candidates, relevant):
    had = relevant[relevant["user"].isin(users["user"][:2]) | (relevant["item"] == "i9")]
    pairs = users.merge(candidates, how="cross")
    key = pairs.set_index(["user", "item"]).index
    pairs = pairs[~key.isin(had.set_index(["user", "item"]).index)]
    y = pairs.set_index(["user", "item"]).index.isin(relevant.set_index(["user", "item"]).index)
    scores = fitted.predict_proba(pairs[fitted.feature_names_in_])[:, 1]
    table = evaluate_ranking(fitted, users, candidates, relevant, k=3, exclude=had)
    for name, metric in METRICS.items():
        expected = metric(y, scores, groups=pairs["user"], k=3)
        assert table[name].item() == pytest.approx(expected, abs=1e-9)
    assert table["n_users"].item() == pairs["user"][y].nunique() < relevant["user"].nunique()
    with pytest.raises(ValueError, match="exclude contains every relevant pair"):
        evaluate_ranking(fitted, users, candidates, relevant, exclude=relevant)
    had = users[["user", "hist_item"]].explode("hist_item").set_axis(["user", "item"], axis=1)
    by_frame = evaluate_ranking(fitted, users, candidates, relevant, exclude=had)
    by_word = evaluate_ranking(fitted, users, candidates, relevant, exclude="history")
    pd.testing.assert_frame_equal(by_word, by_frame)


def test_a_baseline_is_scored_beside_the_model(fitted, users, candidates, relevant):
    candidates = candidates.assign(popularity=np.arange(len(candidates)) % 7)
    given, options = (fitted, users, candidates), {"k": [1, 5], "exclude": "history"}
    table = evaluate_ranking(*given, relevant, baseline="popularity", **options)
    assert table.index.tolist() == [(by, k) for by in ("model", "popularity") for k in (1, 5)]
    assert table.index.names == ["ranking", "k"]
    alone = evaluate_ranking(*given, relevant, **options)
    pd.testing.assert_frame_equal(table.loc["model"][alone.columns], alone)
    best = rank_candidates(*given, top_k=5, exclude="history", by="popularity")
    best = best.assign(user=users["user"].to_numpy()[best["row"]])
    n_hits = best.merge(relevant, on=["user", "item"]).groupby("user").size()
    assert table.loc[("popularity", 5), "hit_rate"] == len(n_hits) / alone["n_users"].iloc[0]


@pytest.mark.parametrize(("clicks", "popularity", "novelty"), [
    # of hat, shoe, sock, boot; ann's best are hat and sock, bob's shoe and hat
    ([8, 4, 2, 2], [(8 + 4) / 2, (5 + 6) / 2], [(1 + 2) / 2, (2 + 1.5) / 2]),
    ([1, 1, 0, 0], [1, (0.5 + 1) / 2], [1, 1]),  # 0 counts as the 1 of the rarest other
    ([0.5, 0.25, 0.25, np.nan], [0.375, 0.375], [1.5, 1.5]),
    ([-1, -2, 3, 0], [-1.5, (1 - 1.5) / 2], None),  # no shares of a sum
    ([0, 0, 0, 0], [0, 0], None),
])  # fmt: skip
def test_coverage_popularity_and_novelty_by_hand(by_hand, clicks, popularity, novelty):
    _, users, candidates = by_hand
    candidates = pd.DataFrame({"item": [*candidates["item"], "boot"], "clicks": clicks})
    relevant = pd.DataFrame({"user": ["ann", "bob"], "item": ["hat", "hat"]})
    table = evaluate_ranking(None, users, candidates, relevant, k=[1, 2], baseline="clicks")
    table = table.loc["model"]
    assert table["coverage"].tolist() == [2 / 4, 3 / 4]
    np.testing.assert_allclose(table["popularity"], popularity)
    assert ("novelty" in table) == (novelty is not None)
    if novelty is not None:
        np.testing.assert_allclose(table["novelty"], novelty)


def test_each_list_counts_alike_however_long_it_is(fitted, users, candidates, relevant):
    candidates = candidates.assign(clicks=np.arange(len(candidates)) ** 2)
    only = users[["user"]].merge(candidates[["item"]], how="cross")[3:]  # fewer of the first
    only = pd.concat([only[:2], only[len(candidates) :]])
    options = {"only": only, "k": 9, "baseline": "clicks"}
    given = fitted, users, candidates, relevant
    table = evaluate_ranking(*given, **options)
    asked = users[users["user"].isin(relevant["user"])]
    best = rank_candidates(fitted, asked, candidates, only=only, top_k=9)
    of_lists = [part["clicks"].mean() for _, part in best.groupby("row")]
    model = table.loc[("model", 9)]
    assert model["popularity"] == pytest.approx(np.mean(of_lists))
    assert model["coverage"] == best["item"].nunique() / len(candidates)
