"""What each column of a frame holds, told as lightly as its dtype allows; histories read once."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import pyarrow as pa

from sklearn_din.encoding.cells import HistoryCells, holds_lists, read_history
from sklearn_din.logs.windows import WindowArray

ColumnKind = Literal["ids", "numbers", "time", "history"]


class Columns:
    """A frame as the encoder reads it: the kind of each column, and the cells of its histories.

    Parameters
    ----------
    frame : DataFrame
        Impressions, with distinct column names. It is never written to.
    separator : str, default=None
        Where to split histories that are text.

    Examples
    --------
    >>> columns = Columns(pd.DataFrame({"item": [7, 8], "hist_item": [[8], []]}))
    >>> columns.kind("item"), columns.kind("hist_item")
    ('ids', 'history')
    """

    def __init__(self, frame: pd.DataFrame, *, separator: str | None = None) -> None:
        self.frame = frame
        self.separator = separator
        self._histories: dict[str, HistoryCells] = {}

    @property
    def names(self) -> list[str]:
        """Column names, in the order of the frame."""
        return list(self.frame.columns)

    def kind(self, name: str) -> ColumnKind:
        """Tell what a column holds."""
        return column_kind(self.frame[name])

    def history(self, name: str) -> HistoryCells:
        """Cells of a history column; read when first asked for."""
        if name not in self._histories:
            self._histories[name] = read_history(self.frame[name], separator=self.separator)
        return self._histories[name]

    def same_windows(self, first: str, second: str) -> bool:
        """Whether one call of ``attach_history`` made both columns."""
        mine, other = self.frame[first].array, self.frame[second].array
        both = isinstance(mine, WindowArray) and isinstance(other, WindowArray)
        return both and mine.same_windows(other)


def column_kind(column: pd.Series) -> ColumnKind:
    """Tell what a column holds by its dtype, and by its cells where the dtype is object.

    Examples
    --------
    >>> [column_kind(pd.Series(cells)) for cells in ([1, 2], [0.5], ["a"], [[1], []])]
    ['ids', 'numbers', 'ids', 'history']
    """
    dtype = column.dtype
    if holds_lists(column):
        return "history"
    if isinstance(dtype, pd.CategoricalDtype):
        return "ids"
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_decimal(dtype.pyarrow_dtype):
        return "numbers"
    is_temporal = isinstance(dtype, pd.ArrowDtype) and pa.types.is_temporal(dtype.pyarrow_dtype)
    if is_temporal or getattr(dtype, "kind", "O") in "mM" or isinstance(dtype, pd.PeriodDtype):
        return "time"
    if pd.api.types.is_object_dtype(dtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        if inferred in ("floating", "mixed-integer-float", "decimal"):
            return "numbers"
        return "time" if inferred in ("date", "datetime", "timedelta", "time", "period") else "ids"
    return "numbers" if pd.api.types.is_float_dtype(dtype) else "ids"
