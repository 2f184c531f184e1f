"""Embedding tables of all fields: ids in, their rows and the sums per impression out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.features.vectors import Vectors
from sklearn_din.network.batch import BatchLists, BatchVectors, DistinctRows, to_device
from sklearn_din.network.segments import (
    Segments,
    gather_rows,
    reuse_arange,
    segment_sum,
    sum_events,
)

Slot = tuple[str, ...]  # names of the fields that are looked up together


class FieldEmbeddings(nn.Module):
    """One table for all vocabularies of a width, each with its own range of rows.

    A training step then costs one gather forward and one sparse gradient backward for each width,
    however many fields there are, and both cost what the ids of the batch cost. Rows start at
    random, N(0, scale^2); the padding and unknown rows of each vocabulary start at zero.

    Where the values have fixed vectors, an id's embedding is its row and a projection of its
    vector, which is learnt: that of an unknown value is then more than the unknown row.

    A list of ids, such as the genres of a film, has the mean of its ids' embeddings; the empty one
    has zeros.

    Parameters
    ----------
    schema : Schema
        The fields. Those that share a vocabulary share its rows.
    embedding_dim : int or dict of str to int
        Width of every embedding, or the width for each vocabulary.
    scale : float, default=0.05
        Standard deviation of a known id's first embedding.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> fields = FieldEmbeddings(Schema((Field("item", "categorical", "item", 9),)), 4)
    >>> fields.weight("item").shape
    torch.Size([9, 4])
    """

    def __init__(
        self, schema: Schema, embedding_dim: int | Mapping[str, int], *, scale: float = 0.05
    ) -> None:
        super().__init__()
        self.scale = scale
        sizes = schema.vocabulary_sizes
        self.vocabulary_of = {f.name: f.vocabulary for f in schema.fields if f.has_ids}
        self.width_of = {
            name: embedding_dim[name] if isinstance(embedding_dim, Mapping) else int(embedding_dim)
            for name in sizes
        }
        self.offset_of: dict[str, int] = {}
        self.tables = nn.ParameterDict()
        for width in sorted(set(self.width_of.values())):
            names = [name for name in sizes if self.width_of[name] == width]
            ends = np.cumsum([sizes[name] for name in names])
            self.offset_of |= {n: int(e) - sizes[n] for n, e in zip(names, ends, strict=True)}
            self.tables[str(width)] = nn.Parameter(torch.empty(int(ends[-1]), width))
        self.sizes = sizes
        self.of_lists = {field.name for field in schema.fields if field.holds_lists}
        self.projections = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(n_dims, self.width_of[name]))
                for name, n_dims in schema.vector_sizes.items()
            }
        )
        self.slots: list[Slot] = [(name,) for name in schema.names("categorical", "list")]
        for behaviour in schema.behaviours:
            self.slots += self.slots_of(behaviour)
        self._slots_by_width: dict[str, list[Slot]] = {}
        for slot in self.slots:
            self._slots_by_width.setdefault(str(self.width(slot[0])), []).append(slot)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all rows anew; padding and unknown become zero."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # sizes alone: to draw nothing, torch would import half of itself
        for table in self.tables.values():
            nn.init.normal_(table, std=self.scale)
        for vocabulary in self.sizes:
            self.weight(vocabulary)[:FIRST_KNOWN_ID] = 0.0
        for projection in self.projections.values():
            nn.init.normal_(projection, std=self.scale / len(projection) ** 0.5)

    def vocabularies_of(self, width: str) -> list[str]:
        """Vocabularies in the table of that width, in the order of their rows."""
        return [name for name in self.sizes if self.width_of[name] == int(width)]

    def starts(self, width: str) -> Tensor:
        """First row of each vocabulary in the table of that width, in order."""
        return torch.tensor([self.offset_of[name] for name in self.vocabularies_of(width)])

    def width(self, field: str) -> int:
        """Width of a field's embedding."""
        return self.width_of[self.vocabulary_of[field]]

    def weight(self, vocabulary: str) -> Tensor:
        """Rows of one vocabulary, shape (n_ids, width): a view, row i belongs to id i."""
        offset = self.offset_of[vocabulary]
        table = self.tables[str(self.width_of[vocabulary])]
        return table[offset : offset + self.sizes[vocabulary]]

    @torch.no_grad()
    def look_up(self, vocabulary: str, ids: np.ndarray, known: Vectors | None) -> Tensor:
        """Return the whole embeddings of ids: rows, and projections of their fixed vectors.

        known : the fixed vectors of the vocabulary, or None where it has none
        embeddings : (n_ids, width)
        """
        rows = self.weight(vocabulary)[torch.from_numpy(ids_to_look_up(ids))]
        if known is None:
            return rows
        table = torch.from_numpy(known.table[known.rows_of(ids)]).to(rows.device)
        return rows + table @ self.projections[vocabulary]

    def slots_of(self, behaviour: Behaviour) -> list[Slot]:
        """Slots that hold a behaviour's events.

        One slot where all its attributes are single ids and have the same width, otherwise one for
        each attribute.
        """
        names = behaviour.histories
        together = len({self.width(name) for name in names}) == 1 and self.of_lists.isdisjoint(
            names
        )
        return [names] if together else [(name,) for name in names]

    def forward(
        self,
        ids: Mapping[str, Tensor],
        segments: Mapping[Slot, Segments],
        distinct: Mapping[str, DistinctRows] | None = None,
        vectors: BatchVectors | None = None,
        lists: Mapping[str, BatchLists] | None = None,
    ) -> tuple[dict[Slot, Tensor], dict[Slot, Tensor]]:
        """Look up the rows of all ids, and sum those of histories over each impression.

        Both are by slot, the names of the fields that are looked up together: ``("item",)``, or a
        behaviour's histories, whose attributes then lie side by side. ``distinct`` is that of these
        ids; without it the backward pass finds them, for which the host must wait where they are on
        a GPU.

        ids : (n_rows,) of a column, (n_events,) of a history, (n_list_ids,) of distinct lists; of
            all slots, or of some
        segments : of the slots whose sums are needed
        embeddings : (n_rows, width) or (n_events, width) for each slot
        sums : (n_rows, width) for each slot in ``segments``
        """
        embeddings: dict[Slot, Tensor] = {}
        sums: dict[Slot, Tensor] = {}
        segments_of: dict[Slot, Segments] = dict(segments)
        for name, of_field in (lists or {}).items():  # summed over each list
            segments_of[(name,)] = Segments(of_field.rows, of_field.offsets)
        for width, all_slots in self._slots_by_width.items():
            slots = [slot for slot in all_slots if slot[0] in ids]
            if not slots:
                continue
            table = self.tables[width]
            positions = [self._positions(slot, ids) for slot in slots]
            requests = [
                _Request(at.shape[0], len(slot), segments_of.get(slot))
                for slot, at in zip(slots, positions, strict=True)
            ]
            touched = distinct.get(width) if distinct else None
            look_up = _LookUp.apply if torch.is_grad_enabled() else _look_up
            tensors = look_up(table, torch.cat(positions), requests, touched)
            summed = [slot for slot in slots if slot in segments_of]
            embeddings |= zip(slots, tensors[: len(slots)], strict=True)
            sums |= zip(summed, tensors[len(slots) :], strict=True)
        for name, of_field in (lists or {}).items():
            slot = (name,)
            lengths = of_field.offsets.diff().clamp(min=1).unsqueeze(1)
            means = sums.pop(slot) / lengths  # (n_lists, width)
            embeddings[slot] = means.index_select(0, of_field.at)
            if slot in segments:
                sums[slot] = sum_events(embeddings[slot], *segments[slot])
        if self.projections and vectors is not None:
            self._add_projections(vectors, segments, embeddings, sums)
        return embeddings, sums

    def _add_projections(
        self,
        vectors: BatchVectors,
        segments: Mapping[Slot, Segments],
        embeddings: dict[Slot, Tensor],
        sums: dict[Slot, Tensor],
    ) -> None:
        """Add to embeddings and sums those of the fixed vectors: each distinct one once."""
        projected = {n: vectors.tables[n] @ weight for n, weight in self.projections.items()}
        for slot in embeddings:
            widths = [self.width(name) for name in slot]
            for position, name in enumerate(slot):
                if name not in vectors.rows:
                    continue
                beside = (sum(widths[:position]), sum(widths[position + 1 :]))
                of_ids = projected[self.vocabulary_of[name]].index_select(0, vectors.rows[name])
                embeddings[slot] = embeddings[slot] + F.pad(of_ids, beside)
                if slot in segments:
                    total = sum_events(of_ids, *segments[slot])
                    sums[slot] = sums[slot] + F.pad(total, beside)

    @torch.no_grad()
    def distinct_rows(self, ids: Mapping[str, Tensor]) -> dict[str, DistinctRows]:
        """Rows of the tables that a batch's ids stand for, by the width of the table.

        Their number is the size of a sparse gradient, which the host must know: for a network on a
        GPU they are found while the ids are still in the host's memory.
        """
        return {
            width: _distinct_rows(torch.cat([self._positions(slot, ids) for slot in slots]))
            for width, slots in self._slots_by_width.items()
        }

    @torch.no_grad()
    def merge_gradients(self, ids: Mapping[str, Tensor]) -> None:
        """Have each row once, in ascending order, in the tables' gradients of a batch's parts.

        On a CPU torch adds sparse gradients up so; on a GPU it puts them one after the other. The
        ids are those of the whole batch, in the host's memory.
        """
        for width, distinct in self.distinct_rows(ids).items():
            table = self.tables[width]
            if table.grad is None:
                continue
            rows = to_device(distinct.rows, table.device)
            ordered, order = table.grad._indices()[0].sort(stable=True)
            starts = torch.searchsorted(ordered, rows)
            sums = F.embedding_bag(order, table.grad._values(), starts, mode="sum")
            table.grad = _sparse_gradient(rows, sums, table.shape)

    def _positions(self, slot: Slot, ids: Mapping[str, Tensor]) -> Tensor:
        """Rows of the table that a slot's ids stand for: all attributes of an event in turn."""
        offsets = [self.offset_of[self.vocabulary_of[name]] for name in slot]
        shifted = [
            ids[name] + offset if offset else ids[name]
            for name, offset in zip(slot, offsets, strict=True)
        ]
        return torch.stack(shifted, dim=1).view(-1) if len(slot) > 1 else shifted[0]


class _Request(NamedTuple):
    """One slot of a look-up: ids of all its attributes; segments, where sums are needed."""

    n_positions: int
    n_attributes: int
    segments: Segments | None


def _look_up(
    table: Tensor,
    positions: Tensor,
    requests: Sequence[_Request],
    distinct: DistinctRows | None = None,
) -> tuple[Tensor, ...]:
    """Embeddings of each slot, then the sums of those that ask for them."""
    blocks = gather_rows(table, positions).split([request.n_positions for request in requests])
    embeddings = [
        block.view(-1, request.n_attributes * table.shape[1])
        for block, request in zip(blocks, requests, strict=True)
    ]
    sums = [
        segment_sum(values, request.segments.offsets)
        for values, request in zip(embeddings, requests, strict=True)
        if request.segments is not None
    ]
    return (*embeddings, *sums)


class _LookUp(torch.autograd.Function):
    """Gather rows of a table and sum them over impressions.

    The gradient of the table is sparse: it holds each distinct row once, in ascending order.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        positions: Tensor,
        requests: Sequence[_Request],
        distinct: DistinctRows | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(positions)
        ctx.distinct = distinct
        ctx.shape, ctx.requests = table.shape, requests
        ctx.set_materialize_grads(False)
        return _look_up(table, positions, requests)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None, None]:
        (positions,) = ctx.saved_tensors
        order, starts, rows = ctx.distinct or _distinct_rows(positions)
        grad_rows, source = _gradient_rows(ctx.requests, gradients, ctx.shape[1])
        sums = F.embedding_bag(source.index_select(0, order), grad_rows, starts, mode="sum")
        return _sparse_gradient(rows, sums, ctx.shape), None, None, None


def _sparse_gradient(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of a table: zero but for these rows, which are distinct and ascending."""
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False
    )


def _distinct_rows(positions: Tensor) -> DistinctRows:
    """Distinct rows among those that ids stand for, (n_positions,): one sort of all of them."""
    ordered, order = positions.sort()
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = is_first.nonzero().squeeze(1)
    return DistinctRows(order, starts, ordered.index_select(0, starts).long())


def _gradient_rows(
    requests: Sequence[_Request], gradients: Sequence[Tensor | None], width: int
) -> tuple[Tensor, Tensor]:
    """Gradients of all looked-up rows, where equal ones are written once.

    grad_rows : (n, width)
    source : (n_positions,), which of the n is the gradient of each position
    """
    present = next(gradient for gradient in gradients if gradient is not None)
    grad_sums = iter(gradients[len(requests) :])
    blocks: list[Tensor] = []
    sources: list[Tensor] = []
    n_rows = 0
    for request, grad_events in zip(requests, gradients, strict=False):
        grad_sum = None if request.segments is None else next(grad_sums)
        if request.segments is not None and grad_sum is not None:
            block, source = _spread_sums(request, request.segments.rows, grad_sum, grad_events)
        else:  # used by themselves, or not at all
            if grad_events is None:
                grad_events = present.new_zeros(request.n_positions, width)
            block = grad_events
            source = reuse_arange(request.n_positions, device=present.device)
        blocks.append(block.reshape(-1, width))
        sources.append(source + n_rows)
        n_rows += blocks[-1].shape[0]
    return torch.cat(blocks), torch.cat(sources)


def _spread_sums(
    request: _Request, rows: Tensor, grad_sum: Tensor, grad_events: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of a slot whose sums were used, and which of them belongs to each position.

    All events of an impression share its sum's gradient: it is copied to each event only where
    the events were used by themselves too.
    """
    if grad_events is not None:
        source = reuse_arange(request.n_positions, device=rows.device)
        return grad_events + grad_sum.index_select(0, rows), source
    attributes = reuse_arange(request.n_attributes, device=rows.device)
    return grad_sum, (rows.unsqueeze(1) * request.n_attributes + attributes).view(-1)
