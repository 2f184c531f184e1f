"""Item neighbours: what everybody's histories say about a candidate and the user's past events."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from sklearn.utils import check_consistent_length

from sklearn_din._log_once import ADVICE_FROM, log_once
from sklearn_din._validation import key_codes
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Field, Schema
from sklearn_din.neighbours.cooccurrence import (
    Interactions,
    Rows,
    both_triangles,
    count_new_clicks,
    growing_counts,
)
from sklearn_din.neighbours.item_scores import N_NUMBERS, SUMMARIES, ItemScores

N_BLOCKS = 5
LEAST_IDS = 64
SUFFIXES = (
    *(f"ease_{summary}" for summary in SUMMARIES),
    *(f"cosine_{summary}" for summary in SUMMARIES),
    "popularity",
    "click_rate",
    "is_known",
)


@dataclass(frozen=True)
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
        Standard deviation of each column over the training rows. Zero stays zero.
    """

    history: str
    candidate: str
    names: tuple[str, ...]
    scores: ItemScores
    counts: csr_array
    shown: np.ndarray
    clicked: np.ndarray
    scale: np.ndarray

    def columns(self, X: EncodedFeatures) -> dict[str, np.ndarray]:
        """Columns of numbers of impressions that the scores have not learnt from."""
        return self.scaled(_numbers(self.scores, X, self.history, self.candidate))

    def scaled(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers (n_rows, 13) as columns by name."""
        scaled = numbers / self.scale
        return {name: np.ascontiguousarray(scaled[:, i]) for i, name in enumerate(self.names)}

    def grown(self, X: EncodedFeatures, clicked: np.ndarray) -> NeighbourPair:
        """The pair after the clicks of further rows, whose ids it may not know yet.

        Parameters
        ----------
        X : EncodedFeatures
            The further rows.
        clicked : ndarray of shape (n_rows,), bool
            Whether the candidate was clicked.
        """
        n_ids = X.schema[self.candidate].n_ids
        counts = csr_array(self.counts)
        counts.resize((n_ids, n_ids))
        room = (0, n_ids - len(self.shown))
        shown = np.pad(self.shown, room) + _count(X.columns[self.candidate], n_ids)
        X = X[clicked]
        n_clicked = np.pad(self.clicked, room) + _count(X.columns[self.candidate], n_ids)
        ragged = X.behaviours[X.schema.behaviour_of(self.history).histories]
        users = np.arange(len(X)) if X.users is None else _codes(X.users)
        counts = counts + count_new_clicks(
            users, X.columns[self.candidate], ragged, self.history, n_ids=n_ids
        )
        scores = ItemScores.of_counts(both_triangles(counts), shown, n_clicked)
        counts = csr_array(counts)
        return replace(self, scores=scores, counts=counts, shown=shown, clicked=n_clicked)

    def fields(self) -> list[Field]:
        """What the columns are."""
        return [Field(name, "numeric", candidate=self.candidate) for name in self.names]


def neighbour_order(
    neighbours: str | None,
    *,
    has_candidates: bool,
    user: str | None,
    time: str | None,
    n_rows: int,
) -> str | None:
    """Say how the blocks of training rows are ordered, or None where there are no neighbours.

    Parameters
    ----------
    neighbours : {"auto", "time", "user"} or None
    has_candidates : bool
        Without a history that has a candidate there are no neighbours.
    user, time : str or None
        Columns that say whose and when.
    n_rows : int
        Training rows. From 1,000 on it is said that "auto" found neither user nor time.

    Raises
    ------
    ValueError
        If the order needs a column that is not named.
    """
    for order, column in (("time", time), ("user", user)):
        if neighbours == order and column is None:
            raise ValueError(
                f"neighbours={order!r} puts the training rows in order of {order}s, got "
                f"{order}=None. Name the column that holds them, or use neighbours=None."
            )
    if neighbours is None or not has_candidates:
        return None
    if neighbours != "auto":
        return neighbours
    if time is not None:
        return "time"
    if user is None and n_rows >= ADVICE_FROM:
        log_once(
            "item neighbours are off, because neither user nor time is named: what other users' "
            "histories say about a candidate often decides. Name the columns, "
            "HistorySequenceEncoder(user=..., time=...), or say neighbours=None."
        )
    return "user" if user is not None else None


def learn_neighbours(
    X: EncodedFeatures, y: ArrayLike | None, *, order: str, taken: Collection[str]
) -> tuple[tuple[NeighbourPair, ...], EncodedFeatures]:
    """Learn from training rows, and add the numbers to them.

    Parameters
    ----------
    X : EncodedFeatures
        Training rows.
    y : array-like of shape (n_rows,) or None
        Two labels, the larger of which is a click. With anything else, histories alone count.
    order : {"time", "user"}
        What the blocks of rows are made of.
    taken : collection of str
        Names that no column may have.
    """
    pairs, columns = learn_pairs(X, training_rows(X, y, order=order), taken=taken)
    return pairs, _with_columns(X, pairs, columns)


def add_neighbours(X: EncodedFeatures, pairs: Sequence[NeighbourPair]) -> EncodedFeatures:
    """Impressions with the numbers of all pairs, computed anew where they have them already."""
    if not pairs:
        return X
    columns: dict[str, np.ndarray] = {}
    for pair in pairs:
        columns |= pair.columns(X)
    return _with_columns(X, pairs, columns)


def schema_without(schema: Schema, pairs: Sequence[NeighbourPair]) -> Schema:
    """A schema without the pairs' columns."""
    added = {name for pair in pairs for name in pair.names}
    return replace(schema, fields=tuple(f for f in schema.fields if f.name not in added))


def neighbour_scales(pairs: Sequence[NeighbourPair]) -> dict[str, float]:
    """Standard deviation that each pair's columns are divided by."""
    return {
        name: scale
        for pair in pairs
        for name, scale in zip(pair.names, pair.scale.tolist(), strict=True)
    }


def _with_columns(
    X: EncodedFeatures, pairs: Sequence[NeighbourPair], columns: dict[str, np.ndarray]
) -> EncodedFeatures:
    fields = schema_without(X.schema, pairs).fields + tuple(f for p in pairs for f in p.fields())
    schema = replace(X.schema, fields=fields)
    return EncodedFeatures._trusted(
        schema, X.columns | columns, X.behaviours, users=X.users, times=X.times
    )


def learn_pairs(
    X: EncodedFeatures, rows: Rows, *, taken: Collection[str]
) -> tuple[tuple[NeighbourPair, ...], dict[str, np.ndarray]]:
    """Learn the scores of each history and its candidate, and give the training rows' columns.

    A training row is told of the rows in earlier blocks alone: told of its own click, or of what
    came later, the network would read the label off the numbers. The first block is told nothing.

    Parameters
    ----------
    X : EncodedFeatures
        Training rows.
    rows : Rows
        Whose they are, their blocks, and which were clicked.
    taken : collection of str
        Names that no column may have.

    Returns
    -------
    pairs : tuple of NeighbourPair
    columns : dict of str to ndarray of shape (n_rows,), float32
    """
    pairs: list[NeighbourPair] = []
    columns: dict[str, np.ndarray] = {}
    taken = set(taken)
    for behaviour, history, candidate in histories_with_candidate(X.schema):
        ragged = X.behaviours[behaviour.histories]
        n_ids = X.schema[candidate].n_ids
        found = Interactions.of_rows(rows, X[candidate], ragged, history, n_ids=n_ids)
        numbers = np.zeros((len(X), N_NUMBERS), dtype=np.float32)
        for block, counts in enumerate(growing_counts(found, rows.n_blocks)):
            so_far = rows.blocks <= block
            shown = _count(X[candidate][so_far], n_ids)
            clicked = _count(X[candidate][so_far & rows.clicked], n_ids)
            scores = ItemScores.of_counts(counts, shown, clicked)
            told = np.flatnonzero(rows.blocks == block + 1)
            numbers[told] = _numbers(scores, X[told], history, candidate)
        names = tuple(free_name(f"{history}_{suffix}", taken) for suffix in SUFFIXES)
        taken |= set(names)
        spread = numbers.std(axis=0)
        kept = scores.counts_to_keep(counts)
        scale = np.where(spread > 0, spread, np.float32(1))
        pair = NeighbourPair(history, candidate, names, scores, kept, shown, clicked, scale)
        pairs.append(pair)
        columns |= pair.scaled(numbers)
    return tuple(pairs), columns


def training_rows(X: EncodedFeatures, y: ArrayLike | None, *, order: str) -> Rows:
    """Put the training rows in blocks: of time, or of users in an arbitrary, fixed order.

    Parameters
    ----------
    X : EncodedFeatures
        Training rows. Where they have no users, each is a user of its own.
    y : array-like of shape (n_rows,) or None
        Two labels, the larger of which is a click. With anything else there are no clicks.
    order : {"time", "user"}
        What the blocks are made of.
    """
    if y is not None:
        check_consistent_length(X.columns[next(iter(X.columns))], y)
    codes = np.arange(len(X)) if X.users is None else _codes(X.users)
    positive = clicked_label(y)
    clicked = np.zeros(len(X), dtype=bool) if positive is None else np.asarray(y) == positive
    if order == "time" and X.times is not None:
        blocks = _blocks_of_time(X.times)
    else:
        n_users = codes.max(initial=-1) + 1
        place = np.random.RandomState(0).permutation(n_users) * N_BLOCKS // max(n_users, 1)
        blocks = place.astype(np.int8)[codes]
    return Rows(codes, blocks, clicked)


def clicked_label(y: ArrayLike | None) -> Any:
    """The larger of two labels; None where there are not two."""
    if y is None:
        return None
    labels = np.asarray(y)
    found = pd.unique(labels) if labels.ndim == 1 else ()
    return max(found) if len(found) == 2 else None


def _blocks_of_time(times: np.ndarray) -> np.ndarray:
    """Blocks of about as many rows each. Rows of one time stay together, missing ones come last.

    A row's block is ``rank * N_BLOCKS // n_rows``, with its rank the number of earlier rows.
    """
    firsts = [math.ceil(block * len(times) / N_BLOCKS) for block in range(1, N_BLOCKS)]
    places = np.maximum(np.array(firsts) - 1, 0)  # rank >= first: this one is earlier
    cuts = np.partition(times, places)[places]
    blocks = np.zeros(len(times), dtype=np.int8)
    for cut in cuts:
        blocks += times > cut
    is_missing = pd.isna(times)
    blocks[is_missing] = np.count_nonzero(~is_missing) * N_BLOCKS // max(len(times), 1)
    return blocks


def _codes(users: np.ndarray) -> np.ndarray:
    """Users as numbers from 0, in an order that does not follow the rows' where they can be sorted.

    Rows without a user are each of a user of their own.
    """
    try:
        codes, names = pd.factorize(users, sort=True)
    except TypeError:
        codes, names = key_codes(users, name="the column of users")
    missing = np.flatnonzero(codes < 0)
    codes = codes.astype(np.int64)
    codes[missing] = len(names) + np.arange(len(missing))
    return codes


def _numbers(scores: ItemScores, X: EncodedFeatures, history: str, candidate: str) -> np.ndarray:
    ragged = X.behaviours[X.schema.behaviour_of(history).histories]
    return scores.numbers(X.columns[candidate], ragged.spans, ragged.columns[history])


def _count(ids: np.ndarray, n_ids: int) -> np.ndarray:
    counts = np.bincount(ids, minlength=n_ids).astype(np.float32)
    counts[:FIRST_KNOWN_ID] = 0
    return counts


def histories_with_candidate(schema: Schema) -> list[tuple[Behaviour, str, str]]:
    """Histories whose items neighbours are learnt for: those with many ids.

    Of each behaviour the attribute with the most ids, and others from LEAST_IDS on. An embedding
    holds who goes with whom among few categories; their scores only identify the user, and the
    network overfits to users (-.06 GAUC on "repetition tires", benchmarks/quality-results.md).
    """
    chosen = []
    for behaviour in schema.behaviours:
        pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
        sizes = {(h, c): schema[c].n_ids for h, c in pairs if c is not None}
        for (history, candidate), n_ids in sizes.items():
            if n_ids == max(sizes.values()) or n_ids >= LEAST_IDS:
                chosen.append((behaviour, history, candidate))
    return chosen


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that is not taken: with underscores behind it where it must be."""
    while name in taken:
        name += "_"
    return name
