"""One function trains every net: on batches from anywhere, from the start or on from a net."""

import dataclasses

import numpy as np
import pytest
import torch

from sklearn_din.estimator import DINClassifier
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.fitting import fit_net, plan_in_memory, training_history
from sklearn_din.training.inputs import check_fit_inputs
from tests.encoded_impressions import make_impressions, make_labels

X = make_impressions(400, seed=3)
y = make_labels(X, seed=3)


def plan_of(**parameters):
    settings = {"max_epochs": 2, "batch_size": 50, "random_state": 0} | parameters
    classifier = DINClassifier(**settings)
    return plan_in_memory(classifier, check_fit_inputs(classifier, X, y, None), None)


def vector(net):
    return torch.nn.utils.parameters_to_vector(net.module_.parameters()).detach().clone()


class Elsewhere:
    """Batches that are no arrays: what a stream would give."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches


@pytest.mark.parametrize("early_stopping", [True, False])
def test_batches_may_come_from_anywhere(early_stopping):
    plan = plan_of(early_stopping=early_stopping)
    expected = vector(fit_net(plan))
    plan = plan_of(early_stopping=early_stopping)
    valid = None if plan.valid is None else Elsewhere(plan.valid)
    elsewhere = dataclasses.replace(plan, train=Elsewhere(plan.train), valid=valid)
    assert torch.equal(vector(fit_net(elsewhere)), expected)


def test_one_training_of_two_epochs_equals_two_trainings_of_one():
    whole = fit_net(plan_of(interest="paper"))  # draws no random numbers in training
    plan = dataclasses.replace(plan_of(interest="paper"), max_epochs=1)
    net = fit_net(plan)
    assert fit_net(plan, net) is net
    torch.testing.assert_close(vector(net), vector(whole), rtol=0, atol=0)
    assert training_history(net)["epoch"].tolist() == [1, 2]


def test_early_stopping_counts_the_checks_of_its_own_training():
    net = fit_net(plan_of(early_stopping=True, max_epochs=3, patience=3))
    before = vector(net)
    fit_net(plan_of(early_stopping=True, max_epochs=2, patience=1), net)
    assert [name for name, _ in net.callbacks_].count("early_stopping") == 1
    assert len(net.history) in (4, 5)
    assert not torch.equal(vector(net), before)
    assert np.isfinite(training_history(net)["valid_loss"]).all()


@pytest.mark.parametrize(("best", "patience", "n_checks"), [(0, 1, 5), (0, 3, 7), (5, 2, 8)])
def test_patience_begins_with_the_first_full_average(best, patience, n_checks, monkeypatch):
    judge = EarlyStopping.on_epoch_end

    def judged_as_wanted(self, net, **kwargs):
        place = len(net.history) - 1
        net.history.record("valid_loss", 0.5 if place == best else 0.6)
        judge(self, net, **kwargs)

    monkeypatch.setattr(EarlyStopping, "on_epoch_end", judged_as_wanted)
    net = fit_net(plan_of(early_stopping=True, max_epochs=20, patience=patience))
    assert net.stop_reason_ == "patience"
    assert len(net.history) == n_checks
