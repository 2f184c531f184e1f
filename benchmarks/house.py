"""The size of the house by wing, beside what it was before it was rebuilt.

``python -m benchmarks.house`` (``make house``) prints files, lines and classes of each wing of the
package, of the tests and of the benchmarks, and what the four names of the README load. Lines are
all lines, docstrings and comments included: a mirror, not a law.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sklearn_din"
FOUR_NAMES = "DINClassifier, HistorySequenceEncoder, attach_history, sample_negatives"
LOADED = "files of the package that README's four names load"
# Files, lines and classes at commit 6c80f22, the last one before the rebuilding.
BEFORE = {
    "single files": (21, 3926, 17),
    "batches": (3, 538, 7),
    "command_line": (8, 932, 7),
    "datasets": (5, 694, 4),
    "encoding": (27, 5488, 34),
    "features": (6, 833, 7),
    "inspection": (10, 1617, 12),
    "logs": (26, 5447, 34),
    "network": (10, 1932, 19),
    "serving": (15, 2815, 10),
    "state": (8, 1142, 7),
    "training": (26, 4502, 18),
    "sklearn_din": (165, 29866, 176),
    LOADED: (123, 22858, 148),
    "tests": (97, 19170, 45),
    "benchmarks": (47, 8096, 27),
}


def count(paths):
    """Return the number of files, of their lines, and of the classes that they define."""
    texts = [path.read_text(encoding="utf-8") for path in paths]
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    n_classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    return len(texts), sum(text.count("\n") for text in texts), n_classes


def loaded_files():
    """Return the files of the package that are imported together with the four names."""
    code = (
        f"from sklearn_din import {FOUR_NAMES}; import json, sys; "
        "modules = [name for name in sys.modules if name.split('.')[0] == 'sklearn_din']; "
        "print(json.dumps([sys.modules[name].__file__ for name in modules]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return [Path(name) for name in json.loads(answer.stdout)]


def count_wings():
    """Return the counts of each wing, of the whole package and of what stands beside it."""
    wings = {"single files": sorted(PACKAGE.glob("*.py"))}
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        wings[folder.name] = sorted(folder.rglob("*.py"))
    wings["sklearn_din"] = sorted(PACKAGE.rglob("*.py"))
    wings[LOADED] = loaded_files()
    wings["tests"] = sorted((ROOT / "tests").rglob("*.py"))
    wings["benchmarks"] = sorted((ROOT / "benchmarks").rglob("*.py"))
    return {wing: count(paths) for wing, paths in wings.items()}


def main():
    """Print the table."""
    now = count_wings()
    print("Now, and in brackets before.\n")
    print("| wing | files | lines | classes |\n|---|---|---|---|")
    for wing in sorted({*now, *BEFORE}, key=[*BEFORE, *now].index):
        files, lines, classes = now.get(wing, (0, 0, 0))
        before = BEFORE.get(wing, (0, 0, 0))
        cells = [
            f"{value:,} ({old:,})"
            for value, old in zip((files, lines, classes), before, strict=True)
        ]
        print(f"| {wing} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
