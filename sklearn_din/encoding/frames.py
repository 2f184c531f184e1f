"""Checks of frames given to an encoder."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sklearn_din.encoding.table import is_history_name
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.utils.frames import pandas_frame
from sklearn_din.utils.validation import check_frame

TableLike: TypeAlias = "pd.DataFrame | pa.Table | ArrayLike"  # polars frames and scans too


def validate_frame(
    encoder: BaseEstimator, X: TableLike, *, reset: bool, droppable: Sequence[str | None] = ()
) -> pd.DataFrame:
    """Return X as a pandas frame with text column names and the columns of fit, in their order.

    Columns are taken by name, as ColumnTransformer takes them: after fit their order does not
    matter, and columns that fit did not see are left out.

    encoder : gets ``n_features_in_`` and ``feature_names_in_`` where ``reset``, which is ``fit``
    X : (n_rows, n_columns), a frame or array-like. Arrays become numeric columns x0, x1, ... or,
        where the encoder was fitted on a frame, that frame's columns by position
    droppable : columns of fit that may be absent
    frame : (n_rows, n_columns), the caller's own, never written to, where that is a pandas frame
    """
    if isinstance(X, EncodedFeatures):
        raise TypeError(
            "X is encoded already (EncodedFeatures). Give the encoder the frame of impressions, "
            "and its output to the classifier."
        )
    _check_is_table(X)
    fitted = None if reset else getattr(encoder, "feature_names_in_", None)
    frame = pandas_frame(X)
    if frame is None:
        return _array_frame(encoder, X, fitted, reset=reset)
    check_frame(frame, [], name="X")
    if not len(frame):
        raise ValueError(
            f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is "
            f"required by {type(encoder).__name__}."
        )
    present = set(frame.columns)
    expected = [] if fitted is None else [n for n in fitted if n in present or n not in droppable]
    if expected and present.issuperset(expected):
        return frame if list(frame.columns) == expected else frame[expected]
    try:
        validate_data(encoder, frame, reset=reset, skip_check_array=True)  # sets names
    except ValueError as error:
        gone = [name for name in expected if name not in present]
        if any(map(is_history_name, gone)):
            raise ValueError(
                f"{error}attach_history makes histories, HistoryBuilder before the encoder levels, "
                "too: of an ONNX file, load_onnx(path, memory=load('memory.din'))."
            ) from error
        if not gone:
            raise
        add = "with_columns" if hasattr(X, "with_columns") else "assign"  # of polars, of pandas
        raise ValueError(
            f"{error}Where a column is gone for good, fit again without it, or give it as missing "
            f"values: X.{add}(**dict.fromkeys({gone}))."
        ) from error
    if hasattr(encoder, "feature_names_in_"):
        return frame
    return frame.set_axis([f"x{n}" for n in range(frame.shape[1])], axis=1)


def _check_is_table(X: object) -> None:
    """Raise TypeError for a Series, records, a dict or a path in place of a table."""
    if isinstance(X, pd.Series):
        raise TypeError("X must be a DataFrame, got a Series. For one row use X.iloc[[i]].")
    is_records = isinstance(X, list) and bool(X) and isinstance(X[0], Mapping)
    is_dict = isinstance(X, Mapping) and not issparse(X)  # scipy's dok_array is a dict
    if X is None or is_records or is_dict or isinstance(X, str | PathLike):
        got = "list of dicts" if is_records else "None" if X is None else type(X).__name__
        raise TypeError(
            f"X must be a DataFrame with one row per impression, got {got}. Use pd.DataFrame(X); "
            "for one impression pd.DataFrame([record]); for a file pd.read_csv(path)."
        )


def _array_frame(
    encoder: BaseEstimator, X: ArrayLike, fitted: Sequence[str] | None, *, reset: bool
) -> pd.DataFrame:
    """Return an array as a frame: numeric at fit, named as at fit afterwards."""
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 2 and len(X):
        lists = [cell for cell in X[0] if isinstance(cell, list | tuple | np.ndarray)]
        if lists:  # what is left of a frame with histories where a step made one array of it
            raise ValueError(
                f"X is an array of objects with lists such as {lists[0]!r:.40} in its cells: the "
                "names of its columns are lost, and with them which history belongs to which "
                "candidate. Give a DataFrame; a ColumnTransformer makes one after "
                ".set_output(transform='pandas')."
            )
    array = validate_data(
        encoder,
        X,
        reset=reset,
        dtype="numeric" if fitted is None else None,
        ensure_all_finite="allow-nan",
    )
    names = [f"x{n}" for n in range(array.shape[1])] if fitted is None else list(fitted)
    frame = pd.DataFrame(array, columns=names)
    if reset:  # numeric throughout, whatever the dtype
        return frame.astype("float64")
    return frame
