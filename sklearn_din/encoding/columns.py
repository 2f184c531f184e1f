"""What each column of a frame holds, told as lightly as its dtype allows; histories read once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import pandas as pd
import pyarrow as pa

from sklearn_din.encoding.cells import HistoryCells, holds_lists, read_history
from sklearn_din.encoding.single_values import Codes, are_whole, as_numbers, coded, first_present
from sklearn_din.logs.windows import WindowArray

PREFIX = "hist_"
FEW_VALUES = 20  # so few distinct integers may be in another column by chance
ColumnKind = Literal["ids", "numbers", "time", "history"]


class Columns:
    """A frame as the encoder reads it: the kind of each column, its ids or its history, read once.

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
        self._kinds: dict[str, ColumnKind] = {}
        self._codes: dict[str, Codes] = {}
        self._histories: dict[str, HistoryCells] = {}

    @property
    def names(self) -> list[str]:
        """Column names, in the order of the frame."""
        return list(self.frame.columns)

    def kind(self, name: str) -> ColumnKind:
        """Tell what a column holds."""
        if name not in self._kinds:
            self._kinds[name] = column_kind(self.frame[name])
        return self._kinds[name]

    def codes(self, name: str) -> Codes:
        """Codes and distinct values of a column of ids; read when first asked for."""
        if name not in self._codes:
            self._codes[name] = coded(self.frame[name], name=name)
        return self._codes[name]

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

    def is_whole(self, name: str) -> bool:
        """Whether a column of floats holds whole numbers alone, as ids beside missing ones do."""
        return are_whole(as_numbers(self.frame[name], name=name))

    def is_text(self, name: str) -> bool:
        """Whether the first value of a column is text."""
        return isinstance(self.first_value(name), str)

    def is_missing(self, name: str) -> bool:
        """Whether all cells of a column are missing."""
        return bool(self.frame[name].isna().all())

    def first_value(self, name: str) -> object:
        """First value that is not missing, None where all are."""
        return first_present(self.frame[name])

    def twin(self, history: str) -> str | None:
        """Column that a history is compared with by its name: ``item`` for ``hist_item``.

        Prefixes that ColumnTransformer writes before two underscores are seen through.
        """
        exact = history.removeprefix(PREFIX)
        if exact != history and exact in self.frame.columns:
            return exact
        wanted = _bare(history).removeprefix(PREFIX)
        if wanted == _bare(history):
            return None
        found = [name for name in self.names if _bare(name) == wanted]
        return found[0] if len(found) == 1 else None

    def likely_twin(self, history: str, out: Collection[str]) -> str | None:
        """Column of ids that holds most of a history's values, where one does.

        Small integers are in many columns by chance: there, nothing is likely.
        """
        values = pd.Index(self.history(history).distinct(), dtype=object)
        if len(values) < FEW_VALUES and values.inferred_type != "string":
            return None
        ids = [name for name in self.names if name not in out and self.kind(name) == "ids"]
        shares = {name: values.isin(self.codes(name)[1].astype(object)).sum() for name in ids}
        return next((name for name, share in shares.items() if 2 * share > len(values)), None)


def is_history_name(name: str) -> bool:
    """Whether a column is named as ``attach_history`` names histories.

    Examples
    --------
    >>> [is_history_name(name) for name in ("hist_item", "remainder__hist_item", "tags")]
    [True, True, False]
    """
    return _bare(name).startswith(PREFIX)


def _bare(name: str) -> str:
    """Name without the prefix that ColumnTransformer writes before two underscores."""
    return name.rpartition("__")[2]


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
