"""Building blocks of the network: activations, MLP, the activation unit, pooling over real events.

Histories come flat: one row an event, all impressions' events after each other, never padded.
``rows`` (n_events,) names the impression of each event, ``offsets`` (n_rows + 1,) where each
impression's events begin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class PReLU(nn.Module):
    """Leaky rectifier with one learnt slope: ``max(s, 0) + a * min(s, 0)`` (He et al. 2015).

    The same numbers as :class:`torch.nn.PReLU`, whose backward pass on a CPU takes thirty times
    as long as these two element-wise steps.

    Examples
    --------
    >>> import torch
    >>> PReLU(3)(torch.tensor([[-4.0, 0.0, 2.0]]))
    tensor([[-1.,  0.,  2.]], grad_fn=<_LearntLeakyBackward>)
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.25))

    def forward(self, scores: Tensor) -> Tensor:
        """Shape (n, n_features) in and out."""
        if torch.compiler.is_compiling():  # torch.export takes no autograd function
            return scores.relu() + self.slope * scores.clamp(max=0.0)
        if not torch.is_grad_enabled():
            return F.leaky_relu(scores, self.slope.item())
        return _LearntLeaky.apply(scores, self.slope)


class _LearntLeaky(torch.autograd.Function):
    """The same in one pass over the scores each way, and one more for the slope."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(scores, slope)
        return F.leaky_relu(scores, slope.item())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return leaky_backward(gradients[0], *ctx.saved_tensors)


def leaky_backward(of_output: Tensor, scores: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a leaky rectifier's scores and of its slope."""
    of_slope = torch.dot(of_output.flatten(), scores.clamp(max=0.0).flatten())
    of_scores = torch.ops.aten.leaky_relu_backward(of_output, scores, slope.item(), False)
    return of_scores, of_slope


class Dice(nn.Module):
    """Data adaptive activation of the paper (section 5.3).

    ``f(s) = p(s) * s + (1 - p(s)) * a * s`` with ``p(s) = sigmoid((s - E[s]) / sqrt(Var[s] +
    eps))``, mean and variance of the batch in training, their running averages at prediction.
    Only real events are ever given to it. A training batch of one row has no variance: it uses
    the running averages too.

    Examples
    --------
    >>> import torch
    >>> Dice(2).eval()(torch.tensor([[0.0, 0.0]]))
    tensor([[0., 0.]], grad_fn=<AddBackward0>)
    """

    eps = 1e-8
    momentum = 0.1

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_var", torch.ones(n_features))

    def forward(self, scores: Tensor) -> Tensor:
        """Shape (n, n_features) in and out."""
        mean: Any = self.running_mean
        variance: Any = self.running_var
        if self.training and len(scores) > 1:
            return _BatchDice.apply(scores, self.slope, mean, variance, self.momentum, self.eps)
        gate = torch.sigmoid(F.batch_norm(scores, mean, variance, eps=self.eps))
        return gate * scores + (1 - gate) * self.slope * scores


class _BatchDice(torch.autograd.Function):
    """Dice by the batch's own statistics, in few passes over the scores."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        slope: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        normed, mean, inverse_std = torch.native_batch_norm(
            scores, None, None, running_mean, running_var, True, momentum, eps
        )
        gate = normed.sigmoid_()
        factor = torch.addcmul(slope, 1 - slope, gate)
        ctx.save_for_backward(scores, slope, gate, factor, mean, inverse_std)
        return scores * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scores, slope, gate, factor, mean, inverse_std = ctx.saved_tensors
        product = gradients[0] * scores
        of_slope = product.sum(0) - (product * gate).sum(0)
        # Batch norm's own backward pass, its sums by kernels that are three times as fast.
        of_normed = torch.ops.aten.sigmoid_backward(product, gate)
        average, centred = of_normed.mean(0), scores - mean
        shrink = (of_normed * centred).mean(0) * inverse_std**2
        scale = (1 - slope) * inverse_std
        of_scores = torch.addcmul(-scale * average, of_normed, scale)
        of_scores.addcmul_(centred, -scale * shrink).addcmul_(gradients[0], factor)
        return (of_scores, of_slope, None, None, None, None)


ACTIVATIONS: dict[str, Any] = {
    "prelu": PReLU,
    "dice": Dice,
    "relu": lambda n_features: nn.ReLU(),
    "sigmoid": lambda n_features: nn.Sigmoid(),
}


class MLP(nn.Sequential):
    """Linear layers, each followed by its activation and dropout; no output layer.

    Parameters
    ----------
    n_inputs : int
        Width of the input.
    units : sequence of int
        Width of each layer.
    activation : {"prelu", "dice", "relu", "sigmoid"}
        After every linear layer.
    dropout : float, default=0.0
        Share of activations set to zero in training.

    Examples
    --------
    >>> import torch
    >>> MLP(4, (8, 2), activation="relu")(torch.ones(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, n_inputs: int, units: tuple[int, ...], *, activation: str, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = []
        for n_outputs in units:
            layers += [nn.Linear(n_inputs, n_outputs), ACTIVATIONS[activation](n_outputs)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            n_inputs = n_outputs
        super().__init__(*layers)
        self.n_outputs = n_inputs


class ActivationUnit(nn.Module):
    """One weight for each past event: how much it says about the candidate (section 4.3).

    ``a(k, q) = MLP([q, k, q - k, q * k, relations])`` with key k the event's embedding and query
    q the candidate's. ``relations`` are numbers of the pair that the embeddings cannot tell
    (same id, recency); the paper has none. The last bias starts at one: the weights start
    near sum pooling and keep a meaningful sign.

    The first layer is split: ``W [q; k; q-k; q*k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q*k)``,
    so that the query's part is computed once an impression and ``q - k`` never exists.

    Parameters
    ----------
    width : int
        Width of keys and queries.
    n_relations : int
        Further numbers an event.
    units : sequence of int
        Hidden layers.
    activation : {"prelu", "dice", "relu", "sigmoid"}
        After every hidden layer.

    Examples
    --------
    >>> import torch
    >>> unit = ActivationUnit(2, 0, units=(4,), activation="prelu")
    >>> queries, keys, rows = torch.ones(1, 2), torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    >>> unit(queries, keys, None, rows).shape
    torch.Size([3])
    """

    def __init__(
        self, width: int, n_relations: int, *, units: tuple[int, ...], activation: str
    ) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Linear(4 * width + n_relations, units[0])
        self.rest = MLP(units[0], units[1:], activation=activation)
        self.first_activation = ACTIVATIONS[activation](units[0])
        self.last = nn.Linear(units[-1], 1)
        nn.init.ones_(self.last.bias)

    @torch.no_grad()
    def start_as_matching(self, n_same: int) -> None:
        """Start near the number of attributes equal to the candidate's, not near sum pooling.

        One hidden unit a layer passes the sum of the first ``n_same`` relations (the same-id
        bits) on, the others start at random. Attention then has the right sign from the first
        step: started elsewhere, it can settle on weights that rank events upside down.
        """
        same = slice(4 * self.width, 4 * self.width + n_same)
        self.first.weight[0] = 0.0
        self.first.weight[0, same] = 1.0
        self.first.bias[0] = 0.0
        layers: list[Any] = list(self.rest)
        for layer in layers[::2]:
            layer.weight[0] = 0.0
            layer.weight[0, 0] = 1.0
            layer.bias[0] = 0.0
        self.last.weight[0, 0] = 1.0
        self.last.bias.fill_(0.1)

    def split_first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights of the query, and of the event's ``[k, q * k, relations]``, transposed."""
        of_query, of_key, of_difference, of_product, of_relations = self.first.weight.split(
            [self.width] * 4 + [self.first.in_features - 4 * self.width], dim=1
        )
        event = torch.cat([of_key - of_difference, of_product, of_relations], dim=1)
        return (of_query + of_difference).t(), event.t()

    def forward(
        self, queries: Tensor, keys: Tensor, relations: Tensor | None, rows: Tensor
    ) -> Tensor:
        """Queries (n_rows, width), keys (n_events, width) -> weights (n_events,)."""
        of_query, of_event = self.split_first_layer()
        query_part = torch.addmm(self.first.bias, queries, of_query)
        events = [keys, queries.index_select(0, rows) * keys]
        if relations is not None:
            events.append(relations)
        scores = torch.addmm(query_part.index_select(0, rows), torch.cat(events, 1), of_event)
        return self.last(self.rest(self.first_activation(scores))).squeeze(1)


def sum_events(
    values: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Sum of each impression's events: (n_events, width) -> (n_rows, width); empty gives zeros.

    Examples
    --------
    >>> import torch
    >>> rows, offsets = torch.tensor([0, 2, 2]), torch.tensor([0, 1, 1, 3])
    >>> sum_events(torch.ones(3, 2), rows, offsets)
    tensor([[1., 1.],
            [0., 0.],
            [2., 2.]])
    """
    if weights is not None:
        values = values * weights.unsqueeze(1)
    return _SumEvents.apply(values, rows, offsets)


class _SumEvents(torch.autograd.Function):
    """``embedding_bag`` forward; backward a gather, where its own backward pass sorts."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return bag(values, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return gradients[0].index_select(0, rows), None, None


def bag(values: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted sum of each impression's events, without a gradient of its own."""
    index = counted(values.shape[0], device=values.device)
    return F.embedding_bag(
        index, values, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]`` without a gradient: ``embedding_bag`` fetches ahead, others wait for memory.

    Examples
    --------
    >>> import torch
    >>> gather_rows(torch.eye(3), torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    each = counted(ids.shape[0], device=ids.device, dtype=ids.dtype)
    return F.embedding_bag(ids, table, each, mode="sum")


def counted(n: int, *, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """``torch.arange(n)``, which a step asks for again and again: kept, so never write to it.

    Examples
    --------
    >>> import torch
    >>> counted(3, device=torch.device("cpu"))
    tensor([0, 1, 2])
    """
    if torch.compiler.is_compiling():  # sizes are free
        return torch.arange(n, device=device, dtype=dtype)
    kept = _COUNTED.get((device, dtype))
    if kept is None or kept.shape[0] < n:
        kept = _COUNTED[device, dtype] = torch.arange(n, device=device, dtype=dtype)
    return kept[:n]


_COUNTED: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def max_events(values: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Largest value of each impression's events by column; empty gives zeros.

    Examples
    --------
    >>> import torch
    >>> max_events(torch.tensor([[1.0], [3.0]]), torch.tensor([1, 1]), 2)
    tensor([[0.],
            [3.]])
    """
    index = rows[:, None].expand_as(values)
    start = values.new_full((n_rows, values.shape[1]), -torch.inf)
    largest = start.scatter_reduce(0, index, values, reduce="amax")
    return largest.masked_fill(largest == -torch.inf, 0.0)


def softmax_events(scores: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Softmax of the scores within each impression: (n_events,) in and out.

    Examples
    --------
    >>> import torch
    >>> softmax_events(torch.zeros(3), torch.tensor([0, 1, 1]), 2)
    tensor([1.0000, 0.5000, 0.5000])
    """
    top = scores.new_zeros(n_rows).scatter_reduce(
        0, rows, scores.detach(), reduce="amax", include_self=False
    )
    powers = torch.exp(scores - top.index_select(0, rows))
    totals = scores.new_zeros(n_rows).index_add(0, rows, powers)
    return powers / totals.index_select(0, rows)
