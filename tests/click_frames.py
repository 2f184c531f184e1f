"""Small click logs as the encoder gets them, and how encodings are compared."""

import warnings

import numpy as np
import pandas as pd

from sklearn_din import HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log

# A joint behaviour, and a column that is called as the two would be
PAIR = {("hist_item", "hist_kind"): ("item", "kind")}
OF_TWINS = {**PAIR, "hist_item+hist_kind": "item"}
TWINS = pd.DataFrame({
    "item": ["a", "b", "c", "a"],
    "kind": ["hat", "shoe", "shoe", "hat"],
    "hist_item": [["b", "a", "c"], ["b", "a", "c"], ["a"], []],
    "hist_kind": [["shoe", "hat", "shoe"], ["shoe", "hat", "shoe"], ["hat"], []],
    "hist_item+hist_kind": [["a", "b"], ["a", "b"], ["c"], ["c", "c"]],
})  # fmt: skip


def make_log(n_events=60, n_users=6, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 15, n_events)
    return pd.DataFrame({
        "user": rng.integers(0, n_users, n_events),
        "item": items,
        "category": np.array(["hat", "sock", "shoe"], dtype=object)[items % 3],
        "price": rng.normal(size=n_events).round(2) + 0.001,
        "time": rng.permutation(n_events) * 10,
    })  # fmt: skip


def with_windows(elapsed=None, columns=("item", "category"), **log):
    events, options = make_log(**log), {"columns": list(columns), "elapsed": elapsed}
    return attach_history(events, events, user="user", time="time", **options)


def attach(shown, events, **options):
    """Attach histories of items and categories."""
    names = {"user": "user", "time": "time", "columns": ["item", "category"]}
    return attach_history(shown, events, **names | options)


def encode(X):
    """Rows as fit sees them; what the encoder says of them is not asked."""
    with warnings.catch_warnings(action="ignore"):
        return HistorySequenceEncoder(user="user", time="time").fit_transform(X)


def make_table(n_rows, *, random_state, users="numbers", times="numbers"):
    rng = np.random.default_rng(random_state)
    table = pd.DataFrame({
        "user": rng.integers(0, 40, n_rows) ** 2,
        "item": rng.integers(0, 90, n_rows),
        "time": rng.integers(0, 300, n_rows),
        "price": rng.random(n_rows),
    })  # fmt: skip
    table["category"] = ("c" + (table["item"] % 7).astype(str)).where(table["item"] % 11 > 0)
    if users == "text":
        table["user"] = ("u" + table["user"].astype(str)).where(rng.random(n_rows) > 0.1)
    if users == "floats":
        table["user"] = table["user"].astype(float).where(rng.random(n_rows) > 0.1)
    if times == "floats":
        table["time"] = table["time"] / 7
    if times == "days":
        table["time"] = pd.to_datetime(table["time"] // 9, unit="D").dt.date
    if times == "dates":
        start = pd.Timestamp("2024-03-30", tz="Europe/Paris")
        table["time"] = start + pd.to_timedelta(table["time"] * 7, unit="min")
    return table


def every_kind():
    """Clicks with every kind of column: text, integers, numbers, times elapsed, prices, tags.

    Returns
    -------
    X : DataFrame
        Impressions with histories and the column "click".
    impressions, events : DataFrame
        What X was made of.
    """
    log = make_click_log(n_users=16, n_items=90, n_categories=6, random_state=0)
    rng = np.random.RandomState(0)
    events = log.events.assign(paid=rng.gamma(2.0, size=len(log.events)), when=log.events["time"])
    columns = ["item", "category", "paid", "when"]
    X = attach_history(log.impressions, events, user="user", time="time", columns=columns)
    X = X.assign(
        user=[f"u{user}" for user in X["user"]],
        country=pd.Categorical(rng.choice(["de", "fr", "us"], len(X))),
        price=np.where(rng.rand(len(X)) < 0.1, np.nan, rng.randn(len(X)) * 7 + 3),
        nothing=np.nan,
        tags=[list("abc")[: n % 4] for n in range(len(X))],
        click=log.y,
    )
    return X, log.impressions.assign(click=log.y), events


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


def assert_same_encoders(mine, twin):
    """They have learnt the same, scales but for rounding."""
    assert mine.vocabularies_.keys() == twin.vocabularies_.keys()
    for name, values in twin.vocabularies_.items():
        assert mine.vocabularies_[name].dtype == values.dtype
        assert mine.vocabularies_[name].tolist() == values.tolist()
    assert mine.scales_.keys() == twin.scales_.keys()
    for name, scale in twin.scales_.items():
        assert mine.scales_[name].is_elapsed == scale.is_elapsed
        learnt = [mine.scales_[name].shift, mine.scales_[name].scale]
        np.testing.assert_allclose(learnt, [scale.shift, scale.scale], rtol=1e-12)
    assert mine.feature_names_in_.tolist() == twin.feature_names_in_.tolist()
    assert mine.longest_history_ == twin.longest_history_
    for name, ids in twin._learnt.ids.items():
        assert bool(mine._learnt.ids[name].late_unknown) == bool(ids.late_unknown)
