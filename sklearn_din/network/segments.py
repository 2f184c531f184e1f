"""Histories without padding: sums, maxima and softmax over the events of each impression.

Histories are flat: one row per event, the events of each impression after those of the one
before. Two tensors map events to impressions:

rows : (n_events,), the number of the impression of each event
offsets : (n_rows + 1,), where each impression's events begin; the last entry is n_events
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """The impression of each event: ``rows`` and ``offsets``, as above."""

    rows: Tensor
    offsets: Tensor


def sum_events(
    values: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Sum of each impression's events, zeros where it has none.

    values : (n_events, width)
    rows : (n_events,)
    offsets : (n_rows + 1,)
    weights : (n_events,), or None for the unweighted sum
    sums : (n_rows, width)
    """
    if weights is not None:
        values = values * weights.unsqueeze(1)
    sums = values.new_zeros(offsets.shape[0] - 1, values.shape[1])
    return sums.index_add(0, rows, values)


def max_events(values: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Largest value of each impression's events by column, zeros where it has none.

    values : (n_events, width)
    rows : (n_events,)
    maxima : (n_rows, width)
    """
    index = rows[:, None].expand_as(values)
    start = values.new_full((n_rows, values.shape[1]), -torch.inf)
    largest = start.scatter_reduce(0, index, values, reduce="amax")
    return largest.masked_fill(largest == -torch.inf, 0.0)


def softmax_events(scores: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Softmax of the scores within each impression.

    scores : (n_events,)
    rows : (n_events,)
    shares : (n_events,), whose sum over each impression's events is one
    """
    top = scores.new_zeros(n_rows).scatter_reduce(
        0, rows, scores.detach(), reduce="amax", include_self=False
    )
    powers = torch.exp(scores - top.index_select(0, rows))
    totals = scores.new_zeros(n_rows).index_add(0, rows, powers)
    return powers / totals.index_select(0, rows)
