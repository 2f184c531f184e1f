"""What one behaviour says about the candidate: attention over its events, or a plain pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour
from sklearn_din.network.fused import attend, attend_candidates, can_fuse
from sklearn_din.network.layers import (
    ActivationUnit,
    bag,
    counted,
    max_events,
    softmax_events,
    sum_events,
)


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
        rows, offsets = (
            batch.rows[self.behaviour.histories],
            batch.offsets[self.behaviour.histories],
        )
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
