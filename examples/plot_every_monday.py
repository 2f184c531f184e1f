"""
Every Monday
============

A log that grows every week, and a catalogue of which a tenth is new each week. Three ways to live
with it: never train again, :func:`~sklearn_din.update` with the rows of the week that has gone by,
or fit anew on all rows so far. Each week is scored before anything learns from it.
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
# The log: ten "weeks" of as many impressions each, five to start with. An item enters the catalogue
# in its week, and nobody sees it before. Each row has the user's past as it was at that moment.

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
# The model of the first weeks. The encoder is told whose each row is and when: then the last rows
# stop the training, and each training step prepares for new items.

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
# Every Monday: score the week that comes, three times; then learn from it, twice.

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
# An update costs a small part of a fit:

pd.DataFrame(seconds).median().round(2).to_frame("seconds a Monday")

# %%
# The log loss of each week, by what was done on the Mondays before it.

figure, ax = plt.subplots(layout="constrained")
losses.plot(ax=ax, marker="o", ylabel="log loss", xlabel="week", xticks=losses.index)
figure.show()
