"""Saved files changed in thousands of ways: none may run code, take memory, or predict wrongly.

    python -m benchmarks.tampering [--mutations 6000] [--seed 0]

Each mutation (``tampered_files.py``) changes a file of ``sklearn_din.save``. Where "forged"
stands, the zip was put together again, so that its checksums agree and what stands behind them is
met. A file may then hold another model, as valid as the first ("another model"): sums guard against
damage, only a signature would guard against forgery. Everywhere else, the outcome must be an error
of ours or the very same predictions.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd

from benchmarks.tampered_files import (
    DAMAGES,
    FORGERIES,
    MEMORY_FLOOR,
    MEMORY_PER_BYTE,
    OUTCOMES,
    Judge,
    make_models,
    watch,
)


def try_mutations(n_mutations, seed, folder):
    """Outcomes by kind of mutation, sentences of wrong ones, most memory by the limit."""
    judge = Judge(*make_models(), folder)
    counts, wrong = defaultdict(Counter), []
    chance = random.Random(seed)
    kinds = DAMAGES | FORGERIES
    drawn = list(kinds) + chance.choices(list(kinds), list(kinds.values()), k=n_mutations)
    for number, mutate in enumerate(drawn[:n_mutations]):
        name = chance.choice(list(judge.saved))
        content = mutate(chance, judge.saved[name])
        outcome, sentence = judge.outcome(name, content, is_forged=mutate in FORGERIES)
        counts[mutate.__name__, mutate in FORGERIES][outcome] += 1
        if outcome == "WRONG":
            wrong.append(f"{number} {mutate.__name__} of {name}: {sentence}")
    return counts, wrong, judge.worst_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    watch()
    with tempfile.TemporaryDirectory() as folder:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (3 << 30),) * 2)
        counts, wrong, memory = try_mutations(arguments.mutations, arguments.seed, folder)
    table = pd.DataFrame(counts).T.reindex(columns=OUTCOMES).fillna(0).astype(int)
    table.index.names = ["mutation", "forged"]
    table.loc[("all", ""), :] = table.sum()
    print(table.astype(int).to_string())
    limit = f"{MEMORY_FLOOR >> 20} MiB + {MEMORY_PER_BYTE} bytes per byte of the file"
    print(f"\nmost memory: {memory:.0%} of {limit}")
    print("\n".join(wrong) or "none wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
