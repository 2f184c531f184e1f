"""What a shortlist keeps of the full scan's ranking, and what it costs by the catalogue's size.

``python -m benchmarks.shortlist quality`` fits a model on real logs and a made one, and ranks the
whole catalogue for some test users, once with each shortlist: NDCG@10 and hit rate@10 of the next
click, the fraction of the full scan's ten best, milliseconds of a user. ``... size`` makes item
neighbours of 10^4 to 10^6 items, each size in a process of its own: milliseconds of a choice of
500, bytes beyond the tables. ``--users``, ``--epochs``, ``--seed``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import numpy as np
from scipy.sparse import csr_array

from benchmarks import quality
from benchmarks.data_sets import data_set
from benchmarks.memory import Peak, anonymous_memory
from benchmarks.workloads import to_frame
from sklearn_din import Ranker
from sklearn_din.features.vectors import Vectors
from sklearn_din.neighbours.item_scores import ItemScores
from sklearn_din.neighbours.shortlist import Shortlist

DATA = ["MovieLens by user", "e-shop by session, uniform", "long baskets", "sparse catalogue"]
CHOSEN = (50, 100, 200, 500, 1000)
SIZES = (10_000, 100_000, 1_000_000)
MOST_PAIRS, MOST_NEIGHBOURS, N_EXACT, N_DIMS = 20_000_000, 200, 3_000, 32
N_EVENTS, N_CHOSEN, N_KINDS = 50, 500, 200


def measure_quality(name: str, *, n_users: int, epochs: int, seed: int) -> None:
    """Print one line for the full scan and for each shortlist."""
    workload = data_set(name, seed)
    model = quality.fit_ours(workload, seed=seed, max_epochs=epochs)
    of_item = list(workload["attributes"])
    train, test = to_frame(workload, "train"), to_frame(workload, "test")
    catalogue = train[of_item].drop_duplicates("item").dropna().reset_index(drop=True)
    asked = test[(workload["test"]["label"] == 1) & test["item"].isin(catalogue["item"])]
    asked = asked.sample(min(n_users, len(asked)), random_state=seed)
    users, clicked, full = asked.drop(columns=of_item), asked["item"].to_numpy(), set()
    for n in (None, *(n for n in CHOSEN if n < len(catalogue))):
        ranker = Ranker(model, catalogue, shortlist=n)
        began = time.process_time()
        best = ranker.rank(users, top_k=10)
        seconds = (time.process_time() - began) / len(users)
        found = best["item"].to_numpy() == clicked[best["row"]]
        ndcg = (found / np.log2(1 + best["rank"])).sum() / len(users)
        pairs = {*zip(best["row"], best["item"], strict=True)}
        full = full or pairs
        print(
            f"| {name} | {len(catalogue):,} | {n or 'all'} | {ndcg:.4f} | "
            f"{found.sum() / len(users):.4f} | {len(pairs & full) / len(full):.3f} | "
            f"{1e3 * seconds:.1f} |",
            flush=True,
        )


def make_scores(n_items: int, rng: np.random.RandomState) -> ItemScores:
    """Return as many neighbours as a fit keeps; the first items are everybody's neighbours."""

    def neighbours(n_rows: int, n_each: int) -> csr_array:
        columns = (n_rows * rng.random_sample((n_rows, n_each)) ** 2).astype(np.int32)
        ends = np.append(np.arange(n_rows + 1) * n_each, np.full(n_items - n_rows, columns.size))
        values, columns = rng.random_sample(columns.size), np.sort(columns, axis=1).ravel()
        shape = (n_items, n_items)
        return csr_array((values.astype(np.float32), columns, ends.astype(np.int32)), shape=shape)

    cosine = neighbours(n_items, min(MOST_NEIGHBOURS, MOST_PAIRS // n_items))
    popularity = rng.random_sample(n_items).astype(np.float32)
    return ItemScores(neighbours(N_EXACT, MOST_NEIGHBOURS), cosine, *[popularity] * 3)


def measure_size(n_items: int, seed: int) -> list[float]:
    """Print and return the cost of a choice out of so many items, without vectors and with some."""
    rng = np.random.RandomState(seed)
    scores, items = make_scores(n_items, rng), np.arange(n_items, dtype=np.int32)
    none = np.empty(0, dtype=np.int32)
    table = rng.normal(size=(n_items + 1, N_DIMS)).astype(np.float32)
    vectors = Vectors(table, items + 1, none, none, none)
    histories = (n_items * rng.random_sample((50, N_EVENTS)) ** 2).astype(np.int32)
    kinds, of_events = (rng.randint(2, N_KINDS, size) for size in (n_items, histories.shape))
    cells: list[float] = []
    for given in (None, vectors):
        with Peak() as peak:
            began = time.process_time()
            chooser = Shortlist([scores], items, attributes=[(kinds, N_KINDS)], vectors=given)
            seconds = time.process_time() - began
        cells += [seconds, peak.beyond_start(), anonymous_memory() - peak.before]
        chooser.choose([histories[0]], N_CHOSEN, of_attributes=[of_events[0]])
        began = time.process_time()
        for row, events in enumerate(histories):
            chooser.choose([events], N_CHOSEN, of_attributes=[of_events[row]])
        cells += [1e3 * (time.process_time() - began) / len(histories)]
        del chooser
    print(f"| {n_items:,} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |", flush=True)
    return cells


def draw_sizes(rows: list[list[float]], path: str) -> None:
    """Draw time and memory of a choice by the size of the catalogue."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, columns, name in zip(
        axes, ((3, 7), (1, 5)), ("ms a user", "MB, at most"), strict=True
    ):
        for column, label in zip(columns, ("by item neighbours", "and by vectors"), strict=True):
            axis.plot(SIZES, [row[column] for row in rows], marker="o", label=label)
        axis.set(xscale="log", xlabel="items of the catalogue", ylabel=name, ylim=(0, None))
        axis.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=["quality", "size"])
    for name, default in (("users", 400), ("epochs", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--picture", help="file to draw the table of sizes to")
    given = parser.parse_args()
    if given.task == "quality":
        for name in DATA:
            measure_quality(name, n_users=given.users, epochs=given.epochs, seed=given.seed)
        return
    with multiprocessing.Pool(1, maxtasksperchild=1) as pool:  # a process for each: memory
        rows = pool.starmap(measure_size, [(n, given.seed) for n in SIZES], chunksize=1)
    if given.picture:
        draw_sizes(rows, given.picture)


if __name__ == "__main__":
    main()
