"""The Deep Interest Network: encoded fields in, one logit an impression out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_din._validation import check_choice
from sklearn_din.features.schema import Behaviour, Schema
from sklearn_din.network.embeddings import Bag, FieldEmbeddings, Slot
from sklearn_din.network.fused import can_fuse_mlp, logits_of
from sklearn_din.network.interest import Interest
from sklearn_din.network.layers import (
    MLP,
    sum_events,
)

INITIAL_SCALE = {"paper": 0.05, "extended": 0.01}
NUMBERS_HIDDEN = 0.15  # share of the extended network's numbers that each training step hides
OPTIONS: dict[str, tuple[str | None, ...]] = {
    "pooling": ("attention", "sum", "mean", "max"),
    "interest": ("paper", "extended"),
    "attention_activation": ("prelu", "dice", "relu", "sigmoid"),
    "attention_normalization": ("auto", "sqrt", "softmax", None),
    "activation": ("prelu", "dice", "relu"),
}


class DIN(nn.Module):
    """Deep Interest Network (Zhou et al., KDD 2018).

    Embeddings of the categorical fields, numbers, and one interest vector a behaviour are
    concatenated and go through an MLP to one logit. ``interest="paper"`` is the published
    network; ``interest="extended"`` adds relations of event and candidate to the activation
    unit, and gives the MLP candidate * interest and the sum of the weights (signed log1p) in place
    of the interest, once with the attention's weights and once with all weights one, and how many
    events have the candidate's id, by attribute. There the attention weighs embeddings and does
    not train them: the candidate and the unweighted sum do; and beside ids each training step
    hides 15 % of the numbers.

    Parameters
    ----------
    schema : Schema
        The fields, from the encoder.
    embedding_dim : int or dict of str to int, default=16
        Width of the embeddings, or of each vocabulary.
    pooling : {"attention", "sum", "mean", "max"}, default="attention"
        "sum" is the paper's base model.
    interest : {"paper", "extended"}, default="extended"
        The published network, or with relational inputs.
    attention_units : tuple of int, default=(64, 16)
        Hidden layers of the activation unit.
    attention_activation : {"prelu", "dice", "relu", "sigmoid"}, default="prelu"
        Their activation.
    attention_normalization : {"auto", None, "sqrt", "softmax"}, default="auto"
        "auto" is None for the paper's network and "sqrt" for the extended one.
    hidden_units : tuple of int, default=(200, 80)
        Layers of the MLP.
    activation : {"prelu", "dice", "relu"}, default="prelu"
        Their activation.
    dropout : float, default=0.0
        In the MLP.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> network = DIN(Schema((Field("price", "numeric"), Field("item", "categorical", "item", 9))))
    >>> sum(parameter.numel() for parameter in network.parameters())
    19907
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_dim: int | Mapping[str, int] = 16,
        pooling: str = "attention",
        interest: str = "extended",
        attention_units: tuple[int, ...] = (64, 16),
        attention_activation: str = "prelu",
        attention_normalization: str | None = "auto",
        hidden_units: tuple[int, ...] = (200, 80),
        activation: str = "prelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        chosen = (pooling, interest, attention_activation, attention_normalization, activation)
        for (name, options), value in zip(OPTIONS.items(), chosen, strict=True):
            check_choice(value, options, name=name)
        self.schema = schema
        self.extended = interest == "extended"
        if attention_normalization == "auto":
            attention_normalization = "sqrt" if self.extended else None
        self.embeddings = FieldEmbeddings(schema, embedding_dim, scale=INITIAL_SCALE[interest])
        self.interests = nn.ModuleList(
            Interest(
                behaviour,
                tuple(self.embeddings.width(name) for name in behaviour.histories),
                pooling="sum" if behaviour.is_bag and pooling == "attention" else pooling,
                extended=self.extended,
                normalization=attention_normalization,
                units=tuple(attention_units),
                activation=attention_activation,
            )
            for behaviour in schema.behaviours
        )
        self.mlp = MLP(
            self._mlp_inputs(pooling), tuple(hidden_units), activation=activation, dropout=dropout
        )
        self.output = nn.Linear(self.mlp.n_outputs, 1)

    def _mlp_inputs(self, pooling: str) -> int:
        total = len(self.schema.names("numeric"))
        total += sum(self.embeddings.width(name) for name in self.schema.names("categorical"))
        for behaviour in self.schema.behaviours:
            width = sum(self.embeddings.width(name) for name in behaviour.histories)
            if self.extended and not behaviour.is_bag:
                total += (width + 1) * (2 if pooling == "attention" else 1)
                total += sum(candidate is not None for candidate in behaviour.candidates)
            else:
                total += width
        return total

    def forward(self, batch: Any) -> Tensor:
        """Batch of n impressions -> logits (n,).

        Sizes are read from shapes, never by ``len``: ``torch.export`` then leaves them free.
        """
        embeddings, sums = self.embeddings(batch.ids, self._bags(batch))
        inputs = [self._numbers(batch)] if self.schema.names("numeric") else []
        inputs += [embeddings[(name,)] for name in self.schema.names("categorical")]
        for module in self.interests:
            inputs += self._interest_inputs(module, embeddings, sums, batch)
        joined = torch.cat(inputs, dim=1)
        if can_fuse_mlp(self.mlp):
            return logits_of(self.mlp, self.output, joined)
        return self.output(self.mlp(joined)).squeeze(1)

    def _bags(self, batch: Any) -> dict[Slot, Bag]:
        """Where the events lie whose unweighted sums the interests use, by slot."""
        bags: dict[Slot, Bag] = {}
        modules: Any = self.interests
        for module in modules:
            if module.needs_sums:
                key = module.behaviour.histories
                bag = Bag(batch.rows[key], batch.offsets[key])
                bags |= dict.fromkeys(self.embeddings.slots_of(module.behaviour), bag)
        return bags

    def _numbers(self, batch: Any) -> Tensor:
        """Numbers (n, n_numeric); in training some are hidden behind zero, the average.

        Unlike the paper: an id's embedding knows its training rows' labels, and beside it an
        exact number (the item's mean so far) tells a row's own. The others are not scaled up: the
        slope of what is seen stays right.
        """
        if not (self.training and self.extended and self.embeddings.tables):
            return batch.numbers
        return batch.numbers * (torch.rand_like(batch.numbers) >= NUMBERS_HIDDEN)

    def _interest_inputs(
        self, module: Any, embeddings: dict[Slot, Tensor], sums: dict[Slot, Tensor], batch: Any
    ) -> list[Tensor]:
        behaviour = module.behaviour
        keys = self._joined(behaviour, embeddings)
        total = self._joined(behaviour, sums) if module.needs_sums else None
        queries = self._queries(behaviour, embeddings, batch.n_rows)
        interest, weights, matches = module(queries, keys, total, batch)
        interest = interest.expand(batch.n_rows, -1)  # one row where all histories are shared
        if not self.extended or queries is None:
            return [interest]
        rows, offsets = batch.rows[behaviour.histories], batch.offsets[behaviour.histories]
        lengths = offsets.diff().unsqueeze(1).float().expand(batch.n_rows, -1)
        # Unlike the paper: where repeated interest both draws and tires, attention, which starts
        # as this count, sees no slope to learn by; beside the count it does.
        counts = [lengths.log1p(), matches.log1p()]
        # Unlike the paper no interest by itself: it is a fingerprint of the user, and overfits.
        if weights is None:
            return [queries * interest, *counts]
        if batch.shared:
            mass = weights.sum(1, keepdim=True)
        else:
            mass = sum_events(weights.unsqueeze(1), rows, offsets)
        matched = [queries * interest, mass.sign() * mass.abs().log1p()]
        # Unlike the paper: the base model's view stays beside attention's, which may neglect it
        base = total * lengths.clamp(min=1.0).rsqrt()
        return [*matched, queries * base, *counts]

    def _joined(self, behaviour: Behaviour, by_slot: dict[Slot, Tensor]) -> Tensor:
        """Attributes of a behaviour side by side."""
        parts = [by_slot[slot] for slot in self.embeddings.slots_of(behaviour)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _queries(
        self, behaviour: Behaviour, embeddings: dict[Slot, Tensor], n_rows: int
    ) -> Tensor | None:
        """Candidate's embedding by attribute, zeros where there is none; None for a bag."""
        if behaviour.is_bag:
            return None
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        parts = [
            self.output.weight.new_zeros(n_rows, self.embeddings.width(history))
            if candidate is None
            else embeddings[(candidate,)]
            for history, candidate in pairs
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def attention(self, batch: Any) -> dict[tuple[str, ...], Tensor]:
        """Weight of each event in its impression's interest, by behaviour: (n_events,)."""
        embeddings, _ = self.embeddings(batch.ids, {})
        weights = {}
        modules: Any = self.interests
        for module in modules:
            behaviour, key = module.behaviour, module.behaviour.histories
            rows, offsets = batch.rows[key], batch.offsets[key]
            keys = self._joined(behaviour, embeddings)
            found = keys.new_ones(len(keys))
            if module.pooling == "attention":
                queries = self._queries(behaviour, embeddings, len(batch))
                found = module(queries, keys, None, batch)[1]
            scale = module.scale(offsets)
            if isinstance(scale, Tensor):
                found = found * scale.squeeze(1).index_select(0, rows)
            weights[key] = found
        return weights
