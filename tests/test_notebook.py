"""What a notebook shows: the network below its box, links that exist or none."""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError

import pandas as pd
import pytest
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from sklearn_din import DINClassifier, HistorySequenceEncoder, _notebook
from sklearn_din.inspection.diagram import network_diagram

FRAME = pd.DataFrame(
    {"item": ["hat", "tie"], "price": [1.0, 2.0], "hist_item": [["tie"], ["hat", "hat"]]}
)


@pytest.fixture(scope="module")
def model():
    return make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1)).fit(FRAME, [0, 1])


def test_a_notebook_shows_the_network_below_the_classifiers_box(model):
    drawing = network_diagram(model[-1])
    for html in (model[-1]._repr_html_(), model[-1]._repr_mimebundle_()["text/html"]):
        assert html.count(drawing) == 1
        assert html.index("DINClassifier") < html.index(drawing)
    assert "<svg" not in DINClassifier()._repr_html_()
    with sklearn.config_context(display="text"):
        assert not hasattr(model[-1], "_repr_html_")
        assert set(model[-1]._repr_mimebundle_()) == {"text/plain"}


@pytest.fixture
def addresses(monkeypatch):
    """Let the package's metadata name these addresses."""

    def set_urls(*urls):
        message = Message()
        for url in urls:
            message["Project-URL"] = url
        monkeypatch.setattr(_notebook, "metadata", lambda name: message)

    _notebook.documentation_url.cache_clear()
    yield set_urls
    _notebook.documentation_url.cache_clear()


def links(estimator):
    return re.findall(r'href="([^"#]*)"', estimator_html_repr(estimator))


@pytest.mark.parametrize("label", ["Documentation", "docs"])
def test_the_question_mark_opens_the_documentation_that_the_project_names(addresses, label):
    addresses("Source, https://source.invalid", f"{label}, https://docs.invalid/din/")
    for estimator in (HistorySequenceEncoder(), DINClassifier()):
        page = f"https://docs.invalid/din/generated/sklearn_din.{type(estimator).__name__}.html"
        assert links(estimator)[0] == page


def test_without_documentation_there_is_no_question_mark(addresses, monkeypatch):
    addresses("Source, https://source.invalid")
    assert links(DINClassifier()) == []

    def not_installed(name):
        raise PackageNotFoundError(name)

    _notebook.documentation_url.cache_clear()
    monkeypatch.setattr(_notebook, "metadata", not_installed)
    assert links(make_pipeline(HistorySequenceEncoder())[0]) == []
