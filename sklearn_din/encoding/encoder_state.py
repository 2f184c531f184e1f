"""What an encoder learnt, as plain values, and back: roles, vocabularies and scales, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklearn_din.encoding.encoder_neighbours import (
    neighbour_scales,
    pair_state,
    pairs_from_state,
    schema_without,
)
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, NumericColumns, indicator
from sklearn_din.encoding.vocabulary import Vocabulary, whole_ids
from sklearn_din.features.schema import Schema
from sklearn_din.features.schema_state import schema_from_state, schema_state
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.state.estimators import EstimatorState, check_feature_names, check_keys
from sklearn_din.state.typed_fields import from_dict, to_dict

LEARNT = {"roles", "vocabularies", "numbers", "event_scales", "schema"}
NUMBERS = {"names", "has_missing", "mean", "variance", "scale", "n_rows"}


class EncoderState(EstimatorState):
    """Mixin of :class:`sklearn_din.HistorySequenceEncoder`: how what it learnt is kept."""

    _roles: Roles
    _vocabularies: dict[str, Vocabulary]
    _numeric_columns: NumericColumns
    _event_scales: dict[str, EventScale]
    _neighbours: tuple[NeighbourPair, ...]
    schema_: Schema

    @property
    def vocabularies_(self) -> dict[str, np.ndarray]:
        """Column of ids -> its known values, in the order of their ids from 2."""
        check_is_fitted(self, "schema_")
        owners = self._roles.owners
        return {name: self._vocabularies[owner].values for name, owner in owners.items()}

    @property
    def scales_(self) -> dict[str, EventScale]:
        """Column of numbers -> how it is scaled."""
        check_is_fitted(self, "schema_")
        of_neighbours = neighbour_scales(self._neighbours)
        return self._numeric_columns.scales | self._event_scales | of_neighbours

    def inverse_transform_ids(self, name: str, ids: ArrayLike) -> np.ndarray:
        """Look up the values behind encoded ids.

        Parameters
        ----------
        name : str
            A column of ids or a history.
        ids : array-like of int
            Of any shape; pandas' nullable integers as well.

        Returns
        -------
        ndarray of objects
            None for padding, unknown and missing ids.
        """
        check_is_fitted(self, "schema_")
        if name not in self.schema_.names("categorical", "history"):
            raise ValueError(
                f"{name!r} has no ids; columns of ids are "
                f"{self.schema_.names('categorical', 'history')}."
            )
        return self._vocabularies[self._roles.owners[name]].decode(whole_ids(ids))

    def _fitted_state(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "schema_" not in attributes:
            return None
        vocabularies: dict[str, Vocabulary] = attributes.pop("_vocabularies")
        scales: dict[str, EventScale] = attributes.pop("_event_scales")
        names = ("n_features_in_", "feature_names_in_")
        return {
            "roles": to_dict(attributes.pop("_roles")),
            "vocabularies": {name: _vocabulary_state(its) for name, its in vocabularies.items()},
            "numbers": _numbers_state(attributes.pop("_numeric_columns")),
            "event_scales": {name: to_dict(scale) for name, scale in scales.items()},
            "schema": schema_state(attributes.pop("schema_")),
            "neighbours": [pair_state(pair) for pair in attributes.pop("_neighbours", ())],
            "clicked_label": attributes.pop("_clicked_label", None),
            **{name: attributes.pop(name) for name in names if name in attributes},
        }

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        optional = {"feature_names_in_", "neighbours", "clicked_label"}  # older files lack the last
        check_keys(fitted, {*LEARNT, "n_features_in_"}, optional=optional)
        check_feature_names(fitted)
        learnt = {name: fitted.pop(name) for name in LEARNT}
        roles = from_dict(Roles, learnt["roles"])
        vocabularies = {
            name: _vocabulary(its) for name, its in _items(learnt["vocabularies"], "vocabularies")
        }
        scales = {
            name: from_dict(EventScale, its)
            for name, its in _items(learnt["event_scales"], "event_scales")
        }
        numbers = _numbers_from_state(learnt["numbers"])
        schema = schema_from_state(learnt["schema"])
        neighbours = pairs_from_state(fitted.pop("neighbours", []), schema)
        _check_agreement(schema_without(schema, neighbours), roles, vocabularies, numbers, scales)
        self._roles, self._vocabularies = roles, vocabularies
        self._numeric_columns, self._event_scales, self.schema_ = numbers, scales, schema
        self._neighbours, self._clicked_label = neighbours, fitted.pop("clicked_label", None)
        self.__dict__.update(fitted)


def _items(values: Any, what: str) -> list[tuple[str, Any]]:
    if type(values) is not dict or any(type(name) is not str for name in values):
        raise ValueError(f"{what} must be a dict by column name.")
    return list(values.items())


def _vocabulary_state(vocabulary: Vocabulary) -> dict[str, Any]:
    """Values and rare ones; what only growth needs is left out where there is none of it."""
    state: dict[str, Any] = {"values": vocabulary.values, "rare": vocabulary.rare}
    if len(vocabulary.rare):
        state |= {"rare_counts": vocabulary.rare_counts}
    if vocabulary.grown_from:
        state |= {"grown_from": vocabulary.grown_from}
    return state


def _vocabulary(state: Any) -> Vocabulary:
    wanted, optional = {"values", "rare"}, {"rare_counts", "grown_from"}
    if type(state) is not dict or not wanted <= state.keys() <= wanted | optional:
        raise ValueError("a vocabulary must have values and rare ones.")
    values, rare = state["values"], state["rare"]
    for array in (values, rare):
        if type(array) is not np.ndarray or array.ndim != 1:
            raise ValueError("a vocabulary must be a list of values.")
    if values.dtype not in (np.dtype(np.int64), np.dtype(bool), np.dtype(object)):
        raise ValueError(f"ids must be integers, booleans or objects, got {values.dtype}.")
    if rare.dtype != object:
        raise ValueError(f"rare values must be objects, got {rare.dtype}.")
    counts = state.get("rare_counts", np.ones(len(rare), dtype=np.int64))
    grown_from = state.get("grown_from", ())
    if type(counts) is not np.ndarray or counts.shape != rare.shape or counts.dtype != np.int64:
        raise ValueError("there must be one count per rare value.")
    if type(grown_from) is not tuple or any(type(digest) is not str for digest in grown_from):
        raise ValueError("a vocabulary's earlier digests must be text.")
    vocabulary = Vocabulary(values, rare, counts, grown_from)
    if not vocabulary.is_distinct:
        raise ValueError("a vocabulary must have each value once.")
    return vocabulary


def _numbers_state(columns: NumericColumns) -> dict[str, Any]:
    state: dict[str, Any] = {"names": columns.names, "has_missing": columns.has_missing}
    if columns.scaler is None:
        return state
    scaler = columns.scaler
    means = {"mean": scaler.mean_, "variance": scaler.var_, "scale": scaler.scale_}
    return state | means | {"n_rows": scaler.n_samples_seen_}


def _numbers_from_state(state: Any) -> NumericColumns:
    names = state.get("names") if type(state) is dict else None
    if type(names) is not list or any(type(name) is not str for name in names):
        raise ValueError("columns of numbers must be a list of names.")
    if state.keys() != (NUMBERS if names else {"names", "has_missing"}):
        raise ValueError(f"columns of numbers must have the parts {sorted(NUMBERS)}.")
    has_missing = state["has_missing"]
    if type(has_missing) is not list or not set(has_missing) <= set(names):
        raise ValueError("columns with missing numbers must be columns of numbers.")
    columns = NumericColumns.__new__(NumericColumns)
    columns.names, columns.has_missing = names, has_missing
    columns.scaler = _scaler(state) if names else None
    return columns


def _scaler(state: Mapping[str, Any]) -> StandardScaler:
    n_columns = len(state["names"])
    for name in ("mean", "variance", "scale"):
        array = state[name]
        if type(array) is not np.ndarray or array.shape != (n_columns,):
            raise ValueError(f"there must be one {name} per column of numbers.")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"the {name} of each column of numbers must be finite.")
    if not (state["scale"] > 0).all():
        raise ValueError("the scale of each column of numbers must be positive.")
    n_rows = state["n_rows"]  # one number, or one per column where some are missing
    if type(n_rows) is not int and not isinstance(n_rows, np.ndarray | np.number):
        raise ValueError(f"the number of rows must be a number, got {n_rows!r:.60}.")
    scaler = StandardScaler().set_output(transform="default")
    scaler.mean_, scaler.var_, scaler.scale_ = state["mean"], state["variance"], state["scale"]
    scaler.n_samples_seen_, scaler.n_features_in_ = n_rows, n_columns
    return scaler


def _check_agreement(
    schema: Schema,
    roles: Roles,
    vocabularies: Mapping[str, Vocabulary],
    numbers: NumericColumns,
    scales: Mapping[str, EventScale],
) -> None:
    """Raise unless roles, vocabularies and scales are those of the schema."""
    of_events = {name for behaviour in roles.behaviours for name in behaviour.numbers}
    made = {*roles.numeric, *map(indicator, numbers.has_missing), *roles.owners, *of_events}
    if made != {field.name for field in schema.fields} or schema.behaviours != roles.behaviours:
        raise ValueError("roles and schema must have the same columns.")
    if tuple(numbers.names) != roles.numeric or scales.keys() != of_events:
        raise ValueError("each column of numbers must have a scale.")
    if any(not (np.isfinite(s.shift) and 0 < s.scale < np.inf) for s in scales.values()):
        raise ValueError("shifts must be finite and scales positive.")
    if vocabularies.keys() != set(roles.owners.values()):
        raise ValueError("each column of ids must have a vocabulary.")
    for field in schema.fields:
        if field.has_ids:
            its = vocabularies[roles.owners[field.name]]
            mine = (field.vocabulary, field.n_ids, field.digest, field.grown_from)
            if mine != (roles.owners[field.name], its.n_ids, its.digest, its.grown_from):
                raise ValueError(f"the vocabulary of {field.name!r:.60} is not that of the schema.")
