"""The progress bar tells the truth and keeps quiet; Ctrl-C leaves a usable classifier."""

import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, ProgressBar

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    live_predictions,
)
from sklearn_din.serving import remembering
from sklearn_din.training import training
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels

pytestmark = [
    pytest.mark.usefixtures("ctrl_c_raises"),
    pytest.mark.filterwarnings("ignore:the validation rows hardly follow"),  # seven of them
]

X = make_impressions(64)
y = make_labels(X)


def fitted(**parameters):
    settings = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "early_stopping": True}
    return DINClassifier(**(settings | parameters)).fit(X, y)


def test_fit_is_silent_by_default_and_verbose_prints_epochs_and_then_decisions(capfd):
    fitted()
    assert capfd.readouterr() == ("", "")
    classifier = fitted(verbose=1, patience=5)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[0] == "epoch"
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
    assert lines[5:] == classifier.summary().partition("\n\n")[0].splitlines()
    pickle.loads(pickle.dumps(classifier)).partial_fit(X, y)
    assert capfd.readouterr().out.splitlines()[-1].split()[0] == "4"


class PressCtrlC(Callback):
    """What a user does: the terminal's signal at a training batch, or at the end of a check."""

    def __init__(self, *, batch=None, check=None):
        self.batch, self.check, self.seen = batch, check, 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.seen += training
        if training and self.seen == self.batch:
            signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.check:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_ctrl_c_in_the_first_epoch_leaves_a_usable_classifier(early_stopping):
    message = "interrupted in epoch 1 of 3: the latest weights are"
    with pytest.warns(UserWarning, match=message) as warned:
        classifier = fitted(callbacks=[PressCtrlC(batch=2)], early_stopping=early_stopping)
    assert warned[0].filename == __file__
    assert classifier.net_.stop_reason_ == "user"
    assert len(classifier.history_) == 0
    assert classifier.n_iter_ == 1
    assert np.isfinite(classifier.predict_proba(X)).all()
    pickle.loads(pickle.dumps(classifier)).predict(X)


def test_ctrl_c_later_keeps_the_best_check_and_drops_the_unfinished_one():
    whole = fitted(max_epochs=2)
    message = "epoch 3 of 9: the weights of the best validation check so far are kept"
    with pytest.warns(UserWarning, match=message):
        classifier = fitted(max_epochs=9, callbacks=[PressCtrlC(batch=2 * 4 + 2)])
    assert (whole.n_iter_, classifier.n_iter_) == (2, 3)
    columns = ["epoch", "train_loss", "valid_loss", "valid_auc"]
    assert classifier.history_[columns].equals(whole.history_[columns])
    np.testing.assert_array_equal(classifier.predict_proba(X), whole.predict_proba(X))
    with pytest.warns(UserWarning, match="interrupted in epoch 2 of 3"):
        assert len(fitted(patience=9, callbacks=[PressCtrlC(check=2)]).history_) == 2


def test_the_callers_handler_of_ctrl_c_is_called_and_stays():
    calls = []

    def handler(number, frame):
        calls.append(number)

    signal.signal(signal.SIGINT, handler)
    classifier = fitted(callbacks=[PressCtrlC(batch=2)])
    assert calls == [signal.SIGINT]
    assert classifier.net_.stop_reason_ == "max_epochs", "the handler chose not to interrupt"
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("by_callback", [True, False])
def test_ctrl_c_before_the_first_epoch_ends_fit_as_any_other(by_callback, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    classifier = DINClassifier(early_stopping=True)
    if by_callback:
        classifier.set_params(callbacks=[On(train_begin=press)])
    else:
        monkeypatch.setattr(training, "advise_to_compile", press)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, y)
    assert not hasattr(classifier, "net_")


def test_training_in_another_thread_leaves_signals_alone():
    def stop(net, **_):
        if len(net.history) == 2:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        classifier = pool.submit(fitted, callbacks=[On(batch_end=stop)]).result()
    assert classifier.net_.stop_reason_ == "callback"


def test_the_progress_bar_of_skorch_shows_each_epoch(capfd):
    classifier = fitted(callbacks=[ProgressBar()])
    n_batches = len(classifier.net_.history[1, "batches"])
    assert f"/{n_batches} [" in capfd.readouterr().err


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_long_epoch_has_a_bar_of_its_rows_where_epochs_are_printed(verbose, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sklearn_din.training.net.LONG_EPOCH", 0.0)
    slow = On(batch_end=lambda net, **_: time.sleep(0.11))
    fitted(max_epochs=2, verbose=verbose, callbacks=[slow])
    shown = capfd.readouterr().err
    assert ("epoch 1:" in shown) == ("epoch 2:" in shown) == bool(verbose)
    monkeypatch.setattr("sklearn_din.training.net.LONG_EPOCH", 99.0)
    fitted(max_epochs=2, verbose=verbose, callbacks=[slow])
    assert "epoch 1:" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::UserWarning")  # of few rows
def test_long_live_predictions_have_a_bar_of_their_rows_on_a_terminal(capfd, monkeypatch):
    rows = np.arange(40)
    shown = pd.DataFrame({"user": rows % 4, "item": rows % 5, "time": rows})
    memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
    classifier = DINClassifier(max_epochs=1, random_state=0)
    model = make_pipeline(memory, HistorySequenceEncoder(user="user", time="time"), classifier)
    model.fit(shown, rows % 2)
    later = shown.assign(time=rows + 40)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    said = live_predictions(model, later, rows % 2, every=10)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(remembering, "SECONDS_BEFORE_BAR", 0.0)
    np.testing.assert_array_equal(live_predictions(model, later, rows % 2, every=10), said)
    assert "live predictions:" in capfd.readouterr().err
