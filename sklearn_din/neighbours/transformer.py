"""ItemNeighbours: what everybody's histories say about the candidate, as columns for any model."""

from __future__ import annotations

from typing import Any

import numpy as np
from narwhals.typing import IntoDataFrameT
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_din._compat import StrOptions, _fit_context
from sklearn_din._estimator_state import EstimatorState, check_keys
from sklearn_din._frames import CallerFrame
from sklearn_din.encoding.roles import HistoriesParameter
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.neighbours.pairs import neighbour_scales
from sklearn_din.transformers import HistorySequenceEncoder


class ItemNeighbours(  # type: ignore[call-arg]
    EstimatorState, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Add numbers of item neighbours to a frame, for models other than the DIN.

    ``HistorySequenceEncoder`` gives the DIN these numbers by itself, where ``user`` or ``time`` is
    named. This transformer gives them to any model, a boosted tree for example: 13 columns for the
    attribute of each behaviour that has the most ids, and for others from 64 ids on.

    Parameters
    ----------
    user : str, default=None
        Column that says whose each row is.
    time : str, default=None
        Column that says when each row was: integers, floats or datetimes.
    neighbours : {"auto", "time", "user"}, default="auto"
        "time": each training row is told what was known before its block of time, for models that
        predict later rows. "user": it is told of other users alone, for models that predict users
        not seen at fit. "auto": "time" where ``time`` is named, otherwise "user".
    histories : "auto" or dict, default="auto"
        History column -> the candidate column that it is compared with. "auto": ``hist_x`` is
        compared with ``x``.

    Attributes
    ----------
    encoder_ : HistorySequenceEncoder
        Reads the columns.

    Notes
    -----
    As with scikit-learn's TargetEncoder, ``fit_transform`` differs from ``fit`` and ``transform``:
    it tells each training row of earlier blocks of rows alone, ``transform`` tells of all rows of
    fit. Train on ``fit_transform``, as a Pipeline does.

    Examples
    --------
    >>> import pandas as pd
    >>> shown = pd.DataFrame(
    ...     {
    ...         "user": ["ann", "bob", "cid", "dee", "eve"],
    ...         "item": ["hat", "sock", "hat", "sock", "hat"],
    ...         "hist_item": [["shoe"], ["shoe"], ["shoe"], ["shoe"], ["shoe"]],
    ...     }
    ... )
    >>> neighbours = ItemNeighbours(user="user").fit(shown, [1, 0, 1, 0, 1])
    >>> neighbours.transform(shown[["item", "hist_item"]])["hist_item_cosine_sum"].round(2)
    0    0.32
    1    0.00
    2    0.32
    3    0.00
    4    0.32
    Name: hist_item_cosine_sum, dtype: float32
    """

    _parameter_constraints: dict = {
        "user": [str, None],
        "time": [str, None],
        "neighbours": [StrOptions({"auto", "time", "user"})],
        "histories": "no_validation",
    }

    def __init__(
        self,
        *,
        user: str | None = None,
        time: str | None = None,
        neighbours: str = "auto",
        histories: HistoriesParameter = "auto",
    ) -> None:
        self.user = user
        self.time = time
        self.neighbours = neighbours
        self.histories = histories

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: IntoDataFrameT, y: ArrayLike | None = None) -> ItemNeighbours:
        """Learn which items go together.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns)
            Candidates and histories; other columns pass.
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked.

        Returns
        -------
        self
        """
        self._fit_encoded(CallerFrame(X, name="X"), y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: IntoDataFrameT, y: ArrayLike | None = None) -> IntoDataFrameT:
        """Learn which items go together, and tell each row of earlier blocks alone.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns)
            Candidates and histories; other columns pass.
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked.

        Returns
        -------
        frame of the kind of X
            X and the new columns.
        """
        frame = CallerFrame(X, name="X")
        return frame.with_columns(self._numbers(self._fit_encoded(frame, y)))

    def transform(self, X: IntoDataFrameT) -> IntoDataFrameT:
        """Add the columns to rows that were not trained on.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns)
            The columns seen at fit; ``user`` and ``time`` may be absent.

        Returns
        -------
        frame of the kind of X
            X and the new columns.
        """
        check_is_fitted(self)
        frame = CallerFrame(X, name="X")
        return frame.with_columns(self._numbers(self.encoder_.transform(X)))

    def _fit_encoded(self, frame: CallerFrame, y: ArrayLike | None) -> EncodedFeatures:
        if self.user is None and self.time is None:
            raise ValueError(
                "ItemNeighbours needs to know whose the rows are, or when they were, got "
                "user=None and time=None. Name the column: ItemNeighbours(user=...)."
            )
        self.encoder_ = HistorySequenceEncoder(
            histories=self.histories, user=self.user, time=self.time, neighbours=self.neighbours
        )
        return self.encoder_.fit_transform(frame.pandas, y)

    def _fitted_state(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        encoder = attributes.pop("encoder_", None)
        return None if encoder is None else {"encoder": encoder}

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        check_keys(fitted, {"encoder"})
        if type(fitted["encoder"]) is not HistorySequenceEncoder:
            raise ValueError("the encoder must be a HistorySequenceEncoder.")
        check_is_fitted(fitted["encoder"])
        self.encoder_ = fitted["encoder"]

    def _numbers(self, X: EncodedFeatures) -> dict[str, np.ndarray]:
        """The numbers before they were scaled, by column."""
        scales = neighbour_scales(self.encoder_._neighbours)
        return {name: X[name] * np.float32(scale) for name, scale in scales.items()}
