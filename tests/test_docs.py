"""The documentation is true: its code runs, its messages exist, its lists are complete."""

import re
import textwrap
import warnings
from pathlib import Path

import pytest

import sklearn_din
from sklearn_din import datasets, metrics

HOUSE = Path(__file__).resolve().parents[1]
DOCS = HOUSE / "docs"
PAGES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("guide/*.rst")])
EXAMPLES = sorted((HOUSE / "examples").glob("plot_*.py"))
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:(?:   .*)?\n)+)", re.M)


def code_of(page):
    return [textwrap.dedent(block) for block in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", [p for p in PAGES if code_of(p)], ids=lambda page: page.stem)
def test_a_pages_code_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot", reason="the start page draws: install '.[plot]'")
    if page.stem == "serving":
        pytest.importorskip("onnx", reason="the page exports a model: install '.[onnx]'")
    plt.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in code_of(page):
            exec(compile(block, str(page), "exec"), names)
    plt.close("all")


def test_every_code_block_of_the_guide_is_found():
    for page in PAGES:
        directives = page.read_text(encoding="utf-8").count("code-block:: python")
        assert len(code_of(page)) == directives, page.name
    assert sum(len(code_of(page)) for page in PAGES) >= 20


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


def test_every_example_is_a_gallery_example():
    assert len(EXAMPLES) >= 7
    for example in EXAMPLES:
        text = example.read_text(encoding="utf-8")
        title, rule = text.split("\n")[1:3]
        assert text.startswith('"""\n'), example.name
        assert rule == "=" * len(title), example.name


def test_the_site_needs_no_network():
    configuration = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert "intersphinx" not in configuration
    assert "http" not in configuration
