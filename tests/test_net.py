"""The skorch net: net_.fit and net_.partial_fit, epochs for callbacks, checks within them."""

import copy
import time
import warnings
from itertools import product

import numpy as np
import pytest
import skorch.callbacks
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch.optim.lr_scheduler import OneCycleLR

from sklearn_din import DINClassifier
from sklearn_din.training.platt_scaling import PlattScaling
from sklearn_din.training.validation import split_rows
from sklearn_din.training.validation_checks import ValidationChecks
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels, weights_of

X = make_impressions(400, seed=3)
y = make_labels(X, seed=3)


def classifier(**parameters):
    settings = {"max_epochs": 2, "batch_size": 50, "random_state": 0}
    return DINClassifier(**(settings | parameters))


CASES = {
    "as usual": {},
    "checks": {"early_stopping": True, "max_epochs": 4},
    "last rows": {"early_stopping": True, "validation": "last"},
    "dropout": {"dropout": 0.3},
    "as published": {"interest": "paper", "activation": "dice", "embedding_lr": 0.001},
    "no L2": {"embedding_l2": 0.0, "batch_size": "auto"},
}


@pytest.mark.parametrize("parameters", CASES.values(), ids=CASES.keys())
def test_the_nets_own_fit_and_partial_fit_are_the_classifiers(parameters):
    fitted = classifier(**parameters).fit(X, y)
    expected, checks = weights_of(fitted.net_), fitted.history_.drop(columns="seconds")
    probability = fitted.predict_proba(X)[:, 1]
    again = fitted.net_.fit(X, y)
    assert again is fitted.net_
    assert torch.equal(weights_of(again), expected)
    assert [check["train_loss"] for check in again.checks_] == checks["train_loss"].tolist()
    np.testing.assert_array_equal(again.predict_proba(X)[:, 1], probability)
    twin = copy.deepcopy(fitted).partial_fit(X[:100], y[:100])
    fitted.net_.partial_fit(X[:100], y[:100])
    assert torch.equal(weights_of(fitted.net_), weights_of(twin.net_))
    assert fitted.net_.n_epochs_ == twin.n_iter_


def test_a_fitted_net_says_what_it_takes_and_holds_no_rows_and_no_gradients():
    net = classifier(early_stopping=True).fit(X, y).net_
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    for use in (lambda: net.get_split_datasets(X), lambda: net.training_):
        with pytest.raises(ValueError, match="batches are made by fit and partial_fit"):
            use()
    for _, callback in net.callbacks_:
        assert not [held for held in vars(callback).values() if hasattr(held, "X")]
    for method in (net.fit, net.partial_fit):
        with pytest.raises(TypeError, match="net_ takes EncodedFeatures, got ndarray"):
            method(np.eye(4), [0, 1, 0, 1])
        for wrong in (y[:3], np.array(["a", "b"])[y], y + 1):
            with pytest.raises(ValueError, match="net_ takes y as 1 for a click and 0 for none"):
                method(X, wrong)


@pytest.mark.slow
def test_an_epoch_is_an_epoch_for_callbacks_and_has_up_to_four_checks(monkeypatch):
    for name in ("time", "perf_counter"):  # seconds of the processor, whatever else it does
        monkeypatch.setattr(time, name, time.process_time)
    many, batches, ends = make_impressions(20_000), [0, 0], []

    def count(net, training=False, **_):
        batches[training] += 1

    note = On(
        batch_end=count, epoch_end=lambda n, **_: ends.append((len(n.history), len(n.checks_)))
    )
    fitted = classifier(batch_size=64, callbacks=[note]).fit(many, make_labels(many))
    assert ends == [(1, 4), (2, 8)]
    assert batches == [4, 2 * 282], "skorch's validation pass is the last check"
    columns = ["epoch", "train_loss", "valid_loss", "unscaled_loss", "valid_auc", "seconds"]
    assert list(fitted.history_) == columns
    assert fitted.history_.notna().all(axis=None)
    assert fitted.history_["epoch"].tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    history = fitted.net_.history
    assert len(history) == fitted.n_iter_ == 2
    for epoch, last in zip(history, (3, 7), strict=True):
        assert epoch["valid_loss"] == fitted.history_["unscaled_loss"][last]
        assert epoch["valid_auc"] == fitted.history_["valid_auc"][last]
        of_checks = fitted.history_["train_loss"][last - 3 : last + 1]
        assert epoch["train_loss"] == pytest.approx(of_checks.mean(), rel=1e-3)
    seconds = fitted.history_["seconds"]
    assert sum(epoch["dur"] for epoch in history) == pytest.approx(seconds.sum(), rel=0.05)


@pytest.mark.parametrize(("best", "patience", "n_checks"), [(0, 1, 5), (0, 3, 7), (5, 2, 8)])
def test_patience_begins_with_the_first_full_average(best, patience, n_checks, monkeypatch):
    end_check = ValidationChecks.end

    def judged(self, net):
        loss = 0.5 if len(net.checks_) == best else 0.6
        monkeypatch.setattr(PlattScaling, "loss", lambda *_: loss)
        end_check(self, net)

    monkeypatch.setattr(ValidationChecks, "end", judged)
    fitted = classifier(early_stopping=True, max_epochs=20, patience=patience).fit(X, y)
    assert fitted.net_.stop_reason_ == "patience"
    assert len(fitted.history_) == n_checks


@pytest.mark.slow
def test_early_stopping_may_stop_within_an_epoch():
    many = make_impressions(20_000)
    settings = {"batch_size": 64, "patience": 1, "max_epochs": 50, "lr": 0.05}
    fitted = classifier(**settings).fit(many, make_labels(many))
    assert fitted.net_.stop_reason_ == "patience"
    assert len(fitted.history_) >= 5
    assert fitted.n_iter_ == int(np.ceil(fitted.history_["epoch"].iloc[-1]))
    assert len(fitted.net_.history) in (fitted.n_iter_, fitted.n_iter_ - 1)
    assert all("train_loss" in epoch for epoch in fitted.net_.history)


@pytest.mark.parametrize("early_stopping", ["auto", False])
def test_few_rows_leave_the_mean_of_the_weights_after_each_epoch(early_stopping):
    after = []
    keep = On(epoch_end=lambda net, **_: after.append(weights_of(net)))
    fitted = classifier(max_epochs=4, early_stopping=early_stopping, callbacks=[keep]).fit(X, y)
    expected = torch.stack(after).mean(0) if early_stopping else after[-1]
    torch.testing.assert_close(weights_of(fitted.net_), expected)


# Never worse than the base rate

NOISE = np.random.default_rng(0).permutation(np.arange(400) % 5 == 0).astype(int)
NOTHING = r"hardly follow from what was learnt: logits times \d.* near the base rate \(0\.\d+\)"
LEARNS_NOISE = {"early_stopping": True, "max_epochs": 4, "lr": 0.5}


@pytest.mark.parametrize("stopped_by", ["patience", "max_epochs", "callback"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_net_that_found_nothing_ranks_rows_near_the_base_rate(stopped_by, weighted):
    parameters = LEARNS_NOISE | {"patience": 1} if stopped_by == "patience" else LEARNS_NOISE
    parameters = parameters | {"max_epochs": 20 if stopped_by == "patience" else 4}
    if stopped_by == "callback":
        stop = skorch.callbacks.EarlyStopping(monitor="train_loss", threshold=1.0, patience=1)
        parameters = parameters | {"callbacks": [stop]}
    weights = np.where(NOISE, 3.0, 1.0) if weighted else None
    with pytest.warns(UserWarning, match=NOTHING):
        fitted = classifier(**parameters).fit(X, NOISE, sample_weight=weights)
    assert fitted.net_.stop_reason_ == stopped_by
    shown = fitted.predict_proba(X)[:, 1]
    assert len({*shown}) > 100
    assert np.abs(shown - (3 / 7 if weighted else 1 / 5)).mean() < 0.02


SETTINGS = product([0.02, 0.2, 0.5], ["random", "last"], [0.03, 0.5])


@pytest.mark.parametrize(("seed", "setting"), [(n // 2, own) for n, own in enumerate(SETTINGS)])
def test_no_fit_is_worse_on_its_validation_rows_than_the_base_rate(seed, setting):
    """The slow, obvious twin: the loss of one probability for all rows, by its formula."""
    share, validation, lr = setting
    labels = np.random.default_rng(seed).random(400) < share
    order = np.random.RandomState(seed)
    train, valid = split_rows(labels, None, how=validation, fraction=0.1, seeds=order)
    model = classifier(early_stopping=True, validation=validation, random_state=seed, lr=lr)
    with warnings.catch_warnings(action="ignore"):
        fitted = model.fit(X, labels)
    got = log_loss(labels[valid], fitted.predict_proba(X[valid])[:, 1], labels=[0, 1])
    base = np.full(len(valid), labels[train].mean())
    assert got <= log_loss(labels[valid], base, labels=[0, 1]) + 1e-4


def test_a_net_that_found_nothing_learns_from_rows_that_tell_something():
    with pytest.warns(UserWarning, match=NOTHING):
        fitted = classifier(**LEARNS_NOISE | {"lr": 0.1}).fit(X, NOISE)
    fitted.set_params(lr=0.01)
    for _ in range(8):
        fitted.partial_fit(X, y)
    assert roc_auc_score(y, fitted.predict_proba(X)[:, 1]) > 0.8


def test_a_new_network_begins_at_the_base_rate_of_its_rows_but_of_one_label_at_a_half():
    still = classifier(lr=1e-9, embedding_lr=1e-9, max_epochs=1)
    for weights in (None, np.where(y, 3.0, 1.0)):
        p = still.fit(X, y, sample_weight=weights).predict_proba(X)[:, 1]
        assert p.mean() == pytest.approx(np.average(y, weights=weights), abs=0.02)
    rows = np.flatnonzero(y == 1)
    first = classifier(lr=1e-9).partial_fit(X[rows], y[rows], classes=[0, 1])
    assert 0.4 < first.predict_proba(X)[:, 1].mean() < 0.6


# skorch's callbacks: schedules and clipping reach the embeddings

FEW = make_impressions(64)
FEW_LABELS = make_labels(FEW)
SHORT = {"max_epochs": 3, "batch_size": 16, "early_stopping": True}
HALVE = {"policy": "StepLR", "step_size": 1, "gamma": 0.5}
ONE_CYCLE = {"policy": OneCycleLR, "max_lr": 0.01, "total_steps": 12}


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")  # by seven validation rows
@pytest.mark.parametrize(("schedule", "ratio"), [(HALVE, 0.2), (ONE_CYCLE, 1.0)])
def test_a_schedule_that_multiplies_keeps_the_ratio_of_rates_and_another_makes_it_one(
    schedule, ratio
):
    rates = []  # of dense parameters and of the table

    def note(net, **_):
        rates.append([group["lr"] for group in net.optimizer_.param_groups])

    callbacks = [On(epoch_end=note), skorch.callbacks.LRScheduler(**schedule)]
    classifier(**SHORT, lr=0.01, embedding_lr=0.002, callbacks=callbacks).fit(FEW, FEW_LABELS)
    dense, table = np.transpose(rates)
    np.testing.assert_allclose(table, ratio * dense)
    assert len({*dense}) == 3


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
def test_norm_clipping_reaches_the_tables():
    norms = []

    def note(net, training=False, **_):
        if training:
            gradients = [p.grad for p in net.module_.parameters() if p.grad is not None]
            dense = [g._values() if g.is_sparse else g for g in gradients]
            assert any(g.is_sparse for g in gradients)
            norms.append(sum(float(g.square().sum()) for g in dense) ** 0.5)

    clipping = skorch.callbacks.GradientNormClipping(0.01)
    classifier(**SHORT, callbacks=[clipping, On(batch_end=note)]).fit(FEW, FEW_LABELS)
    assert max(norms) < 0.0101
