"""
Attention: which past events count
==================================

The weight of each past event for one candidate, and how the weights change with the candidate.
"""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import (
    AttentionDisplay,
    DINClassifier,
    HistorySequenceEncoder,
    attach_history,
    explain,
)
from sklearn_din.datasets import make_click_log

log = make_click_log(n_users=600, n_items=300, n_categories=15, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)
model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(user="user", drop=["time"])),
        ("din", DINClassifier(max_epochs=5, random_state=0)),
    ]
)
model.fit(X, log.y)

# %%
# One impression
# --------------
# A clicked impression with about fifteen past events, the oldest at the top. A bar is the event's
# weight in the interest; the long ones have the candidate's category. The weight shows where the
# network looks, not whether the event makes the click more or less likely.

lengths = np.array([len(history) for history in X["hist_item"]])
chosen = np.flatnonzero((log.y == 1) & (lengths >= 12) & (lengths <= 16))
best = chosen[model.predict_proba(X.iloc[chosen])[:, 1].argmax()]
one = X.iloc[[best]]
AttentionDisplay.from_estimator(model, one)

# %%
# Several candidates
# ------------------
# The same user at the same moment, shown one item of each of five categories. Each row of the
# plot is a candidate, and each candidate has different weights. A single vector per user cannot
# express this; it is the idea of the Deep Interest Network.

past = list(one["hist_category"].iloc[0])
categories = pd.unique(pd.Series([*past, *range(15)]))[:5]
items = log.impressions.drop_duplicates("category").set_index("category")
several = pd.concat([one] * 5, ignore_index=True)
several["category"] = categories
several["item"] = items.loc[categories, "item"].to_numpy()
several["price"] = items.loc[categories, "price"].to_numpy()
AttentionDisplay.from_estimator(model, several)

# %%
# Effect on the prediction
# ------------------------
# ``by="leave_out"`` leaves out one event at a time and predicts again. A bar is the difference in
# the log-odds of the click: events to the right make it more likely, to the left less likely.
# Redundant events replace each other, so a bar may be short although the weight is large.

AttentionDisplay.from_estimator(model, one, by="leave_out")

# %%
# The same as a table
# -------------------
# ``explain`` returns one row per event, with the original values of your log.

explain(model, one).head()

# %%

explain(model, one, by="leave_out").head()
