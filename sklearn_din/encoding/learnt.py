"""Knowledge of a fitted encoder, which turns values into ids and scaled numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import Codes, HistoryCells
from sklearn_din.encoding.fixed_vectors import VectorScale
from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.profile import ColumnProfile, newest_numbers, rows_to_compare
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, indicator
from sklearn_din.encoding.spelling import note_unknown
from sklearn_din.encoding.vocabulary import IdRules, Occurrences, Vocabulary, plain_ids
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind, Schema


@dataclass(frozen=True)
class Learnt:
    """Roles, vocabularies and scales: all that encoding needs. It never changes.

    ``names`` are the columns of fit in their order, ``max_length`` is how many of its newest events
    a history keeps. Vocabularies are named by the column that they belong to: a history shares its
    candidate's. Columns in ``has_missing`` get an indicator of missing numbers. ``profiles`` say
    what the rows of fit looked like, and have no part in encoding; rows that came later do not
    change them.
    """

    names: tuple[str, ...]
    max_length: int
    roles: Roles
    vocabularies: Mapping[str, Vocabulary]
    number_scales: Mapping[str, EventScale]
    event_scales: Mapping[str, EventScale]
    has_missing: tuple[str, ...]
    profiles: Mapping[str, ColumnProfile]
    vector_scales: Mapping[str, VectorScale] = field(default_factory=dict)

    @cached_property
    def schema(self) -> Schema:
        """The meaning of each encoded column."""
        roles, fields = self.roles, list[Field]()
        for name in self.names:
            if name in roles.numeric:
                fields.append(Field(name, "numeric"))
                if name in self.has_missing:
                    fields.append(Field(indicator(name), "numeric"))
            elif name in roles.owners:
                kind: Kind = "history" if name in roles.histories else "categorical"
                if name in roles.lists:
                    kind = "list_history" if name in roles.histories else "list"
                owner = roles.owners[name]
                known, vectors = self.vocabularies[owner], self.vector_scales.get(owner)
                size = known.n_ids, known.digest
                n_dims = 0 if vectors is None else len(vectors.mean)
                grown_from = known.grown_from
                fields.append(Field(name, kind, owner, *size, n_dims=n_dims, grown_from=grown_from))
            elif name in self.event_scales:
                fields.append(Field(name, "numeric_history"))
        return Schema(tuple(fields), roles.behaviours, self.max_length, roles.unused)

    def encode_columns(self, read: ReadFrame) -> dict[str, Column]:
        """Columns of one number, one id or one list of ids per row, by name."""
        columns: dict[str, Column] = {}
        for name, numbers in read.numbers.items():
            columns[name] = self.number_scales[name].encode(numbers)
            if name in self.has_missing:
                columns[indicator(name)] = np.isnan(numbers).astype(np.float32)
        return columns | {name: self.ids_of(name, codes) for name, codes in read.codes.items()}

    def encode_behaviours(self, read: ReadFrame) -> dict[tuple[str, ...], Ragged]:
        """Histories of each behaviour: ids, and numbers on their scale."""
        behaviours = {}
        for behaviour, events in read.events.items():
            values = {name: self.ids_of(name, codes) for name, codes in events.codes.items()}
            row_times = {}
            for name, numbers in events.numbers.items():
                scale = self.event_scales[name]
                if name in events.row_times:
                    times = scale.encode_times(numbers, events.row_times[name])
                    values[name], row_times[name] = times
                else:
                    values[name] = scale.encode(numbers)
            behaviours[behaviour] = Ragged(values, events.spans, row_times, events.n_older)
        return behaviours

    def ids_of(self, name: str, codes: Codes) -> Column:
        """Ids of one column's values, or lists of them, given as codes and distinct values."""
        vocabulary = self.vocabularies[self.roles.owners[name]]
        ids = vocabulary.encode(plain_ids(codes[1], name=name), name=name)
        ids = np.append(ids, np.int32(UNKNOWN_ID))  # code -1 is missing: of no value
        return codes[0].map(ids) if isinstance(codes[0], IdLists) else ids[codes[0]]

    def ids_of_events(self, name: str, cells: HistoryCells) -> tuple[np.ndarray, np.ndarray]:
        """Return all events of a history, one row after the other: the row of each, and its id."""
        cells = cells.expand()
        rows = np.repeat(np.arange(len(cells.spans)), cells.spans.lengths)
        return rows, self.ids_of(name, cells.codes(slice(0, len(cells.values))))

    def note_unknown(
        self,
        read: ReadFrame,
        encoded: Mapping[str, Column],
        behaviours: Mapping[tuple[str, ...], Ragged],
    ) -> list[str]:
        """Return what to say of columns all of whose ids, encoded already, are unknown."""
        ids = dict(encoded)
        for ragged in behaviours.values():
            ids |= ragged.columns
        ids = {name: v.distinct.ids if isinstance(v, IdLists) else v for name, v in ids.items()}
        owners = {n: o for n, o in self.roles.owners.items() if n in ids and len(ids[n])}
        unknown = [name for name in owners if ids[name].max() <= UNKNOWN_ID]
        notices = []
        for name in unknown:
            same = [other for other in owners if owners[other] == owners[name]]
            values = pd.unique(plain_ids(read.values()[name], name=name))
            vocabulary = self.vocabularies[owners[name]]
            if np.isin(values.astype(str), vocabulary.rare.astype(str)).any():
                continue  # seen at fit, too rarely for an id
            notice = note_unknown(
                name,
                values,
                vocabulary.values,
                is_compared=len(same) > 1 and set(same) <= set(unknown),
            )
            notices += [] if notice is None else [notice]
        return notices

    def refuse_unknown(self, read: ReadFrame) -> None:
        """Raise where a value was not seen at fit."""
        for name, values, counts, _ in read.count_values():
            plain = plain_ids(values[counts > 0], name=name)
            vocabulary = self.vocabularies[self.roles.owners[name]]
            vocabulary.refuse_unknown(plain, vocabulary.encode(plain, name=name), name=name)

    def profile(self, read: ReadFrame) -> dict[str, ColumnProfile]:
        """Return what the columns of some rows look like, in the bins of the training rows."""
        profiles, n_rows = {}, read.n_rows
        n_empty = {
            name: events.totals.empty
            for events in read.events.values()
            for name in (*events.codes, *events.numbers)
        }
        for name, values, counts, n_missing in read.count_values():
            profiles[name] = self.profiles[name].of_ids(
                self.ids_of(name, (np.arange(len(values)), values)),
                counts,
                missing=n_missing,
                rows=n_rows,
                empty=n_empty.get(name, 0),
            )
        numbers = {
            name: newest_numbers(events, name)
            for events in read.events.values()
            for name in events.numbers
        }
        for name, values in (read.numbers | numbers).items():
            profiles[name] = self.profiles[name].of_numbers(
                values, rows=n_rows, empty=n_empty.get(name, 0)
            )
        return profiles

    def find_changed_units(self, read: ReadFrame) -> dict[str, float]:
        """Return the columns whose numbers are a multiple of those at fit, and which."""
        rows = rows_to_compare(read.n_rows)
        numbers = {name: values[rows] for name, values in read.numbers.items()}
        for events in read.events.values():
            numbers |= {name: newest_numbers(events, name, rows) for name in events.numbers}
        factors = {name: self.profiles[name].find_factor(numbers[name]) for name in numbers}
        return {name: factor for name, factor in factors.items() if factor is not None}

    def note_lengths(self, n_events: Mapping[tuple[str, ...], int], n_rows: int) -> list[str]:
        """Return what to say of histories, by behaviour, with far fewer events than at fit."""
        single = {names: [n for n in names if n not in self.roles.lists] for names in n_events}
        return [
            f"histories of {'+'.join(names)} hold less than a third of the events that they held "
            "at fit: are they empty, or cut? Attach them as for fit, from a log up to these rows."
            for names, n in n_events.items()
            if single[names] and self.profiles[single[names][0]].has_more_events(n, n_rows)
        ]

    def grow(self, counts: Mapping[str, Mapping[str, Occurrences]], rules: IdRules) -> Learnt:
        """Append the values of later rows to the vocabularies; all else stays.

        Counts are by vocabulary, then by column.
        """
        vocabularies = {
            owner: self.vocabularies[owner].grow(sources, rules, name=owner)
            for owner, sources in counts.items()
        }
        return replace(self, vocabularies=vocabularies)

    def join(self, later: Learnt) -> Learnt:
        """Return what is known, and behind it what was learnt of columns that came later."""
        names = ("vocabularies", "number_scales", "event_scales", "profiles")
        both: dict[str, Any] = {n: {**getattr(self, n), **getattr(later, n)} for n in names}
        missing = (*self.has_missing, *later.has_missing)
        roles = self.roles.join(later.roles)
        return replace(self, names=later.names, roles=roles, has_missing=missing, **both)

    def without(self, names: Collection[str]) -> Learnt:
        """Return the same without some columns; a behaviour goes with any of its histories."""
        roles, names = self.roles, {*names}
        rest = tuple(b for b in roles.behaviours if names.isdisjoint((*b.histories, *b.numbers)))
        gone = {*roles.histories} - {name for b in rest for name in b.histories}
        roles = replace(
            roles,
            numeric=tuple(name for name in roles.numeric if name not in names),
            categorical=tuple(name for name in roles.categorical if name not in names),
            lists=tuple(name for name in roles.lists if name not in names | gone),
            behaviours=rest,
        )
        scaled = {name for b in rest for name in b.numbers}
        scales = {name: s for name, s in self.event_scales.items() if name in scaled}
        return replace(self, roles=roles, event_scales=scales)

    def check(self) -> None:
        """Raise ValueError where the parts do not fit."""
        roles, histories = self.roles, [n for b in self.roles.behaviours for n in b.numbers]
        if self.number_scales.keys() != {*roles.numeric} or self.event_scales.keys() != {
            *histories
        }:
            raise ValueError("each column of numbers must have a scale.")
        if not {*self.has_missing} <= {*roles.numeric}:
            raise ValueError("columns with missing numbers must be columns of numbers.")
        if self.vocabularies.keys() != {*roles.owners.values()}:
            raise ValueError("each column of ids must have a vocabulary.")
        if not self.vector_scales.keys() <= self.vocabularies.keys():
            raise ValueError("vectors must be those of a vocabulary.")
        numbers = {*self.number_scales, *self.event_scales}
        kinds = {name: profile.bins.dtype.kind for name, profile in self.profiles.items()}
        if kinds != dict.fromkeys(numbers, "f") | dict.fromkeys(roles.owners, "i"):
            raise ValueError("each column must have a profile of its kind.")
        if not kinds.keys() <= {*self.names}:
            raise ValueError("each column with a role must be one of the columns of fit.")
        self.schema.check()
