"""Item neighbours: learned from training rows; a row reads tables that do not count it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.sparse import csr_array

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.neighbours.blocks import NOT_COUNTED, ByTime, ByUser, Order, OrderedRows
from sklearn_din.neighbours.cooccurrence import MOST_COUNTED, Interactions, row_blocks
from sklearn_din.neighbours.item_scores import N_NUMBERS, N_OF_HISTORY, ItemScores
from sklearn_din.neighbours.levels import UserLevels, learn_levels
from sklearn_din.neighbours.pairs import (
    LEAST_SCALE,
    MUTED,
    SUFFIXES,
    NeighbourPair,
    count_ids,
    find_largest,
    free_name,
    histories_with_candidate,
)
from sklearn_din.utils.digests import digest
from sklearn_din.utils.shrinkage import prior_rows, sums_of_keys
from sklearn_din.utils.typed_fields import from_dict, to_dict
from sklearn_din.utils.warnings import ADVICE_FROM, log_once

if TYPE_CHECKING:
    from sklearn_din.features.store import Store, StoreWriter

KINDS_OF_ORDER: dict[str, type[ByTime] | type[ByUser]] = {"time": ByTime, "user": ByUser}
NUMBERS = "numbers "  # prefix of their names in a store
SHARE_IN_MEMORY = 8  # numbers of mapped rows beyond an eighth of the memory allowed go to files


@dataclass(frozen=True)
class NeighbourTables:
    """Item neighbours of all histories that have a candidate, and levels of users.

    ``order`` says which table of each a row reads; without one, nothing is added.
    """

    pairs: tuple[NeighbourPair, ...] = ()
    order: Order | None = None
    levels: UserLevels | None = None

    def add_to(self, X: EncodedFeatures) -> EncodedFeatures:
        """Return impressions with their numbers; those that have numbers already stay as they are.

        The older events of histories have then served their purpose: they are left out.
        Each row reads a table that does not count it, also where it was trained on. There may be
        more ids than at fit.
        """
        if not self.names or self.names[0] in X:
            return X
        tables = self.widen(X.schema)
        find_tables = cast("Order", self.order).find_tables
        store = _store_of_rows(X, len(self.pairs))
        levels = None
        if self.levels is not None:
            levels = self.levels.look_up(X, find_tables(X))
        if store is None:
            numbers = [np.empty((len(X), N_NUMBERS), np.float32) for _ in self.pairs]
            tables._fill(X, numbers, find_tables)
            return self._with_columns(X, numbers, levels)
        from sklearn_din.features.store import create_store

        with create_store(None, "neighbours", memory=store.memory) as writer:
            tables._fill(X, _allocate(writer, X, len(self.pairs)), find_tables)
            return self._with_columns(X, _numbers_of(writer.finish()), levels)

    def mute_items(self, X: EncodedFeatures) -> tuple[NeighbourTables, EncodedFeatures]:
        """Return tables whose numbers of items vanish, and rows that have them with zeros.

        They are divided by what leaves nothing of them but their order, by which a shortlist out of
        an ONNX file knows the most popular items.
        """
        pairs = [replace(pair, scale=np.full_like(pair.scale, MUTED)) for pair in self.pairs]
        names = [name for pair in pairs for name in pair.names]
        zeros = dict.fromkeys(names, np.zeros(len(X), dtype=np.float32))
        return replace(self, pairs=tuple(pairs)), X._replace(columns=X.columns | zeros)

    def widen(self, schema: Schema) -> NeighbourTables:
        """Return tables with the ids that were appended since; they have no neighbours yet."""
        pairs = tuple(pair.widen(schema[pair.candidate].n_ids) for pair in self.pairs)
        return replace(self, pairs=pairs)

    def grow(
        self, X: EncodedFeatures, is_click: np.ndarray, y: np.ndarray | None = None
    ) -> NeighbourTables:
        """Return the tables after the clicks and labels of further rows, each once."""
        knows_rows = X.users is not None and X.times is not None
        if self.order is None or not (self.pairs or knows_rows):
            return self
        order, blocks, kept = self.order.grow(X)
        n_left_out = int((blocks == NOT_COUNTED).sum())
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
        pairs = [pair.grow(X, is_click, blocks, kept=kept) for pair in self.pairs]
        levels = self.levels
        if levels is not None and y is not None and X.users is not None:
            levels = levels.grow(X, y, blocks, kept)
        return NeighbourTables(tuple(pairs), order, levels)

    @property
    def names(self) -> list[str]:
        """Names of the columns of numbers."""
        return [name for part in self._parts for name in part.names]

    @property
    def _parts(self) -> tuple[NeighbourPair | UserLevels, ...]:
        return self.pairs if self.levels is None else (*self.pairs, self.levels)

    def extend(self, schema: Schema) -> Schema:
        """Return a schema with the columns of numbers behind its own."""
        fields = tuple(field for part in self._parts for field in part.fields())
        return replace(schema, fields=schema.fields + fields)

    def digest(self) -> str:
        """Return a hash of all that was learnt."""
        from sklearn_din.utils.plain_values import split_arrays

        text, arrays = split_arrays(to_dict(self))
        return digest(text, *arrays.values())

    def check(self) -> None:
        """Raise ValueError where pairs have other tables than the order says."""
        sizes = (0, 0)
        if self.order is not None:
            sizes = len(self.order.counted()), len(self.order.parts())
        if any((len(pair.tables), len(pair.counts)) != sizes for pair in self.pairs):
            raise ValueError(f"item neighbours must have {sizes} tables and counts.")
        if self.levels is not None and len(self.levels.n_rows) != sizes[0]:
            raise ValueError(f"levels of users must have {sizes[0]} tables.")

    @classmethod
    def from_dict(cls, values: object, schema: Schema) -> NeighbourTables:
        """Read what ``to_dict`` wrote, and check it against a schema without its columns."""
        tables = from_dict(cls, values)
        for pair in tables.pairs:
            pair.check_columns(schema)
        names = [*tables.names, *(field.name for field in schema.fields)]
        if len({*names}) < len(names):
            raise ValueError("columns of numbers must have names of their own.")
        return tables

    def _fill(
        self,
        X: EncodedFeatures,
        numbers: Sequence[np.ndarray],
        find_tables: Callable[[EncodedFeatures], np.ndarray],
    ) -> None:
        """Write the numbers of rows, (n_rows, 14) for each pair."""
        for part in row_blocks(X):
            rows = X[part]
            which = find_tables(rows)
            for pair, own in zip(self.pairs, numbers, strict=True):
                own[part] = pair.look_up(rows, which)

    def _with_columns(
        self, X: EncodedFeatures, numbers: Sequence[np.ndarray], levels: np.ndarray | None
    ) -> EncodedFeatures:
        columns: dict[str, np.ndarray] = {}
        for pair, own in zip(self.pairs, numbers, strict=True):
            by_column = own.T if isinstance(own, np.memmap) else np.ascontiguousarray(own.T)
            columns |= zip(pair.names, by_column, strict=True)
        if self.levels is not None and levels is not None:
            columns |= zip(self.levels.names, np.ascontiguousarray(levels.T), strict=True)
        return X._replace(
            schema=self.extend(X.schema),
            columns=X.columns | columns,
            behaviours={key: ragged.drop_older() for key, ragged in X.behaviours.items()},
        )


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

    The numbers of a training row come from a table that does not count it, as those of any row do:
    numbers that counted its own click, or later ones, would reveal the label. ``order`` is what
    :func:`choose_order` says; None: nothing is learnt. Where no candidate was clicked, histories
    alone count. From ``y``, (n_rows,) or (n_rows, n_labels), users' levels are learnt where users
    and times are known, and without ``of_items`` nothing else; ``labels`` are their names.

    Large numbers of mapped rows lie in a store beside that of the rows: the same rows, labels and
    order find them there again, for a training that goes on and for other processes.
    """
    if order is None:
        return NeighbourTables(), X
    ordered, rows = KINDS_OF_ORDER[order].place(X, is_click)
    levels, of_rows = None, None
    taken = {*X.keys()}
    if y is not None and X.users is not None and isinstance(ordered, ByTime):
        names = [free_name(f"user_level_{label}".rstrip("_"), taken) for label in labels]
        n_tables = len(ordered.counted())
        levels, of_rows = learn_levels(X, y, rows, names, n_tables=n_tables)
        taken |= {*names}
    of_items = of_items and bool(histories_with_candidate(X.schema))
    if not of_items and levels is None:
        return NeighbourTables(), X
    tables, numbers = NeighbourTables((), ordered), list[np.ndarray]()
    if of_items:
        tables, numbers = _learn_pairs_in_store(X, ordered, rows, of_rows, taken)
    tables = replace(tables, levels=levels)
    return tables, tables._with_columns(X, numbers, of_rows)


def _learn_pairs_in_store(
    X: EncodedFeatures,
    order: Order,
    rows: OrderedRows,
    levels: np.ndarray | None,
    taken: Collection[str],
) -> tuple[NeighbourTables, list[np.ndarray]]:
    """Learn item neighbours and the training rows' numbers, large ones in a store."""
    n_pairs = len(histories_with_candidate(X.schema))
    rows_store = _store_of_rows(X, n_pairs)
    if rows_store is None:
        numbers = [np.zeros((len(X), N_NUMBERS), dtype=np.float32) for _ in range(n_pairs)]
        return _learn_pairs(X, order, rows, levels, numbers, taken), numbers
    from sklearn_din.features.store import make_once

    def learn(writer: StoreWriter) -> None:
        numbers = _allocate(writer, X, n_pairs)
        writer.append_value(to_dict(_learn_pairs(X, order, rows, levels, numbers, taken)))

    name = _store_name(X, order, rows, levels, rows_store)
    store = make_once(rows_store.parent, name, learn, memory=rows_store.memory)
    return NeighbourTables.from_dict(store.read_value(), X.schema), _numbers_of(store)


def choose_order(X: EncodedFeatures, neighbours: str | None) -> str | None:
    """Say what the blocks of training rows are made of; None where nothing is to be learnt.

    "auto" is "time" where X has times, "user" where it has users, otherwise none; that it is none
    is logged from 1,000 rows on. Where no history has a candidate of many ids, users' levels alone
    are learnt.
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


def _learn_pairs(
    X: EncodedFeatures,
    order: Order,
    rows: OrderedRows,
    levels: np.ndarray | None,
    numbers: Sequence[np.ndarray],
    taken: Collection[str],
) -> NeighbourTables:
    """Learn all pairs, and write the training rows' numbers, scaled, into arrays of zeros.

    levels : (n_rows, n_columns). Those of the rows' users, which tell beside the numbers.
    """
    from sklearn_din.neighbours.holding import scores_hold

    learnt, taken = [], {*taken}
    for history, candidate in histories_with_candidate(X.schema):
        names = tuple(free_name(f"{history}_{suffix}", taken) for suffix in SUFFIXES)
        taken |= set(names)
        learnt.append(_learn_pair(X, order, rows, history, candidate, names))
    pairs, at_fit = zip(*learnt, strict=True) if learnt else ((), ())
    NeighbourTables(at_fit, order)._fill(X, numbers, order.find_tables_at_fit)
    scaled = []
    for pair, own in zip(pairs, numbers, strict=True):
        pair = replace(pair, scale=_scale(X, own), largest=find_largest(len(X)))
        for part in row_blocks(X):
            own[part] = pair.rescale(own[part])
        if isinstance(order, ByTime) and not scores_hold(own, levels, rows):
            pair.scale[:N_OF_HISTORY] = np.inf
            own[:, :N_OF_HISTORY] = 0
        scaled.append(pair)
    return NeighbourTables(tuple(scaled), order)


def _learn_pair(
    X: EncodedFeatures,
    order: Order,
    rows: OrderedRows,
    history: str,
    candidate: str,
    names: tuple[str, ...],
) -> tuple[NeighbourPair, NeighbourPair]:
    """Learn the tables of one history and its candidate; their numbers are not scaled yet.

    Returned is the pair as later rows read it, and as training rows do.
    """
    interactions = Interactions.gather(X, rows, history, candidate).cap()
    ids, n_ids = X.columns[candidate], X.schema[candidate].n_ids
    at_fit, later, parts = order.counted_at_fit(), order.counted(), order.parts()
    # By the rows of the first table, which all others at fit count too
    prior = float(prior_rows(sums_of_keys(*_occurrences(ids, rows, at_fit[0], n_ids)).sum(axis=1)))
    tables = {}
    for counted in (*at_fit, *later):
        if counted.tobytes() not in tables:  # some tables serve both
            had, rates = interactions.matrix(counted), _occurrences(ids, rows, counted, n_ids)
            by_item, n_users = csr_array(had.T.tocsr()), _count_users(had)
            scores = ItemScores.of_counts(by_item, had, n_users, *rates, prior)
            tables[counted.tobytes()] = scores
    counts = _counts_of_parts(interactions, parts, tables[later[-1].tobytes()])
    shown, clicked = np.stack([_occurrences(ids, rows, part, n_ids) for part in parts], axis=1)
    pair = NeighbourPair(
        history,
        candidate,
        names,
        tuple(tables[counted.tobytes()] for counted in later),
        counts,
        shown,
        clicked,
        prior,
        np.ones(N_NUMBERS, dtype=np.float32),
    )
    return pair, replace(pair, tables=tuple(tables[counted.tobytes()] for counted in at_fit))


def _counts_of_parts(
    interactions: Interactions, parts: Sequence[np.ndarray], scores: ItemScores
) -> tuple[csr_array, ...]:
    """Return the counts of each part that later ones are added to; the scores are of all parts."""
    had = interactions.matrix(np.any(parts, axis=0))
    n_users, n_pairs = _count_users(had), (np.diff(had.indptr).astype(np.float64) ** 2).sum()
    matrices = map(interactions.matrix, parts)
    all_pairs = bool(n_pairs <= MOST_COUNTED)
    return tuple(scores.choose_counts(own, n_users, all_pairs=all_pairs) for own in matrices)


def _count_users(had: csr_array) -> np.ndarray:
    return np.bincount(had.indices, minlength=had.shape[1]).astype(np.float32)


def _occurrences(
    ids: np.ndarray, rows: OrderedRows, counted: np.ndarray, n_ids: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count how often each item was a candidate in some blocks, and was clicked as one."""
    chosen = counted[rows.blocks]
    return count_ids(ids[chosen], n_ids), count_ids(ids[chosen & rows.clicked], n_ids)


def _scale(X: EncodedFeatures, numbers: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, not too small, one where it is zero: (14,), float32."""
    total, squares = np.zeros((2, N_NUMBERS))
    for part in row_blocks(X):
        shifted = numbers[part].astype(np.float64) - numbers[0]  # a constant column becomes 0
        total += shifted.sum(axis=0)
        squares += (shifted**2).sum(axis=0)
    spread = np.sqrt(np.maximum(squares - total**2 / len(numbers), 0) / len(numbers))
    return np.where(spread > 0, np.maximum(spread, LEAST_SCALE), 1).astype(np.float32)


def _store_of_rows(X: EncodedFeatures, n_pairs: int) -> Store | None:
    """Return the rows' store where their numbers should lie in files too; None: in memory."""
    n_bytes = n_pairs * len(X) * N_NUMBERS * np.dtype(np.float32).itemsize
    is_large = X.store is not None and n_bytes > X.store.memory // SHARE_IN_MEMORY
    return X.store if is_large else None


def _allocate(writer: StoreWriter, X: EncodedFeatures, n_pairs: int) -> list[np.ndarray]:
    """Return arrays of zeros in files, (n_rows, 14) for each pair."""
    shape = (len(X), N_NUMBERS)
    return [writer.allocate(f"{NUMBERS}{n}", shape, np.float32) for n in range(n_pairs)]


def _numbers_of(store: Store) -> list[np.ndarray]:
    return [store[name] for name in store.names if name.startswith(NUMBERS)]


def _store_name(
    X: EncodedFeatures, order: Order, rows: OrderedRows, levels: np.ndarray | None, store: Store
) -> str:
    """Digest of all that decides the numbers: rows, labels, their blocks and tables."""
    from sklearn_din.utils.plain_values import split_arrays

    text, of_order = split_arrays(to_dict(order))
    arrays = [*of_order.values(), rows.users, rows.blocks, rows.clicked]
    arrays += [] if levels is None else [levels]
    for history, candidate in histories_with_candidate(X.schema):
        ragged = X.behaviours[X.schema.behaviour_of(history).histories]
        arrays += [X.columns[candidate], ragged.spans.starts, ragged.spans.lengths]
        arrays += [] if ragged.n_older is None else [ragged.n_older]
    return f"neighbours-{digest(store.path.name, X.schema.identity, text, *arrays)[:32]}"
