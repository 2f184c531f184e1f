"""Knowledge of a fitted encoder, which turns values into ids and scaled numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_din._estimator_state import check_dict, check_keys
from sklearn_din._typed_fields import from_dict, to_dict
from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.profile import ColumnProfile, newest_numbers, rows_to_compare
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, indicator
from sklearn_din.encoding.single_values import Codes
from sklearn_din.encoding.spelling import note_unknown
from sklearn_din.encoding.vocabulary import Occurrences, Vocabulary, plain_ids
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind, Schema

PARTS = {"roles", "vocabularies", "number_scales", "event_scales", "has_missing", "profiles"}


@dataclass(frozen=True)
class Learnt:
    """Roles, vocabularies and scales: all that encoding needs. It never changes.

    Vocabularies are named by the column that they belong to: a history shares its candidate's.
    Columns in ``has_missing`` get an indicator of missing numbers. ``profiles`` say what the rows
    of fit looked like, and have no part in encoding; rows that came later do not change them.
    """

    roles: Roles
    vocabularies: Mapping[str, Vocabulary]
    number_scales: Mapping[str, EventScale]
    event_scales: Mapping[str, EventScale]
    has_missing: tuple[str, ...]
    profiles: Mapping[str, ColumnProfile]

    def schema(self, names: Sequence[str], *, max_length: int) -> Schema:
        """Return the meaning of each encoded column."""
        roles, fields = self.roles, list[Field]()
        for name in names:
            if name in roles.numeric:
                fields.append(Field(name, "numeric"))
                if name in self.has_missing:
                    fields.append(Field(indicator(name), "numeric"))
            elif name in roles.owners:
                kind: Kind = "categorical" if name in roles.categorical else "history"
                owner = roles.owners[name]
                vocabulary = self.vocabularies[owner]
                fields.append(Field(name, kind, owner, vocabulary.n_ids, vocabulary.digest))
            elif name in self.event_scales:
                fields.append(Field(name, "numeric_history"))
        return Schema(tuple(fields), roles.behaviours, max_length, roles.unused)

    def encode_columns(self, read: ReadFrame) -> dict[str, np.ndarray]:
        """Columns of one number or one id per row, by name."""
        columns = {}
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
            anchors = {}
            for name, numbers in events.numbers.items():
                scale = self.event_scales[name]
                if name in events.anchors:
                    times = scale.encode_times(numbers, events.anchors[name])
                    values[name], anchors[name] = times
                else:
                    values[name] = scale.encode(numbers)
            behaviours[behaviour] = Ragged(values, events.spans, anchors)
        return behaviours

    def ids_of(self, name: str, codes: Codes) -> np.ndarray:
        """Ids of one column's values, given as codes and distinct values."""
        vocabulary = self.vocabularies[self.roles.owners[name]]
        ids = vocabulary.encode(plain_ids(codes[1], name=name), name=name)
        return np.append(ids, np.int32(UNKNOWN_ID))[codes[0]]  # code -1 is missing: of no value

    def note_unknown(
        self,
        read: ReadFrame,
        encoded: Mapping[str, np.ndarray],
        behaviours: Mapping[tuple[str, ...], Ragged],
    ) -> list[str]:
        """Return what to say of columns all of whose ids, encoded already, are unknown."""
        ids = dict(encoded)
        for ragged in behaviours.values():
            ids |= ragged.columns
        owners = {n: o for n, o in self.roles.owners.items() if n in ids and len(ids[n])}
        unknown = [name for name in owners if ids[name].max() <= UNKNOWN_ID]
        notices = []
        for name in unknown:
            kin = [other for other in owners if owners[other] == owners[name]]
            values = plain_ids(read.id_columns()[name][0][1], name=name)
            vocabulary = self.vocabularies[owners[name]]
            if np.isin(values.astype(str), vocabulary.rare.astype(str)).any():
                continue  # seen at fit, too rarely for an id
            notice = note_unknown(
                name,
                values,
                vocabulary.values,
                is_compared=len(kin) > 1 and set(kin) <= set(unknown),
            )
            notices += [] if notice is None else [notice]
        return notices

    def refuse_unknown(self, read: ReadFrame) -> None:
        """Raise where a value was not seen at fit."""
        for name, ((codes, values), _) in read.id_columns().items():
            present = np.bincount(codes + 1, minlength=len(values) + 1)[1:] > 0
            plain = plain_ids(values[present], name=name)
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
        for name, ((codes, values), weights) in read.id_columns().items():
            counts = np.bincount(codes + 1, weights=weights, minlength=len(values) + 1)
            profiles[name] = self.profiles[name].of_ids(
                self.ids_of(name, (np.arange(len(values)), values)),
                counts[1:],
                missing=counts[0],
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

    def grow(
        self,
        counts: Mapping[str, Mapping[str, Occurrences]],
        *,
        min_frequency: int,
        max_ids: int | None,
        keep_rare: bool,
    ) -> Learnt:
        """Append the values of later rows to the vocabularies; all else stays.

        Counts are by vocabulary, then by column; the rest is as for :meth:`Vocabulary.grow`.
        """
        vocabularies = {
            owner: self.vocabularies[owner].grow(
                sources,
                name=owner,
                min_frequency=min_frequency,
                max_ids=max_ids,
                keep_rare=keep_rare,
            )
            for owner, sources in counts.items()
        }
        return dataclasses.replace(self, vocabularies=vocabularies)

    def grow_schema(self, schema: Schema) -> Schema:
        """Return a schema with the sizes and digests of vocabularies that have grown."""
        fields = []
        for field in schema.fields:
            if field.has_ids:
                vocabulary = self.vocabularies[field.vocabulary]
                field = dataclasses.replace(
                    field,
                    n_ids=vocabulary.n_ids,
                    digest=vocabulary.digest,
                    grown_from=vocabulary.grown_from,
                )
            fields.append(field)
        return dataclasses.replace(schema, fields=tuple(fields))

    def state(self) -> dict[str, Any]:
        """Write all as dicts, lists, text, numbers and arrays."""
        return {
            "roles": to_dict(self.roles),
            "vocabularies": {name: known.state() for name, known in self.vocabularies.items()},
            "number_scales": {name: to_dict(scale) for name, scale in self.number_scales.items()},
            "event_scales": {name: to_dict(scale) for name, scale in self.event_scales.items()},
            "has_missing": list(self.has_missing),
            "profiles": {name: profile.state() for name, profile in self.profiles.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Learnt:
        """Read what :meth:`state` wrote, and raise ValueError where its parts do not fit."""
        check_keys(state, PARTS, what="what an encoder has learnt")
        vocabularies = check_dict(state["vocabularies"], what="vocabularies")
        learnt = cls(
            from_dict(Roles, state["roles"]),
            {name: Vocabulary.from_state(known) for name, known in vocabularies.items()},
            _scales_from_state(state["number_scales"]),
            _scales_from_state(state["event_scales"]),
            tuple(state["has_missing"]),
            {
                name: ColumnProfile.from_state(profile)
                for name, profile in check_dict(state["profiles"], what="profiles").items()
            },
        )
        roles = learnt.roles
        if learnt.number_scales.keys() != {*roles.numeric} or learnt.event_scales.keys() != {
            name for behaviour in roles.behaviours for name in behaviour.numbers
        }:
            raise ValueError("each column of numbers must have a scale.")
        if not {*learnt.has_missing} <= {*roles.numeric}:
            raise ValueError("columns with missing numbers must be columns of numbers.")
        if learnt.vocabularies.keys() != {*roles.owners.values()}:
            raise ValueError("each column of ids must have a vocabulary.")
        numbers = {*learnt.number_scales, *learnt.event_scales}
        kinds = {name: profile.bins.dtype.kind for name, profile in learnt.profiles.items()}
        if kinds != dict.fromkeys(numbers, "f") | dict.fromkeys(roles.owners, "i"):
            raise ValueError("each column must have a profile of its kind.")
        return learnt

    def check_schema(self, schema: Schema) -> None:
        """Raise unless a schema is that of these roles, vocabularies and scales."""
        names = [field.name for field in schema.fields]
        made = self.grow_schema(self.schema(names, max_length=schema.max_length))
        if made != schema:
            raise ValueError("roles, vocabularies and scales must be those of the schema.")


def _scales_from_state(state: object) -> dict[str, EventScale]:
    states = check_dict(state, what="scales")
    scales = {name: from_dict(EventScale, scale) for name, scale in states.items()}
    if not all(scale.is_valid for scale in scales.values()):
        raise ValueError("shifts must be finite and scales positive.")
    return scales
