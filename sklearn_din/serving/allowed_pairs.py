"""Pairs of users and candidates that may be ranked: all, those of a frame, or all others."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame

from sklearn_din.encoding.cells import factorize
from sklearn_din.encoding.vocabulary import kind_of_ids, plain_ids
from sklearn_din.features.schema import PADDING_ID, UNKNOWN_ID
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.validation import check_frame

NO_PAIRS = np.empty(0, dtype=np.int64)


def pair_blocks(
    n_users: int, n_candidates: int, only: np.ndarray | None, excluded: np.ndarray, *, size: int
) -> Iterator[np.ndarray]:
    """Return ascending pairs by number: ``user's row * n_candidates + candidate's row``, in blocks.

    A block has all pairs of its users, some ``size`` of them, or all of ``only``. ``only`` (None:
    all) and ``excluded`` are sorted.
    """
    if only is not None:
        yield np.setdiff1d(only, excluded, assume_unique=True)
        return
    n_pairs, step = n_users * n_candidates, max(1, size // n_candidates) * n_candidates
    for start in range(0, n_pairs, step):
        block = np.arange(start, min(start + step, n_pairs))
        first, last = np.searchsorted(excluded, [start, start + step])
        yield np.delete(block, excluded[first:last] - start) if first < last else block


def pairs_of_frame(
    pairs: IntoDataFrame, users: pd.DataFrame, candidates: pd.DataFrame, *, name: str
) -> np.ndarray:
    """Return the numbers of the pairs in a frame; pairs of absent users or candidates have none."""
    frame = CallerFrame(pairs, name=name).pandas
    check_frame(frame, [], name=name)
    of_user = [column for column in frame if column in users]
    of_candidate = [column for column in frame if column in candidates]
    if len(of_user) != 1 or len(of_candidate) != 1:
        raise ValueError(
            f"{name} must have one column of users and one of candidates, got "
            f"{of_user} and {of_candidate}. users has {list(users.columns)}, candidates "
            f"{list(candidates.columns)}: pass {name}[[user, item]] under the names that they have "
            "there."
        )
    codes = [
        _common_codes(frame[column], there[column], f"{name} and {what}, {column!r}")
        for what, (column,), there in (
            ("users", of_user, users),
            ("candidates", of_candidate, candidates),
        )
    ]
    (users_of_pairs, user_rows), (items, candidate_rows) = codes
    is_there = (users_of_pairs >= 0) & (items >= 0)
    of, rows = PlacesOfIds(user_rows).find(users_of_pairs[is_there])
    of_pair, places = PlacesOfIds(candidate_rows).find(items[is_there][of])
    return np.unique(rows[of_pair] * len(candidate_rows) + places)


class PlacesOfIds:
    """Positions of each id among the candidates; missing ids have none."""

    def __init__(self, ids: np.ndarray) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]

    def pairs(self, users: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Return the numbers of the pairs of users and the candidates with the given ids."""
        is_value = (ids != UNKNOWN_ID) & (ids != PADDING_ID)
        of, places = self.find(ids[is_value])
        return np.unique(users[is_value][of] * len(self._ids) + places)

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of some ids: the number of the id, and its position."""
        first = np.searchsorted(self._ids, ids)
        spans = Spans(first, np.searchsorted(self._ids, ids, side="right") - first)
        return np.repeat(np.arange(len(ids)), spans.lengths), self._order[spans.index()]


def _common_codes(given: pd.Series, there: pd.Series, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return both columns as codes of the same values, -1 where missing or only in the second."""
    codes, values = zip(*(factorize(c, name=str(c.name)) for c in (given, there)), strict=True)
    plain = [plain_ids(ids, name=str(given.name)) for ids in values]
    kinds = [kind_of_ids(ids) for ids in plain]
    if None not in kinds and kinds[0] != kinds[1]:
        raise ValueError(
            f"{what} must be of one kind, got {kinds[0]} and {kinds[1]}: no pair could match. Give "
            "both columns one dtype."
        )
    index, others = (pd.Index(ids, dtype=ids.dtype) for ids in plain)
    return codes[0], np.append(index.get_indexer(others), -1)[codes[1]]
