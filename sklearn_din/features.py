"""What travels from the encoder to the estimator: a schema, id arrays and ragged histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_KNOWN_ID = 2

Kind = Literal["numeric", "categorical", "history", "numeric_history"]


@dataclass(frozen=True)
class Field:
    """One encoded column.

    Parameters
    ----------
    name : str
        Column name in the frame and key in :class:`EncodedFeatures`.
    kind : {"numeric", "categorical", "history", "numeric_history"}
        One number, one id, a list of ids, or a list of numbers an impression.
    vocabulary : str, default=""
        Whose vocabulary the ids belong to: the candidate ``item`` and its history
        ``hist_item`` share one. Empty for numbers.
    n_ids : int, default=0
        Size of that vocabulary with padding (0) and unknown (1) included. 0 for numbers.
    digest : str, default=""
        Fingerprint of the vocabulary's values: two encoders fitted on other catalogues differ.

    Examples
    --------
    >>> Field("hist_item", "history", vocabulary="item", n_ids=12).is_history
    True
    """

    name: str
    kind: Kind
    vocabulary: str = ""
    n_ids: int = 0
    digest: str = ""

    def __post_init__(self) -> None:
        kinds = get_args(Kind)
        if self.kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, got {self.kind!r}.")

    @property
    def is_history(self) -> bool:
        """Whether a cell holds one value an event."""
        return self.kind in ("history", "numeric_history")

    @property
    def has_ids(self) -> bool:
        """Whether the values are ids of a vocabulary."""
        return self.kind in ("categorical", "history")


@dataclass(frozen=True)
class Behaviour:
    """Histories of the same events: one length, one attention.

    Parameters
    ----------
    name : str
        The histories' names, joined by "+".
    histories : tuple of str
        Id histories, one an attribute of the event (item, category).
    candidates : tuple of (str or None)
        The candidate column each history is compared with, None where there is none.
        A behaviour without any candidate is a bag: it is pooled.
    numbers : tuple of str, default=()
        Numeric histories of the same events (time elapsed, price paid).

    Examples
    --------
    >>> Behaviour("tags", ("tags",), (None,)).is_bag
    True
    """

    name: str
    histories: tuple[str, ...]
    candidates: tuple[str | None, ...]
    numbers: tuple[str, ...] = ()

    @property
    def is_bag(self) -> bool:
        """Whether no history has a candidate to be compared with."""
        return all(candidate is None for candidate in self.candidates)


@dataclass(frozen=True)
class Schema:
    """Every field, which histories form a behaviour, and the longest history.

    Parameters
    ----------
    fields : tuple of Field
        In the order of the output columns.
    behaviours : tuple of Behaviour, default=()
        Each history field belongs to exactly one.
    max_length : int, default=0
        Most events a history keeps (the newest ones).

    Examples
    --------
    >>> schema = Schema((Field("age", "numeric"), Field("item", "categorical", "item", 9)))
    >>> schema["item"].n_ids
    9
    """

    fields: tuple[Field, ...]
    behaviours: tuple[Behaviour, ...] = ()
    max_length: int = 0

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"no field {name!r}; the fields are {[f.name for f in self.fields]}")

    def names(self, *kinds: Kind) -> list[str]:
        """Names of the fields of the given kinds, in order."""
        return [field.name for field in self.fields if field.kind in kinds]

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Number of ids of each vocabulary, padding and unknown included."""
        return {field.vocabulary: field.n_ids for field in self.fields if field.has_ids}

    def behaviour_of(self, name: str) -> Behaviour:
        """Return the behaviour that the history field ``name`` belongs to."""
        for behaviour in self.behaviours:
            if name in behaviour.histories + behaviour.numbers:
                return behaviour
        raise KeyError(f"no history {name!r} in the schema")

    def feature_names_out(self) -> list[str]:
        """Names of the columns of ``np.asarray(X)``: a history takes ``max_length`` of them."""
        names: list[str] = []
        for field in self.fields:
            if field.is_history:
                names.extend(f"{field.name}_{position}" for position in range(self.max_length))
            else:
                names.append(field.name)
        return names

    def difference(self, other: Schema) -> str:
        """Say what differs between two schemas; an empty string where nothing does."""
        mine = {field.name: field for field in self.fields}
        theirs = {field.name: field for field in other.fields}
        if mine.keys() != theirs.keys():
            return f"fields {sorted(mine)} against {sorted(theirs)}"
        for name, field in mine.items():
            if (field.kind, field.vocabulary) != (theirs[name].kind, theirs[name].vocabulary):
                return f"{name!r} is {field.kind} in one and {theirs[name].kind} in the other"
            if field != theirs[name]:
                return (
                    f"{name!r} has another vocabulary ({field.n_ids} ids against "
                    f"{theirs[name].n_ids})"
                )
        if self != other:
            return f"behaviours {self.behaviours} against {other.behaviours}"
        return ""


class Ragged:
    """The histories of one behaviour: windows over shared event columns.

    Row ``i`` holds the events ``starts[i] : starts[i] + lengths[i]`` of every column. Rows may
    overlap or be the same window; taking rows copies no events.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n_events,)
        int32 ids, or numbers. Oldest to newest inside each window.
    starts : ndarray of shape (n_rows,), int64
        First event of each row.
    lengths : ndarray of shape (n_rows,), int32
        Number of events of each row.
    anchors : dict of str to ndarray of shape (n_rows,), default=None
        For numeric columns that hold times: the row's own time. They read as
        ``log1p(anchor - time)``.

    Examples
    --------
    >>> import numpy as np
    >>> clicks = Ragged({"item": np.array([5, 6, 7], "int32")}, np.array([0, 1]), np.array([1, 2]))
    >>> clicks.padded("item")
    array([[5, 0],
           [6, 7]], dtype=int32)
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        starts: np.ndarray,
        lengths: np.ndarray,
        anchors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.starts = starts
        self.lengths = lengths
        self.anchors = dict(anchors or {})

    @classmethod
    def from_lengths(cls, columns: Mapping[str, np.ndarray], lengths: np.ndarray) -> Ragged:
        """Rows that follow each other: row ``i`` takes the next ``lengths[i]`` events."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(columns, ends - lengths, lengths.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Any) -> Ragged:
        """Rows by slice, index array or boolean mask. The events stay shared."""
        anchors = {name: anchor[rows] for name, anchor in self.anchors.items()}
        return Ragged(self.columns, self.starts[rows], self.lengths[rows], anchors)

    def event_index(self) -> np.ndarray:
        """Positions of all events in row order, shape (sum(lengths),)."""
        lengths = self.lengths
        ends = np.cumsum(lengths, dtype=np.int64)
        n_events = int(ends[-1]) if len(ends) else 0
        index = np.repeat(self.starts - ends + lengths, lengths)
        index += np.arange(n_events)
        return index

    def flat(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Values of one column for all events in row order, shape (sum(lengths),)."""
        values = self.columns[name].take(self.event_index() if index is None else index)
        if name in self.anchors:
            elapsed = np.repeat(self.anchors[name], self.lengths) - values
            return np.log1p(np.maximum(elapsed, 0.0)).astype(np.float32)
        return values

    def mask(self, width: int | None = None) -> np.ndarray:
        """Bool (n_rows, width), True on real events; width is the longest row by default."""
        width = int(self.lengths.max(initial=0)) if width is None else width
        return np.arange(width) < self.lengths[:, None]

    def padded(self, name: str, width: int | None = None) -> np.ndarray:
        """Values as (n_rows, width), padded with 0 on the right."""
        mask = self.mask(width)
        values = self.flat(name)
        padded = np.zeros(mask.shape, dtype=values.dtype)
        padded[mask] = values
        return padded

    def compact(self) -> Ragged:
        """Return the same rows over a copy of only those events that some row holds."""
        covered = np.zeros(len(next(iter(self.columns.values()))) + 1, dtype=np.int64)
        np.add.at(covered, self.starts, 1)
        np.add.at(covered, self.starts + self.lengths, -1)
        kept = np.cumsum(covered[:-1]) > 0
        position = np.concatenate([[0], np.cumsum(kept)])
        columns = {name: values[kept] for name, values in self.columns.items()}
        return Ragged(columns, position[self.starts], self.lengths, self.anchors)

    @property
    def nbytes(self) -> int:
        """Bytes held, shared events counted once."""
        arrays = [*self.columns.values(), *self.anchors.values(), self.starts, self.lengths]
        return sum(array.nbytes for array in arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        compact = self.compact()
        return Ragged, (compact.columns, compact.starts, compact.lengths, compact.anchors)


class EncodedFeatures:
    """Impressions as id arrays and ragged histories, read as a mapping of padded arrays.

    ``X["item"]`` is an int32 array of shape (n,), ``X["hist_item"]`` an int32 array of shape
    (n, T) padded on the right with 0 to the longest history of the rows at hand, and
    ``X["hist_item_mask"]`` the bool array that is True on real events. ``X[10:20]``,
    ``X[index_array]`` and ``X[bool_mask]`` are EncodedFeatures again. ``len(X)`` is the number
    of impressions. Ids: 0 padding, 1 unknown, known ids from 2.

    Parameters
    ----------
    schema : Schema
        What each array means.
    columns : dict of str to ndarray of shape (n,)
        float32 numbers and int32 ids, one array for each field that is not a history.
    behaviours : dict of str to Ragged, default=None
        The histories, by behaviour name.

    Raises
    ------
    ValueError
        Where arrays and schema do not fit: a name, a length, an id outside its vocabulary.

    Examples
    --------
    >>> import numpy as np
    >>> schema = Schema(
    ...     (Field("item", "categorical", "item", 9), Field("hist_item", "history", "item", 9)),
    ...     (Behaviour("hist_item", ("hist_item",), ("item",)),),
    ...     max_length=2,
    ... )
    >>> history = Ragged.from_lengths({"hist_item": np.array([3, 4, 5], "int32")}, np.array([1, 2]))
    >>> X = EncodedFeatures(schema, {"item": np.array([5, 2], "int32")}, {"hist_item": history})
    >>> X.shape, list(X[1:]["hist_item"][0])
    ((2, 3), [np.int32(4), np.int32(5)])
    """

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, np.ndarray],
        behaviours: Mapping[str, Ragged] | None = None,
    ) -> None:
        self.schema = schema
        self.columns = dict(columns)
        self.behaviours = dict(behaviours or {})
        _check_arrays(self)

    @classmethod
    def _trusted(
        cls, schema: Schema, columns: dict[str, np.ndarray], behaviours: dict[str, Ragged]
    ) -> EncodedFeatures:
        self = cls.__new__(cls)
        self.schema, self.columns, self.behaviours = schema, columns, behaviours
        return self

    def __len__(self) -> int:
        parts: list[Any] = [*self.columns.values(), *self.behaviours.values()]
        return len(parts[0]) if parts else 0

    def keys(self) -> list[str]:
        """Names that can be read: every field, and ``<history>_mask`` for each history."""
        names: list[str] = []
        for field in self.schema.fields:
            names.append(field.name)
            if field.is_history:
                names.append(f"{field.name}_mask")
        return names

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._read(key)
        rows = _row_selector(key)
        columns = {name: values[rows] for name, values in self.columns.items()}
        behaviours = {name: ragged.take(rows) for name, ragged in self.behaviours.items()}
        return self._trusted(self.schema, columns, behaviours)

    def _read(self, name: str) -> np.ndarray:
        if name in self.columns:
            return self.columns[name]
        if name not in self:
            raise KeyError(f"no field {name!r}; the fields are {self.keys()}")
        is_mask = name not in {field.name for field in self.schema.fields}
        history = name.removesuffix("_mask") if is_mask else name
        ragged = self.behaviours[self.schema.behaviour_of(history).name]
        return ragged.mask() if is_mask else ragged.padded(history)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of ``np.asarray(X)``: impressions by ``len(get_feature_names_out())``."""
        return len(self), len(self.schema.feature_names_out())

    @property
    def nbytes(self) -> int:
        """Bytes held: follows the real events, never the padding."""
        parts: list[Any] = [*self.columns.values(), *self.behaviours.values()]
        return sum(part.nbytes for part in parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        blocks = []
        for field in self.schema.fields:
            if field.is_history:
                ragged = self.behaviours[self.schema.behaviour_of(field.name).name]
                blocks.append(ragged.padded(field.name, self.schema.max_length))
            else:
                blocks.append(self.columns[field.name][:, None])
        if not blocks:
            return np.empty((len(self), 0), dtype=dtype or np.float64)
        return np.concatenate(blocks, axis=1).astype(dtype or np.float64)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{field.name}: {field.kind}" for field in self.schema.fields)
        return f"EncodedFeatures({len(self)} impressions; {kinds})"


def _row_selector(key: Any) -> Any:
    """Turn what scikit-learn and people index rows with into a slice or an array."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]
    if isinstance(key, slice):
        return key
    is_cell = isinstance(key, tuple)  # X[row, name], as numpy and pandas have it
    rows = np.empty(()) if is_cell else np.asarray(key)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
        one = "value use X['item'][3]" if is_cell else "impression use X[i : i + 1]"
        raise TypeError(
            f"rows are chosen by a slice, a 1-D index array or a 1-D bool mask, got {key!r}. "
            f"For one {one}."
        )
    return rows.astype(np.intp) if rows.size == 0 and rows.dtype != bool else rows


def _check_arrays(X: EncodedFeatures) -> None:
    schema = X.schema
    wanted = {field.name for field in schema.fields if not field.is_history}
    if wanted != set(X.columns):
        raise ValueError(f"columns must be {sorted(wanted)}, got {sorted(X.columns)}.")
    if {behaviour.name for behaviour in schema.behaviours} != set(X.behaviours):
        raise ValueError(
            f"behaviours must be {[b.name for b in schema.behaviours]}, got {sorted(X.behaviours)}."
        )
    parts: dict[str, Any] = {**X.columns, **X.behaviours}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every field must have one row an impression, got lengths {lengths}.")
    for field in schema.fields:
        if field.has_ids:
            behaviour = schema.behaviour_of(field.name).name if field.is_history else ""
            ids = (
                X.behaviours[behaviour].columns[field.name] if behaviour else X.columns[field.name]
            )
            _check_ids(ids, n_ids=field.n_ids, name=field.name)


def _check_ids(ids: np.ndarray, *, n_ids: int, name: str) -> None:
    if ids.dtype != np.int32:
        raise ValueError(f"{name} must hold int32 ids, got {ids.dtype}. Encode the column first.")
    if ids.size and (ids.min() < 0 or ids.max() >= n_ids):
        raise ValueError(
            f"{name} must lie in range(0, {n_ids}), got values from {ids.min()} to {ids.max()}. "
            "Was the encoder fitted on another catalogue?"
        )
