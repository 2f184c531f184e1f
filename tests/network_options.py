"""Networks of every option by the package's own table: who adds a word there, has it tested."""

from itertools import combinations, product

import pytest

from sklearn_din.module import OPTIONS

ONE_BY_ONE = [{name: value} for name, values in OPTIONS.items() for value in values]


def networks(*names):
    """Return few networks among which any two values of some options occur together, as dicts."""
    products = product(*(OPTIONS[name] for name in names))
    every = [dict(zip(names, values, strict=True)) for values in products]
    pairs, chosen = set().union(*map(pairs_of, every)), []
    while pairs:
        chosen.append(max(every, key=lambda options: len(pairs & pairs_of(options))))
        pairs -= pairs_of(chosen[-1])
    return chosen


def pairs_of(options):
    """Return what two options have; of one option alone, what it has."""
    return {*combinations(options.items(), min(2, len(options)))}


def name_of(options):
    return "-".join(map(str, options.values())) or "as usual"


def each_network(*names):
    """Run a test with ``options`` for networks that pair all values of these options."""
    return pytest.mark.parametrize("options", networks(*names), ids=name_of)
