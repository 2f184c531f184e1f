"""Candidates that share a history, in blocks and in runs, against the unit asked pair by pair."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sklearn_din.module import OPTIONS
from sklearn_din.network import shared
from sklearn_din.network.layers import ActivationUnit
from sklearn_din.network.shared import Pairs, Runs, SharedUnit, cut


def make_unit(n_relations, *, units=(8, 5), activation="prelu"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = ActivationUnit(6, n_relations, units=units, activation=activation)
    return unit.double().eval()


def ask_pair_by_pair(unit, queries, keys, same, numbers, *, extended=True):
    """The slow twin: one row of inputs for each candidate and event. (n_rows, n_events)"""
    n_rows, n_events = len(queries), len(keys)
    rows = torch.repeat_interleave(torch.arange(n_rows), n_events)
    bits = [attribute.flatten().double() for attribute in same.unbind(1)]
    ranks = torch.arange(n_events).flip(0).double()  # 0 is the newest
    factors = [ranks * 0 + 1, 0.8**ranks, 0.5**ranks]
    columns = [b * factor.repeat(n_rows) for factor in factors for b in bits]
    columns += [relation.repeat(n_rows) for relation in ((1 + ranks).log(), *numbers)]
    relations = torch.stack(columns, dim=1) if extended else None
    return unit(queries, keys.repeat(n_rows, 1), relations, rows).view(n_rows, n_events)


def draw(n_rows, n_events, *, n_same, n_numbers):
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(n_rows, 6, generator=generator, dtype=torch.float64)
    keys = torch.randn(n_events, 6, generator=generator, dtype=torch.float64)
    same = torch.rand(n_rows, n_same, n_events, generator=generator) < 0.2
    numbers = [torch.rand(n_events, generator=generator).double() for _ in range(n_numbers)]
    return queries, keys, same, numbers


def with_one(queries):
    return torch.cat([queries, torch.ones_like(queries[:, :1])], dim=1)


@pytest.mark.parametrize("are_lists", [False, True])
@pytest.mark.parametrize(("n_same", "n_numbers"), [(None, 0), (0, 0), (0, 1), (2, 0), (2, 2)])
@pytest.mark.parametrize("units", [(8, 5), (8,), (8, 5, 4)])
@pytest.mark.parametrize("activation", OPTIONS["attention_activation"])
@pytest.mark.parametrize(("n_rows", "n_events"), [(70, 3), (1, 5), (4, 0)])
def test_candidates_in_blocks_equal_the_unit_asked_pair_by_pair(
    n_same, n_numbers, units, activation, n_rows, n_events, are_lists, monkeypatch
):
    monkeypatch.setattr(shared, "SCORES_PER_BLOCK", 32 * n_events * 8)
    extended, n_same = n_same is not None, n_same or 0  # None: the published unit
    unit = make_unit(
        n_same * 3 + 1 + n_numbers if extended else 0, units=units, activation=activation
    )
    queries, keys, same, numbers = draw(n_rows, n_events, n_same=n_same, n_numbers=n_numbers)
    if are_lists:
        same = same * torch.rand(same.shape).double()
    expected = ask_pair_by_pair(unit, queries, keys, same, numbers, extended=extended)
    with torch.no_grad():
        history = SharedUnit(unit, n_same, extended=extended).read(keys, numbers)
        found = history.weigh(with_one(queries), Pairs.find(same))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # recency is single


@pytest.mark.parametrize("attribute", [0, 1])
@pytest.mark.parametrize("activation", ["prelu", "dice"])
@pytest.mark.parametrize("bounds", [[0, 40, 41, 70], [0, 70]])
@pytest.mark.parametrize("n_events", [5, 1, 0])
def test_candidates_in_runs_equal_the_unit_asked_pair_by_pair(
    bounds, activation, attribute, n_events, monkeypatch
):
    monkeypatch.setattr(shared, "SCORES_PER_BLOCK", 16 * 5 * 8)
    unit = make_unit(2 * 3 + 2, activation=activation)
    queries, keys, same, numbers = draw(70, n_events, n_same=2, n_numbers=1)
    columns = slice(2, 5) if attribute else slice(0, 2)
    for start, stop in pairwise(bounds):  # the same id, so all is the same
        queries[start:stop, columns] = queries[start, columns].clone()
        same[start:stop, attribute] = same[start, attribute].clone()
    expected = ask_pair_by_pair(unit, queries, keys, same, numbers)
    of_runs = Pairs.find(same[bounds[:-1], attribute].unsqueeze(1))
    others = same.clone()
    others[:, attribute] = False
    with torch.no_grad():
        history = SharedUnit(unit, 2, extended=True).read(keys, numbers)
        runs = Runs(attribute, columns, bounds, of_runs)
        found = history.weigh(with_one(queries), Pairs.find(others), runs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("are_lists", [False, True])
@pytest.mark.parametrize("shape", [(7, 2, 5), (3, 1, 4), (2, 0, 3), (2, 2, 0)])
def test_sums_over_pairs_are_products_with_the_likeness(shape, are_lists):
    generator = torch.Generator().manual_seed(1)
    likeness = torch.rand(shape, generator=generator) < 0.5
    if are_lists:
        likeness = likeness * torch.rand(shape, generator=generator)
    values = torch.rand(shape[2], 3, generator=generator)
    found = Pairs.find(likeness).sum_by_row(values)
    torch.testing.assert_close(found, likeness.float() @ values)


def test_blocks_hold_each_row_once_and_lie_within_a_run():
    bounds = np.cumsum([0, 5, 1, 300, 12]).tolist()
    blocks = cut(bounds, 7)
    rows = [row for block, _ in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(bounds[-1]))
    for block, run in blocks:
        assert bounds[run] <= block.start < block.stop <= min(bounds[run + 1], block.start + 7)
