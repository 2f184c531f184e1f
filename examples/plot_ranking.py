"""
Rank a catalogue for each user
==============================

``rank_candidates`` scores every item for every user and returns the best ones. Users and items
are encoded once each, and the probabilities are those of ``predict_proba``.
"""

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
        ("encode", HistorySequenceEncoder(drop=["user", "time"])),
        ("din", DINClassifier(max_epochs=5, random_state=0)),
    ]
)
model.fit(X, log.y)

# %%
# The catalogue: one row an item, with the columns that belong to the candidate. The users: one
# row a user at a moment, with all other columns.

catalogue = log.impressions.drop_duplicates("item")[["item", "category", "price"]]
users = X.drop_duplicates("user", keep="last")[["device", "hist_item", "hist_category"]].head(3)
rank_candidates(model, users, catalogue, top_k=3)

# %%
# What did the first user do before? The categories at the top should look familiar.

values, counts = np.unique(users["hist_category"].iloc[0], return_counts=True)
print("past categories, by number of events:")
for category, count in sorted(zip(values, counts, strict=True), key=lambda pair: -pair[1]):
    print(f"  category {category}: {count}")
