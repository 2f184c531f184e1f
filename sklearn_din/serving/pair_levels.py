"""Levels of users and candidates: numbers that a memory makes of each pair, as of its moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.encoding.learnt import Learnt
from sklearn_din.features.level_columns import find_levels
from sklearn_din.features.schema import Schema
from sklearn_din.inspection.fitted import FittedPipeline
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.logs.row_memory import RowMemory
from sklearn_din.utils.keys import join_hashes


def find_memory(fitted: FittedPipeline) -> HistoryBuilder | None:
    """Return the step before the encoder that remembers events or rows; None without one."""
    steps = fitted.around_encoder()[0]
    return next((step for step in steps if isinstance(step, HistoryBuilder)), None)


def check_levels(schema: Schema, users: Collection[Any], made: Collection[str]) -> None:
    """Raise where a level of candidates, or of pairs, is taken from the row of a user.

    made : columns that a memory makes
    """
    candidates = schema.compared_sizes
    for key, columns in find_levels(schema.names("numeric")).items():
        names = key.split("_")
        of_candidate = any(name == key or name in names for name in candidates)
        if columns.rate in users and columns.rate not in made and of_candidate:
            raise ValueError(
                f"{columns.rate!r} is a level of {key!r}, which differs from candidate to "
                "candidate, and users have one for all of them. Begin the Pipeline with "
                "HistoryBuilder(user=..., time=..., columns=[...], levels='auto'), which makes the "
                "levels of each pair, and fit it without these columns."
            )


class PairLevels:
    """The levels of one catalogue's candidates, and of pairs of users with them.

    What is known of a candidate's values is looked up once; each call adds the users.
    """

    def __init__(
        self, rows: RowMemory, time: str, learnt: Learnt, candidates: pd.DataFrame
    ) -> None:
        self._rows, self._learnt, self._time = rows, learnt, time
        columns = [name for name in self._rows.columns if name in candidates]
        self._candidates = {n: self._rows.hash_column(n, candidates[n]) for n in columns}
        made = {*self._rows.names}
        self.names = [n for n in learnt.roles.numeric if n in made]

    def of_users(self, users: pd.DataFrame) -> PairLevelsOfUsers:
        """Return the levels of these users with the candidates, as of the users' times."""
        keys = {name for key in self._rows.keys for name in key} - self._candidates.keys()
        hashes = {name: self._rows.hash_column(name, users[name]) for name in keys}
        return PairLevelsOfUsers(self, hashes, users.get(self._time), len(users))


class PairLevelsOfUsers:
    """Levels of some users with the candidates of a catalogue."""

    def __init__(
        self,
        catalogue: PairLevels,
        users: Mapping[str, np.ndarray],
        times: pd.Series | None,
        n_users: int,
    ) -> None:
        self._of, self._users = catalogue, users
        self._moments = catalogue._rows.moments(times, n_users)

    def take(self, users: np.ndarray, candidates: np.ndarray) -> dict[str, np.ndarray]:
        """Return the encoded levels of pairs by their rows, as the encoder scales them."""
        rows, learnt = self._of._rows, self._of._learnt
        moments, levels = self._moments.take(users), dict[str, np.ndarray]()
        for key in rows.keys:
            parts = [
                self._of._candidates[name][candidates]
                if name in self._of._candidates
                else self._users[name][users]
                for name in key
            ]
            levels |= rows.levels_of(key, join_hashes(parts), moments)
        levels |= rows.recent(moments)
        return learnt.encode_numbers({name: levels[name] for name in self._of.names})
