"""How estimators are pickled: their state as plain values, with the versions that wrote it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Set
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from sklearn_din.state.plain_state import PlainState, read_state, write_state
from sklearn_din.state.versions import __version__, warn_of_other_versions

STATE_KEYS = ("text", "arrays", "objects", "libraries", "_sklearn_din_version")
PARTS = {"parameters", "fitted", "others", "requests"}
METHODS = (
    *("fit", "partial_fit", "predict", "predict_proba", "decision_function", "score"),
    *("split", "transform", "inverse_transform"),
)


class EstimatorState:
    """Mixin: pickle, joblib, skops and safe files get plain values, checked when they come back.

    An estimator says in ``_fitted_state`` what it learnt, and in ``_restore_fitted`` how it comes
    back. Parameters, metadata requests and attributes that a user added are kept here.
    """

    def plain_state(self) -> PlainState:
        """Return parameters and what was learnt as plain values."""
        attributes = dict(self.__dict__)
        names = self._get_param_names()  # type: ignore[attr-defined]
        parameters = {name: attributes.pop(name) for name in names if name in attributes}
        for name, value in parameters.items():
            parameters[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        requests = _plain_requests(attributes.pop("_metadata_request", None))
        fitted = self._fitted_state(attributes)
        return write_state(
            {"parameters": parameters, "fitted": fitted, "others": attributes, "requests": requests}
        )

    def restore(self, state: PlainState) -> None:
        """Take over a state, and raise ValueError where it is not one of this class."""
        parts = read_state(state)
        if type(parts) is not dict or parts.keys() != PARTS:
            raise ValueError(f"the saved state must have the parts {', '.join(sorted(PARTS))}.")
        if any(type(parts[name]) is not dict for name in ("parameters", "others", "requests")):
            raise ValueError("parameters, others and requests must be dicts.")
        self.__dict__.update(self._all_parameters(parts["parameters"]))
        for name, value in parts["others"].items():
            if type(name) is not str or hasattr(type(self), name):
                raise ValueError(f"{name!r:.60} cannot be an attribute of its own.")
            self.__dict__[name] = value
        if parts["fitted"] is not None:
            if type(parts["fitted"]) is not dict:
                raise ValueError("what was learnt must be a dict.")
            self._restore_fitted(dict(parts["fitted"]))
        self._restore_requests(parts["requests"])

    def __getstate__(self) -> dict[str, Any]:
        state = self.plain_state()
        return {
            "text": state.text,
            "arrays": state.arrays,
            "objects": state.objects,
            "libraries": self._libraries(),
            "_sklearn_din_version": __version__,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        name = type(self).__name__
        if not isinstance(state, dict) or set(state) != set(STATE_KEYS):
            raise ValueError(
                f"{name} cannot take this state, which no version with this way of pickling wrote. "
                "Load it with the version that saved it, and save it again with sklearn_din.save."
            )
        _check_state(state)
        written = {"sklearn_din": state["_sklearn_din_version"], **state["libraries"]}
        present = {"sklearn_din": __version__, **self._libraries()}
        warn_of_other_versions(written, present, what=name)
        self.restore(PlainState(state["text"], state["arrays"], state["objects"]))

    def _libraries(self) -> dict[str, str]:
        """Libraries that matter for what was learnt, and their versions."""
        versions = {"numpy": np.__version__, "pandas": pd.__version__}
        return {"scikit-learn": sklearn.__version__, **versions}

    def _fitted_state(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Take what was learnt out of ``attributes``; None where nothing was."""
        raise NotImplementedError

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        """Check and take over what ``_fitted_state`` gave."""
        raise NotImplementedError

    def _all_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Saved parameters, and the defaults of those that older versions did not have."""
        signature = inspect.signature(type(self).__init__).parameters
        names = self._get_param_names()  # type: ignore[attr-defined]
        unknown = [name for name in parameters if name not in names]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no parameter {unknown[0]!r:.60}. A newer version may "
                "have saved it: upgrade."
            )
        defaults = {name: signature[name].default for name in names if name in signature}
        absent = [
            name
            for name, default in defaults.items()
            if default is inspect.Parameter.empty and name not in parameters
        ]
        if absent:
            raise ValueError(f"{type(self).__name__} needs its parameters {absent}.")
        return defaults | parameters

    def _restore_requests(self, requests: dict[str, Any]) -> None:
        with sklearn.config_context(enable_metadata_routing=True):
            for method, its in requests.items():
                name = f"set_{method}_request"
                if method not in METHODS or type(its) is not dict or not hasattr(self, name):
                    raise ValueError(f"{type(self).__name__} has no requests for {method!r:.60}.")
                getattr(self, name)(**its)


def _plain_requests(requests: Any) -> dict[str, dict[str, Any]]:
    """Metadata that each method asks for, as given to ``set_fit_request`` and the like."""
    asked = {method: getattr(requests, method, None) for method in METHODS}
    return {method: dict(its.requests) for method, its in asked.items() if its and its.requests}


def _check_state(state: dict[str, Any]) -> None:
    kinds = (str, dict, dict, dict, str)
    for key, kind in zip(STATE_KEYS, kinds, strict=True):
        if type(state[key]) is not kind:
            raise ValueError(f"a state's {key} must be {kind.__name__}, got {state[key]!r:.60}.")
    texts = [*state["libraries"], *state["libraries"].values()]
    if not all(type(text) is str for text in texts):
        raise ValueError("versions of libraries must be text.")


def check_keys(
    fitted: dict[str, Any], names: Set[str], *, optional: Set[str] = frozenset()
) -> None:
    """Raise unless a dict has exactly these keys."""
    if not names <= fitted.keys() <= names | optional:
        raise ValueError(
            f"what was learnt must have the parts {sorted(names)}, got {sorted(map(str, fitted))}."
        )


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
