"""Histories that are windows of one log on disk: its events are encoded once, never per row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sklearn_din.encoding.array_files import EVENT, ArrayFiles, append_windows
from sklearn_din.encoding.lookup import ids_of
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.single_values import as_numbers, coded
from sklearn_din.features.schema import Behaviour
from sklearn_din.logs.windows import WindowArray, WindowDtype

ROWS_AT_A_TIME = 131_072


class SharedLogs:
    """Behaviours whose events a scan keeps once, and how they are written.

    Parameters
    ----------
    scan : Scan
        Without a log of its own, which :class:`AttachedScan` has, it has no such behaviours.
    encoder : HistorySequenceEncoder
        It has learnt all that encoding needs.
    is_wanted : bool
        Whether to use the log where there is one. Events that no row holds are written too.

    Attributes
    ----------
    behaviours : tuple of Behaviour
        Those that are written here and need not be read part by part.
    """

    def __init__(self, scan: Any, encoder: Any, *, is_wanted: bool) -> None:
        self._scan, self._encoder = scan, encoder
        roles: Roles = encoder._roles
        self._timed: dict[str, bool] = {}
        shared = []
        for behaviour in roles.behaviours:
            names = [*behaviour.histories, *behaviour.numbers]
            has_log = is_wanted and hasattr(scan, "log_parts") and len(scan) > 0
            are_windows = all(isinstance(scan.dtypes[name], WindowDtype) for name in names)
            if has_log and are_windows and scan.shares_log(names):
                self._timed |= {name: _has_anchors(scan, name) for name in behaviour.numbers}
                if all(self._fits(name) for name in behaviour.numbers):
                    shared.append(behaviour)
        self.behaviours = tuple(shared)

    def write(self, files: ArrayFiles) -> None:
        """Write the events of the log, and the windows of all rows."""
        for behaviour in self.behaviours:
            self._write_events(files, behaviour)
            self._write_windows(files, behaviour)
            files.n_scattered += len(behaviour.histories) + len(behaviour.numbers)

    def _fits(self, name: str) -> bool:
        """Whether times of the log can be subtracted as they are read, as the scale wants it."""
        return self._encoder._event_scales[name].is_elapsed or not self._timed[name]

    def _write_events(self, files: ArrayFiles, behaviour: Behaviour) -> None:
        encoder = self._encoder
        for _, part in self._scan.log_parts([*behaviour.histories, *behaviour.numbers]):
            for name in behaviour.histories:
                codes = coded(part[name], name=name)
                ids = ids_of(name, codes, encoder._roles, encoder._vocabularies)
                files.append(f"{EVENT}{name}", ids)
            for name in behaviour.numbers:
                numbers, scale = as_numbers(part[name], name=name), encoder._event_scales[name]
                is_timed = self._timed[name]
                values = numbers / scale.scale if is_timed else scale.encode(numbers)
                files.append(f"{EVENT}{name}", values)

    def _write_windows(self, files: ArrayFiles, behaviour: Behaviour) -> None:
        encoder, n_rows = self._encoder, len(self._scan)
        names = [*behaviour.histories, *behaviour.numbers]
        for start in range(0, n_rows, ROWS_AT_A_TIME):
            rows = slice(start, min(start + ROWS_AT_A_TIME, n_rows))
            spans, times = self._scan.windows(rows, names)
            anchors: Mapping[str, np.ndarray] = {}
            if times is not None:
                scales = encoder._event_scales
                anchors = {n: times / scales[n].scale for n in behaviour.numbers if self._timed[n]}
            append_windows(files, behaviour, spans.newest(encoder.max_length), anchors)


def _has_anchors(scan: Any, name: str) -> bool:
    """Whether a history's cells are times elapsed until the row."""
    ((_, part),) = scan[:1].parts([name])
    cells = part[name].array
    return isinstance(cells, WindowArray) and cells.anchors is not None
