"""Several labels of one impression, click and purchase, through every tool for classifiers."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import KFold, cross_val_score

from benchmarks.purchase_log import make_purchase_log
from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    Ranker,
    explain,
    export_onnx,
    load_onnx,
    predict_to_parquet,
)
from sklearn_din.network.layers import LabelLogits
from sklearn_din.serving.export import LAYOUTS
from sklearn_din.training.target import Click, Labels
from tests.click_frames import attach
from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import CANDIDATE, make_frame, make_model, quick

AFTER = {"purchase": "click"}


def without_roles(**parameters):
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    return make_model(encoder, lr=0.02, **parameters)


def make_labels(n, *, seed=0):
    rng = np.random.RandomState(seed)
    click = rng.randint(2, size=n)
    return pd.DataFrame({"click": click, "purchase": click * rng.randint(2, size=n)})


@pytest.fixture(scope="module")
def rows():
    frame, _ = make_frame()
    return frame.drop(columns="tags"), make_labels(len(frame))


@pytest.fixture(scope="module")
def fitted(rows):
    return without_roles(after=AFTER).fit(*rows)


@pytest.mark.slow
def test_both_labels_are_learnt_and_no_purchase_is_likelier_than_its_click():
    log = make_purchase_log(n_users=400, purchase_rate=0.05, random_state=0)
    X = attach(log.impressions, log.events)
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = make_model(encoder, after=AFTER, max_epochs=6).fit(X[:6400], log.y[:6400])
    X, y, truth = X[6400:], log.y[6400:], log.probability[6400:]
    probabilities = model.predict_proba(X)
    for name, probability in zip(y, probabilities, strict=True):
        assert probability.shape == (len(X), 2)
        np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
        ceiling = roc_auc_score(y[name], truth[name])
        assert 0.5 + 0.7 * (ceiling - 0.5) < roc_auc_score(y[name], probability[:, 1])
        base = log_loss(y[name], np.full(len(y), y[name].mean()))
        assert log_loss(y[name], probability[:, 1]) < base
    assert (probabilities[1][:, 1] < probabilities[0][:, 1]).all()
    assert model[-1].label_names_ == ["click", "purchase"]
    assert [classes.tolist() for classes in model.classes_] == [[0, 1], [0, 1]]
    np.testing.assert_array_equal(model.predict(X), model.decision_function(X) > 0)


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
@pytest.mark.parametrize("after", [None, AFTER], ids=str)
def test_no_fit_ends_worse_than_the_base_rates(after):
    X, y = make_impressions(2000), make_labels(2000)
    classifier = quick(validation="last", refit=None, lr=0.1, after=after)
    classifier.fit(X, y)
    rates, held_out = y[:1800].mean().to_numpy(), y[1800:].to_numpy()
    shown = np.column_stack([p[1800:, 1] for p in classifier.predict_proba(X)])
    losses = [log_loss(held_out.ravel(), p.ravel()) for p in (shown, rates + 0 * shown)]
    assert losses[0] <= losses[1] + 1e-4


def test_validation_checks_have_the_labels_mean_auc_and_summed_loss():
    X, y = make_impressions(2000), make_labels(2000)
    y["purchase"] = (X.columns["price"] > 0).astype(int)
    classifier = quick(validation="last", max_epochs=4).fit(X, y)
    best = classifier.history_.loc[classifier.history_["valid_loss"].idxmin()]
    held_out = y[1800:].to_numpy()
    probability = np.column_stack([p[1800:, 1] for p in classifier.predict_proba(X)])
    losses = [log_loss(*columns) for columns in zip(held_out.T, probability.T, strict=True)]
    assert best["valid_loss"] == pytest.approx(sum(losses), rel=1e-4)
    assert best["valid_auc"] == pytest.approx(roc_auc_score(held_out, probability), abs=1e-6)


def test_the_product_of_probabilities_equals_the_formula():
    product = LabelLogits(3, (2, None, 1))  # 0 after 2 after 1
    hidden, alone = torch.randn(50, 3), LabelLogits(3, (None, None, None))
    alone.load_state_dict(product.state_dict())
    p = torch.sigmoid(alone(hidden)).double()
    expected = torch.stack([p[:, 0] * p[:, 2] * p[:, 1], p[:, 1], p[:, 2] * p[:, 1]], dim=1)
    torch.testing.assert_close(torch.sigmoid(product(hidden)).double(), expected, atol=1e-6, rtol=0)
    far = LabelLogits(2, (None, 0))
    far.weight.data.zero_()
    far.bias.data.copy_(torch.tensor([-80.0, 40.0]))
    torch.testing.assert_close(far(torch.zeros(1, 2))[0], torch.tensor([-80.0, -80.0]))


def test_the_loss_is_the_weighted_sum_and_leaves_missing_labels_out():
    labels = Labels(("a", "b"), (Click(), Click()), (1.0, 3.0), (None, None))
    outputs = torch.tensor([[0.5, -1.0], [2.0, 0.3]])
    y = torch.tensor([[1.0, 0.0], [0.0, torch.nan]])
    of_label = torch.nn.functional.softplus
    expected = [of_label(torch.tensor(-0.5)) + 3 * of_label(torch.tensor(-1.0))]
    expected += [of_label(torch.tensor(2.0))]
    assert labels.loss(outputs, y, None) == pytest.approx(float(sum(expected) / 2))
    weighted = labels.loss(outputs, y, torch.tensor([2.0, 0.0]))
    assert weighted == pytest.approx(float(expected[0]))
    labels = Labels(("a", "b"), (Click(), Click()), (1.0, 1.0), (None, None))
    alone = Click().scale_of_prior((90, 10))  # the l2 of two equal labels: half a prior
    assert labels.scale_of_prior((90, 10, 90, 10)) == pytest.approx(alone / 2)
    assert labels.scale_of_prior((90, 10, 0, 0)) == pytest.approx(alone)


def test_labels_have_any_two_kinds_and_any_names_but_no_two_the_same():
    X, y = make_impressions(300), make_labels(300)
    named = quick(after=AFTER, label_weight={"purchase": 2.0}).fit(X, y)
    words = y.assign(click=np.array(["no", "yes"])[y["click"]], purchase=y["purchase"] == 1)
    for labels in (y.to_numpy(), y.set_axis([0, 1], axis=1), words.set_axis([0, 1], axis=1)):
        numbered = quick(after={1: 0}, label_weight={1: 2.0}).fit(X, labels)
        np.testing.assert_array_equal(named.decision_function(X), numbered.decision_function(X))
        assert numbered.label_names_ == ["0", "1"]
    assert [classes.tolist() for classes in numbered.classes_] == [["no", "yes"], [False, True]]
    assert set(numbered.predict(X)[:, 0]) <= {"no", "yes"}
    with pytest.raises(ValueError, match=r"a name of its own, got the columns \['a', 'a'\]"):
        quick().fit(X, y.set_axis(["a", "a"], axis=1))
    only_clicked = y["purchase"].where(y["click"] == 1)  # NaN elsewhere, as some tables have it
    first = quick(after=AFTER).fit(X, y).decision_function(X)
    again = quick(after=AFTER).fit(X, y.assign(purchase=only_clicked)).decision_function(X)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("of_kind", [
    lambda y: y.astype("Int64"),
    lambda y: y.astype("boolean"),
    lambda y: y.assign(purchase=y["purchase"].map({0: False, 1: True})),
    lambda y: pa.Table.from_pandas(y.astype("boolean")),
    lambda y: pl.from_pandas(y.astype("Int64")),
    lambda y: y.map({0: "no", 1: "yes"}.get),
])  # fmt: skip
def test_missing_labels_of_any_kind_of_column_are_left_out(of_kind):
    X, y = make_impressions(300), make_labels(300).astype(float)
    y.loc[::3, "purchase"] = np.nan
    found = quick(after=AFTER).fit(X, of_kind(y))
    assert found.label_names_ == ["click", "purchase"]
    expected = quick(after=AFTER).fit(X, y).decision_function(X)
    np.testing.assert_array_equal(found.decision_function(X), expected)
    found.partial_fit(X[:9], of_kind(y[:9].assign(purchase=np.nan)))


def test_a_score_is_the_share_of_rows_whose_known_labels_are_all_predicted(fitted, rows):
    frame, y = rows[0][:100], rows[1][:100]
    assert fitted.score(frame, y) == accuracy_score(y, fitted.predict(frame))
    few = pd.DataFrame(fitted.predict(frame), columns=y.columns, dtype=float)
    few.loc[:2, "click"] = 1 - few.loc[:2, "click"]
    few.loc[1:50, "purchase"] = np.nan
    few.loc[2, "click"] = np.nan
    assert fitted.score(frame, few) == fitted.score(frame, few.astype("Int64")) == 97 / 99
    encoded = fitted[0].transform(frame)
    assert fitted[-1].score(encoded, few, sample_weight=[1, 0, *[1] * 98]) == 97 / 98
    bought = rows[1]["purchase"].where(rows[1]["click"] == 1)  # NaN elsewhere
    model, y = without_roles(max_epochs=1, after=AFTER), rows[1].assign(purchase=bought)
    assert np.isfinite(cross_val_score(model, rows[0], y, cv=KFold(2))).all()
    with pytest.raises(ValueError, match=r"labels of fit, \['click', 'purchase'\], got \['purch"):
        fitted.score(frame, few[["purchase", "click"]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(frame, few[:1])
    with pytest.raises(ValueError, match="got 100 rows without any"):
        fitted.score(frame, few * np.nan)


@pytest.mark.parametrize(
    "damage", [{"after": (1, 0)}, {"weights": (1.0,)}, {"names": ("click",)}, {"after": (None, 7)}]
)
def test_damaged_labels_are_refused(fitted, damage):
    broken, target = pickle.loads(pickle.dumps(fitted[-1])), fitted[-1]._target
    parts = {"names": target.names, "labels": target.labels, "weights": target.weights}
    broken._target = Labels(**{**parts, "after": target.after, **damage})
    with pytest.raises(ValueError, match="DINClassifier cannot take this state"):
        DINClassifier().__setstate__(broken.__getstate__())


@pytest.mark.parametrize("label", ["click", "purchase", {"click": 1, "purchase": 20}], ids=str)
def test_candidates_are_ranked_by_a_label_or_a_weighting(fitted, rows, label):
    frame, _ = rows
    users = frame.drop(columns=CANDIDATE).iloc[:3]
    candidates = frame[CANDIDATE].drop_duplicates("item").head(9)
    best = Ranker(fitted, candidates, label=label).rank(users, top_k=4)
    pairs = users.assign(row=range(3)).merge(candidates, how="cross")
    click, purchase = (p[:, 1] for p in fitted.predict_proba(pairs[frame.columns]))
    score = {"click": click, "purchase": purchase}.get(str(label), click + 20 * purchase)
    expected = pairs.assign(score=score)
    expected = expected.sort_values(["row", "score"], ascending=[True, False], kind="stable")
    expected = expected.groupby("row").head(4)
    assert best["item"].tolist() == expected["item"].tolist()
    name = "score" if isinstance(label, dict) else "probability"
    np.testing.assert_allclose(best[name], expected["score"], rtol=1e-4)
    message = r"label must be one of \['click', 'purchase'\], or a dict"
    for wrong in (None, "sale", {"click": -1}, {}):
        with pytest.raises(ValueError, match=message):
            Ranker(fitted, candidates, label=wrong)


def test_words_pictures_and_files_of_scores_name_the_labels(fitted, rows, tmp_path):
    assert "200 -> 80 -> 2 (PReLU)" in fitted[-1].summary()
    assert len(explain(fitted, rows[0].head(3)))
    with pytest.raises(ValueError, match=r"by='leave_out' needs one label, got .*'click'"):
        explain(fitted, rows[0].head(3), by="leave_out")
    path = predict_to_parquet(fitted, rows[0], tmp_path / "scores.parquet")
    table = pq.read_table(path).to_pandas()
    assert list(table) == ["probability_click", "probability_purchase"]
    for column, probability in zip(table, fitted.predict_proba(rows[0]), strict=True):
        np.testing.assert_allclose(table[column], probability[:, 1], atol=1e-6)


def test_partial_fit_may_name_kinds_and_goes_on_with_the_labels_and_the_order_of_fit():
    X, y = make_impressions(40), make_labels(40)
    classifier = quick(after=AFTER).fit(X, y)
    for other in (y["click"], y.rename(columns={"purchase": "sale"})):
        with pytest.raises(ValueError, match=r"y must have the labels of fit, \['click', 'purch"):
            classifier.partial_fit(X, other)
    with pytest.raises(ValueError, match=r"partial_fit continues with the net.* but after chan"):
        classifier.set_params(after=None).partial_fit(X, y)
    one = quick().fit(X, y["click"])
    with pytest.raises(ValueError, match=r"y must have the labels of fit, \['one label'\], got"):
        one.partial_fit(X, y)
    y = y.assign(purchase=0)
    first = quick().partial_fit(X, y, classes=[[0, 1], [0, 1]])
    assert [classes.tolist() for classes in first.classes_] == [[0, 1], [0, 1]]
    for wrong in ([0, 1], [[0, 1]]):
        with pytest.raises(ValueError, match=r"one for each of \['click', 'purchase'\], got"):
            quick().partial_fit(X, y, classes=wrong)


@pytest.mark.parametrize("after", [None, {1: 0}], ids=str)
def test_an_onnx_file_has_labels_which_numbers_name_as_text_does(after, rows, tmp_path):
    pytest.importorskip("onnxruntime")
    frame, y = rows[0][["item", "hist_item"]], rows[1].to_numpy()
    model = make_model(HistorySequenceEncoder(), after=after).fit(frame, y)
    candidates = frame[["item"]].drop_duplicates()
    user = {"hist_item": frame["hist_item"].iloc[-1]}
    for layout in LAYOUTS:
        export_onnx(model, tmp_path / layout, layout=layout)
        loaded, expected = load_onnx(tmp_path / layout), model.predict_proba(frame)
        np.testing.assert_allclose(loaded.predict_proba(frame), expected, atol=2e-6)
        np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
        assert loaded[-1].label_names_ == ["0", "1"]
        for label in (1, "1", {"0": 1, "1": 5}):
            models = (Ranker(m, candidates, label=label) for m in (model, loaded))
            expected, found = (ranker.rank(user, top_k=3).iloc[:, -1] for ranker in models)
            np.testing.assert_allclose(found, expected, atol=1e-5)
        with pytest.raises(ValueError, match=r"label must be one of \['0', '1'\], .*got None"):
            Ranker(loaded, candidates)
