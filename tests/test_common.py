"""What every public name has: true defaults in its docstring, an example, a test."""

import inspect
import re
from pathlib import Path

import pytest

import sklearn_din
import sklearn_din.datasets
import sklearn_din.metrics

PUBLIC = {
    **{name: getattr(sklearn_din, name) for name in sklearn_din.__all__ if name != "LABEL"},
    **{name: getattr(sklearn_din.metrics, name) for name in sklearn_din.metrics.__all__},
    **{name: getattr(sklearn_din.datasets, name) for name in sklearn_din.datasets.__all__},
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_a_docstring_with_true_defaults_an_example_and_a_test(name):
    public = PUBLIC[name]
    documented = dict(re.findall(r"^ *(\w+) : .*default=(.+)$", public.__doc__, re.M))
    for parameter in inspect.signature(public).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            written = repr(parameter.default).replace("'", '"')
            assert documented[parameter.name] == written, parameter.name
    assert ">>>" in public.__doc__, "an example"
    tests = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"\b{name}\b", tests), "a test"
    for method, function in inspect.getmembers(public, inspect.isfunction):
        if not method.startswith("_") and function.__module__.startswith("sklearn_din"):
            assert inspect.getdoc(function), method
