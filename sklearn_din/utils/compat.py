"""Private names of scikit-learn that this package uses, so that new releases affect one file.

Parameters of estimators are declared once, as fields of a dataclass that the estimator inherits;
its signature and scikit-learn's checks of values (``_parameter_constraints``) follow.
"""

from dataclasses import field, fields
from numbers import Integral
from typing import Any

from sklearn.base import _fit_context as _fit_context
from sklearn.utils import _safe_indexing as _safe_indexing
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils.validation import _check_feature_names_in as _check_feature_names_in

AUTO = StrOptions({"auto"})
COUNT = Interval(Integral, 1, None, closed="left")


def parameter(default: object, *allowed: object) -> Any:
    """Return a field of a dataclass: a default, and what scikit-learn is to allow."""
    return field(default=default, metadata={"allowed": [*allowed]})


def constraints_of(parameters: type) -> dict[str, list[Any]]:
    """Return what scikit-learn is to allow for each parameter of a dataclass that it checks."""
    declared = {entry.name: entry.metadata for entry in fields(parameters)}
    return {name: data["allowed"] for name, data in declared.items() if "allowed" in data}
