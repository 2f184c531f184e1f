"""The Deep Interest Network: encoded fields in, one logit an impression out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_din._validation import check_choice
from sklearn_din.features import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.network.embeddings import Bag, FieldEmbeddings
from sklearn_din.network.fused import attend, attend_candidates, can_fuse, can_fuse_mlp, logits_of
from sklearn_din.network.layers import (
    MLP,
    ActivationUnit,
    bag,
    counted,
    max_events,
    softmax_events,
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


class Interest(nn.Module):
    """What one behaviour says about the candidate: a vector, and how strong it is.

    Attention as published: ``v_U(A) = sum_j a(e_j, v_A) e_j``, weights not normalised. Base
    model: all weights one.

    Parameters
    ----------
    behaviour : Behaviour
        Its histories and candidates.
    widths : tuple of int
        Width of each attribute's embedding.
    pooling : {"attention", "sum", "mean", "max"}
        How the events become one vector.
    extended : bool
        Whether relations of event and candidate enter the unit.
    normalization : {None, "sqrt", "softmax"}
        What the weights are divided by: nothing, the root of the history's length, or their
        exponentials' sum.
    units, activation
        Of the activation unit.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        widths: tuple[int, ...],
        *,
        pooling: str,
        extended: bool,
        normalization: str | None,
        units: tuple[int, ...],
        activation: str,
    ) -> None:
        super().__init__()
        self.behaviour = behaviour
        self.pooling = pooling
        self.extended = extended
        self.normalization = normalization
        if pooling == "attention":
            n_candidates = sum(candidate is not None for candidate in behaviour.candidates)
            n_relations = n_candidates + 1 + len(behaviour.numbers) if extended else 0
            self.unit = ActivationUnit(sum(widths), n_relations, units=units, activation=activation)
            if extended:
                self.unit.start_as_matching(n_candidates)
                alone = torch.tensor([candidate is None for candidate in behaviour.candidates])
                columns = alone.repeat_interleave(torch.tensor(widths)) if alone.any() else None
                self.register_buffer("without_candidate", columns, persistent=False)

    @property
    def needs_sums(self) -> bool:
        """Whether the unweighted sums of events are used: as interest, or beside attention's."""
        beside_attention = self.extended and self.pooling == "attention"
        return self.pooling in ("sum", "mean") or beside_attention

    def forward(
        self, queries: Tensor | None, keys: Tensor, sums: Tensor | None, batch: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Queries (n, width), keys (n_events, width), sums (n, width) -> a history in three views.

        ``sums`` are those of the keys, where :attr:`needs_sums`. Interest (n, width). Weights
        (n_events,): those of the sum before division by the root of the length; None where every
        event counts alike. Matches (n, n_candidates): how many events have the candidate's id,
        by attribute; None for the published network.
        """
        rows, offsets = batch.rows[self.behaviour.name], batch.offsets[self.behaviour.name]
        same = self._same_ids(batch, rows)
        matches = _count_matches(same, offsets, shared=batch.shared) if same else None
        if self.pooling == "max":
            return max_events(keys, rows, offsets.shape[0] - 1), None, matches
        total: Any = sums
        weights = None
        if self.pooling == "attention":
            common = self._common(batch, rows, offsets)
            if batch.shared:
                total, weights = self._attend_shared(queries, keys, same, common)
            else:
                total, weights = self._attend(queries, keys, same, common, rows, offsets)
        return total * self.scale(offsets), weights, matches

    def _attend(
        self,
        queries: Any,
        keys: Tensor,
        same: list[Tensor],
        common: list[Tensor],
        rows: Tensor,
        offsets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        relations = None
        if self.extended:
            relations = torch.stack([*(bits.float() for bits in same), *common], dim=1)
            queries, keys = queries.detach(), self._held(keys)
        if self.normalization != "softmax" and can_fuse(self.unit):
            return attend(self.unit, queries, keys, relations, rows, offsets)
        weights = self.unit(queries, keys, relations, rows)
        if self.normalization == "softmax":
            weights = softmax_events(weights, rows, offsets.shape[0] - 1)
        return sum_events(keys, rows, offsets, weights), weights

    def _held(self, keys: Tensor) -> Tensor:
        """Keys that attention's gradient does not move, but where no candidate trains them.

        Unlike the paper: embeddings learn from the candidate and from the base model's view.
        Attention only weighs them: moving them too, it learns users by heart.
        """
        alone: Any = self.without_candidate
        return keys.detach() if alone is None else torch.where(alone, keys, keys.detach())

    def _attend_shared(
        self, queries: Any, keys: Tensor, same: list[Tensor], common: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """All candidates against one history: weights (n, n_events)."""
        weights = attend_candidates(self.unit, queries, keys, same, common)
        if self.normalization == "softmax":
            weights = weights.softmax(dim=1)
        return weights @ keys, weights

    def scale(self, offsets: Tensor) -> Tensor | float:
        """Factor of each impression's sum, shape (n, 1)."""
        lengths = offsets.diff().clamp(min=1).unsqueeze(1)
        if self.pooling == "mean":
            return 1.0 / lengths
        return lengths.float().rsqrt() if self.normalization == "sqrt" else 1.0

    def _same_ids(self, batch: Any, rows: Tensor) -> list[Tensor]:
        """Whether each event has the candidate's id, by attribute: (n_events,).

        Where one history is shared, (n, n_events). Unlike the paper, whose network is not told: an
        embedding of finite width cannot say that two ids are equal.
        """
        same: list[Tensor] = []
        if not self.extended:
            return same
        pairs = zip(self.behaviour.histories, self.behaviour.candidates, strict=True)
        for history, candidate in pairs:
            if candidate is not None:
                shown = batch.ids[candidate]
                shown = shown.masked_fill(shown < FIRST_KNOWN_ID, -1)  # equals no event's id
                shown = shown.unsqueeze(1) if batch.shared else shown.index_select(0, rows)
                same.append(batch.ids[history] == shown)
        return same

    def _common(self, batch: Any, rows: Tensor, offsets: Tensor) -> list[Tensor]:
        """Recency rank and numbers of each event: the same for all candidates."""
        if not self.extended:
            return []
        newest = offsets[1:].index_select(0, rows) - 1
        recency = (newest - counted(rows.shape[0], device=rows.device)).float().log1p()
        return [recency, *(batch.event_numbers[name] for name in self.behaviour.numbers)]


def _count_matches(same: list[Tensor], offsets: Tensor, *, shared: bool) -> Tensor:
    """Events with the candidate's id: (n, n_candidates)."""
    if shared:
        return torch.stack([bits.sum(1) for bits in same], dim=1).float()
    return bag(torch.stack(same, dim=1).float(), offsets)


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
        inputs += [embeddings[name] for name in self.schema.names("categorical")]
        for module in self.interests:
            inputs += self._interest_inputs(module, embeddings, sums, batch)
        joined = torch.cat(inputs, dim=1)
        if can_fuse_mlp(self.mlp):
            return logits_of(self.mlp, self.output, joined)
        return self.output(self.mlp(joined)).squeeze(1)

    def _bags(self, batch: Any) -> dict[str, Bag]:
        """Where the events lie whose unweighted sums the interests use, by slot."""
        bags: dict[str, Bag] = {}
        modules: Any = self.interests
        for module in modules:
            if module.needs_sums:
                name = module.behaviour.name
                bag = Bag(batch.rows[name], batch.offsets[name])
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
        self, module: Any, embeddings: dict[str, Tensor], sums: dict[str, Tensor], batch: Any
    ) -> list[Tensor]:
        behaviour = module.behaviour
        keys = self._joined(behaviour, embeddings)
        total = self._joined(behaviour, sums) if module.needs_sums else None
        queries = self._queries(behaviour, embeddings, batch.n_rows)
        interest, weights, matches = module(queries, keys, total, batch)
        interest = interest.expand(batch.n_rows, -1)  # one row where all histories are shared
        if not self.extended or queries is None:
            return [interest]
        rows, offsets = batch.rows[behaviour.name], batch.offsets[behaviour.name]
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

    def _joined(self, behaviour: Behaviour, by_slot: dict[str, Tensor]) -> Tensor:
        """Attributes of a behaviour side by side."""
        parts = [by_slot[name] for name in self.embeddings.slots_of(behaviour)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _queries(
        self, behaviour: Behaviour, embeddings: dict[str, Tensor], n_rows: int
    ) -> Tensor | None:
        """Candidate's embedding by attribute, zeros where there is none; None for a bag."""
        if behaviour.is_bag:
            return None
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        parts = [
            self.output.weight.new_zeros(n_rows, self.embeddings.width(history))
            if candidate is None
            else embeddings[candidate]
            for history, candidate in pairs
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def attention(self, batch: Any) -> dict[str, Tensor]:
        """Weight of each event in its impression's interest, by behaviour: (n_events,)."""
        embeddings, _ = self.embeddings(batch.ids, {})
        weights = {}
        modules: Any = self.interests
        for module in modules:
            behaviour, name = module.behaviour, module.behaviour.name
            rows, offsets = batch.rows[name], batch.offsets[name]
            keys = self._joined(behaviour, embeddings)
            found = keys.new_ones(len(keys))
            if module.pooling == "attention":
                queries = self._queries(behaviour, embeddings, len(batch))
                found = module(queries, keys, None, batch)[1]
            scale = module.scale(offsets)
            if isinstance(scale, Tensor):
                found = found * scale.squeeze(1).index_select(0, rows)
            weights[name] = found
        return weights
