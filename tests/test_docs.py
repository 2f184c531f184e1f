"""Documentation and README are true: messages exist, lists are complete, the README's code runs."""

import re
import textwrap
import warnings
from pathlib import Path

import pandas as pd
import pytest
from sklearn import model_selection

import sklearn_din
from sklearn_din import datasets, metrics

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


def test_the_guide_stays_short_before_its_appendix():
    index = (DOCS / "guide" / "index.rst").read_text(encoding="utf-8")
    before, _ = index.split(":caption: Appendix")
    pages = re.findall(r"^   (\w+)$", before, re.M)
    assert pages[:2] == ["impressions", "clicks"]  # the quick path
    words = {page: len((DOCS / "guide" / f"{page}.rst").read_text().split()) for page in pages}
    assert sum(words.values()) <= 13_050, words


def test_pages_speak_plain_english():
    for page in [*PAGES, README, AGENTS]:
        word = re.search(r"\b(twins?|wings?|kin|STILL|AS_SEEN)\b", page.read_text(encoding="utf-8"))
        assert word is None, (page.name, word)


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


def test_the_readmes_python_blocks_run_in_order(capsys):
    names, text = run_python_blocks(README), README.read_text(encoding="utf-8")
    said = re.findall(r"(\w+): AUC (\d\.\d+)", text)
    printed = re.findall(r"(\w+): AUC (\d\.\d+)", capsys.readouterr().out)
    assert [name for name, _ in said] == [name for name, _ in printed] == ["frozen", "live"]
    for (_, auc), (_, here) in zip(said, printed, strict=True):
        assert float(here) == pytest.approx(float(auc), abs=0.004)
    first = text.partition("```python\n")[2].partition("```")[0]
    page = (DOCS / "index.rst").read_text(encoding="utf-8").replace("\n   ", "\n")
    assert first in page  # the documentation begins with the same
    assert len(names["scores"]) == 2
    assert names["probability"].min() >= 0
    assert names["search"].best_params_


def test_both_readmes_give_the_same_commands():
    command = re.compile(r"^(make \w+|pip install \S+|python -m .*?)(?: {2,}#| *$)", re.M)
    texts = (path.read_text(encoding="utf-8") for path in (README, HOUSE / "README.zh.md"))
    first, second = map(command.findall, texts)
    assert first == second
    assert first[0] == 'pip install ".[plot]"'  # for users, before make
    assert first[-2:] == ["make main", "make test"]
