"""Candidates that are encoded once, and the users who are encoded beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from sklearn_din._frames import pandas_frame
from sklearn_din._spans import Spans
from sklearn_din.encoding.table import Columns, OneRow
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.lists import Column, join_columns
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Schema
from sklearn_din.inspection.fitted import FittedPipeline, flat_steps
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.neighbours.shortlist import Shortlist
from sklearn_din.serving.allowed_pairs import PlacesOfIds
from sklearn_din.training.inputs import check_features
from sklearn_din.training.novelty import NEVER

ROWS_PER_BLOCK = 16_384

Users = pd.DataFrame | Mapping[Any, object]  # a frame, or one user as plain values


class Catalogue:
    """Candidates, encoded once, and the state of the model that they were encoded by.

    The encoder is the only step before the classifier: candidates are encoded without the columns
    of users, and the other way round.

    Parameters
    ----------
    fitted : FittedPipeline
        The model.
    candidates : DataFrame
        One row per candidate.

    Attributes
    ----------
    columns : dict of str to ndarray or IdLists of shape (n_candidates,)
        Encoded columns that follow the candidate.
    bags : dict of tuple of str to Ragged
        Encoded histories that do, such as the genres of a film.
    vectors : dict of str to Vectors
        Fixed vectors of the vocabularies that have some.
    """

    def __init__(self, fitted: FittedPipeline, candidates: pd.DataFrame) -> None:
        self.fitted, self.candidates = fitted, candidates
        encoder, classifier = fitted.now()
        rows = replace(encoder._row_encoder(), user=None, time=None)
        self._learnt, self.net = rows.learnt, classifier.net_
        self.vectors = rows.vectors
        self.schema: Schema = self._learnt.schema
        encoded = EncodedFeatures._without_checks(self.schema, {}, {})
        check_features(classifier, encoded, schema=classifier.schema_, is_encoded=True)
        names = {*candidates.columns}
        others = {*self._learnt.names} - names
        self._of_users = replace(rows, learnt=self._learnt.without(names))
        self._of_candidates = replace(rows, learnt=self._learnt.without(others))
        self.columns, self.bags = self._encode_candidates()
        for behaviour in self.schema.behaviours:
            of_events = {*behaviour.histories, *behaviour.numbers}
            if of_events & names and not of_events <= names:
                raise ValueError(
                    f"{sorted(of_events)} describe the same events, got "
                    f"{sorted(of_events & names)} among the candidates. Give all of them with the "
                    "users, or with the candidates."
                )

    def is_current(self) -> bool:
        """Return whether the model is still as it was."""
        encoder, classifier = self.fitted.now()
        is_same = encoder._learnt is self._learnt and classifier.net_ is self.net
        return is_same and encoder._look_up_vectors() is self.vectors

    def suits(self, users: Users) -> bool:
        """Return whether users of these columns can be encoded beside the candidates."""
        return True

    def read(self, users: Users) -> Columns:
        """Return users as :meth:`encode` takes them."""
        separator = self.fitted.encoder.separator
        if isinstance(users, pd.DataFrame):
            return Columns(users, separator=separator)
        return OneRow(users, separator=separator)

    def encode(self, users: Columns) -> EncodedFeatures:
        """Return users with the columns that do not follow the candidate."""
        return self._of_users.encode_columns(users)

    def read_histories(self, users: Columns) -> Columns:
        """Return users as the encoder is given them."""
        return users

    def take(
        self, of_user: EncodedFeatures, users: np.ndarray, candidates: np.ndarray
    ) -> EncodedFeatures:
        """Return pairs by their rows: ids and windows are taken, no event is read or copied."""
        columns = {
            field.name: self.columns[field.name][candidates]
            if field.name in self.columns
            else of_user.columns[field.name][users]
            for field in self.schema.fields
            if not field.is_history
        }
        behaviours = {
            key: self.bags[key].take(candidates)
            if key in self.bags
            else of_user.behaviours[key].take(users)
            for key in (behaviour.histories for behaviour in self.schema.behaviours)
        }
        return EncodedFeatures._without_checks(
            self.schema, columns, behaviours, vectors=self.vectors
        )

    @cached_property
    def item(self) -> str | None:
        """The column that tells what a candidate is: of those with a history, the most values."""
        compared = {name for behaviour in self.schema.behaviours for name in behaviour.candidates}
        single = {*self.schema.names("categorical")}  # no lists, such as a film's genres
        names = [name for name in self.columns if name in compared & single]
        return max(names, key=lambda name: self.schema[name].n_ids, default=None)

    @cached_property
    def places(self) -> PlacesOfIds:
        """Where the values of :attr:`item` stand among the candidates."""
        return PlacesOfIds(self.columns[cast(str, self.item)])

    @cached_property
    def neighbours(self) -> list[NeighbourPair]:
        """Item neighbours of :attr:`item`, by the histories that it is compared with."""
        pairs = self.net.neighbours_.widen(self.schema).pairs
        return [pair for pair in pairs if pair.candidate == self.item]

    @cached_property
    def attributes(self) -> list[tuple[str, str]]:
        """Histories of other columns of candidates than :attr:`item`, and these columns."""
        behaviours, single = self.schema.behaviours, {*self.schema.names("categorical")}
        pairs = [pair for b in behaviours for pair in zip(b.histories, b.candidates, strict=True)]
        names = (single & self.columns.keys()) - {self.item}
        return [(history, name) for history, name in pairs if name in names]

    @cached_property
    def shortlist(self) -> Shortlist:
        """The choice of some candidates for each user."""
        if self.item is None:
            raise ValueError(
                "shortlist needs candidates that are compared with a history, and these have the "
                f"columns {list(self.candidates.columns)}, which no history pairs with. Give the "
                "items themselves, or a frame of pairs as only."
            )
        if not self.neighbours:
            raise ValueError(
                f"shortlist chooses by item neighbours of {self.item!r}, and this model has none. "
                "A classifier learns them where user or time is named, HistorySequenceEncoder("
                "user=..., time=...), and neighbours is not None. For other models give the "
                "candidates of each user as only, for example those of ItemNeighbours.recommend."
            )
        field, ids = self.schema[self.item], self.columns[self.item]
        first_seen = self.net.novelty_.widen(self.schema).first_seen.get(field.vocabulary)
        newest = np.empty(0, dtype=np.int64)
        if first_seen is not None:
            moments = first_seen[ids_to_look_up(ids)]
            newest = np.argsort(-moments, kind="stable")
            newest = newest[moments[newest] < NEVER]
        scores = [pair.scores for pair in self.neighbours]
        vectors = self.vectors.get(field.vocabulary)
        attributes = [(self.columns[name], self.schema[name].n_ids) for _, name in self.attributes]
        return Shortlist(scores, ids, attributes=attributes, newest=newest, vectors=vectors)

    def choose(self, X: EncodedFeatures, user: int, n: int, excluded: np.ndarray) -> np.ndarray:
        """Return the positions of n candidates for a row of users, in ascending order."""

        def events(history: str) -> np.ndarray:
            ragged = X.behaviours[self.schema.behaviour_of(history).histories]
            return ragged.columns[history][ragged.whole.take(slice(user, user + 1)).index()]

        histories = [events(pair.history) for pair in self.neighbours]
        of_attributes = [events(history) for history, _ in self.attributes]
        return self.shortlist.choose(histories, n, excluded, of_attributes=of_attributes)

    def find_seen(self, users: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Return all events of users that may be a candidate: whose each is, and its id."""
        columns, rows, ids = self.read_histories(users), [], []
        for behaviour in self.schema.behaviours:
            for name, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
                if candidate == self.item:
                    events = self._learnt.ids_of_events(name, columns.history(name))
                    rows.append(events[0])
                    ids.append(events[1])
        return np.concatenate(rows), np.concatenate(ids)

    def ids_of_items(self, values: Sequence[object]) -> np.ndarray:
        """Return the ids of some values of :attr:`item`, as a list of them is read."""
        name = cast(str, self.item)
        cells = OneRow({name: list(values)}).history(name)
        return self._learnt.ids_of(name, cells.codes(slice(0, len(cells.values))))

    def _encode_candidates(
        self,
    ) -> tuple[dict[str, Column], dict[tuple[str, ...], Ragged]]:
        separator = self.fitted.encoder.separator
        X = self._of_candidates.encode_columns(Columns(self.candidates, separator=separator))
        return X.columns, X.behaviours


class CatalogueBehindSteps(Catalogue):
    """Candidates beside a stand-in for the user, where other steps stand before the classifier.

    Only such a step can compute a column from user and candidate together.

    Parameters
    ----------
    fitted : FittedPipeline
        The model.
    candidates : DataFrame
        One row per candidate.
    users : DataFrame or mapping
        Users, of whom the first one is the stand-in.
    names : list of str
        The columns that the first step is given, in their order.
    """

    def __init__(
        self, fitted: FittedPipeline, candidates: pd.DataFrame, users: Users, names: list[str]
    ) -> None:
        self._names, self._user = names, frame_of_users(users)[:1]
        super().__init__(fitted, candidates)

    def suits(self, users: Users) -> bool:
        """Return whether users have the columns of the stand-in."""
        return {*self._user.columns} == {*users}

    def read(self, users: Users) -> Columns:
        """Return users beside a stand-in for the candidate."""
        frame = frame_of_users(users)
        return Columns(self.pair(frame, np.zeros(len(frame), dtype=np.intp)))

    def encode(self, users: Columns) -> EncodedFeatures:
        """Return pairs, the slow way: as one frame through every step."""
        return self.fitted.encode(users.frame)

    def read_histories(self, users: Columns) -> Columns:
        """Return users as the steps before the encoder leave them."""
        frame = cast("pd.DataFrame", pandas_frame(self.fitted.read(users.frame)))
        return Columns(frame, separator=self.fitted.encoder.separator)

    def pair(self, users: pd.DataFrame, candidates: np.ndarray) -> pd.DataFrame:
        """Return pairs of users and candidates by position, as the first step is given them."""
        left = users.reset_index(drop=True)
        right = self.candidates.take(candidates).reset_index(drop=True)
        return pd.DataFrame({n: (left if n in left else right)[n] for n in self._names})

    def _encode_candidates(
        self,
    ) -> tuple[dict[str, Column], dict[tuple[str, ...], Ragged]]:
        """Encoded columns and bags that follow the candidate, also those that a step added."""
        user, candidates = self._user, self.candidates
        blocks = [
            self.fitted.encode(self.pair(user.iloc[np.zeros_like(block)], block))
            for block in blocks_of(len(candidates))
        ]
        self.schema = blocks[0].schema
        columns: dict[str, Column] = {}
        for name in blocks[0].columns:
            values = join_columns([block.columns[name] for block in blocks])
            is_added = name not in user and name not in candidates
            compared: Any = getattr(values, "digests", values)  # of lists
            if name in candidates or (is_added and (compared != compared[0]).any()):
                columns[name] = values
        bags = {}
        for behaviour in blocks[0].schema.behaviours:
            key = behaviour.histories
            if key[0] in candidates:  # a bag, such as a film's genres
                bags[key] = _join([block.behaviours[key] for block in blocks])
        return columns, bags


def catalogue_of(
    fitted: FittedPipeline, candidates: pd.DataFrame, users: Users, names: list[str]
) -> Catalogue:
    """Encode candidates; ``names`` are the columns of both that the first step is given."""
    if has_other_steps(fitted):
        return CatalogueBehindSteps(fitted, candidates, users, names)
    return Catalogue(fitted, candidates)


def has_other_steps(fitted: FittedPipeline) -> bool:
    """Return whether other steps than the encoder stand before the classifier."""
    return len(list(flat_steps(fitted.transformers))) > 1


def frame_of_users(users: Users) -> pd.DataFrame:
    """Return users as a frame: of a mapping, one of them."""
    if isinstance(users, pd.DataFrame):
        return users
    return pd.DataFrame({name: pd.Series([value]) for name, value in users.items()})


def blocks_of(n_rows: int) -> list[np.ndarray]:
    """Return the numbers of rows, some at a time."""
    starts = range(0, n_rows, ROWS_PER_BLOCK)
    return [np.arange(start, min(start + ROWS_PER_BLOCK, n_rows)) for start in starts]


def _join(blocks: list[Ragged]) -> Ragged:
    """Return rows one after the other, the older events of each in front of its window."""
    whole = [block.over(block.columns, block.whole) for block in blocks]
    columns = {n: join_columns([rows.flat(n) for rows in whole]) for n in blocks[0].columns}
    lengths = np.concatenate([rows.spans.lengths for rows in whole])
    shown = np.concatenate([block.spans.lengths for block in blocks])
    n_older = (lengths - shown).astype(np.int16)
    return Ragged(columns, Spans.from_lengths(lengths).newest(shown), n_older=n_older)
