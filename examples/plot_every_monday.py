"""
Every Monday
============

A log that grows every week, with a catalogue of which a tenth is new each week. Compare three
strategies: never train again, :func:`~sklearn_din.update` with the rows of the past week,
or fit again on all rows so far. Each week is scored before any model learns from it.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, update
from sklearn_din.datasets import make_click_log

# %%
# The log has ten "weeks" with equal numbers of impressions, five for the first fit. An item is
# launched in its week and not shown before. Each row has the user's past at that moment.

N_WEEKS, N_FIRST = 10, 5
log = make_click_log(n_users=600, n_items=300, n_categories=15, random_state=0)
mondays = log.impressions["time"].quantile(np.linspace(0, 1, N_WEEKS + 1)[1:-1])
first_week = np.random.RandomState(0).randint(-N_WEEKS, N_WEEKS, size=300)


def week_of(table):
    """In which week each row falls."""
    return np.searchsorted(mondays, table["time"])


shown = log.impressions.assign(clicked=log.y)
shown, events = (t[first_week[t["item"]] <= week_of(t)] for t in (shown, log.events))
X = attach_history(shown, events, user="user", time="time", columns=["item", "category"])
X = X.sort_values("time", ignore_index=True)
y = X.pop("clicked").to_numpy()
week = week_of(X)

# %%
# The model of the first weeks. The encoder knows user and time, so early stopping uses the last
# rows, and training prepares for new items.

model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(user="user", time="time")),
        ("din", DINClassifier(random_state=0)),
    ]
)
start = week < N_FIRST
never = model.fit(X[start], y[start])
updated = clone(model).fit(X[start], y[start])

# %%
# Every Monday: score the next week with all three models; then train two of them on it.

losses, seconds = [], []
anew = never
for now in range(N_FIRST, N_WEEKS):
    rows = week == now
    ways = {"never": never, "updated": updated, "fitted anew": anew}
    losses.append(
        {name: log_loss(y[rows], its.predict_proba(X[rows])[:, 1]) for name, its in ways.items()}
    )
    began = time.perf_counter()
    updated = update(updated, X[rows], y[rows])
    mended = time.perf_counter()
    anew = clone(model).fit(X[week <= now], y[week <= now])
    seconds.append({"updated": mended - began, "fitted anew": time.perf_counter() - mended})

losses = pd.DataFrame(losses, index=pd.RangeIndex(N_FIRST, N_WEEKS, name="week"))
losses.round(4)

# %%
# An update takes a small fraction of the time of a fit:

pd.DataFrame(seconds).median().round(2).to_frame("seconds a Monday")

# %%
# The log loss of each week, by strategy.

figure, ax = plt.subplots(layout="constrained")
losses.plot(ax=ax, marker="o", ylabel="log loss", xlabel="week", xticks=losses.index)
figure.show()
