"""Attention over flat events as one autograd function: the optimised twin of ActivationUnit.

The plain composition of :mod:`sklearn_din.layers` keeps some twenty intermediate matrices an event
and walks through each of them several times. Here every matrix product and every pass over the
events is written once, backward too. ``tests/test_fused.py`` holds it against its twin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklearn_din.layers import ActivationUnit, PReLU, bag


def can_fuse(unit: ActivationUnit) -> bool:
    """Whether all activations of the unit are PReLU."""
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
    return _Attend.apply(queries, keys, relations, rows, offsets, *parameters)


class _Attend(torch.autograd.Function):
    """``of_query, bias, of_event, slope``, then ``weight, bias, slope`` a layer, then the last."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        relations: Tensor | None,
        rows: Tensor,
        offsets: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        of_query, bias, of_event, slope = parameters[:4]
        width = keys.shape[1]
        query_rows = queries.index_select(0, rows)
        inputs = keys.new_empty(keys.shape[0], of_event.shape[0])  # [k, q * k, relations]
        inputs[:, :width] = keys
        torch.mul(keys, query_rows, out=inputs[:, width : 2 * width])
        if relations is not None:
            inputs[:, 2 * width :] = relations
        scores = torch.addmm(bias, queries, of_query).index_select(0, rows)
        scores.addmm_(inputs, of_event)
        hidden = _leaky(scores, slope)
        steps = [scores, hidden]
        for i in range(4, len(parameters) - 2, 3):
            scores = torch.addmm(parameters[i + 1], hidden, parameters[i])
            hidden = _leaky(scores, parameters[i + 2])
            steps += [scores, hidden]
        weights = torch.mv(hidden, parameters[-2]).add_(parameters[-1])
        ctx.save_for_backward(
            queries, keys, rows, offsets, query_rows, inputs, weights, *parameters, *steps
        )
        ctx.n_parameters = len(parameters)
        return bag(keys, offsets, weights), weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        queries, keys, rows, offsets, query_rows, inputs, weights = saved[:7]
        parameters, steps = saved[7 : 7 + ctx.n_parameters], saved[7 + ctx.n_parameters :]
        of_interest, of_weights = gradients
        of_query, _, of_event, slope = parameters[:4]
        width = keys.shape[1]
        interest_rows = of_interest.index_select(0, rows)
        of_weights = of_weights + (keys * interest_rows).sum(1)
        of_hidden, upper = _upper_layers(of_weights, parameters, steps)
        of_scores, of_slope = _leaky_backward(of_hidden, steps[0], slope)
        of_inputs = of_scores @ of_event[: 2 * width].t()
        of_keys = interest_rows.mul_(weights.unsqueeze(1)).add_(of_inputs[:, :width])
        of_keys.addcmul_(of_inputs[:, width:], query_rows)
        query_part = bag(of_scores, offsets)
        of_queries = bag(of_inputs[:, width:] * keys, offsets)
        of_queries.addmm_(query_part, of_query.t())
        first = [queries.t() @ query_part, query_part.sum(0), inputs.t() @ of_scores, of_slope]
        return (of_queries, of_keys, None, None, None, *first, *upper)


def _upper_layers(
    of_weights: Tensor, parameters: tuple[Tensor, ...], steps: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor]]:
    """Gradient of the first hidden layer's output, and of all parameters above it."""
    gradients = [of_weights @ steps[-1], of_weights.sum().reshape(1)]
    of_hidden = torch.outer(of_weights, parameters[-2])
    for i in range(len(parameters) - 5, 3, -3):
        layer = 2 * (i - 1) // 3  # steps: scores and hidden of each layer in turn
        of_scores, of_slope = _leaky_backward(of_hidden, steps[layer], parameters[i + 2])
        below = steps[layer - 1]
        gradients = [below.t() @ of_scores, of_scores.sum(0), of_slope, *gradients]
        of_hidden = of_scores @ parameters[i].t()
    return of_hidden, gradients


def _leaky(scores: Tensor, slope: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(scores, slope.item())


def _leaky_backward(of_hidden: Tensor, scores: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    of_slope = torch.dot(of_hidden.flatten(), scores.clamp(max=0.0).flatten())
    of_scores = torch.ops.aten.leaky_relu_backward(of_hidden, scores, slope.item(), False)
    return of_scores, of_slope
