"""The sorted event log that history columns share, and what is cut from it and merged."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from sklearn_din._digests import digest
from sklearn_din._spans import Spans
from sklearn_din._validation import refuse_unsure_ids

LogKey = tuple[str, str, str]


class EventLog:
    """The events behind history columns, sorted once and shared by every row.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n_events,)
        One array per event attribute, all of one length. They are read, never written.
    token : str, default=None
        Which call made the log. None draws a new one. It is kept through pickling and
        cutting, so that columns made together still know each other.
    part : str, default=""
        Fingerprint of the events that cutting kept, "" for the whole log.
    codes : mapping of str to (codes, distinct values), default=None
        What :meth:`codes` gives, for columns whose codes are known. They are not pickled.

    Examples
    --------
    >>> log = EventLog({"item": np.array(["hat", "sock", "hat"], dtype=object)})
    >>> codes, uniques = log.codes("item")
    >>> codes, uniques
    (array([0, 1, 0], dtype=int32), array(['hat', 'sock'], dtype=object))
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        *,
        token: str | None = None,
        part: str = "",
        codes: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    ):
        self.columns = {name: np.asarray(values).view() for name, values in columns.items()}
        for values in self.columns.values():
            values.flags.writeable = False
        self.token = uuid.uuid4().hex if token is None else token
        self.part = part
        self._codes: dict[str, tuple[np.ndarray, np.ndarray]] = dict(codes or {})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __reduce__(self) -> tuple:
        return partial(EventLog, token=self.token, part=self.part), (self.columns,)

    def key(self, column: str) -> LogKey:
        """Return a key that no column of another log has."""
        return self.token, self.part, column

    def codes(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Each event's position among the distinct values (int32, -1 missing), and those values."""
        if column not in self._codes:
            codes, uniques = pd.factorize(self.columns[column])
            refuse_unsure_ids(self.columns[column], uniques, name=column)
            self._codes[column] = codes.astype(np.int32), np.asarray(uniques)
        return self._codes[column]

    def cut(self, column: str, spans: Spans) -> tuple[EventLog, Spans]:
        """Return a log of only the events that the windows cover, and the windows over it.

        Columns of one log that are cut by the same windows get the same windows and digest.
        """
        covered = spans.cover()
        part = self.part
        if covered.n_events < len(self):
            part = digest(part, covered.run_starts, covered.run_lengths)
        values = self.columns[column][covered.kept]
        return EventLog({column: values}, token=self.token, part=part), covered.spans


def merge_logs(logs: Sequence[tuple[EventLog, str]]) -> tuple[EventLog, str, dict[LogKey, int]]:
    """One log for several (log, column) pairs: it, its column, and where each pair's events start.

    Equal logs are merged into themselves. Merging the same logs for another column gives the
    same token.
    """
    distinct = {log.key(column): log.columns[column] for log, column in logs}
    log, column = logs[0]
    if len(distinct) == 1:
        return log, column, dict.fromkeys(distinct, 0)
    sizes = [len(values) for values in distinct.values()]
    offsets = dict(zip(distinct, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    token = digest(*(text for token, part, _ in distinct for text in (token, part)))
    return EventLog({column: join_values(list(distinct.values()))}, token=token), column, offsets


def join_values(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate without turning numbers into text or integers into floats.

    Examples
    --------
    >>> join_values([np.array([1]), np.array(["a"], dtype=object)])
    array([1, 'a'], dtype=object)
    """
    if not arrays:
        return np.empty(0, dtype=object)
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1:
        return np.concatenate(arrays)
    alike = {dtype.kind for dtype in dtypes} in ({"i"}, {"u"}, {"f"}, {"M"})
    dtype = np.result_type(*dtypes) if alike else np.dtype(object)
    return np.concatenate([array.astype(dtype, copy=False) for array in arrays])
