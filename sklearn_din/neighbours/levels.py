"""How willing each user is: how much more often than others, shrunk, as of each row's moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.neighbours.blocks import NOT_COUNTED, ByTime, Order, OrderedRows
from sklearn_din.neighbours.learnt_numbers import LearntNumbers, RowsToLearn
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.keys import NO_KEY
from sklearn_din.utils.shrinkage import MOST_PRIOR, prior_rows, sums_of_keys
from sklearn_din.utils.spans import pairs_in_turn

SHARE_WITHOUT = 0.2  # of training rows, at least, that have no level, as new users have none
CHECKED_PAIRS = 100_000  # of rows, one after the other
HELD = 0.9  # of users' earlier rows in histories, from which on these show what came of all rows


@dataclass(frozen=True, eq=False)
class UserLevels(LearntNumbers):
    """Log-odds of a click for each user, less those of all: where users differ in their rates.

    Of numbers it is the mean, less that of all. Rows at the average are added to each user's own,
    by as much as the users are alike: a user without earlier rows has 0. A label in which they
    differ by no more than chance makes has no level.

    Parameters
    ----------
    names : tuple of str
        Names of the columns, one for each label that has a level.
    labels : ndarray of shape (n_columns,), int64
        Which labels these are.
    users : ndarray of shape (n_users,), uint64
        Hashes of the users that training had, in ascending order.
    n_rows, totals : ndarray of shape (n_tables, n_users, n_columns), float32
        How many rows with the label each user had up to the end of each table, and their sum.
    averages, priors : ndarray of shape (n_columns,), float64
        Mean of the label over the rows of fit, and how many such rows each user's are added to.
    of_clicks : bool
        Whether labels are 0 and 1.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    users: np.ndarray
    n_rows: np.ndarray
    totals: np.ndarray
    averages: np.ndarray
    priors: np.ndarray
    of_clicks: bool
    reads_users = True

    @classmethod
    def learn(cls, given: RowsToLearn) -> list[tuple[Self, np.ndarray]]:
        """Learn from training rows in order of time, where users differ.

        A training row's level is that of its user's rows strictly before its time; some lose theirs
        where too few have none. There are no levels where rows have such columns already, nor where
        histories show what came of all earlier rows, such as ratings: beside them a level, which is
        of the end of training in later rows, misleads (movies, log loss +.0005,
        benchmarks/quality-results.md).
        """
        X, y, rows = given.X, given.y, given.rows
        if y is None or X.users is None or not isinstance(given.order, ByTime):
            return []
        hashes = X.user_keys.hashes
        users, codes = np.unique(hashes, return_inverse=True)
        n_tables, user = len(given.order.counted()), (X.schema.user,)
        keys = {user, *((*user, label) for label in given.labels)}
        has_levels = any(field.level and field.of in keys for field in X.schema.fields)
        if has_levels or _histories_show_all(X, np.where(hashes == NO_KEY, -1, codes)):
            return []
        values = np.where(
            ((hashes == NO_KEY) | (rows.blocks == NOT_COUNTED))[:, None], np.nan, _columns(y)
        )
        of_clicks = bool(np.isin(values[~np.isnan(values)], (0, 1)).all())
        places = rows.blocks.astype(np.int64) * len(users) + codes
        size = (NOT_COUNTED + 1) * len(users)
        sums = np.stack(
            [
                [np.bincount(places, own, size) for own in of.T]
                for of in (*_own(values), np.nan_to_num(values) ** 2)
            ]
        )  # (3, n_labels, ...)
        sums = sums.reshape(3, values.shape[1], -1, len(users))[:, :, :n_tables].cumsum(axis=2)
        labels, priors = _differ(*sums[:, :, -1], of_clicks=of_clicks)
        if not len(labels):
            return []
        n_rows, totals = sums[:2, labels].transpose(0, 2, 3, 1).astype(np.float32)
        averages = sums[1, labels, -1].sum(axis=1) / sums[0, labels, -1].sum(axis=1)
        names = given.free_names(f"user_level_{label}".rstrip("_") for label in given.labels)
        names = tuple(names[label] for label in labels)
        levels = cls(names, labels, users, n_rows, totals, averages, priors, of_clicks)
        n_before, before = sums_before(codes, np.asarray(X.times), values[:, labels])
        _hide_some(n_before, before)
        numbers = given.allocate(levels.names)
        numbers[:] = levels.levels_of(n_before, before)
        return [(levels, numbers)]

    def look_up(self, X: EncodedFeatures, tables: np.ndarray) -> np.ndarray:
        """Levels of impressions, each from its table, zeros where that is -1: (n, n_columns)."""
        if not len(self.users):
            return np.zeros((len(X), len(self.names)), dtype=np.float32)
        hashes = X.user_keys.hashes
        places = np.minimum(np.searchsorted(self.users, hashes), len(self.users) - 1)
        is_known = (self.users[places] == hashes) & (hashes != NO_KEY) & (tables >= 0)
        sums = (of[tables, places] * is_known[:, None] for of in (self.n_rows, self.totals))
        return self.levels_of(*sums)

    def without_users(self, users: np.ndarray) -> Self:
        """Return the levels of all others."""
        others = ~np.isin(self.users, users, kind="sort")
        n_rows, totals = self.n_rows[:, others], self.totals[:, others]
        return replace(self, users=self.users[others], n_rows=n_rows, totals=totals)

    def latest(self) -> Self:
        """Return the levels of now alone."""
        return replace(self, n_rows=self.n_rows[-1:], totals=self.totals[-1:])

    def levels_of(self, n_rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Return the levels that follow from rows and sums of labels: (n, n_columns), float32."""
        average, prior = self.averages, self.priors
        if not self.of_clicks:
            return ((totals - n_rows * average) / (n_rows + prior)).astype(np.float32)
        likes, others = totals / (prior * average), (n_rows - totals) / (prior * (1 - average))
        return (np.log1p(likes) - np.log1p(others)).astype(np.float32)

    def grow(
        self, X: EncodedFeatures, y: np.ndarray, rows: OrderedRows, kept: Sequence[int]
    ) -> Self:
        """Return the levels after further rows: those of the ``kept`` tables, then of all rows."""
        hashes = X.user_keys.hashes
        counted = np.flatnonzero((rows.blocks != NOT_COUNTED) & (hashes != NO_KEY))
        users = np.union1d(self.users, hashes[counted])
        earlier = np.searchsorted(users, self.users)
        values = _columns(y)[counted][:, self.labels]
        places = np.searchsorted(users, hashes[counted])
        grown = []
        for sums, own in zip((self.n_rows, self.totals), _own(values), strict=True):
            wider = np.zeros((len(kept) + 1, len(users), len(self.names)), dtype=np.float32)
            wider[:, earlier] = sums[[*kept, -1]]
            np.add.at(wider[-1], places, own)
            grown.append(wider)
        return replace(self, users=users, n_rows=grown[0], totals=grown[1])

    def fits(self, order: Order) -> bool:
        """Return whether there are as many tables as the order has."""
        return len(self.n_rows) == len(order.counted())

    def describe(self) -> str:
        """Return whose levels there are, and their names."""
        return f"levels of {len(self.users):,} users: {', '.join(self.names)}"

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        n, n_users, what = len(self.names), np.size(self.users), "levels of users"
        shape = (len(self.n_rows), n_users, n)
        check_array(self.users, dtype=np.uint64, shape=(n_users,), what=what)
        check_array(self.labels, dtype=np.int64, shape=(n,), what=what, least=0)
        for sums in (self.n_rows, self.totals):
            check_array(sums, dtype=np.float32, shape=shape, what=what)
        for numbers in (self.averages, self.priors):
            check_array(numbers, dtype=np.float64, shape=(n,), what=what)
        if (self.users[1:] <= self.users[:-1]).any():
            raise ValueError(f"the users of {what} must be in ascending order.")
        if (self.n_rows < 0).any() or not (self.priors > 0).all():
            raise ValueError(f"rows and priors of {what} cannot be negative.")
        if self.of_clicks and not (
            ((self.totals >= 0) & (self.totals <= self.n_rows)).all()
            and ((self.averages > 0) & (self.averages < 1)).all()
        ):
            raise ValueError(f"the rates of {what} must lie between 0 and 1.")


def _histories_show_all(X: EncodedFeatures, users: np.ndarray) -> bool:
    """Return whether histories hold rows that were not clicked, too, and what came of each."""
    behaviours = [b for b in X.schema.behaviours if b.numbers or None in b.candidates]
    if not behaviours:
        return False
    earlier, later = pairs_in_turn(users, np.asarray(X.times))
    step = max(len(earlier) // CHECKED_PAIRS, 1)
    earlier, later = earlier[::step], later[::step]
    for behaviour in behaviours:
        ragged = X.behaviours[behaviour.histories]
        spans = ragged.spans.take(later)
        newest = (spans.starts + spans.lengths - 1)[spans.lengths > 0]
        shown = earlier[spans.lengths > 0]
        for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
            if candidate in X.schema.names("categorical"):
                n_held = np.sum(ragged.columns[history][newest] == X.columns[candidate][shown])
                if n_held > HELD * len(later):
                    return True
    return False


def _differ(
    n_rows: np.ndarray, totals: np.ndarray, squares: np.ndarray, *, of_clicks: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels in which users differ, and how many average rows theirs are added to."""
    labels, priors = [], []
    for label, (n, total, square) in enumerate(zip(n_rows, totals, squares, strict=True)):
        has_both = 0 < total.sum() < n.sum() if of_clicks else square.sum() > 0
        if not has_both or (n <= 1).all() or (n > 0).sum() < 2:
            continue
        prior = float(prior_rows(sums_of_keys(n, total).sum(axis=1), squares=square.sum()))
        if prior < MOST_PRIOR:
            labels.append(label)
            priors.append(prior)
    return np.array(labels, dtype=np.int64), np.array(priors, dtype=np.float64)


def sums_before(
    users: np.ndarray, times: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many rows of the user are before each row, and sums: (n_rows, n_columns)."""
    order = np.lexsort((times, users))
    users, times = users[order], times[order]
    is_user = np.append(True, users[1:] != users[:-1])[: len(users)]
    is_moment = is_user | np.append(True, times[1:] != times[:-1])[: len(users)]
    positions = np.arange(len(users))
    user, moment = (
        np.maximum.accumulate(np.where(of, positions, 0)) for of in (is_user, is_moment)
    )
    results = []
    for own in _own(values[order]):
        earlier = np.cumsum(own, axis=0) - own
        before = np.empty_like(own)
        before[order] = earlier[moment] - earlier[user]
        results.append(before)
    return results[0], results[1]


def _hide_some(n_rows: np.ndarray, totals: np.ndarray) -> None:
    """Remove, in place, what random rows know of their user, until SHARE_WITHOUT know nothing."""
    has_level = n_rows.any(axis=1)
    share = 1 - (1 - SHARE_WITHOUT) / max(float(has_level.mean()), 1e-9)
    hidden = np.random.RandomState(0).random_sample(len(n_rows)) < share
    n_rows[hidden], totals[hidden] = 0, 0


def _columns(y: np.ndarray) -> np.ndarray:
    return np.asarray(y, dtype=np.float64).reshape(len(y), -1)


def _own(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each row adds to the number of rows, and to their sum."""
    return (~np.isnan(values)).astype(np.float64), np.nan_to_num(values)
