"""
Rank a catalogue for each user
==============================

``rank_candidates`` scores every item for every user and returns the best ones. It encodes each
user and item once, and its probabilities equal those of ``predict_proba``.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, rank_candidates
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
# The catalogue has one row per item, with the columns of the candidate. The users have one
# row each, as of one moment, with all other columns.

catalogue = log.impressions.drop_duplicates("item")[["item", "category", "price"]]
users = X.drop_duplicates("user", keep="last")[["device", "hist_item", "hist_category"]].tail(3)
best = rank_candidates(model, users, catalogue, top_k=5)
best.head(5)

# %%
# Why these items? On the left, the first user's past clicks by category; on the right, the
# categories of the five best items.

user = best[best["row"] == 0]
past, counts = np.unique(users["hist_category"].iloc[0], return_counts=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
left.barh([f"category {category}" for category in past], counts, color="#ea7a30")
left.set(xlabel="past events")
names = [
    f"item {item}, category {category}" for item, category in user[["item", "category"]].values
]
right.barh(names, user["probability"], color="#3b82f6")
right.invert_yaxis()
right.set(xlabel="probability of a click")
figure.show()
