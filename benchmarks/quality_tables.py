"""Tables of the comparison: the cache of ``quality.py`` as Markdown."""

import numpy as np
import pandas as pd

from benchmarks.tables import print_frame

MEASURES = ["auc", "gauc", "log_loss", "ece"]


def summary(results):
    """Mean and standard error over seeds by data set and method, as one long DataFrame."""
    records = [
        {"data": data, "method": method, "seed": int(seed), **measured}
        for data, methods in results.items()
        for method, seeds in methods.items()
        for seed, measured in seeds.items()
    ]
    table = pd.DataFrame(records)
    columns = [c for c in [*MEASURES, "attention_auc", "seconds"] if c in table]
    return table.groupby(["data", "method"], sort=False)[columns].agg(["mean", "sem", "count"])


def print_tables(results, *, data_sets, methods, unranked):
    """Print one table a measure, and mean ranks by GAUC.

    ``data_sets`` and ``methods`` say the order; ``unranked`` methods are left out of the ranks.
    """
    table = summary(results)
    order = [name for name in data_sets if name in results]
    for measure in MEASURES:
        mean, sem = (table[measure][what].unstack("method") for what in ("mean", "sem"))
        cells = mean.map("{:.4f}".format) + " ± " + sem.map("{:.4f}".format)
        _print(cells.loc[order, [m for m in methods if m in cells]], measure)
    for seeds, ranks in mean_ranks(results, unranked).items():
        _print(ranks.map("{:.2f}".format).to_frame("rank"), f"mean rank by GAUC, {seeds}")


def _print(frame, title):
    """Print a table, cells empty where nothing was run, without an error where one seed was."""
    cells = frame.map(lambda text: "" if text.startswith("nan") else text.replace(" ± nan", ""))
    print_frame(cells, title)


def mean_ranks(results, unranked):
    """Mean ranks over data sets, each method by the same seeds.

    Once for each number of seeds: the methods that ran at least as many on every data set.
    """
    methods = {m for by_method in results.values() for m in by_method} - set(unranked)
    fewest = {m: min(len(by_method.get(m, {})) for by_method in results.values()) for m in methods}
    ranks = {}
    for least in sorted({fewest[m] for m in methods if fewest[m]}, reverse=True):
        chosen = sorted(m for m in methods if fewest[m] >= least)
        gauc = {data: _common_mean(by_method, chosen) for data, by_method in results.items()}
        table = pd.DataFrame(gauc).T.rank(axis=1, ascending=False)
        ranks[f"{least} seeds"] = table.mean().sort_values()
    return ranks


def _common_mean(by_method, methods):
    """Mean GAUC of each method over the seeds that all of them ran."""
    seeds = set.intersection(*(set(by_method[m]) for m in methods))
    return {m: np.mean([by_method[m][seed]["gauc"] for seed in seeds]) for m in methods}
