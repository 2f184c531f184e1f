"""What each process of test_encoding_together.py does: encoding_together.py FOLDER CASE ..."""

import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, scan_parquet
from sklearn_din.large.parquet_scan import ParquetFiles
from sklearn_din.resilient import ranks
from tests.click_frames import every_kind

RANK = int(os.environ.get("RANK", "0"))
SMALL = {"embedding_dim": 4, "attention_units": (8, 4), "hidden_units": (16, 8), "lr": 0.01}
SMALL |= {"batch_size": 64, "max_epochs": 2, "random_state": 0}
EASY = {"user": "user", "time": "time"}


def make_files(folder):
    """Rows with every kind of column in row groups of 40, and the events of the same log."""
    X, shown, events = every_kind()
    X.to_parquet(folder / "rows.parquet", row_group_size=40)
    plain = shown.sort_values("time", kind="stable")
    plain.to_parquet(folder / "impressions.parquet", row_group_size=40, index=False)
    events.to_parquet(folder / "events.parquet", index=False)


def rows(folder, cache, **options):
    return scan_parquet(folder / "rows.parquet", target="click", cache_dir=cache, **options)


def fit(scan, **options):
    encoder = HistorySequenceEncoder(**EASY | options)
    return encoder, encoder.fit_transform(scan, scan.target_)


def train(folder, cache):
    """Fit a Pipeline on a scan."""
    scan = rows(folder, cache)
    steps = [("encode", HistorySequenceEncoder(**EASY)), ("din", DINClassifier(**SMALL))]
    return Pipeline(steps).fit(scan, scan.target_)


def attached(folder, cache):
    """Impressions and events are scans: histories are windows of one log on disk."""
    events = scan_parquet(folder / "events.parquet", cache_dir=cache)
    shown = scan_parquet(folder / "impressions.parquet", target="click", cache_dir=cache)
    names = ["item", "category", "when"]
    X = attach_history(shown, events, user="user", time="time", columns=names)
    fit(X)


def some_rows(folder, cache):
    """Rows in an order of their own, and options."""
    scan = rows(folder, cache, memory="400KB")
    options = {"max_length": 3, "min_frequency": 2}
    fit(scan[np.random.RandomState(0).permutation(len(scan))[:200]], **options)


CASES = {
    "all columns": lambda folder, cache: fit(rows(folder, cache)),
    "some rows": some_rows,
    "attached": attached,
}


def different(folder, cache):
    """Each process encodes something else."""
    _, X = fit(rows(folder, cache), max_length=3 + RANK)
    return str(X["hist_item"].shape[1])


def fail():
    raise ValueError("something is wrong here")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def at_its_turn(rank, act):
    """One process acts when it has its turn to encode."""
    encode = HistorySequenceEncoder._encode

    def act_first(self, table):
        if rank == RANK:
            act()
        return encode(self, table)

    def case(folder, cache):
        with patch.object(HistorySequenceEncoder, "_encode", act_first):
            try:
                fit(rows(folder, cache))
            except (ValueError, RuntimeError) as error:
                return f"{type(error).__name__}: {error}"
        return "none"

    return case


FAILING = {f"failing {rank}": at_its_turn(rank, fail) for rank in (0, 1)}
TOLD = {"different": different, "killed": at_its_turn(1, kill)} | FAILING
read = []  # row groups of each pass, and the first column


def noted(self, groups, columns, **options):
    read.append([list(map(int, groups)), columns[0], "hist_item" in columns])
    return passes(self, groups, columns, **options)


passes = ParquetFiles.read


def weights_of(model):
    module = model[-1].module_.state_dict()
    return {name: its.numpy() for name, its in module.items()}


def main(folder, *cases):
    torch.distributed.init_process_group("gloo")
    ranks.SECONDS_FOR_REASON = 1.0
    ParquetFiles.read = noted
    folder = Path(folder)
    for case in cases:
        read.clear()
        path, cache = folder / f"{case} {RANK}", folder / f"cache of {case}"
        if case in TOLD:
            path.with_suffix(".txt").write_text(TOLD[case](folder, cache))
            continue
        if case == "training":
            np.savez(path.with_suffix(".npz"), **weights_of(train(folder, cache)))
        else:
            CASES[case](folder, cache)
        path.with_suffix(".json").write_text(json.dumps(read))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
