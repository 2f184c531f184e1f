"""A base rate that moved to later validation rows: checks are compared with logits moved along."""

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import brentq, minimize
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistorySequenceEncoder,
    attach_history,
    load,
    save,
)
from sklearn_din.network.layers import LabelLogits
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.moved_rate import MovedRate, errors_by_chance
from sklearn_din.training.target import Click, Labels, Numbers
from tests.encoded_impressions import make_impressions

N, N_LATER = 2_000, 200
X = make_impressions(N, seed=3)
LATER = np.arange(N) >= N - N_LATER
X.columns["price"][LATER] -= 2.5  # more of the rows that are clicked less, and
DRIFT = np.where(LATER, 3.5, 0.0)  # all rows are clicked more
SMALL = {"embedding_dim": 3, "attention_units": (4,), "hidden_units": (5,), "neighbours": None}
SMALL |= {"validation": "last", "early_stopping": True, "max_epochs": 4, "random_state": 0}
FIRM = {"refit": None, "lr": 0.02, "max_epochs": 2}


def make_labels(seed=0, drift=DRIFT, weight=1.0):
    logit = weight * X.columns["price"] + drift
    return (np.random.default_rng(seed).random(N) < expit(logit)).astype(int)


def make_log(seed, n=5_000, n_items=100):
    """Clicks become more frequent, .58 to .70, while ever more items are new, and clicked less."""
    chance, time = np.random.RandomState(seed), np.arange(n)
    is_late, user, item = (
        time >= 0.72 * n,
        chance.randint(500, size=n),
        chance.randint(n_items, size=n),
    )
    is_new = chance.random_sample(n) < np.where(is_late, 0.6, 0.1)
    logit = np.where(is_new, -1.5, 0.5 * chance.normal(size=n_items)[item])
    for rows, rate in ((~is_late, 0.58), (is_late, 0.7)):
        own = logit[rows]
        logit[rows] += brentq(lambda b, own=own, rate=rate: expit(b + own).mean() - rate, -9, 9)
    y = (chance.random_sample(n) < expit(logit)).astype(int)
    item = np.where(is_new, n_items + time, item)
    log = pd.DataFrame({"user": user, "item": item, "time": time})
    return attach_history(log, log[y == 1], user="user", time="time", columns=["item"]), y


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr("sklearn_din.training.simple_rates.log_once", lambda message: None)


def test_a_log_whose_rate_moves_by_time_is_learnt_by_the_steps_of_the_readme(caplog):
    log, y = make_log(3)
    n = 4_000
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"), DINClassifier(random_state=0)
    ).fit(log[:n], y[:n])
    probability = model.predict_proba(log[n:])[:, 1]
    assert model[-1].net_.stop_reason_ == "patience"
    assert roc_auc_score(y[n:], probability) > 0.6
    assert log_loss(y[n:], probability) < log_loss(y[n:], np.full(len(y) - n, y[n:].mean()))
    (said,) = [message for message in caplog.messages if "moved" in message]
    assert "the base rate moved from 0.59 in the training rows to 0.675 in the later" in said


def test_a_check_that_ranks_is_kept_and_no_worse_than_the_later_rate(caplog):
    y = make_labels()
    fitted = DINClassifier(**SMALL).fit(X, y)
    unmoved = min(check.get("unmoved_loss", 9) for check in fitted.net_.checks_)
    earlier, later = (
        log_loss(y[LATER], np.full(N_LATER, y[part].mean())) for part in (~LATER, LATER)
    )
    assert unmoved > earlier, "nothing would be found"
    assert fitted.net_.stop_reason_ != "base_rate"
    probability = fitted.predict_proba(X)[LATER, 1]
    assert log_loss(y[LATER], probability) < later < earlier
    assert roc_auc_score(y[LATER], probability) > 0.6
    assert len([message for message in caplog.messages if "moved" in message]) == 1


TWO = np.column_stack([make_labels(), make_labels(1, DRIFT - 1) * make_labels()]).astype(float)
TWO[::7, 1] = np.nan
TWO[TWO[:, 0] == 0, 1] = 0
KINDS = {
    "labels": (DINClassifier, {}, make_labels(), None),
    "weights": (DINClassifier, {"class_weight": "balanced"}, make_labels(), 1 + np.arange(N) % 3),
    "several": (DINClassifier, {}, TWO, None),
    "in order": (DINClassifier, {"after": {1: 0}, "label_weight": {1: 2.0}}, TWO, None),
    "numbers": (DINRegressor, {}, X.columns["price"] + 2 * LATER, None),
}


@pytest.mark.parametrize(("kind", "own", "y", "weights"), KINDS.values(), ids=KINDS)
def test_the_kept_network_has_the_best_last_bias_for_the_later_rows(
    kind, own, y, weights, tmp_path
):
    """Its slow twin: outputs of the same network with biases that scipy finds."""
    settings = {key: SMALL[key] for key in SMALL if key != "neighbours" or kind is DINClassifier}
    fitted = kind(**settings | FIRM | own).fit(X, y, sample_weight=weights)
    net, target = fitted.net_, fitted.net_.target
    assert net.stop_reason_ != "base_rate"
    rows, factors = np.flatnonzero(LATER), np.ones(N) if weights is None else weights.astype(float)
    if own.get("class_weight"):
        factors *= N / (2 * np.bincount(y))[y]
    factors = torch.from_numpy(factors / factors.mean())[rows]
    encoded = torch.from_numpy(target.encode(np.asarray(y, dtype=object if y.ndim > 1 else None)))
    bias, shape = net.module_.output.bias.data.double(), net.module_.output.bias.shape

    def loss(moved):
        net.module_.output.bias.data.copy_(torch.from_numpy(moved).view(shape))
        outputs = torch.from_numpy(net.score(X[rows]))
        return float(target.loss(outputs.double(), encoded[rows].double(), factors))

    best = best_loss = min(check["valid_loss"] for check in net.checks_)
    assert loss(bias.numpy()) == pytest.approx(best_loss, rel=1e-5)
    found = minimize(loss, bias.numpy() + 0.1, method="Nelder-Mead", options={"xatol": 1e-4})
    assert best <= found.fun + 1e-6
    np.testing.assert_allclose(found.x, bias.numpy(), atol=5e-3)
    net.module_.output.bias.data.copy_(bias)
    save(fitted, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").net_.score(X[rows]), net.score(X[rows]))


def test_a_rate_that_stays_is_not_spoken_of_and_changes_no_bit(caplog, monkeypatch):
    y = make_labels(drift=np.where(LATER, 1.5, 0.0))
    caplog.set_level(logging.INFO)
    fitted = DINClassifier(**SMALL).fit(X, y)
    assert not [message for message in caplog.messages if "moved" in message]
    assert not any("unmoved_loss" in check for check in fitted.net_.checks_)
    monkeypatch.setattr(MovedRate, "find", lambda *args: None)
    without = DINClassifier(**SMALL).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize("validation", ["random", "groups"])
def test_rows_that_are_not_later_have_no_rate_that_moved(validation, caplog):
    groups = np.arange(N) // 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DINClassifier(**SMALL | {"validation": validation}).fit(X, make_labels(), groups=groups)
    assert not [message for message in caplog.messages if "moved" in message]


def test_where_there_is_nothing_to_learn_all_rows_get_the_later_rate():
    y = make_labels(drift=np.where(LATER, 1.0, 0.0), weight=0.0)
    with pytest.warns(UserWarning, match="nothing was found to learn"):
        fitted = DINClassifier(**SMALL | {"lr": 1e-6}).fit(X, y)
    np.testing.assert_allclose(fitted.predict_proba(X)[:, 1], y[LATER].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("unmoved", "gain", "errors", "is_better"),
    [
        (0.71, 0.01, 3.2, False),  # chance, in two checks
        (0.71, 0.01, 3.4, True),  # it ranks
        (0.69, 0.01, 0.0, True),  # better as if no rate had moved
        (0.69, -0.01, 9.0, False),  # what it gains is the moved rate alone
    ],
)
def test_a_check_must_be_better_unmoved_or_rank_better_than_chance(
    unmoved, gain, errors, is_better
):
    moved = MovedRate.find(Click(), 0.0, (np.arange(400) % 4 > 0).astype(np.float32), None)
    stopping = EarlyStopping(4, torch.zeros(1), 0.7, moved)
    stopping.best = {"output.bias": torch.zeros(1)}
    checks = [
        {"valid_loss": moved.loss - gain, "unmoved_loss": unmoved, "errors": errors},
        {"valid_loss": 1.0, "unmoved_loss": 1.0, "errors": 0.0},
    ]
    assert stopping.is_better(checks) is is_better
    assert stopping.is_better([*checks, {"valid_loss": 2.0}]) is is_better  # the last pass


@pytest.mark.parametrize("n_checks", [1, 20])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_checks_of_coin_flips_rank_no_better_than_chance(n_checks, share):
    """1,000 trainings, of which one is to be expected."""
    chance, n_ranking = np.random.default_rng(0), 0
    for _ in range(1_000):
        y = (chance.random(200) < share).astype(np.float32)
        rate = MovedRate.find(Click(), 3.0, y, None)
        outputs = torch.from_numpy(chance.normal(size=(n_checks, 200)))
        n_ranking += max(map(rate.errors_of, outputs)) > errors_by_chance(n_checks)
    assert n_ranking <= 4


def test_the_errors_of_outputs_are_those_of_an_auc_whatever_their_scale():
    chance, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=1_000)
    y = (chance.random(1_000) < expit(0.4 * x)).astype(np.float32)
    error = np.sqrt((1 / y.sum() + 1 / (1 - y).sum()) / 12)
    expected = (roc_auc_score(y, x) - 0.5) / error
    assert 5 < expected < 7
    rate = MovedRate.find(Click(), 3.0, y, None)
    for scale in (0.01, 1.0, 50.0):
        assert rate.errors_of(torch.from_numpy(scale * x + 3)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("target", "y"),
    [
        (Numbers(), np.random.default_rng(0).normal(size=(400, 1))),
        (Labels(("a", "b"), (Click(), Click()), (1.0, 3.0), (None, None)), TWO[:400]),
    ],
    ids=["numbers", "labels"],
)
def test_the_errors_of_other_targets_are_those_of_their_own_derivatives(target, y):
    y, weights = y.astype(np.float32), np.random.default_rng(0).random(400)
    numbers = isinstance(target, Numbers)
    labels = y[:, 0] if numbers else y
    moved = MovedRate.find(target, np.float64(-9.0), labels, weights)
    outputs = np.random.default_rng(1).normal(size=y.shape)
    rate, known = np.asarray(moved.constant), ~np.isnan(y)
    pull = 2 * (y - rate) if numbers else np.array([1.0, 3.0]) * (np.nan_to_num(y) - expit(rate))
    products = (weights[:, None] * known * pull * (outputs - outputs.mean(axis=0))).sum(axis=1)
    expected = products.sum() / np.sqrt((products**2).sum())
    found = moved.errors_of(torch.from_numpy(outputs[:, 0] if numbers else outputs))
    assert found == pytest.approx(expected, rel=1e-6)


def test_outputs_of_biases_have_these_biases():
    layer, own = LabelLogits(3, (2, None, 1)), torch.randn(50, 3).double()
    torch.testing.assert_close(layer.bias_of(layer.join(own)), own)
    torch.testing.assert_close(layer.bias_of(layer.join(own)[7]), own[7])
