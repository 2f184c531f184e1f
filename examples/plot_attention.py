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
# A clicked impression with a past of about fifteen events. The oldest event is at the top. A bar
# is the event's weight in the interest: the long ones share the candidate's category. It says
# where the network looks, not which way it is swayed.

lengths = np.array([len(history) for history in X["hist_item"]])
chosen = np.flatnonzero((log.y == 1) & (lengths >= 12) & (lengths <= 16))
best = chosen[model.predict_proba(X.iloc[chosen])[:, 1].argmax()]
one = X.iloc[[best]]
AttentionDisplay.from_estimator(model, one)

# %%
# Several candidates
# ------------------
# The same user at the same moment, shown one item of each of five categories. Each row of the
# picture is a candidate: another candidate, another interest. One vector per user could not say
# this; it is the idea of the Deep Interest Network.

past = list(one["hist_category"].iloc[0])
categories = pd.unique(pd.Series([*past, *range(15)]))[:5]
items = log.impressions.drop_duplicates("category").set_index("category")
several = pd.concat([one] * 5, ignore_index=True)
several["category"] = categories
several["item"] = items.loc[categories, "item"].to_numpy()
several["price"] = items.loc[categories, "price"].to_numpy()
AttentionDisplay.from_estimator(model, several)

# %%
# For the click, or against it
# ----------------------------
# ``by="leave_out"`` leaves out one event at a time and predicts again. A bar is the difference in
# the log-odds of the click: to the right the event speaks for it, to the left against it. Events
# that say the same stand in for each other, so a bar may be short although the weight is large.

AttentionDisplay.from_estimator(model, one, by="leave_out")

# %%
# The same as a table
# -------------------
# ``explain`` returns one row per event, in the values of your own log.

explain(model, one).head()

# %%

explain(model, one, by="leave_out").head()
