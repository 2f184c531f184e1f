"""Evaluation of a ranked catalogue against what users clicked afterwards."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame

from sklearn_din.serving.ranking import Ranker, check_numbers
from sklearn_din.training.reading import Label
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.validation import check_frame, check_name
from sklearn_din.utils.warnings import warn_user

SHOWN_VALUES = 3


def evaluate_ranking(
    pipeline: Any,
    users: pd.DataFrame,
    candidates: pd.DataFrame,
    relevant: pd.DataFrame,
    *,
    k: int | Sequence[int] = 10,
    user: str = "user",
    item: str = "item",
    exclude: str | IntoDataFrame | None = None,
    only: IntoDataFrame | None = None,
    baseline: str | None = None,
    label: Label | None = None,
) -> pd.DataFrame:
    """Rank a catalogue for each user and compare the top k items with the relevant ones.

    This evaluates a recommender in one call. Choose a moment after the training data of the
    Pipeline. ``users`` are the users at that moment and their histories, ``candidates`` what
    could be shown to them, ``relevant`` what they clicked (bought, watched) afterwards.
    :func:`rank_candidates` makes the ranking, and shows its progress on a terminal, or every ten
    seconds in the log "sklearn_din" at level INFO.

    With m relevant items of a user, rank r of each (from 1) and sums over those with ``r <= k``:
    ``recall = sum 1 / m``; ``hit_rate`` is 1 if there is any; ``mrr`` is 1 over the smallest r;
    ``ndcg = sum 1 / log2(1 + r)`` divided by the same for ranks 1 to ``min(m, k)``. A user
    without any has 0 in all of them. All users count equally.

    Beyond accuracy, with the n candidates, those in a list L (a user's top k) and the values v of
    the column ``baseline``: ``coverage = |union of all L| / n`` (catalogue coverage, Ge et al.,
    RecSys 2010); ``popularity = mean over L of v``; ``novelty = mean over L of -log2(v / sum v)``,
    the self-information in bits (Vargas and Castells, RecSys 2011). The latter two are averaged
    over users with a list.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted on a DataFrame; a HistorySequenceEncoder among its steps and a DINClassifier at
        its end.
    users : pandas, polars or Arrow frame of shape (n_users, ...)
        One row per user at the moment of the ranking: the column ``user``, and every column that
        the Pipeline was fitted on, histories included, except those of the candidate.
    candidates : pandas, polars or Arrow frame of shape (n_candidates, ...)
        The catalogue, one row per item: the column ``item`` and the candidate's other columns.
    relevant : pandas, polars or Arrow frame
        Clicks, purchases and the like: one row per user and item, in the columns ``user`` and
        ``item``. Other columns are ignored, and repeated pairs count once. An item that is not
        among ``candidates`` cannot be recommended and counts as missed.
    k : int or list of int, default=10
        Number of top items to evaluate. Several numbers give one row each, for the cost of one
        ranking.
    user : str, default="user"
        Name of the user column of ``users`` and ``relevant``. Any column that identifies the rows
        of ``users`` works, such as a session number.
    item : str, default="item"
        Name of the item column of ``candidates`` and ``relevant``.
    exclude : "history" or frame of pairs, default=None
        Pairs that are not recommended, as in :func:`rank_candidates`: "history" for shops where
        nobody buys the same item twice. They do not count as relevant either: the scores are
        about items that are new to each user.
    only : frame of pairs, default=None
        The candidates of each user, as in :func:`rank_candidates`. Relevant items that are not
        among them count as missed.
    baseline : str, default=None
        A numeric column of ``candidates``, such as the number of clicks before the moment: the
        table then also has the scores of ranking everyone by that column. A model that does not
        beat it is no improvement. It is also the column of popularity and novelty, where a missing
        value is 0; novelty takes 0 as the smallest value above it.
    label : str, int or dict, default=None
        Of a classifier of several labels, the one to rank by, or weights from 0 on by label. None:
        there is one label.

    Returns
    -------
    DataFrame
        One row per k (the index), columns ndcg, recall, hit_rate, mrr (means over users), coverage,
        n_users (users evaluated) and n_left_out (users to whom nothing is relevant: nothing can be
        said). With ``baseline`` also popularity and, where none of its values is below 0 and any
        above, novelty (before n_users), and the index has two levels: ranking ("model", then the
        baseline's name) and k.

    Raises
    ------
    ValueError
        If a column is absent or holds missing values, a user or an item has two rows, or no
        relevant user or item is among those given.

    Warns
    -----
    UserWarning
        If ``relevant`` has users without a row in ``users``: they are not evaluated.

    See Also
    --------
    sklearn_din.metrics.group_ndcg_score : The same for rows that were shown, without a catalogue.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(lr=0.05, max_epochs=50, random_state=0)
    ... ).fit(shown, [0, 1])
    >>> users = pd.DataFrame({"user": ["ann", "bob"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> relevant = pd.DataFrame({"user": ["ann", "bob"], "item": ["sock", "hat"]})
    >>> scores = evaluate_ranking(model, users, shown[["item"]], relevant, k=[1, 2])
    >>> scores.reset_index()[["k", "recall", "mrr", "n_users"]]
       k  recall   mrr  n_users
    0  1     0.5  0.50        2
    1  2     1.0  0.75        2
    """
    lengths = _check_k(k)
    users = CallerFrame(users, name="users").pandas
    candidates = CallerFrame(candidates, name="candidates").pandas
    relevant = CallerFrame(relevant, name="relevant").pandas
    _check_frames(users, candidates, relevant, user, item)
    measures = _measures(candidates, baseline)
    pairs = relevant[[user, item]].drop_duplicates()
    row = _positions(pairs[user], users[user], name="users")
    catalogue = _positions(pairs[item], candidates[item], name="candidates")
    _warn_of_absent_users(pairs[user][row < 0], user)
    row, catalogue = row[row >= 0], catalogue[row >= 0]
    ranker = Ranker(pipeline, candidates, label=label)
    if exclude is not None:
        with_relevant = np.unique(row)
        excluded = ranker.find_excluded(users.iloc[with_relevant], exclude)
        numbers = np.searchsorted(with_relevant, row) * len(candidates) + catalogue
        is_new = (catalogue < 0) | ~np.isin(numbers, excluded)
        row, catalogue = row[is_new], catalogue[is_new]
        if not len(row):
            raise ValueError(
                "exclude contains every relevant pair, so that no ranking can have a hit. Exclude "
                "only pairs from before the moment of the ranking."
            )
    evaluated, row = np.unique(row, return_inverse=True)
    n_relevant, is_candidate = np.bincount(row), catalogue >= 0
    numbers = (row * len(candidates) + catalogue)[is_candidate]

    def score(by: str | None) -> pd.DataFrame:
        """Scores of one ranking, by k."""
        asked = users.iloc[evaluated]
        best = ranker.rank(asked, top_k=max(lengths), exclude=exclude, only=only, by=by)
        shown = _positions(best[item], candidates[item], name="candidates")
        rows, ranks = best["row"].to_numpy(), best["rank"].to_numpy()
        is_hit = np.isin(rows * len(candidates) + shown, numbers)
        of_lists = measures.iloc[shown]
        scores = [
            _scores_at(length, rows[is_hit], ranks[is_hit], n_relevant)
            | {"coverage": len(np.unique(shown[ranks <= length])) / len(candidates)}
            | of_lists[ranks <= length].groupby(rows[ranks <= length]).mean().mean().to_dict()
            for length in lengths
        ]
        return pd.DataFrame(scores, index=pd.Index(lengths, name="k"))

    table = score(None)
    if baseline is not None:
        table = pd.concat({"model": table, baseline: score(baseline)}, names=["ranking"])
    return table.assign(n_users=len(evaluated), n_left_out=len(users) - len(evaluated))


def _scores_at(
    k: int, row: np.ndarray, rank: np.ndarray, n_relevant: np.ndarray
) -> dict[str, float]:
    """Return means over users; ``row`` and ``rank`` (of one length) are those of relevant items."""
    row, rank = row[rank <= k], rank[rank <= k]
    n_users = len(n_relevant)
    ideal = np.append(0.0, np.cumsum(1 / np.log2(1 + np.arange(1, k + 1))))
    gains = np.bincount(row, weights=1 / np.log2(1 + rank), minlength=n_users)
    n_hits = np.bincount(row, minlength=n_users)
    reciprocal = np.zeros(n_users)
    np.maximum.at(reciprocal, row, 1 / rank)
    return {
        "ndcg": float(np.mean(gains / ideal[np.minimum(n_relevant, k)])),
        "recall": float(np.mean(n_hits / n_relevant)),
        "hit_rate": float(np.mean(n_hits > 0)),
        "mrr": float(np.mean(reciprocal)),
    }


def _measures(candidates: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """Return each candidate's popularity and, where that is a share of a sum, its novelty."""
    table = pd.DataFrame(index=range(len(candidates)))
    if baseline is not None:
        table["popularity"] = popularity = np.nan_to_num(check_numbers(candidates, baseline))
        if popularity.min() >= 0 and popularity.any():
            counts = np.maximum(popularity, popularity[popularity > 0].min())
            table["novelty"] = -np.log2(counts / popularity.sum())
    return table


def _check_k(k: int | Sequence[int]) -> list[int]:
    lengths = list(np.array([k] if isinstance(k, str) else k, dtype=object).reshape(-1))
    are_integers = all(isinstance(n, Integral) and not isinstance(n, bool) for n in lengths)
    if not lengths or not are_integers or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise ValueError(
            f"k must be an integer of at least 1, or a list of different ones, got {k!r}."
        )
    return [int(n) for n in lengths]


def _check_frames(
    users: pd.DataFrame, candidates: pd.DataFrame, relevant: pd.DataFrame, user: str, item: str
) -> None:
    check_name(user, name="user")
    check_name(item, name="item")
    for name, frame, column in (
        ("users", users, user),
        ("candidates", candidates, item),
        ("relevant", relevant, user),
        ("relevant", relevant, item),
    ):
        advice = " The parameters user and item name these columns."
        check_frame(frame, [column], name=name, advice=advice)
        if not len(frame):
            raise ValueError(f"{name} must have at least one row, got none.")
        n_missing = int(frame[column].isna().sum())
        if n_missing:
            raise ValueError(
                f"{name}[{column!r}] must not be missing, got {n_missing} missing values. Drop "
                "those rows."
            )
        if name != "relevant" and not frame[column].is_unique:
            twice = frame[column][frame[column].duplicated()].tolist()[0]
            raise ValueError(
                f"{name} must have one row per {column}, got several of {twice!r}. Use "
                f"{name}.drop_duplicates({column!r}, keep='last')."
            )


def _positions(values: pd.Series, among: pd.Series, *, name: str) -> np.ndarray:
    """Return each value's position in a column of different values, -1 where it is not there."""
    positions = pd.Index(among).get_indexer(pd.Index(values))
    if len(positions) and (positions < 0).all():
        got, there = values.iloc[:SHOWN_VALUES].tolist(), among.iloc[:SHOWN_VALUES].tolist()
        raise ValueError(
            f"none of relevant[{values.name!r}] is in {name}[{among.name!r}]: got values such as "
            f"{got} ({values.dtype}) against {there} ({among.dtype}). Give both columns one dtype."
        )
    return positions


def _warn_of_absent_users(absent: pd.Series, user: str) -> None:
    if len(absent):
        warn_user(
            f"relevant names {absent.nunique()} users who have no row in users, such as "
            f"{absent.tolist()[0]!r}: they are not evaluated. Give them a row in users (new users "
            f"have an empty history), or pass relevant[relevant[{user!r}].isin(users[{user!r}])]."
        )
