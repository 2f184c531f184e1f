"""Dataclasses as dicts of their fields, and back with a type check of every field."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
FORMS: dict[type, tuple[Callable[[Any], Any], Callable[[Any, str], Any]]] = {}
"""How types that are no dataclasses are written, and read from a value and its name."""
_hints = functools.cache(typing.get_type_hints)  # annotations of a dataclass, evaluated once


def to_dict(value: object) -> Any:
    """Write a dataclass as a dict of its fields, also within dicts and tuples."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_dict(getattr(value, name)) for name in names}
    if type(value) in FORMS:
        return FORMS[type(value)][0](value)
    if isinstance(value, Mapping):
        return {name: to_dict(item) for name, item in value.items()}
    return tuple(map(to_dict, value)) if type(value) is tuple else value


def from_dict(kind: type[T], values: object) -> T:
    """Build a dataclass from a dict, whose values must have the annotated types.

    Fields are plain values, literals, arrays, dataclasses, types in ``FORMS``, or tuples and
    mappings by name of those. ValueError of anything else, and where a method ``check`` raises it.
    """
    name = kind.__name__
    if type(values) is not dict:
        raise ValueError(f"{name} needs a dict of its fields, got {values!r:.60}.")
    hints = _hints(kind)  # type: ignore[arg-type]
    checked = {n: _check_value(value, hints.get(n), f"{name}.{n}") for n, value in values.items()}
    try:
        made = kind(**checked)
    except TypeError as error:
        raise ValueError(f"{name} needs its own fields: {error}.") from error
    if hasattr(made, "check"):
        made.check()
    return made


def from_dict_of(kinds: Sequence[type[T]], values: object, what: str) -> T:
    """Make the one of several dataclasses that has the fields of a dict."""
    if type(values) is dict:
        for kind in kinds:
            if values.keys() == {*getattr(kind, "__dataclass_fields__", ())}:
                return from_dict(kind, values)
    raise ValueError(f"{what} cannot be {values!r:.60}.")


def _check_value(value: object, hint: Any, what: str) -> Any:
    """Return a value as its annotation asks for; ValueError where it cannot be that."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and type(value) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_check_value(item, arguments[0], what) for item in value)
    elif origin is Mapping and type(value) is dict:
        if all(type(name) is str for name in value):
            return {
                name: _check_value(item, arguments[1], f"{what}[{name!r:.60}]")
                for name, item in value.items()
            }
    elif origin is typing.Literal:
        if type(value) is str and value in arguments:
            return value
    elif origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        single = len(others) == 1
        return _check_value(value, others[0], what) if single else from_dict_of(others, value, what)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    elif hint in FORMS:
        return FORMS[hint][1](value, what)
    elif hint in (bool, int, float, str, np.ndarray) and type(value) is hint:
        return value
    raise ValueError(f"{what} cannot be {value!r:.60}.")
