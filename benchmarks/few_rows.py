"""CPU seconds of fits of few rows, next to those of a commit, and whether predictions are equal.

``python -m benchmarks.few_rows COMMIT [--rows 400 2999 3000 10000] [--rounds 5]`` fits the default
classifier on encoded rows of the click log, by one thread. Both checkouts take turns, each in a
process of its own, whose figure is the median of three fits. ``COMMIT`` may be a folder with
another checkout. Printed are the medians over the rounds, the median of the rounds' ratios, and
whether both predict the same bits.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import guard

N_FITS = 3
ROWS_PER_USER = 20


def fit_few_rows(n_rows):
    """Print CPU seconds of a fit, and a digest of the probabilities."""
    from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
    from sklearn_din.datasets import make_click_log

    log = make_click_log(n_users=n_rows // ROWS_PER_USER + 1, random_state=0)
    names = {"user": "user", "time": "time", "columns": ["item", "category"]}
    frame = attach_history(log.impressions, log.events, **names)[:n_rows]
    X, y = HistorySequenceEncoder(user="user", time="time").fit_transform(frame), log.y[:n_rows]
    seconds = []
    for _ in range(1 + N_FITS):  # the first one imports
        began = time.process_time()
        classifier = DINClassifier(random_state=0).fit(X, y)
        seconds.append(time.process_time() - began)
    digest = hashlib.sha256(classifier.predict_proba(X).tobytes()).hexdigest()
    print(json.dumps({"seconds": float(np.median(seconds[1:])), "digest": digest}))


def compare(other, n_rows, n_rounds):
    """Return a row of the table."""
    rounds = []
    for number in range(n_rounds):
        pair = [("commit", other), ("this", guard.HERE)]
        answers = {
            name: json.loads(guard.ask(at, str(n_rows), file=__file__))
            for name, at in (pair[::-1] if number % 2 else pair)
        }
        rounds.append({name: of["seconds"] for name, of in answers.items()})
    same = answers["commit"]["digest"] == answers["this"]["digest"]
    return {**guard.summarize(rounds), "same bits": same}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_rows")
    parser.add_argument("commit")
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 2_999, 3_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    path = Path(options.commit)
    with nullcontext(path.resolve()) if path.is_dir() else guard.check_out(options.commit) as other:
        rows = {n: compare(other, n, options.rounds) for n in options.rows}
    print(pd.DataFrame(rows).T.rename_axis("rows").to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        fit_few_rows(int(sys.argv[1]))
    else:
        main()
