"""Inputs of the MLP from one behaviour: their columns, over events in any layout.

For the effect of each difference from the paper, see docs/results.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.number_ends import ENDLESS, Ends, Ranges
from sklearn_din.features.schema import PADDING_ID, UNKNOWN_ID, Behaviour
from sklearn_din.network.batch import Batch
from sklearn_din.network.layers import ActivationUnit
from sklearn_din.network.segments import Segments, max_events, softmax_events, sum_events

UNITS = {"attention": ActivationUnit}  # what weighs events, by the pooling that asks for it
NO_ID = -1  # matches no event: ids that training hides are -2 and below
# Decay of an event's weight per later event: none, over about five events, over about two events.
# The MLP's counts use the first two, the activation unit's relations all three.
DECAYS = (1.0, 0.8, 0.5)
N_COUNTED = 2
# Number of zeros added to a plain mean, which shrinks means of few events.
ADDED_EVENTS = 8.0

Array = Any  # a Tensor, or a Value of an ONNX graph, which has the same operators


class Column(NamedTuple):
    """Inputs of the MLP, (n_rows, width): a formula over a behaviour's events."""

    name: str
    width: int
    formula: Callable[[Events], Array]


class Events:
    """One behaviour's events and what their impressions see of them, in one of several layouts.

    Torch has the events of all impressions one after the other; ONNX files have them with padding,
    or one history for all candidates. A layout has the operations that are not implemented here;
    ``Interest.columns`` is written over them, once for all.

    Arrays of impressions, (n_rows, ...), have one row where all candidates share a history. Those
    of events, (events, ...), have the axes of the layout in front.

    interest : the behaviour's module
    queries : (n_rows, width), candidates, zeros where an attribute has none; None for a bag
    keys : (events, width)
    lengths : (n_rows, 1), how many events each impression has

    counted : (events, N_COUNTED), how much an event counts by its recency
    numbers, differences : by event, its numbers; by how much those of the impression are larger
    same, factors, ranks : by event, if the network is extended: for each compared attribute,
        whether it has the candidate's id, or how near its number is; each of ``DECAYS[1:]`` to the
        power of its rank; and the rank, how many events came later
    counts : (n_rows, n_compared, N_COUNTED), events that have the candidate's id, by how they are
        counted; set by :meth:`outputs`
    """

    counted: Array
    numbers: Sequence[Array]
    differences: Sequence[Array]
    same: Sequence[Array]
    factors: Sequence[Array]
    ranks: Array
    counts: Array

    def __init__(self, interest: Interest, queries: Array, keys: Array, lengths: Array) -> None:
        self.interest, self.queries, self.keys, self.lengths = interest, queries, keys, lengths
        self.scale = lengths.clamp(1.0).rsqrt()

    def _relate(self, ranks: Array, ones: Array, same: Sequence[Array]) -> None:
        """Set what the unit's relations and the MLP's counts are made of.

        ranks, ones : by event, how many have come since, and one (zero of padding)
        same : by event, for each attribute whether it has the candidate's id, or how like it is
        """
        self.ranks, self.same = ranks, same
        self.factors = [decay**ranks for decay in DECAYS[1:]]
        counted = [ones, *self.factors][:N_COUNTED]
        self.counted = self.join([factors.unsqueeze(-1) for factors in counted])

    def outputs(self) -> list[Array]:
        """Return the MLP's inputs, (n_rows, width) of each column."""
        self.pooled, self.weights = self.pool()
        if self.interest.extended:
            self.counts = self.sum_matching(self.counted)
        return [column.formula(self) for column in self.interest.columns()]

    def pool(self) -> tuple[Array, Array]:
        """Return the events as one vector, (n_rows, width), and weights, None without attention."""
        pooling, factor = self.interest.pooling, self.factor()
        if pooling == "max":
            return self.maximum(), None
        pooled, weights = self.attend() if self.interest.weighs else (self.sum(self.keys), None)
        return pooled if factor is None else pooled * factor, weights

    def factor(self) -> Array | None:
        """Return what multiplies sums of events, (n_rows, 1), or None where nothing does."""
        if self.interest.pooling == "mean":
            return self.scale * self.scale
        return self.scale if self.interest.divisor == "sqrt" else None

    def total(self, weights: Array) -> Array:
        """Return sums of weights: (n_rows, 1)."""
        return self.sum(self.counted[..., :1], weights)

    def alone(self) -> list[Array]:
        """Return the attributes of events that have no candidate."""
        return [self.keys[..., part] for part in self.interest.alone]

    def relations(self) -> list[Array]:
        """Return the activation unit's inputs other than embeddings, per event.

        They are the bits of same ids times each decay to the power of the rank, then the rank (0
        for the newest event, then log 2, log 3, ...), then the numbers of the event, and by how
        much those of the impression are larger.

        Unlike the paper: products of same id and rank. Where an id counts if it came *lately*, the
        unit would have to learn the product, and early stopping comes before.
        """
        weighed = [bits * factors for factors in self.factors for bits in self.same]
        return [*self.same, *weighed, self.ranks.log1p(), *self.numbers, *self.differences]

    def weighted_means(self) -> Array:
        """Return ``sum_j w_j x_j / (1 + sum_j abs(w_j))`` of what has no candidate, and of numbers.

        Without attention every weight w is one. The one draws the mean of few events towards zero.

        Unlike the paper: its interest has such attributes as they are. Here the interest enters
        multiplied by the candidate, which is zero where there is none.
        """
        mass = self.lengths if self.weights is None else self.total(self.weights.abs())
        numbers = [values.unsqueeze(-1) for values in self.numbers]
        return self.sum(self.join([*self.alone(), *numbers]), self.weights) / (mass + 1.0)

    def mean_difference(self, number: int) -> Array:
        """Return the same of a number's differences: (n_rows, 1)."""
        mass = self.lengths if self.weights is None else self.total(self.weights.abs())
        values = self.differences[number]
        values = values if self.weights is None else values * self.weights
        return self.total(values) / (mass + 1.0)

    def means(self) -> Array:
        """Return ``sum_j x_j / (8 + n)`` of attributes without a candidate over the n events."""
        return self.sum(self.join(self.alone())) / (self.lengths + ADDED_EVENTS)

    def means_of_matches(self) -> Array:
        """Return the same over the n events that have the candidate's id, by attribute."""
        sums = self.sum_matching(self.join(self.alone()))
        return (sums / (self.counts[..., :1] + ADDED_EVENTS)).flatten(1)

    def likeness(self, names: tuple[str, str, str]) -> Array:
        """Return sums of cosines over the root of the length, (n_rows, N_COUNTED)."""
        return self.sum(self.counted, self.cosines(*names)) * self.scale

    def join(self, columns: Sequence[Array]) -> Array:
        """Return columns of events side by side."""
        return torch.cat([*columns], dim=-1)

    def sum(self, values: Array, weights: Array = None) -> Array:
        """Return sums of what events have, (events, columns), by weights: (n_rows, columns)."""
        raise NotImplementedError

    def sum_matching(self, values: Array) -> Array:
        """Return sums of what the events with the candidate's id have, by attribute.

        Of lists of ids an event counts as much as it is like the candidate, from 0 to 1.

        Unlike the paper, whose unit sees embeddings only: of finite width, they cannot show that
        two ids are equal.

        values : (events, columns)
        sums : (n_rows, n_compared, columns)
        """
        raise NotImplementedError

    def cosines(self, history: str, candidate: str, vocabulary: str) -> Array:
        """Return cosines of the fixed vectors of events and candidates, as weights are."""
        raise NotImplementedError

    def attend(self) -> tuple[Array, Array]:
        """Return sums of the keys by weights of attention, (n_rows, width), and the weights."""
        raise NotImplementedError

    def maximum(self) -> Array:
        """Return the largest key by column, zeros without an event: (n_rows, width)."""
        raise NotImplementedError


class Interest(nn.Module):
    """One behaviour's activation unit, and the columns that the MLP gets of it.

    The published network gives it the interest alone, ``v_U(A) = sum_j a(e_j, v_A) e_j``
    (section 4.3), with weights a that are not normalised. In the paper's base model every a is 1.

    behaviour : histories, and the candidates they are compared with. One without any candidate, a
        bag, is summed where ``pooling`` is "attention"
    widths : width of the embedding of each of the behaviour's histories
    pooling : "attention", "sum", "mean" or "max", how the events become one vector
    compared_numbers : numbers of the events that are compared with one of the impression, and that
    extended : whether the activation unit sees relations of event and candidate, and the MLP more
        than the interest. False is the published network
    normalization : None, "sqrt" or "softmax", what the weights are divided by: nothing, the root of
        the history's length, or the sum of their exponentials
    units : width of each hidden layer of the activation unit
    activation : "prelu", "dice", "relu" or "sigmoid", which follows each of these layers
    """

    def __init__(
        self,
        behaviour: Behaviour,
        widths: tuple[int, ...],
        *,
        with_vectors: Sequence[tuple[str, str, str]] = (),
        compared_numbers: Mapping[str, str] | None = None,
        pooling: str,
        extended: bool,
        normalization: str | None,
        units: tuple[int, ...],
        activation: str,
    ) -> None:
        super().__init__()
        self.behaviour = behaviour
        self.widths, self.width = widths, sum(widths)
        self.pooling = "sum" if behaviour.is_bag and pooling in UNITS else pooling
        self.weighs = self.pooling in UNITS
        self.extended = extended and not behaviour.is_bag
        self.normalization = normalization
        self.divisor = normalization if self.weighs or self.pooling == "sum" else None
        self.with_vectors = list(with_vectors) if extended else []
        ends = accumulate(widths)
        parts = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
        attributes = [*zip(behaviour.histories, behaviour.candidates, parts, strict=True)]
        self.compared = [(history, name, part) for history, name, part in attributes if name]
        self.compared_numbers = {**(compared_numbers or {})} if self.extended else {}
        self.n_numbers = len(behaviour.numbers) + len(self.compared_numbers)
        self.n_compared = len(self.compared) + len(self.compared_numbers)
        self.ends: Ranges = {}  # of all numbers, of impressions and of events
        self.alone = [part for _, name, part in attributes if name is None]
        self.trains_embeddings = not extended or bool(self.alone)
        if self.weighs:
            n_matches = self.n_compared * len(DECAYS)
            n_relations = n_matches + 1 + self.n_numbers if extended else 0
            unit = UNITS[self.pooling]
            self.unit = unit(self.width, n_relations, units=units, activation=activation)
            if extended:
                self.unit.start_as_matching(n_matches)

    def columns(self) -> list[Column]:
        """Return the MLP's inputs of this behaviour in their order, for events in any layout.

        The interest, for the published network and for bags. Otherwise more, with L(x) for
        ``sign(x) log(1 + abs(x))``.
        """
        width, n_compared = self.width, self.n_compared
        n_alone = sum(part.stop - part.start for part in self.alone)
        if not self.extended:
            return [Column("interest", width, lambda e: e.pooled)]
        # Unlike the paper: the interest enters multiplied by the candidate only. By itself it
        # identifies the user, and the network overfits to users.
        columns = [Column("candidate * interest", width, lambda e: e.queries * e.pooled)]
        if self.weighs:
            # Unlike the paper: the unweighted sum, all that the base model sees, is an input too,
            # since attention may neglect it.
            columns += [
                Column("sum of weights", 1, lambda e: signed_log(e.total(e.weights))),
                Column("candidate * sum", width, lambda e: e.queries * (e.sum(e.keys) * e.scale)),
            ]
        # Unlike the paper: counts enter the MLP. If interest first grows with repetition, then
        # tires, the logit does not depend on the sum of the weights, which starts as the count of
        # matches and would have to learn what is recent.
        columns += [
            Column("length", 1, lambda e: e.lengths.log1p()),
            Column("matches", N_COUNTED * n_compared, lambda e: e.counts.mT.flatten(1).log1p()),
        ]
        n_means = n_alone + len(self.behaviour.numbers)
        if n_means:
            columns.append(Column("weighted means", n_means, Events.weighted_means))
        for number, name in enumerate(self.compared_numbers):
            difference = partial(Events.mean_difference, number=number)
            columns.append(Column(f"difference of {name}", 1, difference))
        # Unlike the paper: means over the user's events, and over those of this item and this
        # category, are inputs. Few clicks are not enough for attention to learn both weights.
        if n_alone:
            columns.append(Column("means", n_alone, Events.means))
            columns.append(
                Column("means of matches", n_alone * n_compared, Events.means_of_matches)
            )
        # Unlike the paper: cosines are inputs, because a projection to few dimensions loses the
        # similarity of two vectors.
        for names in self.with_vectors:
            likeness = partial(Events.likeness, names=names)
            columns.append(Column(f"cosines of {names[0]}", N_COUNTED, likeness))
        return columns

    @property
    def n_outputs(self) -> int:
        """Number of the MLP's inputs of this behaviour."""
        return sum(column.width for column in self.columns())

    def ends_of(self, name: str) -> Ends:
        """Return where a number of impressions or events ends."""
        return self.ends.get(name, ENDLESS)

    def numbers_of(self, batch: Batch) -> list[Tensor]:
        """Return the numbers of events, (n_events,) each, as far as their ends."""
        names = self.behaviour.numbers
        return [batch.event_numbers[name].clamp(*self.ends_of(name)) for name in names]

    def compare_numbers(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Return differences of the compared numbers, and how near they are: (n_events,) each."""
        return [
            batch.differences[name].between(self.ends_of(candidate), self.ends_of(name))
            for name, candidate in self.compared_numbers.items()
        ]

    def segments_of(self, batch: Batch) -> Segments:
        """Return the impression of each of the behaviour's events."""
        histories = self.behaviour.histories
        return Segments(batch.rows[histories], batch.offsets[histories])


class FlatEvents(Events):
    """Events of a batch's impressions, one after the other: (n_events, ...)."""

    def __init__(
        self, interest: Interest, queries: Tensor | None, keys: Tensor, batch: Batch
    ) -> None:
        self.batch, self.segments = batch, interest.segments_of(batch)
        rows, offsets = self.segments
        super().__init__(interest, queries, keys, offsets.diff().unsqueeze(1).float())
        if interest.extended:
            compared = interest.compare_numbers(batch)
            self.numbers = interest.numbers_of(batch)
            self.differences = [values for values, _ in compared]
            newest = offsets[1:].index_select(0, rows) - 1
            ranks = (newest - torch.arange(rows.shape[0], device=rows.device)).float()
            self._relate(ranks, torch.ones_like(ranks), find_same(interest, batch, compared))

    def sum(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        return sum_events(values, *self.segments, weights)

    def sum_matching(self, values: Tensor) -> Tensor:
        return torch.stack([self.sum(values, bits) for bits in self.same], dim=1)

    def cosines(self, history: str, candidate: str, vocabulary: str) -> Tensor:
        vectors = self.batch.vectors
        units, rows = F.normalize(vectors.tables[vocabulary]), vectors.rows[candidate]
        queries = units.index_select(0, rows.index_select(0, self.segments.rows))
        return (units.index_select(0, vectors.rows[history]) * queries).sum(1)

    def maximum(self) -> Tensor:
        return max_events(self.keys, self.segments.rows, self.lengths.shape[0])

    def attend(self) -> tuple[Tensor, Tensor]:
        # Unlike the paper: attention trains embeddings only if some attribute has no candidate
        # (past answers, whose embeddings nothing else trains); otherwise it overfits to users.
        interest, queries, keys = self.interest, self.queries, self.keys
        if not interest.trains_embeddings:
            queries, keys = queries.detach(), keys.detach()
        relations = torch.stack(self.relations(), dim=1) if interest.extended else None
        rows, offsets = self.segments
        weights = interest.unit(queries, keys, relations, rows)
        if interest.normalization == "softmax":
            weights = softmax_events(weights, rows, self.lengths.shape[0])
        return sum_events(keys, rows, offsets, weights), weights

    @torch.no_grad()
    def factors_of_events(self) -> Tensor:
        """Return each event's factor in its impression's interest: (n_events,)."""
        weights, factor = self.keys.new_ones(self.keys.shape[0]), self.factor()
        if self.interest.weighs:
            weights = self.attend()[1]
        if factor is None:
            return weights
        return weights * factor.squeeze(1).index_select(0, self.segments.rows)


def find_same(
    interest: Interest, batch: Batch, compared: Sequence[tuple[Tensor, Tensor]] = ()
) -> list[Tensor]:
    """Return which events have their impression's candidate's id, by attribute: (n_events,) each.

    Of lists of ids, how like they are, from 0 to 1; of numbers, how near, as ``compared``. Missing
    ones match nothing, an unknown value equals itself and no other.
    """
    same, rows = [], interest.segments_of(batch).rows
    for history, candidate, _ in interest.compared:
        if candidate in batch.lists:
            same.append(likeness_of_lists(batch, interest.behaviour.histories, history, candidate))
        else:
            ids = batch.identities[candidate]
            shown = ids.masked_fill((ids == UNKNOWN_ID) | (ids == PADDING_ID), NO_ID)
            same.append((batch.identities[history] == shown.index_select(0, rows)).float())
    return [*same, *(nearness for _, nearness in compared)]


def likeness_of_lists(
    batch: Batch, histories: tuple[str, ...], history: str, candidate: str
) -> Tensor:
    """Return how like the lists of events and candidates are, from 0 to 1: (n_events,)."""
    events, shown = batch.lists[history], batch.lists[candidate]
    if not batch.shared:
        return events.likeness_to(shown, events.at, shown.at.index_select(0, batch.rows[histories]))
    of_lists = shown.likeness_of_all(events).index_select(1, events.at)
    return of_lists.index_select(0, shown.at).flatten()


def signed_log(values: Array) -> Array:
    """Return ``sign(x) log(1 + abs(x))``."""
    return values.sign() * values.abs().log1p()
