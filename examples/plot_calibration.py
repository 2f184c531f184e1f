"""
Calibration after negative sampling
===================================

Dropping negatives makes training faster but probabilities too high. The ranking does not change,
but the probabilities need a correction.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import correct_for_sampling

log = make_click_log(n_users=1200, n_items=300, n_categories=15, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)
train, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, groups=X["user"]))

# %%
# Keep every click of the training rows and one negative in four. The histories were attached
# before and do not change.

rng = np.random.RandomState(0)
kept = train[(log.y[train] == 1) | (rng.random_sample(len(train)) < 0.25)]
print(f"clicks: {log.y[train].mean():.1%} of all rows, {log.y[kept].mean():.1%} of the kept ones")

model = Pipeline(
    [
        ("encode", HistorySequenceEncoder(user="user", time="time")),
        ("din", DINClassifier(max_epochs=3, random_state=0)),
    ]
)
model.fit(X.iloc[kept], log.y[kept])
raw = model.predict_proba(X.iloc[test])[:, 1]
corrected = correct_for_sampling(raw, sampling_rate=0.25)

# %%
# The correction does not change the order, and so not the AUC.

y = log.y[test]
for name, probability in {"as predicted": raw, "corrected": corrected}.items():
    auc = roc_auc_score(y, probability)
    print(f"{name:>12}: mean {probability.mean():.3f}, AUC {auc:.4f}")
print(f"  click rate: {y.mean():.3f}")

# %%

figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for name, probability in {"as predicted": raw, "corrected": corrected}.items():
    CalibrationDisplay.from_predictions(
        y, probability, n_bins=10, strategy="quantile", name=name, ax=ax
    )
ax.set(xlabel="predicted probability of a click", ylabel="share that was clicked")
figure.show()
