"""scikit-learn's own checks on the classifier, with the defaults as they ship."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_din.estimator import DINClassifier

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "mini-batches are shuffled: a row given "
    "twice and a row of weight two meet other rows",
}


@parametrize_with_checks(
    [DINClassifier()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES
)
def test_classifier_keeps_scikit_learns_contract(estimator, check):
    check(estimator)
