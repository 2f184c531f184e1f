"""
Point-in-time numbers and the history
=====================================

A user's click rate so far, an item's click rate so far: numbers that help every model, if they
know nothing of the future. ``attach_aggregates`` counts only what is strictly earlier.
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
# gives it the mean of the others and adds a column that says so.

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
# Train on the first three quarters of the time, test on the last: the rows are sorted by time.

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
# In this log a click depends on the history, price and device alone, so the aggregates can add
# little: what they could tell is in the history already. On MovieLens they are what helps most;
# see :ref:`sphx_glr_auto_examples_plot_movielens.py`.

figure, ax = plt.subplots(figsize=(7, 2), layout="constrained")
ax.barh(list(scores), list(scores.values()), color="#3b82f6")
ax.axvline(truth, color="#64748b", linestyle="--", label="best possible")
ax.set(xlim=(0.5, None), xlabel="AUC on the last quarter of the time")
ax.legend(loc="lower right")
figure.show()
