"""The rows that an encoder is given, as a sequence of parts: a frame is one, a scan has many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._progress import Progress
from sklearn_din.encoding.columns import Columns
from sklearn_din.tables.scan import Scan

Result = TypeVar("Result")


class Impressions:
    """Rows of a frame or of a scan, read part by part in the order of the files.

    Parameters
    ----------
    source : DataFrame or Scan
        A frame is one part, which is read once and kept for later passes.
    separator : str, default=None
        Where to split histories that are text.

    Attributes
    ----------
    names : list of str
        The columns.
    dtypes : dict of str to dtype
        Of the columns.
    scan : Scan or None
        The rows in the order of their files, where they lie in files.
    positions : ndarray of shape (n_rows,) or None
        Where each row of that order belongs; None where it is the order asked for.

    Examples
    --------
    >>> table = Impressions(pd.DataFrame({"item": ["hat", "tie"]}))
    >>> [(start, n) for start, n in table.map(lambda columns: len(columns.frame), ["item"], "rows")]
    [(0, 2)]
    """

    def __init__(self, source: pd.DataFrame | Scan, *, separator: str | None = None) -> None:
        self.names, self.dtypes = list(source.columns), dict(source.dtypes)
        self.separator = separator
        self._n_rows = len(source)
        self.scan: Scan | None = None
        self.positions: np.ndarray | None = None
        if isinstance(source, Scan):
            self.scan, positions = source.in_file_order()
            if positions is not None:
                self.positions = np.empty_like(positions)
                self.positions[positions] = np.arange(len(positions))
        else:
            self._whole = Columns(source, separator=separator)

    def __len__(self) -> int:
        return self._n_rows

    def map(
        self, read: Callable[[Columns], Result], names: Collection[str], purpose: str
    ) -> Iterator[tuple[int, Result]]:
        """Yield the first row of each part, and what is read of it.

        Only the columns named are read; a scan shows the purpose on a progress bar. To a ValueError
        of ``read``, the rows of the scan in which it happened are added.
        """
        if self.scan is None:
            yield 0, read(self._whole)
            return
        names = [name for name in self.names if name in names]
        if not names:
            return
        with Progress(purpose, len(self)) as shown:
            for start, frame in self.scan.parts(names):
                try:
                    result = read(Columns(frame, separator=self.separator))
                except ValueError as error:
                    last = start + len(frame) - 1
                    raise ValueError(
                        f"{error} This is among the rows {start} to {last} of the scan."
                    ) from error
                yield start, result
                shown.update(len(frame))
        pa.default_memory_pool().release_unused()  # else Arrow keeps the memory of the largest part
