"""
Three questions about a model: is the log sound, what decides, why this item?
=============================================================================

Offers shown over three months, of which some are accepted. The model has a memory of what came of
earlier offers, and boosted trees beside the network. No training is needed for the first question,
and no knowledge of networks for the others.
"""

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    AttentionDisplay,
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    check,
    explain,
    history_importance,
)

chance = np.random.RandomState(0)
X = pd.DataFrame({"user": chance.randint(200, size=8000), "offer": chance.randint(60, size=8000)})
X["kind"] = np.array(["food", "travel", "sport", "music"])[X["offer"] % 4]
X["price"] = chance.gamma(2.0, 10.0, size=8000).round(2)
X["time"] = pd.date_range("2026-01-01", periods=8000, freq="16min")
is_liked = X["user"] % 4 == X["offer"] % 4
odds = -2.5 + 2 * is_liked + 2.5 * X["price"].between(5, 20) + chance.normal(size=200)[X["user"]]
y = (chance.uniform(size=8000) < 1 / (1 + np.exp(-odds))).to_numpy().astype(int)

# %%
# Is the log sound?
# -----------------
# Every check of a training as a table, without a training: labels that a column tells, rows logged
# twice, clocks that differ.

print(check(X, y, user="user", time="time"))

# %%
# What decides?
# -------------
# The last fifth in time is predicted. Each group of columns is shuffled between rows: what the
# score falls by, the model owes to the group. Here the levels of the memory know who accepts much,
# and of which kind, and the price (among the other columns) has a window.

memory = HistoryBuilder(
    user="user", time="time", columns=["offer", "kind"], levels="auto", events="positive"
)
encoder = HistorySequenceEncoder(user="user", time="time")
model = make_pipeline(memory, encoder, DINClassifier(trees=True, random_state=0))
train, test = next(TimeSplit(1, test_size=0.2, time="time").split(X, y))
model.fit(X.iloc[train], y[train])
falls = history_importance(model, X.iloc[test], y[test], by="group", random_state=0)
falls.set_index("feature")["importance_mean"].sort_values().plot.barh(xlabel="fall of the AUC")

# %%
# Why this item?
# --------------
# The bars show where the network looks in the history: at events of the candidate's kind. How much
# of the log-odds is the trees' summand stands in ``attrs["trees"]``; the rest is the network's.

shown = X.iloc[test][y[test] == 1]
one = shown.iloc[[model.predict_proba(shown)[:, 1].argmax()]]
table = explain(model, one)
print(
    f"log-odds {model.decision_function(one)[0]:.2f}, of it by trees {table.attrs['trees'][0]:.2f}"
)
AttentionDisplay.from_estimator(model, one)
