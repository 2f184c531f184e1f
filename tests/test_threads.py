"""How many threads a training uses, and that the native code's bits do not depend on it."""

import joblib
import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_din import DINClassifier
from sklearn_din.native.logits import n_native_threads
from sklearn_din.native.structures import load_library
from sklearn_din.training import threads
from tests.encoded_impressions import make_impressions, make_labels


@pytest.fixture
def torch_threads():
    """A function that sets torch's threads; afterwards they are as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Threads(Callback):
    """Notes the threads of torch and of the native code in the first step."""

    def on_batch_end(self, net, **kwargs):
        self.seen = torch.get_num_threads(), n_native_threads.get()


def fit(n=40):
    X, callback = make_impressions(n), Threads()
    model = DINClassifier(max_epochs=1, random_state=0, callbacks=[callback])
    return model.fit(X, make_labels(X)), callback.seen


def test_torch_has_one_thread_in_fit_unless_it_was_asked_for_more(torch_threads, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)  # of a container: torch counts all cores
    monkeypatch.setattr(threads, "_UNASKED", 8)
    for n_threads, expected in [(8, (1, 4)), (3, (3, 3)), (6, (4, 4)), (1, (1, 1))]:
        torch_threads(n_threads)
        assert fit()[1] == expected
        assert torch.get_num_threads() == n_threads
        assert n_native_threads.get() is None


@pytest.mark.skipif(load_library() is None, reason="the library is not compiled, or hidden")
def test_a_training_has_the_same_bits_whatever_threads_its_steps_have(torch_threads, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    X = make_impressions(1_500)
    monkeypatch.setattr(threads, "_UNASKED", 5)
    predictions = []
    for n_threads in (5, 1):
        monkeypatch.setattr(joblib, "cpu_count", lambda n=n_threads: n)
        torch_threads(5)
        model, seen = fit(1_500)
        assert seen == (1, n_threads)
        predictions.append(model.decision_function(X))
    assert np.array_equal(*predictions)
