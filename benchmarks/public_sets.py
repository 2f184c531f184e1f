"""Public sets as BARS has them, with the published figures: who has the files fills the cells.

``python -m benchmarks.public_sets prepare REVIEWS META FOLDER`` makes ``train.csv`` and
``test.csv`` of AmazonElectronics_x1 out of the raw files of the 2014 Amazon reviews
(``reviews_Electronics_5.json`` and ``meta_Electronics.json``, compressed or not). It does what the
authors of DIN did: for each user, in the order of time, the k-th item beside one uniform item that
the user has not, with the k - 1 items before as history; the last item of each user tests.
``python -m benchmarks.public_sets fit SET FOLDER [--seed 0]`` fits the defaults on ``train.csv`` of
that folder and prints GAUC, AUC and log loss on ``test.csv`` beside the published ones. SET is one
of AmazonElectronics_x1, TaobaoAd_x1, KuaiVideo_x1 and MicroVideo1.7M_x1.
``python -m benchmarks.public_sets try`` runs both on a hundred made users, and checks the files.

BARS (Zhu et al., SIGIR 2022; openbenchmark.github.io/BARS) stops training by the test rows and
names the best of many settings; ours are the defaults, which stop by training rows that are set
aside. The image vectors of KuaiVideo and MicroVideo are not used.
"""

import argparse
import ast
import gzip
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, sample_negatives, scan_parquet
from sklearn_din.metrics import group_roc_auc_score

AMAZON = ["label", "user_id", "item_id", "cate_id", "item_history", "cate_history"]
SETS = {  # "published" is GAUC; "more" are further columns of ids
    "AmazonElectronics_x1": {
        "label": "label",
        "user": "user_id",
        "histories": {("item_history", "cate_history"): ("item_id", "cate_id")},
        "max_length": 100,
        "published": {"BARS, DIN": 0.8835, "BARS, the best": 0.8856},
    },
    "TaobaoAd_x1": {
        "label": "clk",
        "user": "userid",
        "histories": {("cate_his", "brand_his", "btag_his"): ("cate_id", "brand", None)},
        "max_length": 50,
        "more": [
            "cms_segid cms_group_id final_gender_code age_level pvalue_level shopping_level",
            "occupation new_user_class_level adgroup_id campaign_id customer pid",
        ],
        "numbers": ["price"],
        "published": {"BARS": 0.5765},
    },
    "KuaiVideo_x1": {
        "label": "is_click",
        "user": "user_id",
        "histories": {"pos_items": "item_id", "neg_items": "item_id"},
        "max_length": 100,
        "published": {"BARS": 0.6696},
    },
    "MicroVideo1.7M_x1": {
        "label": "is_click",
        "user": "user_id",
        "histories": {("clicked_items", "clicked_categories"): ("item_id", "cate_id")},
        "max_length": 100,
        "published": {"BARS": 0.6883},
    },
}


def read_lines(path):
    """Lines of a text file, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        yield from lines


def prepare(reviews, meta, folder):
    """Write train.csv and test.csv of AmazonElectronics_x1."""
    rows = (json.loads(line) for line in read_lines(reviews))
    keys = ["reviewerID", "asin", "unixReviewTime"]
    log = pd.DataFrame([[row[key] for key in keys] for row in rows], columns=["user", "item", "at"])
    goods = (ast.literal_eval(line) for line in read_lines(meta))  # a dict of Python in each line
    category = {row["asin"]: row["categories"][-1][-1] for row in goods}
    log["category"] = log["item"].map(category)
    log = log.sort_values(["user", "at"], kind="stable", ignore_index=True)
    log["position"] = log.groupby("user").cumcount()
    rows, label = sample_negatives(
        log, item="item", item_columns="category", user="user", random_state=0
    )
    for name in ("user", "item", "category"):
        ids = pd.Index(log[name].unique())
        log[name], rows[name] = ids.get_indexer(log[name]), ids.get_indexer(rows[name])
    last = rows.groupby("user")["position"].transform("max")
    text = {name: log[name].astype(str).to_numpy() for name in ("item", "category")}
    start = np.repeat(np.flatnonzero(log["position"] == 0), log.groupby("user").size())
    before = {
        name: np.repeat(["^".join(values[a:b]) for a, b in zip(start, log.index, strict=True)], 2)
        for name, values in text.items()
    }
    columns = [label, *(rows[name] for name in text | {"user": 0}), *before.values()]
    table = pd.DataFrame(
        dict(zip(["label", "item_id", "cate_id", "user_id", *AMAZON[4:]], columns, strict=True))
    )[AMAZON]
    folder.mkdir(parents=True, exist_ok=True)
    is_shown = rows["position"] > 0
    table[is_shown & (rows["position"] < last)].to_csv(folder / "train.csv", index=False)
    table[is_shown & (rows["position"] == last)].to_csv(folder / "test.csv", index=False)


def scan_csv(path, about, cache):
    """Write the columns that are used into a Parquet file, ids and histories as text; scan it."""
    pairs = [(h, c) for h, c in about["histories"].items()]
    flat = [n for pair in pairs for names in pair for n in np.atleast_1d(names) if n is not None]
    flat += " ".join(about.get("more", ())).split()
    types = dict.fromkeys([*flat, about["user"]], pa.string())
    types |= dict.fromkeys([about["label"], *about.get("numbers", ())], pa.float32())
    options = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=[*types], strings_can_be_null=True
    )
    parquet = cache / f"{path.stem}.parquet"
    with (
        pyarrow.csv.open_csv(path, convert_options=options) as batches,
        pq.ParquetWriter(parquet, batches.schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    return scan_parquet(parquet, target=about["label"])


def fit(name, folder, seed):
    """Fit the defaults, print what they reach and what was published."""
    about = SETS[name]
    encoder = HistorySequenceEncoder(
        histories=about["histories"],
        user=about["user"],
        max_length=about["max_length"],
        separator="^",
    )
    with tempfile.TemporaryDirectory() as cache:
        X, test = (
            scan_csv(folder / f"{part}.csv", about, Path(cache)) for part in ("train", "test")
        )
        start = time.perf_counter()
        model = make_pipeline(encoder, DINClassifier(random_state=seed)).fit(X, X.target_)
        seconds = time.perf_counter() - start
        click, label = model.predict_proba(test)[:, 1], np.asarray(test.target_)
        users = pq.read_table(Path(cache) / "test.parquet", columns=[about["user"]])[0].to_numpy()
    found = {
        "GAUC": group_roc_auc_score(label, click, groups=users),
        "AUC": roc_auc_score(label, click),
        "log loss": log_loss(label, click),
    }
    others = "; ".join(f"{who} {value:.4f}" for who, value in about["published"].items())
    shown = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
    print(f"{name}, seed {seed}: {shown}, {seconds:.0f} s; published GAUC: {others}", flush=True)
    return found


def try_out(folder):
    """Make raw files of a hundred users, prepare them, fit them, and compare with what they are."""
    rng = np.random.RandomState(0)
    kinds = [np.flatnonzero(np.isin(np.arange(140) % 7, (n % 7, n % 5))) for n in range(100)]
    bought = {f"user {n}": rng.permutation(of)[: rng.randint(5, 16)] for n, of in enumerate(kinds)}
    rows = [
        {"reviewerID": user, "asin": f"B{item}", "overall": 5.0, "unixReviewTime": 86_400 * day}
        for user, items in bought.items()
        for day, item in enumerate(items)
    ]
    reviews, meta = folder / "reviews.json.gz", folder / "meta.json"
    with gzip.open(reviews, "wt", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(rows[n])}\n" for n in rng.permutation(len(rows)))
    goods = [{"asin": f"B{n}", "categories": [["Goods", f"kind {n % 7}"]]} for n in range(140)]
    meta.write_text("".join(f"{row!r}\n" for row in goods), encoding="utf-8")
    prepare(reviews, meta, folder)
    train, test = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test"))
    sizes = pd.Series([len(items) for items in bought.values()])
    if (len(train), len(test)) != (2 * (sizes - 2).sum(), 200):
        raise SystemExit(f"{len(train)} and {len(test)} rows for {len(bought)} users")
    lengths = test["item_history"].astype(str).str.count(r"\^") + 1
    if (
        sorted(lengths[::2]) != sorted(sizes - 1)
        or (lengths[::2] != lengths[1::2].to_numpy()).any()
    ):
        raise SystemExit("a test row's history is not all that the user had before")
    fit("AmazonElectronics_x1", folder, seed=0)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_sets")
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("prepare")
    for name in ("reviews", "meta", "folder"):
        task.add_argument(name, type=Path)
    task = tasks.add_parser("fit")
    task.add_argument("set", choices=SETS)
    task.add_argument("folder", type=Path)
    task.add_argument("--seed", type=int, default=0)
    tasks.add_parser("try")
    options = parser.parse_args()
    if options.task == "prepare":
        prepare(options.reviews, options.meta, options.folder)
    elif options.task == "fit":
        fit(options.set, options.folder, options.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            try_out(Path(folder))


if __name__ == "__main__":
    main()
