"""Embedding tables of all fields: look-up of ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.schema import FIRST_KNOWN_ID, UNKNOWN_ID, Schema
from sklearn_din.network.batch import BatchLists, BatchVectors, DistinctRows
from sklearn_din.network.segments import sum_events


class FieldEmbeddings(nn.Module):
    """One table for all vocabularies of a width, each with its own range of rows.

    However many fields there are, a training step takes one gather forward and one sparse gradient
    backward for each width, in time proportional to the ids of the batch. Rows start at random,
    N(0, scale^2); the padding and unknown rows of each vocabulary start at zero.

    If values have fixed vectors, an id's embedding is its row plus a learned projection of its
    vector, so that unknown values differ from each other, too.

    A list of ids, such as the genres of a film, has the mean of its ids' embeddings; the empty one
    has zeros.

    schema : the fields; those that share a vocabulary share its rows
    embedding_dim : width of every embedding, or the width for each vocabulary
    scale : standard deviation of a known id's first embedding

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
        self.projections = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(n_dims, self.width_of[name]))
                for name, n_dims in schema.vector_sizes.items()
            }
        )
        self._fields_by_width: dict[str, list[str]] = {}
        for name in self.vocabulary_of:
            self._fields_by_width.setdefault(str(self.width(name)), []).append(name)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all rows anew; padding and unknown become zero."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # no values to draw; torch would import many modules just to draw none
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

    def forward(
        self,
        ids: Mapping[str, Tensor],
        distinct: Mapping[str, DistinctRows] | None = None,
        vectors: BatchVectors | None = None,
        lists: Mapping[str, BatchLists] | None = None,
    ) -> dict[str, Tensor]:
        """Look up the rows of all ids, by field.

        ``distinct`` are the table rows of these ids; without it the backward pass finds them, and
        the host waits if the ids are on a GPU.

        ids : (n_rows,) of a column, (n_events,) of a history, (n_list_ids,) of distinct lists; of
            all fields, or of some
        embeddings : (n_rows, width) or (n_events, width) for each field
        """
        embeddings: dict[str, Tensor] = {}
        for width, fields in self._fields_by_width.items():
            names = [name for name in fields if name in ids]
            if names:
                at = [self._positions(name, ids) for name in names]
                rows = _LookUp.apply(self.tables[width], torch.cat(at), (distinct or {}).get(width))
                blocks = rows.split([positions.shape[0] for positions in at])
                embeddings |= zip(names, blocks, strict=True)
        for name, of_field in (lists or {}).items():  # their means, (n_lists, width)
            sums = sum_events(embeddings[name], of_field.rows, of_field.offsets)
            means = sums / of_field.offsets.diff().clamp(min=1).unsqueeze(1)
            embeddings[name] = means.index_select(0, of_field.at)
        if self.projections and vectors is not None:
            projected = {n: vectors.tables[n] @ weight for n, weight in self.projections.items()}
            for name in embeddings.keys() & vectors.rows.keys():
                of_ids = projected[self.vocabulary_of[name]].index_select(0, vectors.rows[name])
                embeddings[name] = embeddings[name] + of_ids
        return embeddings

    def means_of(self, lists: Mapping[str, BatchLists]) -> dict[str, Tensor]:
        """Return the embedding of each distinct list, (n_lists, width), by field."""
        each = {
            name: of._replace(at=torch.arange(len(of.offsets) - 1)) for name, of in lists.items()
        }
        ids = {
            n: of.identities.masked_fill(of.identities < 0, UNKNOWN_ID) for n, of in lists.items()
        }
        return self(ids, lists=each)

    @torch.no_grad()
    def distinct_rows(self, ids: Mapping[str, Tensor]) -> dict[str, DistinctRows]:
        """Return the table rows that a batch's ids refer to, by width, before a GPU has the ids."""
        return {
            width: _distinct_rows(torch.cat([self._positions(name, ids) for name in names]))
            for width, names in self._fields_by_width.items()
        }

    def _positions(self, name: str, ids: Mapping[str, Tensor]) -> Tensor:
        """Return the table rows that a field's ids refer to."""
        offset = self.offset_of[self.vocabulary_of[name]]
        return ids[name] + offset if offset else ids[name]


class _LookUp(torch.autograd.Function):
    """Gather rows of a table: its gradient is sparse, each distinct row once, ascending."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, positions: Tensor, distinct: DistinctRows | None
    ) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.distinct, ctx.shape = distinct, table.shape
        return table.index_select(0, positions)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        order, starts, rows = ctx.distinct or _distinct_rows(positions)
        sums = F.embedding_bag(order, grad_rows, starts, mode="sum")
        return sparse_gradient(rows, sums, ctx.shape), None, None


def sparse_gradient(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of a table: zero but for these rows, which are distinct and ascending."""
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False
    )


def _distinct_rows(positions: Tensor) -> DistinctRows:
    """Return the distinct rows that ids refer to, (n_positions,), by one sort."""
    ordered, order = positions.sort()
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = is_first.nonzero().squeeze(1)
    return DistinctRows(order, starts, ordered.index_select(0, starts).long())
