"""Histories that are windows of one log on disk: its events are encoded once, never per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sklearn_din.encoding.cells import as_numbers, factorize, read_history
from sklearn_din.encoding.events import keep_newest
from sklearn_din.encoding.learnt import Learnt
from sklearn_din.features.lists import Column
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Behaviour

AT_A_TIME = 131_072  # rows, or events of the log


class SharedLogs:
    """Behaviours whose events a scan keeps once, and how they are encoded.

    Only an :class:`AttachedScan` has such ``behaviours``, and they need not be read part by part.
    The log holds events that no row shows: where it is not ``is_welcome``, it is not used.
    """

    def __init__(self, scan: Any, learnt: Learnt, *, is_welcome: bool) -> None:
        self._learnt, self._logs = learnt, dict[Behaviour, Any]()
        is_attached = is_welcome and hasattr(scan, "find_log") and len(scan) > 0
        for behaviour in learnt.roles.behaviours if is_attached else ():
            stored = scan.find_log([*behaviour.histories, *behaviour.numbers])
            # Times of the log are subtracted when they are read, as only such a scale allows.
            times = [] if stored is None else {stored[0].clock} & {*behaviour.numbers}
            if (
                stored is not None
                and stored[0].n_events
                and all(learnt.event_scales[name].is_elapsed for name in times)
            ):
                self._logs[behaviour] = stored
        self.behaviours = tuple(self._logs)

    def events(self, behaviour: Behaviour) -> Iterator[tuple[str, Column]]:
        """Yield what each history holds of the events of the log, encoded, part by part."""
        learnt, (log, _) = self._learnt, self._logs[behaviour]
        for start in range(0, log.n_events, AT_A_TIME):
            for name in (*behaviour.histories, *behaviour.numbers):
                values, _ = log.take(name, slice(start, start + AT_A_TIME))
                column = pd.Series(values, dtype=values.dtype, name=name)
                if name in learnt.roles.lists:
                    yield name, learnt.ids_of(name, read_history(column).codes_of_cells())
                    continue
                if name in behaviour.histories:
                    yield name, learnt.ids_of(name, factorize(column, name=name))
                    continue
                numbers, scale = as_numbers(column, name=name), learnt.event_scales[name]
                yield name, numbers / scale.scale if name == log.clock else scale.encode(numbers)

    def windows(self, behaviour: Behaviour) -> Iterator[tuple[int, Ragged]]:
        """Yield the first of some rows, and their windows in the log, without its events."""
        log, rows = self._logs[behaviour]
        for start in range(0, len(rows), AT_A_TIME):
            some = rows[start : start + AT_A_TIME]
            row_times = {
                name: log.row_times(some) / self._learnt.event_scales[name].scale
                for name in behaviour.numbers
                if name == log.clock
            }
            spans, most = log.spans(some), self._learnt.max_length
            newest, n_older = keep_newest(spans, most, is_bag=behaviour.is_bag)
            yield start, Ragged({}, newest, row_times, n_older)
