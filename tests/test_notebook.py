"""What a notebook shows: honest counts, the network in its box, links that exist or none."""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError

import pandas as pd
import pytest
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr
from sklearn.utils.fixes import parse_version

from sklearn_din import DINClassifier, HistorySequenceEncoder, _notebook
from sklearn_din.inspection.diagram import network_diagram

FRAME = pd.DataFrame(
    {"item": ["hat", "tie"], "price": [1.0, 2.0], "hist_item": [["tie"], ["hat", "hat"]]}
)


@pytest.fixture(scope="module")
def model():
    return make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1)).fit(FRAME, [0, 1])


def test_a_pipeline_shows_the_network_inside_the_classifiers_box(model):
    drawing = network_diagram(model[-1])
    for shown in (model, model[-1]):
        html = estimator_html_repr(shown)
        assert html.count(drawing) == 1
        assert html.index("DINClassifier") < html.index(drawing)
        assert shown._repr_mimebundle_()["text/html"].count(drawing) == 1
    assert "<svg" not in estimator_html_repr(make_pipeline(DINClassifier()))


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"),
    reason="scikit-learn's boxes list features since 1.9",
)
def test_the_encoders_box_counts_columns_and_not_places_of_padding(model):
    for shown in (model, model[0]):
        html = estimator_html_repr(shown)
        assert "3 columns, histories of up to 50 events" in html
        # scikit-learn lists 52 features after the box: the rule in the box hides them
        box = html.index('<span class="sklearn-din-encoder">')
        assert re.search(r'</div></div></div>\s*<div class="features', html[box:])
        assert ".sk-item:has(.sklearn-din-encoder) + .features { display: none }" in html


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"),
    reason="scikit-learn's boxes list features since 1.9",
)
def test_an_encoder_without_histories_leaves_scikit_learns_count():
    encoder = HistorySequenceEncoder().fit(FRAME[["item", "price"]])
    html = estimator_html_repr(encoder)
    assert "2 features" in html
    assert "sklearn-din-encoder" not in html
    assert "columns, histories" not in estimator_html_repr(HistorySequenceEncoder())


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
