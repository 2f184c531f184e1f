"""Checks of what the classifier is given: parameters, impressions, labels, weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, validate_data
from skorch.callbacks import Callback

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Field, Schema

Impressions = EncodedFeatures | pd.DataFrame | ArrayLike  # what the classifier takes as X


class FitInputs(NamedTuple):
    """Checked inputs of ``fit``.

    Plain arrays and frames have become numeric columns of X. ``classes`` are the two labels in
    order, the second one is the click; ``clicks`` and ``weights`` are float32 of shape (n,), the
    weights with a mean of one, or None where all are equal.
    """

    X: EncodedFeatures
    is_encoded: bool
    classes: np.ndarray
    clicks: np.ndarray
    weights: np.ndarray | None


def check_fit_inputs(
    estimator: BaseEstimator, X: Impressions, y: ArrayLike, sample_weight: ArrayLike | None
) -> FitInputs:
    """Check the parameters and everything that ``fit`` was given.

    scikit-learn's ``validate_data`` keeps ``n_features_in_`` and ``feature_names_in_`` of plain
    arrays and frames on the estimator.
    """
    check_parameters(estimator)
    if isinstance(X, EncodedFeatures):
        encoded, labels = X, labels_of_encoded(estimator, X, y)
    else:
        encoded, labels = numbers_and_labels(estimator, X, y, reset=True)
    classes, clicks = check_binary_target(labels)
    check_class_weight(estimator.class_weight, classes)
    check_embedding_dim(estimator.embedding_dim, encoded.schema)
    weights = check_weights(sample_weight, estimator.class_weight, labels)
    return FitInputs(encoded, isinstance(X, EncodedFeatures), classes, clicks, weights)


def check_partial_inputs(
    estimator: BaseEstimator,
    X: Impressions,
    y: ArrayLike,
    classes: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> FitInputs:
    """Check the parameters and everything that ``partial_fit`` was given.

    Where the estimator is fitted, X and y must be as those of earlier calls. X gets the newest
    schema: its own, or that of the classifier if X was encoded before.
    """
    check_parameters(estimator)
    read = _later_rows if hasattr(estimator, "net_") else _first_rows
    encoded, labels = read(estimator, X, y)
    known = _check_classes(classes, labels, getattr(estimator, "classes_", None))
    clicks = _check_labels(labels, known)
    check_class_weight(estimator.class_weight, known)
    check_embedding_dim(estimator.embedding_dim, encoded.schema)
    weights = check_weights(sample_weight, estimator.class_weight, known[clicks])
    is_encoded = isinstance(X, EncodedFeatures)
    return FitInputs(encoded, is_encoded, known, clicks.astype(np.float32), weights)


def _first_rows(
    estimator: BaseEstimator, X: Impressions, y: ArrayLike
) -> tuple[EncodedFeatures, np.ndarray]:
    if isinstance(X, EncodedFeatures):
        return X, labels_of_encoded(estimator, X, y)
    return numbers_and_labels(estimator, X, y, reset=True)


def _later_rows(
    estimator: BaseEstimator, X: Impressions, y: ArrayLike
) -> tuple[EncodedFeatures, np.ndarray]:
    schema, is_encoded = estimator.schema_, estimator._fitted_on_encoded
    if not isinstance(X, EncodedFeatures) and not is_encoded:
        return numbers_and_labels(estimator, X, y, reset=False)
    if isinstance(X, EncodedFeatures) and schema.is_prefix_of(X.schema):
        schema = X.schema
    encoded = check_features(estimator, X, schema=schema, is_encoded=is_encoded)
    labels = labels_of_encoded(estimator, encoded, y)
    if encoded.schema == schema:
        return encoded, labels
    newest = EncodedFeatures(
        schema,
        encoded.columns,
        encoded.behaviours,
        users=encoded.users,
        times=encoded.times,
        store=encoded.store,
    )
    return newest, labels


def _check_classes(
    classes: ArrayLike | None, labels: np.ndarray, known: np.ndarray | None
) -> np.ndarray:
    """Both labels in order: those of earlier calls, those given, or those that y holds."""
    present = pd.unique(labels[~pd.isna(labels)])
    if known is not None:
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), known):
            raise ValueError(
                f"classes must stay {known.tolist()} in all calls, got "
                f"{np.asarray(classes).tolist()}. For other labels call fit."
            )
        return known
    if classes is None and len(present) == 1:
        raise ValueError(
            f"y must have two classes, got one class only: {present.tolist()}. In the first call "
            "of partial_fit, name both: partial_fit(X, y, classes=[0, 1])."
        )
    given = np.unique(present if classes is None else np.asarray(classes))
    if len(given) != 2:
        raise ValueError(
            "Only binary classification is supported: classes must be two labels, got "
            f"{given[:5].tolist()}."
        )
    return given


def _check_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 1 where a label is the click, 0 elsewhere."""
    n_missing = int(pd.isna(labels).sum())
    if n_missing:
        raise ValueError(f"y must not be missing, got {n_missing} NaN labels. Drop those rows.")
    check_classification_targets(labels)
    others = pd.unique(labels[~pd.Series(labels).isin(classes).to_numpy()])
    if len(others):
        raise ValueError(
            f"y must hold the labels {classes.tolist()}, got {others[:5].tolist()}. For other "
            "labels call fit."
        )
    return (labels == classes[1]).astype(np.int64)


def numbers_and_labels(
    estimator: BaseEstimator, X: pd.DataFrame | ArrayLike, y: ArrayLike, *, reset: bool
) -> tuple[EncodedFeatures, np.ndarray]:
    """Check a plain array or frame and its labels; ``reset`` says that the fit begins with it."""
    _check_numeric_frame(X)
    numbers, labels = validate_data(estimator, X, y, reset=reset, dtype=np.float32)
    return _numeric_features(estimator, numbers), labels


def check_features(
    estimator: BaseEstimator, X: Impressions, *, schema: Schema, is_encoded: bool
) -> EncodedFeatures:
    """Return X as EncodedFeatures, checked against what the estimator was fitted on.

    That is a schema, of which X may lack ids that were appended since it was encoded, and whether
    it was EncodedFeatures (``is_encoded``) or a plain array or frame.
    """
    name = type(estimator).__name__
    if not isinstance(X, EncodedFeatures):
        if is_encoded:
            raise ValueError(
                f"{name} was fitted on EncodedFeatures, got {type(X).__name__}. Put "
                "HistorySequenceEncoder and the classifier in one Pipeline and give that Pipeline, "
                "and a frame, to the tool at hand. Two tools need another in their place: for "
                "permutation_importance, which shuffles the histories of the same events apart, "
                "take history_importance; for BaggingClassifier, which makes arrays of frames, a "
                "VotingClassifier of Pipelines."
            )
        _check_numeric_frame(X)
        numbers = validate_data(estimator, X, reset=False, dtype=np.float32)
        return _numeric_features(estimator, numbers)
    if not is_encoded:
        raise ValueError(
            f"{name} was fitted on a plain array or frame, got EncodedFeatures. Fit it on the "
            "encoder's output as well."
        )
    difference = schema.difference(X.schema)
    if difference and not X.schema.is_prefix_of(schema):
        if schema.is_prefix_of(X.schema):
            raise ValueError(
                f"X comes from an encoder that has learnt more ids since the classifier was "
                f"trained: {difference}. Train it on rows with them: {name}.partial_fit, or "
                "sklearn_din.update for the whole Pipeline."
            )
        raise ValueError(
            f"X comes from another encoder than the one the classifier was fitted with: "
            f"{difference}. Transform with that encoder, or fit both again as one Pipeline."
        )
    return X


def check_parameters(estimator: BaseEstimator) -> None:
    """Raise where a parameter is wrong in a way that its scikit-learn constraint cannot say."""
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


def _check_units(units: Sequence[int], *, name: str) -> None:
    if not all(map(_is_count, units)):
        raise ValueError(f"{name} must be whole numbers from 1, got {units}.")


def _is_count(value: object) -> bool:
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


def check_class_weight(
    class_weight: Mapping[Hashable, float] | str | None, classes: np.ndarray
) -> None:
    """Raise where a dict of class weights names labels that y does not have."""
    if not isinstance(class_weight, dict):
        return
    labels = classes.tolist()
    if not set(class_weight) <= set(labels):
        raise ValueError(f"class_weight must name the labels {labels}, got {list(class_weight)}.")


def check_embedding_dim(embedding_dim: int | Mapping[str, int], schema: Schema) -> None:
    """Raise where a dict of widths does not name every vocabulary."""
    sizes = schema.vocabulary_sizes
    if isinstance(embedding_dim, Mapping) and set(embedding_dim) != set(sizes):
        raise ValueError(
            f"embedding_dim must be an int or name every vocabulary once: {sorted(sizes)}, "
            f"got {sorted(embedding_dim)}."
        )


def labels_of_encoded(
    estimator: BaseEstimator, X: EncodedFeatures, y: ArrayLike | None
) -> np.ndarray:
    """Return the labels as an array, one for each of at least one impression."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    if not len(X):
        raise ValueError("fit needs at least one impression, got zero rows.")
    labels = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    return labels


def _numeric_features(estimator: BaseEstimator, numbers: np.ndarray) -> EncodedFeatures:
    """Columns of a plain array or frame as numbers."""
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(numbers.shape[1])])
    schema = Schema(tuple(Field(name, "numeric") for name in names))
    columns = {name: np.ascontiguousarray(numbers[:, i]) for i, name in enumerate(names)}
    return EncodedFeatures(schema, columns)


def _check_numeric_frame(X: pd.DataFrame | ArrayLike) -> None:
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


def check_binary_target(y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the two classes in order, and 1.0 for the larger one: (n,), float32.

    Examples
    --------
    >>> check_binary_target(["skip", "click", "skip"])
    (array(['click', 'skip'], dtype='<U5'), array([1., 0., 1.], dtype=float32))
    """
    y = np.asarray(y)
    n_missing = int(pd.isna(y).sum())
    if n_missing:
        raise ValueError(f"y must not be missing, got {n_missing} NaN labels. Drop those rows.")
    check_classification_targets(y)
    target = type_of_target(y, input_name="y", raise_unknown=True)
    classes = np.unique(y)
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
    return classes, (y == classes[1]).astype(np.float32)


def check_rows(values: ArrayLike, n_rows: int, *, name: str, numeric: bool = True) -> np.ndarray:
    """Return a 1-D array with one value per impression; ``numeric`` ones must be finite numbers.

    Examples
    --------
    >>> check_rows([1, 2], 2, name="sample_weight")
    array([1., 2.])
    """
    if numeric:
        values = check_array(values, ensure_2d=False, dtype=np.float64, input_name=name)
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be 1D, got {values.ndim} dimensions.")
    if len(values) != n_rows:
        raise ValueError(f"{name} must have one value per row: {n_rows}, got {len(values)}.")
    return values


def check_weights(
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Hashable, float] | str | None,
    labels: np.ndarray,
) -> np.ndarray | None:
    """Return the factor of each impression's loss, its class's included: (n,), float32.

    Their mean is one. None where neither weight is given.

    Examples
    --------
    >>> import numpy as np
    >>> check_weights([1, 1], {"click": 3}, np.array(["click", "skip"]))
    array([1.5, 0.5], dtype=float32)
    """
    weights = None
    if sample_weight is not None:
        weights = check_rows(sample_weight, len(labels), name="sample_weight")
    if class_weight is not None:
        by_class = compute_sample_weight(class_weight, labels)
        weights = by_class if weights is None else weights * by_class
    if weights is None:
        return None
    if weights.min() < 0 or weights.sum() <= 0:
        raise ValueError(
            "sample_weight must be zero or more, and not zero everywhere, got a minimum of "
            f"{weights.min():g} and a sum of {weights.sum():g}."
        )
    return (weights / weights.mean()).astype(np.float32)
