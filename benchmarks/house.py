"""Lines of the package: by part and kind, and how much of it the core needs.

``python -m benchmarks.house`` (``make house``) takes each folder as a part. Checks are the lines of
``raise`` and of warnings; comments count as blank. The next rows are what the core reaches by
imports and by names (``import_module("...")``), what one fit and predict loads, and the files that
CONTRIBUTING.md's nine steps name. C++, JavaScript, CSS and HTML are counted separately.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.tables import print_table

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sklearn_din"
FILES = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
KINDS = ("code", "checks", "imports", "docstrings", "blank")
CORE = ("transformers", "estimator", "regressor", "saving", "metrics", "model_selection")
CORE += ("logs/attach", "logs/history_builder", "logs/negatives", "logs/aggregates")
ONE_FIT = """
import sys
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, sample_negatives
log = pd.DataFrame({"user": [1, 1, 2, 2] * 5, "item": ["hat", "tie"] * 10, "time": range(20)})
X, y = sample_negatives(log, item="item", random_state=0)
X = attach_history(X, log, user="user", time="time", columns="item")
encoder = HistorySequenceEncoder(user="user", time="time")
make_pipeline(encoder, DINClassifier(max_epochs=1)).fit(X, y).predict_proba(X)
print(*(m.__file__ for name, m in sys.modules.items() if name.startswith("sklearn_din")))
"""


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


def imports_of(file):
    """Files that a file imports, also within functions; not those for annotations alone."""
    tree = ast.parse((PACKAGE / file).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {f"{name.removeprefix('sklearn_din.').replace('.', '/')}.py" for name in names}
    return paths & FILES


def loads_by_name(file):
    """Files that a file loads by their names."""
    loaded = r'import_module\("sklearn_din\.([\w.]+)"\)'
    names = re.findall(loaded, (PACKAGE / file).read_text("utf-8"))
    return {f"{name.replace('.', '/')}.py" for name in names} & FILES


def registers_with(file, core):
    """Return whether a file registers implementations with a function of the core."""
    registered = r"^@\w+\.register|^\w+\.register\("
    return bool(re.search(registered, (PACKAGE / file).read_text("utf-8"), re.M)) and bool(
        imports_of(file) & core
    )


def reach(files, *follow):
    """Return all files that some can reach."""
    reached, new = set(), {*files}
    while new:
        reached |= new
        new = {other for file in new for way in follow for other in way(file)} - reached
    return reached


def files_of_the_steps():
    """Files that the nine steps of CONTRIBUTING.md name; a bare name is of the folder before it."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    steps = text[text.index("## How a row becomes") : text.index("## Extras")]
    files = set()
    for step in re.split(r"\n(?=\d\. )", steps):
        folder = ""
        for name in re.findall(r"`([\w/]+\.py)`", step):
            path = name if name in FILES else f"{folder}/{name}"
            assert path in FILES, f"CONTRIBUTING.md names {name}, which is not there"
            files.add(path)
            folder = path.rpartition("/")[0] or folder
    return files


def files_of_one_fit():
    """Files that a fit and a prediction of a frame load."""
    command = [sys.executable, "-W", "ignore", "-c", ONE_FIT]
    child = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {Path(name).relative_to(PACKAGE).as_posix() for name in child.stdout.split()}


def count_code(kinds):
    """Return the lines that are neither docstrings nor blank nor comments."""
    return sum(kinds[kind] for kind in ("code", "checks", "imports"))


def sum_lines(files):
    """Count the lines of some files of the package by kind."""
    return sum((kinds_of_lines((PACKAGE / file).read_text("utf-8")) for file in files), Counter())


def main():
    files_of = {}
    for file in sorted(FILES):
        files_of.setdefault(file.rpartition("/")[0] or "files of no folder", []).append(file)
    rows = {name: (len(files), sum_lines(files)) for name, files in files_of.items()}
    rows["sklearn_din"] = len(FILES), sum_lines(FILES)
    core = reach((f"{name}.py" for name in CORE), imports_of)
    by_name = reach(core, imports_of, loads_by_name)
    registered = {file for file in FILES - core if registers_with(file, core)}
    groups = {
        "core, by imports": core,
        "core, by names too": by_name,
        "core, with what registers": reach(by_name | registered, imports_of, loads_by_name),
        "one fit and predict": files_of_one_fit(),
        "the nine steps": files_of_the_steps(),
    }
    rows |= {name: (len(files), sum_lines(files)) for name, files in groups.items()}
    for folder in ("tests", "benchmarks"):
        paths = sorted((ROOT / folder).rglob("*.py"))
        lines = sum((kinds_of_lines(p.read_text("utf-8")) for p in paths), Counter())
        rows[folder] = len(paths), lines
    print_table(
        ["part", "files", "lines", "without docstrings", *KINDS],
        (
            [name, *(f"{n:,}" for n in (n, c.total(), count_code(c), *(c[k] for k in KINDS)))]
            for name, (n, c) in rows.items()
        ),
    )
    others = Counter()
    for path in PACKAGE.rglob("*"):
        if path.suffix in {".cpp", ".h", ".js", ".css", ".html"}:
            others[path.suffix[1:]] += len(path.read_text("utf-8").splitlines())
    print_table(["other lines", "number"], ([name, str(n)] for name, n in sorted(others.items())))


if __name__ == "__main__":
    main()
