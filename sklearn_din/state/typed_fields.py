"""Frozen dataclasses as dicts of plain values, and back with every field's type checked."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def to_dict(value: object) -> Any:
    """Write a dataclass as a dict of its fields, and tuples of dataclasses as tuples of dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [its.name for its in dataclasses.fields(value)]
        return {name: to_dict(getattr(value, name)) for name in names}
    return tuple(map(to_dict, value)) if isinstance(value, tuple) else value


def from_dict(its_type: type[T], values: object) -> T:
    """Make a dataclass of a dict, whose values must have the types of its annotations.

    Parameters
    ----------
    its_type : dataclass
        Its fields are booleans, numbers, text, literals, None, dataclasses or tuples of those.
    values : dict
        Fields that have a default may be absent.

    Raises
    ------
    ValueError
        For a name that is no field, a field that is absent, or a value of another type.

    Examples
    --------
    >>> from sklearn_din.features import Field
    >>> from_dict(Field, {"name": "age", "kind": "numeric"}).n_ids
    0
    >>> from_dict(Field, {"name": "age", "kind": 3})
    Traceback (most recent call last):
        ...
    ValueError: Field.kind cannot be 3.
    """
    name = its_type.__name__
    if type(values) is not dict:
        raise ValueError(f"{name} needs a dict of its fields, got {values!r:.60}.")
    fields = {its.name: its for its in dataclasses.fields(its_type)}  # type: ignore[arg-type]
    absent = [
        its.name
        for its in fields.values()
        if its.default is its.default_factory is dataclasses.MISSING and its.name not in values
    ]
    other = [key for key in values if key not in fields]
    if absent or other:
        raise ValueError(f"{name} lacks fields {absent} and has no fields {other[:5]}.")
    hints = _hints(its_type)  # type: ignore[arg-type]
    return its_type(
        **{key: _checked(value, hints[key], f"{name}.{key}") for key, value in values.items()}
    )


@functools.cache
def _hints(its_type: type) -> dict[str, Any]:
    """Annotations of a dataclass, evaluated once."""
    return typing.get_type_hints(its_type)


def _checked(value: object, hint: Any, what: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and type(value) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_checked(item, arguments[0], what) for item in value)
    elif origin is typing.Literal:
        if type(value) is str and value in arguments:
            return value
    elif origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        [other] = [its for its in arguments if its is not type(None)]
        return _checked(value, other, what)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    elif hint in (bool, int, float, str) and type(value) is hint:
        return value
    raise ValueError(f"{what} cannot be {value!r:.60}.")
