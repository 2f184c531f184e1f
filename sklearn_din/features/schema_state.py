"""A schema as plain values, and back: fields and behaviours that belong together."""

from __future__ import annotations

from typing import Any

from sklearn_din._typed_fields import from_dict, to_dict
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Field, Schema


def schema_state(schema: Schema) -> dict[str, Any]:
    """Write a schema as a dict; ``grown_from`` only where a vocabulary has grown."""
    state = to_dict(schema)
    for field in state["fields"]:
        if not field["grown_from"]:
            del field["grown_from"]
    return state


def schema_from_state(state: Any) -> Schema:
    """Read a schema, and raise ValueError where its fields contradict each other.

    Examples
    --------
    >>> schema = Schema((Field("item", "categorical", "item", 9),))
    >>> schema_from_state(schema_state(schema)) == schema
    True
    """
    schema = from_dict(Schema, state)
    by_name = {field.name: field for field in schema.fields}
    if len(by_name) < len(schema.fields):
        raise ValueError("each field of a schema must have a name of its own.")
    if schema.max_length < 0:
        raise ValueError(f"max_length must not be negative, got {schema.max_length}.")
    sizes: dict[str, tuple[int, str, tuple[str, ...]]] = {}
    for field in schema.fields:
        _check_field(field)
        size = (field.n_ids, field.digest, field.grown_from)
        if field.has_ids and sizes.setdefault(field.vocabulary, size) != size:
            raise ValueError(f"fields disagree on the vocabulary {field.vocabulary!r:.60}.")
    histories: list[str] = []
    for behaviour in schema.behaviours:
        _check_behaviour(behaviour, by_name)
        histories += [*behaviour.histories, *behaviour.numbers]
    if sorted(histories) != sorted(field.name for field in schema.fields if field.is_history):
        raise ValueError("each history field must belong to one behaviour.")
    return schema


def _check_field(field: Field) -> None:
    has_size = field.n_ids >= FIRST_KNOWN_ID  # of a vocabulary of any name: a column's may be ""
    has_none = field.n_ids == 0 and field.vocabulary == ""
    if not (has_size if field.has_ids else has_none):
        raise ValueError(f"field {field.name!r:.60} cannot have {field.n_ids} ids.")


def _check_behaviour(behaviour: Behaviour, by_name: dict[str, Field]) -> None:
    if len(behaviour.histories) != len(behaviour.candidates):
        raise ValueError("a behaviour needs a candidate, or None, for each history.")
    kinds = [(name, "history") for name in behaviour.histories]
    kinds += [(name, "numeric_history") for name in behaviour.numbers]
    kinds += [(name, "categorical") for name in behaviour.candidates if name is not None]
    for name, kind in kinds:
        if name not in by_name or by_name[name].kind != kind:
            raise ValueError(f"a behaviour needs a field {name!r:.60} of kind {kind}.")
    for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
        if candidate is not None and by_name[history].vocabulary != by_name[candidate].vocabulary:
            raise ValueError(f"{history!r:.60} and its candidate must share a vocabulary.")
