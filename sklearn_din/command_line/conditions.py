"""Conditions such as ``rating>=4`` or ``home>away``, which make a label of one or two columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # --help needs neither
    import numpy as np
    import pandas as pd

CONDITION = re.compile(r"(?P<column>.+?)\s*(?P<compare>>=|<=|==|!=|>|<)\s*(?P<value>.+)")
COMPARISONS = {">=": "ge", "<=": "le", ">": "gt", "<": "lt", "==": "eq", "!=": "ne"}


class Condition(NamedTuple):
    """A column compared with a value, or with another column."""

    column: str
    compare: str
    value: str

    def other_column(self, table: pd.DataFrame) -> str | None:
        """Return the column that the value names; None where it is a number or a value itself."""
        if self.value not in table or table[self.column].astype(str).eq(self.value).any():
            return None
        return self.value

    def difference(self, table: pd.DataFrame, other: str, *, drop_bad: bool) -> pd.Series:
        """Return by how much the first column is larger than the other, NaN where one is missing.

        Texts that ``==`` or ``!=`` compare differ by 0 or 1.
        """
        import pandas as pd

        both = [table[name] for name in (self.column, other)]
        is_text = not all(map(pd.api.types.is_numeric_dtype, both))
        if is_text and self.compare in ("==", "!="):
            differs = (both[0].astype(str) != both[1].astype(str)).astype(float)
            return differs.where(both[0].notna() & both[1].notna())
        first, second = (self.numbers(column, drop_bad=drop_bad) for column in both)
        return first - second

    def numbers(self, column: pd.Series, *, drop_bad: bool) -> pd.Series:
        """Return a column as numbers; raise where a value is none, unless it is left out."""
        import pandas as pd

        try:
            return pd.to_numeric(column, errors="coerce" if drop_bad else "raise")
        except ValueError as error:
            raise ValueError(
                f"--label {self.column}{self.compare}{self.value} compares numbers: {error} of "
                f"{column.name!r}. --drop-bad leaves out rows that hold none."
            ) from error

    def read(self, column: pd.Series, *, drop_bad: bool) -> pd.Series:
        """Return the column as numbers, but where ``==`` or ``!=`` compare its texts.

        A value that is no number is an error; with ``drop_bad`` it is missing instead.
        """
        import pandas as pd

        if self.compare in ("==", "!=") and not pd.api.types.is_numeric_dtype(column.dtype):
            return column
        try:
            float(self.value)
        except ValueError as error:
            raise ValueError(
                f"--label {self.column}{self.compare}{self.value} compares numbers: {error} of "
                f"{self.column!r}. Give a number, or the name of another column."
            ) from error
        return self.numbers(column, drop_bad=drop_bad)

    def holds(self, column: pd.Series) -> np.ndarray:
        """Return where values that :meth:`read` has read meet the condition; missing ones do not.

        is_met : ndarray of bool of shape (n_rows,)
        """
        import pandas as pd

        is_number = pd.api.types.is_numeric_dtype(column.dtype)
        values, other = (
            (column, float(self.value)) if is_number else (column.astype(str), self.value)
        )
        met = getattr(values, COMPARISONS[self.compare])(other)
        return (met.fillna(False) & column.notna()).to_numpy(bool)


def read_condition(text: str) -> Condition | None:
    """Return a text as a condition; None where it is the name of a column.

    >>> read_condition("rating >= 4")
    Condition(column='rating', compare='>=', value='4')
    >>> read_condition("click")
    """
    found = CONDITION.fullmatch(text)
    return None if found is None else Condition(**found.groupdict())
