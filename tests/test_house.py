"""The house: one map, which CONTRIBUTING.md draws; imports only go down it."""

import ast
import re
from pathlib import Path

import pytest

import sklearn_din
from sklearn_din.utils import extras
from tests.conftest import PROOFS, SLOW

PACKAGE = Path(sklearn_din.__file__).parent
FILES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)


def read_map():
    """File -> (row, wing), and wing -> wings that it may import from, out of CONTRIBUTING.md."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places, allowed, wing = {}, {}, ""
    for first, wings, file in re.findall(
        r"^\|([^|\n]*)\|([^|\n]*)\| `([\w/]+\.py)` \|", text, re.M
    ):
        if first.strip():
            wing = first.strip()
            allowed[wing] = {wing, *(name.strip() for name in wings.split(","))}
        places[file] = len(places), wing
    return places, allowed


PLACES, ALLOWED = read_map()


def imports_of(file):
    """Files of the package that a file imports from, also inside its functions.

    What is imported for annotations alone is left out.
    """
    found, tree = set(), ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn_din"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        paths = {f"{name.removeprefix('sklearn_din.').replace('.', '/')}.py" for name in names}
        inside = {name for name in names if name.startswith("sklearn_din")}
        assert not inside or paths & set(FILES), f"{file} imports {inside}: name the file itself"
        found |= paths & set(FILES)
    return found


def test_the_map_shows_every_file_and_no_other():
    assert sorted(PLACES) == FILES


@pytest.mark.parametrize("file", FILES)
def test_imports_only_go_down_the_map(file):
    row, wing = PLACES[file]
    for imported in imports_of(file):
        imported_row, imported_wing = PLACES[imported]
        assert imported_row < row, f"{file} must not import {imported}, which stands below it"
        assert imported_wing in ALLOWED[wing], (
            f"{wing} ({file}) must not import {imported_wing} ({imported})"
        )


EXTRAS = {*extras.EXTRAS, "main job"}


def test_the_core_imports_no_extra():
    """They import from the core, and the core loads them by name where something is theirs."""
    for part, wanted in ALLOWED.items():
        assert part in EXTRAS or not wanted & EXTRAS, part
    asked = re.findall(r'import_module\("sklearn_din\.(\w+)\.(\w+)"\)', "".join(map(_read, FILES)))
    for part, file in asked:
        assert part in EXTRAS
        assert f"{part}/{file}.py" in FILES


def _read(file):
    return (PACKAGE / file).read_text(encoding="utf-8")


NAMES = r"[\"'}]_(rate|mean|count|elapsed|share|to_mean|is_best|missing)[\"']|\"hist_\""
READERS = r"import .*\b(find_levels|find_compared|COUNTS|PREFIX)\b"
READING = {"features": "request_columns schema", "logs": "attach history_builder"}
READING |= {"encoding": "ids number table table_columns", "command_line": "tables"}


def test_the_encoder_alone_reads_from_names_what_columns_are():
    places = {f"{part}/{name}.py" for part, names in READING.items() for name in names.split()}
    assert {file for file in FILES if re.search(f"{NAMES}|{READERS}", _read(file))} == places


WITHOUT_TORCH = ("logs", "features", "neighbours", "encoding", "encoder")


@pytest.mark.parametrize("file", [file for file in FILES if PLACES[file][1] in WITHOUT_TORCH])
def test_frames_never_meet_torch(file):
    assert not re.search(r"^\s*(import|from) (torch|skorch)", _read(file), re.M)


def test_the_package_names_what_it_offers():
    assert {*sklearn_din.__all__, "datasets", "metrics"} <= set(dir(sklearn_din))
    assert all(getattr(sklearn_din, name) is not None for name in sklearn_din.__all__)
    with pytest.raises(AttributeError, match="no attribute 'HistoryEncoder'"):
        _ = sklearn_din.HistoryEncoder


def test_the_map_refuses_what_it_should():
    encoding = next(wing for file, (_, wing) in PLACES.items() if file.endswith("cells.py"))
    assert not ALLOWED[encoding] & {"network", "training", "estimator", "batches"}
    assert PLACES["module.py"][0] < PLACES["estimator.py"][0]


def test_the_tests_that_are_called_slow_or_proofs_are_there():
    for files, names in [*SLOW.items(), *PROOFS.items()]:
        for file in files.split():
            text = Path(__file__).with_name(f"test_{file}.py").read_text(encoding="utf-8")
            assert [name for name in names.split() if f"def test_{name}(" not in text] == []
