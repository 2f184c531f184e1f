"""interest="paper" is the published network, in the fitted estimators, down to the last input."""

import numpy as np
import pytest
import torch

from sklearn_din import DINRegressor, HistoryBuilder, HistorySequenceEncoder, update
from tests.fitted_pipelines import attach_clicks, quick
from tests.padded_network import padded_logits

EMBEDDED = {"item": 16, "category": 16, "device": 16, ("hist_item", "hist_category"): 32}
USER_LEVEL = "user_level"


@pytest.fixture(scope="module")
def clicks():
    """Rows with users, times and a number whose bins would help, and their labels."""
    X, y = attach_clicks(n_users=120, n_items=200, mean_length=8)
    jumps = np.random.RandomState(0).rand(len(X))
    X, y = X.assign(price=jumps), np.where(np.abs(jumps - 0.5) < 0.2, 1, y)
    encoder = HistorySequenceEncoder(user="user", time="time", numeric=["price"]).fit(X)
    return encoder.transform(X), y


def inputs_of(estimator):
    return dict(estimator.module_.mlp_inputs)


@pytest.mark.parametrize("pooling", ["attention", "sum"])
def test_the_mlp_gets_the_encoded_columns_and_the_interest_alone(clicks, pooling):
    X, y = clicks
    extended = quick().fit(X, y)
    assert set(inputs_of(extended)) > {"price", *EMBEDDED, USER_LEVEL}
    assert inputs_of(extended)["price"] > 1  # bins
    classifier = quick(interest="paper", pooling=pooling).fit(X, y)
    assert inputs_of(classifier) == {"price": 1, **EMBEDDED}
    assert [one.divisor for one in classifier.module_.interest_modules] == [None]
    expected = padded_logits(classifier.module_, X).detach().numpy()
    np.testing.assert_allclose(classifier.decision_function(X), expected, rtol=1e-4, atol=1e-5)
    assert 'interest="paper" has none' in classifier.summary()


def test_no_number_is_hidden_in_training(clicks):
    from sklearn_din.network.batch import Batch

    X, y = clicks
    module = quick(interest="paper").fit(X, y).module_.train()
    with torch.no_grad():
        shown = module._numbers(Batch(X))[:, 0]
    np.testing.assert_array_equal(shown.numpy(), X["price"])


def test_what_is_named_explicitly_is_obeyed(clicks):
    X, y = clicks
    named = {"neighbours": "time", "attention_normalization": "sqrt"}
    classifier = quick(interest="paper", **named).fit(X, y)
    assert {USER_LEVEL, *EMBEDDED} < set(inputs_of(classifier))
    assert len(inputs_of(classifier)) > 2 + len({"price", *EMBEDDED})  # item neighbours as well
    assert [one.divisor for one in classifier.module_.interest_modules] == ["sqrt"]


def test_regressors_get_no_running_rate_of_the_user(clicks):
    X, y = clicks
    numbers = y + X.user_keys.hashes % 5
    assert USER_LEVEL in inputs_of(quick(DINRegressor).fit(X, numbers))
    assert USER_LEVEL not in inputs_of(quick(DINRegressor, interest="paper").fit(X, numbers))


def test_further_training_adds_no_inputs(clicks):
    X, y = clicks
    started = quick(interest="paper").partial_fit(X[:2000], y[:2000])
    fitted = quick(interest="paper").fit(X[:2000], y[:2000])
    for model in (started.partial_fit(X[2000:], y[2000:]), update(fitted, X[2000:], y[2000:])):
        assert inputs_of(model) == {"price": 1, **EMBEDDED}


def test_running_rates_that_the_user_attaches_are_ordinary_numbers(clicks):
    frame, y = attach_clicks(n_users=60, n_items=50, mean_length=8)
    frame = frame[["user", "item", "time"]]
    builder = HistoryBuilder(
        user="user", time="time", columns=["item"], known="time", levels="auto"
    )
    encoder = HistorySequenceEncoder(user="user", time="time")
    X = encoder.fit_transform(builder.fit_transform(frame, y))
    assert len(X) < 3000
    classifier = quick(interest="paper").fit(X, y)
    rates = dict.fromkeys(X.schema.names("numeric"), 1)
    assert {"user_rate", "item_elapsed"} < set(rates)
    assert inputs_of(classifier).items() > rates.items()
    elapsed = X._replace(columns={**X.columns, "item_elapsed": 0 * X["item_elapsed"]})
    assert np.abs(classifier.decision_function(X) - classifier.decision_function(elapsed)).max() > 0


def test_an_exported_file_gives_the_same_logits_without_inputs_beyond_the_columns(clicks, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx: pip install 'sklearn-din[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'sklearn-din[onnx]'")
    from sklearn_din import export_onnx

    X, y = clicks
    classifier = quick(interest="paper").fit(X, y)
    path = str(tmp_path / "paper.onnx")
    export_onnx(classifier, path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    assert not any("user" in name for name in names)
    logits = session.run(["logit"], {name: X[name] for name in names})[0]
    np.testing.assert_allclose(logits, classifier.decision_function(X), rtol=1e-5, atol=1e-5)
