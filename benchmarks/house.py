"""Lines of the package by part: code, checks, imports, docstrings, blank.

``python -m benchmarks.house`` (``make house``) reads the parts from CONTRIBUTING.md's map. Checks
are the lines of ``raise`` and of warnings; comments count as blank.
"""

import ast
import re
from collections import Counter
from pathlib import Path

from benchmarks.tables import print_table

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("code", "checks", "imports", "docstrings", "blank")
MAP_ROW = r"^\|([^|\n]*)\|[^|\n]*\| `([\w/]+\.py)` \|"


def kinds_of_lines(text):
    """Return how many lines of a file are of each kind."""
    lines = text.splitlines()
    kinds = ["blank" if re.match(r"\s*(#|$)", line) else "code" for line in lines]
    for node in ast.walk(ast.parse(text)):
        kind = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            kind = "imports"
        elif isinstance(node, ast.Raise):
            kind = "checks"
        elif isinstance(node, ast.Expr):
            is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            called = ast.unparse(getattr(node.value, "func", node.value))
            kind = "docstrings" if is_text else "checks" if "warn" in called else None
        if kind is not None:
            kinds[node.lineno - 1 : node.end_lineno] = [kind] * (node.end_lineno - node.lineno + 1)
    return Counter(kinds)


def main():
    text, part, by_part = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "", {}
    for first, file in re.findall(MAP_ROW, text, re.M):
        part = first.strip() or part
        path = ROOT / "sklearn_din" / file
        by_part.setdefault(part, Counter()).update(kinds_of_lines(path.read_text("utf-8")))
    by_part["sklearn_din"] = sum(by_part.values(), Counter())
    for folder in ("tests", "benchmarks"):
        paths = sorted((ROOT / folder).rglob("*.py"))
        by_part[folder] = sum((kinds_of_lines(p.read_text("utf-8")) for p in paths), Counter())
    print_table(
        ["part", "lines", *KINDS],
        (
            [part, *(f"{number:,}" for number in (lines.total(), *(lines[k] for k in KINDS)))]
            for part, lines in by_part.items()
        ),
    )


if __name__ == "__main__":
    main()
