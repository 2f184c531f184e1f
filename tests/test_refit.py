"""The validation rows are learnt once the stop is found: by one pass, which must not lose."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from sklearn_din import DINClassifier, update
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.net_state import net_state
from sklearn_din.training.platt_scaling import scale_output
from sklearn_din.training.validation import cut_in_time
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels
from tests.test_checkpoint import assert_same_bits, ended_at, kill_at
from tests.test_checkpoint import fit as fit_in

X = make_impressions(2_000, seed=3)
X.times = np.random.default_rng(0).permutation(2_000)
y = make_labels(X, seed=3)
LATE = np.flatnonzero(X.times >= 1_800)
SMALL = {"embedding_dim": 3, "attention_units": (4,), "hidden_units": (5,), "lr": 0.02}
SMALL |= {"max_epochs": 2, "random_state": 0, "neighbours": None}
SMALL |= {"early_stopping": True, "batch_size": 256}

pytestmark = pytest.mark.usefixtures("one_thread")


def fit(y=y, **parameters):
    return DINClassifier(**SMALL | parameters).fit(X, y)


@cache
def before():
    return fit(refit=None)


def assert_as_without_the_pass(model, expected):
    """It predicts the same bits, and a later training goes on from the same state."""
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    ours, theirs = (net_state(fitted.net_)["training"] for fitted in (model, expected))
    orders = [state.pop("order").get_state() for state in (ours, theirs)]
    np.testing.assert_equal([ours, orders[0]], [theirs, orders[1]])


def weights_of(net):
    return copy.deepcopy(net.module_.state_dict())


NOISY = np.where((X.times >= 1_800) & (X.times % 3 == 0), 1 - y, y)
MOVED = np.where((X.times >= 1_800) & (X["category"] < 3), 1, y)  # the rate, and logits with it


@pytest.mark.parametrize(("refit", "y"), [("auto", y), ("validation", y), ("auto", MOVED)])
def test_the_pass_is_that_of_partial_fit_part_by_part_and_averaged(refit, y):
    """Its slow twin: each part is predicted, then learnt by ``partial_fit``, then averaged."""
    plain = {"embedding_l2": 0.0, "interest": "paper", "y": y}  # only the order is drawn
    found, twin = fit(refit=refit, **plain), fit(refit=None, **plain).net_
    parts = cut_in_time(LATE, X.times)
    sizes = [len(part) for part in parts]
    assert len(parts) == 6
    assert sorted(np.concatenate(parts)) == LATE.tolist()
    best = best_check(twin.checks_)  # the pass begins with its weights, which have no scale
    twin.module_.output.weight.data /= best["scales"][0]
    left = (1 - best["scales"][0]) * found.net_.constant_ + best["constants"][0]
    twin.module_.output.bias.data.sub_(left).div_(best["scales"][0])
    best["scales"] = [1.0]  # which partial_fit takes away and gives again
    average, latest, losses = weights_of(twin), weights_of(twin), []
    for number, part in enumerate(parts, start=1):
        twin.module_.load_state_dict(average)
        losses.append(log_loss(y[part], twin.predict_proba(X[part])))
        twin.module_.load_state_dict(latest)
        twin.partial_fit(X[part], y[part])
        latest = weights_of(twin)
        for name, weight in latest.items():
            average[name] = average[name].lerp(weight, 1 / (len(parts) / 2 + number))
    check = found.net_.checks_[-1]
    assert check["unscaled_loss"] == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert check["valid_loss"] < found.net_.checks_[1]["valid_loss"]  # and so it is kept
    twin.module_.load_state_dict(average)
    scale_output(twin.module_, found.net_.constant_, check["constants"], check["scales"])
    average = weights_of(twin)
    for name, weight in found.module_.state_dict().items():
        torch.testing.assert_close(weight, average[name], rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
def test_a_pass_that_learns_nothing_is_as_good_as_the_check_it_begins_from():
    """Its predictions get their own constant and scale, for a rate that moved."""
    checks = fit(MOVED, lr=1e-9).net_.checks_
    losses = [check["valid_loss"] for check in checks]
    assert len(losses) == 3
    np.testing.assert_allclose(losses, losses[0], atol=1e-6)
    assert checks[-1]["unscaled_loss"] > losses[0] + 0.05


def test_a_pass_that_loses_leaves_the_model_as_it_was():
    """The newest labels are noisy: what was learnt before predicts them better than they do."""
    found, expected = (fit(NOISY, max_epochs=8, patience=9, refit=r) for r in ("auto", None))
    assert len(found.history_) == len(expected.history_) + 1
    assert best_check(found.net_.checks_) is not found.net_.checks_[-1]
    assert_as_without_the_pass(found, expected)


@pytest.mark.parametrize(("parameters", "learns"), [
    ({}, True),
    ({"validation": "random"}, False),
    ({"validation": "random", "refit": "validation"}, True),
    ({"refit": None}, False),
    ({"early_stopping": False, "refit": "validation"}, False),
    ({"validation_fraction": 0.03}, False),  # of 60 rows, two parts would be small
])  # fmt: skip
def test_which_rows_are_learnt(parameters, learns):
    trained = fit(**parameters)
    assert len(trained.history_) == len(trained.net_.history) == 2 + learns
    assert trained.n_iter_ == 2 + learns
    assert trained.net_.stop_reason_ == "max_epochs"


@pytest.mark.parametrize("callback", [
    lambda: LRScheduler(ReduceLROnPlateau, monitor="valid_loss"),
    lambda: LRScheduler(OneCycleLR, max_lr=0.02, total_steps=16, step_every="batch"),
    lambda: EarlyStopping(monitor="valid_loss", patience=1),
])  # fmt: skip
def test_schedules_and_monitors_end_before_the_pass(callback):
    assert len(fit(callbacks=[callback()]).history_) == 3


def test_monitors_of_validation_rows_are_left_out_where_there_are_none(tmp_path):
    auc = EpochScoring("roc_auc", name="own", lower_is_better=False)
    scheduler = LRScheduler(ReduceLROnPlateau, monitor="valid_loss")
    watching = [EarlyStopping(), Checkpoint(dirname=tmp_path, load_best=True), scheduler]
    watching += [EarlyStopping("valid_auc"), auc, ("last", EarlyStopping("own"))]
    going_on = [LRScheduler("StepLR", step_size=1, gamma=0.5), EarlyStopping("train_loss")]
    going_on.append(Checkpoint(monitor=None, dirname=tmp_path))
    model = fit(callbacks=[*watching, *going_on])
    twin = copy.deepcopy(model).set_params(callbacks=going_on)
    stops = r"never do\): EarlyStopping \(valid_loss\), EarlyStopping \(valid_auc\)"
    others = r"Checkpoint \(valid_loss_best\), LRScheduler \(valid_loss\), EarlyStopping \(own\)\."
    with pytest.warns(UserWarning, match=f"{stops}, {others}"):
        newer = update(model, X, y)
    np.testing.assert_array_equal(update(twin, X, y).predict_proba(X), newer.predict_proba(X))
    with pytest.warns(UserWarning, match=r"EarlyStopping \(valid_loss\)\."):
        fit(callbacks=[EarlyStopping()], early_stopping=False)
    with pytest.raises(KeyError, match="typo"):
        model.set_params(callbacks=[EarlyStopping("typo")]).partial_fit(X, y)


@pytest.mark.parametrize("wins", [True, False])
def test_verbose_prints_the_pass_over_the_validation_rows_as_such(wins, capsys):
    trained = fit(y if wins else NOISY, verbose=1, max_epochs=2 if wins else 8, patience=9)
    n, lines = len(trained.net_.checks_) - 1, capsys.readouterr().out.splitlines()
    assert ["+" in line.split() for line in lines[2 : n + 3]] == [False] * n + [True]
    assert lines[n + 3].split() == ["decision", "value", "reason"]


@pytest.mark.parametrize("act", ["callback", "user"])
def test_a_pass_that_is_ended_leaves_the_best_check(act):
    def stop(net, **_):
        if net.training_.is_refitting and act == "user":
            net.training_.presses.append(1)
        if net.training_.is_refitting:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted") if act == "user" else np.errstate():
        stopped = fit(callbacks=[On(grad_computed=stop)])
    assert stopped.net_.stop_reason_ == act
    assert_as_without_the_pass(stopped, before())


@pytest.mark.parametrize("batch", [16, 18, 22])
def test_a_training_that_was_killed_in_the_pass_ends_with_the_same_bits(batch, tmp_path):
    given = {"X": X, "y": y}
    options = {"max_epochs": 2, "batch_size": 256, "early_stopping": True, "neighbours": None}
    with ended_at(23, end=lambda: pytest.fail("more steps than two epochs and six parts")):
        expected = fit_in(None, given, **options)
    kill_at(batch, tmp_path, given, **options)
    assert_same_bits(fit_in(tmp_path, given, **options), expected, given)
