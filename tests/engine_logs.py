"""A log with what may be lost on its way through a cluster, and how two results are compared."""

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din import attach_history

HISTORY = {
    "user": "user",
    "time": "time",
    "columns": ["item", "category"],
    "max_length": 5,
    "elapsed": "ago",
}
LISTS = {
    "hist_item": pd.ArrowDtype(pa.list_(pa.int64())),
    "hist_category": pd.ArrowDtype(pa.list_(pa.string())),
    "ago": pd.ArrowDtype(pa.list_(pa.float64())),
}
LARGE = 2**53  # beyond, floats cannot tell integers apart
CLOCKS_GO_BACK = pd.Timestamp("2026-10-25", tz="UTC")  # in Berlin, at one o'clock of UTC


def make_logs(*, zone=None):
    """Return impressions and events, which tell their rows by "row" and "event".

    Users without events or without impressions, missing users, large and missing items, events of
    equal user and time, and times in the hour that the clocks of Berlin show twice.

    Parameters
    ----------
    zone : str or None
        Zone of the times; None takes it away.
    """
    draw = np.random.RandomState(0)
    users = [*(f"user {number}" for number in range(12)), None]

    def table(n, users, key):
        minutes = pd.to_timedelta(10 * draw.randint(0, 15, n), unit="min")  # 00:00 to 02:20
        times = (CLOCKS_GO_BACK + minutes).as_unit("us")
        return pd.DataFrame(
            {
                "user": pd.array(draw.choice(users, n), dtype="string"),
                "item": pd.array(draw.choice([*(LARGE + np.arange(9)), None], n), dtype="Int64"),
                "category": pd.array(draw.choice(["hat", "tie", None], n), dtype="string"),
                "time": times.tz_convert(zone) if zone else times.tz_localize(None),
                key: np.arange(n),
            }
        )

    return table(90, users[3:], "row"), table(140, users[:-3], "event")


def attached_here(impressions, events):
    """On one machine: the columns as plain lists, in the order of "row"."""
    return plain(attach_history(impressions, events, **HISTORY).astype(LISTS))


def plain(frame):
    """Return lists of Python's own values, in the order of "row"."""
    columns = pa.Table.from_pandas(frame.sort_values("row"), preserve_index=False)
    return {name: columns[name].to_pylist() for name in sorted(columns.column_names)}
