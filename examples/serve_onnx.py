"""
Serve a model without torch
===========================

``export_onnx`` writes the network and the encoder into one file, and ``load_onnx`` makes a model of
it that is used like the Pipeline: onnxruntime computes the network, and torch is not imported. A
process that answers takes a third of the memory.

Here is a model, trained on a click log, written to one file and asked about three impressions: a
user with a past, the same user shown something new, and a user of whom nothing is known.
"""

# sphinx_gallery_thumbnail_path = "_static/serve_onnx.svg"

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_history,
    export_onnx,
    load_onnx,
    rank_candidates,
)
from sklearn_din.datasets import make_click_log

log = make_click_log(n_users=100, n_items=100, n_categories=10, random_state=0)
X = attach_history(
    log.impressions, log.events, user="user", time="time", columns=["item", "category"]
)
encoder = HistorySequenceEncoder(user="user", time="time")
model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0))])
model.fit(X, log.y)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    export_onnx(model, path, layout="ranking")
    served = load_onnx(path)

# %%
# This much the machine that serves has to do. A value that is not known is None.

rows = [
    {"item": 3, "category": 1, "price": 9.5, "device": "phone",
     "hist_item": [17, 3, 5], "hist_category": [4, 1, 1]},
    {"item": 10**6, "category": 2, "price": 4.0, "device": "phone",
     "hist_item": [17, 3, 5], "hist_category": [4, 1, 1]},
    {"item": 3, "category": 1, "price": None, "device": None,
     "hist_item": None, "hist_category": None},
]  # fmt: skip
for row, probability in zip(rows, served.predict_proba(pd.DataFrame(rows))[:, 1], strict=True):
    print(f"{probability:.4f}  {row}")

# %%
# Rankings take it like the Pipeline.

candidates = X[["item", "category", "price"]].drop_duplicates("item")
users = pd.DataFrame([{n: v for n, v in rows[0].items() if n not in candidates}])
print(rank_candidates(served, users, candidates, top_k=3))

# %%
# The answers are the Pipeline's for rows without their time, which are asked for now: with
# everything that item neighbours know. A row with its time reads what was known before it.

now = X.drop(columns="time")
difference = np.abs(served.predict_proba(X) - model.predict_proba(now)).max()
print(f"largest difference from predict_proba in {len(X)} rows: {difference:.1e}")
