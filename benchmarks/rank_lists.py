"""What ranking a catalogue costs where items have lists, such as tags, and where they have none.

``python -m benchmarks.rank_lists [--users 100] [--items 15109]`` makes a log, fits one epoch on
its last 20,000 rows, and evaluates the ranking of the whole catalogue: CPU seconds of the fit and
of the ranking, with the item alone and with one to five of 40 tags for each item and event.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, evaluate_ranking

N_EVENTS, N_LOG_USERS, N_TAGS, FITTED = 60_000, 1_000, 40, 20_000


def make_log(n_items: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return events, the popular items more often, and the items with their tags."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, n_items)
    tags = [rng.choice(N_TAGS, size, replace=False).tolist() for size in sizes]
    items = pd.DataFrame({"item": np.arange(n_items), "tags": pd.Series(tags, dtype=object)})
    drawn = np.minimum((200 * rng.pareto(1, N_EVENTS)).astype(int), n_items - 1)
    log = pd.DataFrame({"user": rng.integers(0, N_LOG_USERS, N_EVENTS), "item": drawn})
    return log.assign(time=range(N_EVENTS)), items


def measure(columns: list[str], *, n_users: int, n_items: int) -> None:
    """Print the CPU seconds of a fit and of a ranking."""
    log, items = make_log(n_items)
    rows = log.merge(items[columns], on="item").sort_values("time").reset_index(drop=True)
    X = attach_history(rows, rows, user="user", time="time", columns=columns)
    y = np.random.default_rng(1).integers(0, 2, len(X))
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"),
        DINClassifier(max_epochs=1, random_state=0),
    )
    began = time.process_time()
    model.fit(X[-FITTED:], y[-FITTED:])
    fitted = time.process_time()
    users = X.groupby("user").tail(1).drop(columns=columns).head(n_users)
    relevant = log[log["user"].isin(users["user"])].groupby("user").tail(3)
    evaluate_ranking(model, users, items[columns], relevant)
    ranked = time.process_time() - fitted
    cells = (", ".join(columns), f"{fitted - began:.1f}", f"{ranked:.1f}")
    print("| " + " | ".join([*cells, f"{60 * n_users / ranked:,.0f}"]) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("users", 100), ("items", 15_109)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    print("| columns | fit, CPU s | ranking, CPU s | users a CPU minute |\n|---|---|---|---|")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the validation rows hardly follow")  # labels are coins
        for columns in (["item"], ["item", "tags"]):
            measure(columns, n_users=given.users, n_items=given.items)
