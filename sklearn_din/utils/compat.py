"""Private names of scikit-learn that this package uses, so that new releases affect one file.

Parameters of estimators are declared once, as fields of a dataclass that the estimator inherits;
its signature and scikit-learn's checks of values (``_parameter_constraints``) follow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from numbers import Integral
from typing import Any

import numpy as np
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


def read_trees(boosted: Any) -> tuple[list[np.ndarray], float]:
    """Return the nodes of a fitted HistGradientBoosting model's trees, and the first output."""
    trees = [predictor.nodes for (predictor,) in boosted._predictors]
    return trees, float(boosted._baseline_prediction.item())


def make_trees(nodes: Mapping[str, np.ndarray], sizes: np.ndarray) -> list[Any]:
    """Return trees, to be given to ``add_trees``, of these nodes: so many each."""
    from sklearn.ensemble._hist_gradient_boosting import common, predictor  # slow to import

    records = np.zeros(int(sizes.sum()), dtype=common.PREDICTOR_RECORD_DTYPE)
    for name, values in nodes.items():
        records[name] = values
    no_categories = np.zeros((0, 8), dtype=np.uint32)
    trees = np.split(records, np.cumsum(sizes)[:-1])
    return [predictor.TreePredictor(tree, no_categories, no_categories) for tree in trees]


def add_trees(trees: Iterable[Any], X: np.ndarray, outputs: np.ndarray) -> None:
    """Add to the outputs of rows, in place, what the trees say, one after the other."""
    no_categories, features = np.zeros((0, 8), dtype=np.uint32), np.zeros(X.shape[1], np.uint32)
    for tree in trees:
        outputs += tree.predict(X, no_categories, features, n_threads=1)
