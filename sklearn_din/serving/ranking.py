"""The best candidates for each user: a catalogue scored and ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from sklearn.base import BaseEstimator

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_choice, check_count, check_frame, check_name
from sklearn_din.encoding.single_values import as_numbers
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged
from sklearn_din.inspection.fitted import FittedPipeline, split_pipeline
from sklearn_din.serving.allowed_pairs import (
    NO_PAIRS,
    AllowedPairs,
    pairs_of_frame,
    pairs_of_histories,
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
    ...     HistorySequenceEncoder(), DINClassifier(lr=0.05, random_state=0)
    ... ).fit(shown, [0, 1])
    >>> best = rank_candidates(model, shown[["hist_item"]], shown[["item"]], top_k=1)
    >>> best[["row", "rank", "item"]]
       row  rank  item
    0    0     1  sock
    1    1     1  sock
    """
    fitted = split_pipeline(pipeline, purpose="rank_candidates")
    catalogue = CallerFrame(candidates, name="candidates")
    left, right = CallerFrame(users, name="users").pandas, catalogue.pandas
    _check_ranking(left, right, top_k)
    numbers_to_rank_by = None if by is None else _check_numbers(right, by)
    pairs = _Pairs(fitted, left, right, _columns_of_fit(fitted, pipeline, left, right))
    best, ranks = [NO_PAIRS], [NO_PAIRS]
    logits: list[np.ndarray] = []
    sign = -1 if fitted.calibration.is_falling else 1
    for block in _allow(pairs, exclude, only).blocks(PAIRS_PER_BLOCK):
        # The same pair can get logits that differ in the last bits, by its place in the batch:
        # rounded, equal candidates are ties and keep their order
        if numbers_to_rank_by is None:
            scores = pairs.logits(block)
            by_score = sign * scores.round(5)
            chosen, rank = _best_of_each_user(block // len(right), by_score, top_k)
            logits.append(scores[chosen])
        else:
            numbers = numbers_to_rank_by[block % len(right)]
            chosen, rank = _best_of_each_user(block // len(right), numbers, top_k)
            logits.append(pairs.logits(block[chosen]))
        best.append(block[chosen])
        ranks.append(rank)
    numbers_of_pairs = np.concatenate(best)
    rows, positions = np.divmod(numbers_of_pairs, len(right))
    best_rows = CallerFrame(catalogue.take(positions), name="candidates")
    probability = fitted.calibration.probability(np.concatenate(logits))
    return best_rows.with_columns(
        {"probability": probability}, first={"row": rows, "rank": np.concatenate(ranks)}
    )


def find_excluded(
    pipeline: BaseEstimator, users: pd.DataFrame, candidates: pd.DataFrame, exclude: object
) -> np.ndarray:
    """Return the numbers of the pairs that :func:`rank_candidates` leaves out."""
    fitted = split_pipeline(pipeline, purpose="exclude")
    _check_ranking(users, candidates, 1)
    names = _columns_of_fit(fitted, pipeline, users, candidates)
    return _allow(_Pairs(fitted, users, candidates, names), exclude, None).excluded


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


class _Pairs:
    """Users and candidates, each encoded once beside a stand-in for the other."""

    def __init__(
        self,
        pipeline: FittedPipeline,
        users: pd.DataFrame,
        candidates: pd.DataFrame,
        names: list[str],
    ) -> None:
        self.pipeline, self.names = pipeline, names
        self.users, self.candidates = users, candidates
        self.user_rows = self.encode(np.arange(len(users)), np.zeros(len(users), dtype=np.intp))
        blocks = [self.encode(np.zeros_like(block), block) for block in _blocks(len(candidates))]
        self.candidate_columns, self.candidate_bags = self._fields_of_candidate(blocks)
        self._refuse_joint_fields()

    def frame(self, users: np.ndarray, candidates: np.ndarray) -> pd.DataFrame:
        """Return pairs by their rows, as the first step is given them."""
        left = self.users.take(users).reset_index(drop=True)
        right = self.candidates.take(candidates).reset_index(drop=True)
        return pd.DataFrame({n: (left if n in left else right)[n] for n in self.names})

    def encode(self, users: np.ndarray, candidates: np.ndarray) -> EncodedFeatures:
        """Return pairs by their rows, the slow way: as one frame through every step."""
        return self.pipeline.encode(self.frame(users, candidates))

    def of_histories(self) -> np.ndarray:
        """Return the numbers of pairs whose candidate is in the user's history."""
        n_users, n_candidates = len(self.users), len(self.candidates)
        return pairs_of_histories(
            self.pipeline,
            self.frame(np.arange(n_users), np.zeros(n_users, dtype=np.intp)),
            self.frame(np.zeros(n_candidates, dtype=np.intp), np.arange(n_candidates)),
            [*self.candidate_columns],
        )

    def take(self, users: np.ndarray, candidates: np.ndarray) -> EncodedFeatures:
        """Return pairs by their rows: ids and windows are taken, no event is read or copied."""
        columns = {
            name: self.candidate_columns[name][candidates]
            if name in self.candidate_columns
            else values[users]
            for name, values in self.user_rows.columns.items()
        }
        behaviours = {
            key: self.candidate_bags[key].take(candidates)
            if key in self.candidate_bags
            else ragged.take(users)
            for key, ragged in self.user_rows.behaviours.items()
        }
        return EncodedFeatures._without_checks(self.user_rows.schema, columns, behaviours)

    def logits(self, numbers: np.ndarray) -> np.ndarray:
        """Return log-odds of pairs by their numbers, some at a time."""
        scores = [np.empty(0, dtype=np.float32)]
        for block in _blocks(len(numbers)):
            X = self.take(*np.divmod(numbers[block], len(self.candidates)))
            scores.append(self.pipeline.classifier.decision_function(X))
        return np.concatenate(scores)

    def _fields_of_candidate(
        self, blocks: list[EncodedFeatures]
    ) -> tuple[dict[str, np.ndarray], dict[tuple[str, ...], Ragged]]:
        """Encoded columns and bags that follow the candidate, also those that a step added."""
        columns = {}
        for name in self.user_rows.columns:
            values = np.concatenate([block.columns[name] for block in blocks])
            is_added = name not in self.users and name not in self.candidates
            if name in self.candidates or (is_added and (values != values[0]).any()):
                columns[name] = values
        bags = {}
        for behaviour in self.user_rows.schema.behaviours:
            key = behaviour.histories
            if key[0] in self.candidates:  # a bag, such as a film's genres
                bags[key] = _join([block.behaviours[key] for block in blocks])
        return columns, bags

    def _refuse_joint_fields(self) -> None:
        """Compare pairs spread over both frames with the same pairs encoded together."""
        n_pairs = min(CHECKED_PAIRS, max(len(self.users), len(self.candidates)))
        users = np.linspace(0, len(self.users) - 1, n_pairs).astype(np.intp)
        candidates = np.linspace(len(self.candidates) - 1, 0, n_pairs).astype(np.intp)
        together, taken = self.encode(users, candidates), self.take(users, candidates)
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


def _check_ranking(users: pd.DataFrame, candidates: pd.DataFrame, top_k: object) -> None:
    check_frame(users, [], name="users")
    check_frame(candidates, [], name="candidates")
    for name, frame in (("users", users), ("candidates", candidates)):
        if not len(frame):
            raise ValueError(f"{name} must have at least one row, got none.")
    check_count(top_k, name="top_k")
    both = [name for name in users.columns if name in candidates]
    if both:
        raise ValueError(
            f"a column belongs to the user or to the candidate, got {both} in both frames. Drop "
            "them from users if the candidate has them, from candidates otherwise."
        )
    taken = [name for name in RESULT_COLUMNS if name in candidates]
    if taken:
        raise ValueError(f"the result has columns {taken} of its own. Rename those of candidates.")


def _check_numbers(candidates: pd.DataFrame, by: str) -> np.ndarray:
    check_name(by, name="by")
    check_frame(candidates, [by], name="candidates")
    return as_numbers(candidates[by], name=f"candidates[{by!r}]")


def _columns_of_fit(
    fitted: FittedPipeline,
    pipeline: BaseEstimator,
    users: pd.DataFrame,
    candidates: pd.DataFrame,
) -> list[str]:
    """Return the columns that the Pipeline needs, in the order of its fit."""
    columns = getattr(pipeline, "feature_names_in_", None)
    if columns is None:
        raise ValueError(
            "rank_candidates needs a Pipeline fitted on a DataFrame, whose column names tell the "
            "candidate's columns from the user's. Fit it on a DataFrame."
        )
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
