"""One history and its candidate: how their items go together, and the columns made of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sklearn_din._estimator_state import check_array, check_keys
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID, Field, Schema
from sklearn_din.neighbours.blocks import number_users
from sklearn_din.neighbours.cooccurrence import both_triangles, count_new_clicks, narrow_csr
from sklearn_din.neighbours.item_scores import N_NUMBERS, SUMMARIES, ItemScores, with_empty_rows

LEAST_IDS = 64
SUFFIXES = (
    *(f"ease_{summary}" for summary in SUMMARIES),
    *(f"cosine_{summary}" for summary in SUMMARIES),
    "popularity",
    "click_rate",
    "is_known",
)
NAMES, SPARSE = ("history", "candidate", "names"), ("ease", "cosine", "counts")
NUMBERS = ("popularity", "click_rate", "shown", "clicked", "scale")


@dataclass(frozen=True, eq=False)
class NeighbourPair:
    """One history and its candidate: how their items go together, and its columns of numbers.

    Parameters
    ----------
    history, candidate : str
        Columns of ids with one vocabulary.
    names : tuple of str
        Names of the columns of numbers.
    scores : ItemScores
        Of all training rows.
    counts : csr_array of shape (n_ids, n_ids), float32
        What they are computed from and later clicks are added to: how many users had both items,
        the upper triangle.
    shown, clicked : ndarray of shape (n_ids,), float32
        How often each item was a candidate, and was clicked as one.
    scale : ndarray of shape (13,), float32
        Standard deviation of each column over the training rows, one where it is zero.
    """

    history: str
    candidate: str
    names: tuple[str, ...]
    scores: ItemScores
    counts: csr_array
    shown: np.ndarray
    clicked: np.ndarray
    scale: np.ndarray

    @property
    def n_ids(self) -> int:
        """Size of the vocabulary."""
        return len(self.shown)

    def fields(self) -> tuple[Field, ...]:
        """Return what the columns are."""
        return tuple(Field(name, "numeric", candidate=self.candidate) for name in self.names)

    def look_up(self, X: EncodedFeatures) -> np.ndarray:
        """Numbers of impressions that the scores have not learnt from: (n_rows, 13), scaled."""
        return look_up(self.scores, X, self.history, self.candidate) / self.scale

    def widen(self, n_ids: int) -> NeighbourPair:
        """Give ids that were appended no neighbours and no popularity, as unknown ones have."""
        if n_ids == self.n_ids:
            return self
        n_new = n_ids - self.n_ids
        return replace(
            self,
            scores=self.scores.widen(n_ids),
            counts=with_empty_rows(self.counts, n_ids),
            shown=np.pad(self.shown, (0, n_new)),
            clicked=np.pad(self.clicked, (0, n_new)),
        )

    def grow(self, X: EncodedFeatures, is_click: np.ndarray) -> NeighbourPair:
        """Return the pair after the clicks of further rows, whose ids it may not know yet."""
        pair, n_ids = self.widen(X.schema[self.candidate].n_ids), X.schema[self.candidate].n_ids
        shown = pair.shown + count_ids(X.columns[self.candidate], n_ids)
        X = X[is_click]
        clicked = pair.clicked + count_ids(X.columns[self.candidate], n_ids)
        ragged = X.behaviours[X.schema.behaviour_of(self.history).histories]
        counts = pair.counts + count_new_clicks(
            number_users(X), X.columns[self.candidate], ragged, self.history, n_ids=n_ids
        )
        counts = csr_array(counts)
        counts.sort_indices()
        scores = ItemScores.of_counts(
            [(0, both_triangles(counts))], counts.diagonal(), shown, clicked
        )
        return replace(pair, scores=scores, counts=counts, shown=shown, clicked=clicked)

    def check(self, schema: Schema) -> None:
        """Raise ValueError unless a schema has the history, the candidate and their ids."""
        kinds = {field.name: (field.kind, field.n_ids) for field in schema.fields}
        if (
            kinds.get(self.candidate) != ("categorical", self.n_ids)
            or kinds.get(self.history) != ("history", self.n_ids)
            or not set(self.names).isdisjoint(kinds)
        ):
            raise ValueError("item neighbours need a history and its candidate.")

    def to_plain(self) -> dict[str, Any]:
        """Return the pair as a dict of names, numbers and arrays."""
        parts = vars(self) | vars(self.scores) | {"names": list(self.names)}
        plain = {name: parts[name] for name in (*NAMES, *NUMBERS)}
        return plain | {name: _sparse_to_plain(parts[name]) for name in SPARSE}

    @classmethod
    def from_plain(cls, plain: Any) -> NeighbourPair:
        """Read what :meth:`to_plain` wrote; ValueError where its parts do not fit each other."""
        check_keys(plain, {*NAMES, *NUMBERS, *SPARSE}, what="item neighbours")
        names, n_ids = plain["names"], np.size(plain["shown"])
        if type(names) is not list or len(names) != N_NUMBERS:
            raise ValueError(f"item neighbours have {N_NUMBERS} columns with names.")
        if any(type(name) is not str for name in (*names, plain["history"], plain["candidate"])):
            raise ValueError("columns of item neighbours must have names.")
        parts = {
            name: _check_numbers(plain[name], N_NUMBERS if name == "scale" else n_ids, what=name)
            for name in NUMBERS
        }
        parts |= {name: _sparse_from_plain(plain[name], n_ids) for name in SPARSE}
        _check_counts(parts)
        scores = ItemScores(*(parts.pop(name) for name in (*SPARSE[:2], *NUMBERS[:2])))
        return cls(plain["history"], plain["candidate"], tuple(names), scores, **parts)


def look_up(scores: ItemScores, X: EncodedFeatures, history: str, candidate: str) -> np.ndarray:
    """Numbers of impressions: (n_rows, 13), float32."""
    ragged = X.behaviours[X.schema.behaviour_of(history).histories]
    return scores.numbers(X.columns[candidate], ragged.whole, ragged.columns[history])


def count_ids(ids: np.ndarray, n_ids: int) -> np.ndarray:
    """Count how often each known id occurs: (n_ids,), float32."""
    counts = np.bincount(ids_to_look_up(ids), minlength=n_ids).astype(np.float32)
    counts[:FIRST_KNOWN_ID] = 0
    return counts


def histories_with_candidate(schema: Schema) -> list[tuple[str, str]]:
    """Histories and candidates whose items neighbours are learnt for: those with many ids.

    Of each behaviour the attribute with the most ids, and others from LEAST_IDS on. An embedding
    holds who goes with whom among few categories; their scores only identify the user, and the
    network overfits to users (-.06 GAUC on "repetition tires", benchmarks/quality-results.md).
    """
    chosen = []
    for behaviour in schema.behaviours:
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        single = schema.names("categorical")  # no lists
        sizes = {(h, c): schema[c].n_ids for h, c in pairs if c is not None and c in single}
        for pair, n_ids in sizes.items():
            if n_ids == max(sizes.values()) or n_ids >= LEAST_IDS:
                chosen.append(pair)
    return chosen


def name_columns(history: str, taken: Collection[str]) -> tuple[str, ...]:
    """Names of a history's columns of numbers, with underscores behind those that are taken."""
    names = []
    for suffix in SUFFIXES:
        name = f"{history}_{suffix}"
        while name in taken:
            name += "_"
        names.append(name)
    return tuple(names)


def _sparse_to_plain(matrix: csr_array) -> dict[str, np.ndarray]:
    return {
        "values": matrix.data,
        "columns": matrix.indices.astype(np.int32, copy=False),
        "lengths": np.diff(matrix.indptr).astype(np.int32),
    }


def _sparse_from_plain(plain: Any, n_ids: int) -> csr_array:
    check_keys(plain, {"values", "columns", "lengths"}, what="scores of item neighbours")
    what, n_values = "the columns of item neighbours", np.size(plain["columns"])
    lengths = check_array(plain["lengths"], dtype="int32", shape=(n_ids,), what=what, least=0)
    columns = check_array(
        plain["columns"], dtype="int32", shape=(n_values,), what=what, least=0, most=n_ids - 1
    )
    if lengths.sum(dtype=np.int64) != n_values:
        raise ValueError("scores must have a length per id.")
    starts = np.append(0, np.cumsum(lengths, dtype=np.int64))
    steps = np.diff(columns)  # there may be a hundred million: nothing wider is made of them
    steps[starts[(starts > 0) & (starts < n_values)] - 1] = 1  # from one id's to the next one's
    if (steps <= 0).any():
        raise ValueError("the neighbours of an id must be in order, each once.")
    values = _check_numbers(plain["values"], n_values, what="scores")
    return narrow_csr(values, columns, starts, (n_ids, n_ids))


def _check_numbers(array: Any, length: int, *, what: str) -> np.ndarray:
    what = f"the {what} of item neighbours"
    return check_array(array, dtype="float32", shape=(length,), what=what)


def _check_counts(parts: dict[str, Any]) -> None:
    counts = parts["counts"]
    rows = np.flatnonzero(np.diff(counts.indptr))
    least = counts.indices[counts.indptr[rows]]  # they are in order
    if (counts.data < 0).any() or (least < rows).any():
        raise ValueError("the counts of item neighbours must be an upper triangle, none negative.")
    if (parts["clicked"] < 0).any() or (parts["clicked"] > parts["shown"]).any():
        raise ValueError("an item cannot be clicked more often than it was shown.")
    if not (parts["scale"] > 0).all():
        raise ValueError("the scale of item neighbours must be positive.")
