"""The skorch net: net_.fit and net_.partial_fit, epochs for callbacks, checks within them."""

import copy

import numpy as np
import pytest
import skorch.callbacks
import torch
from skorch.callbacks import Callback

from sklearn_din.estimator import DINClassifier
from sklearn_din.training.early_stopping import EarlyStopping
from tests.encoded_impressions import make_impressions, make_labels

X = make_impressions(400, seed=3)
y = make_labels(X, seed=3)


def classifier(**parameters):
    settings = {"max_epochs": 2, "batch_size": 50, "random_state": 0}
    return DINClassifier(**(settings | parameters))


def weights_of(net):
    return torch.nn.utils.parameters_to_vector(net.module_.parameters()).detach().clone()


CASES = {
    "as usual": {},
    "checks": {"early_stopping": True, "max_epochs": 4},
    "last rows": {"early_stopping": True, "validation": "last"},
    "dropout": {"dropout": 0.3},
    "as published": {"interest": "paper", "activation": "dice", "embedding_lr": 0.001},
    "no L2": {"embedding_l2": 0.0, "batch_size": "auto"},
}


@pytest.mark.parametrize("parameters", CASES.values(), ids=CASES.keys())
def test_the_nets_own_fit_gives_the_classifiers_network(parameters):
    fitted = classifier(**parameters).fit(X, y)
    expected, checks = weights_of(fitted.net_), fitted.history_.drop(columns="seconds")
    again = fitted.net_.fit(X, y)
    assert again is fitted.net_
    assert torch.equal(weights_of(again), expected)
    assert [check["train_loss"] for check in again.checks_] == checks["train_loss"].tolist()
    np.testing.assert_array_equal(fitted.predict_proba(X)[:, 1], again.predict_proba(X)[:, 1])


@pytest.mark.parametrize("parameters", CASES.values(), ids=CASES.keys())
def test_the_nets_own_partial_fit_is_the_classifiers(parameters):
    fitted = classifier(**parameters).fit(X, y)
    twin = copy.deepcopy(fitted).partial_fit(X[:100], y[:100])
    fitted.net_.partial_fit(X[:100], y[:100])
    assert torch.equal(weights_of(fitted.net_), weights_of(twin.net_))
    assert fitted.net_.n_epochs_ == twin.n_iter_


def test_the_net_takes_weights_and_groups():
    factors, groups = np.linspace(0.5, 1.5, 400), np.arange(400) % 20
    settings = {"early_stopping": True, "validation": "groups"}
    fitted = classifier(**settings).fit(X, y, sample_weight=factors, groups=groups)
    expected = weights_of(fitted.net_)
    scaled = (factors / factors.mean()).astype(np.float32)
    fitted.net_.fit(X, y, sample_weight=scaled, groups=groups)
    assert torch.equal(weights_of(fitted.net_), expected)


def test_the_net_says_what_it_takes():
    net = classifier().fit(X, y).net_
    for method in (net.fit, net.partial_fit):
        with pytest.raises(TypeError, match="net_ takes EncodedFeatures, got ndarray"):
            method(np.eye(4), [0, 1, 0, 1])
        for wrong in (y[:3], np.array(["a", "b"])[y], y + 1):
            with pytest.raises(ValueError, match="net_ takes y as 1 for a click and 0 for none"):
                method(X, wrong)


def test_one_training_of_two_epochs_equals_one_epoch_and_one_more():
    settings = {"interest": "paper", "early_stopping": False}  # draws no numbers in training
    whole = classifier(**settings).fit(X, y)
    twice = classifier(**settings | {"max_epochs": 1}).fit(X, y)
    loss = twice.history_["train_loss"][0]
    twice.net_.partial_fit(X, y)
    assert loss == whole.history_["train_loss"][0]
    assert [check["epoch"] for check in twice.net_.checks_] == [1, 2]
    assert len(twice.net_.history) == 2


class Events(Callback):
    """Counts what skorch's callbacks are told."""

    def on_train_begin(self, net, **kwargs):
        self.epochs, self.batches, self.n_checks = [], [0, 0], []

    def on_batch_end(self, net, training=False, **kwargs):
        self.batches[training] += 1

    def on_epoch_end(self, net, **kwargs):
        self.epochs.append(len(net.history))
        self.n_checks.append(len(net.checks_))


def test_an_epoch_is_an_epoch_for_callbacks_and_has_up_to_four_checks():
    many = make_impressions(20_000)
    events = Events()
    fitted = classifier(batch_size=64, callbacks=[events]).fit(many, make_labels(many))
    assert events.epochs == [1, 2]
    assert events.n_checks == [4, 8]
    assert events.batches == [2, 2 * 282], "skorch's validation pass is the last check"
    assert fitted.history_["epoch"].tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    history = fitted.net_.history
    assert len(history) == fitted.n_iter_ == 2
    for epoch, last in zip(history, (3, 7), strict=True):
        assert epoch["valid_loss"] == fitted.history_["valid_loss"][last]
        assert epoch["valid_auc"] == fitted.history_["valid_auc"][last]
        of_checks = fitted.history_["train_loss"][last - 3 : last + 1]
        assert epoch["train_loss"] == pytest.approx(of_checks.mean(), rel=1e-3)
    seconds = fitted.history_["seconds"]
    assert sum(epoch["dur"] for epoch in history) == pytest.approx(seconds.sum(), rel=0.05)


def test_skorchs_callbacks_see_epochs():
    stop = skorch.callbacks.EarlyStopping(monitor="train_loss", patience=1, threshold=0.9, sink=len)
    score = skorch.callbacks.EpochScoring("roc_auc", name="auc", lower_is_better=False)
    fitted = classifier(max_epochs=9, early_stopping=True, callbacks=[score, stop]).fit(X, y)
    assert fitted.net_.stop_reason_ == "callback"
    assert len(fitted.net_.history) == fitted.n_iter_ == 2


@pytest.mark.parametrize(("best", "patience", "n_checks"), [(0, 1, 5), (0, 3, 7), (5, 2, 8)])
def test_patience_begins_with_the_first_full_average(best, patience, n_checks, monkeypatch):
    end_check = EarlyStopping._end_check

    def judged(self, net):
        self._losses = [torch.tensor(0.5 if len(net.checks_) == best else 0.6)]
        self._sizes = [1]
        end_check(self, net)

    monkeypatch.setattr(EarlyStopping, "_end_check", judged)
    fitted = classifier(early_stopping=True, max_epochs=20, patience=patience).fit(X, y)
    assert fitted.net_.stop_reason_ == "patience"
    assert len(fitted.history_) == n_checks


def test_early_stopping_may_stop_within_an_epoch():
    many = make_impressions(20_000)
    settings = {"batch_size": 64, "patience": 1, "max_epochs": 50, "lr": 0.2}
    fitted = classifier(**settings).fit(many, make_labels(many))
    assert fitted.net_.stop_reason_ == "patience"
    assert len(fitted.history_) >= 5
    assert fitted.n_iter_ == int(np.ceil(fitted.history_["epoch"].iloc[-1]))
    assert len(fitted.net_.history) in (fitted.n_iter_, fitted.n_iter_ - 1)
    assert all("train_loss" in epoch for epoch in fitted.net_.history)


def test_a_fitted_net_holds_no_rows_and_no_gradients():
    net = classifier(early_stopping=True).fit(X, y).net_
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    with pytest.raises(ValueError, match="batches are made by fit and partial_fit"):
        net.get_split_datasets(X)
    for _, callback in net.callbacks_:
        assert not [held for held in vars(callback).values() if hasattr(held, "X")]
