"""A scorer whose score needs the group of each impression: from a column of X or by metadata."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import make_scorer
from sklearn.utils.metadata_routing import MetadataRequest


class GroupScorer:
    """A scorer ``(estimator, X, y)`` around ``make_scorer`` that finds the groups.

    ``score(y_true, y_score, *, groups, sample_weight=None)`` grows with quality. ``groups`` names
    a column of X; with None they come as metadata, or are the users that the encoder names.
    """

    _response_method = ("decision_function", "predict_proba")

    def __init__(self, score: Callable[..., float], groups: str | None) -> None:
        self._score = score
        self._groups = groups
        self._scorer = make_scorer(score, response_method=self._response_method)

    def __call__(
        self,
        estimator: BaseEstimator,
        X: object,
        y_true: ArrayLike,
        sample_weight: ArrayLike | None = None,
        **metadata: ArrayLike,
    ) -> float:
        """Return the score of the estimator's ranking of X."""
        scorer = self._scorer
        if self._groups is not None or "groups" not in metadata:
            groups = self._users(estimator, X) if self._groups is None else self._column(X)
            scorer = make_scorer(self._score, response_method=self._response_method, groups=groups)
        if sample_weight is not None:
            metadata["sample_weight"] = sample_weight
        return scorer(estimator, X, y_true, **metadata)

    def __repr__(self) -> str:
        return f"group_roc_auc_scorer(groups={self._groups!r})"

    def set_score_request(self, **requests: bool | str | None) -> GroupScorer:
        """Request metadata (``groups``, ``sample_weight``) for the scorer; return self."""
        self._scorer.set_score_request(**requests)
        return self

    def get_metadata_routing(self) -> MetadataRequest:
        """Return the metadata request; groups of a column are never asked for."""
        routing = self._scorer.get_metadata_routing()
        if self._groups is not None:
            # The splitter may want groups: passing them must not be an error here.
            routing.score.add_request(param="groups", alias=False)
        return routing

    def _accept_sample_weight(self) -> bool:  # asked by scikit-learn's multimetric scoring
        return True

    def _column(self, X: object) -> ArrayLike:
        groups = _column_of(X, self._groups)
        if groups is not None:
            return groups
        names = _column_names(X)
        if names is None:
            raise ValueError(
                f"{self!r} reads a column of X, got a {type(X).__name__} without columns. Pass X "
                "as a DataFrame (put the encoder into the Pipeline), or leave groups out and use "
                "metadata routing."
            )
        raise ValueError(
            f"{self!r} reads a column of X, but X has only {names}. Keep {self._groups!r} in X and "
            "let the first step of the Pipeline drop it, or leave groups out and use metadata "
            "routing."
        )

    def _users(self, estimator: BaseEstimator, X: object) -> ArrayLike:
        """Return the user of each row, where the encoder names them: a column of X or encoded X."""
        users = None if isinstance(X, pd.DataFrame) else getattr(X, "users", None)
        if users is not None:
            return users
        names = _list_user_columns(estimator)
        for name in names:
            users = _column_of(X, name)
            if users is not None:
                return users
        problem = "group_roc_auc_scorer() got no groups."
        if names:
            problem = f"X has no column {names[0]!r}, which the encoder calls the user."
        raise ValueError(
            f"{problem} Tell the Pipeline's encoder whose each row is, "
            "HistorySequenceEncoder(user='user'), and keep that column in X; or name the column "
            "of X that holds the groups, as in group_roc_auc_scorer('user'); or pass groups by "
            "metadata routing: sklearn.set_config(enable_metadata_routing=True), "
            "scorer.set_score_request(groups=True) and groups in the metadata."
        )


def _list_user_columns(estimator: BaseEstimator) -> list[str]:
    """Return the columns that the encoders inside an estimator call the user."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    inside = estimator.get_params().values() if hasattr(estimator, "get_params") else ()
    encoders = [step for step in (estimator, *inside) if hasattr(step, "inverse_transform_ids")]
    users = [getattr(encoder, "user", None) for encoder in encoders]
    return list(dict.fromkeys(user for user in users if user is not None))


def _column_names(X: object) -> list[object] | None:
    """Return the columns of a pandas, polars or Arrow frame; None for anything else."""
    names = getattr(X, "column_names", None)  # Arrow's: its ``columns`` are the values
    if names is None:
        names = getattr(X, "columns", None)
    return None if names is None else list(names)


def _column_of(X: object, name: str | None) -> ArrayLike | None:
    names = _column_names(X)
    return None if names is None or name not in names else X[name]  # type: ignore[index]
