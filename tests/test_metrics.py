"""Metrics agree with loops over groups and orders of ties, and with numbers worked out by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sklearn_din.metrics import (
    correct_for_sampling,
    group_hit_rate_score,
    group_mrr_score,
    group_ndcg_score,
    group_recall_score,
    group_roc_auc_score,
    relative_improvement,
)


def loop_gauc(y_true, y_score, groups, sample_weight=None):
    """The slow, obvious twin: one roc_auc_score per group."""
    y_true, y_score, groups = np.asarray(y_true), np.asarray(y_score), np.asarray(groups)
    weight = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight)
    total = weight_sum = 0.0
    for group in np.unique(groups):
        rows = (groups == group) & (weight > 0)
        if len(np.unique(y_true[rows])) == 2:
            auc = roc_auc_score(y_true[rows], y_score[rows], sample_weight=weight[rows])
            total += weight[rows].sum() * auc
            weight_sum += weight[rows].sum()
    return total / weight_sum if weight_sum else None


IMPRESSIONS = st.lists(st.tuples(
    st.booleans(),
    st.sampled_from([-np.inf, -3.0, 0.0, 0.1, 0.25, 7.5, np.inf]),
    st.integers(0, 4),
    st.sampled_from([0.0, 1e-9, 0.3, 1.0, 2.5, 1e6]),
), min_size=1, max_size=40)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(IMPRESSIONS, st.booleans())
@pytest.mark.slow
def test_gauc_agrees_with_a_loop_over_groups(impressions, weighted):
    y, score, groups, weight = map(list, zip(*impressions, strict=True))
    weight = weight if weighted and any(weight) else None
    finite = np.nan_to_num(score, posinf=99.0, neginf=-99.0)  # roc_auc_score refuses infinity
    expected = loop_gauc(y, finite, groups, weight)
    if expected is None:
        with pytest.raises(ValueError, match="at least one group with both classes"):
            group_roc_auc_score(y, score, groups=groups, sample_weight=weight)
    else:
        got = group_roc_auc_score(y, score, groups=groups, sample_weight=weight)
        assert got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("labels", [
    pd.Series([True, False, False, True, True, True]),
    np.array(["yes", "no", "no", "yes", "yes", "yes"]),
    pd.Series(["yes", "no", "no", "yes", "yes", "yes"], dtype="category"),
    pd.Series([1, 0, 0, 1, 1, 1], dtype="Int64"),
    [1, -1, -1, 1, 1, 1],
])  # fmt: skip
@pytest.mark.parametrize("group_type", [str, "category", "string"])
def test_any_two_labels_and_any_groups_will_do(labels, group_type):
    groups = pd.Series(["ann", "ann", "bob", "bob", "bob", "cem"]).astype(group_type)
    got = group_roc_auc_score(labels, [0.9, 0.1, 0.8, 0.3, 0.5, 0.6], groups=groups)
    assert got == 2 / 5  # ann: AUC 1, weight 2; bob: AUC 0, weight 3; cem has clicks only


def test_improvement_counts_from_a_random_ranking_and_correction_undoes_sampling():
    for score, base, expected in ((0.75, 0.75, 0), (1.0, 0.75, 1), (0.5, 0.6, -1)):
        assert relative_improvement(score, base) == pytest.approx(expected)
    np.testing.assert_allclose(correct_for_sampling([0, 0.3, 1], sampling_rate=1), [0, 0.3, 1])
    [corrected] = correct_for_sampling([0.9], sampling_rate=0.2)
    assert corrected / (1 - corrected) == pytest.approx(0.2 * 0.9 / 0.1)


def ndcg(labels, k):
    discounts = 1 / np.log2(np.arange(2, 2 + len(labels)))
    return (labels * discounts)[:k].sum() / discounts[: min(k, labels.sum())].sum()


def reciprocal_rank(labels, k):
    rank = np.flatnonzero(labels)[0] + 1
    return 1 / rank if rank <= k else 0.0


TWINS = {
    group_ndcg_score: ndcg,
    group_recall_score: lambda labels, k: labels[:k].sum() / labels.sum(),
    group_hit_rate_score: lambda labels, k: float(labels[:k].any()),
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


ROWS = st.lists(st.tuples(
    st.booleans(),
    st.sampled_from([-np.inf, 0.0, 0.25, np.inf]),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.5, 3.0]),
), min_size=1, max_size=7)  # fmt: skip


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


@each_metric
def test_large_blocks_of_equal_scores_stay_exact(score):
    n, p, k = 20_000, 3, 10
    y = np.arange(n) < p
    none = np.prod([(n - p - i) / (n - i) for i in range(k)])
    without = [np.prod([(n - p - i) / (n - i) for i in range(j)]) for j in range(k)]
    first = [chance * p / (n - j) for j, chance in enumerate(without)]  # positive at place j
    discounts = 1 / np.log2(np.arange(2, 2 + k))
    expected = {
        group_ndcg_score: p / n * discounts.sum() / discounts[:p].sum(),
        group_recall_score: k / n,
        group_hit_rate_score: 1 - none,
        group_mrr_score: sum(chance / (j + 1) for j, chance in enumerate(first)),
    }[score]
    got = score(y, np.zeros(n), groups=np.zeros(n), k=k)
    assert got == pytest.approx(expected, rel=1e-6)
