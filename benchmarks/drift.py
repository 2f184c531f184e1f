"""Every Monday: how a model ages by period after its training, and what updates mend.

``python -m benchmarks.drift [--cache drift.json] [--seeds 1] [--only WORD]`` runs what the cache
lacks and prints a summary and a table per measure for each log; ``--table`` only prints, ``--ways``
picks.

A log is cut by time: the first part trains, with its own last tenth to stop by; the rest comes in
periods. Each period is scored before anything learns from it:

- "never": by the model of the first part, as it is.
- "updated": by ``sklearn_din.update`` with the rows of each period that has gone by, which learns
  at a third of the rates of fit; and at the full rate, and at a tenth.
- "fitted anew": by a new model of all rows so far, which is what an update saves.

A fit may be a lucky one. "never" and "updated" go on with it to the end, "fitted anew" has another
one in each period: so the first two are means over ``--first-fits`` fits of other random states.

The first period comes right after the training. Logs: turning catalogues (``made_logs.py``; the
first four days or weeks train), MovieLens by time (the last 40 % of the ratings in eight parts) and
by month (the last twelve), e-shop sessions by week (the last eight).
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

import sklearn_din
from benchmarks import made_logs, quality, workloads
from sklearn_din.metrics import expected_calibration_error, group_roc_auc_score

# Of those that update takes: a third of the rates of fit.
RATES = {"updated": 1.0, "updated at the full rate": 3.0, "updated at a tenth": 0.3}
WAYS = ["never", *RATES, "fitted anew"]
MEASURES = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "ece": "calibration error"}
N_TRAINING_DAYS = 4
N_PERIODS = 8
N_MONTHS = 12
VALIDATION_FRACTION = 0.1


def turning(new_share, *, n_days=made_logs.DAYS, seed):
    """Return the workload whose parts are not hidden from each other, and each row's period."""
    workload = made_logs.turning(new_share=new_share, n_days=n_days, seed=seed, hide_unseen=False)
    rows = all_rows(workload)
    day = rows["time"] * n_days // (1 + rows["time"].max())
    return workload, rows, np.maximum(day - N_TRAINING_DAYS + 1, 0)


def movielens(*, seed):
    """Return the same of MovieLens: period 0 trains, periods 1 to 8 come after it."""
    workload = workloads.movielens(split="time", hide_unseen=False)
    rows = all_rows(workload)
    edges = np.quantile(rows["time"], np.linspace(0.6, 1, N_PERIODS + 1)[:-1])
    return workload, rows, np.searchsorted(edges, rows["time"], side="left")


def movielens_by_month(*, seed):
    """The same of MovieLens, where the last whole months are the periods."""
    workload = workloads.movielens(split="time", hide_unseen=False)
    rows = all_rows(workload)
    dates = pd.to_datetime(rows["time"], unit="s")
    month = dates.year * 12 + dates.month
    return workload, rows, np.maximum(month - month.max() + N_MONTHS, 0).to_numpy()


def eshop_by_week(*, seed):
    """The same of e-shop sessions, where the last weeks are the periods."""
    workload = workloads.eshop(split="time", seed=seed, hide_unseen=False)
    rows = all_rows(workload)
    week = (rows["time"] - rows["time"].max()) // 7  # the last one is 0
    return workload, rows, np.maximum(week + N_PERIODS, 0)


DATA_SETS = {
    "turning catalogue, 10 % a week": partial(turning, 0.1, n_days=N_TRAINING_DAYS + N_PERIODS),
    "turning catalogue, 20 %": partial(turning, 0.2),
    "turning catalogue, 60 %": partial(turning, 0.6),
    "MovieLens by time": movielens,
    "MovieLens by month": movielens_by_month,
    "e-shop by week": eshop_by_week,
}


def all_rows(workload):
    """The rows of all parts in the order of time."""
    parts = [workload[part] for part in workloads.PARTS]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = np.concatenate([np.diff(part["hist_offsets"]) for part in parts])
    joined["hist_offsets"] = np.append(0, np.cumsum(lengths))
    return workloads.take(joined, np.argsort(joined["time"], kind="stable"))


def frame_of(workload, rows, chosen):
    """The chosen rows as a frame, and their labels."""
    part = workloads.take(rows, chosen)
    return workloads.to_frame({**workload, "train": part}), part["label"]


def fit(workload, rows, chosen, seed):
    """The default way, stopped by its last rows."""
    X, y = frame_of(workload, rows, chosen)
    return quality.pipeline_of(
        workload,
        random_state=seed,
        validation="last",
        validation_fraction=VALIDATION_FRACTION,
    ).fit(X, y)


def run(data, way, seed, n_first_fits):
    """Score each period by one way; return a list of measures, one per period."""
    log = DATA_SETS[data](seed=seed)
    if way == "fitted anew":  # each period has a fit of its own
        return course(log, way, seed)
    courses = [course(log, way, seed + number) for number in range(n_first_fits)]
    by_period = zip(*courses, strict=True)
    return [{name: float(np.mean([p[name] for p in its])) for name in its[0]} for its in by_period]


def course(log, way, seed):
    """Measures per period of one first fit and what follows it."""
    workload, rows, period = log
    model = fit(workload, rows, period == 0, seed)
    if way in RATES:
        model.set_params(din__lr=model["din"].lr * RATES[way])
    found = []
    for now in range(1, 1 + period.max()):
        began = time.perf_counter()
        if now > 1 and way in RATES:
            model = sklearn_din.update(model, *frame_of(workload, rows, period == now - 1))
        elif now > 1 and way == "fitted anew":
            model = fit(workload, rows, period < now, seed)
        seconds = time.perf_counter() - began
        X, y = frame_of(workload, rows, period == now)
        probability = model.predict_proba(X)[:, 1]
        found.append(
            {
                "auc": roc_auc_score(y, probability),
                "log_loss": log_loss(y, np.clip(probability, 1e-7, 1 - 1e-7)),
                "ece": expected_calibration_error(y, probability),
                "gauc": group_roc_auc_score(y, probability, groups=X["group"]),
                "mean_label": float(y.mean()),
                "mean_probability": float(probability.mean()),
                "n_rows": len(y),
                "seconds": seconds,
            }
        )
    return found


def print_tables(results):
    """Print a summary and each measure by period after training, means over seeds."""
    for data, ways in results.items():
        _print_summary(data, ways)
        for measure, title in {**MEASURES, "seconds": "seconds of learning"}.items():
            rows = {
                way: np.mean([[p[measure] for p in found] for found in seeds.values()], axis=0)
                for way, seeds in ways.items()
            }
            table = pd.DataFrame.from_dict(rows, orient="index")
            print(f"\n### {data}: {title} by period after training\n")
            print(f"| | {' | '.join(str(c) for c in table)} |\n|---|{'---|' * table.shape[1]}")
            for way, line in table.iterrows():
                print(f"| {way} | {' | '.join(f'{value:.4f}' for value in line)} |")


def _print_summary(data, ways):
    """All periods but the first, before which nothing was updated; the last one; seconds each.

    A period counts by its rows.
    """
    print(f"\n### {data}\n")
    print("| | AUC, GAUC, log loss, calibration error | the last period | seconds a period |")
    print("|---|---|---|---|")
    for way, seeds in ways.items():
        periods = np.array(
            [[[p[name] for name in [*MEASURES, "seconds"]] for p in f] for f in seeds.values()]
        ).mean(axis=0)
        n_rows = [period["n_rows"] for period in next(iter(seeds.values()))]
        later, last = np.average(periods[1:], axis=0, weights=n_rows[1:]), periods[-1]
        shown = [", ".join(f"{value:.4f}" for value in its[:-1]) for its in (later, last)]
        print(f"| {way} | {shown[0]} | {shown[1]} | {later[-1]:.1f} |")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift")
    parser.add_argument("--cache", type=Path, default=Path("drift.json"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-fits", type=int, default=4, help="of never and of the updates")
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    for seed in range(0 if options.table else options.seeds):
        for data in (name for name in DATA_SETS if options.only in name):
            for way in options.ways:
                if str(seed) in results.get(data, {}).get(way, {}):
                    continue
                found = run(data, way, seed, options.first_fits)
                results.setdefault(data, {}).setdefault(way, {})[str(seed)] = found
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                shown = "  ".join(f"{p['log_loss']:.4f}, {p['ece']:.4f}" for p in found)
                print(f"{data} | {way} | {seed}: {shown}", flush=True)
    print_tables(results)


if __name__ == "__main__":
    main()
