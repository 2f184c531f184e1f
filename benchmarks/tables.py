"""Markdown tables of what was measured."""


def print_table(head, rows):
    """Print a table of texts, each row as soon as it comes."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def print_frame(frame, title=""):
    """Print a frame of texts under a title, its index as the first column."""
    print(f"\n### {title}" if title else "")
    print_table(["", *map(str, frame.columns)], ([str(i), *row] for i, *row in frame.itertuples()))
