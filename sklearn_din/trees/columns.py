"""Columns of encoded rows for trees: numbers, rates so far, matches and means of past events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.identities import is_identity
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.trees.rates import OF_USERS, Blocks, Rates

LEAST_CHI_SQUARE = 0.05  # of users' rates: where negatives were drawn, all users have the same
MOST_ANSWERS = 12  # ids of a history without a candidate, such as past answers, that get means
N_RECENT = 5  # events
ROWS_PER_BLOCK = 16_384  # whose events are read at a time


@dataclass(frozen=True, eq=False)
class TreeColumns:
    """Which columns trees read of encoded rows, and the rates that they look up.

    Of the row: its numbers, NaN where one is missing; of its user and each of its ids, the rate of
    clicks so far and log1p of the rows behind it. Of a history: how many events have the
    candidate's id, and how many events came after the latest of them; the means of its numbers, and
    of each id without a candidate as 0 and 1, over all events, the latest five, the latest one, and
    those with the candidate's id. There are no rates where negatives were drawn, which show as
    users who are all alike: test rows have items of their own kind, and would be misjudged.

    Parameters
    ----------
    numbers : tuple of str
        Names of the fields that are numbers.
    n_answers : dict of str to int
        Of histories without a candidate, how many of their first known ids have means.
    rates : tuple of Rates
        Of users and of columns of ids.
    """

    numbers: tuple[str, ...]
    n_answers: Mapping[str, int]
    rates: tuple[Rates, ...]

    @classmethod
    def learn(
        cls, X: EncodedFeatures, is_click: np.ndarray, blocks: Blocks, schema: Schema
    ) -> tuple[Self, np.ndarray]:
        """Return the columns, and the matrix of training rows: no rate counts a row's own label.

        ``schema`` lacks the numbers of item neighbours that rows have.
        """
        users = [OF_USERS] if X.users is not None else []
        names = [*users, *schema.names("categorical")]
        learnt = [Rates.learn(name, X, is_click, blocks) for name in names]
        if users and learnt[0][0].chi_square < LEAST_CHI_SQUARE:
            learnt = []
        elif users and not blocks.are_ordered:  # rows to predict are those of other users
            del learnt[0]
        numbers = [f.name for f in schema.fields if f.kind == "numeric" and f.what != "missing"]
        alone = [h for b in schema.behaviours for h, c in b.candidate_of.items() if c is None]
        n_answers = {
            name: schema[name].n_ids - FIRST_KNOWN_ID
            for name in alone
            if schema[name].kind == "history"
            and schema[name].n_ids <= FIRST_KNOWN_ID + MOST_ANSWERS
        }
        columns = cls(tuple(numbers), n_answers, ())
        matrix = np.column_stack([columns.read(X), *(values for _, values in learnt)])
        return replace(columns, rates=tuple(rates for rates, _ in learnt)), matrix

    def read(self, X: EncodedFeatures) -> np.ndarray:
        """Return the matrix of rows, (n_rows, n_columns), float64.

        No column reads a row's time or position, which are removed: a ranking has neither.
        """
        X = X._replace(times=None, positions=None)
        starts = range(0, max(len(X), 1), ROWS_PER_BLOCK)
        blocks = (self._columns_of(X[start : start + ROWS_PER_BLOCK]) for start in starts)
        return np.concatenate([np.column_stack([*columns]) for columns in blocks])

    def _columns_of(self, X: EncodedFeatures) -> Iterator[np.ndarray]:
        yield np.empty((len(X), 0))
        for name in self.numbers:
            yield np.where(find_missing_numbers(X, name), np.nan, X.columns[name])
        for behaviour in X.schema.behaviours:
            yield from self._columns_of_history(X, behaviour)
        for rates in self.rates:
            yield rates.look_up(X)

    def _columns_of_history(self, X: EncodedFeatures, behaviour: Behaviour) -> Iterator[np.ndarray]:
        """Yield the columns of one behaviour; a sum adds a row's own events alone, in order."""
        ragged, n_rows = X.behaviours[behaviour.histories], len(X)
        single = {*X.schema.names("categorical")}
        lengths, index = ragged.spans.lengths, ragged.spans.index()
        rows = np.repeat(np.arange(n_rows), lengths)
        n_later = np.cumsum(lengths)[rows] - 1 - np.arange(len(rows))
        chosen = [np.ones(len(rows), dtype=bool), n_later < N_RECENT, n_later == 0]
        for history, candidate in behaviour.candidate_of.items():
            if candidate not in single or X.schema[history].kind != "history":
                continue
            ids = ragged.columns[history][index]
            is_known = is_identity(ids) | (ids >= FIRST_KNOWN_ID)
            is_same = is_known & (ids == X.columns[candidate][rows])
            chosen.append(is_same)
            yield np.bincount(rows, is_same, n_rows)
            since = np.full(n_rows, np.nan)
            since[rows[is_same]] = n_later[is_same]  # of a row's events the latest comes last
            yield since
        values = [ragged.flat(name, index) for name in behaviour.numbers]
        for name in behaviour.histories:
            answers = range(FIRST_KNOWN_ID, FIRST_KNOWN_ID + self.n_answers.get(name, 0))
            values += [ragged.columns[name][index] == answer for answer in answers]
        for of_events in chosen if values else ():
            n_events = np.bincount(rows, of_events, n_rows).astype(np.float64)  # without rows: int
            n_events[n_events == 0] = np.nan
            for of_value in values:
                yield np.bincount(rows, of_value * of_events, n_rows) / n_events

    def check_columns(self, schema: Schema) -> None:
        """Raise ValueError where rows of a schema lack a column."""
        names = {*self.numbers, *self.n_answers, *(rates.column for rates in self.rates)}
        if not names <= {OF_USERS, *(field.name for field in schema.fields)}:
            raise ValueError(f"trees must read columns of the rows, got {sorted(names)}.")

    def without_users(self, users: np.ndarray) -> Self:
        """Return columns whose rates know nothing of some users, given by their hashes."""
        rates = (r.without(users) if r.column == OF_USERS else r for r in self.rates)
        return replace(self, rates=tuple(rates))

    def describe(self) -> str:
        """Return what the columns are of."""
        rates = ", ".join(rates.column or "users" for rates in self.rates)
        return (
            f"{len(self.numbers)} numbers, matches and means of histories, and "
            f"{f'rates of {rates}' if rates else 'no rates, since negatives were drawn'}"
        )

    @property
    def users(self) -> np.ndarray:
        """Hashes of the users whose rates are known."""
        known = [rates.keys for rates in self.rates if rates.column == OF_USERS]
        return known[0] if known else np.empty(0, dtype=np.uint64)
