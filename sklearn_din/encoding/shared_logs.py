"""Histories that are windows of one log on disk: its events are encoded once, never per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sklearn_din.encoding.cells import as_numbers, factorize
from sklearn_din.encoding.events import keep_newest
from sklearn_din.encoding.learnt import Learnt
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Behaviour
from sklearn_din.logs.windows import WindowArray, WindowDtype

ROWS_AT_A_TIME = 131_072


class SharedLogs:
    """Behaviours whose events a scan keeps once, and how they are encoded.

    Only an :class:`AttachedScan` has such ``behaviours``, and they need not be read part by part.
    The log holds events that no row shows: where it is not ``is_welcome``, it is not used.
    """

    def __init__(self, scan: Any, learnt: Learnt, *, is_welcome: bool) -> None:
        self._scan, self._learnt = scan, learnt
        self._with_anchors: dict[str, bool] = {}
        has_log = is_welcome and hasattr(scan, "log_parts") and len(scan) > 0
        behaviours = learnt.roles.behaviours if has_log else ()
        self.behaviours = tuple(b for b in behaviours if self._is_shared(b))

    def events(self, behaviour: Behaviour) -> Iterator[tuple[str, np.ndarray]]:
        """Yield what each history holds of the events of the log, encoded, part by part."""
        learnt = self._learnt
        for _, part in self._scan.log_parts([*behaviour.histories, *behaviour.numbers]):
            for name in behaviour.histories:
                yield name, learnt.ids_of(name, factorize(part[name], name=name))
            for name in behaviour.numbers:
                numbers, scale = as_numbers(part[name], name=name), learnt.event_scales[name]
                has_anchors = self._with_anchors[name]
                yield name, numbers / scale.scale if has_anchors else scale.encode(numbers)

    def windows(self, behaviour: Behaviour) -> Iterator[tuple[int, Ragged]]:
        """Yield the first of some rows, and their windows in the log, without its events."""
        names, scales = [*behaviour.histories, *behaviour.numbers], self._learnt.event_scales
        anchored = [name for name in behaviour.numbers if self._with_anchors[name]]
        for start in range(0, len(self._scan), ROWS_AT_A_TIME):
            rows = slice(start, min(start + ROWS_AT_A_TIME, len(self._scan)))
            spans, times = self._scan.windows(rows, names)
            anchors = {name: times / scales[name].scale for name in anchored}
            newest, older = keep_newest(spans, self._learnt.max_length, is_bag=behaviour.is_bag)
            yield start, Ragged({}, newest, anchors, older)

    def _is_shared(self, behaviour: Behaviour) -> bool:
        names = [*behaviour.histories, *behaviour.numbers]
        dtypes = self._scan.dtypes
        if not all(isinstance(dtypes[name], WindowDtype) for name in names):
            return False
        if not self._scan.shares_log(names):
            return False
        self._with_anchors |= {name: self._has_anchors(name) for name in behaviour.numbers}
        # Times of the log are subtracted when they are read, as only such a scale allows.
        scales = self._learnt.event_scales
        return all(scales[n].is_elapsed or not self._with_anchors[n] for n in behaviour.numbers)

    def _has_anchors(self, name: str) -> bool:
        """Return whether a history's cells are times elapsed until the row."""
        ((_, part),) = self._scan[:1].parts([name])
        cells = part[name].array
        return isinstance(cells, WindowArray) and cells.anchors is not None
