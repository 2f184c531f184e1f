"""What the layer rules of pyproject.toml cannot see; ``lint-imports`` checks the imports."""

import re
from pathlib import Path

import pytest

import sklearn_din
from sklearn_din.utils import extras

PACKAGE = Path(sklearn_din.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TEXTS = {file: path.read_text(encoding="utf-8") for file, path in FILES.items()}


def test_the_core_loads_by_name_only_files_of_extras():
    loaded = re.findall(r'import_module\("sklearn_din\.(\w+)\.(\w+)"\)', "".join(TEXTS.values()))
    assert loaded
    for part, file in loaded:
        assert part in extras.EXTRAS
        assert f"{part}/{file}.py" in FILES


NAMES = r"[\"'}]_(rate|mean|count|elapsed|share|to_mean|is_best|missing)[\"']|\"hist_\""
READERS = r"import .*\b(find_levels|find_compared|COUNTS|PREFIX)\b"
READING = {"features": "level_columns request_columns schema", "logs": "attach history_builder"}
READING |= {"encoding": "ids number table table_columns", "command_line": "tables"}


def test_only_the_encoder_reads_the_meaning_of_columns_from_their_names():
    places = {f"{part}/{name}.py" for part, names in READING.items() for name in names.split()}
    reading = {file for file, text in TEXTS.items() if re.search(f"{NAMES}|{READERS}", text)}
    assert reading == places


def test_the_package_names_what_it_offers():
    assert {*sklearn_din.__all__, "datasets", "metrics"} <= set(dir(sklearn_din))
    assert all(getattr(sklearn_din, name) is not None for name in sklearn_din.__all__)
    with pytest.raises(AttributeError, match="no attribute 'HistoryEncoder'"):
        _ = sklearn_din.HistoryEncoder
