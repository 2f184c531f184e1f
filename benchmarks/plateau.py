"""How many random states leave training on the plateau of "repetition tires".

``python -m benchmarks.plateau [--data-seeds 2] [--random-states 5]`` trains the defaults on
``data_set("repetition tires", seed)``, where a category draws by all its past events and tires by
the newest three: on average both cancel out, and the loss falls no further before the network has
found recency. Ways: the defaults; patience that counts from the first check on; attention that is
told of equal ids and of recency, but not of their product; the last two together.
"""

import argparse
import contextlib
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks.attention_study import with_options
from benchmarks.data_sets import data_set
from benchmarks.defaults import encoded, run
from sklearn_din.training import early_stopping

DATA = "repetition tires"
PLATEAU = 0.565  # validation log loss: fits end some .01 above it, or some .01 below


without_products = partial(with_options, matches="recent")
patience_from_the_first = partial(mock.patch.object, early_stopping, "CHECKS_BEFORE_PATIENCE", 0)

WAYS = {
    "defaults": [],
    "patience from the first check": [patience_from_the_first],
    "no products in attention": [without_products],
    "neither": [without_products, patience_from_the_first],
}


def fits(way, workload, data, random_states):
    """Fit once per random state; return what validation and test rows say."""
    with contextlib.ExitStack() as stack:
        for change in WAYS[way]:
            stack.enter_context(change())
        fit = partial(run, workload, *data)
        return [fit(seed=random_state) for random_state in range(random_states)]


def main():
    """Print a line per way and log, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-seeds", type=int, default=2)
    parser.add_argument("--random-states", type=int, default=5)
    options = parser.parse_args()
    records = []
    for seed in range(options.data_seeds):
        workload = data_set(DATA, seed)
        data = encoded(workload)
        for way in WAYS:
            found = fits(way, workload, data, options.random_states)
            records += [{"way": way, "seed": seed, **measured} for measured in found]
            losses = np.round([measured["valid_loss"] for measured in found], 4)
            print(f"seed {seed}, {way}: validation log loss {losses.tolist()}", flush=True)
    table = pd.DataFrame(records)
    table["on the plateau"] = table["valid_loss"] > PLATEAU
    shown = dict.fromkeys(("valid_loss", "test_gauc", "test_log_loss", "epochs"), "mean")
    grouped = table.groupby("way", sort=False)
    print(grouped.agg({**shown, "on the plateau": "sum"}).round(4).to_markdown())


if __name__ == "__main__":
    main()
