"""The progress bar tells the truth and keeps quiet; Ctrl-C leaves a usable classifier."""

import pickle
import re

import numpy as np
import pytest
from skorch.callbacks import Callback

from sklearn_din.estimator import DINClassifier
from sklearn_din.progress import ProgressBar

from .conftest import make_impressions, make_labels

X = make_impressions(64)
y = make_labels(X)


def fitted(**parameters):
    settings = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "early_stopping": True}
    return DINClassifier(**(settings | parameters)).fit(X, y)


def test_the_bar_counts_every_batch_of_all_epochs(capsys):
    fitted(callbacks=[ProgressBar()], validation_fraction=0.25, patience=5)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "9/9" in last, "three epochs of 48 rows in batches of 16"
    assert "trained 3 of 3 epochs" in last


def test_the_bar_ends_on_the_look_whose_weights_are_kept(capsys):
    classifier = fitted(callbacks=[ProgressBar()], lr=0.05, max_epochs=12)
    looks = classifier.history_
    best = looks["valid_loss"].idxmin()
    last = capsys.readouterr().err.split("\r")[-1]
    assert f"trained {len(looks)} of 12 epochs, kept {best + 1}" in last
    for name, column in {
        "loss": "train_loss",
        "validation": "valid_loss",
        "AUC": "valid_auc",
    }.items():
        (number,) = re.findall(rf"\b{name}=([\d.]+)", last)
        assert number == f"{looks[column][best]:.4f}"


def test_without_validation_rows_the_bar_shows_the_training_loss_alone(capsys):
    fitted(callbacks=[ProgressBar()], early_stopping=False)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "loss=" in last
    assert "AUC" not in last


def test_a_classifier_with_a_bar_can_be_pickled(capsys):
    classifier = pickle.loads(pickle.dumps(fitted(callbacks=[ProgressBar()])))
    assert classifier.predict_proba(X).shape == (64, 2)


def test_training_is_silent_by_default(capfd):
    fitted()
    assert capfd.readouterr() == ("", "")


class PressCtrlC(Callback):
    """What a user does at the given batch of training."""

    def __init__(self, batch):
        self.batch = batch

    def on_batch_end(self, net, training=False, **kwargs):
        self.batch -= training
        if self.batch < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("batch", "epoch", "kept"),
    [(1, 1, "the latest weights"), (8, 3, "the weights of the best look so far")],
)
def test_ctrl_c_warns_and_leaves_a_usable_classifier(batch, epoch, kept):
    message = rf"interrupted in epoch {epoch} of 5: {kept} are kept and the classifier can be used"
    with pytest.warns(UserWarning, match=message):
        classifier = fitted(callbacks=[PressCtrlC(batch)], max_epochs=5, patience=9)
    assert np.isfinite(classifier.predict_proba(X)).all()
    assert len(classifier.history_) == epoch - 1
    assert classifier.history_["train_loss"].notna().all()


def test_early_stopping_does_not_warn():
    classifier = fitted(lr=0.5, max_epochs=40, patience=1)
    assert len(classifier.history_) < 40
