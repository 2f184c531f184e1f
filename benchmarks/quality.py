"""How good the predictions are: our defaults, base models, other DINs, an analyst's features.

``python -m benchmarks.quality --cache results.json [--seeds 5] [--rival-seeds 1] [--only WORD]``
runs what the cache lacks (``make quality``) and prints the tables; ``--table`` only prints. Every
method gets the same training rows, and the same validation rows to stop by; the test rows are
scored once. The rivals run in the environment of RIVALS_PYTHON (``rivals-requirements.txt``).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import baselines, rivals, workloads
from sklearn_din import DINClassifier, EncodedFeatures, attach_aggregates, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.features import Behaviour, Field, Ragged, Schema
from sklearn_din.metrics import expected_calibration_error, group_roc_auc_score

CLICK_LOGS = {
    "few items, long, strong": {"n_items": 500, "n_categories": 20, "mean_length": 40, "s": 2.0},
    "few items, short, weak": {"n_items": 500, "n_categories": 20, "mean_length": 10, "s": 0.5},
    "many items, short, strong": {
        "n_items": 20_000,
        "n_categories": 500,
        "mean_length": 10,
        "s": 2.0,
    },
    "many items, long, weak": {"n_items": 20_000, "n_categories": 500, "mean_length": 40, "s": 0.5},
    "recent interest": {
        "n_items": 1000,
        "n_categories": 50,
        "mean_length": 30,
        "s": 2.0,
        "recency": 2.0,
    },
}
REAL = {
    "e-shop by session, uniform": "eshop",
    "e-shop by session, popularity": "eshop-popularity",
    "e-shop by time, uniform": "eshop-time",
    "e-shop by time, popularity": "eshop-time-popularity",
    "MovieLens by time": "movielens",
    "MovieLens by user": "movielens-user",
    "MovieLens by time, means": "movielens",
    "MovieLens by user, means": "movielens-user",
}
MADE = {"repetition tires": "tiring"}
DATA_SETS = [*REAL, *(f"click log: {name}" for name in CLICK_LOGS), *MADE]
OURS = {
    "DINClassifier()": {},
    "max_epochs tripled": {"max_epochs": 60},
    "interest='paper'": {"interest": "paper"},
    "sum": {"pooling": "sum", "interest": "paper"},
    "mean": {"pooling": "mean", "interest": "paper"},
    "sum, extended": {"pooling": "sum"},
    "mean, extended": {"pooling": "mean"},
}
VARIANTS = {  # one default changed: the paper's techniques, then neighbours; where --methods asks
    "Dice": {"activation": "dice", "attention_activation": "dice"},
    "no mini-batch aware L2": {"embedding_l2": 0.0},
    "embedding_l2=50": {"embedding_l2": 50.0},
    "embedding_l2=1000": {"embedding_l2": 1000.0},
    "softmax": {"attention_normalization": "softmax"},
    "weights not divided": {"attention_normalization": None},
    "embedding_dim=8": {"embedding_dim": 8},
    "lr=0.001": {"lr": 0.001},
    "embedding_lr=0.001": {"embedding_lr": 0.001},
    "batch_size=1024": {"batch_size": 1024},
    "patience=8": {"patience": 8},
    "dropout=0.3": {"dropout": 0.3},
}
ANALYST = {
    "LightGBM": baselines.lightgbm,
    "logistic regression": baselines.logistic_regression,
}
RIVALS = ["deepctr-torch", "torch-rechub"]
MEASURES = ["auc", "gauc", "log_loss", "ece"]


def data_set(name, seed):
    """Return a workload (``workloads.py``); a click log also holds its truth in the test part."""
    if name.startswith("click log: "):
        return _click_log(name.removeprefix("click log: "), seed)
    workload = workloads.by_name((REAL | MADE)[name], seed=seed)
    if name.endswith(", means"):
        _add_means(workload, workloads.movielens(split=_split(name), seed=seed, hide_unseen=False))
    return workload


def schema_of(workload):
    """Schema of a workload's arrays: attributes and numbers, one behaviour of all histories."""
    attributes = workload["attributes"]
    fields = [Field(a, "categorical", a, n) for a, n in attributes.items()]
    fields += [Field(name, "numeric") for name in workload["numeric"]]
    fields += [Field(f"hist_{a}", "history", a, n) for a, n in attributes.items()]
    histories = tuple(f"hist_{a}" for a in attributes)
    behaviour = Behaviour("+".join(histories), histories, tuple(attributes))
    return Schema(tuple(fields), (behaviour,), workload["max_length"])


def encode(workload, *parts):
    """Return the parts' rows, one after the other, as EncodedFeatures, and their labels."""
    schema, rows = schema_of(workload), [workload[part] for part in parts]
    (behaviour,) = schema.behaviours

    def joined(key):
        return np.concatenate([part[key] for part in rows])

    columns = {name: joined(name) for name in schema.names("categorical", "numeric")}
    lengths = np.concatenate([np.diff(part["hist_offsets"]) for part in rows])
    events = {name: joined(name) for name in behaviour.histories}
    ragged = Ragged.from_lengths(events, lengths)
    return EncodedFeatures(schema, columns, {behaviour.histories: ragged}), joined("label")


def fit_ours(workload, *, seed, **parameters):
    """Train on "train", stopping by "valid": the last rows of what ``fit`` is given."""
    X, y = encode(workload, "train", "valid")
    share = len(workload["valid"]["label"]) / len(y)
    classifier = DINClassifier(
        early_stopping=True,
        validation="last",
        validation_fraction=share,
        random_state=seed,
        **parameters,
    )
    return classifier.fit(X, y)


def measures(rows, probability):
    """Return AUC, GAUC, log loss and expected calibration error of one method on test rows."""
    label = rows["label"]
    return {
        "auc": roc_auc_score(label, probability),
        "gauc": group_roc_auc_score(label, probability, groups=rows["group"]),
        "log_loss": log_loss(label, np.clip(probability, 1e-7, 1 - 1e-7)),
        "ece": expected_calibration_error(label, probability),
    }


def run(name, method, seed, workload):
    """Fit one method on one data set; return what was measured."""
    began, more = time.perf_counter(), {}
    ours = OURS | VARIANTS
    if method in ours:
        classifier = fit_ours(workload, seed=seed, **ours[method])
        X, _ = encode(workload, "test")
        probability = classifier.predict_proba(X)[:, 1]
        more["epochs"] = classifier.n_iter_
        if method == "DINClassifier()" and "relevance" in workload["test"]:
            more["attention_auc"] = _attention_auc(classifier, X, workload["test"])
    elif method in ANALYST:
        probability = ANALYST[method](workload, seed=seed)
    elif method == "best possible":
        probability = workload["test"]["probability"]
    else:
        probability = _rival(method, workload, seed)
    seconds = time.perf_counter() - began
    return {**measures(workload["test"], probability), **more, "seconds": seconds}


def _never_reached(results, name, method, seed):
    """What the defaults found, where early stopping ended them before a limit that was raised."""
    found = results.get(name, {}).get("DINClassifier()", {}).get(str(seed), {})
    limit = DINClassifier().max_epochs
    if method == "max_epochs tripled" and found.get("epochs", limit) < limit:
        return {**found, "seconds": 0.0}
    return None


def _attention_auc(classifier, X, rows):
    weights = classifier.attention_weights(X)["weight"]
    return roc_auc_score(rows["relevance"] > 0.2, weights)


def _rival(name, workload, seed):
    with tempfile.TemporaryDirectory() as folder:
        path, scores = Path(folder) / "workload.npz", Path(folder) / "scores.npy"
        plain = {key: value for key, value in workload.items() if key not in workloads.PARTS}
        for part in workloads.PARTS:
            known = workload[part].items()
            plain[part] = {k: v for k, v in known if k not in ("relevance", "probability")}
        workloads.save(plain, path)
        rivals.run_child(name, "quality", npz=path, seed=seed, scores=scores)
        return np.load(scores)


def _split(name):
    return "user" if "user" in name else "time"


def _add_means(workload, unhidden):
    """Add each user's and movie's mean label and number of ratings so far, strictly before."""
    keys = ["group", "item", "time", "label"]
    frames = {p: pd.DataFrame({k: unhidden[p][k] for k in keys}) for p in workloads.PARTS}
    log = pd.concat(frames.values())
    aggregates = {
        "user_mean": ("group", "label", "mean"),
        "user_count": ("group", None, "count"),
        "item_mean": ("item", "label", "mean"),
        "item_count": ("item", None, "count"),
    }
    center = scale = None
    for part, frame in frames.items():
        numbers = attach_aggregates(frame, log, time="time", aggregates=aggregates)
        numbers = numbers[list(aggregates)]
        numbers[["user_count", "item_count"]] = np.log1p(numbers[["user_count", "item_count"]])
        if part == "train":
            center, scale = numbers.mean(), numbers.std()
        numbers = ((numbers - center) / scale).fillna(0.0).astype(np.float32)
        workload[part].update({name: numbers[name].to_numpy() for name in aggregates})
    workload["numeric"] = list(aggregates)


def _click_log(regime, seed):
    """The log as a workload: rows in the order of time, 80/10/10."""
    options = dict(CLICK_LOGS[regime])
    options["interest_strength"] = options.pop("s")
    log = make_click_log(n_users=2500, random_state=seed, **options)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    lengths = X["hist_item"].map(len).to_numpy()
    rows = {
        "label": log.y.astype(np.float32),
        "group": X["user"].to_numpy(),
        "time": X["time"].astype("int64").to_numpy(),
        "item": X["item"].to_numpy(np.int32) + 2,
        "category": X["category"].to_numpy(np.int32) + 2,
        "hist_item": np.concatenate(X["hist_item"].tolist()).astype(np.int32) + 2,
        "hist_category": np.concatenate(X["hist_category"].tolist()).astype(np.int32) + 2,
        "hist_offsets": np.append(0, np.cumsum(lengths)),
        "price": ((np.log(X["price"]) - 3.0) / 0.6).to_numpy(np.float32),
        "desktop": (X["device"] == "desktop").to_numpy(np.float32),
        "tablet": (X["device"] == "tablet").to_numpy(np.float32),
        "probability": log.probability,
    }
    part = np.searchsorted([0.8, 0.9], np.arange(len(log.y)) / len(log.y), side="right")
    workload = {
        "name": f"click log: {regime}",
        "attributes": {"item": options["n_items"] + 2, "category": options["n_categories"] + 2},
        "numeric": ["price", "desktop", "tablet"],
        "max_length": 50,
    }
    for code, label in enumerate(workloads.PARTS):
        workload[label] = workloads.take(rows, part == code)
    # The events' relevance lies flat like the histories: cut where the parts' rows end.
    workload["test"]["relevance"] = log.relevance[log.offsets[(part < 2).sum()] :]
    workloads._hide_unseen(workload)
    return workload


def summary(results):
    """Mean and standard error over seeds by data set and method, as one long DataFrame."""
    records = [
        {"data": data, "method": method, "seed": int(seed), **found}
        for data, methods in results.items()
        for method, seeds in methods.items()
        for seed, found in seeds.items()
    ]
    table = pd.DataFrame(records)
    kept = [c for c in [*MEASURES, "attention_auc", "seconds"] if c in table]
    return table.groupby(["data", "method"], sort=False)[kept].agg(["mean", "sem", "count"])


def print_tables(results):
    """Print one table a measure, mean ranks by GAUC, and how the defaults stand to the others."""
    table = summary(results)
    order = [name for name in DATA_SETS if name in results]
    methods = [*OURS, *VARIANTS, *RIVALS, *ANALYST, "best possible"]
    for measure in MEASURES:
        mean, sem = (table[measure][what].unstack("method") for what in ("mean", "sem"))
        cells = mean.map("{:.4f}".format) + " ± " + sem.map("{:.4f}".format)
        columns = [m for m in methods if m in cells]
        print(f"\n### {measure}\n\n{_markdown(cells.loc[order, columns])}")
    for seeds, ranks in mean_ranks(results).items():
        print(f"\n### mean rank by GAUC, {seeds}\n")
        print(_markdown(ranks.map("{:.2f}".format).to_frame("rank")))
    print("\n### GAUC of DINClassifier() minus the method's, by seed\n")
    others = [m for m in methods[1:] if m in table.index.get_level_values("method")]
    print(_markdown(_differences(results, order, others)))
    if "attention_auc" in table:
        print("\n### attention against true relevance: AUC of each seed\n\n" + _attention(results))


def mean_ranks(results):
    """Mean ranks over data sets, each method by the same seeds; variants and the ceiling left out.

    Once for each number of seeds: the methods that ran at least as many on every data set.
    """
    left_out = {"best possible", "max_epochs tripled", *VARIANTS}
    methods = {m for found in results.values() for m in found} - left_out
    fewest = {m: min(len(found.get(m, {})) for found in results.values()) for m in methods}
    ranks = {}
    for least in sorted({fewest[m] for m in methods if fewest[m]}, reverse=True):
        chosen = sorted(m for m in methods if fewest[m] >= least)
        gauc = {data: _common_mean(found, chosen) for data, found in results.items()}
        table = pd.DataFrame(gauc).T.rank(axis=1, ascending=False)
        ranks[f"{least} seeds"] = table.mean().sort_values()
    return ranks


def _common_mean(found, methods):
    """Mean GAUC of each method over the seeds that all of them ran."""
    seeds = set.intersection(*(set(found[m]) for m in methods))
    return {m: np.mean([found[m][seed]["gauc"] for seed in seeds]) for m in methods}


def _differences(results, order, methods):
    """Mean and standard error of the paired differences, and how many seeds are above."""
    cells = pd.DataFrame("", index=order, columns=methods)
    for name in order:
        ours = results[name].get("DINClassifier()", {})
        for method in methods:
            theirs = results[name].get(method, {})
            gaps = np.array([ours[s]["gauc"] - theirs[s]["gauc"] for s in ours if s in theirs])
            if len(gaps):
                error = gaps.std(ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else np.nan
                above = f"{(gaps > 0).sum()}/{len(gaps)}"
                cells.loc[name, method] = f"{gaps.mean():+.4f} ± {error:.4f} ({above})"
    return cells


def _attention(results):
    """Attention AUC by seed, and the share of the way from the sum to the ceiling."""
    rows = {}
    for name, methods in results.items():
        seeds = methods.get("DINClassifier()", {})
        if not name.startswith("click log") or not seeds:
            continue
        by_seed = [found["attention_auc"] for found in seeds.values()]
        mean = {m: np.mean([f["auc"] for f in found.values()]) for m, found in methods.items()}
        base, best = mean.get("sum", np.nan), mean.get("best possible", np.nan)
        share = (mean["DINClassifier()"] - base) / (best - base)
        rows[name] = [" ".join(f"{value:.4f}" for value in by_seed), f"{share:.0%}"]
    columns = ["AUC by seed", "share of the way from sum pooling to the ceiling"]
    return _markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def _markdown(frame):
    head = ["", *map(str, frame.columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        f"| {name} | " + " | ".join(map(_cell, row)) + " |" for name, *row in frame.itertuples()
    ]
    return "\n".join(lines)


def _cell(text):
    """A cell: empty where nothing was run, without an error where one seed was."""
    return "" if text.startswith("nan") else text.replace(" ± nan", "")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality")
    parser.add_argument("--cache", type=Path, default=Path("quality.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival-seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    if not options.table:
        _fill(results, options)
    print_tables(results)


def _fill(results, options):
    wanted = options.methods or [*OURS, *ANALYST, "best possible", *RIVALS]
    for seed in range(max(options.seeds, options.rival_seeds)):
        for name in (name for name in DATA_SETS if options.only in name):
            missing = [m for m in wanted if str(seed) not in results.get(name, {}).get(m, {})]
            limit = {m: options.rival_seeds if m in RIVALS else options.seeds for m in missing}
            missing = [m for m in missing if seed < limit[m]]
            if name in REAL:
                missing = [m for m in missing if m != "best possible"]
            workload = data_set(name, seed) if missing else None
            for method in missing:
                found = _never_reached(results, name, method, seed)
                found = found or run(name, method, seed, workload)
                results.setdefault(name, {}).setdefault(method, {})[str(seed)] = found
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                shown = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
                print(f"{name} | {method} | {seed}: {shown}", flush=True)


if __name__ == "__main__":
    main()
