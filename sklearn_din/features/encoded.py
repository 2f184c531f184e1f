"""EncodedFeatures: the encoder's output and the classifier's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from sklearn_din.features.identities import ids_to_look_up, is_identity
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import KINDS, Schema
from sklearn_din.features.vectors import Vectors
from sklearn_din.utils.spans import select_rows
from sklearn_din.utils.warnings import agree

if TYPE_CHECKING:
    from sklearn_din.features.store import Store
    from sklearn_din.utils.keys import Keys

OTHER_TOOLS = (
    "In place of permutation_importance take history_importance, of BaggingClassifier a "
    "VotingClassifier of Pipelines."
)
METADATA = ("users", "times", "positions")  # of the rows: no features
SHOWN_NAMES = 3  # columns that an error names
ARRAYS_IN_MEMORY = 4  # mapped arrays up to a quarter of the memory allowed are read in any order
POOLS_IN_MEMORY = 8  # beyond that, so much of them is read at a time


class EncodedFeatures:
    """Impressions as id arrays and ragged histories, read as a mapping of padded arrays.

    ``X["item"]`` is an int32 array of shape (n,), ``X["hist_item"]`` an int32 array of shape (n,
    T) padded on the right with 0 to the longest history among the rows, and
    ``X["hist_item_mask"]`` a bool array that is True on real events. ``X[10:20]``,
    ``X[index_array]`` and ``X[bool_mask]`` are EncodedFeatures again. ``len(X)`` is the number of
    impressions. Ids: 0 padding, 1 unknown, known ids from 2.

    ``np.asarray(X)``, and so every step or tool that needs an array, works only if all columns
    are numbers: in a matrix, ids would be quantities and histories would lose their candidates.
    To make one anyway, call ``X.to_numpy()``. If values are lists of ids, such as the genres of a
    film, reading by name adds a dimension: (n, V), and (n, T, V) for a history.

    ``columns`` and ``behaviours`` distinguish unknown values: each has its own negative id, by
    which a new item is recognized in a history. Read by name, all of them are 1.

    Parameters
    ----------
    schema : Schema
        Description of each array.
    columns : dict of str to ndarray or IdLists of shape (n,)
        float32 numbers, int32 ids and lists of ids, one for each field that is not a history.
    behaviours : dict of tuple of str to Ragged, default=None
        The histories, by the ``histories`` of their behaviour: ``("hist_item", "hist_category")``.

    users : ndarray of shape (n,), default=None
        User of each impression, or, of a scan, the hash: uint64, 0 where it is missing. Not a
        feature; used for validation rows and scores by user.
    times : ndarray of shape (n,), default=None
        Time of each impression. Not a feature; used for validation rows and splits by time.
    positions : ndarray of shape (n,), int32, default=None
        Position at which each impression was shown, from 1; 0 if unknown. Not a feature; used
        only in training.
    vectors : dict of str to Vectors, default=None
        The fixed vectors of vocabularies that have them, stored once for all rows.
    store : Store, default=None
        Where the arrays are, if they are mapped from files: its ``memory`` limits the bytes for
        reading them. A copy made by pickle is in memory and has none.

    Raises
    ------
    ValueError
        If arrays and schema do not match: a name, a length, an id outside its vocabulary.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import Behaviour, Field, Ragged, Schema
    >>> schema = Schema(
    ...     (Field("item", "categorical", "item", 9), Field("hist_item", "history", "item", 9)),
    ...     (Behaviour("hist_item", ("hist_item",), ("item",), max_length=2),),
    ... )
    >>> history = Ragged.from_lengths({"hist_item": np.array([3, 4, 5], "int32")}, np.array([1, 2]))
    >>> X = EncodedFeatures(schema, {"item": np.array([5, 2], "int32")}, {("hist_item",): history})
    >>> X.shape, list(X[1:]["hist_item"][0])
    ((2, 3), [np.int32(4), np.int32(5)])
    """

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Column],
        behaviours: Mapping[tuple[str, ...], Ragged] | None = None,
        *,
        users: np.ndarray | None = None,
        times: np.ndarray | None = None,
        positions: np.ndarray | None = None,
        vectors: Mapping[str, Vectors] | None = None,
        store: Store | None = None,
    ) -> None:
        self.schema = schema
        self.columns = dict(columns)
        self.behaviours = dict(behaviours or {})
        self.users, self.times, self.positions, self.store = users, times, positions, store
        self.vectors = dict(vectors or {})
        _check_arrays(self)

    @classmethod
    def _without_checks(
        cls,
        schema: Schema,
        columns: dict[str, Column],
        behaviours: dict[tuple[str, ...], Ragged],
        **others: Any,
    ) -> EncodedFeatures:
        nothing = dict.fromkeys((*METADATA, "store")) | {"vectors": {}}
        parts = {"schema": schema, "columns": columns, "behaviours": behaviours, **others}
        return cls._replace(cls.__new__(cls), **nothing | parts)

    def _replace(self, **parts: Any) -> EncodedFeatures:
        """Return a copy with other attributes, which are not checked."""
        other = self.__new__(type(self))
        vars(other).update(vars(self), **parts)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"store": None}

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
        rows = select_rows(key)
        columns = {name: values[rows] for name, values in self.columns.items()}
        behaviours = {key: ragged.take(rows) for key, ragged in self.behaviours.items()}
        metadata = {name: values[rows] for name, values in self.metadata.items()}
        return self._replace(columns=columns, behaviours=behaviours, **metadata)

    def _read(self, name: str) -> np.ndarray:
        if name in self.columns:
            return _public(self.columns[name])
        if name not in self:
            raise KeyError(f"no field {name!r}; the fields are {self.keys()}")
        is_mask = name not in {field.name for field in self.schema.fields}
        history = name.removesuffix("_mask") if is_mask else name
        ragged = self.behaviours[self.schema.behaviour_of(history).histories]
        return ragged.mask() if is_mask else ragged.pad(history)

    @property
    def metadata(self) -> dict[str, np.ndarray]:
        """Users, times and positions, where given: no features."""
        values = {name: getattr(self, name) for name in METADATA}
        return {name: array for name, array in values.items() if array is not None}

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of ``X.to_numpy()``: impressions by ``len(get_feature_names_out())``."""
        return len(self), len(self.schema.feature_names_out())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        held = [field.name for field in self.schema.fields if field.kind != "numeric"]
        if held:
            more = f" and {len(held) - SHOWN_NAMES} more" if len(held) > SHOWN_NAMES else ""
            raise TypeError(
                "a matrix of numbers was requested, got EncodedFeatures with ids or histories "
                f"({', '.join(held[:SHOWN_NAMES])}{more}): as numbers, ids would be quantities, "
                "and histories would lose their candidates. Let nothing stand between "
                "HistorySequenceEncoder and DINClassifier: scale, select and join columns before. "
                f"{OTHER_TOOLS} For another model, X.to_numpy() is the matrix."
            )
        return self.to_numpy(dtype)

    def to_numpy(self, dtype: DTypeLike | None = None) -> np.ndarray:
        """Return a plain matrix in which ids are numbers and histories are padded with 0.

        Use it for other models, such as trees. A :class:`DINClassifier` cannot learn from ids in
        this form.

        Parameters
        ----------
        dtype : dtype, default=None
            Of the matrix; None means float64.

        Returns
        -------
        ndarray of shape (n, len(get_feature_names_out()))
            A history takes ``max_length`` columns.

        Raises
        ------
        ValueError
            If a column holds lists of ids for one candidate or event: they have no fixed width.
        """
        lists = [field.name for field in self.schema.fields if field.holds_lists]
        if lists:
            raise ValueError(
                f"a matrix has one number per cell, and {agree(lists, 'hold')} a list of ids "
                "for each candidate or event. Name lists in the encoder's drop."
            )
        blocks = [np.empty((len(self), 0))]
        for field in self.schema.fields:
            if field.is_history:
                behaviour = self.schema.behaviour_of(field.name)
                ragged = self.behaviours[behaviour.histories]
                blocks.append(ragged.pad(field.name, behaviour.max_length))
            else:
                blocks.append(_public(self.columns[field.name])[:, None])
        return np.concatenate(blocks, axis=1).astype(dtype or np.float64)

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return every array by name, histories padded: the input of a torch module of your own.

        skorch passes the arrays to ``forward`` by name.

        Returns
        -------
        dict of str to ndarray
            For each name in :meth:`keys` what ``X[name]`` is: numbers float32 (n,), ids int32 (n,),
            histories (n, T) padded on the right with 0 to the longest one, and their masks, bool
            (n, T), which are True on real events. Lists of ids have one more dimension.

        Examples
        --------
        >>> import pandas as pd
        >>> from sklearn_din import HistorySequenceEncoder
        >>> shown = pd.DataFrame({"item": ["a", "b"], "hist_item": [["b"], ["a", "b"]]})
        >>> arrays = HistorySequenceEncoder().fit_transform(shown).to_dict()
        >>> {name: array.shape for name, array in arrays.items()}
        {'item': (2,), 'hist_item': (2, 2), 'hist_item_mask': (2, 2)}
        """
        return {name: self[name] for name in self.keys()}

    @property
    def user_keys(self) -> Keys:
        """The user of each impression; without users, nobody's."""
        from sklearn_din.utils.keys import Keys

        return Keys.of_users(self.users, len(self))

    def __repr__(self) -> str:
        metadata = f", with {' and '.join(self.metadata)}" if self.metadata else ""
        return f"EncodedFeatures of {len(self):,} impressions{metadata}\n{self.schema.table()}"


def _public(values: Column) -> np.ndarray:
    """Numbers as they are; of ids, 1 where they are unknown; lists padded."""
    if isinstance(values, IdLists):
        return values.pad()
    return ids_to_look_up(values) if values.dtype == np.int32 else values


def _check_arrays(X: EncodedFeatures) -> None:
    """Raise ValueError where arrays do not match the schema."""
    schema = X.schema
    expected = {field.name for field in schema.fields if not field.is_history}
    if expected != set(X.columns):
        raise ValueError(f"columns must be {sorted(expected)}, got {sorted(X.columns)}.")
    if {behaviour.histories for behaviour in schema.behaviours} != set(X.behaviours):
        raise ValueError(
            f"behaviours must have the keys {[b.histories for b in schema.behaviours]}, got "
            f"{list(X.behaviours)}."
        )
    parts: dict[Any, Any] = {**X.columns, **X.behaviours, **X.metadata}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every field must have one row per impression, got lengths {lengths}.")
    n_dims = {name: vectors.n_dims for name, vectors in X.vectors.items()}
    if n_dims != schema.vector_sizes:
        raise ValueError(f"vectors must have the dimensions {schema.vector_sizes}, got {n_dims}.")
    for field in schema.fields:
        if field.has_ids:
            columns: Mapping[str, Column] = X.columns
            if field.is_history:
                columns = X.behaviours[schema.behaviour_of(field.name).histories].columns
            values = columns[field.name]
            if isinstance(values, IdLists) != field.holds_lists:
                raise ValueError(f"{field.name} must hold {KINDS[field.kind]}, got {values!r:.60}.")
            ids = values.distinct.ids if isinstance(values, IdLists) else values
            if ids.dtype != np.int32:
                raise ValueError(
                    f"{field.name} must hold int32 ids, got {ids.dtype}. Encode the column first."
                )
            ids = ids[~is_identity(ids)]
            if ids.size and (ids.min() < 0 or ids.max() >= field.n_ids):
                raise ValueError(
                    f"{field.name} must lie in range(0, {field.n_ids}), got values from "
                    f"{ids.min()} to {ids.max()}. Was the encoder fitted on another catalogue?"
                )


def find_runs(X: EncodedFeatures) -> np.ndarray:
    """Return where histories, but those of bags, change from row to row, and both ends."""
    changes = np.zeros(max(len(X) - 1, 0), dtype=bool)
    for behaviour in X.schema.behaviours:
        if not behaviour.is_bag:
            changes |= X.behaviours[behaviour.histories].changes()
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(X)]])


def find_missing_numbers(X: EncodedFeatures, name: str) -> np.ndarray:
    """Return whether a number of each row is missing: (n,), all False without an indicator."""
    missing = X.schema.indicator_of(name)
    return X.columns[missing] > 0 if missing else np.zeros(len(X), dtype=bool)


def rows_per_pool(X: EncodedFeatures) -> int | None:
    """Return how many rows are read at a time, in order; None: in any order, from memory."""
    if X.store is None or X.store.nbytes <= X.store.memory // ARRAYS_IN_MEMORY:
        return None
    return max(int(X.store.memory / POOLS_IN_MEMORY / X.store.nbytes * len(X)), 1)


def copy_to_memory(X: EncodedFeatures, rows: np.ndarray) -> EncodedFeatures:
    """Copy some rows of mapped impressions, in ascending order, without users and times.

    Each page of a file is read once; of the events, those that some row holds are copied.
    """
    chosen = X[rows]
    columns = {
        name: values.copy() if isinstance(values, IdLists) else np.array(values)
        for name, values in chosen.columns.items()
    }
    behaviours = {key: ragged.drop_older().compact() for key, ragged in chosen.behaviours.items()}
    positions = None if chosen.positions is None else np.array(chosen.positions)
    return EncodedFeatures._without_checks(
        X.schema, columns, behaviours, positions=positions, vectors=X.vectors
    )
