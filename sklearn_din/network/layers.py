"""Building blocks of the network: activations, MLP and the activation unit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

INITIAL_SLOPE = 0.25  # of PReLU below zero, as in He et al. and in torch
MATCHING_BIAS = 0.1  # initial weight of an event that shares nothing with the candidate


class PReLU(nn.Module):
    """Leaky rectifier with one learned slope: ``max(s, 0) + a * min(s, 0)`` (He et al. 2015).

    >>> import torch
    >>> PReLU(3)(torch.tensor([[-4.0, 0.0, 2.0]]))
    tensor([[-1.,  0.,  2.]], grad_fn=<PreluKernelBackward0>)
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(INITIAL_SLOPE))

    def forward(self, scores: Tensor) -> Tensor:
        """Rectify each number, (n, n_features)."""
        return F.prelu(scores, self.slope.view(1))


class Dice(nn.Module):
    """Data adaptive activation of the paper (section 5.3).

    ``f(s) = p(s) * s + (1 - p(s)) * a * s`` with ``p(s) = sigmoid((s - E[s]) / sqrt(Var[s] +
    eps))``. Mean and variance are those of the batch in training, and their running averages at
    prediction. It must be given real events only, never padding. A training batch of one row has
    no variance: it uses the running averages too.

    >>> import torch
    >>> Dice(2).eval()(torch.tensor([[0.0, 0.0]]))
    tensor([[0., 0.]], grad_fn=<MulBackward0>)
    """

    eps = 1e-8
    momentum = 0.1
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_var", torch.ones(n_features))

    def forward(self, scores: Tensor) -> Tensor:
        """Rectify softly at the mean of each feature, (n, n_features)."""
        mean, variance = self.running_mean, self.running_var
        if self.training and len(scores) > 1:
            options: dict[str, Any] = {"training": True, "momentum": self.momentum, "eps": self.eps}
            return self.rectify(scores, F.batch_norm(scores, mean, variance, **options))
        return self.rectify(scores, (scores - mean) * (variance + self.eps).rsqrt())

    def rectify(self, scores: Any, standardized: Any) -> Any:
        """Rectify a tensor, or a value of an ONNX graph."""
        return scores * (standardized.sigmoid() * (1 - self.slope) + self.slope)


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": PReLU,
    "dice": Dice,
    "relu": lambda n_features: nn.ReLU(),
    "sigmoid": lambda n_features: nn.Sigmoid(),
}


class MLP(nn.Sequential):
    """Linear layers, each followed by an activation and, in training, by dropout.

    There is no output layer. Rows (n, n_inputs) become (n, n_outputs), ``n_outputs`` being the
    last of ``units``, or ``n_inputs`` where there is none.

    units : width of each linear layer, from the input on
    activation : "prelu", "dice", "relu" or "sigmoid", which follows every linear layer
    dropout : share of the activations set to zero in training

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


class LabelLogits(nn.Linear):
    """The last layer of a network of several labels, whose hidden layers they share.

    A label that comes after another, such as the purchase after the click, has the product of both
    probabilities (ESMM, Ma et al., SIGIR 2018): with the log-odds a of the earlier one and z of its
    own row ::

        p = sigmoid(a) * sigmoid(z)        1 / p - 1 = exp(-a) + exp(-z) + exp(-a - z)

    Unlike ESMM: no hidden layer is a label's own. With the last one its own, the excess log loss
    of purchases (1 % of the rows) was .00420 in place of .00407 (benchmarks/quality-results.md,
    "Several labels").

    n_inputs : width of the last hidden layer
    after : for each label, the number of the label that it comes after, or None

    >>> import torch
    >>> logits = LabelLogits(4, (None, 0))(torch.ones(3, 4))
    >>> logits.shape, bool((logits[:, 1] < logits[:, 0]).all())  # no purchase without a click
    (torch.Size([3, 2]), True)
    """

    def __init__(self, n_inputs: int, after: tuple[int | None, ...]) -> None:
        super().__init__(n_inputs, len(after))
        self.later = order_of_labels(after)

    def forward(self, hidden: Tensor) -> Tensor:
        """Log-odds of each label, (n, n_labels), of hidden units (n, n_inputs)."""
        return self.join(super().forward(hidden))

    def join(self, own: Tensor) -> Tensor:
        """Return the log-odds of each label, given those of its own row: (..., n_labels)."""
        logits = list(own.unbind(-1))
        for label, earlier in self.later:
            a, z = logits[earlier], logits[label]
            logits[label] = -torch.logsumexp(torch.stack([-a, -z, -a - z]), dim=0)
        return torch.stack(logits, dim=-1)

    def bias_of(self, logits: Tensor) -> Tensor:
        """Return the biases with which rows have these log-odds: (..., n_labels)."""
        bias = logits.clone()
        for label, earlier in self.later:
            ratio = F.softplus(-logits[..., label]) - F.softplus(-logits[..., earlier])
            ratio = ratio.clamp(min=1e-7)  # of rounded logits it can be below zero
            bias[..., label] = -ratio - torch.log(-torch.expm1(-ratio))
        return bias


def order_of_labels(after: tuple[int | None, ...]) -> list[tuple[int, int]]:
    """Return the labels that come after another, and that other one: none before its own."""
    known = {label for label, earlier in enumerate(after) if earlier is None}
    order: list[tuple[int, int]] = []
    while len(known) < len(after):
        ready = [(n, e) for n, e in enumerate(after) if n not in known and e in known]
        if not ready:
            raise ValueError(f"labels must come after one another, not in a circle: {after}.")
        order += ready
        known |= {label for label, _ in ready}
    return order


class ActivationUnit(nn.Module):
    """One weight for each past event: its relevance to the candidate (section 4.3).

    ``a(k, q) = MLP([q, k, q - k, q * k, relations])`` with the key k, the event's embedding, and
    the query q, the candidate's. ``relations`` are numbers of the pair that the embeddings cannot
    express (equal ids, recency); the paper has none. The last bias starts at one, so that the
    weights start near those of sum pooling and most of them are positive.

    The first layer is split: ``W [q; k; q-k; q*k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q*k)``, so
    that the query's term is computed once per impression and ``q - k`` is never stored.

    width : of keys and queries
    n_relations : number of relations per event
    units, activation : width of each hidden layer, and its activation function

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
        """Initialize the weights to grow with the number of attributes equal to the candidate's.

        The first ``n_same`` relations are bits that show whether an attribute's id is the
        candidate's, and those bits again, discounted for older events. One hidden unit of each
        layer passes on their sum; the others are initialized at random.

        Unlike the paper: attention has the right sign from the first step. Starting from equal
        weights, training can converge to weights that rank events in reverse
        (docs/results.rst).
        """
        same = slice(4 * self.width, 4 * self.width + n_same)
        self.first.weight[0] = 0.0
        self.first.weight[0, same] = 1.0
        self.first.bias[0] = 0.0
        for layer in self.rest:
            if isinstance(layer, nn.Linear):
                layer.weight[0] = 0.0
                layer.weight[0, 0] = 1.0
                layer.bias[0] = 0.0
        self.last.weight[0, 0] = 1.0
        self.last.bias.fill_(MATCHING_BIAS)

    def split_first_layer(self) -> tuple[Tensor, Tensor]:
        """First layer's weights of the query, and of the event, ready to be multiplied from right.

        weight_query : (width, n_units), for q
        weight_event : (2 * width + n_relations, n_units), for ``[k, q * k, relations]``
        """
        n_relations = self.first.in_features - 4 * self.width
        weight_query, weight_key, weight_difference, weight_pair, weight_relations = (
            self.first.weight.split([self.width] * 4 + [n_relations], dim=1)
        )
        weight_event = torch.cat(
            [weight_key - weight_difference, weight_pair, weight_relations], dim=1
        )
        return (weight_query + weight_difference).t(), weight_event.t()

    @property
    def above(self) -> list[nn.Module]:
        """The layers between the first products and the last layer."""
        return [self.first_activation, *self.rest]

    def forward(
        self, queries: Tensor, keys: Tensor, relations: Tensor | None, rows: Tensor
    ) -> Tensor:
        """Weigh each event for its impression's candidate.

        queries : (n_rows, width)
        keys : (n_events, width)
        relations : (n_events, n_relations), or None where there are none
        rows : (n_events,)
        weights : (n_events,)
        """
        weight_query, weight_event = self.split_first_layer()
        events = [keys, queries.index_select(0, rows) * keys]
        if relations is not None:
            events.append(relations)
        query_part = torch.addmm(self.first.bias, queries, weight_query).index_select(0, rows)
        return self.finish(torch.addmm(query_part, torch.cat(events, dim=1), weight_event))

    def finish(self, scores: Tensor) -> Tensor:
        """Return weights (n,) from the first layer's scores (n, n_units)."""
        return self.last(self.rest(self.first_activation(scores))).squeeze(1)
