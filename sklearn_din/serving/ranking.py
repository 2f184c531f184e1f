"""The best candidates for each user: a catalogue scored and ranked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from scipy.special import expit
from sklearn.base import BaseEstimator

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_count, check_frame
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged
from sklearn_din.inspection.fitted import FittedPipeline, split_pipeline

PAIRS_PER_BLOCK = 65_536
CHECKED_PAIRS = 256
RESULT_COLUMNS = ("row", "rank", "probability")


def rank_candidates(
    pipeline: BaseEstimator, users: IntoDataFrame, candidates: IntoDataFrameT, *, top_k: int = 10
) -> IntoDataFrameT:
    """Score a catalogue for each user and return the best candidates.

    Each user and each candidate is encoded once, not once per pair; the pairs are then scored in
    blocks of bounded memory. The probabilities are those of scoring each pair alone.

    Parameters
    ----------
    pipeline : Pipeline, or search over one
        Fitted on a frame; a HistorySequenceEncoder among its steps and a DINClassifier at its
        end.
    users : pandas, polars or Arrow frame of shape (n_users, ...)
        One row per user at a moment: every column that the Pipeline was fitted on, histories
        included, except those of the candidate. Other columns are not used.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        One row per candidate: the candidate's columns. Columns that the Pipeline does not know,
        such as a title, come back in the result, which is of this kind.
    top_k : int, default=10
        Candidates to return for each user; all where there are fewer.

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
        than 1, or a step of the Pipeline computes a column from user and candidate together.

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
    names = _columns_of_fit(fitted, pipeline, left, right)
    pairs = _Pairs(fitted, left, right, names)
    n_best = min(top_k, len(right))
    best: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    for block in pairs.logits():
        # The same pair can get logits that differ in the last bits, by its place in the batch:
        # rounded, equal candidates are ties and keep their order
        order = np.argsort(-block.round(5), axis=1, kind="stable")[:, :n_best]
        best.append(order)
        logits.append(np.take_along_axis(block, order, axis=1))
    best_rows = CallerFrame(catalogue.take(np.concatenate(best).ravel()), name="candidates")
    ranks = {
        "row": np.repeat(np.arange(len(left)), n_best),
        "rank": np.tile(np.arange(1, n_best + 1), len(left)),
    }
    probability = expit(np.concatenate(logits).ravel())
    return best_rows.with_columns({"probability": probability}, first=ranks)


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

    def encode(self, users: np.ndarray, candidates: np.ndarray) -> EncodedFeatures:
        """Return pairs by their rows, the slow way: as one frame through every step."""
        left = self.users.take(users).reset_index(drop=True)
        right = self.candidates.take(candidates).reset_index(drop=True)
        frame = {name: (left if name in left else right)[name] for name in self.names}
        return self.pipeline.encode(pd.DataFrame(frame))

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

    def logits(self) -> Iterator[np.ndarray]:
        """Return log-odds of users in order: blocks of shape (n_users_of_block, n_candidates)."""
        n_users, n_candidates = len(self.users), len(self.candidates)
        for users in _blocks(n_users, max(1, PAIRS_PER_BLOCK // n_candidates)):
            scores = [self._score(users, candidates) for candidates in _blocks(n_candidates)]
            yield np.concatenate(scores, axis=1)

    def _score(self, users: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        X = self.take(np.repeat(users, len(candidates)), np.tile(candidates, len(users)))
        return self.pipeline.classifier.decision_function(X).reshape(len(users), len(candidates))

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
