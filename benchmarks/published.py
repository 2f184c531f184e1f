"""A published protocol: ten films for each user of MovieLens-100k, beside the published figures.

``python -m benchmarks.published [--data FOLDER] [--cache published.json] [--seeds 1]`` runs what
the cache lacks and prints one table; ``--table`` only prints, ``--methods`` picks.

The protocol is that of the comparison of algorithms in the README and the benchmark notebook of
github.com/recommenders-team/recommenders: of each user's ratings 75 % train and 25 % test, drawn
at random; every rating is an interaction, whatever its stars; all films that the user has not
rated in training are ranked, and the best ten are judged: MAP, NDCG, precision, recall.

Ours is the default way: the user's other training films, oldest to newest, are the history of a
training film; beside it stand four films that the user has not rated in training, drawn uniformly,
with the same history. A user has 80 training films on average, the most active ones have hundreds:
``max_length`` decides how many of them the DIN is told of. EASE, item-kNN and popularity, which see
all of them where nothing else is said, show on the same split that the protocol is the same. FOLDER
holds ``ml-100k.inter`` and ``ml-100k.item`` as RecBole's wheel has them (``pip download --no-deps
recbole``, then unzip; ``recbole/dataset_example/ml-100k``). MovieLens must not be passed on: leave
it outside the repository.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse
from sklearn.pipeline import Pipeline

from benchmarks import neighbours
from sklearn_din import DINClassifier, HistorySequenceEncoder, rank_candidates

PUBLISHED = {  # README of recommenders-team/recommenders: MAP, NDCG@10, precision@10, recall@10
    "BiVAE": (0.146126, 0.475077, 0.411771, 0.219145),
    "BPR": (0.132478, 0.441997, 0.388229, 0.212522),
    "LightGCN": (0.088526, 0.419846, 0.379626, 0.144336),
    "NCF": (0.107720, 0.396118, 0.347296, 0.180775),
    "SAR": (0.110591, 0.382461, 0.330753, 0.176385),
    "SVD": (0.012873, 0.095930, 0.091198, 0.032783),
    "ALS": (0.004732, 0.044239, 0.048462, 0.017796),
}
MEASURES = ["MAP", "NDCG@10", "precision@10", "recall@10"]
TOP = 10
N_NEGATIVES = 4
LENGTHS = (50, 200)  # newest films of a history: the encoder's default, and nearly all


def read(folder):
    """Return the ratings (user, item, time) in the order of time, and each item's first genre."""
    ratings = pd.read_csv(folder / "ml-100k.inter", sep="\t")
    ratings.columns = ["user", "item", "rating", "time"]
    ratings = ratings.sort_values(["user", "time", "item"], ignore_index=True)
    films = pd.read_csv(folder / "ml-100k.item", sep="\t")
    films.columns = ["item", "title", "year", "genres"]
    genre = films.set_index("item")["genres"].fillna("").str.split(" ").str[0]
    ratings["item_code"] = pd.factorize(ratings["item"], sort=True)[0]
    names = np.sort(ratings["item"].unique())
    return ratings, genre.reindex(names).fillna("").to_numpy()


def split(ratings, seed):
    """Whether each rating trains: 75 % of each user's, at random."""
    draw = pd.Series(np.random.RandomState(seed).random_sample(len(ratings)))
    rank = draw.groupby(ratings["user"].to_numpy()).rank(method="first")
    share = rank / ratings.groupby("user")["item"].transform("size")
    return (share <= 0.75).to_numpy()


def training_frame(pasts, genre, seed, *, length):
    """Impressions and labels: each training film and its negatives, with the user's other films."""
    rng, n_items = np.random.RandomState(seed), len(genre)
    users, candidates, histories = [], [], []
    for user, items in pasts.items():
        unseen = np.setdiff1d(np.arange(n_items), items)
        shown = np.column_stack([items, rng.choice(unseen, size=(len(items), N_NEGATIVES))])
        users.append(np.full(shown.size, user))
        candidates.append(shown.ravel())
        for position in range(len(items)):
            others = np.delete(items, position)[-length:]
            histories += [others] * shown.shape[1]
    item = np.concatenate(candidates)
    frame = pd.DataFrame({"user": np.concatenate(users), "item": item, "genre": genre[item]})
    label = np.tile(np.eye(1, 1 + N_NEGATIVES, dtype=int)[0], len(item) // (1 + N_NEGATIVES))
    return with_histories(frame, histories, genre), label


def with_histories(frame, histories, genre):
    """Add the histories as Arrow lists of films and of their genres."""
    offsets = pa.array(np.append(0, np.cumsum([len(past) for past in histories])), pa.int32())
    films = np.concatenate(histories)
    for name, values in {"hist_item": films, "hist_genre": genre[films]}.items():
        cells = pa.ListArray.from_arrays(offsets, pa.array(values))
        frame[name] = pd.arrays.ArrowExtensionArray(pa.chunked_array([cells]))
    return frame


def ours(pasts, genre, seed, *, length):
    """All films in the order of the defaults' probabilities, for each user."""
    X, y = training_frame(pasts, genre, seed, length=length)
    encoder = HistorySequenceEncoder(
        histories={("hist_item", "hist_genre"): ("item", "genre")}, user="user", max_length=length
    )
    model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=seed))]).fit(X, y)
    users = with_histories(
        pd.DataFrame({"user": list(pasts)}), [past[-length:] for past in pasts.values()], genre
    )
    films = pd.DataFrame({"item": np.arange(len(genre)), "genre": genre})
    ranked = rank_candidates(model, users, films, top_k=len(genre))
    return ranked["item"].to_numpy().reshape(len(users), len(genre))


def by_scores(scores_of, *, length=None):
    """A ranking by scores of what all users have, and of each user's newest ``length`` films."""

    def ranked(pasts, genre, seed):
        everything = _user_matrix(pasts.values(), len(genre))
        own = everything
        if length is not None:
            own = _user_matrix([past[-length:] for past in pasts.values()], len(genre))
        return np.argsort(-scores_of(everything, own), axis=1, kind="stable")

    return ranked


def _user_matrix(pasts, n_items):
    """User x film matrix of zeros and ones."""
    user = np.repeat(np.arange(len(pasts)), [len(past) for past in pasts])
    ones = (np.ones(len(user), dtype=np.float32), (user, np.concatenate([*pasts])))
    return scipy.sparse.csr_matrix(ones, shape=(len(pasts), n_items))


def _ease(everything, own):
    weights, kept = neighbours.ease_of(300.0)(everything)
    scores = np.full(own.shape, -np.inf)
    scores[:, kept] = own[:, kept] @ weights
    return scores


def _item_knn(everything, own):
    return (own @ neighbours.cosines(everything)).toarray()


def _popularity(everything, own):
    return np.repeat(np.asarray(everything.sum(0)), own.shape[0], axis=0)


METHODS = {
    **{f"DINClassifier(), max_length={n}": partial(ours, length=n) for n in LENGTHS},
    **{f"EASE, the newest {n} films": by_scores(_ease, length=n) for n in LENGTHS},
    "EASE": by_scores(_ease),
    "item-kNN": by_scores(_item_knn),
    "popularity": by_scores(_popularity),
}


def measures(ranked, pasts, wanted):
    """Mean over the users with a test film; MAP divides by the number of the user's test films."""
    found = []
    for order, (user, past) in zip(ranked, pasts.items(), strict=True):
        if user not in wanted:
            continue
        best = order[~np.isin(order, past)][:TOP]
        hit = np.isin(best, wanted[user])
        gain = 1 / np.log2(np.arange(2, TOP + 2))
        precision = hit.cumsum() / np.arange(1, TOP + 1)
        n_wanted = len(wanted[user])
        ndcg = gain[hit].sum() / gain[: min(n_wanted, TOP)].sum()
        found.append([(precision * hit).sum() / n_wanted, ndcg, hit.mean(), hit.sum() / n_wanted])
    return dict(zip(MEASURES, np.mean(found, axis=0).tolist(), strict=True))


def run(method, folder, seed):
    """Fit one method on one split; return what was measured."""
    began = time.perf_counter()
    ratings, genre = read(folder)
    trains = split(ratings, seed)
    pasts, wanted = (
        {user: items.to_numpy() for user, items in rows.groupby("user")["item_code"]}
        for rows in (ratings[trains], ratings[~trains])
    )
    found = measures(METHODS[method](pasts, genre, seed), pasts, wanted)
    return {**found, "seconds": time.perf_counter() - began}


def print_table(results):
    """Print our figures, mean and standard error over the splits, above the published ones."""
    print(f"| | {' | '.join(MEASURES)} | splits |\n|---|{'---|' * (len(MEASURES) + 1)}")
    for method, seeds in results.items():
        table = pd.DataFrame(list(seeds.values()))[MEASURES]
        error = table.sem() if len(table) > 1 else None
        cells = [
            f"{table[m].mean():.4f}" + ("" if error is None else f" ± {error[m]:.4f}")
            for m in MEASURES
        ]
        print(f"| {method} | {' | '.join(cells)} | {len(table)} |")
    for method, figures in PUBLISHED.items():
        print(f"| {method}, published | {' | '.join(f'{v:.4f}' for v in figures)} | 1 |")


def find_data(named):
    """Folder of ``ml-100k.inter``: the named one, else that of an installed RecBole."""
    if named is not None:
        return named
    import recbole

    return Path(recbole.__file__).parent / "dataset_example" / "ml-100k"


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published")
    parser.add_argument("--data", type=Path, help="default: that of an installed RecBole")
    parser.add_argument("--cache", type=Path, default=Path("published.json"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    options = parser.parse_args()
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    for seed in range(0 if options.table else options.seeds):
        for method in options.methods:
            if str(seed) not in results.get(method, {}):
                found = run(method, find_data(options.data), seed)
                results.setdefault(method, {})[str(seed)] = found
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                shown = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
                print(f"{method} | {seed}: {shown}", flush=True)
    print_table(results)


if __name__ == "__main__":
    main()
