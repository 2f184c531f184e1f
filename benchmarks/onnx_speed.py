"""The exported file beside the classifier: ``python -m benchmarks.onnx_speed``.

One model on a synthetic log (100,000 items, histories of 19 events on average, up to 100): largest
difference, size of the file, and rows per second by how many rows a call takes. Both are given
encoded rows; padding them is part of onnxruntime's time, flat batches of the classifier's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.workloads import by_name, to_frame
from sklearn_din.estimator import DINClassifier
from sklearn_din.features import EncodedFeatures
from sklearn_din.serving.export import export_onnx
from sklearn_din.transformers import HistorySequenceEncoder

HISTORIES = {("hist_item", "hist_category"): ("item", "category")}
CALL_SIZES = (1, 16, 256, 2048)
SECONDS = 3.0


def encoded_workload(name: str, n_rows: int) -> tuple[EncodedFeatures, np.ndarray]:
    workload = by_name(name, n_rows=n_rows)
    frame = to_frame(workload)
    columns = [*workload["attributes"], *workload["numeric"], "hist_item", "hist_category"]
    encoder = HistorySequenceEncoder(histories=HISTORIES, max_length=workload["max_length"])
    return encoder.fit_transform(frame[columns]), workload["train"]["label"]


def open_session(path: Path, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def rows_per_second(score: Callable, X: EncodedFeatures, size: int) -> float:
    """Calls of ``size`` rows until the time is up, after one to warm up."""
    score(X[:size])
    n_rows, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        first = n_rows % (len(X) - size + 1)
        score(X[first : first + size])
        n_rows += size
    return n_rows / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="synthetic-100k")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    X, y = encoded_workload(arguments.workload, arguments.rows)
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.perf_counter()
        export_onnx(classifier, path)
        seconds, n_bytes = time.perf_counter() - start, path.stat().st_size
        session = open_session(path, arguments.threads)
    names = [one.name for one in session.get_inputs()]

    def by_onnxruntime(rows: EncodedFeatures) -> np.ndarray:
        return session.run(["probability"], {name: rows[name] for name in names})[0]

    def by_classifier(rows: EncodedFeatures) -> np.ndarray:
        return classifier.predict_proba(rows)[:, 1]

    blocks = [X[start : start + 1000] for start in range(0, len(X), 1000)]
    gaps = [np.abs(by_onnxruntime(rows) - by_classifier(rows)).max() for rows in blocks]
    n_weights = sum(parameter.numel() for parameter in classifier.module_.parameters())
    print(f"{arguments.workload}, {len(X)} rows, {arguments.threads} threads")
    print(f"largest difference of a probability {max(gaps):.1e}; written in {seconds:.2f} s")
    print(f"file {n_bytes / 1e6:.2f} MB, of which weights {4 * n_weights / 1e6:.2f} MB")
    print("rows a call   onnxruntime   classifier   (rows/s)")
    for size in CALL_SIZES:
        ours, theirs = (rows_per_second(f, X, size) for f in (by_classifier, by_onnxruntime))
        print(f"{size:11}   {theirs:11,.0f}   {ours:10,.0f}")


if __name__ == "__main__":
    main()
