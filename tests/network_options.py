"""Networks of every option by the package's own table: who adds a word there, has it tested."""

from itertools import product

import pytest

from sklearn_din.module import OPTIONS

ONE_BY_ONE = [{name: value} for name, values in OPTIONS.items() for value in values]


def networks(*names):
    """Return every combination of some options, as dicts of parameters."""
    return [
        dict(zip(names, values, strict=True)) for values in product(*(OPTIONS[n] for n in names))
    ]


def name_of(options):
    return "-".join(map(str, options.values())) or "as usual"


def each_network(*names):
    """Run a test with ``options`` for every combination of these options."""
    return pytest.mark.parametrize("options", networks(*names), ids=name_of)
