"""Markdown tables of what was measured."""

import pandas as pd


def print_table(head, rows):
    """Print a table of texts, each row as soon as it comes."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def print_frame(frame, title=""):
    """Print a frame of texts under a title, its index as the first column."""
    print(f"\n### {title}" if title else "")
    print_table(["", *map(str, frame.columns)], ([str(i), *row] for i, *row in frame.itertuples()))


def print_means(results):
    """Print means over seeds by set and way; return log losses by set and seed, each way's own."""
    table = pd.DataFrame(results)
    means = table.drop(columns="seed").groupby(["set", "way"], sort=False).mean()
    print_frame(means.map("{:.4f}".format).reset_index(), "Means over seeds")
    return table.pivot(index=["set", "seed"], columns="way", values="loss")


def print_changes(changes, title):
    """Print means over seeds by set of what changes, and their standard errors."""
    of_sets = changes.groupby("set", sort=False)
    both = of_sets.mean().map("{:+.4f}".format) + of_sets.sem().map(" ± {:.4f}".format)
    print_frame(both.reset_index(), title)
