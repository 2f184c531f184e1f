"""The size of the house by wing, beside what it was before it was rebuilt.

``python -m benchmarks.house`` (``make house``) prints files, lines and classes of each wing of the
package, of the tests and of the benchmarks, and what the four names of the README load. Lines are
all lines, docstrings and comments included: a mirror, not a law. Below stands how often the package
uses words that CONTRIBUTING.md bans; ``--words`` names each place.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
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


# Names that pandas, the metric and our users have fixed, and a verb that ends like a participle.
FIXED_NAMES = {"duplicated", "expected_calibration_error", "trusted_types", "_embed"}
BANNED = {"its", "one", "found", "wanted", "kept", "told", "apart"}
WORDS_BEFORE = {
    "variable without a meaning": 250,
    "function named by a participle": 114,
    "docstring that begins with a question": 141,
    "parameter without a description": 60,
}


def list_words(path):
    """Yield (rule, line, name) for each place of a file whose words a stranger stumbles over."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in BANNED:
            yield "variable without a meaning", node.lineno, node.id
        if isinstance(node, ast.FunctionDef):
            is_property = any("property" in ast.unparse(d) for d in node.decorator_list)
            is_fixed = is_property or node.name in FIXED_NAMES
            if re.match(r"_*[a-z0-9]*(?<!e)ed(_|$)", node.name) and not is_fixed:
                yield "function named by a participle", node.lineno, node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = ast.get_docstring(node) or ""
            if re.match(r"(What|Which|How|Whose|Whether)\b", text):
                yield "docstring that begins with a question", node.lineno, node.name
            for name in list_undescribed(text):
                yield "parameter without a description", node.lineno, f"{node.name}({name})"


def list_undescribed(docstring):
    """Return the parameters of a numpydoc docstring below which no description stands."""
    _, _, section = docstring.partition("\nParameters\n----------\n")
    lines = re.split(r"\n\n?\w[\w ]*\n---", section)[0].splitlines()
    named = [i for i, line in enumerate(lines) if re.match(r"\S", line)]
    return [lines[i] for i in named if not "".join(lines[i + 1 : i + 2]).startswith("    ")]


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
    """Print both tables."""
    now = count_wings()
    print("Now, and in brackets before.\n")
    print("| wing | files | lines | classes |\n|---|---|---|---|")
    for wing in sorted({*now, *BEFORE}, key=[*BEFORE, *now].index):
        pairs = zip(now.get(wing, (0, 0, 0)), BEFORE.get(wing, (0, 0, 0)), strict=True)
        print(f"| {wing} | {' | '.join(f'{value:,} ({old:,})' for value, old in pairs)} |")
    places = [(path, *word) for path in PACKAGE.rglob("*.py") for word in list_words(path)]
    rules = Counter(rule for _, rule, _, _ in places)
    print("\n| words | places |\n|---|---|")
    for rule, before in WORDS_BEFORE.items():
        print(f"| {rule} | {rules[rule]} ({before}) |")
    if "--words" in sys.argv:
        for path, rule, line, name in sorted(places):
            print(f"{path.relative_to(ROOT)}:{line}: {rule}: {name}")


if __name__ == "__main__":
    main()
