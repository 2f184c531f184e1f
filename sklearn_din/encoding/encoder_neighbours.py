"""Item neighbours as the encoder's parameter asks for them, until the classifier alone does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from sklearn_din._log_once import ADVICE_FROM, log_once
from sklearn_din.encoding.array_files import ArrayFiles
from sklearn_din.encoding.scaling import EventScale
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.neighbours.tables import NeighbourTables, has_numbers, learn_neighbours


def neighbour_order(
    neighbours: str | None,
    *,
    has_candidates: bool,
    user: str | None,
    time: str | None,
    n_rows: int,
) -> str | None:
    """Say how the blocks of training rows are ordered, or None where there are no neighbours."""
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


def learn_of_encoder(
    X: EncodedFeatures, y: ArrayLike | None, *, order: str, taken: Collection[str]
) -> tuple[tuple[NeighbourPair, ...], EncodedFeatures]:
    """Learn from training rows, and add the numbers to them."""
    positive = clicked_label(y)
    is_click = np.zeros(len(X), dtype=bool)
    if y is not None:
        check_consistent_length(X.columns[next(iter(X.columns))], y)
    if positive is not None:
        is_click = np.asarray(y) == positive
    tables, X = learn_neighbours(X, is_click, order=order, taken=taken)
    return tables.pairs, X


def clicked_label(y: ArrayLike | None) -> Any:
    """Return the larger of two labels; None where there are not two."""
    if y is None:
        return None
    labels = np.asarray(y)
    distinct = pd.unique(labels) if labels.ndim == 1 else ()
    return max(distinct) if len(distinct) == 2 else None


def append_neighbours(X: EncodedFeatures, files: ArrayFiles) -> None:
    """Write the columns of numbers of encoded rows to files."""
    for field in X.schema.fields:
        if field.candidate:
            files.append(f"column {field.name}", np.ascontiguousarray(X.columns[field.name]))


def add_neighbours(X: EncodedFeatures, pairs: Sequence[NeighbourPair]) -> EncodedFeatures:
    """Return impressions with the numbers of all pairs, anew where they have them already."""
    if has_numbers(X.schema):
        schema = schema_without(X.schema, pairs)
        columns = {name: X.columns[name] for name in schema.names("categorical", "numeric")}
        X = EncodedFeatures._trusted(schema, columns, X.behaviours, X.users, X.times, X.store)
    return NeighbourTables(tuple(pairs)).add_to(X)


def schema_without(schema: Schema, pairs: Sequence[NeighbourPair]) -> Schema:
    """Return a schema without the pairs' columns."""
    added = {name for pair in pairs for name in pair.names}
    return replace(schema, fields=tuple(f for f in schema.fields if f.name not in added))


def neighbour_scales(pairs: Sequence[NeighbourPair]) -> dict[str, EventScale]:
    """Return how each pair's columns are scaled."""
    return {
        name: EventScale(0.0, scale)
        for pair in pairs
        for name, scale in zip(pair.names, pair.scale.tolist(), strict=True)
    }


def pairs_from_state(state: Any, schema: Schema) -> tuple[NeighbourPair, ...]:
    """Read all pairs, and raise ValueError where they do not fit each other or the schema."""
    if type(state) is not list:
        raise ValueError("item neighbours must be a list of pairs.")
    pairs = tuple(map(NeighbourPair.from_plain, state))
    plain = schema_without(schema, pairs)
    tables = NeighbourTables(pairs)
    tables.check(plain)
    if tables.extend(plain) != schema:
        raise ValueError("the columns of item neighbours must be the last of the schema.")
    return pairs
