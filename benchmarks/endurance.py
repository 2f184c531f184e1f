"""Hundreds of fits, thousands of predictions, Ctrl-C at many lines: is memory flat, no state half.

    python -m benchmarks.endurance [--fits 500] [--predicts 10000] [--interruptions 500]

``tests/endurance.py`` says what is counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

from sklearn.base import clone

from tests.endurance import growth, interrupt_everywhere, make_model, make_rows


def main() -> None:
    """Run and print a table; status 1 where memory grows or a state is half done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=500)
    parser.add_argument("--predicts", type=int, default=10_000)
    parser.add_argument("--interruptions", type=int, default=500)
    parser.add_argument("--most-growth", type=float, default=20_000, help="bytes per fit")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    frame, y = make_rows()
    model = make_model().fit(frame, y)
    is_wrong = False
    runs = {
        "fits": (lambda: clone(model).fit(frame, y), options.fits, options.most_growth),
        "refits": (lambda: model.fit(frame, y), options.fits // 5, options.most_growth),
        "predicts": (lambda: model.predict_proba(frame), options.predicts, 500),
    }
    for name, (call, n_calls, most) in runs.items():
        began = time.perf_counter()
        grown = growth(call, n_calls)
        is_wrong |= grown > most
        seconds = time.perf_counter() - began
        print(f"{n_calls} {name}: {grown:+,.0f} bytes per call, {seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        endings = interrupt_everywhere(options.interruptions, Path(folder))
    for (name, ending), number in sorted(endings.items()):
        is_wrong |= any(word.isupper() and len(word) > 1 for word in ending.split())
        print(f"interrupted {name}: {number} {ending}")
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
