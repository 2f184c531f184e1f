"""One row given as plain values, read without a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from sklearn_din._spans import Spans
from sklearn_din.encoding.cells import LARGEST, LISTS, Codes, HistoryCells, Selection
from sklearn_din.encoding.table import Columns

NO_COLUMNS = pd.DataFrame(index=[0])
LARGEST_INT64 = np.iinfo(np.int64).max


class OneRow(Columns):
    """One row given as plain values, read as the columns of a frame of one row are.

    Integers, floats and text, and lists of integers or of text, are read here, in a tenth of the
    time that pandas takes to make columns of them. All else is made a column.

    Examples
    --------
    >>> row = OneRow({"price": 7, "item": "hat", "hist_item": [3, 4]})
    >>> row.numbers("price"), row.codes("item")[1], row.history("hist_item").values
    (array([7.]), array(['hat'], dtype=object), array([3, 4]))
    """

    def __init__(self, row: Mapping[Any, object], *, separator: str | None = None) -> None:
        super().__init__(NO_COLUMNS, separator=separator)
        self._row = row

    def column(self, name: str) -> pd.Series:
        """Return a column of one row."""
        return pd.Series([self._row[name]], name=name)

    def numbers(self, name: str) -> np.ndarray:
        """Return the number as float64, NaN where it is missing."""
        value = _plain(self._row[name])
        if value is None:
            return np.array([np.nan])
        if type(value) in (int, float) and not abs(value) > LARGEST:  # type: ignore[arg-type]
            return np.array([value], dtype=np.float64)
        return super().numbers(name)

    def codes(self, name: str) -> Codes:
        """Return the id as a code and a distinct value."""
        value = _plain(self._row[name])
        if value is None:
            return np.array([-1], dtype=np.int32), np.empty(0, dtype=object)
        values = _of_one_type([value])
        return super().codes(name) if values is None else (np.zeros(1, dtype=np.int32), values)

    def history(self, name: str) -> HistoryCells:
        """Return the events of a history."""
        cell: Any = self._row[name]
        if self.separator is None and name not in self._histories:
            is_list = type(cell) in LISTS and getattr(cell, "ndim", 1) == 1
            is_list = is_list and not (len(cell) and isinstance(cell[0], LISTS))
            values = None
            if cell is None or (is_list and not len(cell)):
                values = np.empty(0, dtype=object)
            elif is_list:
                values = _of_one_type(cell)
            if values is not None:
                spans = Spans.from_lengths(np.array([len(values)]))
                self._histories[name] = _Plain(name, values, spans)
        return super().history(name)


class _Plain(HistoryCells):
    """Events of one row: too few to find the distinct ones, so that values may repeat."""

    def codes(self, selection: Selection) -> Codes:
        values = cast(np.ndarray, self.values)[selection]
        return np.arange(len(values), dtype=np.int32), values


def _plain(value: object) -> object:
    """Return Python's own number in place of numpy's."""
    return value.item() if isinstance(value, np.int64 | np.float64) else value


def _of_one_type(values: Any) -> np.ndarray | None:
    """Return integers as int64, text as objects, None in place of anything else."""
    if isinstance(values, np.ndarray):
        if values.dtype == np.int64:
            return values
        values = values.tolist() if values.dtype == object else [None]
    types = set(map(type, values))
    if types == {str}:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    is_small = types == {int} and max(values) <= LARGEST_INT64 and min(values) >= -LARGEST_INT64
    return np.array(values, dtype=np.int64) if is_small else None
