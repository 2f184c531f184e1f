"""Flat histories against loops over impressions, and look-ups against plain indexing."""

import pytest
import torch

from sklearn_din.network.segments import (
    max_events,
    reuse_arange,
    softmax_events,
    sum_events,
)

LENGTHS = torch.tensor([3, 0, 1, 4])
ROWS = torch.repeat_interleave(torch.arange(4), LENGTHS)
OFFSETS = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])


def by_row(values):
    return [values[row == ROWS] for row in range(4)]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_sums_and_maxima_and_softmax_equal_a_loop_over_impressions(generator):
    values = torch.randn(8, 3, generator=generator)
    weights = torch.randn(8, generator=generator)
    zeros = torch.zeros(3)
    sums = torch.stack([events.sum(0) if len(events) else zeros for events in by_row(values)])
    torch.testing.assert_close(sum_events(values, ROWS, OFFSETS), sums)
    weighted = torch.stack([e.sum(0) for e in by_row(values * weights[:, None])])
    torch.testing.assert_close(sum_events(values, ROWS, OFFSETS, weights), weighted)
    maxima = torch.stack([e.amax(0) if len(e) else zeros for e in by_row(values)])
    torch.testing.assert_close(max_events(values, ROWS, 4), maxima)
    shares = torch.cat([e.softmax(0) for e in by_row(weights * 50)])
    torch.testing.assert_close(softmax_events(weights * 50, ROWS, 4), shares)


def test_cached_numbers_are_those_of_arange_at_any_size_and_of_any_kind():
    cpu = torch.device("cpu")
    for n in (3, 0, 10, 7):
        for dtype in (torch.int32, torch.int64):
            expected = torch.arange(n, dtype=dtype)
            assert torch.equal(reuse_arange(n, device=cpu, dtype=dtype), expected)
            assert reuse_arange(n, device=cpu, dtype=dtype).dtype == dtype
