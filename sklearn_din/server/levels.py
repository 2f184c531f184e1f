"""What came of rows until now: what a model's memory knows, and rows that were posted since."""

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din.features.level_columns import RATES
from sklearn_din.inspection.fitted import split_pipeline, unwrap
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.logs.row_memory import Call, RowMemory
from sklearn_din.server.clock import Clock
from sklearn_din.server.json_values import Values, plain

REST = 10.0  # times as long as joining took, before posted rows are joined again


class Levels:
    """The levels of now. :attr:`builder` is replaced in one move whenever rows have joined it.

    A row that is posted counts as one of the memory, by its label, from when that was known on. No
    label is a click, but where the builder has ``outcomes``: there it is missing. All that is
    posted is one call: equal rows are as many rows, of which those that the memory has replace
    these. Where a large memory takes long to join rows to, they join some at a time, for a tenth of
    the time at most.

    Parameters
    ----------
    builder : HistoryBuilder
        Fitted, with levels.
    clock : Clock
        How times of events are read.
    """

    def __init__(self, builder: HistoryBuilder, clock: Clock) -> None:
        memory = cast(RowMemory, builder.memory_)
        self._clock, self.time = clock, builder.time
        self._known = builder.known if builder._outcomes else None
        self.columns, self.names = memory.columns, memory.names
        self._next_join = 0.0
        none = self._frame(dict.fromkeys(self.columns, ()), [])
        self._own = builder  # in the unit of posted times
        self._own = self._with(memory.append(none, self.time, np.empty((0, len(memory.labels))))[0])
        self.builder = self._own
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was posted, of which all that is left comes again, once that has joined."""
        self._pending: list[tuple[Any, ...]] = []
        self._joined = cast(RowMemory, self._own.memory_)
        self._posted = Call(self._joined.known.max(initial=self._clock.newest))

    def add(
        self,
        cells: Mapping[str, Sequence[Any]],
        times: Sequence[Any],
        known: Sequence[Any],
        labels: Sequence[Any],
    ) -> None:
        """Take rows that were posted, by column, to be joined by :meth:`join`."""
        keys = zip(*(cells[name] for name in self.columns), strict=True)
        self._pending += zip(times, known, labels, keys, strict=True)

    def join(self) -> None:
        """Let rows that were posted join the memory."""
        began = time.monotonic()
        if not self._pending or began < self._next_join:
            return
        rows, self._pending = self._pending, []
        times, known, labels, cells = zip(*rows, strict=True)
        columns = dict(zip(self.columns, zip(*cells, strict=True), strict=True))
        memory = self._joined
        values = np.full((len(rows), len(memory.labels)), np.nan)  # of what is not posted
        if memory.of_clicks:
            untold = 1 if self._known is None else np.nan
            values[:, 0] = [untold if label is None else label for label in labels]
        frame, when = self._frame(columns, times), self._known
        if when is not None:
            frame[when] = self._clock.column(known)
        self._joined, _ = memory.append(frame, self.time, values, known=when, call=self._posted)
        self._joined.prepare()  # no request waits for what it makes
        self.builder = self._with(self._joined)
        self._next_join = time.monotonic() + REST * (time.monotonic() - began)

    def of_rows(self, rows: Sequence[Values], now: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return levels of users beside items as of some moments: (n_rows,) each."""
        columns = {name: [row.get(name) for row in rows] for name in self.columns}
        memory: Any = self.builder.memory_
        return memory.levels(self._frame(columns, now), self.time)

    def describe(self, row: Values, now: Any) -> list[Values]:
        """Return what is known of a user beside an item, key by key: how many rows, their level."""
        memory: Any = self.builder.memory_
        levels, rows = self.of_rows([row], [now]), list[Values]()
        for key in memory.keys:
            of = {column: row.get(column) for column in key}
            for label in memory.labels:
                rate, count, *_ = (levels[n].item() for n in memory.columns_of(key, label))
                level = {"rows": int(count), RATES[not memory.of_clicks]: plain(rate)}
                rows.append({"of": of, "label": label, **level})
        return rows

    def describe_online(self, row: Values, now: Any) -> list[Values]:
        """Return what each key adds to the online model's estimate for a user beside an item.

        Each part is the mean of a weight and its standard deviation, on the scale of a standard
        normal distribution (probit); the part without a key is the bias. Empty without the model.
        """
        memory: Any = self.builder.memory_
        frame = self._frame({name: [row.get(name)] for name in self.columns}, [now])
        parts = memory.online_parts(frame, self.time)
        return [
            {
                "of": {column: row.get(column) for column in key},
                "mean": plain(mean.item()),
                "deviation": plain(np.sqrt(variance.item())),
            }
            for key, (mean, variance) in parts.items()
        ]

    def at(self, moment: Any) -> Any:
        """Return a moment as a value of the time column."""
        return self._clock.column([moment]).iloc[0]

    def _with(self, memory: RowMemory) -> HistoryBuilder:
        builder = copy.copy(self._own)
        builder.memory_ = memory
        return builder

    def _frame(self, columns: Mapping[str, Sequence[Any]], times: Sequence[Any]) -> pd.DataFrame:
        cells = {n: pd.Series(list(c), dtype=object).infer_objects() for n, c in columns.items()}
        return pd.DataFrame({**cells, self.time: self._clock.column(times)})


def tell_rows(model: Any, rows: pd.DataFrame, is_click: np.ndarray) -> Any:
    """Return a model whose memory knows rows and what came of them.

    Of a model without one, such as an ONNX file, that was trained on levels, it is made of them.
    """
    pipeline, calibrated = unwrap(model, purpose="serve")
    encoder, steps = split_pipeline(model, purpose="serve").encoder, list(pipeline.steps)
    fields = encoder.schema_.fields
    given = [field.of for field in fields if field.level]
    memory = steps[0][1] if isinstance(steps[0][1], HistoryBuilder) else None
    if not given:
        return model
    if memory is not None:
        remembered: Any = memory.memory_
        values = is_click[:, None].astype(np.float64)
        steps, memory = steps[1:], copy.copy(memory)
        memory.memory_ = remembered.append(rows, memory.time, values)[0]
    else:
        keys = [key for key in dict.fromkeys(given) if key and {*key} <= {*rows}]
        candidates = dict.fromkeys(n for b in encoder.schema_.behaviours for n in b.candidates)
        columns = [name for name in candidates if name in rows]
        memory = HistoryBuilder(
            user=encoder.user,
            time=encoder.time,
            columns=columns,
            levels=keys,
            online_model=any(field.what == "offset" for field in fields),
        )
        memory.fit(rows[[*dict.fromkeys([encoder.user, encoder.time, *columns])]], is_click)
    return calibrated.around(Pipeline([("memory", memory), *steps]))
