"""A calibrated Pipeline is ranked, explained, exported, updated and saved as a plain one is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    explain,
    export_onnx,
    history_importance,
    inspect,
    load,
    rank_candidates,
    save,
    update,
)
from sklearn_din.inspection.fitted import Calibrated, split_pipeline
from sklearn_din.serving.export import calibrate
from sklearn_din.serving.onnx_graph import Graph
from tests.fitted_pipelines import make_frame
from tests.test_growth import update_beside

pytestmark = pytest.mark.slow

(KNOWN,) = CalibratedClassifierCV._parameter_constraints["method"]
METHODS = [m for m in ("sigmoid", "isotonic", "temperature") if m in KNOWN.options]


@pytest.fixture(scope="module")
def frame_and_labels():
    return make_frame(n_users=30)


def frozen(model, X, y, method):
    return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(X, y)


def of_all_rows(model, X, y, method):
    return CalibratedClassifierCV(model, method=method, ensemble=False, cv=2).fit(X, y)


def of_a_search(model, X, y, method):
    search = GridSearchCV(model, {"din__max_epochs": [1]}, cv=2).fit(X, y)
    return frozen(search, X, y, method)


def searched(model, X, y, method):
    calibrated = CalibratedClassifierCV(model, ensemble=False, cv=2)
    return GridSearchCV(calibrated, {"method": [method]}, cv=2).fit(X, y)


def last_step(model, X, y, method):
    last = CalibratedClassifierCV(model["din"], method=method, ensemble=False, cv=2)
    return Pipeline([("encode", model["encode"]), ("calibrated", last)]).fit(X, y)


@pytest.fixture(scope="module", params=METHODS)
def calibrated(request, fitted, frame, y):
    """The guide's own advice, by each method that scikit-learn has."""
    return frozen(fitted, frame, y, request.param)


def check_ranking(model, users, candidates):
    """Each user's candidates are those of predict_proba on all pairs, the most probable first."""
    best = rank_candidates(model, users, candidates, top_k=len(candidates))
    pairs = users.merge(candidates, how="cross")[list(model.feature_names_in_)]
    probability = model.predict_proba(pairs)[:, 1].reshape(len(users), -1)
    position = pd.Index(candidates["item"]).get_indexer(best["item"])
    expected = probability[best["row"], position]
    # Between two isotonic thresholds a line may rise by 280 per logit: it enlarges rounding
    np.testing.assert_allclose(best["probability"], expected, atol=1e-4)
    assert (best.groupby("row")["probability"].diff().fillna(0) < 1e-5).all()


def test_rankings_are_calibrated(calibrated, fitted, frame, y, users, candidates):
    check_ranking(calibrated, users, candidates)
    model = frozen(fitted, frame, y, "sigmoid")
    model.calibrated_classifiers_[0].calibrators[0].a_ = 0.7  # turns the order round
    check_ranking(model, users, candidates)


@pytest.mark.parametrize("calibrate", [of_all_rows, of_a_search, searched, last_step])
def test_wherever_the_calibration_stands_and_an_update_leaves_every_shell_as_it_was(
    calibrate, fitted, frame, y, users, candidates, tmp_path
):
    model = calibrate(clone(fitted).set_params(din__max_epochs=1), frame, y, "sigmoid")
    check_ranking(model, users, candidates)
    pieces = split_pipeline(model, purpose="test")
    logits = pieces.classifier.decision_function(pieces.transformers.transform(frame))
    expected = model.predict_proba(frame)[:, 1]
    np.testing.assert_allclose(pieces.calibration(logits), expected, atol=1e-6)
    newer = update_beside(model, frame, frame.assign(item="new" + frame["item"]), y, tmp_path)
    encoder = split_pipeline(newer, purpose="test").encoder
    assert "newi1" in encoder.vocabularies_["item"]
    assert encoder is not split_pipeline(model, purpose="test").encoder


def test_explanations_and_files(calibrated, fitted, frame, users, candidates, tmp_path):
    pd.testing.assert_frame_equal(explain(calibrated, frame[:9]), explain(fitted, frame[:9]))
    path = tmp_path / "calibrated.din"
    save(calibrated, path)
    assert inspect(path)["untrusted"] == []
    again = load(path)
    theirs = rank_candidates(calibrated, users, candidates)
    pd.testing.assert_frame_equal(rank_candidates(again, users, candidates), theirs)


def test_isotonic_steps_are_met_in_the_graph_before_between_and_behind_them(fitted, frame, y):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = frozen(fitted, frame, y, "isotonic")
    calibrator = model.calibrated_classifiers_[0].calibrators[0]
    calibrator.fit(np.float32([-1, 0, 0.5, 1, 1.5]), [0, 0.1, 0.6, 0.6, 1.0])
    logit = np.float32([-9, -0.5, 0, 0.25, 1, 1, 2, 9])
    graph = Graph(onnx)
    given = graph.input("x", np.float32, ("n",))
    graph.output("probability", calibrate(given, Calibrated(model).calibration))
    session = runtime.InferenceSession(graph.model().SerializeToString())
    (probability,) = session.run(None, {"x": logit})
    np.testing.assert_allclose(probability, [0, 0.05, 0.1, 0.35, 0.6, 0.6, 1, 1], atol=1e-6)
    np.testing.assert_allclose(Calibrated(model).calibration(logit), probability, atol=1e-6)


@pytest.mark.parametrize("n_before", [0, 1])
@pytest.mark.filterwarnings("ignore:category of item .* have rows another item's category")
def test_importance_is_a_fall_of_the_calibrated_score(calibrated, fitted, frame, y, n_before):
    before = [("as it is", FunctionTransformer())] * n_before
    model = frozen(Pipeline([*before, *fitted.steps]), frame, y, calibrated.method)
    table = history_importance(model, frame, y, scoring="neg_log_loss", n_repeats=1, random_state=0)
    order = np.random.RandomState(0).permutation(len(frame))
    shuffled = frame.assign(category=frame["category"].to_numpy()[order])
    score = get_scorer("neg_log_loss")
    fall = score(model, frame, y) - score(model, shuffled, y)
    assert table.set_index("feature").loc["category", "importance_mean"] == pytest.approx(fall)


def test_an_update_reaches_the_pipeline_and_leaves_the_calibration(calibrated, fitted, frame, y):
    later = frame.assign(item="new" + frame["item"])
    grown, model = update(fitted, later, y), update(calibrated, later, y)
    calibration = split_pipeline(calibrated, purpose="test").calibration
    expected = calibration(grown.decision_function(later))
    np.testing.assert_allclose(model.predict_proba(later)[:, 1], expected, atol=1e-6)
    again = model.fit(later, y)  # calibrates what is frozen in it: the new one
    assert "newi1" in split_pipeline(again, purpose="test").encoder.vocabularies_["item"]


def test_others_name_what_to_do(fitted, frame, y, users, candidates):
    folds = CalibratedClassifierCV(fitted, cv=2).fit(frame, y)
    message = "^rank_candidates needs one .* got a CalibratedClassifierCV of 2: .* ensemble=False"
    with pytest.raises(TypeError, match=message):
        rank_candidates(folds, users, candidates)
    for function in (explain, history_importance, update, export_onnx):
        arguments = [frame, y][: 1 if function in (explain, export_onnx) else 2]
        with pytest.raises(TypeError, match=f"^{function.__name__} needs one model"):
            function(folds, *arguments)
    for advised in (folds.set_params(ensemble=False), frozen(fitted, frame, y, "sigmoid")):
        check_ranking(advised.fit(frame, y), users, candidates)
    twice = frozen(frozen(fitted, frame, y, "sigmoid"), frame, y, "sigmoid")
    message = "explain needs one calibration at the end, got .* Calibrate the Pipeline itself, once"
    with pytest.raises(TypeError, match=message):
        explain(twice, frame)
    with pytest.raises(NotFittedError, match="CalibratedClassifierCV instance is not fitted yet"):
        explain(CalibratedClassifierCV(FrozenEstimator(fitted)), frame)
