"""
A first model on a click log
============================

From a click log to an evaluated Deep Interest Network. The built-in log is synthetic
with known click probabilities, so we know how good a model can be.
"""

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_score

log = make_click_log(n_users=600, n_items=300, n_categories=15, random_state=0)
log.impressions.head()

# %%
# One row is one candidate shown. ``attach_history`` adds what the user clicked strictly before it:
# a cell of a history column is the list of those events, oldest first.

X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)
X[["user", "item", "hist_item", "hist_category"]].tail()

# %%
# Split by user: no test user is in the training set.

users = X["user"]
train, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=0).split(X, groups=users))

model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(user="user", drop=["time"])),
        ("din", DINClassifier(max_epochs=5, random_state=0)),
    ]
)
model.fit(X.iloc[train], log.y[train])

# %%
# AUC and GAUC (the AUC among each user's own impressions), and those of the true probabilities.

probability = model.predict_proba(X.iloc[test])[:, 1]
truth = log.probability[test]
for name, scores in {"DIN": probability, "best possible": truth}.items():
    auc = roc_auc_score(log.y[test], scores)
    gauc = group_roc_auc_score(log.y[test], scores, groups=users.iloc[test])
    print(f"{name:>13}: AUC {auc:.3f}, GAUC {gauc:.3f}")

# %%
# The true probability of each click against the predicted one, on unseen users: the closer to the
# line, the better.

figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
ax.hexbin(truth, probability, gridsize=28, cmap="Blues", bins="log", extent=(0, 1, 0, 1))
ax.plot([0, 1], [0, 1], color="#ea7a30", linestyle="--", label="perfect")
ax.set(xlabel="true probability of a click", ylabel="predicted probability", aspect="equal")
ax.legend(loc="upper left")
figure.show()

# %%
# The fitted model as text, with columns, behaviours, layers and the number of parameters.

print(model["din"].summary())
