"""Training on a CUDA GPU. These tests are skipped where there is none: ``pytest -m gpu``.

What can be tested without one is in ``test_device.py``.
"""

import numpy as np
import pytest
import torch

from sklearn_din import EncodedFeatures, Schema
from tests.encoded_impressions import make_impressions, make_labels
from tests.network_options import ONE_BY_ONE, name_of
from tests.test_device import assert_same_gradients, classifier_of, net_and_batches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here"),
]

GPU = "cuda"
STEP = {"rtol": 1e-3, "atol": 1e-5}  # of one step's gradients: sums in another order, in float32
FIT = {"rtol": 0.0, "atol": 2e-3}  # of probabilities after some twenty steps that differ so
each_option = pytest.mark.parametrize("options", [*ONE_BY_ONE, {"dropout": 0.5}], ids=name_of)


def without_numbers(X):
    """Impressions without numeric columns, some of which a step hides: devices draw differently."""
    fields = tuple(field for field in X.schema.fields if field.name != "price")
    schema = Schema(fields, X.schema.behaviours)
    columns = {name: ids for name, ids in X.columns.items() if name != "price"}
    return EncodedFeatures(schema, columns, X.behaviours)


X = without_numbers(make_impressions(400, seed=3))
y = make_labels(X, seed=3)


@each_option
def test_a_fit_on_a_gpu_equals_one_on_the_cpu(options):
    pair = (classifier_of(device=its, early_stopping=True, **options) for its in ("cpu", GPU))
    on_cpu, on_gpu = (classifier.fit(X, y) for classifier in pair)
    np.testing.assert_allclose(on_gpu.predict_proba(X), on_cpu.predict_proba(X), **FIT)
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(on_gpu.history_[name], on_cpu.history_[name], **FIT)


@each_option
def test_gradients_of_a_step_on_a_gpu_equal_those_on_the_cpu(options):
    gradients = []
    for device in ("cpu", GPU):
        net, batches = net_and_batches(device, X, **options)
        net.train_step_single(next(batches))
        gradients.append([its.grad.cpu() for its in net.module_.parameters()])
    assert_same_gradients(*gradients, **STEP)


@each_option
def test_no_training_step_waits_for_the_gpu(options):
    net, batches = net_and_batches(GPU, X, **options)
    net.train_step(next(batches))  # what is kept from step to step is made in the first one
    torch.cuda.set_sync_debug_mode("error")
    try:
        net.train_step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
