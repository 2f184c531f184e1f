"""Item neighbours inside an ONNX graph: the twin of ``ItemScores.numbers``."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sklearn_din.neighbours.item_scores import DECAY
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.serving.onnx_graph import HIDDEN, Graph, axes, signed_log

NO_NEIGHBOUR = -1  # equals no event's id
ROW, ID, SCORE = np.dtype(np.int32), np.dtype(np.int32), np.dtype(np.float32)


def neighbour_numbers(graph: Graph, pair: NeighbourPair, events: str, mask: str) -> dict[str, str]:
    """Add one history's numbers for its candidate, (n,) each, by the name of their column.

    Parameters
    ----------
    graph : Graph
    pair : NeighbourPair
    events : str
        Ids of the history, (n, T), T at least 1.
    mask : str
        1.0 on real events, (n, T).
    """
    numbers: list[str] = []
    for scores in (pair.scores.ease, pair.scores.cosine):
        found = _looked_up(graph, scores, pair.candidate, events)
        numbers += [signed_log(graph, one) for one in _summaries(graph, found, mask)]
    popularity = graph.add("Gather", pair.scores.popularity, pair.candidate)
    is_known = graph.add("Cast", popularity, to=graph.onnx.TensorProto.BOOL)
    click_rate = graph.add("Gather", pair.scores.click_rate, pair.candidate)
    is_known = graph.add("Cast", is_known, to=graph.onnx.TensorProto.FLOAT)
    numbers += [popularity, click_rate, is_known]
    return {
        name: graph.add("Div", number, scale)
        for name, number, scale in zip(pair.names, numbers, pair.scale, strict=True)
    }


def neighbour_bytes(pair: NeighbourPair) -> int:
    """Bytes of the tables that :func:`neighbour_numbers` adds, without making them."""
    n_bytes = pair.scores.popularity.nbytes + pair.scores.click_rate.nbytes
    for scores in (pair.scores.ease, pair.scores.cosine):
        n_rows, most = _table_shape(scores)
        n_bytes += ROW.itemsize * scores.shape[0]
        n_bytes += (ID.itemsize + SCORE.itemsize) * n_rows * most
    return n_bytes


def _table_shape(scores: csr_array) -> tuple[int, int]:
    """Rows, one of them for all ids without neighbours, and neighbours in the longest."""
    lengths = np.diff(scores.indptr)
    return 1 + int(np.count_nonzero(lengths)), max(1, int(lengths.max(initial=0)))


def _tables(scores: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores as arrays: each id's row, and the neighbours' ids and scores in each row.

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


def _looked_up(graph: Graph, scores: csr_array, candidate: str, events: str) -> str:
    """Score of each event for its row's candidate: (n, T)."""
    rows, ids, values = _tables(scores)
    row = graph.add("Gather", rows, candidate)
    neighbours = graph.add("Unsqueeze", graph.add("Gather", ids, row), axes(1))  # (n, 1, K)
    same = graph.add("Equal", graph.add("Unsqueeze", events, axes(2)), neighbours)
    same = graph.add("Cast", same, to=graph.onnx.TensorProto.FLOAT)  # (n, T, K)
    column = graph.add("Unsqueeze", graph.add("Gather", values, row), axes(2))  # (n, K, 1)
    return graph.add("Squeeze", graph.add("MatMul", same, column), axes(2))


def _summaries(graph: Graph, scores: str, mask: str) -> list[str]:
    """Sum, mean, maximum, newest and decayed sum over real events: (n,) each, 0 without any."""
    real = graph.add("Mul", scores, mask)
    total = graph.add("ReduceSum", real, axes(1), keepdims=0)
    length = graph.add("ReduceSum", mask, axes(1), keepdims=0)
    mean = graph.add("Div", total, graph.add("Max", length, np.float32(1)))
    is_event = graph.add("Cast", mask, to=graph.onnx.TensorProto.BOOL)
    shown = graph.add("Where", is_event, scores, HIDDEN)
    largest = graph.add("ReduceMax", shown, axes=[1], keepdims=0)
    any_event = graph.add("ReduceMax", mask, axes=[1], keepdims=0)
    rank = graph.add("Sub", graph.add("CumSum", mask, np.int64(1), reverse=1), np.float32(1))
    weights = graph.add("Pow", np.float32(DECAY), rank)
    decayed = graph.add("ReduceSum", graph.add("Mul", real, weights), axes(1), keepdims=0)
    is_newest = graph.add("Equal", rank, np.float32(0))
    is_newest = graph.add("Cast", is_newest, to=graph.onnx.TensorProto.FLOAT)
    newest = graph.add("ReduceSum", graph.add("Mul", real, is_newest), axes(1), keepdims=0)
    return [total, mean, graph.add("Mul", any_event, largest), newest, decayed]
