"""Tools that people bring: each line of docs/guide/tools.rst, and no other.

`make test-ecosystem` runs all of it, in an environment of its own; elsewhere, what is not
installed is skipped.
"""

import importlib.util
import re
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline

import sklearn_din
from sklearn_din import DINClassifier, HistorySequenceEncoder, TimeSplit, explain, rank_candidates
from tests.fitted_pipelines import CANDIDATE, attach_clicks

PAGE = Path(__file__).parent.parent / "docs/guide/tools.rst"
TESTED = {}  # line of the table -> whether it works
BY_TIME = TimeSplit(2, time="time")
of_others = pytest.mark.filterwarnings("default")  # their warnings are theirs


def line(name, *, works):
    """Say which line of the table a test is about."""

    def name_test(function):
        TESTED[name] = works
        return function

    return name_test


def need(module):
    """Skip where a package is not installed, and say how it gets there."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: make test-ecosystem has an environment with it")


def run_page(heading, **names):
    """Run the code below a heading of the page, and return its names."""
    text = PAGE.read_text(encoding="utf-8")
    below = re.search(rf"^{heading}\n-+\n(.*?)(?=^\S+\n-+\n|\Z)", text, re.M | re.S)[1]
    code = re.search(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", below)[1]
    exec(textwrap.dedent(code), names)
    return names


@pytest.fixture(scope="module")
def clicks():
    return attach_clicks(n_users=80, n_items=40, n_categories=5, random_state=0)


def by_user(X):
    return list(GroupKFold(2).split(X, groups=X["user"]))


def make_model(**parameters):
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=1, random_state=0)
    return Pipeline([("encode", encoder), ("din", classifier)]).set_params(**parameters)


@pytest.fixture(scope="module")
def model(clicks):
    return make_model().fit(*clicks)


@pytest.fixture
def tracking(tmp_path):
    need("mlflow")
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    mlflow.create_experiment("tested", artifact_location=(tmp_path / "files").as_uri())
    mlflow.set_experiment("tested")
    yield mlflow
    mlflow.set_tracking_uri(None)


@of_others
@line("MLflow, log_model", works=True)
def test_mlflow_keeps_a_model_in_its_skops_format_and_serves_probabilities(
    tracking, model, clicks, tmp_path, monkeypatch
):
    X, _ = clicks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / f"sklearn_din-{sklearn_din.__version__}-py3-none-any.whl").touch()
    names = run_page("MLflow", model=model, X=X)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(names["probability"], expected[:, 1])
    again = tracking.sklearn.load_model(names["info"].model_uri)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


@of_others
@line("MLflow, autolog", works=True)
def test_mlflow_logs_a_fit_by_itself(tracking, clicks):
    tracking.sklearn.autolog(log_models=False, log_datasets=False)
    try:
        make_model().fit(*clicks)
    finally:
        tracking.sklearn.autolog(disable=True)
    run = tracking.last_active_run().data
    assert run.params["din__max_epochs"] == "1"
    assert 0 < run.metrics["training_roc_auc"] <= 1


@of_others
@line("skore", works=True)
def test_skore_reports(clicks):
    need("skore")
    import skore

    X, y = clicks
    half = len(y) // 2
    report = skore.EstimatorReport(
        make_model(), X_train=X[:half], y_train=y[:half], X_test=X[half:], y_test=y[half:]
    )
    scores = make_model().fit(X[:half], y[:half]).predict_proba(X[half:])[:, 1]
    assert report.metrics.roc_auc() == pytest.approx(roc_auc_score(y[half:], scores))
    assert len(skore.CrossValidationReport(make_model(), X, y, splitter=BY_TIME).metrics.roc_auc())


@of_others
@line("Fairlearn", works=True)
def test_fairlearn_scores_by_group(model, clicks):
    need("fairlearn")
    from fairlearn.metrics import MetricFrame

    X, y = clicks
    scores = model.predict_proba(X)[:, 1]
    frame = MetricFrame(
        metrics=roc_auc_score, y_true=y, y_pred=scores, sensitive_features=X["device"]
    )
    phone = (X["device"] == "phone").to_numpy()
    assert frame.by_group["phone"] == roc_auc_score(y[phone], scores[phone])


@of_others
@line("MAPIE", works=True)
def test_mapie_makes_sets_of_classes(model, clicks):
    need("mapie")
    from mapie.classification import CrossConformalClassifier, SplitConformalClassifier

    X, y = clicks
    conformal = CrossConformalClassifier(make_model(), confidence_level=0.9, cv=BY_TIME)
    _, sets = conformal.fit_conformalize(X, y).predict_set(X)
    assert sets[np.arange(len(y)), y, 0].mean() > 0.85
    with pytest.raises(UserWarning, match="Put HistorySequenceEncoder and the classifier in one"):
        SplitConformalClassifier(model, prefit=True).conformalize(X, y)


@of_others
@line("imbalanced-learn", works=True)
def test_imbalanced_learn_samples_before_the_encoder(clicks):
    need("imblearn")
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import Pipeline as ImbalancedPipeline
    from imblearn.under_sampling import RandomUnderSampler

    X, y = clicks
    encode, din = make_model().steps
    sampled = ImbalancedPipeline([("sample", RandomUnderSampler(random_state=0)), encode, din])
    sampled.fit(X, y)
    assert sampled.predict_proba(X)[:, 1].mean() > y.mean()
    users, catalogue = X[:2].drop(columns=CANDIDATE), X[CANDIDATE].drop_duplicates("item")
    assert len(rank_candidates(sampled, users, catalogue, top_k=3)) == 6
    with pytest.raises(TypeError, match="Let nothing stand between"):
        ImbalancedPipeline([encode, ("mix", SMOTE()), din]).fit(X, y)


@of_others
@line("OptunaSearchCV", works=True)
def test_optuna_searches(clicks):
    need("optuna_integration")
    from optuna.distributions import CategoricalDistribution
    from optuna_integration import OptunaSearchCV

    X, y = clicks
    space = {"din__embedding_dim": CategoricalDistribution([2, 4])}
    search = OptunaSearchCV(make_model(), space, n_trials=2, cv=BY_TIME, random_state=0).fit(X, y)
    assert search.best_params_["din__embedding_dim"] in (2, 4)
    assert len(explain(search, X[:1])) == len(X["hist_item"].iloc[0])


@of_others
@line("Evidently", works=False)
def test_evidently_cannot_be_imported_beside_pandas_3():
    need("evidently")
    if pd.__version__ < "3":
        pytest.skip("this is pandas 2")
    with pytest.raises((ImportError, AttributeError)):
        importlib.import_module("evidently")


@of_others
@line("SHAP", works=True)
def test_shap_explains_the_columns_beside_a_history_that_is_held_still(model, clicks):
    need("shap")
    names = run_page("SHAP", model=model, X=clicks[0])
    effect = names["predict"](names["row"][names["columns"]].to_numpy())
    explained = names["explainer"].expected_value + names["effects"].sum()
    assert explained == pytest.approx(effect.item(), abs=1e-4)


@line("FrozenEstimator", works=True)
def test_a_frozen_model_is_calibrated(model, clicks):
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(*clicks)
    assert calibrated.predict_proba(clicks[0]).shape == (len(clicks[1]), 2)


@line("TunedThresholdClassifierCV", works=True)
def test_a_threshold_is_tuned(clicks):
    tuned = TunedThresholdClassifierCV(make_model(), scoring="f1", cv=by_user(clicks[0])).fit(
        *clicks
    )
    assert 0 < tuned.best_threshold_ < 1


@of_others
@line("Extension for scikit-learn (Intel)", works=True)
def test_patched_scikit_learn_gives_the_same_model(model, clicks):
    need("sklearnex")
    from sklearnex import patch_sklearn, unpatch_sklearn

    patch_sklearn(verbose=False)
    try:
        patched = make_model().fit(*clicks).predict_proba(clicks[0])
    finally:
        unpatch_sklearn()
    np.testing.assert_array_equal(patched, model.predict_proba(clicks[0]))


@line("joblib.Memory", works=True)
def test_a_memory_encodes_the_same_rows_once(model, clicks, tmp_path, monkeypatch):
    X, y = clicks
    cached = make_model(memory=joblib.Memory(tmp_path, verbose=0)).fit(X, y)
    np.testing.assert_array_equal(cached.predict_proba(X), model.predict_proba(X))
    monkeypatch.setattr(HistorySequenceEncoder, "fit_transform", None)
    again = make_model(memory=joblib.Memory(tmp_path, verbose=0)).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@line("narwhals", works=True)
def test_a_wrapped_frame_is_taken_like_the_frame_in_it(model, clicks):
    narwhals = pytest.importorskip("narwhals")
    polars = pytest.importorskip("polars")
    X, y = clicks
    lists = X.assign(**{name: [c.tolist() for c in X[name]] for name in X if "hist" in name})
    wrapped = narwhals.from_native(polars.from_pandas(lists))
    np.testing.assert_array_equal(model.predict_proba(wrapped), model.predict_proba(X))
    np.testing.assert_array_equal(
        make_model().fit(wrapped, y).predict_proba(X), model.predict_proba(X)
    )


@line("sparse arrays", works=False)
@pytest.mark.parametrize("make", [HistorySequenceEncoder, DINClassifier])
def test_sparse_arrays_are_refused_with_the_remedy(make):
    sparse = scipy.sparse.csr_array(np.eye(20))
    with pytest.raises(TypeError, match=r"Use '\.toarray\(\)'"):
        make().fit(sparse, np.arange(20) % 2)


@line("StackingClassifier, VotingClassifier", works=True)
def test_stacks_and_votes_of_pipelines_are_fitted(clicks):
    X, y = clicks
    models = [("one", make_model()), ("two", make_model(din__random_state=1))]
    votes = VotingClassifier(models, voting="soft").fit(X, y).predict_proba(X)
    expected = np.mean([model.fit(X, y).predict_proba(X) for _, model in models], axis=0)
    np.testing.assert_allclose(votes, expected, rtol=1e-6)
    stack = StackingClassifier(models, LogisticRegression(), cv=by_user(X)).fit(X, y)
    assert stack.predict_proba(X).shape == votes.shape


@line("AdaBoost, Bagging", works=False)
@pytest.mark.parametrize("make", [AdaBoostClassifier, BaggingClassifier])
def test_what_makes_one_array_of_a_frame_is_refused(make, clicks):
    with pytest.raises(ValueError, match=r"array of objects with lists|truth value of an array"):
        make(make_model()).fit(*clicks)
    encoder = HistorySequenceEncoder(user="user", time="time")
    with pytest.raises((TypeError, ValueError), match="VotingClassifier of Pipelines"):
        make_pipeline(encoder, make(DINClassifier(max_epochs=1))).fit(*clicks)


@of_others
@line("skl2onnx", works=False)
def test_skl2onnx_has_no_converter(model, clicks):
    need("skl2onnx")
    from skl2onnx import to_onnx

    X = clicks[0][["item", "price"]]
    with pytest.raises(RuntimeError, match="HistorySequenceEncoder"):
        to_onnx(make_model().set_params(encode__user=None, encode__time=None).fit(X, clicks[1]), X)


def test_the_page_and_the_tests_name_the_same_tools_and_agree_what_works():
    rows = re.findall(
        r"^   \* - (.+)\n     - (works|not)\b", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert {name: word == "works" for name, word in rows} == TESTED
