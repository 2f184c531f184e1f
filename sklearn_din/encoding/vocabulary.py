"""Vocabularies: which values of a column have their own id, and the mapping both ways."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from sklearn_din.features.identities import identify, is_identity
from sklearn_din.features.schema import FIRST_KNOWN_ID, PADDING_ID, UNKNOWN_ID
from sklearn_din.utils.digests import digest
from sklearn_din.utils.validation import check_exact, spells_integer
from sklearn_din.utils.warnings import warn_user

N_DIGITS = 16  # of a vocabulary's digest
PENDING_VALUES = 100_000
FEW_VALUES = 1024  # up to which a search in order is faster than an index of pandas
ID_DTYPES = [np.dtype(np.int64), np.dtype(bool), np.dtype(object)]


class Occurrences(NamedTuple):
    """The distinct values of one column and how often each of them counts."""

    values: np.ndarray
    counts: np.ndarray


class IdRules(NamedTuple):
    """Values that count ``min_frequency`` times get an id, the ``max_ids`` most frequent."""

    min_frequency: int = 1
    max_ids: int | None = None

    def choose(self, counts: np.ndarray, n_known: int = 0) -> np.ndarray:
        """Return which of sorted values get an id, beside ``n_known``, by how often each counts."""
        chosen = counts >= self.min_frequency
        if self.max_ids is not None:
            chosen[np.argsort(-counts, kind="stable")[max(0, self.max_ids - n_known) :]] = False
        return chosen


class ValueCounts:
    """Distinct values of a column, collected in chunks, and their counts.

    New values are joined to the earlier ones whenever they have doubled them.
    """

    def __init__(self) -> None:
        self._pending: list[Occurrences] = []

    def update(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Count distinct values of another chunk, ignoring those with a count of zero."""
        if not (counts > 0).any():
            return
        self._pending.append(Occurrences(values[counts > 0], counts[counts > 0]))
        n_known, *n_new = (len(part.values) for part in self._pending)
        if sum(n_new) > max(n_known, PENDING_VALUES):
            self.finish()

    def finish(self) -> Occurrences:
        """All values so far, each once, in the order in which they came."""
        if not self._pending:
            return Occurrences(np.empty(0, dtype=object), np.empty(0))
        if len(self._pending) > 1:
            self._pending = [_count_together(self._pending)]
        return self._pending[0]


@dataclass(eq=False)
class Vocabulary:
    """Values in id order: ``values[i]`` has the id ``i + 2``; 0 is padding, 1 unknown.

    Values learnt at once are sorted, so that the same catalogue gets the same ids. Later ones are
    appended (:meth:`grow`) and change no id; ``grown_from`` has the digests before that.
    """

    values: np.ndarray
    grown_from: tuple[str, ...] = ()

    @classmethod
    def learn(cls, sources: Mapping[str, Occurrences], rules: IdRules) -> Self:
        """Learn one vocabulary from columns whose counts add up; a count of 0 is not learnt."""
        values, counts = count_columns(sources)
        return cls(values[rules.choose(counts)])

    def grow(self, sources: Mapping[str, Occurrences], rules: IdRules, *, name: str) -> Self:
        """Append values that are frequent enough in later rows, as a new vocabulary of ``name``."""
        values, counts = count_columns(sources)
        values = self.as_learnt(values)
        learnt, given = self._kind, kind_of_ids(values)
        if learnt and len(values) and learnt != given:
            raise ValueError(
                f"{name} was learnt as {learnt} and now holds {given or 'values of several kinds'}:"
                " they could never match. Give the column the dtype that it had at fit."
            )
        is_new = self.positions(values) < 0
        chosen = rules.choose(counts[is_new], len(self.values))
        if not chosen.any():
            return self
        new = plain_ids(values[is_new][chosen], name=name)
        if len(self.values) and self.values.dtype != new.dtype:  # a vocabulary of several kinds
            new = new.astype(object)
        together = np.concatenate([self.values, new]) if len(self.values) else new
        return type(self)(together, (*self.grown_from, self.digest))

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the values and their order."""
        if self.values.dtype != object:
            return digest(self.values)[:N_DIGITS]
        texts = map(str if _is_text(self.values) else repr, self.values)
        return digest("\0".join(texts))[:N_DIGITS]

    @cached_property
    def _kind(self) -> str | None:
        return kind_of_ids(self.values)

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.values, dtype=self.values.dtype)  # never pandas 3's own text dtype

    @cached_property
    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions that sort integer values, and the values sorted."""
        order = np.argsort(self.values, kind="stable")
        return order, self.values[order]

    @cached_property
    def _equal_to_booleans(self) -> dict[int, bool]:
        """Positions of objects that pandas takes for False or True, and whether they are these."""
        if self.values.dtype != object:
            return {}
        places = self._index.get_indexer(pd.Index([0, 1], dtype=object)).tolist()
        return {place: isinstance(self.values[place], bool) for place in places if place >= 0}

    @property
    def n_ids(self) -> int:
        """Size of an embedding table: the values, padding and unknown."""
        return len(self.values) + FIRST_KNOWN_ID

    def encode(self, values: np.ndarray, *, name: str) -> np.ndarray:
        """Give each plain value its id: int32, a negative one of its own where it is unknown."""
        values = self.as_learnt(values)
        learnt, given = self._kind, kind_of_ids(values)
        if learnt and given and learnt != given:
            warn_user(
                f"{name} was learnt as {learnt} and now holds {given}: all of them are unknown. "
                "Give the column the dtype that it had at fit."
            )
        positions = self.positions(values)
        for place, is_boolean in self._equal_to_booleans.items():
            for n in np.flatnonzero(positions == place):
                if isinstance(values[n], bool | np.bool_) != is_boolean:
                    positions[n] = -1
        ids = (positions + FIRST_KNOWN_ID).astype(np.int32)
        unknown = np.flatnonzero(positions < 0)
        ids[unknown] = identify(values[unknown])
        return ids

    def as_learnt(self, values: np.ndarray) -> np.ndarray:
        """Convert text that spells integers to integers if the vocabulary has integers."""
        spells = self.values.dtype == np.int64 and values.dtype == object
        return _spelt_integers(values) if spells else values

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Give each value its position in ``values``, -1 where it has none."""
        learnt, given = self.values.dtype.kind, values.dtype.kind
        if learnt == given == "i" and len(values) <= FEW_VALUES and len(self.values):
            order, ordered = self._in_order
            places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
            return np.where(ordered[places] == values, order[places], -1)
        if learnt == given == "O" and len(values) == 1 and isinstance(values[0], str):
            with suppress(KeyError):
                return np.array([self._index.get_loc(values[0])])
            return np.array([-1])
        if learnt == "O":
            # Booleans alone find no True among objects, as they do beside others.
            values = values.astype(object, copy=False)
        positions = self._index.get_indexer(pd.Index(values, dtype=values.dtype))
        if given == "O" and learnt != "O":
            # Among others True equals 1, which no column of booleans finds.
            kind = {"b": bool, "i": int}[learnt]
            positions[[type(value) is not kind for value in values]] = -1
        return positions

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Give each id its value, None for padding and unknown: an object array."""
        ids = np.where(is_identity(ids), UNKNOWN_ID, ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.n_ids):
            raise ValueError(
                f"ids must lie in range(0, {self.n_ids}), got values from {ids.min()} to "
                f"{ids.max()}. Are they another column's ids?"
            )
        table = np.concatenate([[None] * FIRST_KNOWN_ID, self.values.astype(object)])
        return table[ids]

    def check(self) -> None:
        """Raise ValueError where this cannot be a vocabulary."""
        if self.values.ndim != 1 or self.values.dtype not in ID_DTYPES:
            raise ValueError("a vocabulary must be a list of integers, booleans or objects.")
        if not self._index.is_unique:
            raise ValueError("a vocabulary must have each value once.")


Vocabularies = Mapping[str, Vocabulary]  # by the column that each belongs to


def plain_ids(values: np.ndarray, *, name: str) -> np.ndarray:
    """Distinct ids as int64, bool, or objects: 7, 7.0, a Decimal and numpy's 7 become one value."""
    if values.dtype.kind in "iu":
        fits = values.dtype != np.uint64 or values.max(initial=0) <= np.iinfo(np.int64).max
        return values.astype(np.int64 if fits else object)
    if values.dtype.kind == "f":
        return _whole_numbers(values, name=name)
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind != "O":
        return np.asarray(pd.Index(values).astype(object), dtype=object)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        return values
    each = (_plain_value(value, name=name) for value in values)
    plain = np.fromiter(each, dtype=object, count=len(values))
    if pd.api.types.infer_dtype(plain, skipna=False) == "boolean":
        return plain.astype(bool)
    return _small_integers(plain)


def _small_integers(values: np.ndarray) -> np.ndarray:
    """As int64 where all values are integers that fit, otherwise as they are."""
    is_integer = pd.api.types.infer_dtype(values, skipna=False) == "integer"
    fits = is_integer and all(-(2**63) <= value < 2**63 for value in values)
    return values.astype(np.int64) if fits else values


def whole_ids(ids: ArrayLike) -> np.ndarray:
    """Encoded ids as int64, padding where they are missing; raise where they are no integers."""
    values = np.asarray(ids)
    if values.dtype.kind not in "iu":  # floats and objects where some are missing
        missing = np.asarray(pd.isna(values))
        for value in values[~missing].tolist():
            if isinstance(value, bool) or not isinstance(value, Real) or value % 1:
                raise ValueError(
                    f"ids must be integers, got {value!r}. Original values need no decoding."
                )
        values = np.where(missing, PADDING_ID, values)
    return values.astype(np.int64)


def _plain_value(value: object, *, name: str) -> object:
    if isinstance(value, float | np.floating):
        return int(_whole_numbers(np.asarray([value]), name=name)[0])
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return value.item() if isinstance(value, np.generic) else value


def _whole_numbers(values: np.ndarray, *, name: str) -> np.ndarray:
    """Return floats without fractions as int64."""
    broken = values[~np.isfinite(values) | (values != np.floor(values))]
    if len(broken):
        raise ValueError(
            f"{name} must hold ids, got floats with fractions or infinity such as {broken[0]}. "
            f"Convert the column, or name it in numeric=[{name!r}] if it holds quantities."
        )
    check_exact(values, name=name)
    return values.astype(np.int64)


def count_columns(sources: Mapping[str, Occurrences]) -> Occurrences:
    """Count the values of all columns together: those that count, in sorted order."""
    filled = {name: source for name, source in sources.items() if len(source.values)}
    if not filled:
        return Occurrences(np.empty(0, dtype=object), np.empty(0))
    arrays = _of_one_kind({name: source.values for name, source in filled.items()})
    pairs = zip(arrays, filled.values(), strict=True)
    values, counts = _count_together([Occurrences(a, source.counts) for a, source in pairs])
    values, counts = values[counts > 0], counts[counts > 0]
    order = sort_order(values)
    return Occurrences(values[order], counts[order])


def _count_together(parts: Sequence[Occurrences]) -> Occurrences:
    arrays = [part.values for part in parts]
    if len({array.dtype for array in arrays}) > 1:
        arrays = [array.astype(object) for array in arrays]
    codes, values = pd.factorize(np.concatenate(arrays), use_na_sentinel=False)
    counts = np.concatenate([part.counts for part in parts])
    return Occurrences(values, np.bincount(codes, weights=counts, minlength=len(values)))


def _of_one_kind(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Let text that spells integers join integers; raise where others meet integers."""
    kinds = {name: kind_of_ids(array) for name, array in arrays.items()}
    integers = [name for name, kind in kinds.items() if kind == "integers"]
    if not integers:
        return list(arrays.values())
    arrays = {n: _spelt_integers(a) if kinds[n] == "text" else a for n, a in arrays.items()}
    for name, kind in kinds.items():  # Python's True is 1, Arrow's and pandas' is not
        if kind in ("booleans", "text") and arrays[name].dtype != np.int64:
            raise ValueError(
                f"{integers[0]} holds integers and {name} holds {kind}: they share a vocabulary "
                "and could never match. Give both columns one dtype."
            )
    return list(arrays.values())


def _is_text(values: np.ndarray) -> bool:
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=False) == "string"


def _spelt_integers(values: np.ndarray) -> np.ndarray:
    """Text such as "12" as the integer 12; the rest ("012", "1.0", "hat") stays as it is."""
    spelt = (int(v) if isinstance(v, str) and spells_integer(v) else v for v in values)
    return _small_integers(np.fromiter(spelt, dtype=object, count=len(values)))


def kind_of_ids(values: np.ndarray) -> str | None:
    """Return the kind of ids, where all are of one kind."""
    if len(values) == 0:
        return None
    if values.dtype.kind in "biu":
        return "booleans" if values.dtype.kind == "b" else "integers"
    kinds = {"string": "text", "bytes": "bytes"}
    kinds |= dict.fromkeys(["datetime", "datetime64", "date"], "dates")
    return kinds.get(pd.api.types.infer_dtype(values, skipna=False))


def sort_order(values: np.ndarray) -> np.ndarray:
    """Return the order in which values learned together get their ids."""
    try:
        if _is_text(values):  # by code point as Python's own order, and eight times as fast
            return pc.sort_indices(pa.array(values, pa.large_string())).to_numpy()
        return np.argsort(values, kind="stable")
    except (TypeError, UnicodeEncodeError):  # values of several types, or without an order
        keys = [f"{type(value).__name__} {value!r}" for value in values]
        return np.argsort(np.array(keys, dtype=object), kind="stable")
