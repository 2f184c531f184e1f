"""Validation checks are judged, and shipped, by the best constant and scale of their logits."""

import copy
import logging
import re
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistorySequenceEncoder,
    load,
    save,
)
from sklearn_din.network.layers import LabelLogits
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.platt_scaling import (
    PRIOR_CLICKS,
    PRIOR_OF_SCALE,
    PlattScaling,
    _lasting_share,
)
from sklearn_din.training.target import Click, Labels, Numbers
from tests.encoded_impressions import make_impressions

pytestmark = pytest.mark.slow

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


def test_a_check_that_ranks_is_kept_and_no_worse_than_the_later_rate(caplog):
    y = make_labels()
    fitted = DINClassifier(**SMALL).fit(X, y)
    earlier, later = (
        log_loss(y[LATER], np.full(N_LATER, y[part].mean())) for part in (~LATER, LATER)
    )
    assert min(fitted.history_["unscaled_loss"][:-1]) > earlier, "nothing would be found"
    probability = fitted.predict_proba(X)[LATER, 1]
    assert log_loss(y[LATER], probability) < later < earlier
    assert roc_auc_score(y[LATER], probability) > 0.6
    assert len([message for message in caplog.messages if "changed" in message]) == 1


def test_twenty_held_out_clicks_neither_end_a_training_nor_decide_its_rate():
    truth = make_labels(drift=0.0)
    y = np.where(LATER & (np.cumsum(LATER * truth) > 20), 0, truth)
    fitted = DINClassifier(**SMALL).fit(X, y)
    probability = fitted.predict_proba(X)[LATER, 1]
    assert roc_auc_score(truth[LATER], probability) > 0.7
    assert 1.4 * y[LATER].mean() < probability.mean() < 0.5 * y[~LATER].mean()


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
def test_the_kept_network_has_the_scaled_loss_of_its_check(kind, own, y, weights, tmp_path):
    """Of positions those of the rows; files have what was found."""
    settings = {key: SMALL[key] for key in SMALL if key != "neighbours" or kind is DINClassifier}
    rows = X._replace(positions=1 + np.arange(N, dtype=np.int32) % 3)
    fitted = kind(**settings | FIRM | own).fit(rows, y, sample_weight=weights)
    net, target = fitted.net_, fitted.net_.target
    factors = np.ones(N) if weights is None else weights.astype(float)
    if own.get("class_weight"):
        factors *= N / (2 * np.bincount(y))[y]
    factors = torch.from_numpy(factors / factors.mean())[LATER]
    encoded = torch.from_numpy(target.encode(np.asarray(y, dtype=object if y.ndim > 1 else None)))
    later = rows[np.flatnonzero(LATER)]
    favours = net.module_.favours_at(torch.from_numpy(later.positions)).detach()
    outputs = torch.from_numpy(net.score(later))
    outputs = outputs.double() + favours.view_as(outputs)
    best = best_check(net.checks_)
    assert float(target.loss(outputs, encoded[LATER].double(), factors)) == pytest.approx(
        best["valid_loss"], rel=1e-5
    )
    assert best["valid_loss"] < min(best["unscaled_loss"], best["base_loss"])
    assert favours.abs().max() > 0
    assert np.abs(best["constants"]).min() > 0
    save(fitted, tmp_path / "model")
    loaded = load(tmp_path / "model").net_
    np.testing.assert_array_equal(loaded.score(later), net.score(later))
    kept = best_check(loaded.checks_)
    assert [kept[name] for name in ("constants", "scales")] == [best["constants"], best["scales"]]


SCALED = {
    "click": (Click(), (None,)),
    "numbers": (Numbers(), (None,)),
    "labels": (Labels(("a", "b"), (Click(), Click()), (1.0, 3.0), (None, None)), (None, None)),
    "in order": (Labels(("a", "b"), (Click(), Click()), (1.0, 3.0), (None, 0)), (None, 0)),
}


@pytest.mark.parametrize(
    ("target", "after", "slope", "are_later"),
    [
        (*kind, slope, (i + j) % 2 == 0)
        for i, kind in enumerate(SCALED.values())
        for j, slope in enumerate((-1.0, 0.3, 3.0))
    ],
)
def test_constant_and_scale_are_those_of_a_plain_search(target, after, slope, are_later):
    """Its slow twin: derivatives by differences, row by row, and a search over the formula."""
    chance, n, k = np.random.default_rng(0), 400, len(after)
    own, rate = chance.normal(size=(n, k)), np.full(k, -1.0 if are_later else 0.0)
    favours, weights = chance.normal(size=(n, k)) / 3, chance.uniform(0.5, 1.5, n)
    layer = LabelLogits(1, after)
    join = layer.join if k > 1 else lambda logits: logits[:, 0]
    truth = join(torch.from_numpy(slope * own)).numpy().reshape(n, k) + favours
    y = truth if isinstance(target, Numbers) else (chance.random((n, k)) < expit(truth)) * 1.0
    if k > 1:
        y[::5, 1] = np.nan
    shape = (n, k) if k > 1 else (n,)
    module = SimpleNamespace(bias_of=torch.as_tensor, outputs_of=lambda logits: logits)
    if k > 1:
        module = SimpleNamespace(bias_of=layer.bias_of, outputs_of=layer.join)
    constant = layer.join(torch.from_numpy(rate)).detach().numpy() if k > 1 else rate[0]
    held_out = ImpressionBatches(make_impressions(n), y.reshape(shape), weights, batch_size=n)
    net = SimpleNamespace(target=target, module_=module, constant_=constant)
    earlier = (chance.random((n, k)) < 0.4) * 1.0
    train = ImpressionBatches(held_out.X, earlier.reshape(shape), weights, batch_size=n)
    net.training_ = SimpleNamespace(is_later=are_later, train=train)
    scaling = PlattScaling(net, held_out)
    y, factors = torch.from_numpy(held_out.y), torch.from_numpy(weights)
    outputs = join(torch.from_numpy(own)) + torch.from_numpy(favours).view(shape)
    (constants, scales), scaled = scaling.fit(outputs, torch.from_numpy(favours))

    def loss_of(logits, rows=slice(None)):
        return float(target.loss(join(torch.from_numpy(logits)), y[rows], factors[rows]))

    def slopes(biases, rows=slice(None)):
        step, zeros = 1e-5 * np.eye(k), np.zeros_like(own[rows])
        pairs = [[loss_of(zeros + biases + h, rows) for h in (-each, each)] for each in step]
        return np.diff(pairs).ravel() / 2e-5

    later = module.bias_of(torch.as_tensor(target.constant(y.numpy(), weights)).double()).numpy()
    tells = sum(slopes(rate, slice(row, row + 1)) ** 2 for row in range(n))
    move = tells / (tells + PRIOR_CLICKS) * (later - rate)
    if are_later:
        mean = outputs.numpy() if isinstance(target, Numbers) else expit(outputs.numpy())
        mean[np.isnan(y.numpy())] = np.nan
        mean = torch.as_tensor(target.constant(mean, weights)).double()
        known = np.clip(module.bias_of(mean).numpy() - rate, *np.sort([0 * move, move], axis=0))
        move = known + scaling.share.numpy() * (move - known)
    tilt = slopes(rate + move)
    moved, means = scaling.has_moved.numpy(), (own - rate).mean(axis=0)

    def loss(numbers):
        shift, scale = numbers.reshape(2, k)
        logits = join(torch.from_numpy(rate + shift + scale * (own - rate)))
        found = target.loss(logits.view(shape) + torch.from_numpy(favours).view(shape), y, factors)
        of_prior = PRIOR_OF_SCALE / 2 / n * (scale**2).sum()
        return float(found) - (tilt * (shift + scale * means))[moved].sum() + of_prior

    found = np.array([constants, scales])
    assert (constants[~moved] == 0).all()
    assert moved.all() if are_later else not moved.any()
    tilted = (tilt * (constants + scales * means))[moved].sum()
    of_prior = PRIOR_OF_SCALE / 2 / n * (scales**2).sum()
    assert scaling.loss(scaled) == pytest.approx(loss(found) + tilted - of_prior)
    bounds = [(-9, 9) if free else (0, 0) for free in moved]
    bounds += [(1e-3 / np.abs(each).max(), 1) for each in (own - rate - moved * means).T]
    options = {"method": "Nelder-Mead", "options": {"xatol": 1e-6, "fatol": 1e-12}}
    near = np.clip(found.ravel() + 0.1, *np.transpose(bounds))
    for first in (np.r_[np.zeros(k), np.ones(k) / 2], near):
        assert loss(found) <= minimize(loss, first, bounds=bounds, **options).fun + 1e-6
    if isinstance(target, Click) and are_later:
        assert np.average(expit(scaled.numpy()), weights=weights) == pytest.approx(
            expit(rate + move)[0], abs=1e-4
        )
    if slope != 0.3:
        assert (scales[0] < 0.001) if slope < 0 else (scales[0] == 1)


RATES = 0.82, 0.83, 0.78, 0.82, 0.84, 0.80, 0.72, 0.83, 0.78, 0.85, 0.80, 0.80
PASTS = {  # rates of ten tenths of training and of two later ones; which share of the move is taken
    "comes and goes": (RATES, 0.0, 0.4),
    "stays": ((0.8,) * 9 + (0.85,) * 3, 0.6, 0.9),  # nothing is known of earlier moves
    "has stayed before": ((0.7,) * 5 + (0.78,) * 4 + (0.85,) * 3, 0.9, 1.0),
}


@pytest.mark.parametrize(("rates", "least", "most"), PASTS.values(), ids=PASTS)
def test_of_a_move_of_the_base_rate_as_much_is_taken_as_lasted_of_earlier_ones(
    rates, least, most, caplog
):
    """One of a log whose rate comes and goes is not taken for one that stays."""
    chance, n = np.random.default_rng(0), 12 * 1_500
    log = pd.DataFrame({"user": chance.integers(99, size=n), "item": chance.integers(40, size=n)})
    log["time"], is_test = np.arange(n), np.arange(n) >= n * 10 // 12
    y = (chance.random(n) < np.repeat(rates, 1_500) + 0.1 * (log["item"] % 3 - 1)).astype(int)
    order = chance.permutation(n * 10 // 12)  # rows need not come in the order of time
    model = make_pipeline(
        HistorySequenceEncoder(user="user", time="time"), DINClassifier(random_state=0)
    ).fit(log.iloc[order], y[order])
    (said,) = [message for message in caplog.messages if "changed" in message]
    share = int(re.search(r"shifted by (\d+)% of the difference", said)[1]) / 100
    assert least <= share <= most
    mean = model.predict_proba(log[is_test])[:, 1].mean()
    assert abs(mean - y[is_test].mean()) < 0.035


def share_of(train, later, information):
    """The share of each of two labels that lasts."""
    net = SimpleNamespace(target=Labels(("a", "b"), (Click(), Click()), (1, 1), (None, None)))
    net.module_, net.training_ = LabelLogits(1, (None, None)), SimpleNamespace(train=train)
    return _lasting_share(net, later, torch.from_numpy(information))


@pytest.mark.parametrize("weights", [None, np.random.default_rng(1).uniform(0.5, 2, N)])
def test_the_share_that_lasts_is_that_of_a_plain_loop_over_tenths(weights):
    chance = np.random.default_rng(0)
    walk = np.cumsum(chance.normal(size=40)).repeat(N // 40)
    y = (chance.random((N, 2)) < expit(np.column_stack([walk, np.sin(walk)]))).astype(float)
    y[::3, 0] = np.nan
    times, order = np.arange(N), chance.permutation(N)
    encoded = X._replace(times=times[order])
    parts = [
        ImpressionBatches(encoded, y[order][of], weights, batch_size=N, rows=np.flatnonzero(of))
        for of in (order < 1_700, order >= 1_700)
    ]
    if weights is not None:
        for part in parts:
            part.weights = weights[order][part.rows]
    information = np.array([0.1, 0.2])
    found = share_of(*parts, information)
    of_rows = np.ones(N) if weights is None else weights

    def logit(label, first, end):
        rows = [row for row in range(first * N // 10, end * N // 10) if y[row, label] >= 0]
        rate = sum(of_rows[r] * y[r, label] for r in rows) / sum(of_rows[r] for r in rows)
        return np.log(rate / (1 - rate))

    for label in range(2):
        products = squares = 0.0
        for tenth in range(4, 10):  # the first is 1
            base = logit(label, 0, tenth)
            move = logit(label, tenth - 1, tenth) - base
            later = [logit(label, t, t + 1) for t in (tenth, tenth + 1) if t < 10]
            products += move * (np.mean(later) - base)
            squares += move**2
        prior = 8 * 6 / (information[label] * N / 10)
        assert float(found[label]) == pytest.approx(
            np.clip((products + 0.75 * prior) / (squares + prior), 0, 1), abs=1e-6
        )
    assert 0 < found.min() < found.max()


def test_labels_that_nobody_gave_in_some_tenth_have_the_usual_share():
    y = np.column_stack([make_labels(), np.where(np.arange(N) < N - 400, np.nan, make_labels())])
    parts = [ImpressionBatches(X, y[of], batch_size=N) for of in (slice(1_800), slice(1_800, N))]
    found = share_of(*parts, np.array([0.1, 0.1]))
    assert float(found[1]) == pytest.approx(0.75)
    assert float(found[0]) != pytest.approx(0.75)


@pytest.mark.parametrize(("later", "asks"), [(0.99, True), (0.0, True), (0.45, True), (0.3, False)])
def test_a_rate_of_twice_the_odds_or_one_label_alone_asks_when_labels_are_known(
    later, asks, caplog
):
    chance = np.random.default_rng(0)
    y = (chance.random(N) < np.where(LATER, later, 0.25)).astype(int)
    with warnings.catch_warnings(action="ignore"):  # nothing is to be learnt
        DINClassifier(**SMALL | {"max_epochs": 1}).fit(X, y)
    (said,) = [message for message in caplog.messages if "changed" in message]
    first, other = (1, 0) if later else (0, 1)
    assert (f"Are labels of {first} known sooner than those of {other}?" in said) is asks
    assert ("update often" in said) is not asks


def test_an_update_trains_weights_without_their_scale_and_gives_them_it_again(
    tmp_path, monkeypatch
):
    y = make_labels(drift=0.0)
    fitted = DINClassifier(**SMALL | FIRM).fit(X, y)
    best = best_check(fitted.net_.checks_)
    (center,), (constant,), (scale,) = (best[n] for n in ("centers", "constants", "scales"))
    assert 0.1 < scale < 0.99
    before = fitted.net_.score(X)
    still = copy.deepcopy(fitted).set_params(lr=1e-12).partial_fit(X, y).net_.score(X)
    np.testing.assert_allclose(still, before, atol=1e-5)
    save(fitted, tmp_path / "model")
    updated, loaded, twin = copy.deepcopy(fitted), load(tmp_path / "model"), copy.deepcopy(fitted)
    expected = updated.partial_fit(X, y).net_.score(X)
    np.testing.assert_array_equal(loaded.partial_fit(X, y).net_.score(X), expected)
    monkeypatch.setattr("sklearn_din.training.rows.without_scale", lambda net: nullcontext())
    output, middle = twin.module_.output, center + constant
    output.weight.data /= scale
    output.bias.data.sub_(middle).div_(scale).add_(middle)
    found = middle + scale * (twin.partial_fit(X, y).net_.score(X) - middle)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("validation", "drift"), [("last", 1.5), ("random", 3.5), ("groups", 3.5)])
def test_a_rate_that_stays_or_is_not_of_later_rows_is_not_spoken_of(validation, drift, caplog):
    y, groups = make_labels(drift=np.where(LATER, drift, 0.0)), np.arange(N) // 100
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings(action="ignore" if validation != "last" else "error"):
        fitted = DINClassifier(**SMALL | {"validation": validation}).fit(X, y, groups=groups)
    assert not [message for message in caplog.messages if "changed" in message]
    assert {check["constants"][0] for check in fitted.net_.checks_} == {0.0}


def test_outputs_of_biases_have_these_biases():
    layer, own = LabelLogits(3, (2, None, 1)), torch.randn(50, 3).double()
    torch.testing.assert_close(layer.bias_of(layer.join(own)), own)
    torch.testing.assert_close(layer.bias_of(layer.join(own)[7]), own[7])
