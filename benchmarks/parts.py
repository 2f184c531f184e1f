"""What each part is worth: base model, published DIN, and the default with parts left out.

``python -m benchmarks.parts [--seeds 5] [--only WORD] [--results FILE]`` fits each variant with
each seed on the data sets of ``benchmarks.default_fit`` and on two more splits of the real logs. Of
the test rows it prints GAUC, log loss, the log loss after each user got the best constant
(``within``: which rows of a user are clicked) and the AUC of each user's mean log-odds
(``between``: which users click more), each with the difference from the default and its standard
error. The seed draws the made logs, the weights and the order of the rows; all variants of one seed
get the same rows. FILE keeps each measurement as it is made, and a second run continues from it.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.default_fit import SETS as SETS_OF_DEFAULT_FIT
from benchmarks.default_fit import frames_of
from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.command_line.study import PARTS
from sklearn_din.metrics import group_roc_auc_score

SETS = [*SETS_OF_DEFAULT_FIT, "e-shop by session, uniform", "MovieLens by user"]
DEFAULT = "DIN"
VARIANTS = {**PARTS, "DIN without neighbours": {"neighbours": None}}
MEASURES = "gauc", "loss", "within", "between"
PRECISION, N_STEPS = 0.5, 30  # of the prior of a user's constant, of Newton's method


def measure(name, seed):
    """Return a record of measures for each variant on a data set."""
    X, y, rows, labels, users, parameters = frames_of(name, seed)
    encoder = HistorySequenceEncoder(**parameters)
    encoded, test = encoder.fit_transform(X), encoder.transform(rows)
    has_pairs = not users.is_unique  # otherwise no user has both a click and none
    records = []
    for variant, options in VARIANTS.items():
        began = time.process_time()
        classifier = DINClassifier(random_state=seed, **options).fit(encoded, y)
        seconds = time.process_time() - began
        p = classifier.predict_proba(test)[:, 1]
        measured = {"auc": roc_auc_score(labels, p), "loss": log_loss(labels, p)}
        measured["gauc"] = group_roc_auc_score(labels, p, groups=users) if has_pairs else np.nan
        measured |= split_by_user(labels, np.log(p) - np.log1p(-p), users)
        records.append(
            {"set": name, "seed": seed, "variant": variant, **measured, "seconds": seconds}
        )
    return records


def split_by_user(labels, logits, users):
    """Return the log loss with the best constant of each user, and the AUC of the users' means."""
    code, n_users = pd.factorize(users)[0], users.nunique()
    constants = np.zeros(n_users)
    for _ in range(N_STEPS):
        p = 1 / (1 + np.exp(-logits - constants[code]))
        slopes = np.bincount(code, labels - p, n_users) - PRECISION * constants
        constants += slopes / (np.bincount(code, p * (1 - p), n_users) + PRECISION)
    means = np.bincount(code, logits) / np.bincount(code)
    p = 1 / (1 + np.exp(-logits - constants[code]))
    return {"within": log_loss(labels, p), "between": roc_auc_score(labels, means[code])}


def summarize(results):
    """Return the mean of each measure by data set and variant, and the difference from the default.

    results : frame with a row for each data set, seed and variant
    """
    rows = []
    for name, of_set in results.groupby("set", sort=False):
        row = {"set": name, "seeds": str(of_set["seed"].nunique())}
        for measure_of in MEASURES:
            wide = of_set.pivot(index="seed", columns="variant", values=measure_of)
            for variant in VARIANTS:
                behind = wide[variant] - wide[DEFAULT]
                text = f"{wide[variant].mean():.4f}" if wide[variant].notna().any() else ""
                if variant != DEFAULT and text and len(behind) > 1:
                    text += f" ({behind.mean():+.4f} ± {behind.std() / np.sqrt(len(behind)):.4f})"
                row[f"{measure_of}, {variant}"] = text
        rows.append(row)
    return pd.DataFrame(rows).set_index("set")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="data sets whose name contains this word")
    parser.add_argument(
        "--results", type=Path, help="file of measurements, one JSON object per line"
    )
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    records = []
    if options.results is not None and options.results.exists():
        records = [json.loads(line) for line in options.results.read_text().splitlines()]
    done = {(record["set"], record["seed"]) for record in records}
    names = [name for name in SETS if options.only in name]
    for seed in range(options.seeds):
        for name in names:
            if (name, seed) in done:
                continue
            records += (own := measure(name, seed))
            print(pd.DataFrame(own).round(4).to_string(index=False, header=False), flush=True)
            if options.results is not None:
                with options.results.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in own)
    results = pd.DataFrame(records)
    results = results[results["set"].isin(names)]
    results = results.sort_values(
        "set", key=lambda names_of: names_of.map(SETS.index), kind="stable"
    )
    table = summarize(results)
    for measure_of in MEASURES:
        print_frame(table.filter(regex=f"seeds|^{measure_of}"), f"Worth of the parts: {measure_of}")


if __name__ == "__main__":
    main()
