"""scikit-learn's own checks of both estimators, and the private names that we import."""

import ast
from pathlib import Path

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklearn_din
from sklearn_din import DINClassifier, DINRegressor, HistorySequenceEncoder

PACKAGE = Path(sklearn_din.__file__).parent

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
OF_NETWORKS = {WEIGHTS: "a row given twice meets others in batches"}
FAILURES = {DINClassifier: OF_NETWORKS, DINRegressor: OF_NETWORKS, HistorySequenceEncoder: {}}
EACH = [DINClassifier(max_epochs=5), DINRegressor(max_epochs=5), HistorySequenceEncoder()]


@parametrize_with_checks(EACH, expected_failed_checks=lambda e: FAILURES[type(e)])
def test_an_estimator_keeps_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", FAILURES)
def test_the_estimator_is_named_where_an_argument_is_unknown(estimator):
    with pytest.raises(TypeError, match=rf"^{estimator.__name__}\.__init__\(\) got an unexpected"):
        estimator(n_estimators=100)


def test_private_names_of_scikit_learn_come_through_one_file():
    for path in PACKAGE.rglob("*.py"):
        names = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sklearn":
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names += [a.name for a in node.names if a.name.split(".")[0] == "sklearn"]
        private = [name for name in names if "._" in name]
        assert bool(private) == (path.name == "compat.py"), f"{path}: move {private} to compat.py"
