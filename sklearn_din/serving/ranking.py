"""The best candidates for each user: a catalogue scored and ranked."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from sklearn.base import BaseEstimator

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_choice, check_count, check_frame, check_name
from sklearn_din._warnings import warn_user
from sklearn_din.encoding.single_values import as_numbers
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Schema
from sklearn_din.inspection.fitted import FittedPipeline, flat_steps, split_pipeline
from sklearn_din.serving.allowed_pairs import (
    NO_PAIRS,
    AllowedPairs,
    SeenCandidates,
    pairs_of_frame,
)

PAIRS_PER_BLOCK = 65_536
CHECKED_PAIRS = 256
RESULT_COLUMNS = ("row", "rank", "probability")


def rank_candidates(
    pipeline: BaseEstimator,
    users: IntoDataFrame,
    candidates: IntoDataFrameT,
    *,
    top_k: int = 10,
    exclude: str | IntoDataFrame | None = None,
    only: IntoDataFrame | None = None,
    by: str | None = None,
) -> IntoDataFrameT:
    """Score a catalogue for each user and return the best candidates.

    Each user and each candidate is encoded once, not once per pair; the pairs are then scored in
    blocks of bounded memory. The probabilities are those of scoring each pair alone.

    The best candidates of a model that knows the past are often what the user had already: where
    nobody wants that again, ``exclude`` it.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted on a frame; a HistorySequenceEncoder among its steps and a DINClassifier at its
        end. Calibrated, the probabilities are those of the calibration.
    users : pandas, polars or Arrow frame of shape (n_users, ...)
        One row per user at a moment: every column that the Pipeline was fitted on, histories
        included, except those of the candidate. Other columns are not used.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        One row per candidate: the candidate's columns. Columns that the Pipeline does not know,
        such as a title, come back in the result, which is of this kind.
    top_k : int, default=10
        Candidates to return for each user; all where there are fewer.
    exclude : "history" or frame of pairs, default=None
        Pairs to leave out. "history": candidates that are in the user's history, new ones
        included; where several columns have a history, the one with the most values tells what a
        candidate is (the item, not its category), and all histories of that column count. A frame
        has one column of ``users`` and one of ``candidates``, such as user and item; pairs of
        others than those given do not matter.
    only : frame of pairs, default=None
        The candidates of each user, as a retrieval step has chosen them: a frame as for
        ``exclude``. No other pair is scored; users without a pair are left out. None: every
        candidate for every user.
    by : str, default=None
        A column of numbers of ``candidates`` to rank by, the largest first, such as how often
        each was clicked: the popularity baseline, under the same ``exclude`` and ``only``. The
        probability is still the Pipeline's. None: rank by the probability.

    Returns
    -------
    DataFrame or Table
        The users in their order and the best candidate first: row (position in ``users``),
        rank (from 1), the columns of ``candidates``, probability (of the click).
        Equally probable candidates (logits level to 1e-5) keep their order.

    Raises
    ------
    ValueError
        If a column is in both frames or in neither, a frame has no rows, ``top_k`` is less
        than 1, pairs do not say which user and candidate they mean, or a step of the Pipeline
        computes a column from user and candidate together.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(lr=0.05, max_epochs=50, random_state=0)
    ... ).fit(shown, [0, 1])
    >>> best = rank_candidates(model, shown[["hist_item"]], shown[["item"]], top_k=1)
    >>> best[["row", "rank", "item"]]
       row  rank  item
    0    0     1  sock
    1    1     1  sock
    """
    ranker = Ranker(pipeline, candidates)
    return ranker.rank(users, top_k=top_k, exclude=exclude, only=only, by=by)


class Ranker(Generic[IntoDataFrameT]):
    """A catalogue that is encoded once and ranked for one user after the other.

    A server ranks the same candidates at every request: they are encoded at the first one, every
    later request encodes its users alone. The rankings are those of :func:`rank_candidates`, which
    makes a Ranker for one call. Threads may share it.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted on a frame; a HistorySequenceEncoder among its steps and a DINClassifier at its
        end. It must not be fitted or updated again while the Ranker is in use: make a new one.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        One row per candidate: the candidate's columns. Columns that the Pipeline does not know,
        such as a title, come back in the result, which is of this kind.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(lr=0.05, max_epochs=50, random_state=0)
    ... ).fit(shown, [0, 1])
    >>> ranker = Ranker(model, shown[["item"]])
    >>> ranker.rank({"hist_item": ["hat", "shoe"]}, top_k=1)[["rank", "item"]]
       rank  item
    0     1  sock
    """

    def __init__(self, pipeline: BaseEstimator, candidates: IntoDataFrameT) -> None:
        self._fitted = split_pipeline(pipeline, purpose="rank_candidates")
        columns: Sequence[str] | None = getattr(pipeline, "feature_names_in_", None)
        if columns is None:
            raise ValueError(
                "rank_candidates needs a Pipeline fitted on a DataFrame, whose column names tell "
                "the candidate's columns from the user's. Fit it on a DataFrame."
            )
        self._columns = columns
        self._frame = CallerFrame(candidates, name="candidates")
        _check_candidates(self._frame.pandas)
        _warn_of_copies(self._frame.pandas, self._fitted.encoder.schema_)
        self._catalogue: _Catalogue | None = None
        self._lock = threading.Lock()

    def rank(
        self,
        users: IntoDataFrame | Mapping[str, object],
        *,
        top_k: int = 10,
        exclude: str | IntoDataFrame | None = None,
        only: IntoDataFrame | None = None,
        by: str | None = None,
    ) -> IntoDataFrameT:
        """Return the best candidates for each user, as :func:`rank_candidates` does.

        Parameters
        ----------
        users : frame of shape (n_users, ...), or dict
            One row per user at a moment: every column that the Pipeline was fitted on, histories
            included, except those of the candidate. A dict is one user: a value for each column.
        top_k : int, default=10
            Candidates to return for each user; all where there are fewer.
        exclude : "history" or frame of pairs, default=None
            Pairs to leave out: candidates that are in the user's history, or those of a frame.
        only : frame of pairs, default=None
            The candidates of each user, as a retrieval step has chosen them; None: all.
        by : str, default=None
            A column of numbers of the candidates to rank by; None: the probability.

        Returns
        -------
        DataFrame or Table
            The users in their order and the best candidate first: row (position in ``users``),
            rank (from 1), the columns of the candidates, probability (of the click).
        """
        check_count(top_k, name="top_k")
        candidates = self._frame.pandas
        numbers_to_rank_by = None if by is None else _check_numbers(candidates, by)
        pairs = self._pair(_read_users(users))
        best, ranks = [NO_PAIRS], [NO_PAIRS]
        logits: list[np.ndarray] = []
        sign = -1 if self._fitted.calibration.is_falling else 1
        for block in _allow(pairs, exclude, only).blocks(PAIRS_PER_BLOCK):
            # The same pair can get logits that differ in the last bits, by its place in the batch:
            # rounded, equal candidates are ties and keep their order
            if numbers_to_rank_by is None:
                scores = pairs.logits(block)
                order = sign * scores.round(5)
            else:
                order = numbers_to_rank_by[block % len(candidates)]
            chosen, rank = _best_of_each_user(block // len(candidates), order, top_k)
            logits.append(scores[chosen] if by is None else pairs.logits(block[chosen]))
            best.append(block[chosen])
            ranks.append(rank)
        rows, positions = np.divmod(np.concatenate(best), len(candidates))
        best_rows = CallerFrame(self._frame.take(positions), name="candidates")
        probability = self._fitted.calibration.probability(np.concatenate(logits))
        return best_rows.with_columns(
            {"probability": probability}, first={"row": rows, "rank": np.concatenate(ranks)}
        )

    def find_excluded(self, users: pd.DataFrame, exclude: object) -> np.ndarray:
        """Return the numbers of the pairs that :meth:`rank` leaves out."""
        return _allow(self._pair(users), exclude, None).excluded

    def _pair(self, users: pd.DataFrame) -> _Pairs:
        """Encode users beside the candidates, which the first call encodes."""
        candidates = self._frame.pandas
        _check_users(users, candidates)
        names = _columns_of_fit(self._fitted, self._columns, users, candidates)
        with self._lock:
            if self._catalogue is None or self._catalogue.names != names:
                self._catalogue = _Catalogue(self._fitted, users[:1], candidates, names)
            catalogue = self._catalogue
        return _Pairs(catalogue, users)


def _allow(pairs: _Pairs, exclude: Any, only: Any) -> AllowedPairs:
    """Return the pairs that may be ranked, out of ``exclude`` and ``only`` as they were given."""
    users, candidates = pairs.users, pairs.candidates
    excluded, chosen = NO_PAIRS, None
    if isinstance(exclude, str):
        check_choice(exclude, ("history", None), name="exclude, where it is no frame of pairs,")
        excluded = pairs.of_histories()
    elif exclude is not None:
        excluded = pairs_of_frame(exclude, users, candidates, name="exclude")
    if only is not None:
        chosen = pairs_of_frame(only, users, candidates, name="only")
        if not len(chosen):
            raise ValueError(
                "only must hold pairs of the users and candidates that are given, got none. "
                "only=None ranks every candidate for every user."
            )
    return AllowedPairs(len(users), len(candidates), chosen, excluded)


def _best_of_each_user(
    rows: np.ndarray, scores: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are the ``top_k`` of their user, in order, and the rank of each.

    ``rows`` ascend. Equal scores keep their order, missing ones come last.

    Examples
    --------
    >>> _best_of_each_user(np.array([0, 0, 0, 3]), np.array([0.1, 0.5, 0.5, 0.2]), 2)
    (array([1, 2, 3]), array([1, 2, 1]))
    """
    order = np.lexsort((-scores, rows))
    rank = np.arange(1, len(rows) + 1) - np.searchsorted(rows, rows)
    is_best = rank <= top_k
    return order[is_best], rank[is_best]


class _Catalogue:
    """Candidates, encoded beside a stand-in for the user."""

    def __init__(
        self,
        pipeline: FittedPipeline,
        user: pd.DataFrame,
        candidates: pd.DataFrame,
        names: list[str],
    ) -> None:
        self.pipeline, self.candidates, self.names = pipeline, candidates, names
        self._user = user
        # Only a step beside the encoder can compute a column from user and candidate together.
        self.has_other_steps = len(list(flat_steps(pipeline.transformers))) > 1
        blocks = [
            self.encode(user.iloc[np.zeros_like(block)], block)
            for block in _blocks(len(candidates))
        ]
        self.columns, self.bags = self._fields_of_candidate(user, blocks)

    @cached_property
    def seen_candidates(self) -> SeenCandidates:
        """The candidates' values as steps before the encoder leave them, read once."""
        positions = np.arange(len(self.candidates))
        rows = self.frame(self._user.iloc[np.zeros_like(positions)], positions)
        return SeenCandidates(self.pipeline, rows, self.columns)

    def frame(self, users: pd.DataFrame, candidates: np.ndarray) -> pd.DataFrame:
        """Return pairs of users and candidates by position, as the first step is given them."""
        left = users.reset_index(drop=True)
        right = self.candidates.take(candidates).reset_index(drop=True)
        return pd.DataFrame({n: (left if n in left else right)[n] for n in self.names})

    def encode(self, users: pd.DataFrame, candidates: np.ndarray) -> EncodedFeatures:
        """Return pairs, the slow way: as one frame through every step."""
        return self.pipeline.encode(self.frame(users, candidates))

    def _fields_of_candidate(
        self, user: pd.DataFrame, blocks: list[EncodedFeatures]
    ) -> tuple[dict[str, np.ndarray], dict[tuple[str, ...], Ragged]]:
        """Encoded columns and bags that follow the candidate, also those that a step added."""
        columns = {}
        for name in blocks[0].columns:
            values = np.concatenate([block.columns[name] for block in blocks])
            is_added = name not in user and name not in self.candidates
            if name in self.candidates or (is_added and (values != values[0]).any()):
                columns[name] = values
        bags = {}
        for behaviour in blocks[0].schema.behaviours:
            key = behaviour.histories
            if key[0] in self.candidates:  # a bag, such as a film's genres
                bags[key] = _join([block.behaviours[key] for block in blocks])
        return columns, bags


class _Pairs:
    """Users, encoded beside a stand-in for the candidate, and a catalogue."""

    def __init__(self, catalogue: _Catalogue, users: pd.DataFrame) -> None:
        self.catalogue, self.users = catalogue, users
        self.user_rows = catalogue.encode(users, np.zeros(len(users), dtype=np.intp))
        if catalogue.has_other_steps:
            self._refuse_joint_fields()

    @property
    def candidates(self) -> pd.DataFrame:
        """The candidates as they were given."""
        return self.catalogue.candidates

    def of_histories(self) -> np.ndarray:
        """Return the numbers of pairs whose candidate is in the user's history."""
        stand_in = np.zeros(len(self.users), dtype=np.intp)
        return self.catalogue.seen_candidates.find(self.catalogue.frame(self.users, stand_in))

    def take(self, users: np.ndarray, candidates: np.ndarray) -> EncodedFeatures:
        """Return pairs by their rows: ids and windows are taken, no event is read or copied."""
        of_candidate, bags = self.catalogue.columns, self.catalogue.bags
        columns = {
            name: of_candidate[name][candidates] if name in of_candidate else values[users]
            for name, values in self.user_rows.columns.items()
        }
        behaviours = {
            key: bags[key].take(candidates) if key in bags else ragged.take(users)
            for key, ragged in self.user_rows.behaviours.items()
        }
        return EncodedFeatures._without_checks(self.user_rows.schema, columns, behaviours)

    def logits(self, numbers: np.ndarray) -> np.ndarray:
        """Return log-odds of pairs by their numbers, some at a time."""
        scores = [np.empty(0, dtype=np.float32)]
        for block in _blocks(len(numbers)):
            X = self.take(*np.divmod(numbers[block], len(self.candidates)))
            scores.append(self.catalogue.pipeline.classifier.decision_function(X))
        return np.concatenate(scores)

    def _refuse_joint_fields(self) -> None:
        """Compare pairs spread over both frames with the same pairs encoded together."""
        n_pairs = min(CHECKED_PAIRS, max(len(self.users), len(self.candidates)))
        users = np.linspace(0, len(self.users) - 1, n_pairs).astype(np.intp)
        candidates = np.linspace(len(self.candidates) - 1, 0, n_pairs).astype(np.intp)
        together = self.catalogue.encode(self.users.iloc[users], candidates)
        taken = self.take(users, candidates)
        joint = [n for n in together if not np.array_equal(together[n], taken[n])]
        if joint:
            raise ValueError(
                f"rank_candidates encodes users and candidates by themselves, but {joint} depend "
                "on both: a step before the encoder computes them from the pair. Score such pairs "
                "with predict_proba on a frame of all pairs (users.merge(candidates, how='cross'))."
            )


def _join(blocks: list[Ragged]) -> Ragged:
    lengths = np.concatenate([block.spans.lengths for block in blocks])
    names = blocks[0].columns
    columns = {name: np.concatenate([block.flat(name) for block in blocks]) for name in names}
    return Ragged.from_lengths(columns, lengths)


def _blocks(n_rows: int, size: int = PAIRS_PER_BLOCK) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def _read_users(users: Any) -> pd.DataFrame:
    """Return users as a pandas frame; a dict is one of them."""
    if isinstance(users, Mapping):
        return pd.DataFrame({name: pd.Series([value]) for name, value in users.items()})
    return CallerFrame(users, name="users").pandas


def _check_users(users: pd.DataFrame, candidates: pd.DataFrame) -> None:
    check_frame(users, [], name="users")
    _check_rows(users, name="users")
    both = [name for name in users.columns if name in candidates]
    if both:
        raise ValueError(
            f"a column belongs to the user or to the candidate, got {both} in both frames. Drop "
            "them from users if the candidate has them, from candidates otherwise."
        )


def _check_candidates(candidates: pd.DataFrame) -> None:
    check_frame(candidates, [], name="candidates")
    _check_rows(candidates, name="candidates")
    taken = [name for name in RESULT_COLUMNS if name in candidates]
    if taken:
        raise ValueError(f"the result has columns {taken} of its own. Rename those of candidates.")


def _warn_of_copies(candidates: pd.DataFrame, schema: Schema) -> None:
    """Warn where an item has several rows: by the candidate column that has the most ids."""
    compared = {n for behaviour in schema.behaviours for n in behaviour.candidates if n is not None}
    items = [name for name in candidates.columns if name in compared]
    if not items:
        return
    item = max(items, key=lambda name: schema[name].n_ids)
    copies = candidates[item].duplicated()
    if copies.any():
        warn_user(
            f"candidates have {int(copies.sum())} rows too many: some items in {item!r}, such as "
            f"{candidates[item][copies].iloc[0]!r}, have several, and each row is ranked, so that "
            f"a user may get an item twice. Keep one, candidates.drop_duplicates({item!r})."
        )


def _check_rows(frame: pd.DataFrame, *, name: str) -> None:
    if not len(frame):
        raise ValueError(f"{name} must have at least one row, got none.")


def _check_numbers(candidates: pd.DataFrame, by: str) -> np.ndarray:
    check_name(by, name="by")
    check_frame(candidates, [by], name="candidates")
    return as_numbers(candidates[by], name=f"candidates[{by!r}]")


def _columns_of_fit(
    fitted: FittedPipeline,
    columns: Sequence[str],
    users: pd.DataFrame,
    candidates: pd.DataFrame,
) -> list[str]:
    """Return the columns that the Pipeline needs, in the order of its fit."""
    dropped = [*fitted.encoder._dropped, fitted.encoder.user, fitted.encoder.time]
    absent = [n for n in columns if n not in users and n not in candidates and n not in dropped]
    if absent:
        raise ValueError(
            f"the Pipeline was fitted on columns {absent}, which are neither in users nor in "
            f"candidates. users has {list(users.columns)}, candidates {list(candidates.columns)}."
        )
    names = [name for name in columns if name in users or name in candidates]
    if not any(name in candidates for name in names):
        raise ValueError(
            f"candidates must have columns that the Pipeline was fitted on, {list(columns)}, got "
            f"{list(candidates.columns)}: every candidate would score the same."
        )
    return names
