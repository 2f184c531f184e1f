"""Tomorrow's events and rare clicks: every fit against knowing nothing, and against the truth.

``python -m benchmarks.tomorrow [--seeds 3] [--only WORD] [--methods ...]`` fits
each method on logs whose test rows come later, many of them of items that training has never seen.
It prints a line per fit and a table per log: AUC, GAUC, log loss, the same over that of the base
rate (above 1 is worse than knowing nothing), and the predicted mean over the true one, of all test
rows and of those whose item is new. Markets (``make_market_log``) have clicks of every rate;
turning catalogues (``made_logs.py``) have many. "expected" is
the log loss under the true probabilities over that of the base rate, "true_auc" the AUC by them.

LightGBM gets counts and shares of the history (``baselines.py``) and, point in time, how often the
item, the category and the user had been shown; "with rates" also how often they had been clicked.
"""

import argparse
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import baselines, made_logs, quality, workloads
from benchmarks.market_log import make_market_log
from benchmarks.tables import print_frame
from sklearn_din import attach_aggregates, attach_history
from sklearn_din.metrics import correct_for_sampling

N_ROWS, RATES = 55_000, [0.5, 0.1, 0.02, 0.005]
KEPT = 0.1  # share of the rows that are not clicked, where they are sampled down
OURS = {
    "DINClassifier()": {},
    "validation='random'": {"validation": "random"},
    "interest='paper'": {"interest": "paper", "neighbours": None},
}


def market(*, seed, n_impressions=N_ROWS, **options):
    """Return a market log as a workload: of twelve days the last tenth is to stop by, two test."""
    log = make_market_log(random_state=seed, n_impressions=n_impressions, **options)
    columns = ["item", "category", "action"]
    events = log.events.assign(action=log.events["action"].factorize(sort=True)[0])
    X = attach_history(log.impressions, events, user="user", time="time", columns=columns)
    rows = workloads.rows_of(X, log.y, log.probability, columns)
    rows["time"] = rows["time"] // 10**9
    n_train = (~log.is_test).sum()
    part = np.searchsorted([0.9 * n_train, n_train], np.arange(len(X)), side="right")
    return workloads._workload(
        "market", rows, part, columns[:2], 50, False, split="time", alone=columns[2:]
    )


LOGS = {
    **{f"market, {rate:.1%} ones": partial(market, base_rate=rate) for rate in RATES},
    "market, 20,000 users": partial(market, n_users=20_000),
    "market, moods": partial(market, mood=1.5),
    "turning catalogue, 20 %": partial(made_logs.turning, new_share=0.2, hide_unseen=False),
    "turning catalogue, 60 %": partial(made_logs.turning, new_share=0.6, hide_unseen=False),
    "answers": made_logs.answers,
}


def lightgbm(workload, *, seed, with_rates):
    """Click probabilities of the test rows: boosted trees on what was known at each moment."""
    attributes = list(workload["attributes"])
    keys = [*attributes, "group"]
    statistics = {f"{key}_shown": (key, None, "count") for key in keys}
    if with_rates:
        statistics |= {f"{key}_clicks": (key, "label", "sum") for key in keys}
        statistics |= {f"{key}_rate": (key, "label", "mean") for key in keys}
    everything = workloads.all_rows(workload)
    log = pd.DataFrame({name: everything[name] for name in [*keys, "time", "label"]})
    tables = {}
    for part in workloads.PARTS:
        rows = workload[part]
        shown = pd.DataFrame({name: rows[name] for name in [*keys, "time"]})
        known = attach_aggregates(shown, log, time="time", aggregates=statistics)[[*statistics]]
        columns = baselines._of_history(rows, attributes)
        columns |= baselines._of_events_alone(rows, attributes, workload["events_alone"])
        columns |= {name: known[name] for name in statistics}
        tables[part] = np.column_stack(list(columns.values())).astype(np.float32)
    return baselines.boosted_trees(tables, workload, seed=seed)


def ours(workload, *, seed, **parameters):
    """Click probabilities of the test rows by the default way."""
    pipeline = quality.fit_ours(workload, seed=seed, **parameters)
    return pipeline.predict_proba(quality.frame_of(workload, "test")[0])[:, 1]


def ours_of_fewer(workload, *, seed):
    """Click probabilities by the default way, learnt from all clicks and a tenth of other rows."""
    random, fewer = np.random.RandomState(seed), dict(workload)
    for part in ("train", "valid"):
        label = workload[part]["label"]
        is_kept = (label == 1) | (random.random_sample(len(label)) < KEPT)
        fewer[part] = workloads.take(workload[part], is_kept)
    return correct_for_sampling(ours(fewer, seed=seed), sampling_rate=KEPT)


METHODS = {
    "the truth": lambda workload, seed: workload["test"]["probability"],
    "LightGBM": partial(lightgbm, with_rates=False),
    "LightGBM with rates": partial(lightgbm, with_rates=True),
    **{name: partial(ours, **parameters) for name, parameters in OURS.items()},
    "a tenth of the negatives": ours_of_fewer,
}


def measures(workload, probability):
    """Return what the table shows of one method on the test rows."""
    test, before = workload["test"], [workload["train"], workload["valid"]]
    label = test["label"]
    base = np.full(len(label), np.concatenate([rows["label"] for rows in before]).mean())
    seen = [rows[name] for rows in before for name in ("item", "hist_item")]
    is_new = ~np.isin(test["item"], np.concatenate(seen))
    result = quality.measures(test, probability)
    result["over_base"] = result["log_loss"] / log_loss(label, base)
    truth = np.concatenate([test["probability"], 1 - test["probability"]])
    clicked, twice = np.repeat([1, 0], len(label)), np.tile(probability, 2)
    losses = [log_loss(clicked, np.tile(p, 2), sample_weight=truth) for p in (probability, base)]
    result["expected"] = losses[0] / losses[1]
    result["true_auc"] = roc_auc_score(clicked, twice, sample_weight=truth)
    for name, chosen in {"mean": np.full(len(label), True), "mean_new": is_new}.items():
        result[name] = probability[chosen].mean() / label[chosen].mean() if chosen.any() else np.nan
    return result


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tomorrow")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a log's name")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    for name, make in LOGS.items():
        if options.only not in name:
            continue
        results = []
        for seed in range(options.seeds):
            workload = make(seed=seed)
            for method in options.methods:
                row = measures(workload, METHODS[method](workload, seed=seed))
                results.append({"method": method} | row)
                shown = "  ".join(f"{key} {value:.4f}" for key, value in row.items())
                print(f"{name} | {method} | {seed}: {shown}", flush=True)
        means = pd.DataFrame(results).groupby("method", sort=False).mean()
        print_frame(means.map("{:.4f}".format), name)


if __name__ == "__main__":
    main()
