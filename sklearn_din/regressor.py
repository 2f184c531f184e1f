"""DINRegressor: the classifier's network for numbers, such as watch time or ratings."""

import inspect
import re
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin

from sklearn_din.estimator import DINClassifier, DINEstimator
from sklearn_din.training.inputs import ImpressionsLike
from sklearn_din.training.parameters import NumberParameters
from sklearn_din.training.target import Numbers
from sklearn_din.utils.compat import _fit_context, constraints_of
from sklearn_din.utils.warnings import report_again


class DINRegressor(RegressorMixin, DINEstimator, NumberParameters):
    """Deep Interest Network for regression: watch time, a rating, a price paid.

    It is the network of :class:`DINClassifier` with a number as its output instead of log-odds.
    It is trained with the squared error on the standardized y.

    With ``loss="log1p"`` it is trained on log(1 + y), for targets such as watch times and prices
    with a few very large values. Predictions are transformed back; they are then close to the
    median of each row rather than its mean. If the mean matters, as for sums, use "squared".

    Parameters
    ----------
    loss : {"squared", "log1p"}, default="squared"
        Squared error of the number, or of log(1 + number), which requires numbers of at least 0.

    Attributes
    ----------
    net_ : skorch net
        As in :class:`DINClassifier`; it takes y, and outputs are standardized with the mean and
        standard deviation of the rows of ``fit``.
    module_, schema_, n_iter_, novelty_, n_features_in_, feature_names_in_
        As in :class:`DINClassifier`.
    history_ : DataFrame
        One row per validation check, as in :class:`DINClassifier`. The losses are squared errors
        divided by the variance of the rows of ``fit``: 1 is as good as predicting the mean, and 1
        - loss is about R2. There is no AUC.

    See Also
    --------
    DINClassifier : The same network for clicks; all that is said there of parameters holds here.

    Notes
    -----
    There are no item neighbours as inputs: those of the classifier learn from clicks, and
    computed from histories alone they did not help (R2 of MovieLens ratings .413 with, .423
    without; benchmarks/quality-results.md, "Numbers"). If the encoder knows users and times, the
    user's running mean of y, minus the mean of all rows, is an input of the default network.
    ``fit`` does not check whether histories contain the row's own event, since the check needs
    clicks.

    Examples
    --------
    >>> X = np.random.RandomState(0).normal(size=(300, 2)).astype("float32")
    >>> regressor = DINRegressor(random_state=0).fit(X, 60 + 10 * X[:, 0])
    >>> bool(regressor.score(X, 60 + 10 * X[:, 0]) > 0.9)
    True
    """

    _parameter_constraints: dict = constraints_of(NumberParameters)
    _kinds_of_target = (Numbers,)
    _target: Numbers

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ImpressionsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train the network, as :meth:`DINClassifier.fit` does.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            Impressions, one row per candidate shown. Arrays and frames are numeric throughout.
        y : array-like of shape (n,)
            Numbers.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss.
        groups : array-like of shape (n,), default=None
            With ``validation="groups"``: impressions of one group stay together. None: the users
            that the encoder was given.

        Returns
        -------
        self : DINRegressor
        """
        report_again()
        return self._learn(X, y, sample_weight, groups)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ImpressionsLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train on further rows in one pass, as :meth:`DINClassifier.partial_fit` does.

        The mean and standard deviation of y remain those of ``fit``.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``, or from the same encoder after its ``partial_fit``.
        y : array-like of shape (n,)
            Numbers.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss. The factors are scaled to mean one in each call.

        Returns
        -------
        self : DINRegressor
        """
        return self._learn_more(X, y, sample_weight)

    def predict(self, X: ImpressionsLike) -> np.ndarray:
        """Return a number for each impression; with ``loss="log1p"`` none is below zero.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        number : ndarray of shape (n,), float32
        """
        encoded = self._prepare_rows(X)  # first: it refuses where nothing is fitted
        return self._target.value_of(self.net_.score(encoded))


def _document_parameters() -> None:
    """Complete the regressor's docstring by the classifier's texts of the same parameters."""
    before, after = "Parameters\n----------\n", "\nAttributes\n"
    theirs, ours = (inspect.cleandoc(c.__doc__ or "") for c in (DINClassifier, DINRegressor))
    head, rest = ours.split(before)
    own, tail = rest.split(after)
    entry = re.compile(r"^(\w+) : .*default=.*\n(?:(?:    .*)?\n)+?(?=\S|\Z)", re.M)
    texts = {m[1]: m[0] for text in (theirs, own) for m in entry.finditer(text)}
    shared = "".join(texts[name] for name in inspect.signature(DINRegressor).parameters)
    DINRegressor.__doc__ = head + before + shared + after + tail


if DINRegressor.__doc__:  # python -OO has none
    _document_parameters()
