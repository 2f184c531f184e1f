"""What the classifier is given: parameters, encoded features or plain numbers, labels, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _num_samples, check_array, validate_data
from skorch.callbacks import Callback

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Field, Schema


def check_parameters(estimator: Any) -> None:
    """Raise where a parameter is wrong in a way that its scikit-learn constraint cannot say.

    Parameters
    ----------
    estimator : DINClassifier
    """
    _check_units(estimator.attention_units, name="attention_units")
    _check_units(estimator.hidden_units, name="hidden_units")
    if not len(estimator.attention_units):
        got = estimator.attention_units
        raise ValueError(f"attention_units must have at least one layer, got {got!r}.")
    if isinstance(estimator.embedding_dim, Mapping):
        for column, width in estimator.embedding_dim.items():
            if not _is_count(width):
                raise ValueError(
                    f"embedding_dim[{column!r}] must be an integer of at least 1, got {width!r}."
                )
    for item in estimator.callbacks or []:
        is_named = isinstance(item, tuple | list) and len(item) == 2
        callback = item[1] if is_named else item
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not is_class and not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks must be skorch callbacks, such as EarlyStopping(), got {callback!r}."
            )
    _check_device(estimator.device)


def _check_units(units: Any, *, name: str) -> None:
    if not all(map(_is_count, units)):
        raise ValueError(f"{name} must be whole numbers from 1, got {units}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _check_device(device: str) -> None:
    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:0', got {device!r}."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a CUDA GPU and a torch build for it. Use device='auto'."
        )


def check_class_weight(class_weight: Any, classes: np.ndarray) -> None:
    """Raise where a dict of class weights names labels that y does not have."""
    if not isinstance(class_weight, dict):
        return
    labels = classes.tolist()
    if not set(class_weight) <= set(labels):
        raise ValueError(f"class_weight must name the labels {labels}, got {list(class_weight)}.")


def check_encoded(
    estimator: Any, X: Any, y: Any = "no_validation", *, reset: bool
) -> tuple[EncodedFeatures, Any]:
    """Return X as EncodedFeatures, checked against what the estimator was fitted on.

    Parameters
    ----------
    estimator : DINClassifier
        Gets ``n_features_in_`` and ``feature_names_in_`` where ``reset``.
    X : EncodedFeatures, array-like or DataFrame
        Arrays and frames become numeric columns.
    y : array-like, default="no_validation"
        Labels, in ``fit``.
    reset : bool
        Whether this is ``fit``.

    Returns
    -------
    X : EncodedFeatures
    y : ndarray of shape (n,)
        As given where it is not validated.
    """
    if isinstance(X, EncodedFeatures):
        return _check_features(estimator, X, y, reset=reset)
    if not reset and estimator._fitted_on_encoded:
        raise ValueError(
            f"{type(estimator).__name__} was fitted on EncodedFeatures, got "
            f"{type(X).__name__}. Put HistorySequenceEncoder and the classifier in one Pipeline "
            "and give the whole Pipeline to the tool at hand (BaggingClassifier and "
            "permutation_importance turn what reaches a bare classifier into arrays)."
        )
    _check_numeric_frame(X)
    checked = validate_data(estimator, X, y, reset=reset, dtype=np.float32)
    numbers, y = checked if isinstance(checked, tuple) else (checked, y)
    if reset:
        estimator._fitted_on_encoded = False
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(numbers.shape[1])])
    schema = Schema(tuple(Field(name, "numeric") for name in names))
    columns = {name: np.ascontiguousarray(numbers[:, i]) for i, name in enumerate(names)}
    return EncodedFeatures(schema, columns), y


def _check_features(
    estimator: Any, X: EncodedFeatures, y: Any, *, reset: bool
) -> tuple[EncodedFeatures, Any]:
    if reset:
        if y is None:
            raise ValueError(
                f"{type(estimator).__name__} requires y to be passed, but the target y is None."
            )
        if not len(X):
            raise ValueError("fit needs at least one impression, got zero rows.")
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        estimator._fitted_on_encoded = True
        estimator.n_features_in_ = X.shape[1]
        estimator.feature_names_in_ = np.array(X.schema.feature_names_out(), dtype=object)
        return X, y
    if not estimator._fitted_on_encoded:
        raise ValueError(
            f"{type(estimator).__name__} was fitted on a plain array or frame, got "
            "EncodedFeatures. Fit it on the encoder's output as well."
        )
    difference = estimator.schema_.difference(X.schema)
    if difference:
        raise ValueError(
            f"X comes from another encoder than the one the classifier was fitted with: "
            f"{difference}. Transform with that encoder, or fit both again as one Pipeline."
        )
    return X, y


def _check_numeric_frame(X: Any) -> None:
    if not isinstance(X, pd.DataFrame):
        return
    others = []
    for name, column in X.items():
        if pd.api.types.is_object_dtype(column.dtype):
            is_number = column.map(lambda cell: np.ndim(cell) == 0 and not isinstance(cell, str))
        else:
            is_number = pd.Series(pd.api.types.is_numeric_dtype(column.dtype))
        if not is_number.all():
            others.append(str(name))
    if others:
        raise ValueError(
            f"a frame given to the classifier must hold numbers only, got {others}. "
            "Put HistorySequenceEncoder before it in a Pipeline."
        )


def check_binary_target(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the two classes in order, and 1 for the larger one.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels: numbers, strings or booleans.

    Returns
    -------
    classes : ndarray of shape (2,)
    clicks : ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        For missing labels, one class, or more than two.

    Examples
    --------
    >>> check_binary_target(["skip", "click", "skip"])
    (array(['click', 'skip'], dtype='<U5'), array([1, 0, 1]))
    """
    y = np.asarray(y)
    n_missing = int(pd.isna(y).sum())
    if n_missing:
        raise ValueError(f"y must not be missing, got {n_missing} NaN labels. Drop those rows.")
    check_classification_targets(y)
    target = type_of_target(y, input_name="y", raise_unknown=True)
    classes, clicks = np.unique(y, return_inverse=True)
    if len(classes) > 2:
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {target}: "
            f"y has {len(classes)} classes, {classes[:5].tolist()} among them. "
            "Make it click or no click first."
        )
    if len(classes) < 2:
        raise ValueError(
            f"y must have two classes, got one class only: {classes.tolist()}. "
            "A click log holds clicks only: sample_negatives adds what was not clicked."
        )
    return classes, clicks


def check_rows(values: Any, n_rows: int, *, name: str, numeric: bool = True) -> Any:
    """Return a 1-D array with one value an impression, or None.

    Parameters
    ----------
    values : array-like of shape (n_rows,) or None
        Weights or groups.
    n_rows : int
        Number of impressions.
    name : str
        For the error.
    numeric : bool, default=True
        Whether the values must be finite numbers.

    Returns
    -------
    values : ndarray of shape (n_rows,) or None

    Examples
    --------
    >>> check_rows([1, 2], 2, name="sample_weight")
    array([1., 2.])
    """
    if values is None:
        return None
    if numeric:
        values = check_array(values, ensure_2d=False, dtype=np.float64, input_name=name)
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be 1D, got {values.ndim} dimensions.")
    if _num_samples(values) != n_rows:
        raise ValueError(f"{name} must have one value a row: {n_rows}, got {len(values)}.")
    return values
