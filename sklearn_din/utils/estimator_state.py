"""States of estimators: files and pickles get text and arrays, checked on their way back."""

from collections.abc import Mapping, Set
from typing import Any, Self

import numpy as np
import sklearn

from sklearn_din.utils.typed_fields import to_dict
from sklearn_din.utils.version import __version__
from sklearn_din.utils.warnings import warn_user

PARTS = {"versions", "text", "arrays"}
DAMAGES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
METHODS = (
    *("fit", "partial_fit", "predict", "predict_proba", "decision_function", "score"),
    *("split", "transform", "inverse_transform"),
)


class EstimatorState:
    """Mixin: text and arrays for pickle, joblib and skops, and shallow copies that may learn.

    ``_get_fitted`` says what was learnt, ``_restore_fitted`` brings it back, checked. What was
    learnt is never written to: ``partial_fit`` puts something new in its place.
    """

    def __copy__(self) -> Self:
        """Return an estimator that shares the fitted state."""
        copied = object.__new__(type(self))
        copied.__dict__.update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        from sklearn_din.utils.plain_values import write_value  # and pandas

        attributes = dict(vars(self))
        names = self._get_param_names()  # type: ignore[attr-defined]
        parameters = {name: attributes.pop(name) for name in names if name in attributes}
        asked = attributes.pop("_metadata_request", None)
        requests = {n: r.requests for n in METHODS if (r := getattr(asked, n, None)) is not None}
        requests = {name: dict(request) for name, request in requests.items() if request}
        parts = {"fitted": to_dict(self._get_fitted(attributes)), "requests": requests}
        parts |= {"parameters": parameters, "others": attributes}
        text, arrays = write_value(parts, keeps_objects=True)
        return {"versions": self._versions(), "text": text, "arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from sklearn_din.utils.plain_values import read_value

        name = type(self).__name__
        if type(state) is not dict or state.keys() != PARTS:
            raise ValueError(
                f"{name} cannot take this state, which no version with this way of pickling wrote. "
                "Load it with the version that saved it, fit it again, or save it again."
            )
        try:
            warn_of_other_versions(state["versions"], self._versions(), what=name)
            self._restore(read_value(state["text"], state["arrays"]))
        except DAMAGES as error:
            raise ValueError(f"{name} cannot take this state: {error}") from error

    def _restore(self, parts: dict[str, Any]) -> None:
        names = set(self._get_param_names())  # type: ignore[attr-defined]
        if parts["parameters"].keys() != names:
            raise ValueError(
                f"the state must have the parameters of {type(self).__name__}, and "
                f"{sorted(parts['parameters'].keys() ^ names)} differ: another version may have "
                "saved it."
            )
        self.__dict__.update(parts["parameters"])
        for name, value in parts["others"].items():
            if type(name) is not str or hasattr(type(self), name):
                raise ValueError(f"{name!r:.60} cannot be an attribute of its own.")
            self.__dict__[name] = value
        if parts["fitted"] is not None:
            self._restore_fitted(dict(parts["fitted"]))
        with sklearn.config_context(enable_metadata_routing=True):
            for method, request in parts["requests"].items():
                getattr(self, f"set_{method}_request")(**request)

    def _versions(self) -> dict[str, str]:
        """Return the versions of the libraries that the fitted state depends on."""
        libraries = {"scikit-learn": sklearn.__version__, "numpy": np.__version__}
        return {"sklearn_din": __version__, **libraries}

    def _get_fitted(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Remove the fitted state from ``attributes`` and return it; None if not fitted."""
        raise NotImplementedError

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        """Check and take over what ``_get_fitted`` gave."""
        raise NotImplementedError


def warn_of_other_versions(
    written: Mapping[str, str], present: Mapping[str, str], *, what: str
) -> None:
    """Warn where libraries that are present are not those that wrote a saved model.

    What counts are the first two numbers of a version: "2.9.1" is "2.9.0".

    >>> warn_of_other_versions({"torch": "2.9.0+cpu"}, {"torch": "2.9.1+cu128"}, what="a model")
    """
    other = [
        f"{name} {version} (here {present[name]})"
        for name, version in written.items()
        if name in present and version.split(".")[:2] != present[name].split(".")[:2]
    ]
    if other:
        warn_user(
            f"{what} was saved with {', '.join(other)}. Predictions may differ in their last "
            "digits or fail: compare some with known ones, or install the versions named."
        )


def check_keys(
    fitted: object, names: Set[str], *, optional: Set[str] = frozenset(), what: str = "a state"
) -> None:
    """Raise ValueError unless it is a dict that has exactly these keys."""
    if type(fitted) is not dict or not names <= fitted.keys() <= names | optional:
        raise ValueError(f"{what} must have the parts {', '.join(sorted(names))}.")


def check_dict(values: object, *, what: str) -> dict[str, Any]:
    """Return a dict with text keys, else raise ValueError."""
    if type(values) is not dict or any(type(name) is not str for name in values):
        raise ValueError(f"{what} must be a dict by name, got {values!r:.60}.")
    return values


def check_array(
    array: object,
    *,
    dtype: Any,
    shape: tuple[int, ...],
    what: str,
    least: float = -np.inf,
    most: float = np.inf,
    missing: str = "refused",
) -> np.ndarray:
    """Return an array of this dtype and shape with finite numbers in a range, else raise."""
    if type(array) is not np.ndarray or array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"{what} must be {np.dtype(dtype).name} of shape {shape}.")
    present = array[~np.isnan(array)] if missing == "allowed" else array
    if array.dtype.kind == "f" and not np.isfinite(present).all():
        raise ValueError(f"{what} must be finite.")
    if present.size and not (present.min() >= least and present.max() <= most):
        raise ValueError(f"{what} must lie between {least} and {most}.")
    return array


def check_feature_names(fitted: dict[str, Any]) -> None:
    """Raise unless number and names of features agree."""
    n_features, names = fitted["n_features_in_"], fitted.get("feature_names_in_")
    if type(n_features) is not int or n_features < 0:
        raise ValueError(f"n_features_in_ must be an integer, got {n_features!r:.60}.")
    if names is None:
        return
    is_array = type(names) is np.ndarray and names.dtype == object
    if not is_array or names.shape != (n_features,):
        raise ValueError(f"feature_names_in_ must be an array of {n_features} names.")
