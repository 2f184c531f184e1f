"""Item neighbours in native code: pairs of items counted, scored and selected, row after row.

Every function has its twin in numpy (``neighbours/item_scores.py``), with the same bits, and
returns None where the library is not there.
"""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sklearn_din.native.structures import PAIRS, load_library

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, columns and ends of compressed rows


def score_pairs(
    left: csr_array,
    right: csr_array,
    roots: np.ndarray,
    popular: np.ndarray,
    *,
    shrinkage: np.float32,
    n_best: int,
) -> tuple[np.ndarray, Rows] | None:
    """Return the counts of popular items, and the largest cosines of each item.

    left, right : the counts are their product; the values of ``left`` are 1
    roots : (n_ids,), float32, of each item's number of users
    popular : (n_popular,), int32, ids in ascending order
    """
    gram = np.empty((len(popular),) * 2, dtype=np.float32, order="F")  # symmetric
    members = {"roots": roots, "popular": popular, "n_popular": len(popular), "gram": gram}
    n_products = left @ np.diff(right.indptr).astype(np.float64)
    n_most = int(np.minimum(n_products, n_best).sum())
    members |= _product(left, right) | {"n_best": n_best}
    rows = _call("din_score_pairs", left.shape[0], n_most, members, shrinkage)
    return None if rows is None else (gram, rows)


def select_pairs(
    left: csr_array, right: csr_array, popular: np.ndarray, near: csr_array | None
) -> Rows | None:
    """Return the upper triangle of counts: of two popular items, and where ``near`` has values.

    Without ``near`` it is whole. ``right`` has sorted rows, and ``left`` is its transpose.
    """
    n_of_users = int((np.diff(right.indptr).astype(np.float64) ** 2).sum()) + right.nnz
    n_most = min(n_of_users, left.shape[0] * (left.shape[0] + 1)) // 2
    members = _product(left, right) | {"popular": popular, "n_popular": len(popular)}
    if near is not None:
        n_most = min(n_most, len(popular) ** 2 + near.nnz)
        members |= _places("near", near)
    return _call("din_select_pairs", left.shape[0], n_most, members)


def _product(left: csr_array, right: csr_array) -> dict[str, Any]:
    members = {"right_values": right.data, "n_ids": left.shape[0], "n_inner": right.shape[0]}
    return members | _places("left", left) | _places("right", right)


def _places(name: str, matrix: csr_array) -> dict[str, np.ndarray]:
    columns = matrix.indices.astype(np.int32, copy=False)
    return {f"{name}_ends": matrix.indptr.astype(np.int64), f"{name}_columns": columns}


def _call(
    name: str, n_rows: int, n_most: int, members: dict[str, Any], *numbers: np.float32
) -> Rows | None:
    """Call what writes rows of at most so many values."""
    library, pairs = load_library(), np.zeros(1, dtype=PAIRS)
    if library is None:
        return None
    values, columns = np.empty(n_most, dtype=np.float32), np.empty(n_most, dtype=np.int32)
    ends = np.zeros(n_rows + 1, dtype=np.int64)
    members = members | {"values": values, "columns": columns, "ends": ends}
    for member, value in members.items():
        pairs[member] = value.ctypes.data if isinstance(value, np.ndarray) else value
    getattr(library, name)(pairs.ctypes.data, *numbers)
    for written in (values, columns):
        written.resize(ends[-1], refcheck=False)  # gives the rest of the memory back
    return values, columns, ends
