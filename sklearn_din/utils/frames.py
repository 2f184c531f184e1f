"""Frames of the caller's kind: pandas, polars or Arrow in, the same kind out."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, cast

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from narwhals.typing import IntoDataFrameT
from pandas.api.extensions import ExtensionArray

ColumnValues = np.ndarray | ExtensionArray


class CallerFrame(Generic[IntoDataFrameT]):
    """A caller's frame, read as ``pandas`` and answered in its own kind.

    What is returned is made of the caller's own columns, never converted there and back. What is no
    frame, or a lazy one, is a TypeError.
    """

    def __init__(self, frame: IntoDataFrameT, *, name: str) -> None:
        if isinstance(frame, pd.DataFrame):
            self.native: IntoDataFrameT = frame
            return
        eager = _eager(frame, name)
        if eager is None:
            raise TypeError(
                f"{name} must be a pandas, polars or Arrow frame, got {type(frame).__name__}. "
                "What takes frames stands before the encoder in a Pipeline; wrap an array or a "
                "dict in pd.DataFrame(...); a Hugging Face dataset has .to_pandas()."
            )
        self._eager = eager
        self.native = eager.to_native()

    @cached_property
    def pandas(self) -> pd.DataFrame:
        """The same rows as a pandas frame; the caller's own where it is one."""
        if isinstance(self.native, pd.DataFrame):
            return self.native
        return _as_pandas(self._eager)

    def take(
        self,
        rows: np.ndarray,
        *,
        instead: Mapping[str, np.ndarray] | None = None,
        of: "CallerFrame[Any] | None" = None,
    ) -> IntoDataFrameT:
        """Return rows by position, in the caller's kind; a pandas frame gets a fresh RangeIndex.

        ``instead`` has other positions, as many, for the columns that it names, in this frame or
        in another one ``of`` this kind.
        """
        instead, other = instead or {}, cast(CallerFrame[Any], of or self)
        if isinstance(self.native, pd.DataFrame):
            moved = {name: other._arrays[name].take(at) for name, at in instead.items()}
            return self.take_and_replace(rows, moved)
        columns = [other._eager[name][positions] for name, positions in instead.items()]
        return self._native(self._eager[rows].with_columns(*columns))

    def select(self, names: Sequence[str]) -> IntoDataFrameT:
        """Return some columns, in the caller's kind and in this order."""
        if isinstance(self.native, pd.DataFrame):
            return cast(IntoDataFrameT, self.native[list(names)])
        return self._native(self._eager.select(names))

    def between(self, start: int, stop: int) -> IntoDataFrameT:
        """Return the rows from ``start`` to before ``stop``, in the caller's kind, as they are."""
        if isinstance(self.native, pd.DataFrame):
            return cast(IntoDataFrameT, self.native.iloc[start:stop])
        return self._native(self._eager[start:stop])

    def with_columns(
        self,
        new: Mapping[str, ColumnValues],
        *,
        first: Mapping[str, ColumnValues] | None = None,
        types: Mapping[str, pa.DataType] | None = None,
    ) -> IntoDataFrameT:
        """Return the caller's frame with more columns, those of ``first`` in front.

        History columns become lists outside pandas, of values of the Arrow type in ``types``, which
        empty lists do not tell.
        """
        first, types = first or {}, types or {}
        if isinstance(self.native, pd.DataFrame):
            frame = self.native.assign(**new)
            for position, (name, values) in enumerate(first.items()):
                frame.insert(position, name, pd.Series(values, index=frame.index))
            return cast(IntoDataFrameT, frame)
        parts = [self._columns(first, types), self._eager, self._columns(new, types)]
        parts = [part for part in parts if part.columns]
        return self._native(nw.concat(parts, how="horizontal"))

    def take_and_replace(self, rows: np.ndarray, new: Mapping[Any, ColumnValues]) -> IntoDataFrameT:
        """Return rows by position with other values in some columns, in the caller's kind."""
        native = self.native
        if not isinstance(native, pd.DataFrame):
            other = self._columns(new, {})
            return self._native(self._eager[rows].with_columns(*(other[name] for name in new)))
        # Names are set at last: an index of texts is made once, not for each result
        columns = [
            new[name] if name in new else values.take(rows) for name, values in self._arrays.items()
        ]
        objects = {  # which would become text, and fail where it is no UTF-8
            number: pd.Series(values, dtype=object)
            for number, values in enumerate(columns)
            if values.dtype == object
        }
        frame = pd.DataFrame(dict(enumerate(columns)) | objects, copy=False)
        frame.columns, frame.attrs = native.columns, native.attrs
        return cast(IntoDataFrameT, frame)

    @cached_property
    def _arrays(self) -> dict[Hashable, ExtensionArray | np.ndarray]:
        is_numpy = {name: isinstance(dtype, np.dtype) for name, dtype in self.pandas.dtypes.items()}
        return {n: c.to_numpy() if is_numpy[n] else c.array for n, c in self.pandas.items()}

    def _columns(
        self, columns: Mapping[str, ColumnValues], types: Mapping[str, pa.DataType]
    ) -> nw.DataFrame:
        arrays = {name: _arrow(values, types.get(name)) for name, values in columns.items()}
        return nw.from_arrow(pa.table(arrays), backend=self._eager.implementation)

    def _native(self, frame: nw.DataFrame) -> IntoDataFrameT:
        native = frame.to_native()
        if isinstance(native, pa.Table):  # the metadata says which column is the index in pandas
            native = native.replace_schema_metadata(self._eager.to_arrow().schema.metadata)
        return cast(IntoDataFrameT, native)


def pandas_frame(X: object, *, name: str = "X") -> pd.DataFrame | None:
    """Return a pandas frame of a pandas, polars or Arrow frame; None for anything else."""
    if isinstance(X, pd.DataFrame):
        return X
    eager = _eager(X, name)
    return None if eager is None else _as_pandas(eager)


def column_names(X: object) -> list[Any] | None:
    """Return the columns of a pandas, polars or Arrow frame; None for anything else."""
    names = getattr(X, "column_names", None)  # Arrow's: its ``columns`` are the values
    names = getattr(X, "columns", None) if names is None else names
    return None if names is None else list(names)


def list_types(events: pd.DataFrame, names: Mapping[str, str]) -> dict[str, pa.DataType]:
    """Return the Arrow types of the values of history columns (``names``: history -> column)."""
    types = {}
    for history, column in names.items():
        dtype = events[column].dtype
        if isinstance(dtype, pd.ArrowDtype):
            kind = dtype.pyarrow_dtype
            types[history] = kind.value_type if pa.types.is_dictionary(kind) else kind
    return types


def _eager(X: object, name: str) -> nw.DataFrame | None:
    frame = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(frame, nw.DataFrame):
        return frame
    if hasattr(X, "__arrow_c_stream__") and not isinstance(frame, nw.Series):
        return nw.from_native(pa.table(X), eager_only=True)
    if isinstance(frame, nw.LazyFrame):
        raise TypeError(
            f"{name} must be a frame in memory, got the lazy {type(X).__module__.split('.')[0]} "
            f"{type(X).__name__}. Call .collect() or .df() on it first, or write it to "
            "Parquet for scan_parquet."
        )
    return None


def _as_pandas(frame: nw.DataFrame) -> pd.DataFrame:
    # to_arrow gives the text of polars a type that pandas can read; the stream protocol does not.
    table = frame.to_arrow()
    for position, field in enumerate(table.schema):
        is_coded = pa.types.is_dictionary(field.type)
        if is_coded and pa.types.is_unsigned_integer(field.type.index_type):
            # polars' categories: Arrow before 26 gives pandas none with unsigned codes
            column = table.column(position).cast(field.type.value_type).dictionary_encode()
            table = table.set_column(position, field.name, column)
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _arrow(values: ColumnValues, value_type: pa.DataType | None) -> pa.Array:
    array = pa.array(values, from_pandas=True)
    if value_type is None:
        return array
    is_large = pa.types.is_large_list(array.type)
    return array.cast(pa.large_list(value_type) if is_large else pa.list_(value_type))
