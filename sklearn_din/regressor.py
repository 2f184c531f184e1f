"""DINRegressor: the network of the classifier on numbers, such as watch time or ratings."""

import inspect
import re
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin

from sklearn_din.estimator import DINClassifier, DINEstimator
from sklearn_din.training.inputs import ImpressionsLike
from sklearn_din.training.parameters import NumberParameters, constraints_of
from sklearn_din.training.target import Numbers
from sklearn_din.utils.compat import _fit_context

if TYPE_CHECKING:
    pass


class DINRegressor(RegressorMixin, DINEstimator, NumberParameters):
    """Deep Interest Network for numbers: watch time, a rating, a price paid.

    The network of :class:`DINClassifier`, whose output is a number in place of log-odds. It
    trains on y less its mean and divided by its standard deviation, by squared error.

    With ``loss="log1p"`` that is log(1 + y), as for watch times and prices, of which a few are
    very large. Predictions are then numbers again, about the median of each row rather than its
    mean: where the mean counts, such as in sums, use "squared".

    Parameters
    ----------
    loss : {"squared", "log1p"}, default="squared"
        Squared error of the number, or of log(1 + number), which needs numbers from 0 on.

    Attributes
    ----------
    net_ : skorch net
        As of :class:`DINClassifier`; it takes y, and gives outputs, less the mean of the rows of
        ``fit`` and divided by their standard deviation.
    module_, schema_, n_iter_, novelty_, n_features_in_, feature_names_in_
        As of :class:`DINClassifier`.
    history_ : DataFrame
        One row per validation check, as of :class:`DINClassifier`. The losses are squared errors
        divided by the variance of the rows of ``fit``: 1 is as good as their mean, 1 - loss is
        about R2. There is no AUC.

    See Also
    --------
    DINClassifier : The same network for clicks; all that is said there of parameters holds here.

    Notes
    -----
    There are no item neighbours: those of the classifier learn from clicks, and counted from
    histories alone they gained nothing (R2 of MovieLens' ratings .413 with, .423 without;
    benchmarks/quality-results.md, "Numbers"). :class:`ItemNeighbours` before the regressor adds
    them. Nor does ``fit`` look for the row's own event in its history: it shows by clicks.

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
    def partial_fit(
        self, X: ImpressionsLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train on further rows by one pass, as :meth:`DINClassifier.partial_fit` does.

        Mean and standard deviation of y stay those of ``fit``.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``, or from the same encoder after its ``partial_fit``.
        y : array-like of shape (n,)
            Numbers.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss. Their mean becomes one in each call.

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
    before, after = "    Parameters\n    ----------\n", "\n    Attributes\n"
    head, rest = (DINRegressor.__doc__ or "").split(before)
    own, tail = rest.split(after)
    entry = re.compile(r"^    (\w+) : .*default=.*\n(?:(?:        .*)?\n)+?(?=    \S|\Z)", re.M)
    texts = {
        m[1]: m[0] for text in (DINClassifier.__doc__ or "", own) for m in entry.finditer(text)
    }
    shared = "".join(texts[name] for name in inspect.signature(DINRegressor).parameters)
    DINRegressor.__doc__ = head + before + shared + after + tail


if DINRegressor.__doc__:  # python -OO has none
    _document_parameters()
