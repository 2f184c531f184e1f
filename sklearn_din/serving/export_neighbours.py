"""Item neighbours inside an ONNX graph: the twin of ``ItemScores.numbers``."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sklearn_din.neighbours.item_scores import DECAY
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.serving.onnx_graph import Value, largest, rank_of_recency

NO_NEIGHBOUR = -1  # equals no event's id
ROW, ID, SCORE = np.dtype(np.int32), np.dtype(np.int32), np.dtype(np.float32)


def neighbour_numbers(
    pair: NeighbourPair, candidates: Value, events: Value, mask: Value
) -> dict[str, Value]:
    """Add one history's numbers for its candidate, (n,) each, by the name of their column.

    Candidates are (n,) ids, events (n, T) ids with T at least 1, the mask is 1.0 on real events.
    """
    graph, numbers = candidates.graph, []
    for scores in (pair.scores.ease, pair.scores.cosine):
        event_scores = _look_up(scores, candidates, events)
        numbers += [number.signed_log() for number in _summaries(event_scores, mask)]
    popularity = graph.add("Gather", pair.scores.popularity, candidates)
    click_rate = graph.add("Gather", pair.scores.click_rate, candidates)
    numbers += [popularity, click_rate, popularity.as_bool().as_float()]
    columns = zip(pair.names, numbers, pair.scale, strict=True)
    return {name: number / scale for name, number, scale in columns}


def neighbour_bytes(pair: NeighbourPair) -> int:
    """Count the bytes of the tables that :func:`neighbour_numbers` adds, without making them."""
    n_bytes = pair.scores.popularity.nbytes + pair.scores.click_rate.nbytes
    for scores in (pair.scores.ease, pair.scores.cosine):
        n_rows, most = _table_shape(scores)
        n_bytes += ROW.itemsize * scores.shape[0]
        n_bytes += (ID.itemsize + SCORE.itemsize) * n_rows * most
    return n_bytes


def _table_shape(scores: csr_array) -> tuple[int, int]:
    """Return the number of rows, one for all ids without neighbours, and of the longest row."""
    lengths = np.diff(scores.indptr)
    return 1 + int(np.count_nonzero(lengths)), max(1, int(lengths.max(initial=0)))


def _tables(scores: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores as arrays: each id's row, and the neighbours' ids and scores in each row.

    Most ids have no neighbours by EASE, which knows the most popular items alone: they share row 0.
    """
    lengths = np.diff(scores.indptr)
    n_rows, most = _table_shape(scores)
    rows = np.zeros(len(lengths), dtype=ROW)
    rows[lengths > 0] = np.arange(1, n_rows)
    is_neighbour = np.zeros((n_rows, most), dtype=bool)
    is_neighbour[1:] = np.arange(most) < lengths[lengths > 0, None]
    ids = np.full(is_neighbour.shape, NO_NEIGHBOUR, dtype=ID)
    values = np.zeros(is_neighbour.shape, dtype=SCORE)
    ids[is_neighbour], values[is_neighbour] = scores.indices, scores.data
    return rows, ids, values


def _look_up(scores: csr_array, candidates: Value, events: Value) -> Value:
    """Return the score of each event for its row's candidate: (n, T)."""
    graph = candidates.graph
    rows, ids, values = _tables(scores)
    row = graph.add("Gather", rows, candidates)
    neighbours = graph.add("Gather", ids, row).insert_axis(1)  # (n, 1, K)
    same = events.insert_axis(2).equals(neighbours).as_float()  # (n, T, K)
    column = graph.add("Gather", values, row).insert_axis(2)  # (n, K, 1)
    return (same @ column).drop_axis(2)


def _summaries(scores: Value, mask: Value) -> list[Value]:
    """Return sum, mean, maximum, newest and decayed sum over real events: (n,), 0 without any."""
    real = scores * mask
    total = real.sum(1)
    ranks = rank_of_recency(mask)
    weights = mask.graph.add("Pow", DECAY, ranks)
    newest = ranks.equals(np.float32(0)).as_float()
    return [
        total,
        total / mask.sum(1).at_least(1.0),
        largest(scores, mask),
        (real * newest).sum(1),
        (real * weights).sum(1),
    ]
