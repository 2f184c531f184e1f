"""Which pairs of users and candidates may be ranked: all, or those of a frame, without others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame

from sklearn_din._frames import CallerFrame, pandas_frame
from sklearn_din._validation import check_frame
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.single_values import Codes, factorize
from sklearn_din.encoding.vocabulary import kind_of_ids, plain_ids
from sklearn_din.inspection.fitted import FittedPipeline

NO_PAIRS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class AllowedPairs:
    """Pairs as numbers: the user's row times ``n_candidates``, plus the candidate's row.

    ``only`` and ``excluded`` are sorted, each number once; ``only`` is None where every pair may be
    ranked that is not excluded.

    Examples
    --------
    >>> pairs = AllowedPairs(n_users=2, n_candidates=3, only=None, excluded=np.array([1, 3]))
    >>> [block.tolist() for block in pairs.blocks(4)]
    [[0, 2], [4, 5]]
    """

    n_users: int
    n_candidates: int
    only: np.ndarray | None
    excluded: np.ndarray

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Return the pairs in ascending order, all those of a user in one block.

        A block holds some ``size`` pairs, or those of one user, or all of ``only``.
        """
        if self.only is not None:
            yield np.setdiff1d(self.only, self.excluded, assume_unique=True)
            return
        n_pairs = self.n_users * self.n_candidates
        step = max(1, size // self.n_candidates) * self.n_candidates
        for start in range(0, n_pairs, step):
            block = np.arange(start, min(start + step, n_pairs))
            first, last = np.searchsorted(self.excluded, [start, start + step])
            yield np.setdiff1d(block, self.excluded[first:last], assume_unique=True)


def pairs_of_frame(
    pairs: IntoDataFrame, users: pd.DataFrame, candidates: pd.DataFrame, *, name: str
) -> np.ndarray:
    """Return the numbers of the pairs in a frame; pairs of absent users or candidates have none.

    The frame has one column of ``users`` and one of ``candidates``; ``name`` is its own, for an
    error.
    """
    frame = CallerFrame(pairs, name=name).pandas
    check_frame(frame, [], name=name)
    of_user = [column for column in frame if column in users]
    of_candidate = [column for column in frame if column in candidates]
    if len(of_user) != 1 or len(of_candidate) != 1:
        raise ValueError(
            f"{name} must say who and what: one column of users and one of candidates, got "
            f"{of_user} and {of_candidate}. users has {list(users.columns)}, candidates "
            f"{list(candidates.columns)}: pass {name}[[user, item]] under the names that they have "
            "there."
        )
    codes = {
        column: _common_codes(_plain_codes(frame[column]), _plain_codes(there[column]), what)
        for column, there, what in (
            (of_user[0], users, f"{name} and users, {of_user[0]!r}"),
            (of_candidate[0], candidates, f"{name} and candidates, {of_candidate[0]!r}"),
        )
    }
    return _join(*codes[of_user[0]], *codes[of_candidate[0]])


class SeenCandidates:
    """Candidates by their values, to be looked for in users' histories.

    Both frames of rows are what the Pipeline's first step is given. What makes a candidate is the
    column with the most values among ``candidate_columns`` that have a history: the item, not its
    category.
    """

    def __init__(
        self,
        pipeline: FittedPipeline,
        candidate_rows: pd.DataFrame,
        candidate_columns: Collection[str],
    ) -> None:
        schema = pipeline.encoder.schema_
        columns = {
            history: candidate
            for behaviour in schema.behaviours
            for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True)
            if candidate in candidate_columns
        }
        if not columns:
            raise ValueError(
                "exclude='history' needs a history that is compared with a column of candidates, "
                "and the Pipeline has none. Give a frame of pairs, (user, item), instead."
            )
        self._pipeline = pipeline
        self._candidate = max(columns.values(), key=lambda name: schema[name].n_ids)
        self._histories = [name for name in columns if columns[name] == self._candidate]
        given = Columns(_read_frame(pipeline, candidate_rows))
        self._codes = _as_learnt(pipeline, self._candidate, given.codes(self._candidate))

    def find(self, user_rows: pd.DataFrame) -> np.ndarray:
        """Return the numbers of pairs whose candidate is in the user's history."""
        frame = _read_frame(self._pipeline, user_rows)
        given = Columns(frame, separator=self._pipeline.encoder.separator)
        rows_of_users = np.arange(len(user_rows))
        found = [NO_PAIRS]
        for history in self._histories:
            cells = given.history(history).expand()
            events = cells.codes(slice(0, len(cells.values)))
            events = _as_learnt(self._pipeline, self._candidate, events)
            what = f"{history} and {self._candidate}"
            items, positions = _common_codes(events, self._codes, what)
            rows = np.repeat(rows_of_users, cells.spans.lengths)
            found.append(_join(rows, rows_of_users, items, positions))
        return np.unique(np.concatenate(found))


def _read_frame(pipeline: FittedPipeline, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the encoder is given them: a frame, since they have histories."""
    return cast("pd.DataFrame", pandas_frame(pipeline.read(rows)))


def _plain_codes(column: pd.Series) -> Codes:
    codes, values = factorize(column, name=str(column.name))
    return codes, plain_ids(values, name=str(column.name))


def _as_learnt(pipeline: FittedPipeline, column: str, codes: Codes) -> Codes:
    """Give text that spells integers as integers, where the encoder has learnt integers."""
    learnt = pipeline.encoder._learnt
    vocabulary = learnt.vocabularies[learnt.roles.owners[column]]
    return codes[0], vocabulary.as_learnt(plain_ids(codes[1], name=column))


def _common_codes(given: Codes, there: Codes, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return both columns as codes of the same values, -1 where missing or only in the second."""
    kinds = [kind_of_ids(values) for _, values in (given, there)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise ValueError(
            f"{what} must be of one kind, got {kinds[0]} and {kinds[1]}: no pair could match. Give "
            "both columns one dtype."
        )
    index = pd.Index(given[1], dtype=given[1].dtype)
    places = index.get_indexer(pd.Index(there[1], dtype=there[1].dtype))
    return given[0], np.append(places, -1)[there[0]]


def _join(
    users: np.ndarray, user_rows: np.ndarray, items: np.ndarray, candidate_rows: np.ndarray
) -> np.ndarray:
    """Return the numbers of pairs (users, items) wherever rows have the same codes."""
    pairs = pd.DataFrame({"user": users, "item": items}).drop_duplicates()
    pairs = pairs[(pairs["user"] >= 0) & (pairs["item"] >= 0)]
    rows = pd.DataFrame({"user": user_rows, "row": np.arange(len(user_rows))})
    positions = pd.DataFrame({"item": candidate_rows, "position": np.arange(len(candidate_rows))})
    joined = pairs.merge(rows, on="user").merge(positions, on="item")
    numbers = joined["row"].to_numpy() * len(candidate_rows) + joined["position"].to_numpy()
    return np.unique(numbers.astype(np.int64))
