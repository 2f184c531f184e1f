"""Thousands of frames that nobody should have made, through every function that takes a frame.

``python -m benchmarks.hostile_frames [--frames N] [--seed S] [--steps NAME ...]`` prints how many
frames of ``hostile_draws.py`` ended how, and the first of each kind of failure.
"""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.hostile_draws import STEPS, draw_frame, verdict


def run(
    n_frames: int, seed: int, *, shown: int = 0, steps: Sequence[str] = tuple(STEPS)
) -> collections.Counter:
    """Draw frames and count the verdicts by step; failures are printed once by their place."""
    counts: collections.Counter = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for number in range(n_frames):
        frame = draw_frame(np.random.default_rng([seed, number]))
        for name in steps:
            step = STEPS[name]
            if number % step.every or not step.takes(frame):
                continue
            began = time.perf_counter()
            kind, said = verdict(step.run, frame)
            if time.perf_counter() - began > 20:
                kind, said = "FAILURE", "more than 20 s"
            counts[name, kind] += 1
            place = name, said.partition(": ")[0]
            if kind == "FAILURE" and place not in seen and len(seen) < shown:
                seen.add(place)
                print(f"frame {number}, {name}: {said:.300}", flush=True)
    return counts


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", nargs="+", choices=tuple(STEPS), default=tuple(STEPS))
    options = parser.parse_args()
    began = time.perf_counter()
    counts = run(options.frames, options.seed, shown=40, steps=options.steps)
    print(f"{options.frames} frames, seed {options.seed}, {time.perf_counter() - began:.0f} s")
    kinds = ("answer", "own error", "FAILURE")
    table = {kind: {name: counts[name, kind] for name in options.steps} for kind in kinds}
    print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main()
