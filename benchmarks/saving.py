"""What saving and loading a model of 1 GB take: seconds, octets on disk, memory.

    python -m benchmarks.saving [--gigabytes 1.0]

The model is a network with one large embedding table, which its training state is beside. Memory is
anonymous memory (RssAnon) beyond what the process had before; after loading, that is the model too.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from sklearn_din import DINClassifier, EncodedFeatures, Field, Schema, load, save

WIDTH = 64
MEGABYTE = 1 << 20


def anonymous_memory():
    """Megabytes of anonymous memory that the process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def measure(call):
    """Return what a call returns, its seconds, and its peak of memory in megabytes."""
    before, peak, is_over = anonymous_memory(), 0.0, threading.Event()

    def watch():
        nonlocal peak
        while not is_over.wait(0.002):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    is_over.set()
    watcher.join()
    return result, seconds, peak - before


def make_model(gigabytes):
    """A classifier whose embeddings take so much."""
    n_ids = int(gigabytes * (1 << 30) / (4 * WIDTH))
    schema = Schema((Field("item", "categorical", "item", n_ids),))
    ids = np.random.default_rng(0).integers(2, n_ids, size=2_000).astype(np.int32)
    X = EncodedFeatures(schema, {"item": ids})
    classifier = DINClassifier(embedding_dim=WIDTH, max_epochs=1, early_stopping=False)
    return classifier.fit(X, ids % 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    model = make_model(parser.parse_args().gigabytes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.din"
        save(DINClassifier(), path)  # imports skops
        for name, call in (("save", lambda: save(model, path)), ("load", lambda: load(path))):
            _, seconds, peak = measure(call)
            size = path.stat().st_size / MEGABYTE
            print(f"{name}: {seconds:.1f} s, {peak:,.0f} MB of memory for a file of {size:,.0f} MB")


if __name__ == "__main__":
    main()
