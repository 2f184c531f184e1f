"""Checks of the estimators' inputs: parameters, impressions, y, weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, validate_data

from sklearn_din.features.encoded import OTHER_TOOLS, EncodedFeatures
from sklearn_din.features.schema import Field, Schema
from sklearn_din.network.layers import order_of_labels
from sklearn_din.training.parameters import ClickParameters, NumberParameters
from sklearn_din.training.target import Click, Labels, Numbers, Target, is_missing
from sklearn_din.utils.warnings import log_once, warn_user

if TYPE_CHECKING:
    import pandas as pd
    from skorch.callbacks import Callback

MANY_ROWS = 200  # which label is the click is said from here on
COMMON = 0.5  # clicks are rarer

ImpressionsLike: TypeAlias = "EncodedFeatures | pd.DataFrame | ArrayLike"  # the classifier's X


class NetworkEstimator(Protocol):
    """An estimator as checks need it: parameters of both kinds, and what a fitted one learnt."""

    embedding_dim: int | Mapping[str, int]
    attention_units: tuple[int, ...]
    hidden_units: tuple[int, ...]
    callbacks: list[Callback] | None
    device: str
    schema_: Schema
    _target: Target
    _fitted_on_encoded: bool


class FitInputs(NamedTuple):
    """Checked inputs of ``fit``; ``y``, as the target encodes it, and ``weights`` are float32.

    Plain arrays and frames have become numeric columns of X. Weights have a mean of one.
    """

    X: EncodedFeatures
    is_encoded: bool
    target: Target
    y: np.ndarray
    weights: np.ndarray | None


def check_inputs(
    estimator: NetworkEstimator,
    X: ImpressionsLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    *,
    is_partial: bool = False,
    classes: ArrayLike | None = None,
) -> FitInputs:
    """Check the parameters and everything that ``fit``, or ``partial_fit``, was given.

    In ``partial_fit`` of a fitted estimator X and y must be as those of earlier calls; X gets the
    newest schema: its own, or that of the classifier.
    """
    check_parameters(estimator)
    is_later = is_partial and hasattr(estimator, "net_")
    encoded, values = _rows_and_y(estimator, X, y, is_later=is_later)
    if values.dtype == np.float16:  # not supported by pandas.Index
        values = values.astype(np.float32)
    fitted = estimator._target if is_later else None
    target: Target
    class_weight = estimator.class_weight if isinstance(estimator, ClickParameters) else None
    if isinstance(estimator, NumberParameters):
        values = check_rows(values, len(values), name="y")
        target = _read_numbers(values, estimator.loss, cast(Numbers | None, fitted))
    elif values.ndim == 2:
        several = cast(ClickParameters, estimator)
        target = _read_several(several, y, values, fitted, is_partial=is_partial, classes=classes)
    else:
        if isinstance(fitted, Labels):
            check_label_columns(y, list(fitted.names))
        if isinstance(fitted, Click):
            from sklearn_din.utils.labels import as_classes  # and pandas

            values = as_classes(values, fitted.classes)
        target = _read_label(
            values, cast(Click | None, fitted), is_partial=is_partial, classes=classes
        )
        labels = target.classes.tolist()
        if isinstance(class_weight, dict) and not set(class_weight) <= set(labels):
            got = list(class_weight)
            raise ValueError(f"class_weight must name the labels {labels}, got {got}.")
        if not is_later:
            warn_of_flip(y, labels)
    widths, sizes = estimator.embedding_dim, encoded.schema.vocabulary_sizes
    if isinstance(widths, Mapping) and set(widths) != set(sizes):
        raise ValueError(
            f"embedding_dim must be an int or name every vocabulary once: {sorted(sizes)}, "
            f"got {sorted(widths)}."
        )
    weights = check_weights(sample_weight, class_weight, values)
    encoded_y = target.encode(values)
    return FitInputs(encoded, isinstance(X, EncodedFeatures), target, encoded_y, weights)


def _read_several(
    estimator: ClickParameters,
    y: Any,
    values: np.ndarray,
    fitted: Any,
    *,
    is_partial: bool,
    classes: Any,
) -> Labels:
    """Return the target of several labels, which are named by their columns."""
    import pandas as pd

    from sklearn_din.utils.frames import pandas_frame
    from sklearn_din.utils.labels import is_one_hot

    n_labels, frame = values.shape[1], pandas_frame(y, name="y")
    if fitted is None and len(values) >= n_labels and is_one_hot(values):
        warn_user(
            f"y has {n_labels} columns of zeros and ones of which each row has one 1: one label as "
            "one-hot columns, of which each becomes a label of its own. Give one column, y[:, 1] "
            "of an array, y.iloc[:, 1] of a frame."
        )
    names = tuple(_label_names(y, n_labels))
    if len(set(names)) < n_labels:
        raise ValueError(f"each label needs a name of its own, got the columns {list(names)}.")
    if fitted is not None:
        check_label_columns(y, list(getattr(fitted, "names", ["one label"])))
    if estimator.class_weight is not None:
        raise ValueError(
            f"class_weight is about the two kinds of one label, got {n_labels} labels. Use "
            "label_weight, or sample_weight."
        )
    all_classes: list[Any] = [None] * n_labels if classes is None else list(classes)
    if classes is not None and [np.ndim(pair) for pair in all_classes] != [1] * n_labels:
        raise ValueError(
            f"classes must be a list of pairs, one for each of {list(names)}, got {all_classes}."
        )
    labels = []
    for n, column in enumerate(values.T):
        before = None if fitted is None else fitted.labels[n]
        present, options = column[~is_missing(column)], {"classes": all_classes[n]}
        if values.dtype == object:  # columns of several types, or of one with missing values
            present = pd.Series(present).infer_objects().to_numpy()
        try:
            label = before if not len(present) and before is not None else None
            label = label or _read_label(present, before, is_partial=is_partial, **options)
        except (TypeError, ValueError) as error:  # TypeError: values without an order
            raise ValueError(f"label {names[n]!r}: {error}") from error
        if fitted is None:
            given = column if frame is None else frame.iloc[:, n]
            warn_of_flip(given, label.classes.tolist())
        labels.append(label)
    weights = dict.fromkeys(names, 1.0) | _by_label(estimator.label_weight, names, "label_weight")
    are_weights = all(isinstance(w, Real) and 0 <= float(w) < np.inf for w in weights.values())
    if not are_weights or not any(weights.values()):
        raise ValueError(
            "label_weight must be finite numbers from 0 on, not all of them 0, got "
            f"{estimator.label_weight}."
        )
    after = _by_label(estimator.after, names, "after")
    unknown = [label for label in after.values() if str(label) not in names]
    if unknown:
        raise ValueError(f"after must name labels, {list(names)}, got {unknown[0]!r}.")
    earlier = tuple(names.index(str(after[name])) if name in after else None for name in names)
    factors = tuple(float(weights[name]) for name in names)
    target = Labels(names, tuple(labels), factors, earlier)
    _check_order_of_labels(target, values, after)
    return target


def _label_names(y: Any, n_labels: int) -> list[str]:
    from sklearn_din.utils.frames import column_names

    names = column_names(y)
    return [*map(str, range(n_labels) if names is None else names)]


def check_label_columns(y: Any, names: list[str]) -> np.ndarray:
    """Return a y of several labels as an array; ValueError where they are not those of ``fit``."""
    values = np.asarray(y)
    given = _label_names(y, values.shape[1]) if values.ndim == 2 else ["one label"]
    if given != names:
        raise ValueError(f"y must have the labels of fit, {names}, got {given}.")
    return values


def _by_label(given: Mapping[Any, Any] | None, names: Sequence[str], name: str) -> dict[str, Any]:
    by_label = {str(label): value for label, value in (given or {}).items()}
    if not by_label.keys() <= set(names):
        raise ValueError(f"{name} must name labels, {list(names)}, got {sorted(by_label)}.")
    return by_label


def _check_order_of_labels(target: Labels, values: np.ndarray, after: Mapping[str, Any]) -> None:
    """Raise where a label lacks the one that it comes after, or ``after`` is a circle."""
    try:
        order = order_of_labels(target.after)
    except ValueError as error:
        raise ValueError(
            "after must say of a later label which earlier one it comes after, never of a label "
            f"that it comes after itself, nor in a circle, got {after}. Leave out the first one."
        ) from error
    y = target.encode(values)
    for n, earlier in order:
        n_wrong = int(((y[:, n] == 1) & (y[:, earlier] == 0)).sum())
        if n_wrong:
            first, second = target.names[earlier], target.names[n]
            raise ValueError(
                f"after={{{second!r}: {first!r}}} says that there is no {second} without a "
                f"{first}, got {n_wrong} rows with one. Mend y, or leave {second!r} out of after."
            )


def _read_label(
    labels: np.ndarray, fitted: Click | None, *, is_partial: bool, classes: ArrayLike | None
) -> Click:
    import pandas as pd  # takes a quarter of a second to import

    from sklearn_din.utils.labels import two_classes

    n_missing = int(pd.isna(labels).sum())
    if n_missing:
        raise ValueError(f"y must not be missing, got {n_missing} NaN labels. Drop those rows.")
    texts = [isinstance(label, str) for label in labels] if labels.dtype == object else []
    if any(texts) and not all(texts):
        text, other = labels[texts.index(True)], labels[texts.index(False)]
        raise ValueError(
            f"y must hold labels of one kind, got the text {text!r:.40} and {other!r:.40}. Give "
            f"(y == {text!r:.40}).astype(int)."
        )
    if labels.dtype == object and type_of_target(labels) == "unknown":
        raise ValueError(
            "Unknown label type: y must hold numbers or text, got objects such as "
            f"{labels[0]!r:.40}. Convert them, y.astype(int)."
        )
    check_classification_targets(labels)
    if not is_partial:
        return Click(two_classes(labels))
    return Click(_check_classes(classes, labels, None if fitted is None else fitted.classes))


def _read_numbers(numbers: np.ndarray, loss: Any, fitted: Numbers | None) -> Numbers:
    largest = np.abs(numbers).max()
    if largest > np.finfo(np.float32).max:
        raise ValueError(f"y must fit float32, as predictions do, got {largest:g}. Divide it.")
    if loss == "log1p" and numbers.min() < 0:
        raise ValueError(
            f"loss='log1p' needs numbers from 0 on, got a y of {numbers.min():g}. Use "
            "loss='squared'."
        )
    if fitted is not None and fitted.of_what != loss:
        raise ValueError(
            f"partial_fit continues with the loss of fit, {fitted.of_what!r}, but loss is {loss!r} "
            "now. Reset it, or call fit."
        )
    return fitted or Numbers.of(numbers, loss)


def _rows_and_y(
    estimator: NetworkEstimator, X: ImpressionsLike, y: ArrayLike, *, is_later: bool
) -> tuple[EncodedFeatures, np.ndarray]:
    """Return impressions, and one y for each; there is at least one."""
    encoded = X if isinstance(X, EncodedFeatures) else None
    if issparse(y):
        raise TypeError(
            "Sparse data was passed for y, but dense data is required. Use '.toarray()' to convert "
            "to a dense numpy array."
        )
    several = _has_several_labels(estimator, y)
    if is_later and (encoded is not None or estimator._fitted_on_encoded):
        schema = estimator.schema_
        if encoded is not None and schema.is_prefix_of(encoded.schema):
            schema = encoded.schema
        is_encoded = estimator._fitted_on_encoded
        encoded = check_features(estimator, X, schema=schema, is_encoded=is_encoded)
        encoded = encoded._replace(schema=schema)
    if encoded is None:
        _check_numeric_frame(X)
        options = {"reset": not is_later, "dtype": np.float32}
        if several:
            numbers, values = validate_data(estimator, X, **options), np.asarray(y)
            check_consistent_length(numbers, values)
        else:
            is_number = is_regressor(estimator)
            numbers, values = validate_data(estimator, X, y, y_numeric=is_number, **options)
        log_once(
            f"{type(estimator).__name__} was given numbers alone, without ids and histories: it "
            "trains a network without attention that reads ids as quantities. Put "
            "HistorySequenceEncoder directly before it, Pipeline([('encode', "
            f"HistorySequenceEncoder()), ('din', {type(estimator).__name__}())]), and give that "
            "Pipeline the frame with its histories; what makes numbers of columns "
            "(skrub's TableVectorizer, a FeatureUnion, X.to_numpy()) must not stand there."
        )
        return _numeric_features(estimator, numbers), values
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    if not len(encoded):
        raise ValueError("fit needs at least one impression, got zero rows.")
    values = np.asarray(y) if several else column_or_1d(y, warn=True)
    check_consistent_length(encoded, values)
    return encoded, values


def _has_several_labels(estimator: NetworkEstimator, y: Any) -> bool:
    """Return whether y has several columns; a frame of one column is one label."""
    if y is None or is_regressor(estimator):
        return False
    shape = (y if hasattr(y, "shape") else np.asarray(y)).shape
    return len(shape) == 2 and shape[1] > 1


def warn_of_flip(y: Any, labels: list[Any]) -> None:
    """Warn where the larger label is no click by its order or frequency; log which one is."""
    other, click = labels
    dtype: Any = getattr(y, "dtype", None)
    order = dtype.categories.tolist() if getattr(dtype, "ordered", False) else labels
    is_flipped = order.index(click) < order.index(other)
    are_numbers = all(isinstance(label, int | float) for label in labels)
    values = np.asarray(y)
    if not is_flipped and ((are_numbers and click == 1) or len(values) < MANY_ROWS):
        return
    share = (values[~is_missing(values)] == click).mean()
    why, example = ("is larger than", " (1 = yes, 2 = no)") if are_numbers else ("sorts behind", "")
    note = (
        f"the label {click!r} counts as the click, since it {why} {other!r}, and {share:.0%} of "
        f"the rows have it. If {other!r} is the click{example}, pass (y == {other!r}).astype(int)."
    )
    say = warn_user if is_flipped or (are_numbers and share > COMMON) else log_once
    say(note)


def _check_classes(
    classes: ArrayLike | None, labels: np.ndarray, fitted: np.ndarray | None
) -> np.ndarray:
    """Both labels in order: those of earlier calls, those given, or those that y holds."""
    import pandas as pd

    present = pd.unique(labels)
    given = np.unique(present if classes is None else np.asarray(classes))
    if fitted is None and len(given) != 2:
        raise ValueError(
            "Only binary classification is supported: y must have two classes, got "
            f"{given[:5].tolist()}. In the first call of partial_fit, y may have one of them where "
            "both are named: partial_fit(X, y, classes=[0, 1])."
        )
    if fitted is not None and classes is not None and not np.array_equal(given, fitted):
        raise ValueError(
            f"classes must stay {fitted.tolist()} in all calls, got "
            f"{np.asarray(classes).tolist()}. For other labels call fit."
        )
    fitted = given if fitted is None else fitted
    others = present[~pd.Series(present).isin(fitted).to_numpy()]
    if len(others):
        raise ValueError(
            f"y must hold the labels {fitted.tolist()}, got {others[:5].tolist()}. For other "
            "labels call fit."
        )
    return fitted


def check_features(
    estimator: NetworkEstimator, X: ImpressionsLike, *, schema: Schema, is_encoded: bool
) -> EncodedFeatures:
    """Return X as EncodedFeatures, checked against what the estimator was fitted on.

    X may lack ids that were appended since.
    """
    name = type(estimator).__name__
    if not isinstance(X, EncodedFeatures):
        if is_encoded:
            raise ValueError(
                f"{name} was fitted on EncodedFeatures, got {type(X).__name__}. Put "
                "HistorySequenceEncoder and the classifier in one Pipeline and give that Pipeline, "
                f"and a frame, to the tool at hand. {OTHER_TOOLS}"
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


def check_parameters(estimator: NetworkEstimator) -> None:
    """Raise if a parameter is invalid in a way that scikit-learn's constraints cannot express."""
    from skorch.callbacks import Callback

    from sklearn_din.utils.validation import check_count  # and pandas

    for name in ("attention_units", "hidden_units"):
        for units in getattr(estimator, name):
            check_count(units, name=f"each of {name}")
    if not len(estimator.attention_units):
        got = estimator.attention_units
        raise ValueError(f"attention_units must have at least one layer, got {got!r}.")
    if isinstance(estimator.embedding_dim, Mapping):
        for column, width in estimator.embedding_dim.items():
            check_count(width, name=f"embedding_dim[{column!r}]")
    for item in estimator.callbacks or ():
        callback = item[1] if isinstance(item, tuple | list) and len(item) == 2 else item
        if not issubclass(callback if isinstance(callback, type) else type(callback), Callback):
            raise ValueError(
                f"callbacks must be skorch callbacks, such as EarlyStopping(), got {callback!r}."
            )
    device_for(estimator.device)


def device_for(device: str) -> str:
    """Return the name of the torch device, "auto" being a GPU if any; raise if not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:0', got {device!r}."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a CUDA GPU and a torch build for it. Use device='auto'."
        )
    return device


def _numeric_features(estimator: NetworkEstimator, numbers: np.ndarray) -> EncodedFeatures:
    """Columns of a plain array or frame as numbers."""
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(numbers.shape[1])])
    schema = Schema(tuple(Field(name, "numeric") for name in names))
    columns = {name: np.ascontiguousarray(numbers[:, i]) for i, name in enumerate(names)}
    return EncodedFeatures(schema, columns)


def _check_numeric_frame(X: pd.DataFrame | ArrayLike) -> None:
    import pandas as pd

    if not isinstance(X, pd.DataFrame):
        return
    dtypes = X.infer_objects().dtypes.items()
    others = [str(name) for name, dtype in dtypes if not pd.api.types.is_numeric_dtype(dtype)]
    if others:
        raise ValueError(
            f"a frame given to the classifier must hold numbers only, got {others}. "
            "Put HistorySequenceEncoder before it in a Pipeline."
        )


def check_rows(values: ArrayLike, n_rows: int, *, name: str) -> np.ndarray:
    """Return a 1-D array of finite numbers, one for each impression."""
    numbers = np.asarray(check_array(values, ensure_2d=False, dtype=np.float64, input_name=name))
    if numbers.ndim != 1:
        raise ValueError(f"{name} must be 1D, got {numbers.ndim} dimensions.")
    if len(numbers) != n_rows:
        raise ValueError(f"{name} must have one value per row: {n_rows}, got {len(numbers)}.")
    return numbers


def check_weights(
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Hashable, float] | str | None,
    labels: np.ndarray,
) -> np.ndarray | None:
    """Return the factor of each impression's loss, its class's included, or None if all are one."""
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
    return (weights / weights[weights > 0].mean()).astype(np.float32)
