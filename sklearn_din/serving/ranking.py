"""The best candidates for each user: a catalogue scored and ranked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from sklearn.base import BaseEstimator

from sklearn_din.features.request_columns import neutral_numbers
from sklearn_din.inspection.fitted import find_memory, split_pipeline
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.neighbours.shortlist import largest_first
from sklearn_din.serving.allowed_pairs import NO_PAIRS, PlacesOfIds, pair_blocks, pairs_of_frame
from sklearn_din.serving.catalogue import Catalogue, frame_of_users
from sklearn_din.serving.pair_levels import Users, check_levels
from sklearn_din.training.reading import Label, Reading
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.progress import show_progress
from sklearn_din.utils.validation import check_choice, check_count, check_frame
from sklearn_din.utils.warnings import agree, warn_user

PairsLike = str | Sequence[object] | IntoDataFrame  # "history", items, or (user, item)
PAIRS_PER_BLOCK = 65_536
SCORED_TOGETHER = 16_384  # pairs
RESULT_COLUMNS = ("row", "rank")


def rank_candidates(
    pipeline: BaseEstimator,
    users: IntoDataFrame,
    candidates: IntoDataFrameT,
    *,
    top_k: int = 10,
    exclude: PairsLike | None = None,
    only: PairsLike | None = None,
    label: Label | None = None,
    shortlist: int | None = None,
) -> IntoDataFrameT:
    """Score a catalogue for each user and return the best candidates.

    Each user and each candidate is encoded once, not once per pair; the pairs are then scored in
    blocks of bounded memory. The probabilities equal those of scoring each pair alone, as of now:
    with everything item neighbours know, whatever the time of the user's row. A Pipeline that
    begins with a HistoryBuilder makes histories and levels of each pair itself, as of the users'
    times; of users without a time, with all that it remembers.

    The best candidates are often what the user had before: if nobody wants the same again,
    ``exclude`` it.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted on a frame; a HistorySequenceEncoder among its steps and a DINClassifier at its
        end. Calibrated, the probabilities are those of the calibration.
    users : pandas, polars or Arrow frame of shape (n_users, ...)
        One row per user at a moment: every column that the Pipeline was fitted on, histories
        included, except those of the candidate. Other columns are ignored.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        One row per candidate, with the candidate's columns. Columns that the Pipeline does not
        know, such as a title, are returned in the result, which is of this kind.
    top_k : int, default=10
        Number of candidates to return for each user; all if there are fewer.
    exclude : "history", list of items, or frame of pairs, default=None
        Pairs to leave out. "history": candidates that are in the user's history, including new
        ones; if several columns have a history, the one with the most values identifies a
        candidate (the item, not its category), and all histories of that column count. A frame
        has one column of ``users`` and one of ``candidates``, such as user and item; pairs of
        other users or candidates are ignored. A list has values of the column that identifies a
        candidate, for all users.
    only : list of items, or frame of pairs, default=None
        The candidates of each user, as chosen by a retrieval step: a list or a frame as for
        ``exclude``. No other pair is scored; users without a pair are left out. None: every
        candidate for every user.
    label : str, int or dict, default=None
        For a classifier of several labels, the one to rank by, or non-negative weights by label:
        ``{"click": 1, "purchase": 20}`` ranks by the weighted sum of the probabilities, returned
        as column "score". None: there is one label.
    shortlist : int, default=None
        Number of candidates, at least ``top_k``, to select for each user from a large catalogue
        before the network ranks them: the items that best match the user's events by item
        neighbours, popular items (overall and in the events' categories), the newest, and those
        close in fixed vectors. 500 of 100,000 take a hundredth of the time; the guide ("Rank a
        catalogue") shows how to measure what is lost. Ignored with ``only``. None: every
        candidate.

    Returns
    -------
    DataFrame or Table
        The users in their order and the best candidate first: row (position in ``users``), rank
        (from 1), the columns of ``candidates``, and probability (of the click), or prediction for
        a DINRegressor. After row comes the Pipeline's user
        column, where ``users`` has it. Equally probable candidates (logits equal to 1e-5) keep
        their order. Without users it has no rows.

    Warns
    -----
    UserWarning
        If ``exclude`` leaves a user without candidates: the result has no row for that user.

    Raises
    ------
    ValueError
        If a column is in both frames or in neither, ``candidates`` has no rows, ``top_k`` is less
        than 1, pairs do not identify user and candidate, a step of the Pipeline computes a column
        from user and candidate together, or there are no item neighbours for a ``shortlist``.

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
    ranker = Ranker(pipeline, candidates, label=label, shortlist=shortlist)
    return ranker.rank(users, top_k=top_k, exclude=exclude, only=only)


class Ranker(Generic[IntoDataFrameT]):
    """A catalogue that is encoded once and ranked for one user after the other.

    A server ranks the same candidates at every request: they are encoded once, and each request
    encodes its user alone. The rankings are those of :func:`rank_candidates`, which makes a Ranker
    for one call. Threads may share it.

    :func:`update` returns a new model and leaves this one, which goes on ranking as before: make a
    Ranker of the new model, also after a Pipeline is fitted again.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted on a frame; a HistorySequenceEncoder among its steps and a DINClassifier at its
        end.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        One row per candidate, with the candidate's columns. Columns that the Pipeline does not
        know, such as a title, are returned in the result, which is of this kind.
    label : str, int or dict, default=None
        For a classifier of several labels, the one to rank by, or non-negative weights by label.
        None: there is one label.
    shortlist : int, default=None
        Number of candidates to select for each user, as in :func:`rank_candidates`; None: every
        candidate. A table of at most 20 million pairs is built once (180 MB).
    memory : HistoryBuilder, default=None
        The fitted memory whose levels a Pipeline without its first step was trained on: users then
        come with their histories, and levels are asked of it. The attribute of this name may be
        set to one that has remembered more. None: the Pipeline's own, if it has one.

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

    def __init__(
        self,
        pipeline: BaseEstimator,
        candidates: IntoDataFrameT,
        *,
        label: Label | None = None,
        shortlist: int | None = None,
        memory: HistoryBuilder | None = None,
    ) -> None:
        if shortlist is not None:
            check_count(shortlist, name="shortlist")
        self._shortlist = shortlist
        self._fitted = split_pipeline(pipeline, purpose="rank_candidates")
        self._reading = self._fitted.reading(label)
        columns: Sequence[str] | None = getattr(pipeline, "feature_names_in_", None)
        if columns is None:
            raise ValueError(
                "rank_candidates needs a Pipeline fitted on a DataFrame, whose column names tell "
                "the candidate's columns from the user's. Fit it on a DataFrame."
            )
        own = find_memory(self._fitted)  # which makes histories, too
        self.memory = memory if own is None else own
        made = [] if own is None else [*{*own.feature_names_in_} - {*own._names_of_rows}]
        if self.memory is not None and self.memory.memory_ is not None:
            made += self.memory.memory_.names
        self._columns: Sequence[str] = [name for name in columns if name not in made]
        schema = self._fitted.encoder.schema_
        self._compared = neutral_numbers(schema, columns)  # within the list that is ranked
        compared = [schema[name].of[0] for name in self._compared]
        needed = dict.fromkeys([*self._columns, *compared])
        self._needed = [name for name in needed if name not in {*made, *self._compared}]
        self._now = None if own is None else own.next_moment()
        self._frame = CallerFrame(candidates, name="candidates")
        name = self._reading.name
        _check_candidates(self._frame.pandas, columns, taken=(*RESULT_COLUMNS, name))
        _check_item_columns(self._frame.pandas, columns, self._fitted.encoder)
        user = self._fitted.encoder.user if self.memory is None else self.memory.user
        taken = (None, *RESULT_COLUMNS, name, *self._frame.pandas)
        self._user = None if user in taken else user
        none = np.zeros(len(self._frame.pandas), dtype=np.int64)
        firsts = [RESULT_COLUMNS, *([("row", user, "rank")] if self._user else [])]
        new = {name: none}
        results = [self._frame.with_columns(new, first=dict.fromkeys(f, none)) for f in firsts]
        self._results = [CallerFrame(result, name="candidates") for result in results]
        self._names = dict.fromkeys(self._frame.pandas)  # of the candidates' columns
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None
        if not self._fitted.around_encoder()[0]:  # else a user is needed beside the candidates
            self._catalogue = Catalogue(self._fitted, self._frame.pandas, memory=memory)
            if shortlist is not None:
                _ = self._catalogue.shortlist  # made now, so that no request waits

    def rank(
        self,
        users: IntoDataFrame | Mapping[str, object],
        *,
        top_k: int = 10,
        exclude: PairsLike | None = None,
        only: PairsLike | None = None,
    ) -> IntoDataFrameT:
        """Return the best candidates for each user, as :func:`rank_candidates` does.

        Parameters
        ----------
        users : frame of shape (n_users, ...), Series, or dict
            One row per user at a moment: every column that the Pipeline was fitted on, histories
            included, except those of the candidate. A Series or a dict is one user: a value for
            each column. A dict of plain numbers, strings and lists is the fastest.
        top_k : int, default=10
            Number of candidates to return for each user; all if there are fewer.
        exclude : "history", list of items, or frame of pairs, default=None
            Pairs to leave out: candidates in the user's history, those listed, or those of a
            frame.
        only : list of items, or frame of pairs, default=None
            The candidates of all users (list) or of each user (frame), as chosen by a retrieval
            step; None: all.

        Returns
        -------
        DataFrame or Table
            The users in their order and the best candidate first: row (position in ``users``),
            their user column, rank (from 1), the columns of the candidates, probability (of the
            click), or prediction.
        """
        check_count(top_k, name="top_k")
        n_candidates = len(self._frame.pandas)
        people: Any = users.to_dict() if isinstance(users, pd.Series) else users
        if not isinstance(people, Mapping):
            people = CallerFrame(people, name="users").pandas
        if self._now is not None and self.memory is not None and self.memory.time not in people:
            people = _ask_at(people, self.memory.time, self._now)
        if isinstance(people, pd.DataFrame) and not len(people):
            self._check(people)
            return self._answer(people, NO_PAIRS, NO_PAIRS, np.empty(0, dtype=np.float32))
        pairs = self._pair(people)
        best, ranks = [NO_PAIRS], [NO_PAIRS]
        logits: list[np.ndarray] = []
        chosen, excluded = _allow(pairs, exclude, only)
        counts = pairs.n_users, n_candidates
        n_pairs = math.prod(counts) - len(excluded) if chosen is None else len(chosen)
        blocks = pair_blocks(*counts, chosen, excluded, size=PAIRS_PER_BLOCK)
        if self._shortlist is not None and only is None:
            blocks = pairs.shortlists(max(self._shortlist, top_k), excluded)
            n_pairs = pairs.n_users * self._shortlist
        if isinstance(people, pd.DataFrame):  # a request of one user is short
            blocks = show_progress(blocks, "ranking pairs of users and candidates", n_pairs)
        for block in blocks:
            scores = pairs.logits(block)
            # The same pair can get logits that differ in the last bits, by its place in the batch:
            # rounded, equal candidates are ties and keep their order
            places, rank = _best_of_each_user(block // n_candidates, scores.round(5), top_k)
            logits.append(scores[places])
            best.append(block[places])
            ranks.append(rank)
        n_without = pairs.n_users - sum(int((rank == 1).sum()) for rank in ranks)
        if n_without and only is None:
            warn_user(
                f"exclude leaves no candidate for {n_without} of {pairs.n_users} users: the result "
                "has no row of theirs. Give more candidates, or fill their lists by a call without "
                "exclude."
            )
        return self._answer(people, *map(np.concatenate, (best, ranks, logits)))

    def find_similar(self, position: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of candidates that go best with one, and their scores above 0."""
        if self._catalogue is None:
            raise ValueError(
                "similar items need a Pipeline that begins with the encoder: this one has a step "
                "before it."
            )
        return self._catalogue.find_similar(position, n)

    def _answer(
        self, users: Users, best: np.ndarray, ranks: np.ndarray, logits: np.ndarray
    ) -> IntoDataFrameT:
        """Return pairs by their numbers as a frame."""
        rows, positions = np.divmod(best, len(self._frame.pandas))
        values: dict[Any, Any] = {"row": rows, "rank": ranks}
        values[self._reading.name] = self._reading.value_of(logits)
        if is_named := self._user is not None and self._user in users:
            ids = users[self._user]
            ids = ids if isinstance(ids, pd.Series) else pd.Series([ids])
            values[self._user] = ids.array.take(rows)
        return self._results[is_named].take_and_replace(positions, values)

    def _check(self, users: Users) -> None:
        if isinstance(users, pd.DataFrame):
            check_frame(users, [], name="users")
        both = [name for name in users if name in self._names]
        if both:
            raise ValueError(
                f"a column belongs to the user or to the candidate, got {both} in both frames. "
                "Drop them from users if the candidate has them, from candidates otherwise."
            )
        made = [] if self.memory is None else self.memory.get_feature_names_out().tolist()
        check_levels(self._fitted.encoder.schema_, users, made)
        _warn_of_swap(users, self._names, self._fitted.encoder)
        there = {*users, *self._names, *self._fitted.encoder._optional}
        absent = [name for name in self._needed if name not in there]
        if absent:
            raise ValueError(
                f"the Pipeline was fitted on columns {absent}, which are neither in users nor in "
                f"candidates. users has {list(users)}, candidates {list(self._names)}."
            )

    def _pair(self, users: Users) -> _Pairs:
        """Encode users to be paired with the candidates."""
        self._check(users)
        with self._lock:
            if self._catalogue is None or not self._catalogue.suits(users):
                there = {*users, *self._names, *self._compared}
                names = [name for name in self._columns if name in there]
                self._catalogue = Catalogue(
                    self._fitted, self._frame.pandas, users, names, self.memory
                )
            catalogue = self._catalogue
        levels = None
        if catalogue.levels is not None and self.memory is not None:
            levels = catalogue.levels.of_users(self.memory, users)
        return _Pairs(catalogue, users, self._reading, levels)


def _ask_at(users: Users, time: str, now: Any) -> Users:
    """Return users with a time."""
    if isinstance(users, pd.DataFrame):
        return users.assign(**{time: pd.Series([now] * len(users), index=users.index)})
    return {**users, time: now}


def _allow(pairs: _Pairs, exclude: Any, only: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the numbers of pairs in ``only``, or None, and of those in ``exclude``."""
    excluded, chosen = NO_PAIRS, None
    if isinstance(exclude, str):
        check_choice(exclude, ("history", None), name="exclude, where it is no frame of pairs,")
        excluded = pairs.of_histories()
    elif exclude is not None:
        excluded = pairs.of(exclude, name="exclude")
    if only is not None:
        chosen = pairs.of(only, name="only")
        if not len(chosen):
            raise ValueError(
                "only must hold pairs of the users and candidates that are given, got none. "
                "only=None ranks every candidate for every user."
            )
    return chosen, excluded


def _best_of_each_user(
    rows: np.ndarray, scores: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are the ``top_k`` of their user, ties in their order, and their ranks."""
    if len(rows) and rows[0] == rows[-1]:
        order = largest_first(scores, top_k)
        return order, np.arange(1, len(order) + 1)
    order = np.lexsort((-scores, rows))
    rank = np.arange(1, len(rows) + 1) - np.searchsorted(rows, rows)
    is_best = rank <= top_k
    return order[is_best], rank[is_best]


class _Pairs:
    """Encoded users paired with a catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        users: Users,
        reading: Reading,
        levels: Callable[..., dict] | None,
    ) -> None:
        self.catalogue, self.users, self.reading = catalogue, users, reading
        self._levels = levels
        self.candidates = catalogue.candidates
        self.n_users = len(users) if isinstance(users, pd.DataFrame) else 1
        self._read, self.user_rows = catalogue.read(users)
        if joint := catalogue.find_joint_fields(self.user_rows, users):
            raise ValueError(
                "rank_candidates encodes users and candidates by themselves, but "
                f"{agree(joint, 'depend')} on both, as a step before the encoder computes. Score "
                "pairs by predict_proba, on users.merge(candidates, how='cross')."
            )

    def of_histories(self) -> np.ndarray:
        """Return the numbers of pairs whose candidate is in the user's history."""
        places = self._places("exclude='history'")
        return places.pairs(*self.catalogue.find_seen(self._read))

    def of(self, pairs: Any, *, name: str) -> np.ndarray:
        """Return the numbers of pairs in a frame, or of all users and the items in a list."""
        if not isinstance(pairs, list | tuple | np.ndarray | pd.Series):
            return pairs_of_frame(pairs, frame_of_users(self.users), self.candidates, name=name)
        places = self._places(f"{name} as a list of items")
        ids = self.catalogue.ids_of_items(list(pairs))
        rows = np.repeat(np.arange(self.n_users), len(ids))
        return places.pairs(rows, np.tile(ids, self.n_users))

    def _places(self, what: str) -> PlacesOfIds:
        if self.catalogue.item is None:
            raise ValueError(
                f"{what} needs candidates that are compared with a history, and the Pipeline has "
                "none. Give a frame of pairs, (user, item), instead."
            )
        return self.catalogue.places

    def shortlists(self, n: int, excluded: np.ndarray) -> Iterator[np.ndarray]:
        """Return for each user the numbers of n pairs, which ascend; ``excluded`` are none."""
        catalogue, n_candidates = self.catalogue, len(self.candidates)
        for user in range(self.n_users):
            first = user * n_candidates
            own = slice(*np.searchsorted(excluded, [first, first + n_candidates]))
            yield first + catalogue.choose(self.user_rows, user, n, excluded[own] - first)

    def logits(self, numbers: np.ndarray) -> np.ndarray:
        """Return log-odds of pairs by number, which are all pairs of their lists."""
        catalogue, scores = self.catalogue, [np.empty(0, dtype=np.float32)]
        users, candidates = np.divmod(numbers, len(self.candidates))
        compared = catalogue.compare(users, candidates, self._levels)
        for start in range(0, len(numbers), SCORED_TOGETHER):
            block = slice(start, start + SCORED_TOGETHER)
            pairs = users[block], candidates[block]
            own = {name: column[block] for name, column in compared.items()}
            X = catalogue.take(self.user_rows, *pairs, self._levels, own)
            scores.append(self.reading.score(catalogue.score(X)))
        return np.concatenate(scores)


def _warn_of_swap(users: Users, candidates: Collection[object], encoder: Any) -> None:
    """Warn where candidates have the user, or his history, and users what it is compared with."""
    of_user = [
        history
        for behaviour in encoder.schema_.behaviours
        for history, candidate in behaviour.candidate_of.items()
        if candidate is not None and history in candidates and candidate in users
    ]
    if encoder.user in candidates or (of_user and encoder.user not in users):
        warn_user(
            f"candidates have {[n for n in (encoder.user, *of_user) if n in candidates]}, which "
            "say who a user is. Are they swapped? rank_candidates(pipeline, users, candidates)."
        )


def _check_candidates(
    candidates: pd.DataFrame, columns: Sequence[str], *, taken: Sequence[str]
) -> None:
    check_frame(candidates, [], name="candidates")
    if not len(candidates):
        raise ValueError("candidates must have at least one row, got none.")
    taken = [name for name in taken if name in candidates]
    if taken:
        raise ValueError(f"the result has columns {taken} of its own. Rename those of candidates.")
    if not any(name in candidates for name in columns):
        raise ValueError(
            f"candidates must have columns that the Pipeline was fitted on, {list(columns)}, got "
            f"{list(candidates.columns)}: every candidate would score the same."
        )


def _check_item_columns(candidates: pd.DataFrame, columns: Sequence[str], encoder: Any) -> None:
    """Raise where columns that follow from the item are not beside it: users would fill them."""
    item = encoder.schema_.item
    absent = [n for n in encoder._learnt.of_item if n in columns and n not in candidates]
    if absent and item in candidates:
        raise ValueError(
            f"candidates must have {absent}, which followed from {item!r} in the rows of fit: "
            "taken from the users, every candidate would have the value of the user's last row. "
            f"candidates has {list(candidates.columns)}."
        )
