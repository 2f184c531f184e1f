"""
Base model against DIN in one grid search
=========================================

The paper's base model, ``interest="paper", pooling="sum"``, sums the history regardless of the
candidate. Both are parameter values, so a grid search compares all networks on the same folds.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_scorer

log = make_click_log(n_users=400, n_items=300, n_categories=15, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)
model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(drop=["user", "time"])),
        ("din", DINClassifier(max_epochs=4, random_state=0)),
    ]
)

# %%
# ``interest="paper"`` is the published network; ``interest="extended"``, the default, has more
# inputs, such as which attributes of an event equal the candidate's. Both are run with and
# without attention, to isolate the effect of the attention. The folds are by user, and the scores
# are AUC and GAUC with the groups of column ``user``.

search = GridSearchCV(
    model,
    {"din__pooling": ["sum", "attention"], "din__interest": ["paper", "extended"]},
    scoring={"AUC": "roc_auc", "GAUC": group_roc_auc_scorer("user")},
    refit="AUC",
    cv=GroupKFold(2),
)
search.fit(X, log.y, groups=X["user"])

results = pd.DataFrame(search.cv_results_)
columns = ["param_din__interest", "param_din__pooling", "mean_test_AUC", "mean_test_GAUC"]
results[columns].sort_values("mean_test_AUC", ignore_index=True)

# %%
# The grey line is the AUC of the true click probabilities, which a model can exceed only by chance.

bars = results.sort_values("mean_test_AUC")
names = bars["param_din__interest"] + ", " + bars["param_din__pooling"]
figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.barh(names, bars["mean_test_AUC"], color="#3b82f6")
ax.axvline(roc_auc_score(log.y, log.probability), color="#64748b", linestyle="--")
ax.set(xlim=(0.5, None), xlabel="AUC on users not seen in training (0.5 is guessing)")
figure.show()
