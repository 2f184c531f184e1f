"""The house: imports go down the floors, defaults are documented, public names have examples."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import sklearn_din
import sklearn_din.datasets
import sklearn_din.metrics

PACKAGE = Path(sklearn_din.__file__).parent
# CONTRIBUTING.md draws the same floors: a file imports only from lines above its own.
FLOORS = [
    {"_validation", "eventlog", "progress", "looks"},
    {"windows", "features", "layers", "metrics", "timeline", "drawing", "products"},
    {"cells", "scaling", "vocabulary", "fused", "history", "negatives", "aggregates", "embeddings"},
    {"events", "roles", "module", "batching", "optim", "datasets"},
    {"frames", "net", "inputs", "summary"},
    {"transformers", "holdout", "diagram"},
    {"estimator"},
    {"pipelines"},
    {"display", "inspection", "persistence"},
    {"__main__"},
    {"__init__"},
]
NEVER = {
    "estimator": {"transformers"},
    "display": {"transformers"},
    "inspection": {"transformers"},
    "persistence": {"transformers"},
}
RANK = {name: floor for floor, names in enumerate(FLOORS) for name in names}
PUBLIC = {
    **{name: getattr(sklearn_din, name) for name in sklearn_din.__all__},
    **{name: getattr(sklearn_din.metrics, name) for name in sklearn_din.metrics.__all__},
    **{name: getattr(sklearn_din.datasets, name) for name in sklearn_din.datasets.__all__},
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn_din."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "sklearn_din":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("sklearn_din."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_imports_only_go_down_the_floors(path):
    imports = set(imports_of(path))
    too_high = {name for name in imports if RANK[name] >= RANK[path.stem]}
    too_high |= imports & NEVER.get(path.stem, set())
    assert not too_high, f"{path.stem} must not import {too_high}"


def test_frames_never_meet_torch():
    for name in ("windows", "history", "transformers", "cells", "vocabulary", "features"):
        source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) torch", source, re.M), name


def test_the_map_in_contributing_shows_every_room():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in PACKAGE.glob("*.py"):
        assert path.stem == "__init__" or f"{path.stem}.py" in text, path.stem


def written(default):
    if isinstance(default, float) and np.isinf(default):
        return "inf"
    return repr(default).replace("'", '"')


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_documented_defaults_are_true(name):
    public = PUBLIC[name]
    documented = dict(re.findall(r"^ +(\w+) : .*default=(.+)$", public.__doc__, re.M))
    for parameter in inspect.signature(public).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            assert documented[parameter.name] == written(parameter.default), parameter.name


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_a_docstring_an_example_and_a_test(name):
    public = PUBLIC[name]
    assert ">>>" in public.__doc__, "an example"
    tests = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"\b{name}\b", tests), "a test"
    for method, function in inspect.getmembers(public, inspect.isfunction):
        if not method.startswith("_") and function.__module__.startswith("sklearn_din"):
            assert inspect.getdoc(function), method


def test_files_can_be_read_in_one_sitting():
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path.name


def test_the_version_is_the_projects():
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{sklearn_din.__version__}"' in text
    assert importlib.import_module("sklearn_din").__doc__
