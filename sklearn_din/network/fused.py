"""The activation unit, and the MLP, each as one autograd function: as layers, in fewer passes.

The plain composition of :mod:`sklearn_din.network.layers` keeps some twenty numbers per event and
unit and walks through memory for each of them several times. Here every matrix multiplication and
every pass over the events is written once, backward too; ``tests/test_fused.py`` compares both. In
backward passes ``grad_x`` is the gradient of x; ``weight_x`` is the part of a layer's
weight that multiplies x.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu_

from sklearn_din.network.layers import (
    MLP,
    ActivationUnit,
    PReLU,
    leaky_relu,
    leaky_relu_backward,
    number_on_host,
    score_events,
)
from sklearn_din.network.segments import segment_sum

SMALLEST_SLOPE = 1e-3  # below it, the negative input cannot be recovered exactly from the output
LEAST_BEND = 0.1  # smallest |1 - slope|, a divisor in ``_rectify_backward``


def can_fuse(layers: Iterable[nn.Module]) -> bool:
    """Return whether there are layers, and all are linear or PReLU."""
    layers = list(layers)
    return bool(layers) and all(isinstance(layer, nn.Linear | PReLU) for layer in layers)


def attend(
    unit: ActivationUnit,
    queries: Tensor,
    keys: Tensor,
    relations: Tensor | None,
    rows: Tensor,
    offsets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weights of a unit with PReLU activations, and their weighted sum of keys.

    Where queries and keys are detached, their gradients are not computed; relations get none.

    queries : (n_rows, width), candidates
    keys : (n_events, width), events
    relations : (n_events, n_relations) or None
    rows, offsets : the impression of each event, as in ``segments``
    interest : (n_rows, width)
    weights : (n_events,)
    """
    weight_query, weight_event = unit.split_first_layer()
    first = [weight_query, unit.first.bias, weight_event]
    above = layer_parameters(unit.above, unit.last)
    return _Attend.apply(queries, keys, relations, rows, offsets, *first, *above)


class _Attend(torch.autograd.Function):
    """Attention with the unit's parameters in the order of the data.

    ``weight_query, bias, weight_event, slope`` of the first layer, then ``weight, bias, slope`` of
    each further one, then ``weight, bias`` of the last.
    """

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
        inputs, scores = score_events(queries, keys, relations, rows, *parameters[:3])
        steps, weights = hidden_layers(scores, parameters[3:])
        ctx.save_for_backward(queries, keys, rows, offsets, weights, *parameters, inputs, *steps)
        ctx.n_parameters = len(parameters)
        return segment_sum(keys, offsets, weights), weights

    @staticmethod
    def backward(
        ctx: Any, grad_interest: Tensor, grad_weights: Tensor
    ) -> tuple[Tensor | None, ...]:
        queries, keys, rows, offsets, weights = ctx.saved_tensors[:5]
        parameters = ctx.saved_tensors[5 : 5 + ctx.n_parameters]
        inputs, *steps = ctx.saved_tensors[5 + ctx.n_parameters :]
        width = keys.shape[1]
        grad_per_event = grad_interest.index_select(0, rows)
        grad_result = grad_per_event.mul_(keys).sum(1).add_(grad_weights)
        grad_scores, above = _hidden_layers_backward(grad_result, steps, parameters[3:])
        weight_query, _, weight_event = parameters[:3]
        grad_query_part = segment_sum(grad_scores, offsets)
        first = [
            queries.t() @ grad_query_part,
            grad_query_part.sum(0),
            inputs.t() @ grad_scores,
        ]
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return (None, None, None, None, None, *first, *above)
        grad_inputs = grad_scores @ weight_event[: 2 * width].t()
        grad_key_input, grad_pair_input = grad_inputs.split(width, dim=1)
        grad_queries = segment_sum(grad_pair_input * keys, offsets)
        grad_queries.addmm_(grad_query_part, weight_query.t())
        grad_keys = grad_interest.index_select(0, rows)
        grad_keys.mul_(weights.unsqueeze(1)).add_(grad_key_input)
        grad_keys.addcmul_(grad_pair_input, queries.index_select(0, rows))
        return (grad_queries, grad_keys, None, None, None, *first, *above)


def logits_of(mlp: MLP, output: nn.Linear, inputs: Tensor) -> Tensor:
    """``output(mlp(inputs))``, one logit per row.

    inputs : (n, n_inputs)
    logits : (n,)
    """
    parameters = layer_parameters(mlp, output)
    if not torch.is_grad_enabled():
        return _all_layers(inputs, parameters)[1]
    return _Logits.apply(inputs, *parameters)


def _all_layers(inputs: Tensor, parameters: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    scores = torch.addmm(parameters[1], inputs, parameters[0].t())
    return hidden_layers(scores, parameters[2:])


class _Logits(torch.autograd.Function):
    """MLP and output layer: ``weight, bias, slope`` of each layer, ``weight, bias`` of the last."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        steps, logits = _all_layers(inputs, parameters)
        ctx.save_for_backward(inputs, *parameters, *steps)
        ctx.n_parameters = len(parameters)
        return logits

    @staticmethod
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors[0]
        parameters = ctx.saved_tensors[1 : 1 + ctx.n_parameters]
        steps = ctx.saved_tensors[1 + ctx.n_parameters :]
        grad_scores, above = _hidden_layers_backward(grad_logits, steps, parameters[2:])
        grad_inputs = grad_scores @ parameters[0]
        grad_weight = grad_scores.t() @ inputs
        return (grad_inputs, grad_weight, grad_scores.sum(0), *above)


def layer_parameters(hidden: Iterable[nn.Module], last: nn.Linear) -> list[Tensor]:
    """Return weight and bias, or slope, of each hidden layer, then weight and bias of the last."""
    parameters: list[Tensor] = []
    for layer in hidden:
        if isinstance(layer, PReLU):
            parameters.append(layer.slope)
        elif isinstance(layer, nn.Linear):
            parameters += [layer.weight, layer.bias]
    return [*parameters, last.weight[0], last.bias]


def hidden_layers(scores: Tensor, parameters: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """From the first layer's scores, which are overwritten, to one number per row.

    ``parameters`` are the first slope, then weight, bias and slope of each layer, then weight and
    bias of the last.

    steps : two tensors for each layer, as ``rectify`` gives them
    result : (n,)
    """
    steps = rectify_layers(scores, parameters[:-2])
    return steps, torch.mv(steps[-1], parameters[-2]).add_(parameters[-1])


def rectify_layers(scores: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the steps of ``hidden_layers``; ``parameters`` without those of the last layer."""
    steps = rectify(scores, parameters[0])
    for i in range(1, len(parameters), 3):
        weight, bias, slope = parameters[i : i + 3]
        steps += rectify(torch.addmm(bias, steps[-1], weight.t()), slope)
    return steps


def rectify(scores: Tensor, slope: Tensor) -> list[Tensor]:
    """Return the tensor that the backward pass needs, and the leaky rectifier's output."""
    number = number_on_host(slope)
    if number is None or not _output_suffices(number):
        return [scores, leaky_relu(scores, slope)]
    output = leaky_relu_(scores, number)  # in place
    return [output, output]


def _output_suffices(slope: float) -> bool:
    """Return whether the backward pass needs the rectifier's output alone, not its input.

    That is so for some slopes only: where the host cannot read the slope, the input is kept.
    """
    return slope >= SMALLEST_SLOPE and abs(1.0 - slope) >= LEAST_BEND


def _hidden_layers_backward(
    grad_result: Tensor, steps: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradient of the first layer's scores, and of all ``parameters`` of ``hidden_layers``."""
    weight = parameters[-2]
    grad_weight = grad_result @ steps[-1]
    gradients = [grad_weight, grad_result.sum().unsqueeze(0)]
    grad_output = torch.outer(grad_result, weight)
    for layer in range(len(steps) // 2 - 1, -1, -1):
        # With ``next = output @ weight.T`` (biases left out) and G the gradient of next,
        # sum(output * grad_output) = sum(output * (G @ weight)) = sum((G.T @ output) * weight)
        #                           = sum(grad_weight * weight): no pass over the rows.
        total = torch.sum(weight * grad_weight)
        grad_scores, grad_slope = _rectify_backward(
            grad_output, steps[2 * layer], parameters[3 * layer], total
        )
        gradients = [grad_slope, *gradients]
        if layer:
            weight = parameters[3 * layer - 2]
            grad_weight = grad_scores.t() @ steps[2 * layer - 1]
            gradients = [grad_weight, grad_scores.sum(0), *gradients]
            grad_output = grad_scores @ weight
    return grad_scores, gradients


def _rectify_backward(
    grad_output: Tensor, saved: Tensor, slope: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of scores and slope; ``grad_output`` is overwritten.

    ``saved`` is the first of ``rectify``'s tensors, ``total`` the sum of output * grad_output.
    With a the slope, P the sum of score * grad_output over scores above zero, and N the same over
    scores below zero, which is the gradient of a:

        sum(output * grad_output) = P + a N         as output is a * score below zero
        sum(output * grad_scores) = P + a^2 N       as grad_scores is a * grad_output there

    The difference is a (1 - a) N: the slope's gradient needs no pass of its own.
    """
    factor = number_on_host(slope)
    if factor is None or not _output_suffices(factor):
        return leaky_relu_backward(grad_output, saved, slope)
    backward_into = torch.ops.aten.leaky_relu_backward.grad_input
    grad_scores = backward_into(grad_output, saved, factor, False, grad_input=grad_output)
    difference = total - torch.dot(grad_scores.flatten(), saved.flatten())
    return grad_scores, difference / (factor * (1.0 - factor))
