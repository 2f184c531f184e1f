"""Point-in-time numbers beside an impression: means, sums and counts of what came before it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from narwhals.typing import IntoDataFrame, IntoDataFrameT

from sklearn_din._extras import extra
from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_frame, check_name
from sklearn_din.logs.running_sums import Aggregate, check_aggregates, so_far
from sklearn_din.logs.timeline import Timeline
from sklearn_din.tables.scan import Scan


def attach_aggregates(
    impressions: IntoDataFrameT,
    events: IntoDataFrame,
    *,
    time: str,
    aggregates: Mapping[str, Aggregate],
) -> IntoDataFrameT:
    """Attach to each impression numbers about the events strictly before it.

    A user's mean rating so far, an item's popularity so far: an event counts for an impression
    when it has the same key and a strictly smaller time. Events at the impression's own time do
    not count, so a frame may be its own log without leaking its labels.

    Parameters
    ----------
    impressions : pandas, polars or Arrow frame, or scan, of shape (n_impressions, ...)
        Rows to describe, in any order. It is not changed. The result is of this kind.
    events : pandas, polars or Arrow frame, or scan, of shape (n_events, ...)
        What happened, in any order; often the impressions themselves with their label. It need
        not be of the impressions' kind. Where one of the two is a scan (:func:`scan_parquet`),
        DuckDB sorts them (``pip install 'sklearn-din[large]'``). The numbers of a scan lie in files
        in its ``cache_dir``, or in a temporary folder.
    time : str
        Time column of both frames: integers, floats or datetimes, without missing values.
    aggregates : mapping of str to (key, column, statistic)
        New column's name to what it holds. ``key`` is a column of both frames or a tuple of
        columns; ``column`` is a numeric or boolean column of the events, of which missing
        values are left out; ``statistic`` is "mean", "sum" or "count". With "count", ``column``
        may be None: then events are counted.

    Returns
    -------
    DataFrame, Table or AttachedScan
        The impressions, in their order and with their index, plus one float64 column per
        aggregate. Without earlier events a mean is missing (NaN in pandas, null in polars and
        Arrow), a sum and a count are 0.

    Examples
    --------
    >>> import pandas as pd
    >>> ratings = pd.DataFrame(
    ...     {"user": ["ann", "ann", "bob", "ann"], "rating": [4, 2, 5, 3], "time": [1, 2, 3, 3]}
    ... )
    >>> attach_aggregates(
    ...     ratings,
    ...     ratings,
    ...     time="time",
    ...     aggregates={"user_mean": ("user", "rating", "mean"), "n": ("user", None, "count")},
    ... )
      user  rating  time  user_mean    n
    0  ann       4     1        NaN  0.0
    1  ann       2     2        4.0  1.0
    2  bob       5     3        NaN  0.0
    3  ann       3     3        3.0  2.0
    """
    check_name(time, name="time")
    if isinstance(impressions, Scan) or isinstance(events, Scan):
        return extra("large.sql").attach_aggregates_by_sql(
            impressions, events, time=time, aggregates=aggregates
        )
    shown = CallerFrame(impressions, name="impressions")
    log = shown.pandas if events is impressions else CallerFrame(events, name="events").pandas
    check_frame(shown.pandas, [time], name="impressions")
    check_frame(log, [time], name="events")
    by_key = check_aggregates(aggregates, shown.pandas, log)
    attached: dict[str, np.ndarray] = {}
    for keys, statistics in by_key.items():
        timeline = Timeline(log, keys=keys, time=time)
        past = timeline.past(shown.pandas)
        attached |= {name: so_far(log, timeline, past, *what) for name, what in statistics.items()}
    return shown.with_columns({name: attached[name] for name in aggregates})
