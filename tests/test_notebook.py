"""What a notebook shows: the network below its box."""

import pandas as pd
import pytest
import sklearn
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder
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
    assert "sklearn-din-network" not in DINClassifier()._repr_html_()
    with sklearn.config_context(display="text"):
        assert not hasattr(model[-1], "_repr_html_")
        assert set(model[-1]._repr_mimebundle_()) == {"text/plain"}
