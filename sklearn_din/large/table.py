"""A table as a sequence of chunks: a frame in memory or a scan."""

import uuid
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from sklearn_din.utils.digests import digest
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import missing_rows

PART_ROWS = 131_072  # of a frame
HEAD_ROWS = 1000
DEFAULT_MEMORY = 10**9


class Table:
    """A frame or a scan, read in chunks.

    Parameters
    ----------
    source : Scan, or pandas, polars or Arrow frame
        Its rows are not changed.
    name : str
        How errors call it.

    Attributes
    ----------
    source : Scan or DataFrame
        All rows.
    caller : CallerFrame or None
        The source as it was given, where it is a frame.
    frame : DataFrame
        The frame, or an empty one with the columns and dtypes of the parts.
    memory : int
        Bytes that reading may take.
    cache_dir : Path or None
        Folder for what is made of the table and may stay; None: there is none.
    """

    def __init__(self, source: Any, *, name: str) -> None:
        self.name, self.source, self.caller = name, source, None
        self.memory, self.cache_dir = DEFAULT_MEMORY, None
        if isinstance(source, Scan):
            self.memory, self.cache_dir = source.memory, source.cache_dir
            kinds = source.all_dtypes
            self.frame = pd.DataFrame({k: pd.Series([], dtype=kind) for k, kind in kinds.items()})
        else:
            self.caller = CallerFrame(source, name=name)
            self.source = self.frame = self.caller.pandas

    def __len__(self) -> int:
        return len(self.source)

    def parts(self, columns: Sequence[Any]) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the number of the first row, and the rows, of each chunk."""
        names = list(dict.fromkeys(columns))
        if self.caller is None:
            yield from self.source.parts(names)
            return
        for start in range(0, len(self), PART_ROWS):
            yield start, self.frame[names].iloc[start : start + PART_ROWS]

    def head(self, columns: Sequence[Any], *, present: Hashable) -> pd.DataFrame:
        """Return the first rows in which one of the columns is not missing: a thousand at most."""
        for _, part in self.parts(columns):
            part = part[~missing_rows(part[present])].iloc[:HEAD_ROWS]
            if len(part):
                return part
        return self.frame[list(dict.fromkeys(columns))].iloc[:0]

    def fingerprint(self, columns: Sequence[Any]) -> str:
        """Return a digest of some columns: equal where they hold the same."""
        names = list(dict.fromkeys(columns))
        if self.caller is None:
            return self.source.narrow(names).fingerprint()
        columns = [self.frame[name] for name in names]
        try:
            hashes = [pd.util.hash_pandas_object(c, index=False).to_numpy() for c in columns]
        except TypeError:  # values that have no hash: nothing is known to be equal
            return uuid.uuid4().hex
        return digest(repr([(name, str(self.frame[name].dtype)) for name in names]), *hashes)


def arrow_of_column(column: pd.Series) -> pa.Array:
    """Return a column as one Arrow array of plain values: no dictionary, 64-bit offsets of text.

    >>> str(arrow_of_column(pd.Series(["hat", None], dtype="category")).type)
    'large_string'
    """
    values = column.array if isinstance(column.dtype, pd.ArrowDtype) else column
    array = pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = plain_type(array.type)
    kind = pa.large_string() if pa.types.is_string(kind) else kind
    return array if array.type == kind else array.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, whether stored once (a dictionary) or in each row.

    Numbers of 16 bits get 32: pandas has no index of float16, DuckDB and Arrow cannot sort them.

    >>> plain_type(pa.list_(pa.dictionary(pa.int32(), pa.large_string())))
    ListType(list<element: string>)
    """
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", plain_type(kind.value_type)))
    return kind
