"""What it gives to compare numbers of events with the impression's, such as prices.

``python -m benchmarks.compared_numbers [--seeds 5] [--only WORD] [--ways WAY ...]`` fits the
default way without the events' numbers, with them as numbers of the events alone ("not compared"),
compared, and compared as ids (rounded); and prints log loss, AUC, GAUC and CPU seconds of one
thread, means over seeds, and differences of log loss to "not compared" with standard errors of
pairs.

In the made logs a user's past prices tell the next one: two levels of price for each of four groups
of items, near which the user buys; in "cheaper" a price counts that lies below those that were
paid. Of the real ones, the years of films, the seconds of videos and the prices of clothes follow
from the item.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.tables import print_changes, print_means
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, sample_negatives
from sklearn_din.metrics import group_roc_auc_score
from tests.real_data import real_data_folder

WAYS = ["no numbers", "not compared", "compared", "as ids"]
N_GROUPS, N_LEVELS, WIDTH = 4, 2, 0.25  # of kinds of items, of prices, and their spread
AT = {"user": "user", "time": "time"}


def prices(*, is_near=True, n_users=2_000, n_items=2_000, n_shown=12, seed=0):
    """Return impressions, labels, the number's name, the true probability: users apart.

    Log-odds are -2 + 6 s + quality of the item (deviation .5), s the fraction of the past events of
    the candidate's group of kinds whose log price is near (``exp(-(d / .25)^2)``), or larger.
    """
    rng = np.random.RandomState(seed)
    kind, quality = rng.randint(20, size=n_items), rng.normal(0, 0.5, size=n_items)
    level = rng.normal(size=(n_users, N_GROUPS, N_LEVELS))
    lengths = 5 + rng.poisson(15, size=n_users)
    user = np.repeat(np.arange(n_users), lengths)
    item = rng.randint(n_items, size=len(user))
    at = level[user, kind[item] % N_GROUPS, rng.randint(N_LEVELS, size=len(user))]
    when = np.concatenate([np.sort(rng.random_sample(n)) for n in lengths])
    paid = 3 + at + rng.normal(0, WIDTH / 2, size=len(user))
    events = {"user": user, "item": item, "kind": kind[item], "price": paid, "time": when}
    shown = rng.randint(n_items, size=n_users * n_shown)
    X = pd.DataFrame({"user": np.repeat(np.arange(n_users), n_shown), "item": shown})
    X = X.assign(kind=kind[shown], price=3 + rng.normal(size=len(X)))
    X["time"] = 0.5 + 0.5 * rng.random_sample(len(X))
    X = X.sort_values("time", kind="stable", ignore_index=True)
    X = attach_history(X, pd.DataFrame(events), columns=["item", "kind", "price"], **AT)
    row = np.repeat(np.arange(len(X)), X["hist_price"].map(len))
    past = {name: np.concatenate(X[f"hist_{name}"].tolist()) for name in ("kind", "price")}
    is_same = past["kind"] % N_GROUPS == X["kind"].to_numpy()[row] % N_GROUPS
    more = past["price"] - X["price"].to_numpy()[row]
    counts = np.exp(-np.square(more / WIDTH)) if is_near else more > 0
    n_same = np.bincount(row, is_same, minlength=len(X))
    share = np.bincount(row, is_same * counts, minlength=len(X)) / (1 + n_same)
    probability = expit(-2 + 6 * share + quality[X["item"].to_numpy()])
    y = (rng.random_sample(len(X)) < probability).astype(int)
    return X, y, "price", X["user"].to_numpy() % 5 == seed % 5, {"user": "user", "drop": ["time"]}


def _of_items(X, name):
    """Attach a number that follows from the item to the events."""
    of_item = X.drop_duplicates("item").set_index("item")[name].astype(float)
    return X.assign(**{f"hist_{name}": [of_item.reindex(c).to_numpy() for c in X["hist_item"]]})


def parquet(name, number, seed):
    """Return verdicts or videos, whose last rows by time are tested."""
    X = pd.read_parquet(real_data_folder() / f"{name}.parquet")
    y, is_test = X.pop("label").to_numpy().astype(int), X.pop("part").to_numpy() == "test"
    X = _of_items(X.drop(columns=["genres", "hist_rating"], errors="ignore"), number)
    return X.astype({number: float}), y, number, is_test, AT


def movielens(seed):
    """Return ratings of four or more, by time, with the years of the films."""
    folder = real_data_folder() / "ml-latest-small"
    rated = pd.read_csv(folder / "ratings.csv.gz").sort_values("timestamp", kind="stable")
    films = pd.read_csv(folder / "movies.csv.gz").set_index("movieId")
    year = films["title"].str.extract(r"\((\d{4})\)\s*$")[0].astype(float)
    X = pd.DataFrame(
        {"user": rated["userId"], "item": rated["movieId"], "time": rated["timestamp"]}
    )
    X = X.assign(genre=X["item"].map(films["genres"].str.split("|").str[0]))
    X, y = X.assign(year=X["item"].map(year)).reset_index(drop=True), rated["rating"] >= 4
    y = y.to_numpy().astype(int)
    X = attach_history(X, X[y == 1], columns=["item", "genre", "year"], **AT)
    return X, y, "year", np.arange(len(X)) >= 0.9 * len(X), AT


def clothes(seed, n_sessions=5_000):
    """Return clicks of a shop against one product that the session never saw, by session."""
    clicks = pd.read_csv(real_data_folder() / "eshop-clicks" / "clicks.csv.gz")
    chosen = np.random.RandomState(seed).permutation(clicks["session"].unique())[:n_sessions]
    clicks = clicks[clicks["session"].isin(chosen)].rename(columns={"order": "time"})
    clicks = clicks.rename(columns={"session": "user"}).astype({"price": float})
    columns = ["item", "category", "colour", "price"]
    options = {"item_columns": columns[1:], "n_negatives": 1, "random_state": seed}
    X, y = sample_negatives(clicks, item="item", user="user", **options)
    X = X[["user", "time", *columns]]
    X = attach_history(X, clicks, columns=columns, **AT)
    is_test = X["user"].isin(chosen[: n_sessions // 5]).to_numpy()
    return X, y, "price", is_test, {"user": "user", "drop": ["time"]}


SETS = {
    "prices": lambda seed: prices(seed=seed),
    "prices, cheaper": lambda seed: prices(is_near=False, seed=seed),
    "e-shop by session": clothes,
    "movies": lambda seed: parquet("movies", "year", seed),
    "videos": lambda seed: parquet("videos", "seconds", seed),
    "MovieLens by time": movielens,
}


def encoder_of(way, X, number, options):
    """Return the encoder of a way, and the columns that it leaves out."""
    names = [name for name in X if name.startswith("hist_")]
    candidates = [name.removeprefix("hist_") for name in names]
    if way == "not compared":
        candidates = [None if name == number else name for name in candidates]
    histories = {tuple(names): tuple(candidates)}
    more = {"categorical": [number]} if way == "as ids" else {"numeric": [number]}
    if way == "not compared":
        more = {}
    return HistorySequenceEncoder(histories=histories, **more, **options)


def frames_of(way, X, number):
    """Return the impressions as a way takes them."""
    if way == "no numbers":
        return X.drop(columns=f"hist_{number}")
    if way == "as ids":  # tenths of prices, decades
        spread = X[number].std() / 10
        cells = [np.round(np.asarray(cell, dtype=float) / spread) for cell in X[f"hist_{number}"]]
        return X.assign(**{number: (X[number] / spread).round(), f"hist_{number}": cells})
    return X


def measure(name, seed, ways):
    """Yield measures by way on one set."""
    whole, y, number, is_test, options = SETS[name](seed)
    for way in ways:
        X = frames_of(way, whole, number)
        rows = [X[part].reset_index(drop=True) for part in (~is_test, is_test)]
        began = time.process_time()
        encoder = encoder_of(way, X, number, options)
        classifier = DINClassifier(random_state=seed).fit(
            encoder.fit_transform(rows[0]), y[~is_test]
        )
        p = classifier.predict_proba(encoder.transform(rows[1]))[:, 1]
        yield {
            "set": name,
            "seed": seed,
            "way": way,
            "loss": log_loss(y[is_test], p),
            "auc": roc_auc_score(y[is_test], p),
            "gauc": group_roc_auc_score(y[is_test], p, groups=rows[1]["user"]),
            "cpu_seconds": time.process_time() - began,
        }


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compared_numbers")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="sets whose name has this word")
    parser.add_argument("--ways", nargs="*", default=WAYS)
    options, results = parser.parse_args(), []
    for name in [name for name in SETS if options.only in name]:
        for seed in range(options.seeds):
            for measured in measure(name, seed, options.ways):
                results.append(measured)
                print(measured, flush=True)
    losses = print_means(results)
    gained = losses.sub(losses["not compared"], axis=0)
    print_changes(gained, "Log loss above that without comparison")


if __name__ == "__main__":
    main()
