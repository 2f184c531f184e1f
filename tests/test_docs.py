"""Documentation and README are true: messages exist, lists are complete, the README's code runs."""

import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pandas as pd
import pytest
from sklearn import model_selection

import sklearn_din
from sklearn_din import datasets, metrics
from sklearn_din.native.structures import load_library

pytestmark = pytest.mark.slow

HOUSE = Path(__file__).resolve().parents[1]
DOCS, README, AGENTS = (HOUSE / name for name in ("docs", "README.md", "AGENTS.md"))
PAGES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("guide/*.rst")])
EXAMPLES = sorted((HOUSE / "examples").glob("plot_*.py"))
BLOCK = re.compile(r"^\.\. run-python::\n((?:   .*\n)*)\n((?:(?:   .*)?\n)+)", re.M)


def blocks_of(page):
    """Code of a page, which ``make docs`` runs, warnings as errors."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(block) for _, block in found]


def test_every_code_block_of_the_guide_is_found_to_be_run():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(blocks_of(page)) == text.count(".. run-python::"), page.name
        # tests/test_ecosystem.py and benchmarks/ten_lines.py run these beside other libraries
        if page.name not in ("tools.rst", "comparison.rst"):
            assert "code-block:: python" not in text, page.name
    assert sum(len(blocks_of(page)) for page in PAGES) >= 20


def test_lines_of_other_libraries_compile_and_are_as_many_as_the_page_says():
    page = (DOCS / "comparison.rst").read_text(encoding="utf-8")
    begin = r"^\.\. code-block:: python\n   :name: (\S+)\n"
    blocks = re.findall(begin + r"((?:\n|   .*\n)+)", page, re.M)
    assert len(blocks) == 5
    for name, code in blocks:
        compile(textwrap.dedent(code), name, "exec")
        n_lines = sum(bool(line.strip()) for line in code.splitlines())
        row = rf"^   \* - {name}\b.*\n     - {n_lines}$"
        assert re.search(row, page, re.M | re.I), (name, n_lines)


def test_nothing_splits_rows_with_histories_by_chance():
    splits = r"\b(cv=\d|train_test_split\(|(Stratified|Repeated)?KFold\(|ShuffleSplit\()"
    by_rows = re.compile(splits)
    code = [block for page in PAGES for block in blocks_of(page)]
    for page in (README, AGENTS):
        code += re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    code += [example.read_text(encoding="utf-8") for example in EXAMPLES]
    for path in HOUSE.glob("sklearn_din/**/*.py"):
        code += re.findall(r"^ +(?:>>>|\.\.\.) .*$", path.read_text(encoding="utf-8"), re.M)
    for text in code:
        assert not by_rows.search(text), by_rows.search(text)


def test_each_message_in_troubleshooting_is_one_of_ours():
    page = (DOCS / "guide" / "troubleshooting.rst").read_text(encoding="utf-8")
    messages = re.findall(r"^``(.+)``\n   \S", page, re.M)
    assert len(messages) >= 15
    source = " ".join(p.read_text(encoding="utf-8") for p in HOUSE.glob("sklearn_din/**/*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # sentences that go on in the next line
    for message in messages:
        assert message in source, message


def test_the_reference_lists_every_public_name():
    page = (DOCS / "reference" / "index.rst").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   ([a-zA-Z_.]+)$", page, re.M))
    public = set(sklearn_din.__all__)
    public |= {f"datasets.{name}" for name in datasets.__all__}
    public |= {
        f"metrics.{name}"
        for name, value in vars(metrics).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == metrics.__name__
    }
    assert listed >= public, public - listed
    page_of_a_class = DOCS / "_templates" / "autosummary" / "class.rst"
    assert ":inherited-members:" in page_of_a_class.read_text()  # the classifier's fit, of its base


def run_python_blocks(page):
    """Run the Python code of a page of Markdown, and return its names."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    with warnings.catch_warnings(action="error"):
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
    return names


def test_the_page_for_agents_runs_is_short_and_names_what_is_there():
    text = AGENTS.read_text(encoding="utf-8")
    names = run_python_blocks(AGENTS)
    assert names["auc"] > names["baseline"]
    assert len(text.split()) <= 500
    makefile = (HOUSE / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)$", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for file in re.findall(r"`([\w/-]+\.(?:rst|md|py))`", text):
        assert (HOUSE / file).is_file(), file
    names_of_others = {"sklearn_din", "y", *dir(model_selection), *dir(pd.DataFrame)}
    for name in re.findall(r"`(\w+)`", text):
        assert name in names_of_others or hasattr(sklearn_din, name), name


def first_example():
    """Return the first block of code of the README, and the output that stands below it."""
    text = README.read_text(encoding="utf-8")
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S).groups()
    assert text.index("```python") == text.index(f"```python\n{code}")
    return code, output


def test_the_readmes_python_blocks_run_in_order():
    names = run_python_blocks(README)
    assert names["before"].shape == names["after"].shape == (600, 2)
    assert (names["before"] != names["after"]).any()
    assert len(names["scores"]) == 2
    assert names["probability"].min() >= 0
    assert names["search"].best_params_


@pytest.mark.parametrize("kernel", ["plain", "AVX2", "AVX-512", "torch"])
def test_the_first_example_prints_the_same_on_every_processor(kernel):
    code, output = first_example()
    library = load_library()
    number = ["plain", "AVX2", "AVX-512"].index(kernel) if kernel != "torch" else 0
    choose = ""
    if kernel != "torch":
        if library is None or library.din_choose_kernels(number) != number:
            pytest.skip(f"this machine has no native code for {kernel}")
        choose = "from sklearn_din.native.structures import load_library\n"
        choose += f"assert load_library().din_choose_kernels({number}) == {number}\n"
    hidden = {"SKLEARN_DIN_NATIVE": "0"} if kernel == "torch" else {}
    run = subprocess.run(
        [sys.executable, "-c", choose + code],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == output


def test_the_first_page_of_the_documentation_starts_with_the_first_example():
    assert blocks_of(DOCS / "index.rst")[0].strip() == first_example()[0].strip()


def test_both_readmes_give_the_same_commands():
    command = re.compile(r"^(make \w+|pip install \S+|python -m .*?)(?: {2,}#| *$)", re.M)
    texts = (path.read_text(encoding="utf-8") for path in (README, HOUSE / "README.zh.md"))
    first, second = map(command.findall, texts)
    assert first == second
    assert first[0] == 'pip install ".[plot]"'  # for users, before make
    assert first[-2:] == ["make main", "make test"]
