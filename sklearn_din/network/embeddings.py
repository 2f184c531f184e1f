"""Embedding tables of all fields: ids in, rows and their sums by impression out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.network.layers import bag, counted, gather_rows

Slot = tuple[str, ...]  # names of the fields that are looked up together


class Bag(NamedTuple):
    """Where each impression's events lie: see :mod:`sklearn_din.network.layers`."""

    rows: Tensor
    offsets: Tensor


class FieldEmbeddings(nn.Module):
    """One table for all vocabularies of a width, each with its own range of rows.

    Packing makes a step's cost follow the ids in the batch: one gather forward and one sparse
    gradient backward, however many fields there are. Rows start at N(0, scale); the padding and
    unknown rows of each vocabulary start at zero.

    Parameters
    ----------
    schema : Schema
        The fields; fields that share a vocabulary share its rows.
    embedding_dim : int or dict of str to int
        Width, or the width of each vocabulary.
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
        self.slots = self._slots(schema)
        self.reset_parameters()

    def _slots(self, schema: Schema) -> list[Slot]:
        slots: list[Slot] = [(name,) for name in schema.names("categorical")]
        for behaviour in schema.behaviours:
            slots += self.slots_of(behaviour)
        return slots

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all rows anew; padding and unknown become zero."""
        for table in self.tables.values():
            nn.init.normal_(table, std=self.scale)
        for vocabulary in self.sizes:
            self.weight(vocabulary)[:FIRST_KNOWN_ID] = 0.0

    def starts(self, width: str) -> Tensor:
        """First row of each vocabulary in the table of that width, in order."""
        names = [name for name, its in self.width_of.items() if its == int(width)]
        return torch.tensor([self.offset_of[name] for name in names])

    def width(self, field: str) -> int:
        """Width of a field's embedding."""
        return self.width_of[self.vocabulary_of[field]]

    def weight(self, vocabulary: str) -> Tensor:
        """Rows of one vocabulary, shape (n_ids, width): a view, row i belongs to id i."""
        offset = self.offset_of[vocabulary]
        table = self.tables[str(self.width_of[vocabulary])]
        return table[offset : offset + self.sizes[vocabulary]]

    def slots_of(self, behaviour: Behaviour) -> list[Slot]:
        """Slots that hold a behaviour's events: one where its attributes are equally wide."""
        one_width = len({self.width(name) for name in behaviour.histories}) == 1
        return [behaviour.histories] if one_width else [(name,) for name in behaviour.histories]

    def forward(
        self, ids: Mapping[str, Tensor], bags: Mapping[Slot, Bag]
    ) -> tuple[dict[Slot, Tensor], dict[Slot, Tensor]]:
        """Rows of all ids, and sums of histories' events.

        Parameters
        ----------
        ids : dict of str to Tensor of shape (n_ids,)
            Of each field.
        bags : dict of Slot to Bag
            The slots whose sums are asked, and where their events lie.

        Returns
        -------
        embeddings : dict of Slot to Tensor of shape (n_ids, width)
            A slot is the names of the fields that were looked up together: ``("item",)``, or a
            behaviour's histories, whose attributes then lie side by side.
        sums : dict of Slot to Tensor of shape (n_rows, width)
            Of the slots in ``bags``.
        """
        embeddings: dict[Slot, Tensor] = {}
        sums: dict[Slot, Tensor] = {}
        for width, table in self.tables.items():
            slots = [slot for slot in self.slots if self.width(slot[0]) == int(width)]
            if not slots:
                continue
            blocks = [self._positions(slot, ids) for slot in slots]
            pieces = [
                _Piece(block.shape[0], len(slot), bags.get(slot))
                for slot, block in zip(slots, blocks, strict=True)
            ]
            found = _LookUp.apply(table, torch.cat(blocks), pieces)
            embeddings |= zip(slots, found[: len(slots)], strict=True)
            sums |= zip((slot for slot in slots if slot in bags), found[len(slots) :], strict=True)
        return embeddings, sums

    def _positions(self, slot: Slot, ids: Mapping[str, Tensor]) -> Tensor:
        offsets = [self.offset_of[self.vocabulary_of[name]] for name in slot]
        if len(slot) == 1:
            return ids[slot[0]] + offsets[0]
        shifted = [ids[name] + offset for name, offset in zip(slot, offsets, strict=True)]
        return torch.stack(shifted, dim=1).view(-1)


class _Piece(NamedTuple):
    """What a look-up holds of one slot."""

    n_ids: int
    n_attributes: int
    bag: Bag | None  # where its sums are asked


class _LookUp(torch.autograd.Function):
    """Gather rows and sum them; the gradient is sparse, each distinct row once, in order."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, ids: Tensor, pieces: Sequence[_Piece]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.pieces = table.shape, pieces
        ctx.set_materialize_grads(False)
        parts = gather_rows(table, ids).split([piece.n_ids for piece in pieces])
        found = [
            part.view(-1, piece.n_attributes * table.shape[1])
            for part, piece in zip(parts, pieces, strict=True)
        ]
        sums = [
            bag(values, piece.bag.offsets)
            for values, piece in zip(found, pieces, strict=True)
            if piece.bag is not None
        ]
        return (*found, *sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        ordered, order = ids.sort()
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
        starts = is_first.nonzero().squeeze(1)
        gradient_rows, place = _gradient_rows(ctx.pieces, gradients, ctx.shape[1])
        rows = F.embedding_bag(place.index_select(0, order), gradient_rows, starts, mode="sum")
        distinct = ordered.index_select(0, starts).long().unsqueeze(0)
        sparse = torch.sparse_coo_tensor(
            distinct, rows, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None, None


def _gradient_rows(
    pieces: Sequence[_Piece], gradients: Sequence[Tensor | None], width: int
) -> tuple[Tensor, Tensor]:
    """Rows (n, width), and which of them is the gradient of each id."""
    used = next(gradient for gradient in gradients if gradient is not None)
    of_sums = iter(gradients[len(pieces) :])
    blocks: list[Tensor] = []
    places: list[Tensor] = []
    n_rows = 0
    for piece, of_events in zip(pieces, gradients, strict=False):
        of_sum = None if piece.bag is None else next(of_sums)
        if of_events is None and of_sum is None:
            of_events = used.new_zeros(piece.n_ids, width)
        block, place = _of_piece(piece, of_events, of_sum)
        blocks.append(block.reshape(-1, width))
        places.append(place + n_rows)
        n_rows += blocks[-1].shape[0]
    return torch.cat(blocks), torch.cat(places)


def _of_piece(piece: Any, of_events: Any, of_sum: Any) -> tuple[Tensor, Tensor]:
    """Gradient of a slot's events, or where only their sums were used, of each impression's sum.

    All events of an impression share the latter: it is never written out for each event.
    """
    if of_sum is None:
        return of_events, counted(piece.n_ids, device=of_events.device)
    rows = piece.bag.rows
    if of_events is not None:
        each = counted(piece.n_ids, device=rows.device)
        return of_events + of_sum.index_select(0, rows), each
    attributes = counted(piece.n_attributes, device=rows.device)
    return of_sum, (rows.unsqueeze(1) * piece.n_attributes + attributes).view(-1)
