"""An object's state as JSON text and numeric arrays, and back: a closed list of types.

Pickles, skops files and safe files all hold a state in this form. Reading it builds values of the
types below and nothing else: no name that stands in a file is ever imported or called.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.state.plain_frames import read_frame, write_frame
from sklearn_din.state.plain_scalars import (
    READERS,
    TIME_UNITS,
    WRITERS,
    Json,
    NotPlainError,
    check_in,
    check_type,
    fields,
    objects_of,
    write_numpy,
)

STORED_KINDS = "biuf"  # numpy kinds that are kept as they are
STORED_AS_INTEGERS = "mM"


@dataclass(frozen=True)
class PlainState:
    """State of one object.

    Parameters
    ----------
    text : str
        JSON. A dict with one key is a value of the type that the key names.
    arrays : dict of str to ndarray
        Numbers and booleans that the text refers to, each exactly once.
    objects : dict of str to object, default={}
        What is none of the types of the list, by its place in the state.
    """

    text: str
    arrays: dict[str, np.ndarray]
    objects: dict[str, Any] = field(default_factory=dict)


def write_state(value: object) -> PlainState:
    """Write a value.

    Parameters
    ----------
    value : object
        Built of None, booleans, numbers, text, bytes, dates, lists, tuples, dicts, sets, numpy's
        scalars and arrays, pandas' frames and indices, numpy's RandomState.

    Returns
    -------
    PlainState
        What is of another type is among its ``objects``.

    Examples
    --------
    >>> state = write_state({"units": (64, 16), "lr": np.float32(0.5)})
    >>> state.text
    '{"dict": [["units", {"tuple": [64, 16]}], ["lr", {"numpy": ["float32", 0.5]}]]}'
    >>> read_state(state)
    {'units': (64, 16), 'lr': np.float32(0.5)}
    """
    writer = PlainWriter()
    node = writer.write(value, "")
    return PlainState(json.dumps(node, allow_nan=False), writer.arrays, writer.objects)


def read_state(state: PlainState) -> Any:
    """Read a value and check that text, arrays and objects belong together.

    Parameters
    ----------
    state : PlainState

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the state is not one that :func:`write_state` writes.
    """
    reader = PlainReader(state)
    try:
        value = reader.read(parse_json(state.text))
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the saved state is damaged: {error}") from error
    if reader.arrays or reader.objects:
        left = [*reader.arrays, *reader.objects]
        raise ValueError(f"the saved state is damaged: nothing refers to {left[:5]}.")
    return value


def parse_json(text: str | bytes) -> Json:
    """Parse strict JSON: no key twice, no NaN."""
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError(f"a key stands twice among {sorted(keys)[:5]}.")
    return keys


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON.")


class PlainWriter:
    """Writes values to JSON; arrays and objects go beside it, under their place in the value."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.objects: dict[str, Any] = {}

    def write(self, value: Any, path: str) -> Json:
        """Write one value."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) is list:
            return self._items(value, path)
        try:
            return self._tagged(value, path)
        except NotPlainError:
            place = path
            while place in self.objects:  # text such as "a.b" among the keys of a dict
                place += "'"
            self.objects[place] = value
            return {"object": place}

    def store(self, array: np.ndarray, path: str) -> str:
        """Keep an array of numbers or booleans beside the text, and return its name."""
        name = path
        while name in self.arrays:
            name += "'"
        native = array.dtype.newbyteorder("=")
        self.arrays[name] = np.ascontiguousarray(array, native).reshape(array.shape)
        return name

    def _items(self, values: Any, path: str) -> list[Json]:
        return [self.write(value, f"{path}[{place}]") for place, value in enumerate(values)]

    def _tagged(self, value: Any, path: str) -> dict[str, Json]:
        its_type = type(value)
        if its_type in WRITERS:
            tag, write = WRITERS[its_type]
            return {tag: write(value)}
        if its_type in (tuple, set, frozenset):
            return {its_type.__name__: self._items(value, path)}
        if isinstance(value, dict):
            return {"dict": self._pairs(value, path)}
        if isinstance(value, np.generic):
            return write_numpy(value)
        if its_type is np.ndarray:
            return self.write_array(value, path)
        if its_type is np.ma.MaskedArray:
            mask = self.write(np.ma.getmaskarray(value), f"{path}.mask")
            return {"masked": [self.write(np.asarray(value.data), path), mask]}
        if its_type is np.random.RandomState:
            return {"RandomState": self._items(_random_state(value), path)}
        if its_type is pd.Interval:
            ends = self._items((value.left, value.right), path)
            return {"Interval": [*ends, value.closed]}
        if its_type is pd.DataFrame:
            return {"frame": write_frame(self, value, path)}
        if isinstance(value, pd.Index) and value.nlevels == 1 and its_type is pd.Index:
            return {"index": [self.write(value.to_numpy(), path), self.write(value.name, path)]}
        raise NotPlainError

    def _pairs(self, values: dict[Any, Any], path: str) -> list[Json]:
        if type(values) is not dict:
            raise NotPlainError
        return [
            [self.write(key, f"{path}.key"), self.write(value, f"{path}.{key}".lstrip("."))]
            for key, value in values.items()
        ]

    def write_array(self, array: np.ndarray, path: str) -> dict[str, Json]:
        """Write an array: text as bytes and offsets, other objects one by one."""
        kind = array.dtype.kind
        if kind in STORED_KINDS and array.dtype.itemsize <= 8:
            return {"array": self.store(array, path)}
        if kind in STORED_AS_INTEGERS and np.datetime_data(array.dtype)[1] == 1:
            tag = "times" if kind == "M" else "durations"
            unit = np.datetime_data(array.dtype)[0]
            return {tag: [unit, self.store(array.astype("int64"), path)]}
        if kind == "U":
            codes = np.ascontiguousarray(array).view(np.uint32)
            return {"unicode": self.store(codes.reshape(*array.shape, -1), path)}
        if kind != "O":
            raise NotPlainError
        if array.ndim == 1 and all(type(value) is str for value in array):
            return {"text": self._text(array, path)}
        return {"values": [list(array.shape), self._items(array.ravel(), path)]}

    def _text(self, values: np.ndarray, path: str) -> list[Json]:
        encoded = [value.encode("utf-8", "surrogatepass") for value in values]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(value) for value in encoded], out=offsets[1:])
        content = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return [self.store(content, f"{path}.bytes"), self.store(offsets, f"{path}.offsets")]


class PlainReader:
    """Reads what PlainWriter wrote. Arrays and objects are taken away as they are met."""

    def __init__(self, state: PlainState) -> None:
        self.arrays = dict(state.arrays)
        self.objects = dict(state.objects)

    def read(self, node: Json) -> Any:
        """Read one value."""
        if node is None or type(node) in (bool, int, str):
            return node
        if type(node) is float:
            if not math.isfinite(node):
                raise ValueError("a number is too large for a float.")
            return node
        if type(node) is list:
            return [self.read(item) for item in node]
        if type(node) is not dict or len(node) != 1:
            raise ValueError(f"one type was needed, got {node!r:.60}.")
        [(tag, content)] = node.items()
        if tag in READERS:
            return READERS[tag](content)
        if tag in CONTAINERS:
            return CONTAINERS[tag](self, content)
        raise ValueError(
            f"type {tag!r:.60} is not known. A newer version may have saved it: upgrade."
        )

    def take(self, name: Json, *, kinds: str = STORED_KINDS, ndim: int | None = None) -> np.ndarray:
        """Take an array by its name, of the given kinds and number of dimensions."""
        array = self.arrays.pop(check_type(name, str, what="the name of an array"))
        if isinstance(array, np.memmap):  # joblib.load(mmap_mode="r")
            array = array.view(np.ndarray)
        if type(array) is not np.ndarray:
            raise ValueError(f"{name} must be an array, got {type(array).__name__}.")
        if array.dtype.kind not in kinds or ndim not in (None, array.ndim):
            raise ValueError(f"{name} has an unexpected type or shape, {array.dtype} {array.shape}")
        return array

    def _object(self, node: Json) -> Any:
        return self.objects.pop(check_type(node, str, what="the place of an object"))

    def _list(self, node: Json) -> list[Any]:
        return self.read(check_type(node, list, what="values"))

    def _dict(self, node: Json) -> dict[Any, Any]:
        pairs = [fields(pair, 2) for pair in check_type(node, list, what="a dict")]
        read = {self.read(key): self.read(value) for key, value in pairs}
        if len(read) < len(pairs):
            raise ValueError("a key stands twice in a dict.")
        return read

    def _times(self, node: Json, dtype: str) -> np.ndarray:
        unit, name = fields(node, 2)
        check_in(unit, TIME_UNITS, what="a unit of time")
        ticks = self.take(name, kinds="i")
        if ticks.dtype != np.int64:
            raise ValueError(f"times must be int64, got {ticks.dtype}.")
        return ticks.view(f"{dtype}[{unit}]")

    def _text(self, node: Json) -> np.ndarray:
        content, offsets = fields(node, 2)
        content, offsets = self.take(content, ndim=1), self.take(offsets, kinds="i", ndim=1)
        if content.dtype != np.uint8 or offsets.dtype != np.int64 or len(offsets) == 0:
            raise ValueError("text must have bytes and offsets.")
        if offsets[0] or offsets[-1] != len(content) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("the offsets of text must rise from 0 to its length.")
        joined, ends = content.tobytes(), offsets.tolist()
        return objects_of([joined[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(ends)])

    def _unicode(self, node: Json) -> np.ndarray:
        codes = self.take(node, kinds="u")
        if codes.dtype != np.uint32 or codes.ndim == 0 or codes.max(initial=0) > MOST_CODE_POINT:
            raise ValueError("fixed-width text must hold code points.")
        width = codes.shape[-1]
        return np.ascontiguousarray(codes).view(f"<U{width}").reshape(codes.shape[:-1])

    def _values(self, node: Json) -> np.ndarray:
        shape, items = fields(node, 2)
        values = self._list(items)
        lengths = [check_type(n, int, what="a shape") for n in check_type(shape, list, what="")]
        if min(lengths, default=0) < 0 or math.prod(lengths) != len(values):
            raise ValueError(f"{len(values)} values cannot have the shape {lengths}.")
        return objects_of(values).reshape(lengths)

    def _masked(self, node: Json) -> np.ma.MaskedArray:
        values, mask = (self.read(item) for item in fields(node, 2))
        arrays = type(values) is type(mask) is np.ndarray
        if not arrays or mask.dtype != np.bool_ or mask.shape != values.shape:
            raise ValueError("a masked array must have one boolean per value.")
        return np.ma.MaskedArray(values, mask)

    def _interval(self, node: Json) -> pd.Interval:
        left, right, closed = (self.read(item) for item in fields(node, 3))
        return pd.Interval(left, right, closed)

    def _index(self, node: Json) -> pd.Index:
        values, name = (self.read(item) for item in fields(node, 2))
        return pd.Index(values, name=name)

    def _random_state(self, node: Json) -> np.random.RandomState:
        key, position, has_gauss, gauss = (self.read(item) for item in fields(node, 4))
        is_key = type(key) is np.ndarray and key.dtype == np.uint32 and key.shape == (N_KEYS,)
        check_type(position, int, what="a random state's position")
        check_type(has_gauss, int, what="a random state's flag")
        check_type(gauss, float, what="a random state's number")
        if not is_key or not 0 <= position <= N_KEYS or has_gauss not in (0, 1):  # numpy asks less
            raise ValueError("a random state must have 624 numbers and a position among them.")
        random_state = np.random.RandomState(0)
        random_state.set_state(("MT19937", key, position, has_gauss, gauss))
        return random_state


N_KEYS = 624  # of the Mersenne twister
MOST_CODE_POINT = 0x10FFFF


def _random_state(random_state: np.random.RandomState) -> list[Any]:
    name, *state = random_state.get_state(legacy=True)
    if name != "MT19937":
        raise NotPlainError
    return state


CONTAINERS: dict[str, Callable[[PlainReader, Json], Any]] = {
    "object": PlainReader._object,
    "tuple": lambda reader, node: tuple(reader._list(node)),
    "set": lambda reader, node: set(reader._list(node)),
    "frozenset": lambda reader, node: frozenset(reader._list(node)),
    "dict": PlainReader._dict,
    "array": PlainReader.take,
    "times": lambda reader, node: reader._times(node, "datetime64"),
    "durations": lambda reader, node: reader._times(node, "timedelta64"),
    "unicode": PlainReader._unicode,
    "text": PlainReader._text,
    "values": PlainReader._values,
    "masked": PlainReader._masked,
    "Interval": PlainReader._interval,
    "frame": read_frame,
    "index": PlainReader._index,
    "RandomState": PlainReader._random_state,
}
