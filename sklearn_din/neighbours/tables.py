"""What is learnt of training rows, as numbers; a row reads tables that do not count it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.features.store import Store, StoreWriter, create_store, make_once
from sklearn_din.neighbours.blocks import NOT_COUNTED, ByTime, ByUser, Order, OrderedRows
from sklearn_din.neighbours.item_scores import N_NUMBERS
from sklearn_din.neighbours.learnt_numbers import LearntNumbers, RowsToLearn, fill
from sklearn_din.neighbours.levels import UserLevels
from sklearn_din.neighbours.pairs import MUTED, NeighbourPair, histories_with_candidate
from sklearn_din.utils.digests import digest
from sklearn_din.utils.typed_fields import FORMS, from_dict, from_dict_of, to_dict
from sklearn_din.utils.warnings import ADVICE_FROM, log_once

KINDS_OF_ORDER: dict[str, type[ByTime] | type[ByUser]] = {"time": ByTime, "user": ByUser}
KINDS: tuple[type[LearntNumbers], ...] = (UserLevels, NeighbourPair)
"""Learnt in this order; columns of the last come first."""
FORMS[LearntNumbers] = to_dict, lambda value, what: from_dict_of(KINDS, value, what)
NUMBERS = "numbers "  # prefix of their names in a store
SHARE_IN_MEMORY = 8  # numbers of mapped rows beyond an eighth of the memory allowed go to files


@dataclass(frozen=True)
class NeighbourTables:
    """What was learnt of training rows; ``order`` says which table a row reads, None: nothing."""

    parts: tuple[LearntNumbers, ...] = ()
    order: Order | None = None

    def add_to(self, X: EncodedFeatures) -> EncodedFeatures:
        """Return impressions with their numbers, without older events; some have them already."""
        if not self.names or self.names[0] in X:
            return X
        parts, find_tables = self.widen(X.schema).parts, cast("Order", self.order).find_tables
        store = _store_of_rows(X, len(self.names))
        files = store and create_store(None, "neighbours", memory=store.memory)
        with files or nullcontext() as writer:
            numbers = [_allocate(len(X), writer, part.names) for part in parts]
            fill(numbers, parts, X, find_tables)
            if writer is not None:
                numbers = self._read_numbers(writer.finish())
            return self._with_columns(X, numbers)

    def mute_items(self, X: EncodedFeatures) -> tuple[NeighbourTables, EncodedFeatures]:
        """Return tables whose numbers of items vanish but for their order, and rows with zeros."""
        pairs = [replace(pair, scale=np.full_like(pair.scale, MUTED)) for pair in self.pairs]
        names = [name for pair in pairs for name in pair.names]
        zeros = dict.fromkeys(names, np.zeros(len(X), dtype=np.float32))
        parts = (*pairs, *self.parts[len(pairs) :])
        return replace(self, parts=parts), X._replace(columns=X.columns | zeros)

    def without_users(self, users: np.ndarray) -> NeighbourTables:
        """Return tables in which nothing stands by these users, given by their hashes."""
        return replace(self, parts=tuple(part.without_users(users) for part in self.parts))

    def widen(self, schema: Schema) -> NeighbourTables:
        """Return tables with the ids that were appended since; they have no neighbours yet."""
        return replace(self, parts=tuple(part.widen(schema) for part in self.parts))

    def grow(self, X: EncodedFeatures, is_click: np.ndarray, y: np.ndarray) -> NeighbourTables:
        """Return the tables after the clicks and labels of further rows, each once."""
        knows_rows = X.users is not None and X.times is not None
        if self.order is None or not (self.pairs or knows_rows):
            return self
        order, rows, kept = self.order.grow(X, is_click)
        n_left_out = int((rows.blocks == NOT_COUNTED).sum())
        if n_left_out and len(X) >= ADVICE_FROM:
            log_once(
                f"{n_left_out:,} of {len(X):,} rows are not later than those that item neighbours "
                "were learnt from, or are nobody's: the network learns from them, item neighbours "
                "do not count them again."
            )
        if len(X) >= ADVICE_FROM and any(pair.is_muted for pair in self.pairs):
            log_once(
                "item neighbours stay off as they were at fit, whose rows were few. Fit again on "
                "all rows to learn with them."
            )
        if n_left_out == len(X):
            return self.widen(X.schema)
        parts = tuple(part.grow(X, y, rows, kept) for part in self.parts)
        return NeighbourTables(parts, order)

    @property
    def names(self) -> list[str]:
        """Names of the columns of numbers."""
        return [name for part in self.parts for name in part.names]

    @property
    def pairs(self) -> list[NeighbourPair]:
        """Item neighbours alone, which a graph computes and a shortlist reads."""
        return [part for part in self.parts if isinstance(part, NeighbourPair)]

    @property
    def reads_users(self) -> bool:
        """Whether the numbers of a row follow from its user, beside its ids."""
        return any(part.reads_users for part in self.parts)

    def extend(self, schema: Schema) -> Schema:
        """Return a schema with the columns of numbers behind its own."""
        fields = tuple(field for part in self.parts for field in part.fields())
        return replace(schema, fields=schema.fields + fields)

    def digest(self) -> str:
        """Return a hash of all that was learnt."""
        from sklearn_din.utils.plain_values import write_value

        text, arrays = write_value(to_dict(self))
        return digest(text, *arrays.values())

    def check(self) -> None:
        """Raise ValueError where numbers have other tables than the order says."""
        for part in self.parts:
            if self.order is None or not part.fits(self.order):
                raise ValueError(f"{part.names[:1]} must have a table for each of their order.")

    @classmethod
    def from_dict(cls, values: object, schema: Schema) -> NeighbourTables:
        """Read what ``to_dict`` wrote, and check it against a schema without its columns."""
        tables = from_dict(cls, values)
        for part in tables.parts:
            part.check_columns(schema)
        names = [*tables.names, *(field.name for field in schema.fields)]
        if len({*names}) < len(names):
            raise ValueError("columns of numbers must have names of their own.")
        return tables

    def _with_columns(self, X: EncodedFeatures, numbers: Sequence[np.ndarray]) -> EncodedFeatures:
        columns: dict[str, np.ndarray] = {}
        for part, own in zip(self.parts, numbers, strict=True):
            by_column = own.T if isinstance(own, np.memmap) else np.ascontiguousarray(own.T)
            columns |= zip(part.names, by_column, strict=True)
        return X._replace(
            schema=self.extend(X.schema),
            columns=X.columns | columns,
            behaviours={key: ragged.drop_older() for key, ragged in X.behaviours.items()},
        )

    def _read_numbers(self, store: Store) -> list[np.ndarray]:
        return [store[NUMBERS + part.names[0]] for part in self.parts]


def learn_neighbours(
    X: EncodedFeatures,
    is_click: np.ndarray,
    *,
    order: str | None,
    y: np.ndarray | None = None,
    labels: Sequence[str] = ("",),
    of_items: bool = True,
) -> tuple[NeighbourTables, EncodedFeatures]:
    """Learn from training rows; return the tables, and the rows with columns of numbers.

    The numbers of a training row come from a table that does not count it: others would reveal the
    label. ``order`` is what :func:`choose_order` says; None: nothing is learnt. Without
    ``of_items`` users' levels alone are, from ``y``. Large numbers of mapped rows lie in a store
    beside that of the rows, where a training that goes on and other processes find them.
    """
    if order is None:
        return NeighbourTables(), X
    ordered, rows = KINDS_OF_ORDER[order].place(X, is_click)
    n_of_items = of_items * N_NUMBERS * len(histories_with_candidate(X.schema))

    def learn(writer: StoreWriter | None = None) -> tuple[NeighbourTables, list[np.ndarray]]:
        allocate = partial(_allocate, len(X), writer)
        given = RowsToLearn(X, y, labels, ordered, rows, allocate)
        for kind in KINDS:
            if n_of_items or not kind.of_items:
                given.learnt = [*kind.learn(given), *given.learnt]
        parts = tuple(part for part, _ in given.learnt)
        tables = NeighbourTables(parts, ordered) if parts else NeighbourTables()
        return tables, [numbers for _, numbers in given.learnt]

    rows_store = _store_of_rows(X, n_of_items)
    if rows_store is None:
        tables, numbers = learn()
    else:
        store = make_once(
            rows_store.parent,
            _store_name(X, y, ordered, rows, rows_store),
            lambda writer: writer.append_value(learn(writer)[0]),
            memory=rows_store.memory,
        )
        tables = NeighbourTables.from_dict(store.read_value(), X.schema)
        numbers = tables._read_numbers(store)
    return (tables, tables._with_columns(X, numbers)) if tables.parts else (tables, X)


def choose_order(X: EncodedFeatures, neighbours: str | None) -> str | None:
    """Say what the blocks of training rows are made of; None where nothing is to be learnt.

    "auto" is "time" where X has times, "user" where it has users, otherwise none, which is logged.
    Where no history has a candidate of many ids, users' levels alone are learnt.
    """
    if neighbours is None:
        return None
    for order, values in (("time", X.times), ("user", X.users)):
        if neighbours == order and values is None:
            raise ValueError(
                f"neighbours={order!r} puts the training rows in order of {order}s, and X has "
                f"none. Name the column that holds them, HistorySequenceEncoder({order}=...), or "
                "use neighbours=None."
            )
    if not histories_with_candidate(X.schema):
        knows_rows = X.users is not None and X.times is not None
        return "time" if knows_rows and neighbours != "user" else None
    if neighbours != "auto":
        return neighbours
    if X.times is not None:
        return "time"
    if X.users is None and len(X) >= ADVICE_FROM:
        log_once(
            "item neighbours are off, because neither user nor time is named: what other users' "
            "histories say about a candidate often decides. Name the columns, "
            "HistorySequenceEncoder(user=..., time=...), or say "
            "DINClassifier(neighbours=None)."
        )
    return None if X.users is None else "user"


def _store_of_rows(X: EncodedFeatures, n_numbers: int) -> Store | None:
    """Return the rows' store where their numbers should lie in files too; None: in memory."""
    n_bytes = n_numbers * len(X) * np.dtype(np.float32).itemsize
    is_large = X.store is not None and n_bytes > X.store.memory // SHARE_IN_MEMORY
    return X.store if is_large else None


def _allocate(n_rows: int, writer: StoreWriter | None, names: Sequence[str]) -> np.ndarray:
    """Return zeros for columns with these names, in a file where there is a writer."""
    shape = (n_rows, len(names))
    if writer is None:
        return np.zeros(shape, np.float32)
    return writer.allocate(NUMBERS + names[0], shape, np.float32)


def _store_name(
    X: EncodedFeatures, y: np.ndarray | None, order: Order, rows: OrderedRows, store: Store
) -> str:
    """Digest of all that decides the numbers: rows, labels, their blocks and tables."""
    from sklearn_din.utils.plain_values import write_value

    text, of_order = write_value(to_dict(order))
    arrays = [*of_order.values(), rows.users, rows.blocks, rows.clicked]
    arrays += [values for values in (y, X.times) if values is not None]
    for history, candidate in histories_with_candidate(X.schema):
        ragged = X.behaviours[X.schema.behaviour_of(history).histories]
        arrays += [X.columns[candidate], ragged.spans.starts, ragged.spans.lengths]
        arrays += [] if ragged.n_older is None else [ragged.n_older]
    return f"neighbours-{digest(store.path.name, X.schema.identity, text, *arrays)[:32]}"
