"""What an encoder learnt, as plain values, and back: roles, vocabularies and scales, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklearn_din._estimator_state import (
    EstimatorState,
    check_array,
    check_dict,
    check_feature_names,
    check_keys,
)
from sklearn_din._typed_fields import from_dict, to_dict
from sklearn_din.encoding.encoder_neighbours import (
    neighbour_scales,
    pairs_from_state,
    schema_without,
)
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, NumericColumns, indicator
from sklearn_din.encoding.vocabulary import Vocabulary, whole_ids
from sklearn_din.features.schema import Schema
from sklearn_din.features.schema_state import schema_from_state, schema_state
from sklearn_din.neighbours.pairs import NeighbourPair

LEARNT = {"roles", "vocabularies", "numbers", "event_scales", "schema"}
NUMBERS = {"names", "has_missing", "mean", "variance", "scale", "n_rows"}
VOCABULARY = {"values", "rare", "rare_counts", "grown_from"}
ID_DTYPES = [np.dtype(np.int64), np.dtype(bool), np.dtype(object)]


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
            "vocabularies": {
                name: _vocabulary_state(vocabulary) for name, vocabulary in vocabularies.items()
            },
            "numbers": _numbers_state(attributes.pop("_numeric_columns")),
            "event_scales": {name: to_dict(scale) for name, scale in scales.items()},
            "schema": schema_state(attributes.pop("schema_")),
            "neighbours": [pair.to_plain() for pair in attributes.pop("_neighbours", ())],
            "clicked_label": attributes.pop("_clicked_label", None),
            **{name: attributes.pop(name) for name in names if name in attributes},
        }

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        names = {*LEARNT, "neighbours", "clicked_label", "n_features_in_"}
        check_keys(fitted, names, optional={"feature_names_in_"}, what="an encoder")
        check_feature_names(fitted)
        learnt = {name: fitted.pop(name) for name in LEARNT}
        roles = from_dict(Roles, learnt["roles"])
        vocabularies = {
            name: _vocabulary(state)
            for name, state in check_dict(learnt["vocabularies"], what="vocabularies").items()
        }
        scales = {
            name: from_dict(EventScale, state)
            for name, state in check_dict(learnt["event_scales"], what="event scales").items()
        }
        numbers = _numbers_from_state(learnt["numbers"])
        schema = schema_from_state(learnt["schema"])
        neighbours = pairs_from_state(fitted.pop("neighbours"), schema)
        _check_agreement(schema_without(schema, neighbours), roles, vocabularies, numbers, scales)
        self._roles, self._vocabularies = roles, vocabularies
        self._numeric_columns, self._event_scales, self.schema_ = numbers, scales, schema
        self._neighbours, self._clicked_label = neighbours, fitted.pop("clicked_label")
        self.__dict__.update(fitted)


def _vocabulary_state(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "values": vocabulary.values,
        "rare": vocabulary.rare,
        "rare_counts": vocabulary.rare_counts,
        "grown_from": list(vocabulary.grown_from),
    }


def _vocabulary(state: Any) -> Vocabulary:
    check_keys(state, VOCABULARY, what="a vocabulary")
    values, rare = state["values"], state["rare"]
    if type(values) is not np.ndarray or values.ndim != 1 or values.dtype not in ID_DTYPES:
        raise ValueError("a vocabulary must be a list of integers, booleans or objects.")
    if type(rare) is not np.ndarray or rare.ndim != 1 or rare.dtype != object:
        raise ValueError("rare values must be a list of objects.")
    what = "counts of rare values"
    counts = check_array(state["rare_counts"], dtype="int64", shape=rare.shape, what=what)
    grown_from = state["grown_from"]
    if type(grown_from) is not list or any(type(digest) is not str for digest in grown_from):
        raise ValueError("a vocabulary's earlier digests must be text.")
    vocabulary = Vocabulary(values, rare, counts, tuple(grown_from))
    if not vocabulary.is_distinct:
        raise ValueError("a vocabulary must have each value once.")
    return vocabulary


def _numbers_state(columns: NumericColumns) -> dict[str, Any]:
    state: dict[str, Any] = {"names": columns.names, "has_missing": columns.has_missing}
    scaler = columns.scaler
    if scaler is None:
        return state
    n_rows = np.asarray(scaler.n_samples_seen_, dtype=np.int64)  # or one number for each column
    return state | {
        "mean": scaler.mean_,
        "variance": scaler.var_,
        "scale": scaler.scale_,
        "n_rows": n_rows,
    }


def _numbers_from_state(state: Any) -> NumericColumns:
    names = state.get("names") if type(state) is dict else None
    if type(names) is not list or any(type(name) is not str for name in names):
        raise ValueError("columns of numbers must be a list of names.")
    check_keys(state, NUMBERS if names else {"names", "has_missing"}, what="columns of numbers")
    has_missing = state["has_missing"]
    if type(has_missing) is not list or not set(has_missing) <= set(names):
        raise ValueError("columns with missing numbers must be columns of numbers.")
    columns = NumericColumns.__new__(NumericColumns)
    columns.names, columns.has_missing = names, has_missing
    columns.scaler = _scaler(state) if names else None
    return columns


def _scaler(state: Mapping[str, Any]) -> StandardScaler:
    shape = (len(state["names"]),)
    mean, variance, scale = (
        check_array(state[name], dtype="float64", shape=shape, what=f"the {name} of numbers")
        for name in ("mean", "variance", "scale")
    )
    if not (scale > 0).all():
        raise ValueError("the scale of each column of numbers must be positive.")
    n_rows = state["n_rows"]
    of_all = () if np.ndim(n_rows) == 0 else shape
    check_array(n_rows, dtype="int64", shape=of_all, what="numbers of rows", least=0)
    scaler = StandardScaler().set_output(transform="default")
    scaler.mean_, scaler.var_, scaler.scale_ = mean, variance, scale
    scaler.n_samples_seen_, scaler.n_features_in_ = n_rows[()], len(mean)
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
            owner = roles.owners[field.name]
            vocabulary = vocabularies[owner]
            learnt = (owner, vocabulary.n_ids, vocabulary.digest, vocabulary.grown_from)
            if (field.vocabulary, field.n_ids, field.digest, field.grown_from) != learnt:
                raise ValueError(f"the vocabulary of {field.name!r:.60} is not that of the schema.")
