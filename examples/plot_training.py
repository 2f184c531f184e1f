"""
Training curve and early stopping
=================================

Click models overfit within a few passes over the data. Watch the validation loss, and keep the
weights of the best validation check.
"""

from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log

log = make_click_log(n_users=1000, n_items=300, n_categories=15, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)

# %%
# ``early_stopping="auto"``, the default, is on from 3,000 rows. Here it is turned on explicitly,
# with held-out users: ``validation="groups"`` needs the groups at ``fit``, and a Pipeline
# passes them to its step ``din`` as ``din__groups``. If the encoder knows the time,
# ``HistorySequenceEncoder(time="time")``, the last rows are held out by default.

model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(user="user", drop=["time"])),
        (
            "din",
            DINClassifier(early_stopping=True, validation="groups", patience=6, random_state=0),
        ),
    ]
)
model.fit(X, log.y, din__groups=X["user"])
history = model["din"].history_
ax = history.plot(x="epoch", y=["train_loss", "valid_loss"], marker="o", ylabel="loss")
kept = history.loc[history["valid_loss"].idxmin(), "epoch"]
ax.axvline(kept, linestyle="--", color="grey")

# %%
# The training loss keeps falling, but the validation loss starts to rise. Training stopped after
# ``patience`` validation checks without improvement and kept the weights of the marked check: the
# average over its last four checks.

history.round(3)
