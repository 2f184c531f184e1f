"""Fixed vectors of items: what they tell of items that training has never seen.

``python -m benchmarks.item_vectors made [--seeds 5]``: turning catalogues (``made_logs.py``) of
which the frame has the items' ids alone; the truth is in 100 topics of 20 categories, which only
the vectors tell: 32 numbers, those of the category and of the topic, and noise. AUC of the test
rows whose item is new, with ids alone, with vectors, and the best that can be known
(``knowable.py``); the share of the way from the first to the last.
``python -m benchmarks.item_vectors movielens [--seeds 5]``: MovieLens by time, with vectors of the
films' titles and genres (TF-IDF, TruncatedSVD), of all rows and of films that training has never
seen.
``python -m benchmarks.item_vectors genres [--seeds 5]``: 20,000 rows of 500 users who like 2 of 12
genres, and 2,000 films of 1 to 3 genres. AUC of the newest fifth with films alone, with one genre
of each, with all of them as one id, as lists beside each event, and as vectors of zeros and ones.
``python -m benchmarks.item_vectors likeness [--seeds 5]``: which vectors hold likeness. A click log
of 400 items in 8 categories; the share of an item's ten nearest that have its category, by the
cosine of ``embeddings`` (of the defaults on items alone, with a column of the category, without
item neighbours, and with fixed vectors of the items), and by the scores of ``ItemNeighbours``.
``python -m benchmarks.item_vectors step``: seconds of a training step with and without, in turn.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks import knowable, made_logs, quality, workloads
from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    ItemNeighbours,
    attach_history,
    embeddings,
)
from sklearn_din.datasets import fetch_movielens, make_click_log

N_DIMS, NOISE = 32, 0.5
N_COMPONENTS = 64


def topic_vectors(workload, *, seed):
    """A frame of items and their vectors: category and topic, and noise for each item."""
    rng = np.random.RandomState(seed)
    parts = [workload[part] for part in workloads.PARTS]
    names = ["item", "category", "topic"]
    known = {n: [rows[m] for rows in parts for m in (n, f"hist_{n}")] for n in names}
    items = pd.DataFrame({n: np.concatenate(v) for n, v in known.items()}).drop_duplicates("item")
    centres = {n: rng.normal(size=(items[n].max() + 1, N_DIMS)) for n in names[1:]}
    table = sum(centre[items[n]] for n, centre in centres.items())
    table = table + NOISE * rng.normal(size=table.shape)
    return (
        pd.DataFrame(table.astype(np.float32))
        .rename(columns=str)
        .assign(item=items["item"].to_numpy())
    )


def fit(X, y, vectors, *, seed, user):
    """Fit the defaults, with vectors or without."""
    encoder = HistorySequenceEncoder(user=user, time="time", vectors=vectors)
    return make_pipeline(encoder, DINClassifier(random_state=seed)).fit(X, y)


def made(seed):
    """Print the AUC of one turning catalogue."""
    workload = made_logs.turning(new_share=0.6, hide_unseen=False, seed=seed)
    (X, y), (test, _) = (
        quality.frame_of(workload, "train", "valid"),
        quality.frame_of(workload, "test"),
    )
    columns = ["group", "time", "item", "hist_item"]
    is_new = ~test["item"].isin(set(X["item"])).to_numpy()
    label = workload["test"]["label"]
    vectors = {"item": topic_vectors(workload, seed=seed)}
    click = {
        name: fit(X[columns], y, some, seed=seed, user="group").predict_proba(test[columns])[:, 1]
        for name, some in {"ids": None, "vectors": vectors}.items()
    }
    click["knowable"] = knowable.turning(workload, seed=seed)
    auc = {name: roc_auc_score(label[is_new], of[is_new]) for name, of in click.items()}
    way = (auc["vectors"] - auc["ids"]) / (auc["knowable"] - auc["ids"])
    shown = ", ".join(f"{name} {value:.4f}" for name, value in auc.items())
    print(f"turning 60 %, seed {seed}, {is_new.mean():.0%} new: {shown}; way {way:.2f}", flush=True)
    return {**auc, "way": way}


def genres(seed, n_rows=20_000, n_genres=12):
    """Print the AUC of a log whose truth lies in the genres of the films."""
    rng = np.random.RandomState(seed)
    n_users, n_films = n_rows // 40, n_rows // 10
    names = np.array([f"g{n}" for n in range(n_genres)])
    sizes = rng.randint(1, 4, size=n_films)
    has = np.argsort(rng.random_sample((n_films, n_genres))).argsort() < sizes[:, None]
    likes = np.argsort(rng.random_sample((n_users, n_genres))).argsort() < 2
    X = pd.DataFrame({"user": rng.randint(n_users, size=n_rows), "time": np.arange(n_rows)})
    X["film"] = rng.randint(n_films, size=n_rows)
    share = (has[X["film"]] & likes[X["user"]]).sum(1) / sizes[X["film"]]
    truth = 1 / (1 + np.exp(1.5 - 5 * share))
    y = (rng.random_sample(n_rows) < truth).astype(int)
    X["genres"] = [names[own].tolist() for own in has[X["film"]]]
    X["one genre"], X["all as one id"] = X["genres"].str[0], X["genres"].str.join("|")
    vectors = pd.DataFrame(has, columns=names, dtype=float).assign(film=range(n_films))
    late = X["time"] >= 0.8 * n_rows
    auc = {"knowable": roc_auc_score(y[late], truth[late])}
    for name in ("film", "one genre", "all as one id", "genres", "vectors"):
        columns = ["film", *({name} & {*X.columns} - {"film"})]
        some = {"film": vectors} if name == "vectors" else None
        rows = X[["user", "time", *columns]]
        rows = attach_history(rows, X[y == 1], user="user", time="time", columns=columns)
        model = fit(rows[~late], y[~late], some, seed=seed, user="user")
        auc[name] = roc_auc_score(y[late], model.predict_proba(rows[late])[:, 1])
    shown = ", ".join(f"{name} {value:.4f}" for name, value in auc.items())
    print(f"genres, seed {seed}: {shown}", flush=True)
    return auc


def film_vectors(movies):
    """Vectors of titles and genres."""
    text = movies["title"] + " " + movies["genres"].str.replace("|", " ")
    words = TfidfVectorizer(min_df=2, sublinear_tf=True).fit_transform(text)
    table = TruncatedSVD(N_COMPONENTS, random_state=0).fit_transform(words)
    return pd.DataFrame(table).rename(columns=str).assign(item=movies["item"].to_numpy())


def movielens(seed):
    """Print AUC and log loss on the newest fifth of MovieLens, and on films that are new there."""
    data = fetch_movielens(
        "latest-small", data_home=workloads.real_data_folder(), download_if_missing=False
    )
    ratings = data.ratings.sort_values("time", kind="stable", ignore_index=True)
    y = (ratings["rating"] >= 4).to_numpy().astype(int)
    shown = ratings[["user", "item", "time"]]
    X = attach_history(shown, shown[y == 1], user="user", time="time", columns="item")
    cut = int(0.8 * len(X))
    is_new = ~X["item"][cut:].isin(set(X["item"][:cut])).to_numpy()
    found = {}
    for name, some in {"ids": None, "vectors": {"item": film_vectors(data.movies)}}.items():
        model = fit(X[:cut], y[:cut], some, seed=seed, user="user")
        click = model.predict_proba(X[cut:])[:, 1]
        found[f"{name}, all"] = roc_auc_score(y[cut:], click)
        found[f"{name}, new"] = roc_auc_score(y[cut:][is_new], click[is_new])
        found[f"{name}, log loss"] = log_loss(y[cut:], click)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"MovieLens by time, seed {seed}, {is_new.mean():.0%} new: {shown}", flush=True)
    return found


def likeness(seed, n_items=400, n_categories=8):
    """Print the share of an item's ten nearest that have its category."""
    log = make_click_log(n_items=n_items, n_categories=n_categories, random_state=seed)
    both = pd.concat([log.events, log.impressions])[["item", "category"]].drop_duplicates("item")
    category = both.set_index("item")["category"]
    names = ["item", "category"]
    with_category = attach_history(
        log.impressions, log.events, user="user", time="time", columns=names
    ).drop(columns=["price", "device"])
    X = with_category.drop(columns=["category", "hist_category"])
    items = np.sort(X["item"].unique())
    rng = np.random.RandomState(seed)
    centres, noise = rng.normal(size=(n_categories, N_DIMS)), rng.normal(size=(n_items, N_DIMS))
    table = centres[category.loc[items]] + NOISE * noise[items]
    fixed = {"item": pd.DataFrame(table).rename(columns=str).assign(item=items)}
    share = {"chance": _share_alike(rng.random_sample((len(items),) * 2), category.loc[items])}
    for name, rows, vectors, neighbours in (
        ("defaults", X, None, "auto"),
        ("with the category", with_category, None, "auto"),
        ("no item neighbours", X, None, None),
        ("vectors", X, fixed, "auto"),
    ):
        encoder = HistorySequenceEncoder(user="user", time="time", vectors=vectors)
        classifier = DINClassifier(neighbours=neighbours, random_state=seed)
        known = embeddings(make_pipeline(encoder, classifier).fit(rows, log.y))["item"].loc["known"]
        unit = known / np.linalg.norm(known, axis=1)[:, None]
        unit = unit.loc[items].to_numpy(float)
        share[name] = _share_alike(unit @ unit.T, category.loc[items])
    pairs = pd.DataFrame({"item": np.tile(items, len(items))})
    pairs["hist_item"] = [[item] for item in np.repeat(items, len(items))]
    scores = ItemNeighbours(user="user", time="time").fit(X, log.y).transform(pairs)
    for name in ("cosine", "ease"):
        matrix = scores[f"hist_item_{name}_sum"].to_numpy().reshape((len(items),) * 2)
        share[f"ItemNeighbours, {name}"] = _share_alike(matrix, category.loc[items])
    print(
        f"likeness, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in share.items()), flush=True
    )
    return share


def _share_alike(likeness, category, k=10):
    likeness = likeness - 1e9 * np.eye(len(likeness))
    nearest = np.argsort(-likeness, axis=1)[:, :k]
    return float((category.to_numpy()[nearest] == category.to_numpy()[:, None]).mean())


def step():
    """Print seconds of an epoch with and without vectors, in turn."""
    workload = made_logs.turning(new_share=0.2, hide_unseen=False)
    X, y = quality.frame_of(workload, "train")
    X, vectors = X[["group", "time", "item", "hist_item"]], topic_vectors(workload, seed=0)
    encoded = {
        name: HistorySequenceEncoder(user="group", time="time", vectors=some).fit_transform(X)
        for name, some in {"ids": None, "vectors": {"item": vectors}}.items()
    }
    seconds = {name: [] for name in encoded}
    for _ in range(5):
        for name, rows in encoded.items():
            start = time.perf_counter()
            DINClassifier(max_epochs=1, early_stopping=False, neighbours=None).fit(rows, y)
            seconds[name].append(time.perf_counter() - start)
    median = {name: np.median(values) for name, values in seconds.items()}
    print(f"{len(X):,} rows: {median}, ratio {median['vectors'] / median['ids']:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.item_vectors")
    parser.add_argument("task", choices=["made", "movielens", "genres", "likeness", "step"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.task == "step":
        step()
        return
    task = {"made": made, "movielens": movielens, "genres": genres, "likeness": likeness}[
        options.task
    ]
    found = pd.DataFrame([task(seed) for seed in range(options.seeds)])
    print(pd.DataFrame({"mean": found.mean(), "standard error": found.sem()}).round(4).to_string())


if __name__ == "__main__":
    main()
