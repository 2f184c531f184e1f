"""Training where the host cannot read the device's memory for nothing, tested without a GPU.

torch's "meta" tensors have shapes but no numbers. Whatever reads a number there, or makes a shape
depend on numbers, raises: the same calls would have the host wait for a GPU.
"""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sklearn_din import Checkpoint, DINClassifier
from sklearn_din.resilient import checkpoint
from sklearn_din.training import net as net_file
from sklearn_din.training import steps
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.occurrences import count_ids, embedding_decay
from sklearn_din.training.optim import set_decay
from sklearn_din.training.seeding import seed_torch
from sklearn_din.training.target import Click
from sklearn_din.training.training import Training
from tests.encoded_impressions import make_impressions, make_labels
from tests.network_options import ONE_BY_ONE, name_of, networks

pytestmark = pytest.mark.slow

X = make_impressions(400, seed=3, numbers=("age",))
y = make_labels(X, seed=3)
OTHERS = [
    {"embedding_dim": {"item": 4, "category": 6, "tags": 4}},
    {"dropout": 0.5, "embedding_l2": 0.0},
]
PLAIN = DINClassifier().get_params()
CHANGED = [{}, *(options for options in ONE_BY_ONE if not options.items() <= PLAIN.items())]
WEIGHTS = np.linspace(0.5, 1.5, len(y)).astype(np.float32)


def classifier_of(**parameters):
    if "activation" in parameters:
        parameters = {"attention_activation": parameters["activation"]} | parameters
    settings = {"max_epochs": 2, "batch_size": 50, "random_state": 0} | parameters
    return DINClassifier(**settings)


def net_and_batches(device, X=X, **parameters):
    """A net that is ready for its first step, and batches for it."""
    net, order = classifier_of(**parameters)._new_net(Click()), np.random.RandomState(0)
    net.device, net.module__schema = device, X.schema
    clicks = y.astype(np.float32)
    batches = ImpressionBatches(X, clicks, WEIGHTS, batch_size=50, shuffle=order)
    net._training = Training(net, batches)
    with seed_torch(0, devices=[]):
        net.initialize()
    set_decay(net.optimizer_, net.module_, embedding_decay(count_ids(X), 5.0))
    return net, iter(batches)


@pytest.fixture
def unreadable(monkeypatch):
    """Have the package take the host's memory for a device's that the host must not read."""
    for file in (net_file, steps):
        monkeypatch.setattr(file, "is_host", lambda device: False)


def devices_of(tree):
    return {its.device.type for its in tree_leaves(tree) if isinstance(its, torch.Tensor)}


@contextmanager
def noted_copies():
    """Note what copies from the host to the device: a GPU is waited for."""
    names = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), named=None):
            result = operation(*arguments, **(named or {}))
            given, made = (devices_of(its) for its in ((arguments, named), result))
            if "cpu" in given and "meta" in made:
                names.append(operation.name())
            return result

    class CopiesOfNumbers(TorchFunctionMode):
        """Of Python's numbers: torch makes no operation of it."""

        def __torch_function__(self, function, types, arguments=(), named=None):
            result = function(*arguments, **(named or {}))
            name = getattr(function, "__name__", "")
            if name in ("tensor", "new_tensor", "as_tensor") and "meta" in devices_of(result):
                names.append(name)
            return result

    with CopiesOfNumbers(), Copies():
        yield names


PAIRED = "activation", "pooling", "interest"
ALONE = [options for options in CHANGED if not {*options} & {*PAIRED}]
NETWORKS = [*networks(*PAIRED), *ALONE, *OTHERS]


@pytest.mark.parametrize("options", NETWORKS, ids=name_of)
def test_a_training_step_reads_nothing_from_the_device_and_copies_only_the_batch(options):
    net, batches = net_and_batches("meta", **options)
    net.train_step(next(batches))
    batch, clicks = next(batches)
    batch, clicks = net._on_device(batch), clicks.to("meta")
    with noted_copies() as copies:
        step = net.train_step((batch, clicks))
    assert copies == []
    assert step["loss"].is_meta
    assert len(net.training_.losses.unread) == 2


def test_validation_reads_nothing_from_the_device():
    net, batches = net_and_batches("meta")
    assert net.validation_step(next(batches))["y_pred"].is_meta


def test_a_number_copied_to_the_device_is_noticed():
    its = torch.zeros(3, device="meta")
    with noted_copies() as copies:
        its.new_tensor([1.0])
        torch.tensor([1.0], device="meta")
        torch.ones(3).to("meta")
        its[1:] = 0.0  # is none: the device is told to fill
    assert copies == ["new_tensor", "tensor", "aten::_to_copy"]


def assert_same_gradients(expected, gradients, **within):
    for of_one, of_other in zip(expected, gradients, strict=True):
        if of_one.is_sparse:
            assert torch.equal(of_other._indices(), of_one._indices())  # each row once, ascending
            of_one, of_other = of_one._values(), of_other._values()
        torch.testing.assert_close(of_other, of_one, **within)


def test_a_step_in_parts_has_the_gradients_of_the_whole_step(monkeypatch):
    monkeypatch.setattr(steps, "compute_in_native_code", lambda *_: None)
    gradients = []
    for most in (1 << 17, 10):
        monkeypatch.setattr(steps, "SPLIT_FROM", most)
        monkeypatch.setattr(steps, "EVENTS_PER_PART", 40)
        net, batches = net_and_batches("cpu", interest="paper")  # draws no numbers in training
        net.train_step_single(next(batches))
        gradients.append([its.grad for its in net.module_.parameters()])
    assert_same_gradients(*gradients)


@pytest.mark.parametrize("options", [*CHANGED, *OTHERS[:1]], ids=name_of)
def test_trainings_are_alike_whether_or_not_the_host_reads(options, request):
    plain = classifier_of(early_stopping=True, **options).fit(X, y, WEIGHTS).net_
    request.getfixturevalue("unreadable")
    ours = classifier_of(early_stopping=True, **options).fit(X, y, WEIGHTS).net_
    # PReLU: the slopes' gradients are computed in another way, and differ by rounding.
    is_exact = options.get("activation") in ("dice", "relu")
    tolerance = {"rtol": 0, "atol": 0} if is_exact else {"rtol": 1e-3, "atol": 1e-5}
    for expected, its in zip(plain.module_.parameters(), ours.module_.parameters(), strict=True):
        torch.testing.assert_close(its, expected, **tolerance)
    for before, check in zip(plain.history, ours.history, strict=True):
        for name in ("train_loss", "valid_loss"):
            assert all(type(batch[name]) is float for batch in check["batches"] if name in batch)
            np.testing.assert_allclose(check[name], before[name], **tolerance)


class Break(Callback):
    """Make the weights NaN before a training batch."""

    def __init__(self, at, then=lambda: None):
        self.at, self.then = at, then

    def on_train_begin(self, net, **kwargs):
        self.n_begun = 0
        self.seen = []

    def on_batch_begin(self, net, training=False, **kwargs):
        self.n_begun += training
        if training and self.n_begun == self.at:
            net.module_.output.bias.data.fill_(np.nan)

    def on_batch_end(self, net, training=False, **kwargs):
        self.seen.append(self.n_begun)
        if training and self.n_begun == self.at + 1:
            self.then()


def stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("then", [lambda: None, stop])
@pytest.mark.usefixtures("unreadable")
def test_a_loss_that_is_not_finite_is_named_before_anything_is_kept(early_stopping, then):
    broken = Break(at=9, then=then)  # eight batches in the first epoch, or seven
    classifier = classifier_of(max_epochs=3, early_stopping=early_stopping, callbacks=[broken])
    with pytest.raises(ValueError, match=r"no longer finite in epoch 2 with .*column 'price'"):
        classifier.fit(X, y)
    assert not hasattr(classifier, "net_")
    assert broken.seen[-1] == (10 if then is stop else 16 if not early_stopping else broken.n_begun)


@pytest.mark.usefixtures("unreadable")
def test_no_checkpoint_is_written_after_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MINUTES_BETWEEN_WRITES", 0.0)
    written = []
    write = checkpoint.write_checkpoint

    def note_and_write(path, value):
        written.append(copy.deepcopy(value))
        write(path, value)

    monkeypatch.setattr(checkpoint, "write_checkpoint", note_and_write)
    options = {"callbacks": [Break(at=4), Checkpoint(tmp_path)]}
    classifier = classifier_of(early_stopping=False, **options)
    with pytest.raises(ValueError, match="no longer finite in epoch 1"):
        classifier.fit(X, y)
    assert len(written) == 3
    assert all(its.isfinite().all() for value in written for its in value["module"].values())
    losses_kept = [value["unfinished"]["batches"] for value in written]
    assert [len(its) for its in losses_kept] == [1, 2, 3]
    assert all(np.isfinite(batch["train_loss"]) for batch in losses_kept[-1])


@pytest.mark.parametrize(("device", "n_begun"), [("host", 4), ("unreadable", 6)])
def test_a_loss_is_checked_at_once_or_later(device, n_begun, request, monkeypatch):
    monkeypatch.setattr(steps, "STEPS_PER_READ", 3)
    if device == "unreadable":
        request.getfixturevalue(device)
    broken = Break(at=4)
    classifier = classifier_of(early_stopping=False, callbacks=[broken])
    with pytest.raises(ValueError, match="no longer finite in epoch 1"):
        classifier.fit(X, y)
    assert broken.n_begun == n_begun
    assert device == "unreadable" or broken.seen == [1, 2, 3]
