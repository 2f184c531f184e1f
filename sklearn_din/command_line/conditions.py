"""Conditions such as ``rating>=4``: the label of a row, and filters of rows."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # --help needs neither
    import numpy as np
    import pandas as pd

CONDITION = re.compile(r"(?P<column>.+?)\s*(?P<compare>>=|<=|==|!=|>|<)\s*(?P<value>.+)")
COMPARISONS = {">=": "ge", "<=": "le", ">": "gt", "<": "lt", "==": "eq", "!=": "ne"}


class Condition(NamedTuple):
    """A column compared with a value; ``option`` names it in errors."""

    option: str
    column: str
    compare: str
    value: str

    def __str__(self) -> str:
        return f"{self.option} {self.column}{self.compare}{self.value}"

    def read(self, column: pd.Series, *, drop_bad: bool) -> pd.Series:
        """Return the column as numbers where the condition compares numbers.

        A value that is no number is an error; with ``drop_bad`` it is missing instead.
        """
        import pandas as pd

        is_number = pd.api.types.is_numeric_dtype(column.dtype)
        if not is_number and self.compare in ("==", "!="):
            return column
        numbers = pd.to_numeric(column, errors="coerce")
        bad = column[numbers.isna() & column.notna()]
        if pd.isna(pd.to_numeric(self.value, errors="coerce")) or len(bad) == column.notna().sum():
            raise ValueError(
                f"{self} compares numbers with a number, or text by == and !=, but "
                f"{column.name!r} holds values such as {column.tolist()[0]!r}."
            )
        if len(bad) and not drop_bad:
            raise ValueError(
                f"{self} compares numbers, but {column.name!r} holds none in {len(bad):,} of "
                f"{len(column):,} rows, such as {bad.iloc[0]!r}. --drop-bad leaves these rows out."
            )
        return numbers

    def holds(self, column: pd.Series) -> np.ndarray:
        """Return where values that :meth:`read` has read meet the condition; missing ones do not.

        is_met : ndarray of bool of shape (n_rows,)
        """
        import numpy as np
        import pandas as pd

        is_number = pd.api.types.is_numeric_dtype(column.dtype)
        values = column.to_numpy(np.float64, na_value=np.nan) if is_number else column.astype(str)
        other = float(self.value) if is_number else self.value
        met = np.asarray(getattr(operator, COMPARISONS[self.compare])(values, other), dtype=bool)
        return met & column.notna().to_numpy()


def read_condition(text: str, *, option: str) -> Condition | None:
    """Return a text as a condition; None where it is the name of a column.

    >>> read_condition("rating >= 4", option="--label")
    Condition(option='--label', column='rating', compare='>=', value='4')
    >>> read_condition("click", option="--label")
    """
    found = CONDITION.fullmatch(text)
    return None if found is None else Condition(option, **found.groupdict())


def keep_rows(
    table: pd.DataFrame, conditions: Sequence[Condition], path: Path, *, drop_bad: bool
) -> pd.DataFrame:
    """Return the rows that meet every condition, and print how many do not."""
    for condition in conditions:
        column = condition.read(table[condition.column], drop_bad=drop_bad)
        kept = table[condition.holds(column)]
        if kept.empty:
            raise ValueError(f"{condition} leaves none of the {len(table):,} rows of {path}.")
        print(f"note: {condition} leaves {len(kept):,} of {len(table):,} rows of {path}")
        table = kept
    return table
