"""scikit-learn's own checks on the encoder, with the defaults as they ship."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_din.transformers import HistorySequenceEncoder


@parametrize_with_checks([HistorySequenceEncoder()])
def test_encoder_keeps_scikit_learns_contract(estimator, check):
    check(estimator)
