"""Nothing at or after an impression's time reaches its row, and no label reaches a feature."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    attach_aggregates,
    attach_history,
)
from sklearn_din.training.validation import split_rows

ROLES = {"user": "user", "time": "time", "columns": ["item"], "max_length": 3, "elapsed": "ago"}
AGGREGATES = {
    "n": ("user", None, "count"),
    "rate": ("item", "clicked", "mean"),
    "sum": (("user", "item"), "clicked", "sum"),
    "shrunk": ("item", "clicked", "shrunk_rate"),
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", None]),  # user
        st.sampled_from(["hat", "tie"]),  # item
        st.integers(0, 5),  # time
        st.integers(0, 1),  # clicked
    ),
    min_size=2,
    max_size=12,
)


def as_log(rows):
    return pd.DataFrame(rows, columns=["user", "item", "time", "clicked"]).astype({"user": object})


def with_aggregates(now, log):
    attached = attach_aggregates(now, log, time="time", aggregates=AGGREGATES)
    return attached.round({"shrunk": 12})  # equal times are summed in the order of the log


def with_built_histories(now, log):
    builder = HistoryBuilder(**ROLES, events="all").fit(log)
    return builder.transform(now[list(builder.feature_names_in_)])


def with_built_clicks(now, log):
    """Histories of clicks alone: labels before the impression count, later ones do not."""
    y = log["clicked"].to_numpy()
    builder = HistoryBuilder(**ROLES).fit(pd.concat([log, FIRST_ROWS]), [*y, 0, 1])
    return builder.transform(now[list(builder.feature_names_in_)])


FIRST_ROWS = as_log([("eve", "hat", -1, 0), ("eve", "tie", -1, 1)])  # both labels are always there


def as_values(frame, row):
    """One row as plain values."""
    cells = (frame[name].iloc[row] for name in frame.columns)
    return [repr(cell.tolist()) if isinstance(cell, np.ndarray) else repr(cell) for cell in cells]


@pytest.mark.parametrize("attach", [
    partial(attach_history, **ROLES), with_aggregates, with_built_histories, with_built_clicks,
])  # fmt: skip
@settings(max_examples=15, deadline=None)
@given(rows=ROWS, choices=st.data())
def test_events_at_or_after_an_impression_change_nothing_in_its_row(attach, rows, choices):
    log = as_log(rows)
    row = choices.draw(st.integers(0, len(log) - 1))
    now = log.iloc[[row]]
    before = as_values(attach(now, log), 0)
    is_later = (log["time"] >= now["time"].iloc[0]).to_numpy()
    later = log[is_later]
    order = choices.draw(st.permutations(range(len(later))))
    shuffled = later.assign(**{name: later[name].to_numpy()[order] for name in ("item", "clicked")})
    kept = choices.draw(st.lists(st.booleans(), min_size=len(later), max_size=len(later)))
    changed = pd.concat([log[~is_later], shuffled[np.array(kept, dtype=bool)]])
    assert as_values(attach(now, changed), 0) == before


@pytest.fixture(scope="module")
def log():
    chance = np.random.default_rng(0)
    n_rows = 240
    frame = pd.DataFrame({"user": chance.integers(8, size=n_rows)})
    frame["item"] = [f"i{item}" for item in chance.integers(12, size=n_rows)]
    frame["price"] = chance.random(n_rows)
    frame["time"] = chance.permutation(n_rows) // 3
    return frame


@pytest.mark.parametrize("fold", range(3))
def test_an_encoder_fitted_before_a_time_knows_nothing_of_what_comes_later(log, fold):
    train, test = list(TimeSplit(3, time="time").split(log))[fold]
    first = log["time"].iloc[test].min()
    assert log["time"].iloc[train].max() < first
    later = (log["time"] >= first).to_numpy()
    changed = log.assign(
        item=np.where(later, "new item", log["item"]), price=np.where(later, 1e6, log["price"])
    )
    learnt = []
    for events in (log, changed, log[~later]):
        shown = attach_history(log.iloc[train], events, **ROLES)
        encoder = HistorySequenceEncoder(drop=["user", "time"]).fit(shown)
        words = encoder.vocabularies_["item"].tolist()
        learnt.append((encoder.schema_, repr(encoder.scales_), words))
    assert learnt[0] == learnt[1] == learnt[2]


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")  # labels are arbitrary
def test_what_is_set_aside_as_the_last_trains_nothing(log):
    log = log.sort_values("time", ignore_index=True)
    encoder = HistorySequenceEncoder(drop=["user"], time="time")
    X = encoder.fit_transform(attach_history(log, log, **ROLES))
    y = np.arange(len(log)) % 2
    seeds, times = np.random.RandomState(0), log["time"].to_numpy()
    _, valid = split_rows(y, None, how="last", fraction=0.2, seeds=seeds, times=times)
    rows = np.arange(len(log))
    rows[valid] = np.random.default_rng(1).permutation(valid)
    X_changed = X[rows]
    y_changed = y.copy()
    y_changed[valid] = 1 - y[valid]
    options = {"validation": "last", "validation_fraction": 0.2, "early_stopping": True}
    networks = [
        DINClassifier(**options, max_epochs=1, random_state=0, embedding_dim=4).fit(*both).module_
        for both in ((X, y), (X_changed, y_changed))
    ]
    ours, theirs = (network.state_dict() for network in networks)
    for name in ours:  # whether the last layer beats the base rate is what they are there to say
        assert name.startswith("output") or (ours[name] == theirs[name]).all()
