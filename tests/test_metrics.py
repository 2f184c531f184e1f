"""Metrics agree with a loop over groups and with numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sklearn_din.metrics import (
    correct_for_sampling,
    expected_calibration_error,
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


IMPRESSIONS = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([-np.inf, -3.0, 0.0, 0.1, 0.25, 7.5, np.inf]),
        st.integers(0, 4),
        st.sampled_from([0.0, 1e-9, 0.3, 1.0, 2.5, 1e6]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(IMPRESSIONS, st.booleans())
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


@pytest.fixture
def impressions():
    return pd.DataFrame(
        {
            "user": ["ann", "ann", "bob", "bob", "bob", "cem"],
            "score": [0.9, 0.1, 0.8, 0.3, 0.5, 0.6],
            "clicked": [1, 0, 0, 1, 1, 1],
        }
    )


def test_one_group_is_plain_auc(impressions):
    y, score = impressions["clicked"], impressions["score"]
    assert group_roc_auc_score(y, score, groups=[0] * 6) == pytest.approx(roc_auc_score(y, score))


def test_a_group_weighs_as_many_impressions_as_it_has(impressions):
    got = group_roc_auc_score(
        impressions["clicked"], impressions["score"], groups=impressions["user"]
    )
    assert got == 2 / 5  # ann: AUC 1, weight 2; bob: AUC 0, weight 3; cem has clicks only


def test_a_doubled_weight_is_a_doubled_row(impressions):
    doubled = pd.concat([impressions, impressions.iloc[1:4]])
    weighted = group_roc_auc_score(
        impressions["clicked"],
        impressions["score"],
        groups=impressions["user"],
        sample_weight=[1, 2, 2, 2, 1, 1],
    )
    repeated = group_roc_auc_score(doubled["clicked"], doubled["score"], groups=doubled["user"])
    assert weighted == pytest.approx(repeated)


def test_row_order_does_not_matter(impressions):
    shuffled = impressions.sample(frac=1, random_state=0)
    scores = {
        group_roc_auc_score(frame["clicked"], frame["score"], groups=frame["user"])
        for frame in (impressions, shuffled)
    }
    assert len(scores) == 1


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([True, False, False, True, True, True]),
        np.array(["yes", "no", "no", "yes", "yes", "yes"]),
        pd.Series(["yes", "no", "no", "yes", "yes", "yes"], dtype="category"),
        pd.Series([1, 0, 0, 1, 1, 1], dtype="Int64"),
        [1, -1, -1, 1, 1, 1],
    ],
)
@pytest.mark.parametrize("group_type", [str, "category", "string"])
def test_any_two_labels_and_any_groups_will_do(impressions, labels, group_type):
    groups = impressions["user"].astype(group_type)
    assert group_roc_auc_score(labels, impressions["score"], groups=groups) == 2 / 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": [0, 1, 2]}, r"y_true must have two labels, got 3: .* y_true >= 4"),
        ({"y_true": [0, 1, np.nan]}, r"y_true must not be missing, got 1 missing labels"),
        ({"y_true": [0, 1]}, r"inconsistent numbers of samples: \[2, 3, 3\]"),
        ({"y_true": [1, 1, 1]}, r"at least one group with both classes, got 2 groups"),
        ({"y_score": [0.1, np.nan, 0.3]}, r"y_score must not be NaN, got 1 NaN"),
        ({"y_score": np.ones((3, 2))}, r"shape \(3, 2\)\. Pass .* predict_proba\(X\)\[:, 1\]"),
        ({"groups": ["ann", None, "bob"]}, r"groups must not be missing, got 1 impressions"),
        ({"groups": ["ann"]}, r"inconsistent numbers of samples: \[3, 3, 1\]"),
        ({"sample_weight": [1, 1]}, r"sample_weight must have 3 values, got 2"),
        ({"sample_weight": [1, -1, 1]}, r"sample_weight must be finite.* from -1\.0 to 1\.0"),
        ({"sample_weight": [0, 0, 0]}, r"not zero throughout"),
        (
            {"y_true": [], "y_score": [], "groups": []},
            r"at least one group with both classes, got 0 groups",
        ),
    ],
)
def test_gauc_says_what_is_wrong(change, message):
    good = {"y_true": [0, 1, 1], "y_score": [0.1, 0.2, 0.3], "groups": ["ann", "ann", "bob"]}
    with pytest.raises(ValueError, match=message):
        group_roc_auc_score(**(good | change))


@pytest.mark.parametrize(
    ("score", "base", "expected"), [(0.75, 0.75, 0), (1.0, 0.75, 1), (0.5, 0.6, -1)]
)
def test_relative_improvement_counts_from_a_random_ranking(score, base, expected):
    assert relative_improvement(score, base) == pytest.approx(expected)


@pytest.mark.parametrize("base", [0.5, 0.4])
def test_relative_improvement_needs_a_base_that_knows_something(base):
    with pytest.raises(ValueError, match=r"base_score must be above 0\.5.*compare the scores"):
        relative_improvement(0.7, base)


@pytest.mark.parametrize(
    ("y", "prob", "weight", "expected"),
    [
        ([0, 1, 0, 1], [0.2, 0.2, 0.8, 0.8], None, 0.3),
        ([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0], None, 0.0),
        ([0, 1, 0, 1], [0.2, 0.2, 0.8, 0.8], [4, 1, 1, 4], 0.0),
        ([0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], None, 0.5),
    ],
)
def test_calibration_error_by_hand(y, prob, weight, expected):
    got = expected_calibration_error(y, prob, n_bins=2, sample_weight=weight)
    assert got == pytest.approx(expected)


def test_calibration_error_is_the_mean_gap_of_equal_bins():
    rng = np.random.default_rng(0)
    prob = rng.permutation(1000) / 1000
    y = rng.random(1000) < prob**2
    order = np.argsort(prob)
    gaps = [abs(y[rows].mean() - prob[rows].mean()) for rows in np.array_split(order, 10)]
    assert expected_calibration_error(y, prob) == pytest.approx(np.mean(gaps))


def test_calibration_error_speaks_of_probabilities():
    with pytest.raises(ValueError, match=r"\[0, 1\], got values from -2\.0 to 0\.5.*not decisions"):
        expected_calibration_error([0, 1], [-2.0, 0.5])
    with pytest.raises(ValueError, match=r"n_bins must be at least 1, got 0"):
        expected_calibration_error([0, 1], [0.2, 0.5], n_bins=0)


def test_correction_makes_a_model_of_sampled_negatives_calibrated():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 1))
    y = rng.random(60_000) < 1 / (1 + np.exp(2 - X[:, 0]))
    kept = y | (rng.random(60_000) < 0.1)
    prob = LogisticRegression().fit(X[kept], y[kept]).predict_proba(X)[:, 1]
    corrected = correct_for_sampling(prob, sampling_rate=0.1)
    assert expected_calibration_error(y, prob) > 0.2
    assert expected_calibration_error(y, corrected) < 0.01
    np.testing.assert_array_equal(np.argsort(prob), np.argsort(corrected))


def test_correction_undoes_the_sampling_of_the_odds():
    np.testing.assert_allclose(correct_for_sampling([0, 0.3, 1], sampling_rate=1), [0, 0.3, 1])
    [corrected] = correct_for_sampling([0.9], sampling_rate=0.2)
    assert corrected / (1 - corrected) == pytest.approx(0.2 * 0.9 / 0.1)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, np.nan])
def test_correction_wants_a_share(rate):
    with pytest.raises(ValueError, match=r"sampling_rate must be the share of negatives kept"):
        correct_for_sampling([0.5], sampling_rate=rate)


def test_correction_takes_the_positive_class_only():
    with pytest.raises(ValueError, match=r"shape \(1, 2\)\. Pass .* predict_proba\(X\)\[:, 1\]"):
        correct_for_sampling([[0.5, 0.5]], sampling_rate=0.5)
