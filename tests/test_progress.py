"""The progress bar tells the truth and keeps quiet; Ctrl-C leaves a usable classifier."""

import pickle
import re

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
