"""What a process loads and asks: nothing that it does not use, nothing of a network."""

import importlib
import sys

import pytest

from sklearn_din.utils.extras import EXTRAS
from sklearn_din.utils.postponed import Postponed
from tests.processes import run_python

pytestmark = pytest.mark.slow

TORCH = {"torch", "skorch"}
FRAMES = {"pandas", "pyarrow"}
SLOW = {"scipy.stats", "pyarrow.dataset", "pyarrow.parquet", "matplotlib", "duckdb", "skops"}
SLOW |= {"tqdm.auto"}
COMPILER = {"torch._dynamo", "torch._inductor", "torch.onnx", "sympy"}
FIT = """
import numpy as np
from sklearn_din import DINClassifier
DINClassifier(max_epochs=1).fit(np.eye(4, dtype=np.float32), [0, 1, 0, 1])
X = np.eye(4, dtype=np.float32).repeat(9, axis=0)
DINClassifier(max_epochs=1, early_stopping=True).fit(X, [0, 1] * 18)
"""
GROW = """
import pickle, sys
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn_din import DINClassifier, HistorySequenceEncoder, update
shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat"]]})
model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1)).fit(shown, [0, 1])
before = {*sys.modules}
update(pickle.loads(pickle.dumps(model)), shown.assign(item=["hat", "boot"]), [0, 1])
new = [name for name in sys.modules if name.startswith("torch.") and name not in before]
assert len(new) < 10, f"{len(new)} modules of torch: {sorted(new)[:20]}"
"""
# What fit, predict and save of a frame in memory need; they load no extra.
CORE = """
import sys
import tempfile
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn_din import DINClassifier, HistorySequenceEncoder, load, save
from sklearn_din import attach_aggregates, attach_history, sample_negatives
log = pd.DataFrame({"user": [1, 1, 2, 2] * 5, "item": ["hat", "tie"] * 10, "time": range(20)})
X, y = sample_negatives(log, item="item", random_state=0)
X = attach_history(X, log, user="user", time="time", columns="item")
X = attach_aggregates(X, log, time="time", aggregates={"clicks": ("item", None, "count")})
encoder = HistorySequenceEncoder(user="user", time="time")
model = make_pipeline(encoder, DINClassifier(max_epochs=1)).fit(X, y)
with tempfile.TemporaryDirectory() as folder:
    save(model, f"{folder}/model.din")
    assert (load(f"{folder}/model.din").predict_proba(X) == model.predict_proba(X)).all()
parts = ("logs", "transformers", "estimator", "saving")
assert {f"sklearn_din.{part}" for part in parts} <= {*sys.modules}
"""
GUARD = ("from tests.offline import refuse_networks; refuse_networks()", {"numpy"})
REST = """
import tempfile
import sklearn_din
import sklearn_din.metrics, sklearn_din.serving, sklearn_din.inspection.display
from sklearn_din.__main__ import main
from sklearn_din.serving.export import export_onnx
from tests.fitted_pipelines import fit_pipeline, make_frame

folder = tempfile.mkdtemp()
frame, y = make_frame(n_users=6)
model = fit_pipeline(frame, y)
model._repr_html_()
sklearn_din.save(model, f"{folder}/model.din")
assert (sklearn_din.load(f"{folder}/model.din").predict(frame) == model.predict(frame)).all()
export_onnx(model, f"{folder}/model.onnx")
rows = frame[["user", "item", "time"]]
rows.to_csv(f"{folder}/log.csv", index=False)
columns = ["--user", "user", "--item", "item", "--time", "time"]
main([f"{folder}/log.csv", *columns, "--epochs", "1", "--picture", f"{folder}/attention.png"])
"""
PACKAGES = {"duckdb", "matplotlib", "onnx", "onnxruntime", "pyarrow.dataset"}
OWN_EXTRAS = {f"sklearn_din.{name}" for name in (*EXTRAS, "__main__")}

# Statements that one process runs one after the other, and what none of them has loaded by then
WITHOUT_TORCH = [
    ("import sklearn_din", {"numpy"}),
    ("from sklearn_din.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass",
     {"numpy"}),
    ("from sklearn_din import HistorySequenceEncoder", TORCH | SLOW),
    ("from sklearn_din import attach_history, sample_negatives, metrics", TORCH),
    ("from sklearn_din import EncodedFeatures, Schema, datasets, features", TORCH),
    ("import sklearn_din.transformers", TORCH),
]  # fmt: skip
# The package anew, without what Windows lacks
WINDOWS = """
import builtins, pathlib, sys
import sklearn_din

folder, before = pathlib.Path(sklearn_din.__path__[0]), builtins.__import__
for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn_din"]:
    del sys.modules[name]

def hide(name, globals=None, *rest, **options):
    asks = (globals or {}).get("__name__", "")
    if name in {"fcntl", "pwd", "resource", "termios"} and asks.startswith("sklearn_din"):
        raise ModuleNotFoundError(f"No module named {name!r}")
    return before(name, globals, *rest, **options)

builtins.__import__ = hide
for path in sorted(folder.rglob("*.py")):
    __import__(".".join(path.relative_to(folder.parent).with_suffix("").parts))
from sklearn_din.server.connections import most_connections
assert most_connections() == 1000
"""
WITH_TORCH = [
    ("from sklearn_din import DINClassifier",
     FRAMES | {"skorch", "sklearn.metrics"} | SLOW | COMPILER),
    (FIT, {"matplotlib", "duckdb", "skops"} | COMPILER),
    (CORE, PACKAGES | OWN_EXTRAS),
    (GROW, {"matplotlib", "duckdb"} | COMPILER),
    (REST, set()),
    (WINDOWS, set()),
]  # fmt: skip


@pytest.mark.parametrize("steps", [WITHOUT_TORCH, WITH_TORCH])
def test_a_process_loads_nothing_that_it_does_not_use_and_asks_no_network(steps):
    code = f"""
import sys
for statement, absent in {[GUARD, *steps]}:
    exec(statement, {{}})
    assert not absent & {{*sys.modules}}, (statement, absent & {{*sys.modules}})
"""
    child = run_python(code)
    assert child.returncode == 0, child.stderr


def test_a_postponed_module_is_imported_when_it_is_asked(monkeypatch):
    """Whoever imported pandas while scikit-learn was imported without it gets all of it."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    postponed = Postponed("colorsys")
    monkeypatch.setitem(sys.modules, "colorsys", postponed)
    assert postponed.rgb_to_hsv(0, 0, 1) == (2 / 3, 1, 1)
    assert importlib.import_module("colorsys") is not postponed
    assert postponed.hsv_to_rgb is importlib.import_module("colorsys").hsv_to_rgb


def test_the_guard_sees_a_question():
    code = (
        "from tests.offline import refuse_networks; refuse_networks(); import socket;"
        "socket.socketpair(); socket.create_connection(('example.invalid', 9))"
    )
    child = run_python(code)
    assert child.returncode == 3
    assert "socket.getaddrinfo was asked for 'example.invalid'" in child.stderr
