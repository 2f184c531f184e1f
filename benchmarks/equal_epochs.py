"""Test AUC after one, two and three epochs, beside the rivals', on MovieLens and e-shop clicks.

``python -m benchmarks.equal_epochs [--cache equal_epochs.json] [--seeds 5] [--methods ...]`` runs
what the cache lacks, one thing after another, seeds outermost, and prints a table a data set;
``--table`` only prints, ``--again ours`` first forgets what the cache holds of a method. Everybody
gets the same rows to learn from, batches of 256, no early stopping and, beyond the sizes, its own
defaults. Differences are paired by seed. The rivals run in the environment of RIVALS_PYTHON
(``rivals-requirements.txt``).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import rivals, workloads
from benchmarks.quality import frame_of, pipeline_of

DATA_SETS = ["movielens", "eshop"]
METHODS = ["ours", "deepctr-torch", "torch-rechub", "fuxictr"]
N_EPOCHS, BATCH_SIZE = 3, 256
PATIENCE = 6 * 3600  # seconds for one rival's training: it may share the machine


def our_aucs(workload, seed):
    """Test AUC of the defaults after each epoch: a fit of its own each, as a user would run it."""
    (X, y), (X_test, y_test) = frame_of(workload, "train"), frame_of(workload, "test")
    aucs = []
    for n_epochs in range(1, N_EPOCHS + 1):
        options = {"max_epochs": n_epochs, "batch_size": BATCH_SIZE, "early_stopping": False}
        pipeline = pipeline_of(workload, random_state=seed, **options).fit(X, y)
        aucs.append(float(roc_auc_score(y_test, pipeline.predict_proba(X_test)[:, 1])))
    return aucs


def rival_aucs(rival, workload, seed):
    """Test AUC of another library's DIN after each epoch of one training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.npz"
        workloads.save(workload, path)
        options = {"npz": path, "seed": seed, "max_epochs": N_EPOCHS, "batch_size": BATCH_SIZE}
        return rivals.run_child(rival, "quality-by-epoch", timeout=PATIENCE, **options)["aucs"]


def fill(results, options):
    """Run what is missing; the cache is written after each training."""
    for seed in range(options.seeds):
        for name in options.data:
            workload = workloads.by_name(name, seed=seed)
            for method in options.methods:
                seeds = results.setdefault(name, {}).setdefault(method, {})
                if str(seed) in seeds:
                    continue
                began = time.perf_counter()
                ask = (workload, seed) if method == "ours" else (method, workload, seed)
                aucs = (our_aucs if method == "ours" else rival_aucs)(*ask)
                seeds[str(seed)] = aucs
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                shown = " ".join(f"{auc:.4f}" for auc in aucs)
                seconds = time.perf_counter() - began
                print(f"{name} | {method} | {seed}: {shown} ({seconds:.0f} s)", flush=True)


def print_table(name, methods):
    """Print means and standard errors over seeds, and our paired difference to each rival."""
    columns = [*(f"epoch {e}" for e in range(1, N_EPOCHS + 1)), "best of them"]
    print(f"\n### {name}: test AUC\n\n| | {' | '.join(columns)} | seeds |")
    print("|" + "---|" * (len(columns) + 2))
    curves = {
        method: {seed: np.array([*aucs, max(aucs)]) for seed, aucs in seeds.items()}
        for method, seeds in methods.items()
    }
    for method, seeds in curves.items():
        print_row(method, list(seeds.values()), "{:.4f}")
    ours = curves.pop("ours", {})
    for method, theirs in curves.items():
        gaps = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        print_row(f"ours - {method}", gaps, "{:+.4f}")


def print_row(label, values, form):
    """Print mean (standard error) of each column; ``values`` has one row per seed."""
    n_seeds = len(values)
    if not n_seeds:
        return
    cells = [form.format(mean) for mean in np.mean(values, axis=0)]
    if n_seeds > 1:
        errors = np.std(values, axis=0, ddof=1) / n_seeds**0.5
        cells = [f"{cell} ({error:.4f})" for cell, error in zip(cells, errors, strict=True)]
    print(f"| {label} | {' | '.join(cells)} | {n_seeds} |")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal_epochs")
    parser.add_argument("--cache", type=Path, default=Path("equal_epochs.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", nargs="*", choices=DATA_SETS, default=DATA_SETS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--again", nargs="*", choices=METHODS, default=[])
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    for methods in results.values():
        for method in options.again:
            methods.pop(method, None)
    if not options.table:
        fill(results, options)
    for name, methods in results.items():
        print_table(name, methods)


if __name__ == "__main__":
    main()
