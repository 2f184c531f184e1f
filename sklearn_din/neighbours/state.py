"""Item neighbours as plain values, and back, every shape and id checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sklearn_din._estimator_state import check_array, check_keys
from sklearn_din.features.schema import Schema
from sklearn_din.neighbours.item_scores import N_NUMBERS, ItemScores
from sklearn_din.neighbours.pairs import NeighbourPair

PARTS = {"history", "candidate", "names", "scale", "popularity", "click_rate", "ease", "cosine"}
PARTS |= {"counts", "shown", "clicked"}


def pair_state(pair: NeighbourPair) -> dict[str, Any]:
    """Write one pair as a dict of names and arrays."""
    return {
        "history": pair.history,
        "candidate": pair.candidate,
        "names": list(pair.names),
        "scale": pair.scale,
        "popularity": pair.scores.popularity,
        "ease": _sparse_state(pair.scores.ease),
        "cosine": _sparse_state(pair.scores.cosine),
        "click_rate": pair.scores.click_rate,
        "counts": _sparse_state(pair.counts),
        "shown": pair.shown,
        "clicked": pair.clicked,
    }


def pairs_from_state(state: Any, schema: Schema) -> tuple[NeighbourPair, ...]:
    """Read all pairs, and raise ValueError where they do not fit each other or the schema.

    Parameters
    ----------
    state : list of dict
        From :func:`pair_state`.
    schema : Schema
        Of the encoder, with the columns of the pairs.

    Returns
    -------
    tuple of NeighbourPair
    """
    if type(state) is not list or any(type(one) is not dict for one in state):
        raise ValueError("item neighbours must be a list of pairs.")
    pairs = tuple(_pair(one, schema) for one in state)
    fields = tuple(field for pair in pairs for field in pair.fields())
    if schema.fields[len(schema.fields) - len(fields) :] != fields:
        raise ValueError("the columns of item neighbours must be the last of the schema.")
    return pairs


def _pair(state: dict[str, Any], schema: Schema) -> NeighbourPair:
    check_keys(state, PARTS, what="item neighbours")
    names, history, candidate = state["names"], state["history"], state["candidate"]
    is_named = type(names) is list and all(type(name) is str for name in names)
    if not is_named or len(names) != N_NUMBERS:
        raise ValueError(f"item neighbours have {N_NUMBERS} columns with names.")
    if type(history) is not str or type(candidate) is not str:
        raise ValueError("item neighbours need the names of a history and its candidate.")
    kinds = {field.name: (field.kind, field.n_ids) for field in schema.fields}
    n_ids = kinds.get(candidate, ("", 0))[1]
    if kinds.get(candidate) != ("categorical", n_ids) or kinds.get(history) != ("history", n_ids):
        raise ValueError("item neighbours need a history and its candidate.")
    scale = _numbers(state["scale"], N_NUMBERS, what="scale")
    if not (scale > 0).all():
        raise ValueError("the scale of item neighbours must be positive.")
    scores = ItemScores(
        _sparse(state["ease"], n_ids),
        _sparse(state["cosine"], n_ids),
        _numbers(state["popularity"], n_ids, what="popularity"),
        _numbers(state["click_rate"], n_ids, what="rates"),
    )
    counts = _sparse(state["counts"], n_ids)
    rows = np.repeat(np.arange(n_ids), np.diff(counts.indptr))
    if (counts.data < 0).any() or (counts.indices < rows).any():
        raise ValueError("the counts of item neighbours must be an upper triangle, none negative.")
    shown = _numbers(state["shown"], n_ids, what="numbers of rows")
    clicked = _numbers(state["clicked"], n_ids, what="numbers of clicks")
    if (clicked < 0).any() or (clicked > shown).any():
        raise ValueError("an item cannot be clicked more often than it was shown.")
    return NeighbourPair(history, candidate, tuple(names), scores, counts, shown, clicked, scale)


def _sparse_state(matrix: csr_array) -> dict[str, np.ndarray]:
    return {
        "values": matrix.data,
        "columns": matrix.indices.astype(np.int32),
        "lengths": np.diff(matrix.indptr).astype(np.int32),
    }


def _sparse(state: Any, n_ids: int) -> csr_array:
    check_keys(state, {"values", "columns", "lengths"}, what="scores of item neighbours")
    what = "the columns of item neighbours"
    n_values = np.size(state["columns"])
    lengths = check_array(state["lengths"], dtype="int32", shape=(n_ids,), what=what, least=0)
    columns = check_array(
        state["columns"], dtype="int32", shape=(n_values,), what=what, least=0, most=n_ids - 1
    )
    if lengths.sum(dtype=np.int64) != n_values:
        raise ValueError("scores must have a length per id.")
    keys = np.repeat(np.arange(n_ids, dtype=np.int64), lengths) * n_ids + columns
    if (keys[1:] <= keys[:-1]).any():
        raise ValueError("the neighbours of an id must be in order, each once.")
    starts = np.append(0, np.cumsum(lengths, dtype=np.int64))
    values = _numbers(state["values"], n_values, what="scores")
    return csr_array((values, columns, starts), shape=(n_ids, n_ids))


def _numbers(array: Any, length: int, *, what: str) -> np.ndarray:
    what = f"the {what} of item neighbours"
    return check_array(array, dtype="float32", shape=(length,), what=what)
