"""A scorer whose score needs the group of each impression: from a column of X or by metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import make_scorer


class GroupScorer:
    """A scorer ``(estimator, X, y)`` around ``make_scorer`` that finds the groups.

    Parameters
    ----------
    score : callable
        ``score(y_true, y_score, *, groups, sample_weight=None)``, larger is better.
    groups : str or None
        Name of the column of X that holds the groups. None: they come as metadata.
    """

    _response_method = ("decision_function", "predict_proba")

    def __init__(self, score: Callable[..., float], groups: str | None) -> None:
        self._score = score
        self._groups = groups
        self._scorer = make_scorer(score, response_method=self._response_method)

    def __call__(
        self,
        estimator: BaseEstimator,
        X: Any,
        y_true: ArrayLike,
        sample_weight: ArrayLike | None = None,
        **metadata: Any,
    ) -> float:
        """Return the score of the estimator's ranking of X."""
        if self._groups is None and "groups" not in metadata:
            raise ValueError(
                "group_roc_auc_scorer() got no groups. Name the column of X that holds them, "
                "as in group_roc_auc_scorer('user'), or pass groups by metadata routing: "
                "sklearn.set_config(enable_metadata_routing=True), "
                "scorer.set_score_request(groups=True) and groups in the metadata."
            )
        scorer = self._scorer
        if self._groups is not None:
            scorer = make_scorer(
                self._score, response_method=self._response_method, groups=self._column(X)
            )
        if sample_weight is not None:
            metadata["sample_weight"] = sample_weight
        return scorer(estimator, X, y_true, **metadata)

    def __repr__(self) -> str:
        return f"group_roc_auc_scorer(groups={self._groups!r})"

    def set_score_request(self, **requests: bool | str | None) -> GroupScorer:
        """Say which metadata (``groups``, ``sample_weight``) the scorer wants; return self."""
        self._scorer.set_score_request(**requests)
        return self

    def get_metadata_routing(self) -> Any:
        """Return the metadata request; groups of a column are never asked for."""
        routing = self._scorer.get_metadata_routing()
        if self._groups is not None:
            # The splitter may want groups: passing them must not be an error here.
            routing.score.add_request(param="groups", alias=False)
        return routing

    def _accept_sample_weight(self) -> bool:  # asked by scikit-learn's multimetric scoring
        return True

    def _column(self, X: Any) -> ArrayLike:
        columns = getattr(X, "columns", None)
        if columns is None:
            raise ValueError(
                f"{self!r} reads a column of X, got a {type(X).__name__} without columns. Pass X "
                "as a DataFrame (put the encoder into the Pipeline), or leave groups out and use "
                "metadata routing."
            )
        if self._groups not in columns:
            raise ValueError(
                f"{self!r} reads a column of X, but X has only {list(columns)}. Keep "
                f"{self._groups!r} in X and let the first step of the Pipeline drop it, or leave "
                "groups out and use metadata routing."
            )
        return X[self._groups]
