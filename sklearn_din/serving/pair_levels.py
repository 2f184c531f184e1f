"""Levels of users and candidates: numbers that a memory makes of each pair, as of its moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd

from sklearn_din.encoding.table_columns import TableColumns
from sklearn_din.features.schema import Schema
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.logs.row_memory import Moments, RowMemory

Users = pd.DataFrame | Mapping[Any, object]  # a frame, or one user as plain values


def check_levels(schema: Schema, users: Collection[Any], made: Collection[str]) -> None:
    """Raise where a level of candidates, or of pairs, is taken from the row of a user.

    made : columns that a memory makes
    """
    for field in schema.fields:
        of_candidate = not schema.compared_sizes.keys().isdisjoint(field.of)
        if field.follows_labels and of_candidate and field.name in users and field.name not in made:
            raise ValueError(
                f"{field.name!r} is a level of {' with '.join(field.of)}, which differs from "
                "candidate to candidate, and users have one for all. Begin the Pipeline with "
                "HistoryBuilder(user=..., time=..., columns=[...], levels='auto'), which makes the "
                "levels of each pair, and fit it without these columns."
            )


class PairLevels:
    """The levels of one catalogue's candidates, and of pairs of users with them.

    The candidates' keys are hashed once, for every memory of the same columns.
    """

    def __init__(self, rows: RowMemory, learnt: TableColumns, candidates: pd.DataFrame) -> None:
        self._learnt, made = learnt, {*rows.names}
        self.names = [name for name in learnt.numeric if name in made]
        keys = {name for key in rows.keys for name in key}
        self._candidates = {
            name: rows.hash_column(name, candidates[name]) for name in keys if name in candidates
        }

    def of_users(self, memory: HistoryBuilder, users: Users) -> Callable[..., dict]:
        """Return a function of rows of users and candidates: levels as of the users' times.

        They are encoded, as the encoder scales them: (n_pairs,) float32 each; with
        ``is_encoded=False`` those that differ among candidates as they are.
        """
        rows = cast(RowMemory, memory.memory_)
        keys = {name for key in rows.keys for name in key} - self._candidates.keys()
        hashes = {name: rows.hash_column(name, _column(users, name)) for name in keys}
        times = _column(users, memory.time) if memory.time in users else None
        moments = rows.moments(times, len(users) if isinstance(users, pd.DataFrame) else 1)
        own = rows.recent(moments)
        for key in rows.keys:
            if keys.issuperset(key):
                own |= rows.levels_of(key, [hashes[name] for name in key], moments)
        weights = rows.online_weights(hashes, moments)
        return partial(self._take, rows, hashes, moments, self._encode(own), weights)

    def _encode(self, levels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._learnt.encode_numbers({n: levels[n] for n in self.names if n in levels})

    def _take(
        self,
        rows: RowMemory,
        of_users: Mapping[str, np.ndarray],
        moments: Moments,
        encoded: Mapping[str, np.ndarray],
        weights: Mapping[tuple[str, ...], np.ndarray],
        users: np.ndarray,
        candidates: np.ndarray,
        *,
        is_encoded: bool = True,
    ) -> dict[str, np.ndarray]:
        own, levels = self._candidates, dict[str, np.ndarray]()
        moments = moments.take(users)
        hashes = {n: of[candidates] for n, of in own.items()}
        hashes |= {n: of[users] for n, of in of_users.items()}
        for key in rows.keys:
            if not own.keys().isdisjoint(key):
                levels |= rows.levels_of(key, [hashes[name] for name in key], moments)
        of_pairs = {key: of[:, users] for key, of in weights.items()}
        levels |= rows.online_rate(hashes, moments, of_pairs)
        if not is_encoded:
            return levels
        return self._encode(levels) | {name: column[users] for name, column in encoded.items()}


def _column(users: Users, name: str) -> pd.Series:
    """Return a column of users, of one who is a mapping as well."""
    if isinstance(users, pd.DataFrame):
        return users[name]
    return pd.Series([users.get(name)], name=name)
