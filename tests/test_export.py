"""An exported file gives the same numbers as the classifier, on any batch and any length."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder, export_onnx
from sklearn_din.neighbours.item_scores import ItemScores
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.serving import export, onnx_graph
from sklearn_din.serving.export import neighbour_numbers
from tests.click_frames import OF_TWINS, TWINS
from tests.encoded_impressions import far, make_impressions, make_prices
from tests.network_options import name_of, networks
from tests.padded_network import padded_logits

pytestmark = pytest.mark.slow

WHY = "needs onnx and onnxruntime: pip install 'sklearn-din[onnx]'"
onnx = pytest.importorskip("onnx", reason=WHY)
runtime = pytest.importorskip("onnxruntime", reason=WHY)

CLICKS = ("hist_item", "hist_category")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "model.onnx")


def fitted_classifier(X=None, **parameters):
    """A classifier whose weights, slopes and running averages are far from where they start."""
    X = make_impressions(64, seed=1) if X is None else X
    small = {"attention_units": (8, 4), "hidden_units": (9, 5), "embedding_dim": 4}
    small |= {"max_epochs": 2, "random_state": 0, "early_stopping": False}
    classifier = DINClassifier(**small | parameters)
    classifier.fit(X, np.arange(len(X)) % 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in classifier.module_.state_dict().values():
            tensor += 0.3 * torch.rand(tensor.shape, generator=generator)
    return classifier


def session_of(path, classifier, **options):
    """Write a file and open it."""
    export_onnx(classifier, path, **options)
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_same(session, classifier, X, feed=None):
    """The file says what the classifier does; inputs are named as the keys of the impressions."""
    feed = feed or {one.name: X[one.name] for one in session.get_inputs()}
    probability, logit = session.run(["probability", "logit"], feed)
    expected = classifier.decision_function(X)
    assert probability.shape == logit.shape == (len(X),)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-expected)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(logit, expected, rtol=1e-5, atol=1e-5)
    return expected


def other_batches(make=make_impressions):
    """Many rows, one row, one row without events, several, longer histories, numbers far off."""
    X = make(50, seed=7)
    long = make(9, seed=8, max_length=30)
    long = EncodedFeatures(X.schema, long.columns, long.behaviours)
    without = [row for row in range(50) if not X[row : row + 1][CLICKS[0]].size]
    assert len(without) > 1
    return [X, X[1:2], X[:1], X[without], long, far(X)]


NETWORKS = [*networks("interest", "pooling"), *networks("interest", "attention_normalization")]
NETWORKS += [*networks("attention_activation"), *networks("activation")]
NETWORKS += [
    {"activation": "dice", "attention_activation": "dice", "attention_normalization": "softmax"},
    {"activation": "relu", "dropout": 0.3},
    {"embedding_dim": {"item": 6, "category": 2, "tags": 3}},
    {"attention_units": (7,), "hidden_units": (6,)},
]


CASES = [pytest.param(make_impressions, network, id=name_of(network)) for network in NETWORKS]
OF_PRICES = {}, {"pooling": "sum"}, {"interest": "paper"}
CASES += [pytest.param(make_prices, its, id=f"prices-{name_of(its)}") for its in OF_PRICES]


def rank_inputs(session, X):
    """Inputs of the layout for one user: of each history the first row alone."""
    bags = {"tags", "tags_mask"}
    feed = {one.name: X[one.name] for one in session.get_inputs()}
    return {n: v[:1] if v.ndim == 2 and n not in bags else v for n, v in feed.items()}


@pytest.mark.parametrize(("make", "network"), CASES)
def test_a_file_gives_the_classifiers_probabilities_and_one_for_one_history_ranks_alike(
    make, network, path, monkeypatch
):
    monkeypatch.setattr(export, "PAIRS_PER_BLOCK", 100)  # 2 events of 50 rows, 11 of 9
    classifier = fitted_classifier(make(64, seed=1), **network)
    of_rows, session = (session_of(path, classifier, layout=way) for way in ("rows", "ranking"))
    for X in other_batches(make):
        logits = assert_same(of_rows, classifier, X)
        with torch.no_grad():
            padded = padded_logits(classifier.module_, X)
        np.testing.assert_allclose(logits, padded, rtol=1e-5, atol=1e-5)
        for row in {0, len(X) // 2}:
            shown = X[np.full(len(X), row)]
            shown.columns = dict(X.columns)
            shown.behaviours["tags",] = X.behaviours["tags",]
            assert_same(session, classifier, shown, rank_inputs(session, shown))


def test_a_column_named_like_a_joint_behaviour_has_inputs_of_its_own(path):
    X = HistorySequenceEncoder(histories=OF_TWINS).fit_transform(TWINS)
    classifier = fitted_classifier(X)
    session, column = session_of(path, classifier), "hist_item+hist_kind"
    names = [one.name for one in session.get_inputs()]
    assert names[2:] == ["hist_item", "hist_kind", column, "hist_item_mask", f"{column}_mask"]
    assert session.get_inputs()[-1].shape == ["n", f"T_{column}"]
    assert_same(session, classifier, X)


@pytest.mark.parametrize("layout", export.LAYOUTS)
def test_every_node_of_a_file_has_a_name_of_its_own_and_is_of_use(layout, path):
    export_onnx(fitted_classifier(), path, layout=layout)
    graph = onnx.load(path).graph
    nodes = [*graph.node, *(n for node in graph.node for a in node.attribute for n in a.g.node)]
    names = [node.name for node in nodes]
    assert all(names)
    assert len(set(names)) == len(names)
    used = {name for node in nodes for name in node.input} | {one.name for one in graph.output}
    used |= {one.name for node in nodes for a in node.attribute for one in a.g.output}
    assert not [node.name for node in nodes if used.isdisjoint(node.output)]
    assert not [one.name for one in graph.initializer if one.name not in used]
    shapes = [tuple(constant.dims) for constant in graph.initializer]
    assert [shapes.count((n_ids, 4)) for n_ids in (12, 6, 5)] == [1, 1, 1]  # tables, once each


def test_no_candidate_has_no_probability(path):
    session = session_of(path, fitted_classifier(), layout="ranking")
    X = make_impressions(3)
    feed = rank_inputs(session, X)
    of_user = [one.name for one in session.get_inputs() if one.shape[0] == 1]
    feed = {name: value if name in of_user else value[:0] for name, value in feed.items()}
    assert session.run(["probability"], feed)[0].shape == (0,)


def test_without_onnx_the_extra_is_named(monkeypatch, path):
    classifier = fitted_classifier()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-din\[onnx\]'"):
        export_onnx(classifier, path)


def test_what_cannot_be_exported_says_so(path):
    message = r"export_onnx needs a DINClassifier, .* got StandardScaler"
    with pytest.raises(TypeError, match=message):
        export_onnx(StandardScaler(), path)
    X, y = np.eye(4), [0, 1, 0, 1]
    scaled = make_pipeline(StandardScaler(), DINClassifier(max_epochs=1)).fit(X, y)
    with pytest.raises(TypeError, match="export_onnx needs a HistorySequenceEncoder among"):
        export_onnx(scaled, path)
    frame = pd.DataFrame({"logit": [0.0, 1.0, 2.0, 3.0]})
    named = DINClassifier(max_epochs=1).fit(frame, y)
    message = r"fields \['logit'\] have the names of the file's outputs"
    with pytest.raises(ValueError, match=message):
        export_onnx(named, path)
    classifier = fitted_classifier()
    message = f"layout must be one of {', '.join(export.LAYOUTS)}, got 'row'"
    with pytest.raises(ValueError, match=message):
        export_onnx(classifier, path, layout="row")
    classifier.module_.mlp.append(torch.nn.Tanh())
    with pytest.raises(TypeError, match=r"cannot write a layer of type Tanh; it can write Linear"):
        export_onnx(classifier, path)


def pair_of_few_neighbours(n_ids, *, seed=0):
    """Item neighbours of 30 of many ids, as EASE has them: no more than its 3,000 items."""
    rng = np.random.default_rng(seed)
    parts = []
    for most in (20, 7):
        scores = np.zeros((n_ids, n_ids), dtype=np.float32)
        for candidate in rng.choice(n_ids, 30, replace=False):
            events = rng.choice(n_ids, rng.integers(1, most + 1), replace=False)
            scores[candidate, events] = rng.normal(size=len(events))
        parts.append(csr_array(scores))
    popularity = rng.random((3, n_ids), dtype=np.float32)
    names, scale = tuple(f"number_{i}" for i in range(14)), np.arange(1, 15, dtype=np.float32)
    scores = ItemScores(*parts, *popularity)
    shown = popularity[:2, None]
    return NeighbourPair("hist", "item", names, (scores,), (parts[0],), *shown, 1.0, scale)


def test_ids_without_item_neighbours_take_no_room():
    n_ids = 1000
    pair, graph = pair_of_few_neighbours(n_ids), onnx_graph.Graph(onnx)
    item = graph.input("item", np.int32, ("n",))
    hist = graph.input("hist", np.int32, ("n", "t"))
    mask = graph.input("mask", np.float32, ("n", "t"))
    graph.output("numbers", neighbour_numbers(pair, item, hist, mask))
