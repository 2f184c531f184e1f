"""NDCG, recall, hit rate and MRR by group equal a loop, and the mean over every order of ties."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from sklearn_din import metrics
from sklearn_din.metrics import (
    group_hit_rate_score,
    group_mrr_score,
    group_ndcg_score,
    group_recall_score,
)


def ndcg(labels, k):
    discounts = 1 / np.log2(np.arange(2, 2 + len(labels)))
    return (labels * discounts)[:k].sum() / discounts[: min(k, labels.sum())].sum()


def recall(labels, k):
    return labels[:k].sum() / labels.sum()


def hit_rate(labels, k):
    return float(labels[:k].any())


def reciprocal_rank(labels, k):
    rank = np.flatnonzero(labels)[0] + 1
    return 1 / rank if rank <= k else 0.0


TWINS = {
    group_ndcg_score: ndcg,
    group_recall_score: recall,
    group_hit_rate_score: hit_rate,
    group_mrr_score: reciprocal_rank,
}
each_metric = pytest.mark.parametrize("score", TWINS, ids=lambda score: score.__name__)


def loop_over_groups_and_orders(metric, y_true, y_score, groups, k, weights):
    """The slow, obvious twin: every order of the rows that the scores allow, equally likely."""
    y_true, y_score, groups = np.asarray(y_true), np.asarray(y_score), np.asarray(groups)
    values, counts = [], []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        if not y_true[rows].any():
            continue
        orders = [np.array(order) for order in permutations(rows)]
        allowed = [o for o in orders if (y_score[o][1:] <= y_score[o][:-1]).all()]
        values.append(np.mean([metric(y_true[order], k) for order in allowed]))
        counts.append(np.mean(np.asarray(weights)[rows]))
    return np.average(values, weights=counts) if np.any(counts) else None


ROWS = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([-np.inf, 0.0, 0.25, np.inf]),
        st.integers(0, 2),
        st.sampled_from([0.0, 0.5, 3.0]),
    ),
    min_size=1,
    max_size=7,
)


@each_metric
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, k=st.sampled_from([1, 2, 3, 5, 20, None]), weighted=st.booleans())
def test_a_metric_is_the_mean_over_every_order_of_equal_scores(score, rows, k, weighted):
    y, scores, groups, weights = map(list, zip(*rows, strict=True))
    if not weighted or not any(weights):
        weights = [1.0] * len(rows)
    expected = loop_over_groups_and_orders(TWINS[score], y, scores, groups, k or 99, weights)
    if expected is None:
        with pytest.raises(ValueError, match="at least one group with a positive and a weight"):
            score(y, scores, groups=groups, k=k, sample_weight=weights)
    else:
        got = score(y, scores, groups=groups, k=k, sample_weight=weights)
        assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, None])
def test_ndcg_is_scikit_learns_in_each_group_ties_included(k):
    rng = np.random.default_rng(0)
    n_groups, n_rows = 30, 12
    y = (rng.random((n_groups, n_rows)) < 0.3).astype(int)
    scores = rng.integers(0, 5, (n_groups, n_rows)) / 4
    y[:, 0] = 1
    groups = np.repeat(np.arange(n_groups), n_rows)
    shuffled = rng.permutation(y.size)
    got = group_ndcg_score(
        y.ravel()[shuffled], scores.ravel()[shuffled], groups=groups[shuffled], k=k
    )
    assert got == pytest.approx(ndcg_score(y, scores, k=k), abs=1e-12)


@each_metric
def test_large_blocks_of_equal_scores_stay_exact(score):
    n, p, k = 20_000, 3, 10
    y = np.arange(n) < p
    none = np.prod([(n - p - i) / (n - i) for i in range(k)])
    first = [
        np.prod([(n - p - i) / (n - i) for i in range(j)]) * p / (n - j) for j in range(k)
    ]  # the first positive at place j
    discounts = 1 / np.log2(np.arange(2, 2 + k))
    expected = {
        group_ndcg_score: p / n * discounts.sum() / discounts[:p].sum(),
        group_recall_score: k / n,
        group_hit_rate_score: 1 - none,
        group_mrr_score: sum(chance / (j + 1) for j, chance in enumerate(first)),
    }[score]
    got = score(y, np.zeros(n), groups=np.zeros(n), k=k)
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("score", "k", "expected"),
    [
        # ann: positives at 1 and 3 of 3; bob: one at 2 of 2; cem has none
        (group_recall_score, 1, (1 / 2 + 0) / 2),
        (group_recall_score, 2, (1 / 2 + 1) / 2),
        (group_hit_rate_score, 1, (1 + 0) / 2),
        (group_hit_rate_score, 2, 1),
        (group_mrr_score, 1, (1 + 0) / 2),
        (group_mrr_score, 2, (1 + 1 / 2) / 2),
        (group_ndcg_score, 1, (1 + 0) / 2),
        (group_ndcg_score, 3, ((1 + 1 / 2) / (1 + 1 / np.log2(3)) + 1 / np.log2(3)) / 2),
    ],
)
def test_a_list_by_hand(score, k, expected):
    users = ["ann", "bob", "ann", "cem", "ann", "bob"]
    clicked = ["yes", "no", "no", "no", "yes", "yes"]
    scores = [0.9, 0.8, 0.5, 0.7, 0.1, 0.3]
    assert score(clicked, scores, groups=users, k=k) == pytest.approx(expected)


@each_metric
def test_groups_count_the_same_unless_weights_say_otherwise(score):
    y, scores = [1, 0, 0, 0, 0, 1], [0.9, 0.1, 0.1, 0.1, 0.5, 0.4]
    groups = [0, 0, 0, 0, 1, 1]
    assert score(y, scores, groups=groups, k=1) == 0.5
    assert score(y, scores, groups=groups, k=1, sample_weight=[3, 3, 3, 3, 1, 1]) == 0.75
    assert score(y, scores, groups=groups, k=1, sample_weight=[0, 0, 0, 0, 1, 1]) == 0.0


@each_metric
def test_the_order_of_rows_and_monotone_scores_change_nothing(score):
    rng = np.random.default_rng(1)
    y, scores, groups = rng.random(200) < 0.2, rng.integers(0, 9, 200), rng.integers(0, 15, 200)
    first = score(y, scores, groups=groups, k=3)
    order = rng.permutation(200)
    again = score(y[order], np.exp(scores)[order], groups=groups[order].astype(str), k=3)
    assert first == pytest.approx(again, abs=1e-12)


@each_metric
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"k must be an integer of at least 1 or None \(the whole list\), got 0"),
        ({"k": True}, "k must be an integer of at least 1"),
        ({"y_true": [0, 0, 0]}, "got 0 groups with a positive among 2. Evaluate on rows that"),
        ({"y_true": [0, 1, 2]}, "y_true must have two labels, got 3"),
        ({"y_score": [0.1, np.nan, 0.2]}, "y_score must not be NaN, got 1"),
        ({"y_score": [[0.1, 0.9]] * 3}, "Pass the positive class only"),
        ({"groups": ["ann", None, "bob"]}, "groups must not be missing, got 1"),
        ({"groups": ["ann", "bob"]}, "inconsistent numbers of samples"),
        ({"sample_weight": [1, -1, 1]}, "sample_weight must be finite, not negative"),
    ],
)
def test_a_wrong_input_is_refused_with_its_remedy(score, change, message):
    inputs = {"y_true": [0, 1, 1], "y_score": [0.1, 0.2, 0.3], "groups": ["ann", "ann", "bob"]}
    inputs |= change
    with pytest.raises(ValueError, match=message):
        score(inputs.pop("y_true"), inputs.pop("y_score"), **inputs)


@each_metric
def test_no_rows_at_all_are_refused(score):
    with pytest.raises(ValueError, match="got 0 groups with a positive among 0"):
        score([], [], groups=[])


def test_the_metrics_are_public():
    assert {score.__name__ for score in TWINS} <= set(metrics.__all__)
