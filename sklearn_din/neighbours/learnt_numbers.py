"""Numbers of rows that are learnt from training rows: what each kind of them can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Field, Schema
from sklearn_din.neighbours.blocks import Order, OrderedRows
from sklearn_din.neighbours.cooccurrence import row_blocks


class LearntNumbers(ABC):
    """Columns of numbers, looked up in tables of training rows that do not count the row itself.

    A kind is a frozen dataclass of values that files can hold, and stands in ``tables.KINDS``.
    """

    names: tuple[str, ...]
    reads_users: ClassVar[bool] = False
    of_items: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def learn(cls, given: "RowsToLearn") -> list[tuple[Self, np.ndarray]]:
        """Learn from training rows; return what was learnt, each with these rows' numbers."""

    @abstractmethod
    def look_up(self, X: EncodedFeatures, tables: np.ndarray) -> np.ndarray:
        """Return the numbers of rows, each from its table; zeros where that is -1."""

    @abstractmethod
    def grow(
        self, X: EncodedFeatures, y: np.ndarray, rows: OrderedRows, kept: Sequence[int]
    ) -> Self:
        """Return the numbers after further rows: of the tables ``kept``, then of all rows."""

    @abstractmethod
    def fits(self, order: Order) -> bool:
        """Return whether there are as many tables as the order has."""

    def latest(self) -> Self:
        """Return what looks up the numbers of now: the last table alone, where that is smaller."""
        return self

    def fields(self) -> tuple[Field, ...]:
        """Return what the columns are."""
        return tuple(Field(name, "numeric") for name in self.names)

    def without_users(self, users: np.ndarray) -> Self:
        """Return the numbers without those of some users, given by their hashes."""
        return self

    def widen(self, schema: Schema) -> Self:
        """Return the numbers with the ids that were appended since; none of them is known yet."""
        return self

    def check_columns(self, schema: Schema) -> None:  # noqa: B027
        """Raise ValueError where rows of a schema lack a column that is looked up."""

    def describe(self) -> str:
        """Return a line of the summary, or ""."""
        return ""


@dataclass
class RowsToLearn:
    """Training rows, labels, blocks, and what was learnt before; ``allocate`` returns zeros."""

    X: EncodedFeatures
    y: np.ndarray | None
    labels: Sequence[str]
    order: Order
    rows: OrderedRows
    allocate: Callable[[Sequence[str]], np.ndarray]
    learnt: Sequence[tuple[LearntNumbers, np.ndarray]] = ()

    def free_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names of columns, with underscores where others have them."""
        taken = {*self.X.keys(), *(name for part, _ in self.learnt for name in part.names)}
        return tuple(free_name(name, taken) for name in names)


def fill(
    numbers: Sequence[np.ndarray],
    parts: Sequence[LearntNumbers],
    X: EncodedFeatures,
    find_tables: Callable[[EncodedFeatures], np.ndarray],
) -> None:
    """Write the numbers of all rows, (n_rows, n_columns) for each part."""
    for block in row_blocks(X):
        rows = X[block]
        tables = find_tables(rows)
        for own, part in zip(numbers, parts, strict=True):
            own[block] = part.look_up(rows, tables)


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return a name with underscores behind it until nothing else has it."""
    while name in taken:
        name += "_"
    return name
