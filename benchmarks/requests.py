"""One brand bought of each shelf: what a row's place among the rows of its request tells.

``python -m benchmarks.requests [--seeds 3]``: made shelves of eight brands, each shelf at its own
level of prices; who buys likes some brands and prefers what is cheap there. A classifier without
and with the columns of ``attach_request``, and the true probabilities: log loss of the last fifth
of the shelves, then of the same rows when each is asked alone, and of lists of 500 out of which
one is bought by the same rule: log loss, and AUC, which is what a ranking needs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, attach_request

N_SHELVES, N_USERS, N_BRANDS, N_SHOWN = 6_000, 400, 40, 8
N_LONG, N_LONG_LISTS = 500, 200
COLUMNS = [f"price_{what}" for what in ("share", "to_mean", "is_best")]


def make_shelves(seed: int, n_shelves: int, n_shown: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows of shelves in the order of time, and the probability that each is bought."""
    tastes = np.random.default_rng(0)
    taste, fame = tastes.normal(size=(N_USERS, 5)), tastes.normal(size=N_BRANDS)
    rng = np.random.default_rng(seed)
    user = np.repeat(rng.integers(0, N_USERS, n_shelves), n_shown)
    brand = np.concatenate(
        [rng.choice(N_BRANDS, n_shown, replace=n_shown > N_BRANDS) for _ in range(n_shelves)]
    )
    shelf = np.repeat(np.arange(n_shelves), n_shown)
    level = np.exp(rng.normal(2, 1, n_shelves))[shelf]
    relative = np.exp(rng.normal(0, 0.3, len(user)))
    spread = relative.reshape(-1, n_shown)
    z = ((spread - spread.mean(1, keepdims=True)) / spread.std(1, keepdims=True)).ravel()
    score = 0.8 * taste[user, brand % 5] + 0.5 * fame[brand] - 1.2 * z
    odds = np.exp(score).reshape(-1, n_shown)
    rows = {"user": user, "brand": brand, "kind": brand % 5, "price": level * relative}
    frame = pd.DataFrame(rows | {"shelf": shelf, "time": shelf})
    return frame, (odds / odds.sum(1, keepdims=True)).ravel()


def buy(probability: np.ndarray, n_shown: int, seed: int) -> np.ndarray:
    """Return one purchase of each shelf."""
    chance = np.random.default_rng(seed + 1_000).random(len(probability) // n_shown)
    ends = probability.reshape(-1, n_shown).cumsum(1)
    chosen = (ends < chance[:, None] * ends[:, -1:]).sum(1)
    return (np.arange(n_shown) == chosen[:, None]).ravel().astype(int)


def run(seed: int) -> list[dict[str, object]]:
    """Return a row for each way to tell of the shelf."""
    frame, p = make_shelves(seed, N_SHELVES, N_SHOWN)
    y, cut = buy(p, N_SHOWN, seed), N_SHELVES * 4 // 5 * N_SHOWN
    bought = frame[y == 1]
    options = {"user": "user", "time": "time", "columns": ["brand", "kind"]}
    X = attach_history(frame, bought, **options)
    long, p_long = make_shelves(seed + 50, N_LONG_LISTS, N_LONG)
    y_long = buy(p_long, N_LONG, seed)
    long = long.assign(time=frame["time"].iloc[cut], shelf=long["shelf"] + N_SHELVES)
    long_X = attach_history(long, bought[bought["time"] < frame["time"].iloc[cut]], **options)
    rows: list[dict[str, object]] = [
        {
            "way": "truth",
            "loss": log_loss(y[cut:], p[cut:]),
            "of 500": log_loss(y_long, p_long),
            "AUC of 500": roc_auc_score(y_long, p_long),
        }
    ]
    for way in ("price alone", "attach_request"):
        has_request = way == "attach_request"
        tables = [X, long_X]
        if has_request:
            tables = [attach_request(t, request="shelf", columns="price") for t in tables]
        rows_of, long_rows = (t.drop(columns="shelf") for t in tables)
        began = time.process_time()
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=seed))])
        model.fit(rows_of[:cut], y[:cut])
        seconds = time.process_time() - began
        neutral = dict(zip(COLUMNS, (0.5, 0.0, 0.0), strict=True)) if has_request else {}
        alone = rows_of[cut:].assign(**neutral)
        tables = [rows_of[cut:], alone, long_rows]
        own, of_one, of_many = (model.predict_proba(table)[:, 1] for table in tables)
        rows.append(
            {
                "way": way,
                "loss": log_loss(y[cut:], own),
                "alone": log_loss(y[cut:], of_one),
                "of 500": log_loss(y_long, of_many),
                "AUC of 500": roc_auc_score(y_long, of_many),
                "s": seconds,
            }
        )
    return [{"seed": seed} | row for row in rows]


def main() -> None:
    """Print a table of means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    table = pd.DataFrame([row for seed in range(parser.parse_args().seeds) for row in run(seed)])
    print(table.round(4).to_string(index=False))
    print(table.drop(columns="seed").groupby("way", sort=False).mean().round(4).to_string())


if __name__ == "__main__":
    main()
