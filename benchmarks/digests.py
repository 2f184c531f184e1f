"""Digests of what the encoder gives, and predictions of default fits: a refactoring moves nothing.

``python -m benchmarks.digests write FILE`` keeps them, ``compare FILE`` prints what differs. Real
logs, a click log and 300 hostile frames are encoded as frames, in polars and as scans in parts; an
error counts by its class and first line, a warning by its text. ``--fits`` adds twelve default fits
(some minutes), whose predictions may differ by 1e-6.
"""

import argparse
import json
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

import sklearn_din as din
from benchmarks import hostile_frames, hostile_scans
from sklearn_din.datasets import make_click_log
from sklearn_din.features.lists import IdLists
from sklearn_din.utils.digests import digest
from sklearn_din.utils.frames import pandas_frame
from sklearn_din.utils.warnings import collect_messages
from tests.real_data import real_data_folder

N_ROWS, N_FRAMES, CLOSE = 4_000, 300, 1e-6
LOG = {"user": "user", "time": "time"}


def real_logs(folder):
    """Yield names, impressions, labels and options of the encoder; a scan of the click log too."""
    data = real_data_folder()
    for name in ("movies", "videos"):
        X = pd.read_parquet(data / f"{name}.parquet").drop(columns="part")[-N_ROWS:]
        y = X.pop("label").to_numpy()
        yield name, X, y, LOG
        yield f"{name}, no user", X.drop(columns=[*LOG]), y, {"min_frequency": 3, "max_ids": 900}
    clicks = pd.read_csv(data / "eshop-clicks" / "clicks.csv.gz", nrows=N_ROWS)
    clicks = clicks[["session", "order", "item", "category", "colour"]].assign(paid=clicks["price"])
    clicks["paid"] = clicks["paid"] / 10
    own = [*clicks.columns[3:]]
    X, y = din.sample_negatives(
        clicks, item="item", user="session", item_columns=own, random_state=0
    )
    names = {"user": "session", "time": "order", "columns": ["item", *own]}
    X = din.attach_history(X, clicks, **names, elapsed="hist_ago")
    yield "e-shop", X[:N_ROWS], y[:N_ROWS], {"user": "session", "time": "order"}
    ratings = pd.read_csv(data / "ml-latest-small" / "ratings.csv.gz")[:N_ROWS]
    movies = pd.read_csv(data / "ml-latest-small" / "movies.csv.gz")
    movies["genres"] = movies["genres"].str.split("|")
    ratings, own = ratings.merge(movies, on="movieId"), ["movieId", "genres", "rating"]
    X = din.attach_history(ratings, ratings, user="userId", time="timestamp", columns=own)
    table = pd.DataFrame(np.random.RandomState(0).normal(size=(len(movies), 4)))
    options = {"vectors": {"movieId": table.assign(movieId=movies["movieId"])}, "max_length": 20}
    y, options = (X.pop("rating") >= 4).to_numpy(int), {**options, "drop": ["title"]}
    yield "MovieLens", X, y, {**options, "user": "userId", "time": "timestamp"}
    log = make_click_log(n_users=N_ROWS // 20, random_state=0)
    names = {**LOG, "columns": ["item", "category"], "elapsed": "hist_elapsed"}
    yield "click log", din.attach_history(log.impressions, log.events, **names), log.y, LOG
    scans = [as_scan(log[name], folder / f"{name}.parquet") for name in ("impressions", "events")]
    yield "click log, log on disk", din.attach_history(*scans, **names), log.y, LOG


def as_scan(frame, path, **options):
    """Write a frame to a file of several row groups, and scan it."""
    frame.to_parquet(path, row_group_size=700)
    return din.scan_parquet(path, **options)


def digest_rows(X):
    """Return digests by name of all that travels from encoder to classifier."""
    found = {"schema": digest(X.schema.identity)}
    found |= {name: _digest(values) for name, values in (X.columns | X.metadata).items()}
    for histories, ragged in X.behaviours.items():
        values = [values.take(ragged.whole.index()) for values in ragged.columns.values()]
        values += [ragged.spans.lengths, ragged.n_older, *map(ragged.flat, ragged.row_times)]
        found["+".join(histories)] = digest(*map(_digest, values))
    return found | {f"vectors {name}": _digest(v.table) for name, v in X.vectors.items()}


def _digest(values):
    values = values.pad() if isinstance(values, IdLists) else np.asarray(values)
    return digest(f"{values.dtype} {values.tolist()}")


def encode(table, options):
    """Return digests of a fit, of rows encoded again, of ids that are appended; what is said."""
    results, some = {}, pandas_frame(table)
    some = table[:1] if some is None else some[: max(len(some) // 2, 1)]
    with collect_messages() as messages:
        try:
            encoder = din.HistorySequenceEncoder(**options)
            results["fit"] = digest_rows(encoder.fit_transform(table))
            results["transform"] = digest_rows(encoder.transform(some))
            results["report"] = digest(pandas_frame(encoder.report(some)).to_csv())
            results["half"] = digest_rows(encoder.fit_transform(some))
            results["grown"] = digest_rows(encoder.partial_fit(table).transform(table))
        except (ValueError, TypeError) as error:
            results["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return results | {"messages": sorted(messages)}


def encode_all(folder):
    """Yield what comes of real logs and hostile frames in every form, by name."""
    for name, X, _, options in real_logs(folder):
        yield name, encode(X, options)
        if "log on disk" not in name:
            lists = X.assign(**{n: X[n].map(np.asarray) for n in X if n.startswith("hist_")})
            yield f"{name}, polars", encode(pl.from_pandas(lists), options)
            scan = as_scan(lists, folder / "rows.parquet", memory="4MB")
            yield f"{name}, Parquet", encode(scan, options)
    for number in range(N_FRAMES):
        frame = hostile_frames.draw_frame(np.random.default_rng([0, number]))
        options = {name: name for name in LOG if number % 3 and name in frame}
        yield f"hostile {number}", encode(frame, options)
        try:
            with hostile_scans.scanned(frame) as (scan, _):
                yield f"hostile {number}, scan", encode(scan, options)
        except hostile_scans.RefusedError:
            pass


def predict(folder):
    """Yield some predictions of default fits of a classifier and, of most, of a regressor."""
    for name, table, y, options in real_logs(folder):
        X = din.HistorySequenceEncoder(**options).fit_transform(table)
        probability = din.DINClassifier(random_state=0).fit(X, y).predict_proba(X)[::20, 1]
        yield f"{name}, classifier", probability.tolist()
        if name in ("movies", "videos", "e-shop", "MovieLens"):
            number = din.DINRegressor(random_state=0).fit(X, y + 0.5).predict(X)[::20]
            yield f"{name}, regressor", number.tolist()


def differences(before, after, name):
    """Yield where two results differ: predictions by more than 1e-6."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            yield from differences(before.get(key), after.get(key), f"{name} / {key}")
    elif not (before and after and isinstance(before[0], float)):
        yield from [f"{name}:\n  {before!s:.500}\n  {after!s:.500}"] if before != after else []
    elif (far := np.abs(np.subtract(before, after)).max()) > CLOSE:
        yield f"{name}: predictions differ by {far:.1e}"


def main():
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["write", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--fits", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = dict(chain(encode_all(folder), predict(folder) if options.fits else ()))
    if options.action == "write":
        options.file.write_text(json.dumps(results, indent=1, sort_keys=True))
        return
    before = json.loads(options.file.read_text())
    lines = [
        line for name in results for line in differences(before.get(name), results[name], name)
    ]
    print("\n".join(lines) or f"{len(results)} results, all the same")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
