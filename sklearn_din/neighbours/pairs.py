"""A history and its candidate: scores, counts and the columns of numbers made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.sparse import csr_array, eye_array

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID, Field, Schema
from sklearn_din.neighbours.blocks import ByTime, Order, OrderedRows
from sklearn_din.neighbours.cooccurrence import (
    MOST_COUNTED,
    Interactions,
    both_triangles,
    check_numbers,
    count_new_clicks,
    row_blocks,
    sort_indices,
)
from sklearn_din.neighbours.item_scores import (
    N_NUMBERS,
    N_OF_HISTORY,
    SUMMARIES,
    ItemScores,
    with_empty_rows,
)
from sklearn_din.neighbours.learnt_numbers import LearntNumbers, RowsToLearn, fill
from sklearn_din.utils.blas import one_thread_of_blas
from sklearn_din.utils.parallel import map_in_parallel
from sklearn_din.utils.shrinkage import prior_rows, sums_of_keys

LEAST_IDS = 64  # known ones
LEAST_ITEMS = 16  # of the attribute with the most
LEAST_SCALE = np.float32(5e-4)  # a tenth of what one user in common adds to EASE
LARGEST = np.float32(50)  # in units of the scale, as far as real logs go
MUTED = np.float32(1e30)  # a scale that leaves of numbers nothing but their order
SUFFIXES = tuple(f"{kind}_{summary}" for kind in ("ease", "cosine") for summary in SUMMARIES)
SUFFIXES += ("popularity", "click_rate", "is_known", "evidence")


@dataclass(frozen=True, eq=False)
class NeighbourPair(LearntNumbers):
    """One history and its candidate: how their items go together, and its columns of numbers.

    history, candidate : str. Columns of ids with one vocabulary.
    names : tuple of str. Names of the columns of numbers.
    tables : tuple of ItemScores. Of those training rows that each of them counts; the last one
        counts all.
    counts : tuple of csr_array of shape (n_ids, n_ids), float32. What later clicks are added to:
        how many users had both items, the upper triangle. By time, those of all rows; by user,
        those of each part.
    shown, clicked : (len(counts), n_ids), float32. How often each item was a candidate, and was
        clicked as one.
    prior : float. Rows at the average rate that each item's own are added to, by the first table's.
    scale : (14,), float32. Standard deviation of each column over the training rows, at least
        LEAST_SCALE, one where it is zero; infinite, so that the column is zero, where it does not
        hold over time.
    largest : float. No number is farther from 0, in units of the scale: the root of the number of
        training rows, at most LARGEST.
    """

    history: str
    candidate: str
    names: tuple[str, ...]
    tables: tuple[ItemScores, ...]
    counts: tuple[csr_array, ...]
    shown: np.ndarray
    clicked: np.ndarray
    prior: float
    scale: np.ndarray
    largest: float = float(LARGEST)
    of_items = True

    @classmethod
    def learn(cls, given: RowsToLearn) -> list[tuple["NeighbourPair", np.ndarray]]:
        """Learn all pairs, and the training rows' numbers on their scale."""
        from sklearn_din.neighbours.holding import scores_hold

        X, order, rows, learnt = given.X, given.order, given.rows, []
        others = [numbers for _, numbers in given.learnt]
        for history, candidate in histories_with_candidate(X.schema):
            names = given.free_names([f"{history}_{suffix}" for suffix in SUFFIXES])
            pair, at_fit = _learn_pair(given, history, candidate, names)
            numbers = given.allocate(names)
            fill([numbers], [at_fit], X, order.find_tables_at_fit)
            scale = _scale(X, numbers)
            largest = min(float(LARGEST), float(np.sqrt(len(X))))
            pair = replace(pair, scale=scale, largest=largest)
            for part in row_blocks(X):
                numbers[part] = pair.rescale(numbers[part])
            if isinstance(order, ByTime) and not scores_hold(numbers, others, rows):
                scale[:N_OF_HISTORY], numbers[:, :N_OF_HISTORY] = np.inf, 0
                pair = replace(pair, scale=scale)
            learnt.append((pair, numbers))
        return learnt

    @property
    def n_ids(self) -> int:
        """Size of the vocabulary."""
        return self.shown.shape[1]

    @property
    def is_muted(self) -> bool:
        """Return whether all numbers are zeros."""
        return bool((self.scale == MUTED).all())

    @property
    def what_is_off(self) -> str:
        """Say which numbers are zeros, and why; "" where none are."""
        if self.is_muted:
            return "off: folds of so few rows were predicted better without them"
        if np.isposinf(self.scale).any():
            return "the history's scores are off: they made the newest rows' predictions worse"
        return ""

    @property
    def scores(self) -> ItemScores:
        """Scores of all training rows: what is known now."""
        return self.tables[-1]

    def find_scores(self, table: int) -> ItemScores:
        """Return a table by its number; behind those that are kept, that of all parts but one."""
        if table < len(self.tables):
            return self.tables[table]
        left_out = table - len(self.tables)
        if left_out not in self._without:  # a tenth of a second for each at 1,500 items
            others = [part for part in range(len(self.counts)) if part != left_out]
            self._without[left_out] = self._sum(others)
        return self._without[left_out]

    @cached_property
    def _without(self) -> dict[int, ItemScores]:
        return {}

    def fields(self) -> tuple[Field, ...]:
        """Return what the columns are."""
        return tuple(Field(name, "numeric", candidate=self.candidate) for name in self.names)

    def look_up(self, X: EncodedFeatures, tables: np.ndarray) -> np.ndarray:
        """Numbers of impressions, each from its table, zeros where that is -1: (n_rows, 14)."""
        numbers = np.zeros((len(X), N_NUMBERS), dtype=np.float32)

        def look_up_in(table: int) -> None:
            rows = np.flatnonzero(tables == table)
            asked = X if len(rows) == len(X) else X[rows]
            ragged = asked.behaviours[X.schema.behaviour_of(self.history).histories]
            numbers[rows] = self.find_scores(table).numbers(
                asked.columns[self.candidate], ragged.whole, ragged.columns[self.history]
            )

        map_in_parallel(look_up_in, np.unique(tables[tables >= 0]).tolist())
        return self.rescale(numbers)

    def rescale(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers on the scale, none beyond the largest: spreads of few rows are small."""
        return np.clip(numbers / self.scale, -self.largest, self.largest)

    def widen(self, schema: Schema) -> Self:
        """Give ids that were appended no neighbours and no popularity, as unknown ones have."""
        n_ids = schema[self.candidate].n_ids
        if n_ids <= self.n_ids:  # or rows were encoded before others were appended
            return self
        more = ((0, 0), (0, n_ids - self.n_ids))
        return replace(
            self,
            tables=tuple(scores.widen(n_ids) for scores in self.tables),
            counts=tuple(with_empty_rows(counts, n_ids) for counts in self.counts),
            shown=np.pad(self.shown, more),
            clicked=np.pad(self.clicked, more),
        )

    def grow(
        self, X: EncodedFeatures, y: np.ndarray, rows: OrderedRows, kept: Sequence[int]
    ) -> Self:
        """Return the pair after clicks of further rows, whose blocks say to what they count."""
        pair, candidates = self.widen(X.schema), X.columns[self.candidate]
        n_ids = pair.n_ids
        shown, clicked, counts = pair.shown.copy(), pair.clicked.copy(), [*pair.counts]
        for number, before in enumerate(pair.counts):
            is_own = rows.blocks == number
            shown[number] += count_ids(candidates[is_own], n_ids)
            is_click = is_own & rows.clicked
            clicks = X[is_click]
            clicked[number] += count_ids(clicks.columns[self.candidate], n_ids)
            ragged = clicks.behaviours[X.schema.behaviour_of(self.history).histories]
            ids = clicks.columns[self.candidate]
            more = count_new_clicks(rows.users[is_click], ids, ragged, self.history, n_ids=n_ids)
            counts[number] = sort_indices(before + more)
        pair = replace(pair, counts=tuple(counts), shown=shown, clicked=clicked)
        tables = [pair.tables[number] for number in kept]
        return replace(pair, tables=(*tables, pair._sum(range(len(counts)))))

    @one_thread_of_blas()
    def _sum(self, parts: Sequence[int]) -> ItemScores:
        """Compute the scores of some of the counts together."""
        first, *others = (self.counts[part] for part in parts)
        total = csr_array(sum(others, first))
        shown, clicked = (of[list(parts)].sum(axis=0) for of in (self.shown, self.clicked))
        one, whole = eye_array(self.n_ids, dtype=np.float32, format="csr"), both_triangles(total)
        return ItemScores.of_counts(one, whole, total.diagonal(), shown, clicked, self.prior)

    def fits(self, order: Order) -> bool:
        """Return whether there are as many tables, and counts, as the order has."""
        return (len(self.tables), len(self.counts)) == (len(order.counted()), len(order.parts()))

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        if len(self.names) != N_NUMBERS:
            raise ValueError(f"item neighbours have {N_NUMBERS} columns with names.")
        n_ids = np.shape(self.shown)[-1]
        square = (*(scores.ease for scores in self.tables), *self.counts)
        if any(matrix.shape[0] != n_ids for matrix in square):
            raise ValueError(f"item neighbours must have scores and counts of {n_ids} ids.")
        for name in ("shown", "clicked", "scale"):
            shape = (N_NUMBERS,) if name == "scale" else (len(self.counts), n_ids)
            values = getattr(self, name)
            if name == "scale":
                values = np.where(np.isposinf(values), np.float32(1), values)
            check_numbers(values, shape, what=name)
        for matrix in self.counts:
            rows = np.flatnonzero(np.diff(matrix.indptr))
            least = matrix.indices[matrix.indptr[rows]]  # they are in order
            if (matrix.data < 0).any() or (least < rows).any():
                raise ValueError(
                    "the counts of item neighbours must be an upper triangle, none negative."
                )
        if (self.clicked < 0).any() or (self.clicked > self.shown).any():
            raise ValueError("an item cannot be clicked more often than it was shown.")
        if not self.prior > 0:
            raise ValueError("the prior of item neighbours must be positive.")
        if not (self.scale > 0).all():
            raise ValueError("the scale of item neighbours must be positive.")

    def check_columns(self, schema: Schema) -> None:
        """Raise ValueError unless a schema has the history, the candidate and their ids."""
        kinds = {field.name: (field.kind, field.n_ids) for field in schema.fields}
        if (
            kinds.get(self.candidate) != ("categorical", self.n_ids)
            or kinds.get(self.history) != ("history", self.n_ids)
            or not set(self.names).isdisjoint(kinds)
        ):
            raise ValueError("item neighbours need a history and its candidate.")


def count_ids(ids: np.ndarray, n_ids: int) -> np.ndarray:
    """Count how often each known id occurs: (n_ids,), float32."""
    counts = np.bincount(ids_to_look_up(ids), minlength=n_ids).astype(np.float32)
    counts[:FIRST_KNOWN_ID] = 0
    return counts


def histories_with_candidate(schema: Schema) -> list[tuple[str, str]]:
    """Histories and candidates whose items neighbours are learnt for: those with many ids.

    Of each behaviour the attribute with the most ids from LEAST_ITEMS on, and others from LEAST_IDS
    on. An embedding holds who goes with whom among few ids. Scores of few only identify the user,
    and their popularity the moment, and the network overfits to both (-.06 GAUC on "repetition
    tires", +.002 log loss on "offers", benchmarks/quality-results.md).
    """
    chosen = []
    for behaviour in schema.behaviours:
        of, single = behaviour.candidate_of, schema.names("categorical")  # no lists
        pairs = [(h, c) for h, c in of.items() if c is not None and c in single]
        sizes = {(h, c): schema[c].n_ids - FIRST_KNOWN_ID for h, c in pairs}
        for pair, n_known in sizes.items():
            if n_known >= (LEAST_ITEMS if n_known == max(sizes.values()) else LEAST_IDS):
                chosen.append(pair)
    return chosen


@one_thread_of_blas()
def _learn_pair(
    given: RowsToLearn, history: str, candidate: str, names: tuple[str, ...]
) -> tuple[NeighbourPair, NeighbourPair]:
    """Learn one history's tables, as later rows and as training rows read them; not scaled."""
    X, order, rows = given.X, given.order, given.rows
    interactions = Interactions.gather(X, rows, history, candidate).cap()
    ids, n_ids = X.columns[candidate], X.schema[candidate].n_ids
    at_fit, later, parts = order.counted_at_fit(), order.counted(), order.parts()
    # By the rows of the first table, which all others at fit count too
    prior = float(prior_rows(sums_of_keys(*_occurrences(ids, rows, at_fit[0], n_ids)).sum(axis=1)))

    def score(counted: np.ndarray) -> ItemScores:
        had, rates = interactions.matrix(counted), _occurrences(ids, rows, counted, n_ids)
        by_item, n_users = csr_array(had.T.tocsr()), _count_users(had)
        return ItemScores.of_counts(by_item, had, n_users, *rates, prior)

    of_blocks = {counted.tobytes(): counted for counted in (*at_fit, *later)}  # some serve both
    scores = map_in_parallel(score, [*of_blocks.values()])
    tables = dict(zip(of_blocks, scores, strict=True))
    counts = _counts_of_parts(interactions, parts, tables[later[-1].tobytes()])
    shown, clicked = np.stack([_occurrences(ids, rows, part, n_ids) for part in parts], axis=1)
    of_fit, kept = (tuple(tables[of.tobytes()] for of in counted) for counted in (at_fit, later))
    scale = np.ones(N_NUMBERS, dtype=np.float32)
    pair = NeighbourPair(history, candidate, names, kept, counts, shown, clicked, prior, scale)
    return pair, replace(pair, tables=of_fit)


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
