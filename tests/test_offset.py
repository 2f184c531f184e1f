"""The online model's log-odds as the offset of the logit: in training, files, rankings, updates."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit
from scipy.stats import norm
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    explain,
    export_onnx,
    live_predictions,
    load,
    load_onnx,
    rank_candidates,
    remember,
    save,
    update,
)
from sklearn_din.features import EncodedFeatures, Field
from sklearn_din.module import DIN
from sklearn_din.native_network.logits import logits_of
from sklearn_din.network.batch import Batch
from sklearn_din.server.answers import Answers
from sklearn_din.server.state import State
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.offset import choose_offset
from sklearn_din.training.platt_scaling import scale_output
from sklearn_din.training.target import Click, find_constant
from tests.encoded_impressions import make_impressions, make_labels
from tests.test_native import gradients_of, make_network, uses_native
from tests.test_online_model import make_log
from tests.test_server_levels import post

NAMES = {"user": "user", "time": "time", "columns": ["item"]}
N_TRAIN = 2_000


def model_of(kind=DINClassifier, memory=None, **options):
    memory = {"levels": "auto", "online_model": True, **(memory or {})}
    options = {"max_epochs": 2, "hidden_units": (8,), "random_state": 0, **options}
    encoder = HistorySequenceEncoder(user="user", time="time")
    return make_pipeline(HistoryBuilder(**NAMES, **memory), encoder, kind(**options))


@pytest.fixture(scope="module")
def fitted():
    X, y = make_log(1, spread=(1.0, 1.0))
    return model_of().fit(X[:N_TRAIN], y[:N_TRAIN]), X, y


def with_offset(X, values):
    """Impressions with one number more, which is the offset."""
    field = Field("online_rate", "numeric", what="offset", of=("item",))
    schema = replace(X.schema, fields=(*X.schema.fields, field))
    columns = X.columns | {"online_rate": np.asarray(values, dtype=np.float32)}
    return EncodedFeatures(schema, columns, X.behaviours)


@pytest.mark.parametrize("options", [{}, {"embedding_dim": 8}, {"pooling": "sum"}])
def test_native_code_adds_the_offset_as_torch_does(options):
    X = with_offset(make_impressions(60), np.random.RandomState(0).normal(size=60))
    module = make_network(X, offset="online_rate", **options)
    module.offset_scale.fill_(0.7)
    assert uses_native(module, X)
    expected, gradients = gradients_of(module, module, X)
    logits, found = gradients_of(lambda batch: logits_of(module, batch), module, X)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        own, gradient = (g.to_dense() for g in (found[name], gradient))
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-6)
    module.offset_scale.fill_(0.0)
    without = module(Batch(X))
    torch.testing.assert_close(
        expected, without.detach() + 0.7 * torch.from_numpy(X.columns["online_rate"])
    )


def test_the_offset_is_not_clipped_and_the_mlp_s_number_is():
    X = with_offset(make_impressions(6), np.linspace(-30, 30, 6))
    module = make_network(X, offset="online_rate", ranges={"online_rate": (-1.0, 1.0)})
    near = with_offset(make_impressions(6), np.clip(np.linspace(-30, 30, 6), -3.0, 3.0))
    difference = (module(Batch(X)) - module(Batch(near))).detach().numpy()
    expected = X.columns["online_rate"] - near.columns["online_rate"]
    np.testing.assert_allclose(difference, expected, atol=1e-5)


def test_scale_output_scales_the_offset_with_the_network():
    X = with_offset(make_impressions(9), np.random.RandomState(0).normal(size=9))
    module = make_network(X, offset="online_rate")
    before = module(Batch(X)).detach()
    scale_output(module, [0.3], [0.1], [0.25])
    after = module(Batch(X)).detach()
    torch.testing.assert_close(after, 0.3 + 0.25 * (before - 0.3) + 0.1)


@pytest.mark.parametrize("seed", range(40))
def test_the_best_constant_has_no_neighbour_that_is_better(seed):
    rng = np.random.RandomState(seed)
    n = rng.randint(2, 2_000)
    offsets = rng.choice([0.1, 1, 5]) * rng.normal(size=n) + rng.normal()
    weights = rng.random_sample(n) + 0.01
    y = (rng.random_sample(n) < rng.random_sample()).astype(int)
    y[:2] = 0, 1

    def loss(constant):
        logits = constant + offsets
        return weights @ (np.logaddexp(0, logits) - y * logits)

    best = find_constant(offsets, y, weights)
    assert loss(best) <= min(loss(best + step) for step in (-0.01, 0.01, -5, 5))


@pytest.mark.parametrize("name", ["", "online_rate"])
def test_weights_count_in_the_constant_as_repeated_rows_do(name):
    rng = np.random.RandomState(0)
    values, times = rng.normal(size=200), rng.randint(1, 4, size=200)
    y = (rng.random_sample(200) < 1 / (1 + np.exp(-2 * values))).astype(np.float32)
    times[y == 1] += 3
    rows = np.repeat(np.arange(200), times)
    X = with_offset(make_impressions(200), values)
    weighted = ImpressionBatches(X, y, times.astype(np.float32), batch_size=50)
    repeated = ImpressionBatches(X[rows], y[rows], batch_size=50)
    chosen, constant = choose_offset(name, weighted, Click())
    assert chosen == name
    assert (chosen, pytest.approx(constant)) == choose_offset(name, repeated, Click())
    plain = ImpressionBatches(X, y, batch_size=50)
    assert constant != pytest.approx(choose_offset(name, plain, Click())[1])


def test_weights_count_in_the_constant_of_a_fitted_net():
    X, weights = make_impressions(60), np.random.RandomState(0).random_sample(60)
    y = make_labels(X)
    net = DINClassifier(max_epochs=1, random_state=0).fit(X, y, weights).net_
    p = np.average(y, weights=weights)
    assert net.constant_ == pytest.approx(np.log(p / (1 - p)))
    assert abs(p - y.mean()) > 0.01


def test_a_fit_starts_from_the_online_model(fitted):
    model, X, _ = fitted
    classifier = model[-1]
    assert classifier.module_.options["offset"] == "online_rate"
    encoded = model[:-1].transform(X[:50])
    rates = logit(model[0].transform(X[:50])["online_rate"].to_numpy())
    offsets = encoded.columns["online_rate"]
    np.testing.assert_allclose(np.diff(offsets), np.diff(rates), atol=1e-5)
    field = encoded.schema["online_rate"]
    assert field.what == "offset"
    assert {*field.of} == {"user", "item"}
    assert "offset of the logit" in str(classifier.summary())


def test_probabilities_are_nearer_to_the_truth_with_it():
    losses = {}
    for seed in (2, 3):
        X, y = make_log(seed, n_rows=3_000, n_users=200, spread=(1.0, 1.0))
        for online_model in (False, True):
            model = model_of(memory={"online_model": online_model}, max_epochs=10)
            model.fit(X[:N_TRAIN], y[:N_TRAIN])
            p = live_predictions(model, X[N_TRAIN:], y[N_TRAIN:], every=20)
            losses[seed, online_model] = -np.log(np.where(y[N_TRAIN:], p, 1 - p)).mean()
    gained = [losses[seed, True] - losses[seed, False] for seed in (2, 3)]
    assert np.mean(gained) < -0.003


@pytest.mark.parametrize(
    "case", ["random numbers", "random labels", "paper", "regressor", "labels"]
)
def test_nothing_is_added_where_it_does_not_help_or_does_not_apply(case):
    X, y = make_log(1, spread=(1.0, 1.0))
    X, y = X[:N_TRAIN], y[:N_TRAIN]
    rng = np.random.RandomState(0)
    if case in ("random numbers", "regressor", "labels"):  # a column of this name, made by hand
        memory = HistoryBuilder(**NAMES, levels="auto").fit(X, y)
        frame = memory.transform(X).assign(online_rate=rng.random_sample(len(X)))
        kind = DINRegressor if case == "regressor" else DINClassifier
        target = {"regressor": y + 0.5, "labels": np.column_stack([y, X["item"] % 2])}.get(case, y)
        model = make_pipeline(model_of()[1], model_of(kind)[-1]).fit(frame, target)
    else:
        options = {"interest": "paper"} if case == "paper" else {}
        model = model_of(**options).fit(X, rng.permutation(y) if case == "random labels" else y)
    assert model[-1].module_.options["offset"] == ""


def test_a_rate_outside_of_0_and_1_is_refused(fitted):
    model, X, y = fitted
    frame = model[0].transform(X[:N_TRAIN])
    wrong = frame.assign(online_rate=frame["online_rate"] * 3)
    with pytest.raises(ValueError, match=r"online_rate.*probabilit"):
        model[1].transform(wrong)
    with pytest.raises(ValueError, match=r"online_rate.*probabilit"):
        clone(model[1]).fit(wrong, y[:N_TRAIN])


def test_files_give_the_probabilities_of_the_pipeline(fitted, tmp_path):
    model, X, y = fitted
    later = X[N_TRAIN:].reset_index(drop=True)
    expected = model.predict_proba(later)[:, 1]
    save(model, tmp_path / "model.din")
    loaded = load(tmp_path / "model.din")
    np.testing.assert_array_equal(loaded.predict_proba(later)[:, 1], expected)
    newer, same = (remember(way, later[:300], y[N_TRAIN:][:300]) for way in (model, loaded))
    asked = later[300:]
    updated = newer.predict_proba(asked)
    np.testing.assert_array_equal(same.predict_proba(asked), updated)
    assert np.abs(updated[:, 1] - expected[300:]).max() > 0.01
    users = pd.DataFrame({"user": [3, 5, 99], "time": 5_000})
    candidates = X[["item"]].drop_duplicates()
    ranked = rank_candidates(newer, users, candidates, top_k=7)
    export_onnx(model, tmp_path / "model.onnx")
    onnx = load_onnx(tmp_path / "model.onnx", memory=newer[0])
    found = rank_candidates(onnx, users, candidates, top_k=7)
    np.testing.assert_allclose(found["probability"], ranked["probability"], atol=1e-6)


def test_a_ranking_gives_each_pair_what_its_row_has(fitted):
    model, X, y = fitted
    newer = remember(model, X[N_TRAIN:], y[N_TRAIN:])
    candidates = X[["item"]].drop_duplicates()
    users = pd.DataFrame({"user": [3, 5, 99, None], "time": [700, 5_000, 5_000, 5_000]})
    ranked = Ranker(newer, candidates).rank(users, top_k=10)
    pairs = users.assign(row=range(4)).loc[ranked.get("row", ranked.index)]
    pairs = pairs.reset_index(drop=True).assign(item=ranked["item"].to_numpy())
    p = newer.predict_proba(pairs[["user", "item", "time"]])[:, 1]
    np.testing.assert_allclose(ranked["probability"], p, atol=1e-6)


def test_an_offset_of_candidates_in_a_user_s_row_is_refused(fitted):
    model, X, _ = fitted
    inner = make_pipeline(*model[1:])
    users = model[0].transform(X[:2])
    users = users[[name for name in users if name not in {"item", "item_rate", "item_count"}]]
    users = users.drop(columns=[n for n in users if n.startswith(("item_", "user_item"))])
    with pytest.raises(ValueError, match="online_rate"):
        rank_candidates(inner, users, X[["item"]].drop_duplicates(), top_k=3)


def test_an_update_trains_beside_the_offset(fitted):
    model, X, y = fitted
    newer = update(model, X[N_TRAIN:], y[N_TRAIN:])
    assert newer[-1].module_.options["offset"] == "online_rate"
    p = newer.predict_proba(X[-100:].assign(time=5_000))[:, 1]
    assert 0.1 < p.mean() < 0.9


def test_explain_gives_the_parts_of_the_estimate(fitted):
    model, X, _ = fitted
    asked = X[N_TRAIN : N_TRAIN + 5]
    table = explain(model, asked)
    parts = model[0].online_parts(asked)
    assert parts.index.equals(asked.index)
    keys = [name.removesuffix("_mean") for name in parts if name.endswith("_mean")]
    assert "bias" in keys
    for row, own in enumerate(table.attrs["online"]):
        assert own == {key: parts[f"{key}_mean"].iloc[row] for key in keys}
    means = parts[[f"{key}_mean" for key in keys]].sum(axis=1)
    spread = np.sqrt(1 + parts[[f"{key}_variance" for key in keys]].sum(axis=1))
    rates = model[0].transform(asked)["online_rate"]
    np.testing.assert_allclose(norm.cdf(means / spread), rates, rtol=1e-12)


def test_a_server_ranks_as_the_pipeline_and_shows_the_parts(fitted):
    model, X, _ = fitted
    catalogue = X[["item"]].drop_duplicates().reset_index(drop=True)
    state = State(lambda: Answers(model, catalogue))
    try:
        row = {"user": 3, "item": int(catalogue["item"][0]), "time": 700, "label": 1}
        post(state, row)
        newer = remember(model, pd.DataFrame([row])[["user", "item", "time"]], [1])
        now = state.answers.levels.at(state.answers.histories.now_of(3))
        users = pd.DataFrame({"user": [3], "time": [now]})
        ranked = rank_candidates(newer, users, catalogue, top_k=10)
        answer = state.answers.rank(3, None, 10, None)
        np.testing.assert_allclose(answer["probabilities"], ranked["probability"], atol=1e-6)
        online = state.answers.levels.describe_online({"user": 3, "item": row["item"]}, now)
        parts = newer[0].online_parts(users.assign(item=row["item"])).iloc[0]
        for part in online:
            name = "_".join(part["of"]) or "bias"
            assert part["mean"] == pytest.approx(parts[f"{name}_mean"], abs=1e-6)
            assert part["deviation"] ** 2 == pytest.approx(parts[f"{name}_variance"], abs=1e-6)
        assert online[-1]["of"] == {}
    finally:
        state.close()


def test_few_rows_scale_the_offset_with_everything_else():
    rng = np.random.RandomState(0)
    X, y = make_log(6, n_rows=600, n_users=20, spread=(1.5, 1.0))
    model = model_of().fit(X[:400], y[:400])
    p = model.predict_proba(X[400:])[:, 1]
    random = model_of().fit(X[:400], rng.permutation(y[:400])).predict_proba(X[400:])[:, 1]
    assert random.std() < p.std()
    assert np.abs(random - y[:400].mean()).max() < 0.2


def test_a_network_with_an_offset_needs_that_number():
    with pytest.raises(ValueError, match="online_rate"):
        DIN(make_impressions(3).schema, offset="online_rate")
    X = make_impressions(40)
    assert (
        DINClassifier(max_epochs=1, random_state=0).fit(X, make_labels(X)).module_.offset_column
        is None
    )
