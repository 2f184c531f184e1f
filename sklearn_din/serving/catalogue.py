"""Candidates that are encoded once, and the users to rank them for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import cast

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import HistoryCells
from sklearn_din.encoding.column import Part
from sklearn_din.encoding.frames import validate_frame
from sklearn_din.encoding.notices import FEW_VALUES
from sklearn_din.encoding.table import ColumnReader, OneRow
from sklearn_din.encoding.vocabulary import kind_of_ids
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import UNKNOWN_ID, Schema
from sklearn_din.inspection.fitted import FittedPipeline
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.neighbours.blocks import NEVER
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.neighbours.shortlist import Shortlist
from sklearn_din.serving.allowed_pairs import PlacesOfIds
from sklearn_din.serving.pair_levels import PairLevels, Users
from sklearn_din.serving.pair_requests import PairRequests
from sklearn_din.utils.spelling import find_respelling
from sklearn_din.utils.warnings import warn_once

CHECKED_PAIRS = 256


class Catalogue:
    """Candidates, encoded once, and the state of the model that they were encoded by.

    Candidates are encoded without the columns of users, and the other way round. Steps before the
    encoder are given candidates beside one user, and users beside one candidate: a column that such
    a step adds follows the candidate where it differs among candidates. Steps behind the encoder
    are given pairs. Where there are such steps before it, the first of ``users`` stands beside the
    candidates, and ``names`` are the columns that the first step is given, in their order.

    ``columns`` are the encoded columns that follow the candidate, (n_candidates,) each; ``bags``
    the encoded histories that do, such as the genres of a film.
    """

    def __init__(
        self,
        fitted: FittedPipeline,
        candidates: pd.DataFrame,
        users: Users | None = None,
        names: Sequence[str] = (),
        memory: HistoryBuilder | None = None,
    ) -> None:
        self.fitted, self.candidates, self._names = fitted, candidates, names
        self.net = fitted.classifier.net_
        self._separator = fitted.encoder.separator
        rows, reads_users = fitted.encoder._row_encoder(), self.net.reads_users
        named = {what: n for what, n in rows.metadata.items() if what == "users" and reads_users}
        self._rows = replace(rows, metadata=named)
        self.vectors, learnt = self._rows.vectors, self._rows.learnt
        self.schema: Schema = learnt.schema
        self._user, frame, own = None, candidates, {*candidates.columns}
        self.levels = None
        if memory is not None and memory.memory_ is not None:
            self.levels = PairLevels(memory.memory_, learnt, candidates)
        self.requests = PairRequests(self.schema, learnt.numbers, candidates)
        levels = () if self.levels is None else self.levels.names
        self._of_pairs = of_pairs = {*self.requests.neutral, *levels}
        if users is not None and fitted.around_encoder()[0]:
            self._user = frame_of_users(users)[:1]
            user = self._user.iloc[np.zeros(len(candidates), dtype=np.intp)]
            frame = self._pair(user, np.arange(len(candidates)))
            single = [name for name in learnt.of_rows if name in frame]
            added = [name for name in single if name not in {*names, *of_pairs}]
            own |= {name for name in added if frame[name].map(str).nunique() > 1}
        own -= of_pairs
        self._of_users = replace(self._rows, learnt=learnt.without(own | of_pairs))
        of_candidates = replace(self._rows, learnt=learnt.without({*learnt.names} - own))
        encoded = of_candidates.encode_columns(ColumnReader(frame, separator=self._separator))
        self.columns, self.bags = encoded.columns, encoded.behaviours
        self._warn_of_unknown_items()
        for behaviour in self.schema.behaviours:
            of_events = {*behaviour.histories, *behaviour.numbers}
            if of_events & own and not of_events <= own:
                raise ValueError(
                    f"{sorted(of_events)} describe the same events, got "
                    f"{sorted(of_events & own)} among the candidates. Give all of them with the "
                    "users, or with the candidates."
                )

    def _warn_of_unknown_items(self) -> None:
        """Warn where no candidate is known from fit, and no fixed vector describes them."""
        if self.item is None or self.item not in self.candidates or len(self.candidates) < 2:
            return
        name = self.schema[self.item].vocabulary
        known = self._rows.learnt.vocabularies[name].values
        values = self.candidates[self.item].to_numpy()
        is_reported = kind_of_ids(values) != kind_of_ids(known)
        if len(values) >= FEW_VALUES and find_respelling(values, known) is not None:
            is_reported = True
        is_known = ids_to_look_up(self.columns[self.item]) != UNKNOWN_ID
        if not is_reported and name not in self.vectors and not is_known.any():
            warn_once(
                f"none of the {len(is_known):,} candidates is known from fit: {self.item} holds "
                f"ids such as {values.tolist()[0]!r:.40}, at fit {known.tolist()[0]!r:.40}. "
                "They are ranked by their other columns only, and are tied where these are equal. "
                "If they are not new items, write their ids as they were written at fit."
            )

    def suits(self, users: Users) -> bool:
        """Return whether the model is still as it was, and users have the columns that it needs."""
        encoder, net = self.fitted.encoder, self.fitted.classifier.net_
        is_same = encoder._learnt is self._rows.learnt and net is self.net
        is_same &= encoder._look_up_vectors() is self.vectors
        return is_same and (self._user is None or {*self._user} == {*users})

    def read(self, users: Users) -> tuple[ColumnReader, EncodedFeatures]:
        """Return users as they are read, and encoded: columns that do not follow the candidate."""
        if self._user is not None:
            frame = frame_of_users(users)
            users = self._pair(frame, np.zeros(len(frame), dtype=np.intp))
        columns: ColumnReader
        if isinstance(users, pd.DataFrame):
            columns = ColumnReader(users, separator=self._separator)
        else:
            columns = OneRow(users, separator=self._separator)
        return columns, self._of_users.encode_columns(columns)

    def take(
        self,
        of_user: EncodedFeatures,
        users: np.ndarray,
        candidates: np.ndarray,
        levels: Callable[..., dict] | None,
        compared: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> EncodedFeatures:
        """Return pairs by their rows, with levels and compared numbers where there are such."""
        metadata = {what: values[users] for what, values in of_user.metadata.items()}
        joint = {**compared, **({} if levels is None else levels(users, candidates))}
        columns = joint | {
            field.name: self.columns[field.name][candidates]
            if field.name in self.columns
            else of_user.columns[field.name][users]
            for field in self.schema.fields
            if not field.is_history and field.name not in joint
        }
        behaviours = {
            key: self.bags[key].take(candidates)
            if key in self.bags
            else of_user.behaviours[key].take(users)
            for key in (behaviour.histories for behaviour in self.schema.behaviours)
        }
        return EncodedFeatures._without_checks(
            self.schema, columns, behaviours, vectors=self.vectors, **metadata
        )

    def compare(
        self, users: np.ndarray, candidates: np.ndarray, levels: Callable[..., dict] | None
    ) -> dict[str, np.ndarray]:
        """Return how pairs compare within the whole list of their user, encoded."""
        if not self.requests.neutral:
            return {}
        raw = None if levels is None else partial(levels, is_encoded=False)
        return self._rows.learnt.encode_numbers(self.requests.compare(users, candidates, raw))

    def score(self, pairs: EncodedFeatures) -> np.ndarray:
        """Return the network's outputs for pairs."""
        for step in self.fitted.around_encoder()[1]:
            pairs = step.transform(pairs)
        return self.net.score(self.fitted.classifier._prepare_rows(pairs))

    def find_joint_fields(self, of_user: EncodedFeatures, users: Users) -> list[str]:
        """Return fields that differ where pairs, spread over users and candidates, are whole."""
        if self._user is None:
            return []
        frame, n_candidates = frame_of_users(users), len(self.candidates)
        n_pairs = min(CHECKED_PAIRS, max(len(frame), n_candidates))
        rows = np.linspace(0, len(frame) - 1, n_pairs).astype(np.intp)
        candidates = np.linspace(n_candidates - 1, 0, n_pairs).astype(np.intp)
        pairs = self._pair(frame.iloc[rows], candidates)
        together = self._rows.encode_columns(ColumnReader(pairs, separator=self._separator))
        joint = self._of_pairs
        missing = {*map(self.schema.indicator_of, joint)}
        taken = self.take(
            of_user, rows, candidates, None, dict.fromkeys(joint | missing, np.empty(0))
        )
        others = [name for name in together if name not in joint | missing]
        pairs_of = {name: (together[name], taken[name]) for name in others}
        return [n for n, both in pairs_of.items() if not np.array_equal(*both, equal_nan=True)]

    def _pair(self, users: pd.DataFrame, candidates: np.ndarray) -> pd.DataFrame:
        """Return pairs of users and candidates by position, as the encoder is given them."""
        left = users.reset_index(drop=True)
        right = self.candidates.take(candidates).reset_index(drop=True)
        left = left.assign(**self.requests.neutral)
        pairs = pd.DataFrame({n: (left if n in left else right)[n] for n in self._names})
        encoder, read = self.fitted.encoder, self.fitted.read(pairs)
        of_events = (name for b in self.schema.behaviours for name in (*b.histories, *b.numbers))
        own = [name for name in of_events if name in left and name not in pairs]  # are as they are
        read = read.assign(**{name: left[name].to_numpy() for name in own})
        return validate_frame(encoder, read, reset=False, droppable=encoder._optional)

    @cached_property
    def item(self) -> str | None:
        """The column that tells what a candidate is: of some categories, that of categories."""
        sizes = {n: size for n, size in self.schema.compared_sizes.items() if n in self.columns}
        if self.schema.item in self.columns:
            return self.schema.item
        return max(sizes, key=sizes.__getitem__, default=None)

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
        pairs = [pair for b in behaviours for pair in b.candidate_of.items()]
        names = single.intersection(self.columns) - {self.item}
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
                "user=..., time=...), and neighbours is not None; a regressor has none. Or give "
                "the candidates of each user as only."
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

    def find_similar(self, position: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of candidates that go best with one, and their scores above 0."""
        one = self.columns[cast(str, self.item)][position : position + 1]
        near, scores = self.shortlist.rank([one for _ in self.neighbours], n, np.array([position]))
        return near[scores > 0], scores[scores > 0]

    def choose(self, X: EncodedFeatures, user: int, n: int, excluded: np.ndarray) -> np.ndarray:
        """Return the positions of n candidates for a row of users, in ascending order."""

        def events(history: str) -> np.ndarray:
            ragged = X.behaviours[self.schema.behaviour_of(history).histories]
            return ragged.columns[history][ragged.whole.take(slice(user, user + 1)).index()]

        histories = [events(pair.history) for pair in self.neighbours]
        of_attributes = [events(history) for history, _ in self.attributes]
        return self.shortlist.choose(histories, n, excluded, of_attributes=of_attributes)

    def find_seen(self, users: ColumnReader) -> tuple[np.ndarray, np.ndarray]:
        """Return all events of users that may be a candidate: whose each is, and its id."""
        rows, ids = [], []
        for behaviour in self.schema.behaviours:
            for name, candidate in behaviour.candidate_of.items():
                if candidate == self.item:
                    cells = users.history(name).expand()
                    rows.append(np.repeat(np.arange(len(cells.spans)), cells.spans.lengths))
                    ids.append(self._ids_of(name, cells))
        return np.concatenate(rows), np.concatenate(ids)

    def ids_of_items(self, values: Sequence[object]) -> np.ndarray:
        """Return the ids of some values of :attr:`item`, as a list of them is read."""
        name = cast(str, self.item)
        cells = OneRow({name: list(values)}).history(name)
        return self._ids_of(name, cells)

    def _ids_of(self, name: str, cells: HistoryCells) -> np.ndarray:
        """Return the ids of all events of a history, or of values of a column."""
        learnt, codes = self._rows.learnt, cells.codes(slice(0, len(cells.values)))
        return learnt.ids[name].encode(Part({name: codes}), learnt.vocabularies)[name]


def frame_of_users(users: Users) -> pd.DataFrame:
    """Return users as a frame: of a mapping, one of them."""
    if isinstance(users, pd.DataFrame):
        return users
    return pd.DataFrame({name: pd.Series([value]) for name, value in users.items()})
