"""Item neighbours: learnt from training rows in ordered blocks, looked up for all later ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sklearn_din._plain_values import join_arrays, split_arrays
from sklearn_din._warnings import ADVICE_FROM, log_once
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.features.store import Store, StoreWriter, create_store, open_store
from sklearn_din.neighbours.blocks import OrderedRows, order_rows
from sklearn_din.neighbours.cooccurrence import MOST_COUNTED, Interactions, count_pairs, row_blocks
from sklearn_din.neighbours.item_scores import N_NUMBERS, ItemScores
from sklearn_din.neighbours.pairs import (
    NeighbourPair,
    count_ids,
    histories_with_candidate,
    look_up,
    name_columns,
)

NUMBERS = "numbers "  # how their names in a store begin
SHARE_IN_MEMORY = 8  # numbers of mapped rows beyond an eighth of the memory allowed go to files


@dataclass(frozen=True)
class NeighbourTables:
    """Item neighbours of all histories that have a candidate; without any, nothing is added."""

    pairs: tuple[NeighbourPair, ...] = ()

    def add_to(self, X: EncodedFeatures) -> EncodedFeatures:
        """Return impressions with their numbers; those that have numbers already stay as they are.

        The older events of histories have then served their purpose: they are left out.
        The tables have not learnt from these rows. There may be more ids than at fit.
        """
        if not self.pairs or has_numbers(X.schema):
            return X
        tables = self.widen(X.schema)
        store = _store_beside(X, len(self.pairs))
        if store is None:
            numbers = [np.empty((len(X), N_NUMBERS), np.float32) for _ in self.pairs]
            tables._fill(X, numbers)
            return self._with_columns(X, numbers)
        with create_store(None, "neighbours", memory=store.memory) as writer:
            tables._fill(X, _allocate(writer, X, len(self.pairs)))
            return self._with_columns(X, _numbers_of(writer.finish()))

    def widen(self, schema: Schema) -> NeighbourTables:
        """Return tables with the ids that were appended since; they have no neighbours yet."""
        return NeighbourTables(
            tuple(pair.widen(schema[pair.candidate].n_ids) for pair in self.pairs)
        )

    def grow(self, X: EncodedFeatures, is_click: np.ndarray) -> NeighbourTables:
        """Return the tables after the clicks of further rows, each once."""
        return NeighbourTables(tuple(pair.grow(X, is_click) for pair in self.pairs))

    def extend(self, schema: Schema) -> Schema:
        """Return a schema with the columns of numbers behind its own."""
        fields = tuple(field for pair in self.pairs for field in pair.fields())
        return replace(schema, fields=schema.fields + fields)

    def digest(self) -> str:
        """Return a hash of all that was learnt."""
        text, arrays = split_arrays(self.to_plain())
        sha = hashlib.sha256(text.encode())
        for values in arrays.values():
            sha.update(np.ascontiguousarray(values).data)
        return sha.hexdigest()

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the tables as dicts of names, numbers and arrays."""
        return [pair.to_plain() for pair in self.pairs]

    @classmethod
    def from_plain(cls, values: Any, schema: Schema) -> NeighbourTables:
        """Read what :meth:`to_plain` wrote, and check it against a schema without its columns."""
        if type(values) is not list:
            raise ValueError("item neighbours must be a list of pairs.")
        tables = cls(tuple(map(NeighbourPair.from_plain, values)))
        for pair in tables.pairs:
            pair.check(schema)
        return tables

    def _fill(self, X: EncodedFeatures, numbers: Sequence[np.ndarray]) -> None:
        """Write the numbers of rows, (n_rows, 13) for each pair."""
        for part in row_blocks(X):
            rows = X[part]
            for pair, own in zip(self.pairs, numbers, strict=True):
                own[part] = pair.look_up(rows)

    def _with_columns(self, X: EncodedFeatures, numbers: Sequence[np.ndarray]) -> EncodedFeatures:
        columns: dict[str, np.ndarray] = {}
        for pair, own in zip(self.pairs, numbers, strict=True):
            by_column = own.T if isinstance(own, np.memmap) else np.ascontiguousarray(own.T)
            columns |= zip(pair.names, by_column, strict=True)
        return EncodedFeatures._without_checks(
            self.extend(X.schema),
            X.columns | columns,
            {key: ragged.drop_older() for key, ragged in X.behaviours.items()},
            users=X.users,
            times=X.times,
            vectors=X.vectors,
            store=X.store,
        )


def learn_neighbours(
    X: EncodedFeatures, is_click: np.ndarray, *, order: str | None, taken: Collection[str] = ()
) -> tuple[NeighbourTables, EncodedFeatures]:
    """Learn from training rows; return the tables, and the rows with columns of numbers.

    The numbers of a training row come from rows in earlier blocks alone: numbers that counted its
    own click, or later ones, would reveal the label. Those of the first block count nothing.
    Blocks are in the order that :func:`choose_order` says; None: nothing is learnt. Where no
    candidate was clicked, histories alone count. ``taken`` are names that no column may have.

    Large numbers of mapped rows lie in a store beside that of the rows: the same rows, labels and
    order find them there again, for a training that goes on and for other processes.
    """
    if order is None:
        return NeighbourTables(), X
    rows = order_rows(X, is_click, order=order)
    n_pairs = len(histories_with_candidate(X.schema))
    beside = _store_beside(X, n_pairs)
    if beside is None:
        numbers = [np.zeros((len(X), N_NUMBERS), dtype=np.float32) for _ in range(n_pairs)]
        tables = _learn_pairs(X, rows, numbers, taken)
        return tables, tables._with_columns(X, numbers)
    name, memory = _store_name(X, rows, beside), beside.memory
    store = open_store(beside.parent, name, memory=memory)
    if store is None:
        with create_store(beside.parent, name, memory=memory) as writer:
            tables = _learn_pairs(X, rows, _allocate(writer, X, n_pairs), taken)
            writer.facts["neighbours"], arrays = split_arrays(tables.to_plain())
            for key, values in arrays.items():
                writer.append(key, values)
            return tables, tables._with_columns(X, _numbers_of(writer.finish()))
    arrays = {key: np.array(store[key]) for key in store.names if not key.startswith(NUMBERS)}
    tables = NeighbourTables.from_plain(join_arrays(store.facts["neighbours"], arrays), X.schema)
    return tables, tables._with_columns(X, _numbers_of(store))


def choose_order(X: EncodedFeatures, neighbours: str | None) -> str | None:
    """Say what the blocks of training rows are made of; None where nothing is to be learnt.

    "auto" is "time" where X has times, "user" where it has users, otherwise none; that it is none
    is logged from 1,000 rows on. Nothing is learnt where X has numbers of item neighbours already,
    or no history with a candidate.
    """
    schema = X.schema
    if neighbours is None or has_numbers(schema) or not histories_with_candidate(schema):
        return None
    for order, values in (("time", X.times), ("user", X.users)):
        if neighbours == order and values is None:
            raise ValueError(
                f"neighbours={order!r} puts the training rows in order of {order}s, and X has "
                f"none. Name the column that holds them, HistorySequenceEncoder({order}=...), or "
                "use neighbours=None."
            )
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


def has_numbers(schema: Schema) -> bool:
    """Return whether a schema has columns of item neighbours."""
    return any(field.candidate for field in schema.fields)


def _learn_pairs(
    X: EncodedFeatures, rows: OrderedRows, numbers: Sequence[np.ndarray], taken: Collection[str]
) -> NeighbourTables:
    """Learn all pairs, and write the training rows' numbers, scaled, into arrays of zeros."""
    pairs, taken = [], {*taken, *X.keys()}
    for (history, candidate), own in zip(histories_with_candidate(X.schema), numbers, strict=True):
        names = name_columns(history, taken)
        taken |= set(names)
        pairs.append(_learn_pair(X, rows, history, candidate, names, own))
    return NeighbourTables(tuple(pairs))


def _learn_pair(
    X: EncodedFeatures,
    rows: OrderedRows,
    history: str,
    candidate: str,
    names: tuple[str, ...],
    numbers: np.ndarray,
) -> NeighbourPair:
    interactions = Interactions.gather(X, rows, history, candidate).cap()
    for block in range(1, rows.n_blocks):
        earlier = _score_items(X, rows, block - 1, interactions, candidate)[-1]
        for part in row_blocks(X):
            own = np.flatnonzero(rows.blocks[part] == block) + part.start
            if len(own):
                numbers[own] = look_up(earlier, X[own], history, candidate)
        del earlier  # before the next scores are computed: a set of them may take 200 MB
    had, shown, clicked, scores = _score_items(X, rows, rows.n_blocks - 1, interactions, candidate)
    n_users = _count_users(had)
    n_pairs = float((np.diff(had.indptr).astype(np.float64) ** 2).sum())
    counts = scores.choose_counts(had, n_users, all_pairs=n_pairs <= MOST_COUNTED)
    scale = _scale(X, numbers)
    for part in row_blocks(X):
        numbers[part] /= scale
    return NeighbourPair(history, candidate, names, scores, counts, shown, clicked, scale)


def _score_items(
    X: EncodedFeatures, rows: OrderedRows, block: int, interactions: Interactions, candidate: str
) -> tuple[csr_array, np.ndarray, np.ndarray, ItemScores]:
    """Return who had which item up to a block, what was shown and clicked, and the scores."""
    had = interactions.matrix(block)
    shown, clicked = _occurrences(X.columns[candidate], rows, block, X.schema[candidate].n_ids)
    return (
        had,
        shown,
        clicked,
        ItemScores.of_counts(count_pairs(had), _count_users(had), shown, clicked),
    )


def _count_users(had: csr_array) -> np.ndarray:
    return np.bincount(had.indices, minlength=had.shape[1]).astype(np.float32)


def _occurrences(
    ids: np.ndarray, rows: OrderedRows, block: int, n_ids: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count how often each item was a candidate up to a block, and was clicked as one."""
    so_far = rows.blocks <= block
    return count_ids(ids[so_far], n_ids), count_ids(ids[so_far & rows.clicked], n_ids)


def _scale(X: EncodedFeatures, numbers: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, one where it is zero: (13,), float32."""
    total, squares = np.zeros((2, N_NUMBERS))
    for part in row_blocks(X):
        shifted = numbers[part].astype(np.float64) - numbers[0]  # all of a constant column are 0
        total += shifted.sum(axis=0)
        squares += (shifted**2).sum(axis=0)
    spread = np.sqrt(np.maximum(squares - total**2 / len(numbers), 0) / len(numbers))
    return np.where(spread > 0, spread, 1).astype(np.float32)


def _store_beside(X: EncodedFeatures, n_pairs: int) -> Store | None:
    """Return the rows' store where their numbers should lie in files too; None: in memory."""
    n_bytes = n_pairs * len(X) * N_NUMBERS * np.dtype(np.float32).itemsize
    is_large = X.store is not None and n_bytes > X.store.memory // SHARE_IN_MEMORY
    return X.store if is_large else None


def _allocate(writer: StoreWriter, X: EncodedFeatures, n_pairs: int) -> list[np.ndarray]:
    """Return arrays of zeros in files, (n_rows, 13) for each pair."""
    shape = (len(X), N_NUMBERS)
    return [writer.allocate(f"{NUMBERS}{n}", shape, np.float32) for n in range(n_pairs)]


def _numbers_of(store: Store) -> list[np.ndarray]:
    return [store[name] for name in store.names if name.startswith(NUMBERS)]


def _store_name(X: EncodedFeatures, rows: OrderedRows, store: Store) -> str:
    """Digest of all that decides the numbers: rows, labels and their blocks."""
    sha = hashlib.sha256(repr((store.path.name, X.schema.identity)).encode())
    arrays = [rows.users, rows.blocks, rows.clicked]
    for history, candidate in histories_with_candidate(X.schema):
        ragged = X.behaviours[X.schema.behaviour_of(history).histories]
        arrays += [X.columns[candidate], ragged.spans.starts, ragged.spans.lengths]
        arrays += [] if ragged.older is None else [ragged.older]
    for array in arrays:
        for part in row_blocks(X):
            sha.update(np.ascontiguousarray(array[part]).data)
    return f"neighbours-{sha.hexdigest()[:32]}"
