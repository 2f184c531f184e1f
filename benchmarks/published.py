"""Two published tables, run whole: next items of S3-Rec's LastFM, clicks of KGCN's Last.FM.

``python -m benchmarks.published [--seeds 5] [--only next|clicks] [--attributes last|all]``. The
data are in ``published`` beside the real data (``SKLEARN_DIN_DATA``); their README.md has the
protocols.

Next items (Zhou et al., CIKM 2020): the last item of each of 1,090 users is ranked among 99
negatives that the authors drew. Training rows are the items before the last two, each with two
uniform negatives. Clicks (Wang et al., WWW 2019): rows of users and artists are split at random
6:2:2, with as many negatives as positives; histories are the user's other training positives.
``DINClassifier()`` has its defaults; figures of other models are those of the papers. Errors in
brackets are standard errors: of means over users, and, for the AUC, of means over splits.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks.tables import print_table
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from tests.real_data import real_data_folder

MEASURES = ["HR@1", "HR@5", "NDCG@5", "HR@10", "NDCG@10", "MRR"]
PAPER_NEXT = {  # S3-Rec, table 2
    "PopRec": (0.0725, 0.1982, 0.1350, 0.3037, 0.1687, 0.1506),
    "GRU4Rec": (0.0642, 0.1817, 0.1228, 0.2817, 0.1550, 0.1405),
    "HGN": (0.0908, 0.2872, 0.1896, 0.4193, 0.2324, 0.1983),
    "SASRec": (0.1211, 0.3385, 0.2330, 0.4706, 0.2755, 0.2364),
    "BERT4Rec": (0.1220, 0.3569, 0.2409, 0.4991, 0.2871, 0.2424),
    "S3-Rec": (0.1743, 0.4523, 0.3156, 0.5835, 0.3583, 0.3072),
}
PAPER_CLICKS = {"KGCN-sum": 0.794, "KGCN-concat": 0.796}
N_NEGATIVES, MAX_LENGTH, NEGATIVE_SEED = 2, 50, 555


def fit(X: pd.DataFrame, y: np.ndarray, seed: int):
    """Return the default on rows of users, and the CPU seconds that it took."""
    began = time.process_time()
    model = make_pipeline(HistorySequenceEncoder(user="user"), DINClassifier(random_state=seed))
    return model.fit(X, y), time.process_time() - began


# Next items -----------------------------------------------------------------------------------


def read_sequences(attributes: str):
    """Return each user's items in order, the negatives of each, and the items' attributes."""
    folder = real_data_folder() / "published"
    lines = (line.split() for line in (folder / "LastFM.txt").open())
    sequences = {int(user): [*map(int, items)] for user, *items in lines}
    lines = (line.split() for line in (folder / "LastFM_sample.txt").open())
    negatives = {int(user): [*map(int, items)] for user, *items in lines}
    kinds = json.loads((folder / "LastFM_item2attributes.json").read_text())
    of_items = {
        int(item): cell[-1] if attributes == "last" else cell for item, cell in kinds.items()
    }
    return sequences, negatives, of_items


def describe(rows: list[tuple], sequences: dict, of_items: dict) -> pd.DataFrame:
    """Return rows of (user, item, place in the user's sequence) with what came before the place."""
    X = pd.DataFrame(rows, columns=["user", "item", "place"])
    events = [
        (u, item, place) for u, items in sequences.items() for place, item in enumerate(items)
    ]
    log = pd.DataFrame(events, columns=["user", "item", "place"])
    for frame in (X, log):
        frame["attribute"] = frame["item"].map(of_items)
    names = {"user": "user", "time": "place", "columns": ["item", "attribute"]}
    return attach_history(X, log, **names, max_length=MAX_LENGTH).drop(columns="place")


def draw_training_rows(sequences: dict, seed: int) -> tuple[list[tuple], np.ndarray]:
    """Return (user, item, place) of clicks and of negatives that the user never had."""
    rng, all_items = np.random.default_rng(seed), np.unique(np.concatenate([*sequences.values()]))
    rows, y = [], []
    for user, items in sequences.items():
        unseen = np.setdiff1d(all_items, items)
        for place in range(1, len(items) - 2):
            drawn = rng.choice(unseen, N_NEGATIVES, replace=False).tolist()
            rows += [(user, item, place) for item in [items[place], *drawn]]
            y += [1] + [0] * N_NEGATIVES
    return rows, np.array(y)


def measures_of(scores: np.ndarray) -> np.ndarray:
    """Return the measures of each user, whose first score is that of the item; ties count half."""
    ranks = 1 + (scores[:, 1:] > scores[:, :1]).sum(1) + (scores[:, 1:] == scores[:, :1]).sum(1) / 2
    gains = 1 / np.log2(1 + ranks)
    columns = [ranks <= 1, ranks <= 5, gains * (ranks <= 5), ranks <= 10, gains * (ranks <= 10)]
    return np.column_stack([*columns, 1 / ranks])


def next_items(n_seeds: int, attributes: str) -> None:
    """Print the table of S3-Rec's LastFM with popularity and ours."""
    sequences, negatives, of_items = read_sequences(attributes)
    asked = [
        (user, item, len(items) - 1)
        for user, items in sequences.items()
        for item in [items[-1], *negatives[user]]
    ]
    test, shape = describe(asked, sequences, of_items), (len(sequences), -1)
    trained = pd.Series([i for items in sequences.values() for i in items[:-2]]).value_counts()
    popularity = test["item"].map(trained).fillna(0).to_numpy().reshape(shape)
    seeds, seconds = [], []
    for seed in range(n_seeds):
        rows, y = draw_training_rows(sequences, seed)
        model, spent = fit(describe(rows, sequences, of_items), y, seed)
        seconds.append(spent)
        seeds.append(measures_of(model.predict_proba(test)[:, 1].reshape(shape)))
        print(f"seed {seed}:", *seeds[-1].mean(0).round(4), f"({spent:.0f} CPU s)", flush=True)
    ours = np.mean(seeds, axis=0)
    errors = ours.std(0) / np.sqrt(len(ours))
    table = [[name, *(f"{value:.4f}" for value in values)] for name, values in PAPER_NEXT.items()]
    table.insert(1, ["popularity, ours", *(f"{v:.4f}" for v in measures_of(popularity).mean(0))])
    cells = [f"{mean:.4f} ({error:.4f})" for mean, error in zip(ours.mean(0), errors, strict=True)]
    table.append([f"DINClassifier() ({np.mean(seconds):.0f} CPU s; seeds: {n_seeds})", *cells])
    print_table(["S3-Rec's LastFM, 99 negatives", *MEASURES], table)


# Clicks -----------------------------------------------------------------------------------------


def read_artists() -> pd.DataFrame:
    """Return users and listed artists, each a positive, with as many artists that they have not."""
    folder = real_data_folder() / "published"
    listed = [int(line.split()[0]) for line in (folder / "item_index2entity_id.txt").open()]
    plays = pd.read_csv(folder / "user_artists.dat", sep="\t")
    plays = plays[plays["artistID"].isin(listed)]
    rng, rows = np.random.RandomState(NEGATIVE_SEED), []
    for user, items in plays.groupby("userID")["artistID"]:
        others = np.setdiff1d(listed, items)
        drawn = rng.choice(others, len(items), replace=False)
        rows += [(user, item, 1) for item in items] + [(user, item, 0) for item in drawn]
    return pd.DataFrame(rows, columns=["user", "item", "y"])


def attach_others(rows: pd.DataFrame, train: np.ndarray) -> pd.Series:
    """Return the user's training positives other than the row's own item."""
    positives = rows.iloc[train].query("y == 1").groupby("user")["item"].agg(list).to_dict()
    pairs = zip(rows["user"], rows["item"], strict=True)
    cells = [[i for i in positives.get(user, []) if i != item] for user, item in pairs]
    return pd.Series(cells, index=rows.index, dtype=object)


def cosines_of(rows: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return sums of cosines of the row's item and the items of its history, by their users."""
    clicks = rows.iloc[train].query("y == 1")
    users, items = pd.factorize(clicks["user"])[0], pd.Index(rows["item"].unique())
    matrix = np.zeros((users.max() + 1, len(items)), dtype=np.float32)
    matrix[users, items.get_indexer(clicks["item"])] = 1
    matrix /= np.maximum(np.sqrt(matrix.sum(0)), 1)
    cosine = matrix.T @ matrix
    asked = rows.iloc[test]
    pairs = zip(items.get_indexer(asked["item"]), asked["hist_item"], strict=True)
    return np.array([cosine[item, items.get_indexer(past)].sum() for item, past in pairs])


def clicks(n_seeds: int) -> None:
    """Print the table of KGCN's Last.FM with popularity, item cosine and ours."""
    rows, aucs = read_artists(), []
    for seed in range(n_seeds):
        order = np.random.RandomState(seed).permutation(len(rows))
        train, test = order[: len(rows) * 6 // 10], order[len(rows) * 8 // 10 :]
        X = rows.assign(hist_item=attach_others(rows, train))
        y = X["y"].to_numpy()
        model, spent = fit(X.iloc[train].drop(columns="y"), y[train], seed)
        counts = X.iloc[train].query("y == 1")["item"].value_counts()
        scores = (
            X["item"].iloc[test].map(counts).fillna(0),
            cosines_of(X, train, test),
            model.predict_proba(X.iloc[test].drop(columns="y"))[:, 1],
        )
        aucs.append([roc_auc_score(y[test], score) for score in scores])
        print(f"split {seed}:", *np.round(aucs[-1], 4), f"({spent:.0f} CPU s)", flush=True)
    means, errors = np.mean(aucs, 0), np.std(aucs, 0, ddof=min(1, n_seeds - 1)) / np.sqrt(n_seeds)
    names = ["popularity", "item cosine", "DINClassifier()"]
    table = [[name, f"{auc:.3f}"] for name, auc in PAPER_CLICKS.items()]
    table += [[n, f"{m:.4f} ({e:.4f})"] for n, m, e in zip(names, means, errors, strict=True)]
    print_table([f"KGCN's Last.FM, {n_seeds} splits", "AUC"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=["next", "clicks"])
    parser.add_argument("--attributes", choices=["last", "all"], default="last")
    given = parser.parse_args()
    if given.only != "clicks":
        next_items(given.seeds, given.attributes)
    if given.only != "next":
        clicks(given.seeds)
