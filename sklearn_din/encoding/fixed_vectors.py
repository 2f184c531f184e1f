"""Fixed vectors given by the user as a frame: their values, scale and ids."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.vocabulary import Vocabulary, plain_ids
from sklearn_din.features.identities import is_identity
from sklearn_din.features.vectors import Vectors
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.validation import plain_values


@dataclass(frozen=True, eq=False)
class VectorScale:
    """The scale of vectors: ``mean`` is subtracted, then all are divided by one ``scale``.

    They are as long, on average, as the root of n_dims; what has no vector is at the mean.
    """

    mean: np.ndarray
    scale: float

    @classmethod
    def of(cls, table: np.ndarray) -> "VectorScale":
        """Learn the scale of a table of vectors, (n, n_dims)."""
        mean = table.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = float(np.sqrt(np.square(table - mean, dtype=np.float64).mean()))
        return cls(mean, scale or 1.0)

    def check(self) -> None:
        """Raise ValueError where no vector can be scaled by it."""
        check_array(self.mean, dtype=np.float32, shape=(self.mean.size,), what="a mean of vectors")
        if not 0 < self.scale < np.inf:
            raise ValueError("the scale of vectors must be positive.")


def read_vectors(
    vectors: object, columns: Mapping[str, IdColumn]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the parameter ``vectors``: by vocabulary, plain values and their vectors (n, n_dims)."""
    if vectors is None:
        return {}
    if not isinstance(vectors, Mapping):
        raise TypeError(
            "vectors must be a dict of a column of ids and its frame, {'item': frame}, got "
            f"{type(vectors).__name__}."
        )
    owners = {name: ids.owner for name, ids in columns.items() if not ids.holds_lists}
    tables = {}
    for name, frame in vectors.items():
        if name not in owners:
            raise ValueError(
                f"vectors[{name!r}] must belong to a column of ids of X, which are "
                f"{sorted(owners)}. Name the candidate's column: its histories share the vectors."
            )
        if owners[name] in tables:
            raise ValueError(
                f"vectors[{name!r}] are of values that have vectors already, by another column "
                "of the same vocabulary. Give one of them."
            )
        tables[owners[name]] = _read_frame(frame, name)
    return tables


def _read_frame(frame: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of one frame and their vectors, checked."""
    what = f"vectors[{name!r}]"
    if not isinstance(frame, pd.DataFrame) or name not in frame:
        got = list(frame.columns) if isinstance(frame, pd.DataFrame) else type(frame).__name__
        raise ValueError(
            f"{what} must be a pandas DataFrame with a column {name!r}, whose values they belong "
            f"to, got {got}. An index becomes one by frame.reset_index(names={name!r})."
        )
    keys = plain_values(frame[name])
    if pd.isna(keys).any() or frame[name].duplicated().any():
        raise ValueError(
            f"{what} must have one row for each value of {name!r}. Use "
            f"frame.dropna(subset={name!r}).drop_duplicates({name!r})."
        )
    rest = frame.drop(columns=name)
    try:
        is_nested = rest.shape[1] == 1 and pd.api.types.is_list_like(rest.iloc[0, 0])
        cells = np.stack(rest.iloc[:, 0].tolist()) if is_nested else rest.to_numpy()
        table = np.ascontiguousarray(cells.astype(np.float32))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{what} must hold numbers: one column for each dimension, or one column of equally "
            f"long arrays: {error}"
        ) from error
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"{what} must hold finite numbers, equally many in each row.")
    return keys, table


def vectors_of(
    vocabulary: Vocabulary, scale: VectorScale, keys: np.ndarray, table: np.ndarray, *, name: str
) -> Vectors:
    """Return the vectors of a vocabulary's ids, and those of values that it does not have."""
    if table.shape[1] != len(scale.mean):
        raise ValueError(
            f"vectors[{name!r}] must have {len(scale.mean)} dimensions as at fit, got "
            f"{table.shape[1]}. Vectors of another model mean something else: fit again."
        )
    ids = vocabulary.encode(plain_ids(keys, name=name), name=name)
    own = np.arange(1, len(ids) + 1, dtype=np.int32)
    is_new = is_identity(ids)
    if is_new.all():
        raise ValueError(
            f"vectors[{name!r}] must belong to values of X, and no value of the training rows has "
            f"one: the first are {keys[:3].tolist()} and {vocabulary.values[:3].tolist()}."
        )
    rows = np.zeros(vocabulary.n_ids, dtype=np.int32)
    rows[ids[~is_new]] = own[~is_new]
    new_ids, first = np.unique(ids[is_new], return_index=True)
    scaled = (table - scale.mean) / np.float32(scale.scale)
    return Vectors(
        np.concatenate([np.zeros((1, table.shape[1]), np.float32), scaled]),
        rows,
        new_ids,
        own[is_new][first],
    )
