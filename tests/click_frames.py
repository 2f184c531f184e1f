"""Small click logs as the encoder gets them, and how encodings are compared."""

import numpy as np
import pandas as pd

from sklearn_din.logs.history import attach_history
from sklearn_din.transformers import HistorySequenceEncoder


def make_log(n_events=60, n_users=6, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 15, n_events)
    return pd.DataFrame(
        {
            "user": rng.integers(0, n_users, n_events),
            "item": items,
            "category": np.array(["hat", "sock", "shoe"], dtype=object)[items % 3],
            "price": rng.normal(size=n_events).round(2) + 0.001,
            "time": rng.permutation(n_events) * 10,
        }
    )


def with_windows(elapsed=None, columns=("item", "category"), **log):
    events = make_log(**log)
    return attach_history(
        events, events, user="user", time="time", columns=list(columns), elapsed=elapsed
    )


def as_lists(frame):
    """The same frame with plain Python lists for windows."""
    frame = frame.copy()
    for name in frame.columns:
        if frame[name].dtype.name == "window":
            frame[name] = pd.Series([cell.tolist() for cell in frame[name]], index=frame.index)
    return frame


def encoder(**parameters):
    return HistorySequenceEncoder(**{"drop": ["user", "time"], **parameters})


def same(first, second, *, schema=True):
    """Whether two encodings read the same in every field."""
    assert not schema or first.schema == second.schema
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    return True
