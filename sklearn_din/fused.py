"""Attention over flat events as one autograd function: the optimised twin of ActivationUnit.

The plain composition of :mod:`sklearn_din.layers` keeps some twenty numbers an event and unit and
walks through memory for each of them several times. Here every matrix product and every pass is
written once, backward too, over chunks of events small enough for the cache.
``tests/test_fused.py`` holds it against its twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from sklearn_din.layers import ActivationUnit, PReLU, bag, leaky_backward

EVENTS_PER_CHUNK = 4096


def can_fuse(unit: ActivationUnit) -> bool:
    """Whether all activations of the unit are PReLU, and sizes are known (not in torch.export)."""
    if torch.compiler.is_compiling():
        return False
    activations = [unit.first_activation, *list(unit.rest)[1::2]]
    return all(isinstance(activation, PReLU) for activation in activations)


def attend(
    unit: ActivationUnit,
    queries: Tensor,
    keys: Tensor,
    relations: Tensor | None,
    rows: Tensor,
    offsets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weights of the unit and their weighted sum of keys.

    Parameters
    ----------
    unit : ActivationUnit
        With PReLU activations.
    queries : Tensor of shape (n_rows, width)
        Candidates.
    keys : Tensor of shape (n_events, width)
        Events.
    relations : Tensor of shape (n_events, n_relations) or None
        Constants of the pair: they get no gradient.
    rows : Tensor of shape (n_events,), int64
        The impression of each event.
    offsets : Tensor of shape (n_rows + 1,), int64
        Where each impression's events begin.

    Returns
    -------
    interest : Tensor of shape (n_rows, width)
    weights : Tensor of shape (n_events,)
    """
    of_query, of_event = unit.split_first_layer()
    parameters = [of_query, unit.first.bias, of_event, unit.first_activation.slope]
    layers: list[Any] = list(unit.rest)
    for linear, activation in zip(layers[::2], layers[1::2], strict=True):
        parameters += [linear.weight.t(), linear.bias, activation.slope]
    parameters += [unit.last.weight[0], unit.last.bias]
    learns = torch.is_grad_enabled()
    return _Attend.apply(learns, queries, keys, relations, rows, offsets, *parameters)


class _Attend(torch.autograd.Function):
    """``of_query, bias, of_event, slope``, then ``weight, bias, slope`` a layer, then the last."""

    @staticmethod
    def forward(
        ctx: Any,
        learns: bool,
        queries: Tensor,
        keys: Tensor,
        relations: Tensor | None,
        rows: Tensor,
        offsets: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        query_part = torch.addmm(parameters[1], queries, parameters[0])
        weights = keys.new_empty(keys.shape[0])
        ctx.chunks = []
        for chunk in _chunks(queries, keys, relations, rows, offsets):
            steps = _forward(chunk, query_part, parameters)
            weights[chunk.events] = steps[-1]
            if learns:
                ctx.chunks.append((chunk, steps))
        ctx.save_for_backward(queries, keys, weights, *parameters)
        return bag(keys, offsets, weights), weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, weights, *parameters = ctx.saved_tensors
        of_keys, of_queries = torch.empty_like(keys), torch.empty_like(queries)
        of_query_part = queries.new_empty(queries.shape[0], parameters[0].shape[1])
        of_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        for chunk, steps in ctx.chunks:
            of_interest = gradients[0].index_select(0, chunk.rows)
            of_weights = (chunk.keys * of_interest).sum(1).add_(gradients[1][chunk.events])
            of_scores = _backward(of_weights, steps, parameters, of_parameters)
            of_inputs = of_scores @ parameters[2][: 2 * keys.shape[1]].t()
            of_key, of_product = of_inputs.chunk(2, dim=1)
            of_key.addcmul_(of_interest, weights[chunk.events].unsqueeze(1))
            torch.addcmul(of_key, of_product, chunk.query_rows, out=of_keys[chunk.events])
            of_query_part[chunk.impressions] = bag(of_scores, chunk.offsets)
            of_queries[chunk.impressions] = bag(of_product * chunk.keys, chunk.offsets)
        of_queries.addmm_(of_query_part, parameters[0].t())
        of_parameters[0] = queries.t() @ of_query_part
        of_parameters[1] = of_query_part.sum(0)
        return (None, of_queries, of_keys, None, None, None, *of_parameters)


class _Chunk(NamedTuple):
    """Some impressions and all their events."""

    impressions: slice
    events: slice
    rows: Tensor
    offsets: Tensor
    keys: Tensor
    query_rows: Tensor
    relations: Tensor | None


def _chunks(
    queries: Tensor, keys: Tensor, relations: Tensor | None, rows: Tensor, offsets: Tensor
) -> Iterator[_Chunk]:
    """Runs of whole impressions with about EVENTS_PER_CHUNK events each."""
    full = range(EVENTS_PER_CHUNK, keys.shape[0], EVENTS_PER_CHUNK)
    cuts = torch.searchsorted(offsets, torch.tensor(full, dtype=torch.int64, device=offsets.device))
    for first, last in pairwise(sorted({0, *cuts.tolist(), queries.shape[0]})):
        begin, end = int(offsets[first]), int(offsets[last])
        events = slice(begin, end)
        yield _Chunk(
            slice(first, last),
            events,
            rows[events],
            offsets[first : last + 1] - begin,
            keys[events],
            queries.index_select(0, rows[events]),
            None if relations is None else relations[events],
        )


def _forward(chunk: _Chunk, query_part: Tensor, parameters: tuple[Tensor, ...]) -> list[Tensor]:
    """``[k, q * k, relations]``, then scores and output of each hidden layer, then the weights."""
    width = chunk.keys.shape[1]
    inputs = chunk.keys.new_empty(chunk.keys.shape[0], parameters[2].shape[0])
    inputs[:, :width] = chunk.keys
    torch.mul(chunk.keys, chunk.query_rows, out=inputs[:, width : 2 * width])
    if chunk.relations is not None:
        inputs[:, 2 * width :] = chunk.relations
    scores = query_part.index_select(0, chunk.rows).addmm_(inputs, parameters[2])
    steps = [inputs, scores, leaky_relu(scores, parameters[3].item())]
    for i in range(4, len(parameters) - 2, 3):
        scores = torch.addmm(parameters[i + 1], steps[-1], parameters[i])
        steps += [scores, leaky_relu(scores, parameters[i + 2].item())]
    steps.append(torch.mv(steps[-1], parameters[-2]).add_(parameters[-1]))
    return steps


def _backward(
    of_weights: Tensor,
    steps: list[Tensor],
    parameters: Sequence[Tensor],
    of_parameters: list[Tensor],
) -> Tensor:
    """Gradient of the first layer's scores; those of the parameters are added where they belong."""
    of_parameters[-1] += of_weights.sum()
    of_parameters[-2] += of_weights @ steps[-2]
    of_hidden = torch.outer(of_weights, parameters[-2])
    for i in range(len(parameters) - 3, 2, -3):  # parameters: weight, bias, slope of a layer
        hidden_layer = (i - 3) // 3
        scores, below = steps[2 * hidden_layer + 1], steps[2 * hidden_layer]
        of_scores, of_slope = leaky_backward(of_hidden, scores, parameters[i])
        of_parameters[i] += of_slope
        if not hidden_layer:
            break
        of_parameters[i - 1] += of_scores.sum(0)
        of_parameters[i - 2].addmm_(below.t(), of_scores)
        of_hidden = of_scores @ parameters[i - 2].t()
    of_parameters[2].addmm_(steps[0].t(), of_scores)
    return of_scores
