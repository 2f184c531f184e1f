"""The activation unit, and the MLP, each as one autograd function: optimised twins of layers.

The plain composition of :mod:`sklearn_din.network.layers` keeps some twenty numbers per event and
unit and walks through memory for each of them several times. Here every matrix product and every
pass is written once, backward too. ``tests/test_fused.py`` holds it against its twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, leaky_relu_, pad

from sklearn_din.network.layers import MLP, ActivationUnit, PReLU, bag, leaky_backward
from sklearn_din.network.matmul import added_product, padded_length, product, transposed_product

SMALLEST_SLOPE = 1e-3  # from here on a rectifier's output tells its input
LEAST_BEND = 0.1  # from here on between its two slopes, sums tell the gradient of the lower one
ALIGNED = 8  # numbers whose memory a processor reads at a time
SCORES_PER_BLOCK = 1 << 21  # of candidates and a shared history: 8 MiB


def can_fuse(unit: ActivationUnit) -> bool:
    """Whether all activations of the unit are PReLU, and sizes are known (not in torch.export)."""
    return _are_prelu([unit.first_activation, *list(unit.rest)[1::2]])


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
        Events. Detached queries and keys cost no gradient.
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
    first = [of_query, unit.first.bias, of_event, unit.first_activation.slope]
    above = _layer_parameters(unit.rest, unit.last)
    return _Attend.apply(queries, keys, relations, rows, offsets, *first, *above)


@torch.no_grad()
def attend_candidates(
    unit: ActivationUnit,
    queries: Tensor,
    keys: Tensor,
    same: Sequence[Tensor],
    common: Sequence[Tensor],
) -> Tensor:
    """Weights of all candidates for the events of one shared history, without gradients.

    ``Wq q + Wp (q * k)`` is ``(Wq + Wp diag(k)) q``: one matrix for the history, and one product
    with it for all candidates. Candidates come in blocks whose scores stay in the cache.

    Parameters
    ----------
    unit : ActivationUnit
        With any activation.
    queries : Tensor of shape (n_rows, width)
        Candidates.
    keys : Tensor of shape (n_events, width)
        Events of the one history.
    same : sequence of Tensor of shape (n_rows, n_events), bool
        The first relations, rarely True.
    common : sequence of Tensor of shape (n_events,)
        The other relations: the same for all candidates.

    Returns
    -------
    weights : Tensor of shape (n_rows, n_events)
    """
    n_rows, n_events = queries.shape[0], keys.shape[0]
    of_query, of_event = unit.split_first_layer()
    of_key, of_product, of_relations = of_event.tensor_split((unit.width, 2 * unit.width))
    constant = torch.addmm(unit.first.bias, keys, of_key)  # (n_events, units)
    if common:
        constant.addmm_(torch.stack(list(common), dim=1), of_relations[len(same) :])
    history = torch.addcmul(of_query.t(), keys.unsqueeze(1), of_product.t()).flatten(0, 1)
    history = torch.cat([history, constant.view(-1, 1)], dim=1)  # (n_events * units, width + 1)
    candidates = torch.cat([queries, queries.new_ones(n_rows, 1)], dim=1)
    weights = queries.new_empty(n_rows, n_events)
    block = 16 * max(1, SCORES_PER_BLOCK // (16 * max(1, constant.numel())))
    for start in range(0, n_rows, block):
        rows = slice(start, start + block)
        n = candidates[rows].shape[0]
        hidden = product(candidates[rows], history.t()).view(n, *constant.shape)
        for relation, weight in zip(same, of_relations, strict=False):
            pairs = relation[rows].nonzero(as_tuple=True)
            if len(pairs[0]):
                hidden[pairs] += weight
        weights[rows] = _upper_layers(unit, hidden.flatten(0, 1)).view(n, n_events)
    return weights


def _upper_layers(unit: ActivationUnit, scores: Tensor) -> Tensor:
    """First layer's scores (n, units), overwritten -> weights (n,)."""
    if can_fuse(unit):
        above = _layer_parameters(unit.rest, unit.last)
        return _hidden_layers(scores, [unit.first_activation.slope, *above])[1]
    return unit.last(unit.rest(unit.first_activation(scores))).squeeze(1)


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
        of_query, bias, of_event = parameters[:3]
        inputs = _pair_inputs(queries, keys, relations, rows)
        n_events, n_padding = keys.shape[0], inputs.shape[1] - of_event.shape[0]
        scores = keys.new_empty(inputs.shape[0], of_event.shape[1])
        query_part = torch.addmm(bias, queries, of_query)
        torch.index_select(query_part, 0, rows, out=scores[:n_events])
        scores[n_events:] = 0.0
        scores = added_product(scores, inputs, pad(of_event, (0, 0, 0, n_padding)))
        steps, weights = _hidden_layers(scores, parameters[3:])
        weights = weights[:n_events]
        ctx.save_for_backward(queries, keys, rows, offsets, weights, *parameters, inputs, *steps)
        ctx.n_parameters = len(parameters)
        return bag(keys, offsets, weights), weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, rows, offsets, weights = ctx.saved_tensors[:5]
        parameters = ctx.saved_tensors[5 : 5 + ctx.n_parameters]
        steps = ctx.saved_tensors[5 + ctx.n_parameters :]
        n_events = keys.shape[0]
        of_weights = keys.new_zeros(steps[0].shape[0])
        of_interest = gradients[0].index_select(0, rows)
        torch.sum(of_interest.mul_(keys), 1, out=of_weights[:n_events]).add_(gradients[1])
        of_scores, above = _hidden_layers_backward(of_weights, steps[1:], parameters[3:])
        of_event = transposed_product(steps[0], of_scores)[: parameters[2].shape[0]]
        of_query_part = bag(of_scores[:n_events], offsets)
        first = [queries.t() @ of_query_part, of_query_part.sum(0), of_event]
        of_pair: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            width = keys.shape[1]
            of_inputs = product(of_scores, parameters[2][: 2 * width].t())
            of_key, of_product = of_inputs[:n_events].split(width, dim=1)
            of_queries = bag(of_product * keys, offsets)
            of_queries.addmm_(of_query_part, parameters[0].t())
            of_keys = gradients[0].index_select(0, rows)
            of_keys.mul_(weights.unsqueeze(1)).add_(of_key)
            of_pair = (of_queries, of_keys.addcmul_(of_product, queries.index_select(0, rows)))
        return (*of_pair, None, None, None, *first, *above)


def _pair_inputs(queries: Tensor, keys: Tensor, relations: Tensor | None, rows: Tensor) -> Tensor:
    """``[k, q * k, relations]`` of all events, and zeros below and beside them.

    The padding makes the number of rows one that comes again, and lets rows begin where the
    memory is aligned.
    """
    n_events, width = keys.shape
    n_inputs = 2 * width + (0 if relations is None else relations.shape[1])
    inputs = keys.new_empty(padded_length(n_events), -(-n_inputs // ALIGNED) * ALIGNED)
    inputs[n_events:] = 0.0
    inputs[:, n_inputs:] = 0.0
    of_events = inputs[:n_events]
    of_events[:, :width] = keys
    torch.mul(queries.index_select(0, rows), keys, out=of_events[:, width : 2 * width])
    if relations is not None:
        of_events[:, 2 * width : n_inputs] = relations
    return inputs


def can_fuse_mlp(mlp: MLP) -> bool:
    """Whether it has layers, all their activations are PReLU, and nothing is dropped."""
    return _are_prelu(list(mlp)[1::2])


def logits_of(mlp: MLP, output: nn.Linear, inputs: Tensor) -> Tensor:
    """``output(mlp(inputs))`` of shape (n,): inputs (n, n_inputs) to one logit a row."""
    return _Logits.apply(inputs, *_layer_parameters(mlp, output))


class _Logits(torch.autograd.Function):
    """``weight, bias, slope`` a layer, then weight and bias of the last."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        scores = product(inputs, parameters[0].t(), parameters[1])
        steps, logits = _hidden_layers(scores, parameters[2:])
        ctx.save_for_backward(inputs, *parameters, *steps)
        ctx.n_parameters = len(parameters)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors[0]
        parameters = ctx.saved_tensors[1 : 1 + ctx.n_parameters]
        steps = ctx.saved_tensors[1 + ctx.n_parameters :]
        of_scores, above = _hidden_layers_backward(gradients[0], steps, parameters[2:])
        of_inputs = product(of_scores, parameters[0])
        return (of_inputs, transposed_product(of_scores, inputs), of_scores.sum(0), *above)


def _are_prelu(activations: Sequence[Any]) -> bool:
    """Whether there are any and all are PReLU; never in torch.export, which leaves sizes free."""
    if torch.compiler.is_compiling() or not activations:
        return False
    return all(isinstance(activation, PReLU) for activation in activations)


def _layer_parameters(hidden: MLP, last: nn.Linear) -> list[Tensor]:
    """Weight, bias and slope of each hidden layer, then weight and bias of the last."""
    layers: list[Any] = list(hidden)
    parameters = []
    for linear, activation in zip(layers[::2], layers[1::2], strict=True):
        parameters += [linear.weight, linear.bias, activation.slope]
    return [*parameters, last.weight[0], last.bias]


def _hidden_layers(scores: Tensor, parameters: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """From the first layer's scores to one number a row; scores are overwritten.

    ``parameters`` are the first slope, then weight, bias, slope a layer, then weight and bias of
    the last. The first answer holds what ``_rectify`` gave for each layer.
    """
    steps = _rectify(scores, parameters[0].item())
    for i in range(1, len(parameters) - 2, 3):
        weight, bias, slope = parameters[i : i + 3]
        steps += _rectify(product(steps[-1], weight.t(), bias), slope.item())
    return steps, torch.mv(steps[-1], parameters[-2]).add_(parameters[-1])


def _rectify(scores: Tensor, slope: float) -> list[Tensor]:
    """What the backward pass needs of the scores, and the leaky rectifier's output."""
    if not _output_suffices(slope):
        return [scores, leaky_relu(scores, slope)]
    output = leaky_relu_(scores, slope)  # in place
    return [output, output]


def _output_suffices(slope: float) -> bool:
    """Whether the backward pass needs the rectifier's output alone, not its input."""
    return slope >= SMALLEST_SLOPE and abs(1.0 - slope) >= LEAST_BEND


def _hidden_layers_backward(
    of_result: Tensor, steps: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradient of the first layer's scores, and of all ``parameters``."""
    weight = parameters[-2]
    of_weight = of_result @ steps[-1]
    gradients = [of_weight, of_result.sum().reshape(1)]
    of_output = torch.outer(of_result, weight)
    for layer in range(len(steps) // 2 - 1, -1, -1):
        # The sum of output * its gradient over all rows: the output met the weight in a product.
        total = torch.sum(weight * of_weight)
        of_scores, of_slope = _rectify_backward(
            of_output, steps[2 * layer], parameters[3 * layer], total
        )
        gradients = [of_slope, *gradients]
        if layer:
            weight = parameters[3 * layer - 2]
            of_weight = transposed_product(of_scores, steps[2 * layer - 1])
            gradients = [of_weight, of_scores.sum(0), *gradients]
            of_output = product(of_scores, weight)
    return of_scores, gradients


def _rectify_backward(
    of_output: Tensor, kept: Tensor, slope: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of scores and slope; ``of_output`` is overwritten.

    ``total`` is the sum of output * its gradient, which above zero is output * the scores'
    gradient. Below, the latter has the slope once more. So the two sums differ by
    ``slope * (1 - slope)`` times the slope's gradient: no pass tells the sides apart.
    """
    factor = slope.item()
    if not _output_suffices(factor):
        return leaky_backward(of_output, kept, slope)
    leaky_backward_into = torch.ops.aten.leaky_relu_backward.grad_input
    of_scores = leaky_backward_into(of_output, kept, factor, False, grad_input=of_output)
    difference = total - torch.dot(of_scores.view(-1), kept.view(-1))
    return of_scores, difference / (factor * (1.0 - factor))
