"""Tools that people bring: the code of docs/tools.rst, and what its table promises of ours.

`make test-ecosystem` runs all of it, in an environment of its own; elsewhere, what is not
installed is skipped.
"""

import importlib.util
import re
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

import sklearn_din
from sklearn_din import DINClassifier, HistorySequenceEncoder
from tests.fitted_pipelines import attach_clicks, make_model

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "docs/tools.rst"
of_others = pytest.mark.filterwarnings("default")  # their warnings are theirs


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


X, y = attach_clicks(n_users=80, n_items=40, n_categories=5, random_state=0)


@pytest.fixture(scope="module")
def model():
    return make_model().fit(X, y)


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
def test_mlflow_keeps_and_serves_models(tracking, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / f"sklearn_din-{sklearn_din.__version__}-py3-none-any.whl").touch()
    names = run_page("MLflow", model=model, X=X)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(names["probability"], expected[:, 1])
    again = tracking.sklearn.load_model(names["info"].model_uri)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


@of_others
def test_shap_explains_the_columns_beside_a_history_that_is_held_still(model):
    need("shap")
    names = run_page("SHAP", model=model, X=X)
    effect = names["predict"](names["row"][names["columns"]].to_numpy())
    explained = names["explainer"].expected_value + names["effects"].sum()
    assert explained == pytest.approx(effect.item(), abs=1e-4)


def test_a_memory_encodes_the_same_rows_once(model, tmp_path, monkeypatch):
    memory = {"memory": joblib.Memory(tmp_path, verbose=0)}
    for _ in range(2):  # joblib's hash of a frame may change when its columns are first used
        cached = make_model().set_params(**memory).fit(X, y)
    np.testing.assert_array_equal(cached.predict_proba(X), model.predict_proba(X))
    monkeypatch.setattr(HistorySequenceEncoder, "fit_transform", None)
    again = make_model().set_params(**memory).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_wrapped_frame_is_taken_like_the_frame_in_it(model):
    narwhals = pytest.importorskip("narwhals")
    polars = pytest.importorskip("polars")
    lists = X.assign(**{name: [c.tolist() for c in X[name]] for name in X if "hist" in name})
    wrapped = narwhals.from_native(polars.from_pandas(lists))
    np.testing.assert_array_equal(model.predict_proba(wrapped), model.predict_proba(X))
    again = make_model().fit(wrapped, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.proof
def test_stacks_and_votes_of_pipelines_are_fitted():
    models = [("one", make_model()), ("two", make_model(random_state=1))]
    votes = VotingClassifier(models, voting="soft").fit(X, y).predict_proba(X)
    expected = np.mean([model.fit(X, y).predict_proba(X) for _, model in models], axis=0)
    np.testing.assert_allclose(votes, expected, rtol=1e-6)
    by_user = list(GroupKFold(2).split(X, groups=X["user"]))
    stack = StackingClassifier(models, LogisticRegression(), cv=by_user).fit(X, y)
    assert stack.predict_proba(X).shape == votes.shape


@pytest.mark.parametrize("make", [AdaBoostClassifier, BaggingClassifier])
def test_what_makes_one_array_of_a_frame_is_refused(make):
    with pytest.raises(ValueError, match=r"array of objects with lists|truth value of an array"):
        make(make_model()).fit(X, y)
    encoder = HistorySequenceEncoder(user="user", time="time")
    with pytest.raises((TypeError, ValueError), match="VotingClassifier of Pipelines"):
        make_pipeline(encoder, make(DINClassifier(max_epochs=1))).fit(X, y)
