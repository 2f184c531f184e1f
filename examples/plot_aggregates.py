"""
Point-in-time numbers and the history
=====================================

A user's or an item's click rate so far helps every model, provided it contains nothing from the
future. ``attach_aggregates`` uses only events that are strictly earlier.
"""

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_aggregates, attach_history
from sklearn_din.datasets import make_click_log

log = make_click_log(n_users=800, n_items=100, n_categories=15, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)

# %%
# The labelled impressions are their own log. A mean without earlier rows is missing; the encoder
# imputes the mean and adds an indicator column.

with_label = X.assign(clicked=log.y)
X_more = attach_aggregates(
    X,
    with_label,
    time="time",
    aggregates={
        "item_rate": ("item", "clicked", "mean"),
        "user_category_clicks": (("user", "category"), "clicked", "sum"),
        "user_shown": ("user", None, "count"),
    },
)
X_more[["user", "item", "item_rate", "user_category_clicks", "user_shown"]].tail()

# %%
# Train on the first three quarters of the rows, which are sorted by time; test on the last quarter.

cut = int(0.75 * len(X))
truth = roc_auc_score(log.y[cut:], log.probability[cut:])
scores = {}
for name, frame in {"history": X, "history and aggregates": X_more}.items():
    model = Pipeline(
        [
            ("encode", HistorySequenceEncoder(user="user", time="time")),
            ("din", DINClassifier(max_epochs=3, random_state=0)),
        ]
    )
    model.fit(frame.iloc[:cut], log.y[:cut])
    scores[name] = roc_auc_score(log.y[cut:], model.predict_proba(frame.iloc[cut:])[:, 1])
for name, auc in {**scores, "best possible": truth}.items():
    print(f"{name:>22}: AUC {auc:.3f}")

# %%
# In this log a click depends only on history, price and device, so the aggregates add little to
# what is already in the history. On MovieLens they help most;
# see :ref:`sphx_glr_auto_examples_plot_movielens.py`.

figure, ax = plt.subplots(figsize=(7, 2), layout="constrained")
ax.barh(list(scores), list(scores.values()), color="#3b82f6")
ax.axvline(truth, color="#64748b", linestyle="--", label="best possible")
ax.set(xlim=(0.5, None), xlabel="AUC on the last quarter of the time")
ax.legend(loc="lower right")
figure.show()
