"""Saved files changed in thousands of ways: none may run code, take memory, or predict wrongly.

    python -m benchmarks.tampering [--mutations 6000] [--seed 0]

Each mutation changes a file of ``sklearn_din.save``. Where "re-hashed" stands, sizes and SHA-256
of the changed members were made to agree again, so that the checks behind them are met. A file may
then hold another model, as valid as the first ("another model"): sums guard against damage, only a
signature would guard against forgery. Everywhere else, the outcome must be an error of ours or the
very same predictions.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import traceback
import tracemalloc
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from benchmarks.mutations import REHASHED, UNHASHED, Saved, a_false_step_of_skops
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    load,
    save,
    scan_parquet,
    update,
)
from sklearn_din.state.plain_state import read_state, write_state

MEMORY_PER_BYTE, MEMORY_FLOOR = 16, 8 << 20  # parsed JSON takes several times its text
FORBIDDEN = ("exec", "subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn")
FORBIDDEN += ("socket.connect", "ctypes.dlopen", "pickle.find_class", "marshal.loads", "os.remove")
OUTCOMES = ("refused", "same predictions", "another model", "refused at predict", "WRONG")

_seen: list[str] = []
_watching = False


def _audit(event, arguments):
    if not _watching:
        return
    if event in FORBIDDEN or event == "import":
        _seen.append(f"{event} {arguments[0]!r:.80}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _seen.append(f"open {arguments[0]!r:.80} for writing")


def make_rows(n_users=8, n_items=9, n_rows=80, seed=0):
    """Impressions of every kind of column, their labels."""
    random_state = np.random.RandomState(seed)
    frame = pd.DataFrame({"user": random_state.randint(n_users, size=n_rows)})
    frame["time"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(n_rows), "h")
    frame["item"] = [f"i{n}" for n in random_state.randint(n_items, size=n_rows)]
    frame["price"] = np.where(random_state.rand(n_rows) < 0.1, np.nan, random_state.rand(n_rows))
    return frame, random_state.randint(2, size=n_rows)


def make_steps():
    """Steps from a log to a classifier."""
    builder = HistoryBuilder(
        user="user", time="time", columns=["item"], elapsed="ago", max_length=5
    )
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=5)
    classifier = DINClassifier(
        embedding_dim=2, attention_units=(3,), hidden_units=(4,), max_epochs=1, random_state=0
    )
    return [("build", builder), ("encode", encoder), ("din", classifier)]


def make_models():
    """Name -> fitted model, and name -> the rows that it predicts."""
    frame, y = make_rows()
    steps = make_steps()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline(steps).fit(frame, y)
        foreign = Pipeline([("same", FunctionTransformer()), *steps]).fit(frame, y)
        search = GridSearchCV(Pipeline(steps), {"din__lr": [0.01, 0.02]}, cv=2).fit(frame, y)
        grown = make_grown_model()
        scanned, its_rows = make_model_of_a_scan()
    models = {"pipeline": pipeline, "search": search, "with a step of skops": foreign}
    rows = dict.fromkeys(models, frame.head(12))
    models |= {"grown": grown, "of a scan": scanned}
    return models, rows | {"grown": frame.head(12), "of a scan": its_rows}


def make_grown_model():
    """A model with item neighbours that has learnt ids after fit, rare ones among them."""
    frame, y = make_rows()
    later = frame.assign(time=frame["time"] + pd.Timedelta("30D"), item=frame["item"] + "new")
    model = Pipeline(make_steps()).set_params(encode__min_frequency=2).fit(frame, y)
    return update(update(model, later.head(20), y[:20]), later.tail(20), y[-20:])


def make_model_of_a_scan():
    """A model fitted on Parquet files with a history beside them, and a frame of its rows."""
    frame, y = make_rows()
    with tempfile.TemporaryDirectory() as folder:
        frame.assign(click=y).to_parquet(Path(folder) / "rows.parquet", row_group_size=30)
        scan = scan_parquet(folder, target="click", cache_dir=Path(folder) / "cache")
        X = attach_history(scan, scan, user="user", time="time", columns=["item"], elapsed="ago")
        model = Pipeline(make_steps()[1:]).fit(X, X.target_)
    rows = attach_history(frame, frame, user="user", time="time", columns=["item"], elapsed="ago")
    return model, rows.head(12)


class Judge:
    """Loads a changed file, and says what came of it."""

    def __init__(self, models, rows, folder):
        self.rows, self.path = rows, Path(folder) / "changed.din"
        self.saved, self.truth = {}, {}
        for name, model in models.items():
            path = Path(folder) / f"{name}.din"
            save(model, path, overwrite=True)
            self.saved[name] = Saved(path.read_bytes())
            self.truth[name] = model.predict_proba(rows[name])
            repr(model)  # scikit-learn imports what it needs for that when first asked
            assert (load(path).predict_proba(rows[name]) == self.truth[name]).all()
        read_state(write_state(pd.Timestamp("2024-01-01", tz="Europe/Berlin")))  # finds the zones
        self.worst_memory = 0.0

    def outcome(self, name, content, *, rehashed):
        """One of OUTCOMES, and a sentence where it is WRONG."""
        global _watching
        self.path.write_bytes(content)
        _seen.clear()
        tracemalloc.start()
        _watching = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found, sentence = self._load_and_predict(name)
        finally:
            _watching = False
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        allowed = MEMORY_FLOOR + MEMORY_PER_BYTE * len(content)
        self.worst_memory = max(self.worst_memory, peak / allowed)
        if _seen:
            return "WRONG", f"it ran code: {_seen[:3]}"
        if peak > allowed:
            return "WRONG", f"it took {peak:,} bytes for a file of {len(content):,}"
        if found in ("another model", "refused at predict") and not rehashed:
            return "WRONG", f"{found} although nothing was re-hashed {sentence}"
        return found, sentence

    def _load_and_predict(self, name):
        try:
            model = load(self.path)
        except Exception as error:
            is_ours = type(error).__name__ == "SafeFileError" and "unchanged file" in str(error)
            return ("refused", "") if is_ours else ("WRONG", f"load raised {error!r}")
        try:
            found = model.predict_proba(self.rows[name])
        except (ValueError, TypeError) as error:
            return "refused at predict", str(error)
        except Exception as error:
            if "skops" in name and "sklearn" in _raised_in(error):  # skops checks no attributes
                return "refused at predict", str(error)
            return "WRONG", f"predict raised {error!r}"
        is_same = found.shape == self.truth[name].shape and (found == self.truth[name]).all()
        return ("same predictions" if is_same else "another model"), ""


def _raised_in(error):
    """Package of the code that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).parts


def try_mutations(n_mutations, seed, folder):
    """Outcomes by kind of mutation, sentences of wrong ones, most memory by the limit."""
    models, rows = make_models()
    judge = Judge(models, rows, folder)
    counts, wrong = defaultdict(Counter), []
    chance = random.Random(seed)
    kinds = UNHASHED | REHASHED
    drawn = list(kinds) + chance.choices(list(kinds), list(kinds.values()), k=n_mutations)
    for number, mutate in enumerate(drawn[:n_mutations]):
        needs_skops = mutate is a_false_step_of_skops
        name = chance.choice([its for its in judge.saved if not needs_skops or "skops" in its])
        content = mutate(chance, judge.saved[name])
        rehashed = mutate in REHASHED
        found, sentence = judge.outcome(name, content, rehashed=rehashed)
        counts[mutate.__name__, rehashed][found] += 1
        if found == "WRONG":
            wrong.append(f"{number} {mutate.__name__} of {name}: {sentence}")
    return counts, wrong, judge.worst_memory


def watch():
    """Have the interpreter tell of imports, programs and files written, from now on."""
    sys.addaudithook(_audit)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    watch()
    with tempfile.TemporaryDirectory() as folder:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (3 << 30),) * 2)
        counts, wrong, memory = try_mutations(arguments.mutations, arguments.seed, folder)
    table = pd.DataFrame(counts).T.reindex(columns=OUTCOMES).fillna(0).astype(int)
    table.index.names = ["mutation", "re-hashed"]
    table.loc[("all", ""), :] = table.sum()
    print(table.astype(int).to_string())
    limit = f"{MEMORY_FLOOR >> 20} MiB + {MEMORY_PER_BYTE} bytes per byte of the file"
    print(f"\nmost memory: {memory:.0%} of {limit}")
    print("\n".join(wrong) or "none wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
