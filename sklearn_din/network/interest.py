"""One behaviour's inputs of the MLP: its events pooled for the candidate, and their counts.

Figures of each departure from the paper: docs/guide/tried.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.schema import PADDING_ID, UNKNOWN_ID, Behaviour
from sklearn_din.network.batch import Batch
from sklearn_din.network.fused import attend, can_fuse
from sklearn_din.network.layers import ActivationUnit
from sklearn_din.network.segments import (
    Segments,
    max_events,
    reuse_arange,
    segment_sum,
    softmax_events,
    sum_events,
)

NO_ID = -1  # equals no event's id: known ones that training hides are -2 and less
# How much an event counts per event that has come since: all alike, the last five or so, the last
# two or so. The MLP's counts use the first two, the activation unit's relations all three.
DECAYS = (1.0, 0.8, 0.5)
N_COUNTED = 2
# How many events of value zero join those of a plain mean, so that a few say little.
ADDED_EVENTS = 8.0


class Matches(NamedTuple):
    """Events that have their impression's candidate's id, for each candidate of a behaviour.

    Where a candidate and its events are lists of ids, it is how like their lists are, from 0 to 1.

    same : (n_events,) for each candidate, bool or float
    ranks : (n_events,), how many events of the impression have come after each event
    decays : (n_events,) each, DECAYS but the first, which is one, to the power of the rank
    weighed : (n_events, n_decays * n_candidates), the bits of ``same`` times each decay to the
        power of the rank
    """

    same: list[Tensor]
    ranks: Tensor
    decays: list[Tensor]
    weighed: Tensor

    @classmethod
    def find(cls, behaviour: Behaviour, batch: Batch, segments: Segments) -> Matches:
        """Compare all events with the candidates of their impressions; missing ids match nothing.

        An unknown value equals itself and no other.

        Unlike the paper, whose unit sees embeddings only: of finite width, they cannot show that
        two ids are equal.
        """
        rows, offsets = segments
        same = []
        for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
            if candidate in batch.lists:
                lists = batch.lists[candidate]
                at = batch.lists[history].at, lists.at.index_select(0, rows)
                same.append(batch.lists[history].likeness_to(lists, *at))
            elif candidate is not None:
                shown = shown_ids(batch.identities[candidate]).index_select(0, rows)
                same.append(batch.identities[history] == shown)
        newest = offsets[1:].index_select(0, rows) - 1
        ranks = (newest - reuse_arange(rows.shape[0], device=rows.device)).float()
        decays = [decay**ranks for decay in DECAYS[1:]]
        bits = torch.stack(same, dim=1).float()
        weighed = torch.cat([bits, *(bits * decay.unsqueeze(1) for decay in decays)], dim=1)
        return cls(same, ranks, decays, weighed)


def shown_ids(ids: Tensor) -> Tensor:
    """Return ids of candidates, NO_ID in place of missing ones, which match nothing."""
    return ids.masked_fill((ids == UNKNOWN_ID) | (ids == PADDING_ID), NO_ID)


class Interest(nn.Module):
    """One behaviour's inputs of the MLP, and their number.

    :meth:`outputs` and :attr:`n_outputs` are the only place in the network that knows what the MLP
    gets of a behaviour; ``interest_outputs`` in :mod:`sklearn_din.serving.export` is their twin.

    The published network gives it the interest alone, ``v_U(A) = sum_j a(e_j, v_A) e_j``
    (section 4.3), with weights a that are not normalised. In the paper's base model every a is 1.

    Parameters
    ----------
    behaviour : Behaviour
        Histories, and the candidates they are compared with. One without any candidate, a bag, is
        summed where ``pooling`` is "attention".
    widths : tuple of int
        Width of the embedding of each of the behaviour's histories.
    pooling : {"attention", "sum", "mean", "max"}
        How the events become one vector.
    extended : bool
        Whether the activation unit sees relations of event and candidate, and the MLP more than
        the interest. False is the published network.
    normalization : {None, "sqrt", "softmax"}
        What the weights are divided by: nothing, the root of the history's length, or the sum of
        their exponentials (a softmax).
    units : tuple of int
        Width of each hidden layer of the activation unit.
    activation : {"prelu", "dice", "relu", "sigmoid"}
        Function that follows every hidden layer of the activation unit.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        widths: tuple[int, ...],
        *,
        with_vectors: Sequence[tuple[str, str, str]] = (),
        pooling: str,
        extended: bool,
        normalization: str | None,
        units: tuple[int, ...],
        activation: str,
    ) -> None:
        super().__init__()
        self.behaviour = behaviour
        self.widths, self.width = widths, sum(widths)
        self.pooling = "sum" if behaviour.is_bag and pooling == "attention" else pooling
        self.extended = extended
        self.normalization = normalization
        self.with_vectors = list(with_vectors) if extended else []
        self.n_candidates = sum(candidate is not None for candidate in behaviour.candidates)
        pairs = zip(behaviour.candidates, widths, strict=True)
        n_alone = sum(width for candidate, width in pairs if candidate is None)
        has_more = extended and not behaviour.is_bag
        self.n_means = n_alone + len(behaviour.numbers) if has_more else 0
        self.n_plain_means = n_alone * (1 + self.n_candidates) if has_more else 0
        self.trains_embeddings = not extended or n_alone > 0
        if self.pooling == "attention":
            n_matches = self.n_candidates * len(DECAYS)
            n_relations = n_matches + 1 + len(behaviour.numbers) if extended else 0
            self.unit = ActivationUnit(self.width, n_relations, units=units, activation=activation)
            if extended:
                self.unit.start_as_matching(n_matches)

    @property
    def needs_sums(self) -> bool:
        """Return whether events' unweighted sums are used: as interest, or beside attention's."""
        beside_attention = self.extended and self.pooling == "attention"
        return self.pooling in ("sum", "mean") or beside_attention

    @property
    def divisor(self) -> str | None:
        """The normalization of the pooled sum; None where the mean or the maximum is taken."""
        return self.normalization if self.pooling in ("attention", "sum") else None

    @property
    def n_outputs(self) -> int:
        """Number of columns of :meth:`outputs`, over all its tensors."""
        if not self.extended or self.behaviour.is_bag:
            return self.width
        n_outputs = self.width + 1 + N_COUNTED * self.n_candidates  # one length
        n_outputs += self.n_means + self.n_plain_means + N_COUNTED * len(self.with_vectors)
        if self.pooling == "attention":
            n_outputs += 1 + self.width  # sum of the weights, unweighted sum
        return n_outputs

    def outputs(
        self, queries: Tensor | None, keys: Tensor, sums: Tensor | None, batch: Batch
    ) -> list[Tensor]:
        """Return the MLP's inputs of this behaviour, each tensor of shape (n_rows, columns).

        queries : (n_rows, width), or None for a bag
        keys : (n_events, width)
        sums : (n_rows, width), the unweighted sums of the keys, or None without ``needs_sums``

        The interest, for the published network and for bags. Otherwise, in this order, with L(x)
        for ``sign(x) log(1 + abs(x))``:

        candidate * interest : (n_rows, width)
        L(sum of the weights) : (n_rows, 1), with attention
        candidate * unweighted sum / sqrt(length) : (n_rows, width), with attention
        L(length of the history) : (n_rows, 1)
        L(events that have the candidate's id) : (n_rows, n_candidates)
        L(the same, an event counts 0.8 ** its recency rank) : (n_rows, n_candidates)
        weighted means of what has no candidate : (n_rows, n_means)
        plain means of attributes without a candidate : (n_rows, n_plain_means)
        """
        interest, weights, matches = self(queries, keys, sums, batch)
        if queries is None or matches is None:
            return [interest]
        offsets = self.segments_of(batch).offsets
        lengths = offsets.diff().unsqueeze(1).float()
        counts = self._counts(matches, offsets)
        # Unlike the paper: counts enter the MLP. Where repetition first attracts, then saturates,
        # the logit would have no slope in the weights' sum, which starts as the count of matches.
        more = [lengths.log1p(), counts.log1p()]
        if self.n_means:
            more.append(self._means(keys, weights, batch))
        if self.n_plain_means:
            numbers = torch.cat([lengths, counts[:, : self.n_candidates]], dim=1)
            more.append(self._plain_means(keys, matches, numbers, batch))
        if self.with_vectors:
            likeness = self._likeness(matches, batch)
            more.append(likeness * lengths.clamp(min=1.0).rsqrt())
        # Unlike the paper: the interest enters multiplied by the candidate only. By itself it
        # identifies the user, and the network overfits to users.
        if weights is None or sums is None:
            return [queries * interest, *more]
        mass = self._mass(weights, batch)
        weighted = [queries * interest, mass.sign() * mass.abs().log1p()]
        # Unlike the paper: the unweighted sum, all that the base model sees, is an input too, since
        # attention may neglect it.
        unweighted = sums * lengths.clamp(min=1.0).rsqrt()
        return [*weighted, queries * unweighted, *more]

    def _means(self, keys: Tensor, weights: Tensor | None, batch: Batch) -> Tensor:
        """Weighted means of attributes without a candidate and of numbers: (n_rows, n_means).

        They are ``sum_j w_j x_j / (1 + sum_j abs(w_j))`` of each column x of an attribute without
        a candidate, and of each number of the events. Without attention every weight w is one. The
        one below draws the mean of a few events towards zero.

        keys : (n_events, width)
        weights : (n_events,), or None without attention

        Unlike the paper: its interest has such attributes as they are. Here the interest enters
        multiplied by the candidate, which is zero where there is none.
        """
        columns = self.alone(keys)
        columns += [batch.event_numbers[name].unsqueeze(1) for name in self.behaviour.numbers]
        values = torch.cat(columns, dim=1)
        if weights is None:
            weights = values.new_ones(values.shape[0])
        totals = sum_events(values, *self.segments_of(batch), weights)
        return totals / (1.0 + self._mass(weights.abs(), batch))

    def _plain_means(self, keys: Tensor, matches: Matches, numbers: Tensor, batch: Batch) -> Tensor:
        """Means of attributes without a candidate over all events, and over those that match.

        They are ``sum_j x_j / (8 + n)`` over the n events j of the impression, then over those that
        have the id of the behaviour's first candidate, of its second one, and so on.

        keys : (n_events, width)
        numbers : (n_rows, 1 + n_candidates), how many events that are
        means : (n_rows, n_plain_means)

        Unlike the paper: what a user did so far, and did with this item and this category, is an
        input. Attention would have to learn both weights, and few clicks do not teach it.
        """
        values = torch.cat(self.alone(keys), dim=1)
        bits = F.pad(matches.weighed[:, : self.n_candidates], (1, 0), value=1.0)
        products = (bits.unsqueeze(2) * values.unsqueeze(1)).flatten(1)
        totals = sum_events(products, *self.segments_of(batch))
        totals = totals.view(-1, bits.shape[1], values.shape[1])
        return (totals / (numbers + ADDED_EVENTS).unsqueeze(2)).flatten(1)

    def alone(self, keys: Tensor) -> list[Tensor]:
        """Embeddings of the events' attributes that have no candidate."""
        attributes = zip(self.behaviour.candidates, keys.split(self.widths, dim=1), strict=True)
        return [column for candidate, column in attributes if candidate is None]

    def _likeness(self, matches: Matches, batch: Batch) -> Tensor:
        """Sums of the events' cosines with the candidate, then with recent events counting more.

        likeness : (n_rows, N_COUNTED * n_histories), of histories whose ids have fixed vectors

        Unlike the paper, and as for equal ids: a projection to few dimensions cannot show how like
        two vectors are.
        """
        segments, sums = self.segments_of(batch), []
        for history, candidate, vocabulary in self.with_vectors:
            table = F.normalize(batch.vectors.tables[vocabulary])
            queries = table.index_select(0, batch.vectors.rows[candidate])
            events = table.index_select(0, batch.vectors.rows[history])
            cosines = (events * queries.index_select(0, segments.rows)).sum(1)
            weighed = [cosines, *(cosines * decay for decay in matches.decays[: N_COUNTED - 1])]
            sums.append(sum_events(torch.stack(weighed, dim=1), *segments))
        return torch.cat(sums, dim=1)

    def _mass(self, weights: Tensor, batch: Batch) -> Tensor:
        """Sum of each impression's weights, (n_rows, 1): see ``forward``."""
        return sum_events(weights.unsqueeze(1), *self.segments_of(batch))

    @torch.no_grad()
    def event_weights(self, queries: Tensor | None, keys: Tensor, batch: Batch) -> Tensor:
        """Factor of each event in its impression's interest; "max" pooling has no such factors.

        queries : (n_rows, width), or None for a bag
        keys : (n_events, width)
        factors : (n_events,)
        """
        rows, offsets = self.segments_of(batch)
        weights = keys.new_ones(keys.shape[0])
        if self.pooling == "attention" and queries is not None:
            weights = self(queries, keys, None, batch)[1]
        scale = self._scale(offsets)
        return weights if scale is None else weights * scale.squeeze(1).index_select(0, rows)

    def segments_of(self, batch: Batch) -> Segments:
        """Return the impression of each of the behaviour's events."""
        histories = self.behaviour.histories
        return Segments(batch.rows[histories], batch.offsets[histories])

    def forward(
        self, queries: Tensor | None, keys: Tensor, sums: Tensor | None, batch: Batch
    ) -> tuple[Tensor, Tensor | None, Matches | None]:
        """Pool the events, weigh them for the candidate, and find those that have its id.

        queries : (n_rows, width), or None for a bag
        keys : (n_events, width)
        sums : (n_rows, width), the unweighted sums of the keys, or None without ``needs_sums``

        interest : (n_rows, width)
        weights : (n_events,), before any division by the root of the length; None without attention
        matches : the events that have the candidate's id; None for the published network and for
            bags
        """
        rows, offsets = self.segments_of(batch)
        matches = self._matches(batch)
        if self.pooling == "max":
            return max_events(keys, rows, offsets.shape[0] - 1), None, matches
        weights = None
        if self.pooling == "attention" and queries is not None:
            interest, weights = self._attend(queries, keys, matches, batch)
        else:
            interest = sum_events(keys, rows, offsets) if sums is None else sums
        scale = self._scale(offsets)
        return interest if scale is None else interest * scale, weights, matches

    def _matches(self, batch: Batch) -> Matches | None:
        """Events that have the candidate's id; None for the published network and for bags."""
        if not (self.extended and self.n_candidates):
            return None
        return Matches.find(self.behaviour, batch, self.segments_of(batch))

    def _counts(self, matches: Matches, offsets: Tensor) -> Tensor:
        """Matching events of each impression, then the same with recent events counting more.

        Unlike the paper: the weights' sum has to learn what is recent, this count knows it.

        counts : (n_rows, N_COUNTED * n_candidates)
        """
        return segment_sum(matches.weighed[:, : N_COUNTED * self.n_candidates], offsets)

    def _relations(self, matches: Matches, batch: Batch) -> Tensor:
        """Inputs of the unit beside embeddings: (n_events, n_relations).

        They are the weighed bits, then the recency rank (0 for the newest event, then log 2, log 3,
        ...), then the numbers of the event.

        Unlike the paper: products of same id and rank. Where an id counts if it came *lately*, the
        unit would have to learn the product, and early stopping comes before.
        """
        numbers = (batch.event_numbers[name] for name in self.behaviour.numbers)
        columns = torch.stack([matches.ranks.log1p(), *numbers], dim=1)
        return torch.cat([matches.weighed, columns], dim=1)

    def _attend(
        self, queries: Tensor, keys: Tensor, matches: Matches | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Weighted sums of the keys, not yet scaled, and the weights: see ``forward``.

        Unlike the paper: attention trains embeddings only where some attribute has no candidate
        (past answers: nothing else says whose resemble each other); else it overfits to users.
        """
        relations = None if matches is None else self._relations(matches, batch)
        if not self.trains_embeddings:
            queries, keys = queries.detach(), keys.detach()
        rows, offsets = self.segments_of(batch)
        if self.normalization != "softmax" and can_fuse(self.unit):
            return attend(self.unit, queries, keys, relations, rows, offsets)
        weights = self.unit(queries, keys, relations, rows)
        if self.normalization == "softmax":
            weights = softmax_events(weights, rows, offsets.shape[0] - 1)
        return sum_events(keys, rows, offsets, weights), weights

    def _scale(self, offsets: Tensor) -> Tensor | None:
        """Factor of each impression's sum, (n_rows, 1), or None where it stays as it is."""
        lengths = offsets.diff().clamp(min=1).unsqueeze(1)
        if self.pooling == "mean":
            return 1.0 / lengths
        return lengths.float().rsqrt() if self.divisor == "sqrt" else None
