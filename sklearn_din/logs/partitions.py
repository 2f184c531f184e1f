"""A table laid out by key on disk, so that the rows of one key are together in memory later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._validation import check_keys, missing_rows, plain_values
from sklearn_din.logs.mapped_arrays import MAPPED_BYTES, ArrayWriter

Arrays = Mapping[str, np.ndarray]

HASH_KEYS = ("first 64 bits 16", "other 64 bits 16")  # two hashes of 64 bits each
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


class Partitions:
    """Rows of several columns, kept on disk by the partition that each row belongs to.

    Rows are buffered, and each full buffer is sorted by partition and written behind the others:
    one file per column, written from beginning to end. A partition is read as its slices of all
    buffers; its rows come back in the order in which they were appended.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    name : str
        Beginning of the files' names.
    n_partitions : int
        Number of partitions.

    Attributes
    ----------
    sizes : ndarray of shape (n_partitions,)
        Rows of each partition, once :meth:`finish` was called.
    """

    def __init__(self, folder: Path, name: str, n_partitions: int) -> None:
        self._folder, self._name, self.n_partitions = folder, name, n_partitions
        self._writers: dict[str, ArrayWriter] = {}
        self._buffer: list[tuple[np.ndarray, Arrays]] = []
        self._n_bytes = 0
        self._bounds: list[np.ndarray] = []
        self.sizes = np.zeros(n_partitions, dtype=np.int64)

    @property
    def names(self) -> list[str]:
        """Columns that were written."""
        return list(self._writers)

    def append(self, partition: np.ndarray, columns: Arrays) -> None:
        """Add rows: the partition of each, and its columns, always the same ones."""
        self._buffer.append((partition, columns))
        self._n_bytes += sum(values.nbytes for values in columns.values())
        if self._n_bytes >= MAPPED_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is buffered."""
        self._flush()

    def read(
        self, partition: int, names: Sequence[str], *, n_rows: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows of one partition, in pieces of about ``n_rows`` or all at once."""
        slices = [
            (int(start), int(stop))
            for start, stop in (bounds[partition : partition + 2] for bounds in self._bounds)
            if stop > start
        ]
        while slices:
            wanted, n_wanted = [], 0
            while slices and (n_rows is None or n_wanted < n_rows):
                wanted.append(slices.pop(0))
                n_wanted += wanted[-1][1] - wanted[-1][0]
            yield {name: self._read(name, wanted) for name in names}

    def remove(self) -> None:
        """Delete the files."""
        for writer in self._writers.values():
            (self._folder / writer.name).unlink(missing_ok=True)

    def _read(self, name: str, slices: Sequence[tuple[int, int]]) -> np.ndarray:
        writer = self._writers[name]
        whole = np.asarray(np.memmap(self._folder / writer.name, writer.dtype, mode="r"))
        return np.concatenate([whole[start:stop] for start, stop in slices])

    def _flush(self) -> None:
        if not self._buffer:
            return
        partition = np.concatenate([one for one, _ in self._buffer])
        order = np.argsort(partition, kind="stable")
        counts = np.bincount(partition, minlength=self.n_partitions)
        first = 0 if not self._bounds else int(self._bounds[-1][-1])
        self._bounds.append(first + np.concatenate([[0], np.cumsum(counts)]))
        self.sizes += counts
        for name in self._buffer[0][1]:
            values = np.concatenate([columns[name] for _, columns in self._buffer])
            if name not in self._writers:
                self._writers[name] = ArrayWriter(
                    self._folder, f"{self._name}-{len(self._writers)}.rows", values.dtype
                )
            self._writers[name].append(values[order])
        self._buffer, self._n_bytes = [], 0


def partition_of(keys: Sequence[np.ndarray], n_partitions: int) -> np.ndarray:
    """Partition of each row by its keys: equal keys have the same one, whatever the table.

    Examples
    --------
    >>> partition_of([np.array([7, 8, 7])], 16)
    array([0, 7, 0], dtype=uint16)
    """
    mixed = np.zeros(len(keys[0]), dtype=np.uint64)
    for key in keys:
        mixed = (mixed ^ key.view(np.uint64)) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed % np.uint64(n_partitions)).astype(np.uint16)


def key_kind(column: pd.Series, *, name: str) -> str | None:
    """Whether keys are "text" or "numbers"; None where no value says it.

    Raises
    ------
    TypeError
        If they are something else.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return key_kind(pd.Series(dtype.categories), name=name)
    if isinstance(dtype, pd.ArrowDtype):
        kind = dtype.pyarrow_dtype
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_null(kind):
            return None
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return "text"
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise _no_keys(name, str(kind))
    if pd.api.types.is_bool_dtype(dtype) or (
        pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    ):
        return "numbers"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    kinds = {"string": "text", "integer": "numbers", "floating": "numbers", "boolean": "numbers"}
    if inferred in kinds or inferred == "empty":
        return kinds.get(inferred)
    check_keys(plain_values(column), name=name)
    raise _no_keys(name, inferred)


def _no_keys(name: str, kind: str) -> TypeError:
    return TypeError(
        f"{name} must hold text or numbers where a table is a scan, got values that are {kind}. "
        "Make text of them with astype(str) before they are written."
    )


def read_keys(column: pd.Series, kind: str | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Keys as int64 arrays that are equal where the keys are, and which rows have a key.

    Text becomes 128 bits of its hash: among a thousand million texts, two have the same with a
    probability of one in 10^20.

    Parameters
    ----------
    column : Series
        Keys of the rows.
    kind : {"text", "numbers"} or None
        As :func:`key_kind` says for the whole table.

    Returns
    -------
    keys : list of ndarray of int64, shape (n_rows,)
        One array for numbers, two for text.
    is_there : ndarray of bool, shape (n_rows,)
        Which rows have a key; the keys of the others have no meaning.
    """
    if kind == "text":
        codes, texts = text_codes(column)
        texts = np.append(texts, "")  # what the code -1 takes
        hashes = [
            pd.util.hash_array(texts, hash_key=key, categorize=False).view(np.int64)
            for key in HASH_KEYS
        ]
        return [one[codes] for one in hashes], codes >= 0
    is_there = ~missing_rows(column)
    keys = np.zeros(len(column), dtype=np.int64)
    keys[is_there] = _whole_numbers(plain_values(column[is_there].infer_objects()))
    return [keys], is_there


def text_codes(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Code of each value (-1 where missing) and the distinct values as Python objects.

    Examples
    --------
    >>> text_codes(pd.Series(["hat", None, "hat"], dtype=pd.ArrowDtype(pa.string())))
    (array([ 0, -1,  0]), array(['hat'], dtype=object))
    """
    if isinstance(column.dtype, pd.ArrowDtype):
        array = pa.chunked_array(pa.array(column.array)).combine_chunks()
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes, array.dictionary.to_numpy(zero_copy_only=False).astype(object)
    codes, texts = pd.factorize(plain_values(column))
    return codes.astype(np.int64), np.asarray(texts, dtype=object)


def _whole_numbers(numbers: np.ndarray) -> np.ndarray:
    """Equal integers for equal numbers, whatever their dtype."""
    if numbers.dtype == object:  # integers too large for int64
        numbers = numbers.astype(np.uint64)
    if numbers.dtype.kind != "f":
        return numbers.astype(np.int64, copy=False)
    # Identifiers that a missing value had made floats are those integers; others are their bits.
    doubles = numbers.astype(np.float64)
    is_whole = (np.floor(doubles) == doubles) & (np.abs(doubles) < 2.0**63)
    whole = np.where(is_whole, doubles, 0).astype(np.int64)
    return np.where(is_whole, whole, doubles.view(np.int64))
