"""Diverse rankings are those of a loop that chooses one candidate after the other."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import Ranker, rank_candidates
from sklearn_din.serving.diversity import Diversity
from tests.fitted_pipelines import attach_clicks, make_model

WEIGHTS = [0.0, 0.1, 0.3, 0.5, 0.9, 1.0]


def choose_greedily(values, codes, weight, order):
    """The slow twin: the positions of all candidates of a user in the order they are chosen.

    ``order`` has the positions by probability, in which ties are decided.
    """
    least, span = min(values), max(values) - min(values)
    left, chosen = list(order), []
    while left:
        had = {codes[place] for place in chosen if not pd.isna(codes[place])}
        marginal = [
            (1 - weight) * ((values[place] - least) / span if span else 0.0)
            - weight * (codes[place] in had)
            for place in left
        ]
        chosen.append(left.pop(marginal.index(max(marginal))))
    return chosen


@pytest.mark.parametrize("weight", WEIGHTS)
def test_one_sort_gives_the_lists_of_the_greedy_loop_ties_included(weight):
    rng = np.random.default_rng(0)
    for n_candidates, n_codes in [(1, 1), (2, 1), (9, 3), (9, 9), (40, 4)] * 8:
        codes = rng.integers(-1, n_codes, n_candidates)
        lengths = rng.integers(0, n_candidates + 1, size=5)
        lists = [np.sort(rng.permutation(n_candidates)[:n]) for n in lengths]
        rows, positions = np.repeat(np.arange(5), lengths), np.concatenate(lists)
        scores = rng.integers(-4, 5, len(rows)) / 4  # ties
        values = np.maximum(scores, -0.5)  # more ties among values than among scores
        order = Diversity(codes, weight).reorder(rows, positions, scores, values)
        for row in range(5):
            of_row = np.flatnonzero(rows == row)
            kinds = [code if code >= 0 else np.nan for code in codes[positions[of_row]].tolist()]
            by_score = np.argsort(-scores[of_row], kind="stable").tolist()
            expected = choose_greedily(values[of_row], kinds, weight, by_score) if by_score else []
            assert np.argsort(-order[of_row]).tolist() == expected


def choose_from(full, weight, top_k):
    """The slow twin of a whole ranking: ``full`` has all that may be chosen, best first."""
    parts = []
    for _, part in full.groupby("row"):
        values, codes = part["probability"].to_numpy(), part["category"].tolist()
        chosen = choose_greedily(values, codes, weight, range(len(part)))[:top_k]
        parts.append(part.iloc[chosen].assign(rank=np.arange(1, len(chosen) + 1)))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("block", [65_536, 7])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("allowed", ["all", "exclude", "only"])
def test_the_choice_is_among_the_candidates_that_are_allowed(
    fitted, users, candidates, monkeypatch, allowed, weight, block
):
    monkeypatch.setattr("sklearn_din.serving.ranking.PAIRS_PER_BLOCK", block)
    every = users[["user"]].merge(candidates[["item"]], how="cross")
    some = every.sample(frac=0.4, random_state=0)
    options = {"all": {}, "exclude": {"exclude": some}, "only": {"only": some}}[allowed]
    full = rank_candidates(fitted, users, candidates, top_k=10**6, **options)
    options["diversify"] = {"category": weight}
    ranking = rank_candidates(fitted, users, candidates, top_k=8, **options)
    pd.testing.assert_frame_equal(ranking, choose_from(full, weight, 8), rtol=0, atol=1e-6)
    if weight == 0:
        pd.testing.assert_frame_equal(ranking, full[full["rank"] <= 8].reset_index(drop=True))
    if weight == 1 and allowed == "all":
        n_categories = candidates["category"].nunique()
        first = ranking[ranking["rank"] <= n_categories]
        assert (first.groupby("row")["category"].nunique() == n_categories).all()


def test_with_a_shortlist_the_choice_is_among_its_candidates():
    frame, y = attach_clicks(n_users=60, n_items=80, n_categories=5, random_state=0)
    model = make_model(max_epochs=1).fit(frame, y)
    items = frame.drop_duplicates("item")[["item", "category", "price"]]
    users = frame.drop(columns=items.columns)[-4:]
    ranker = Ranker(model, items, shortlist=20)
    full = ranker.rank(users, top_k=20, exclude="history")
    diverse = ranker.rank(users, top_k=8, exclude="history", diversify={"category": 0.3})
    pd.testing.assert_frame_equal(diverse, choose_from(full, 0.3, 8), rtol=0, atol=1e-6)
    assert diverse["item"].tolist() != full[full["rank"] <= 8]["item"].tolist()


def test_missing_values_repeat_nothing(fitted, users, candidates):
    candidates = candidates.assign(brand=None)
    plain = rank_candidates(fitted, users, candidates)
    diverse = rank_candidates(fitted, users, candidates, diversify={"brand": 0.9})
    pd.testing.assert_frame_equal(diverse, plain)
    one = rank_candidates(fitted, users, candidates.assign(brand="x"), diversify={"brand": 0.9})
    pd.testing.assert_series_equal(one["item"], plain["item"])  # all repeat alike
