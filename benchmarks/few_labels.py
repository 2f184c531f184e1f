"""Small logs: the default fit, LightGBM with rates of labels, and the base rate alone.

``python -m benchmarks.few_labels [--rows 500 2000 8000] [--only WORD] [--windows 5]`` fits on so
many rows before some moments of each log and predicts the next 3,000: log loss and AUC, means over
the windows, and how many fits found nothing to learn.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.market_log import make_market_log
from benchmarks.tables import print_frame
from benchmarks.verdicts import lightgbm
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from tests.real_data import real_data_folder

RATINGS = {"MovieLens, rating 1 or less": -1, "MovieLens, rating 5": 5, "MovieLens, 4 or more": 4}
MARKETS = {"market, 2 %": 0.02, "market, 10 %": 0.1}
SETS = ["movies", "videos", *MARKETS, *RATINGS]
N_TEST = 3_000
FIRST_END = 0.45  # fraction of the log before the first window's end


def rows_of(name):
    """Return all rows of a log in the order of time, and their labels."""
    if name in MARKETS:
        log = make_market_log(random_state=0, n_impressions=55_000, base_rate=MARKETS[name])
        events = log.events.assign(action=log.events["action"].factorize(sort=True)[0])
        columns = ["item", "category", "action"]
        X = attach_history(log.impressions, events, user="user", time="time", columns=columns)
        X, y = X.assign(time=X["time"].astype("int64") // 10**9), np.asarray(log.y)
    elif name in RATINGS:
        folder = real_data_folder() / "ml-latest-small"
        rated = pd.read_csv(folder / "ratings.csv.gz").sort_values("timestamp", kind="stable")
        genres = pd.read_csv(folder / "movies.csv.gz").set_index("movieId")["genres"]
        genre = rated["movieId"].map(genres.str.split("|").str[0]).fillna("none")
        X = pd.DataFrame({"user": rated["userId"], "item": rated["movieId"], "category": genre})
        X = X.assign(time=rated["timestamp"])
        columns, least = ["item", "category"], RATINGS[name]
        y = (rated["rating"] >= least if least > 0 else rated["rating"] <= 1).to_numpy()
        events = X[(rated["rating"] >= 4).to_numpy()]
        X = attach_history(X, events, user="user", time="time", columns=columns)
    else:
        X = pd.read_parquet(real_data_folder() / f"{name}.parquet").drop(columns="part")
        y = X.pop("label").to_numpy()
    order = np.argsort(X["time"].to_numpy(), kind="stable")
    return X.iloc[order].reset_index(drop=True), y[order].astype(int)


def measure(X, y, n_rows, n_windows):
    """Yield the measures of each window of so many rows."""
    for end in np.linspace(max(n_rows, FIRST_END * len(y)), len(y) - N_TEST, n_windows).astype(int):
        train, test = slice(end - n_rows, end), slice(end, end + N_TEST)
        A, B = (X[part].reset_index(drop=True) for part in (train, test))
        if y[train].sum() < 3:
            continue
        encoder = HistorySequenceEncoder(user="user", time="time")
        classifier = DINClassifier(random_state=0).fit(encoder.fit_transform(A), y[train])
        rates = {"time": "time"}
        predicted = {
            "base rate": np.full(N_TEST, y[train].mean()),
            "DIN": classifier.predict_proba(encoder.transform(B))[:, 1],
            "LightGBM": lightgbm(A, y[train], B, B, user="user", seed=0, parameters=rates)[0],
        }
        row = {"rarer": min(y[train].sum(), n_rows - y[train].sum())}
        row |= {f"{n}, log loss": log_loss(y[test], p) for n, p in predicted.items()}
        row |= {f"{n}, AUC": roc_auc_score(y[test], p) for n, p in predicted.items()}
        yield row


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_labels")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2_000, 8_000])
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--windows", type=int, default=5)
    options, table = parser.parse_args(), {}
    warnings.simplefilter("ignore")
    for name in (name for name in SETS if options.only in name):
        X, y = rows_of(name)
        for n_rows in options.rows:
            means = pd.DataFrame(measure(X, y, n_rows, options.windows)).mean().round(4)
            table[f"{name}, {n_rows:,} rows"] = means.drop("base rate, AUC")
            print(f"{name}, {n_rows:,} rows: {means.to_dict()}", flush=True)
    print_frame(pd.DataFrame(table).T.astype(str), "Means over windows")


if __name__ == "__main__":
    main()
