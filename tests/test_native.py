"""The native code against its twins in torch and numpy: values, gradients, whole trainings."""

import contextvars
import copy
import os
import sys
import threading
import traceback
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, eye_array
from skorch.callbacks import Callback, EpochTimer
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from sklearn_din import DINClassifier
from sklearn_din.features import Behaviour, EncodedFeatures, Field, Ragged, Schema
from sklearn_din.features.identities import LEAST_ID
from sklearn_din.features.lists import IdLists
from sklearn_din.module import DIN
from sklearn_din.native import pairs as native_pairs
from sklearn_din.native.structures import PAIRS, load_library
from sklearn_din.native_network import logits as native_logits
from sklearn_din.native_network import optimizer as native_optimizer
from sklearn_din.native_network.coverage import may_compute, not_covered
from sklearn_din.native_network.logits import (
    NativeSteps,
    add_gradients,
    logits_of,
    n_native_threads,
    use_native_threads,
)
from sklearn_din.neighbours import item_scores
from sklearn_din.neighbours.item_scores import ItemScores
from sklearn_din.network.batch import Batch, JointRows
from sklearn_din.network.interest import Interest
from sklearn_din.training import batches, threads
from sklearn_din.training.optim import RowwiseAdam, optimizer_of, set_decay, set_rates
from tests.encoded_impressions import (
    far,
    make_answers,
    make_impressions,
    make_labels,
    make_prices,
    narrow,
)
from tests.network_options import ONE_BY_ONE, name_of

LAYERS = [
    {"attention_units": (5,), "hidden_units": (7,)},
    {"attention_units": (20, 7, 3), "hidden_units": ()},
    {"hidden_units": (9, 8, 7), "embedding_dim": 8},
    {"embedding_dim": 5, "interest": "paper", "pooling": "mean"},
    {"attention_activation": "sigmoid", "interest": "paper"},
    {"pooling": "sum", "interest": "paper"},
]
SCHEMA = make_impressions(1).schema
OPTIONS = [options for options in ONE_BY_ONE if not not_covered(DIN(SCHEMA, **options))]
IMPRESSIONS = {
    "ragged": lambda: with_unknown_ids(make_impressions(60, max_length=30)),
    "one row": lambda: make_impressions(1),
    "without events": lambda: make_impressions(1)[np.zeros(3, dtype=int)],
    "long": lambda: make_impressions(9, numbers=("seconds", "price paid"), max_length=700),
    "answers": lambda: make_answers(80),
    "prices": lambda: make_prices(60, max_length=30),
    "two behaviours": lambda: make_two_behaviours(40),
    "lists": lambda: make_lists(60),
}


LIBRARY = load_library()
KINDS = enumerate(("plain", "AVX2", "AVX-512"))  # of processors, and those that this one can be
KERNELS = {name: n for n, name in KINDS if LIBRARY and LIBRARY.din_choose_kernels(n) == n}
CASES = [  # any two of a kind of processor, options and impressions occur together
    pytest.param(options, make, kernel, id=f"{kernel}-{name}-{name_of(options)}")
    for i, options in enumerate([*OPTIONS, *LAYERS])
    for j, (name, make) in enumerate(IMPRESSIONS.items())
    for k, kernel in enumerate(KERNELS)
    if (i + j + k) % len(KERNELS) == 0
]


@pytest.fixture(autouse=True)
def needs_library(request):
    if LIBRARY is None and "torch_has_one_thread" not in request.node.name:
        pytest.skip("the library is not compiled, or hidden")


def with_unknown_ids(X):
    """The same impressions, some ids missing (0), unknown (1) or hidden (below zero)."""
    rng = np.random.default_rng(1)
    arrays = [X.columns["item"], X.columns["category"]]
    arrays += [X.behaviours["hist_item", "hist_category"].columns["hist_item"]]
    for ids in arrays:
        at = rng.choice(len(ids), len(ids) // 3, replace=False)
        ids[at] = rng.choice([0, 1, -2, -3], len(at))
    return X


def make_two_behaviours(n):
    """Two behaviours that share a candidate, vocabularies of two widths, no numbers."""
    rng = np.random.default_rng(0)
    names = "seen", "bought", "kind"
    fields = [Field("item", "categorical", "item", 30)]
    fields += [Field(n, "history", "item" if n != "kind" else "kind", 30) for n in names]
    behaviours = {}
    for histories in (("seen",), ("bought", "kind")):
        lengths = rng.integers(0, 9, n).astype(np.int32)
        events = {name: rng.integers(0, 30, lengths.sum(), np.int32) for name in histories}
        behaviours[histories] = Ragged.from_lengths(events, lengths)
    seen = Behaviour("seen", ("seen",), ("item",))
    bought = Behaviour("bought+kind", ("bought", "kind"), ("item", None))
    schema = Schema(tuple(fields), (seen, bought))
    return EncodedFeatures(schema, {"item": rng.integers(2, 30, n, np.int32)}, behaviours)


def draw_lists(rng, n):
    """Lists of up to three ids; some are empty, some ids missing (1) or unknown (below zero)."""
    lengths = rng.integers(0, 4, n)
    lists = IdLists.from_lengths(lengths, rng.integers(1, 9, lengths.sum(), np.int32))
    return lists.map(np.array([0, 1, LEAST_ID, LEAST_ID + 1, *range(4, 9)], np.int32))


def make_lists(n):
    """Candidates and events with lists of two vocabularies; one of the events has no candidate."""
    rng = np.random.default_rng(0)
    kinds = {"item": ("item", 30), "genres": ("genre", 9), "words": ("word", 9)}
    fields = [Field(n, "categorical" if n == "item" else "list", *kinds[n]) for n in kinds]
    of_events = {"item": "history", "genres": "list_history", "words": "list_history"}
    fields += [Field(f"hist_{name}", of_events[name], *kinds[name]) for name in kinds]
    lengths = rng.integers(0, 9, n).astype(np.int32)
    events = {"hist_item": rng.integers(0, 30, lengths.sum(), np.int32)}
    events |= {name: draw_lists(rng, lengths.sum()) for name in ("hist_genres", "hist_words")}
    histories, candidates = tuple(events), ("item", "genres", None)
    columns = {"item": rng.integers(2, 30, n, np.int32)}
    columns |= {name: draw_lists(rng, n) for name in ("genres", "words")}
    schema = Schema(tuple(fields), (Behaviour("seen", histories, candidates),))
    return EncodedFeatures(schema, columns, {histories: Ragged.from_lengths(events, lengths)})


def make_network(X, *, std=0.3, **options):
    """Network with weights of some size, in evaluation: no number is hidden."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = DIN(X.schema, **options)
        for parameter in module.parameters():
            if parameter.ndim and std:
                nn.init.normal_(parameter, std=std)
    return module.eval()


def labels_of(X):
    return torch.from_numpy((np.arange(len(X)) * 7919 % 101 % 3 == 0).astype(np.float32))


def gradients_of(compute, module, X, weight=None):
    """Logits, and the gradients of the parameters by name."""
    module.zero_grad(set_to_none=True)
    logits = compute(Batch(X))
    F.binary_cross_entropy_with_logits(logits, labels_of(X), weight).backward()
    return logits.detach(), {name: p.grad for name, p in module.named_parameters()}


def uses_native(module, X, **options):
    """Whether the native code computed the logits of a batch."""
    calls = []
    before = native_logits._Call.forward
    try:
        native_logits._Call.forward = lambda call: calls.append(1) or before(call)
        logits_of(module, Batch(X, **options))
    finally:
        native_logits._Call.forward = before
    return bool(calls)


@pytest.fixture
def kernels(request):
    LIBRARY.din_choose_kernels(KERNELS[request.param])
    yield
    LIBRARY.din_choose_kernels(len(KERNELS) - 1)


@pytest.mark.parametrize("make", IMPRESSIONS.values(), ids=IMPRESSIONS)
def test_numbers_end_where_those_of_torch_do(make):
    X = make()
    module = make_network(X, ranges=narrow(X.schema))
    for shown in (X, far(X)):
        assert uses_native(module, shown)
        with torch.no_grad():
            logits, expected = logits_of(module, Batch(shown)), module(Batch(shown))
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize(("options", "make", "kernels"), CASES, indirect=["kernels"])
def test_logits_and_gradients_equal_those_of_torch(options, make, kernels):
    X = make()
    module = make_network(X, **options)
    assert uses_native(module, X)
    expected, gradients = gradients_of(module, module, X)
    logits, found = gradients_of(lambda batch: logits_of(module, batch), module, X)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    with torch.no_grad():
        torch.testing.assert_close(logits_of(module, Batch(X)), logits, rtol=0, atol=0)
    for name, gradient in gradients.items():
        assert found[name].layout == gradient.layout
        if gradient.is_sparse:
            assert torch.equal(found[name]._indices(), gradient._indices())
            assert found[name].is_coalesced() == gradient.is_coalesced()
            found[name], gradient = found[name]._values(), gradient._values()
        least = 1e-7 if gradient.numel() > 1 else 2e-6  # a bias: thousands of summands, both signs
        limit = 1e-4 * gradient.abs().max() + least
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=float(limit))
        assert torch.equal(found[name] == 0, gradient == 0) or not gradient.ndim


LOSSES = {
    "log": lambda logits, y, weights: F.binary_cross_entropy_with_logits(logits, y, weights),
    "squares": lambda logits, y, weights: ((logits - y).square() * weights).mean(),
}


@pytest.mark.parametrize("make", [IMPRESSIONS[name] for name in IMPRESSIONS if name != "lists"])
@pytest.mark.parametrize("loss", LOSSES)
def test_one_pass_gives_the_gradients_of_a_weighted_loss(loss, make):
    X = make()
    module, y = make_network(X), labels_of(X)
    weights = torch.linspace(0.5, 2, len(X))
    expected_loss = LOSSES[loss](module(Batch(X)), y, weights) / 3
    expected_loss.backward()
    expected = [parameter.grad.to_dense() for parameter in module.parameters()]
    module.zero_grad(set_to_none=True)
    batch = Batch(X, weights.numpy(), joint=JointRows(0, 3 * len(X)))
    value, logits = add_gradients(module, batch, y, loss)
    torch.testing.assert_close(value, LOSSES[loss](logits, y, weights) / 3, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(logits, logits_of(module, batch), rtol=0, atol=0)
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        limit = float(1e-4 * gradient.abs().max() + 1e-7)
        torch.testing.assert_close(parameter.grad.to_dense(), gradient, rtol=0, atol=limit)


def test_gradients_that_others_wait_for_are_not_given_in_one_pass():
    X = make_impressions(6)
    for watch in (
        lambda module: module.output.weight.register_hook(lambda gradient: gradient),
        lambda module: module.output.weight.register_post_accumulate_grad_hook(lambda weight: None),
        lambda module: module.output.bias.sum().backward(),
        lambda module: setattr(module.mlp[1], "slope", module.mlp[3].slope),
        add_hook,
    ):
        module = make_network(X)
        watch(module)
        assert add_gradients(module, Batch(X), labels_of(X), "log") is None
    shown = X._replace(positions=np.arange(6, dtype=np.int32))
    for X, options in ((shown, {"position_shares": (0.5, 0.3, 0.2)}), (make_lists(6), {})):
        module = make_network(X, **options)
        assert add_gradients(module, Batch(X), labels_of(X), "log") is None


def test_large_batches_equal_those_of_torch_and_their_bits_depend_on_no_number_of_threads(
    torch_threads,
):
    X = make_impressions(4_096, numbers=("seconds",), max_length=15)
    module, results = make_network(X), []
    for n_threads in (1, 2, 5):
        torch_threads(n_threads)
        logits, gradients = gradients_of(lambda batch: logits_of(module, batch), module, X)
        results.append([logits, *(g.to_dense() for g in gradients.values())])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
    expected, gradients = gradients_of(module, module, X)
    torch.testing.assert_close(results[0][0], expected, rtol=1e-5, atol=1e-4)
    for found, gradient in zip(results[0][1:], gradients.values(), strict=True):
        gradient = gradient.to_dense()
        limit = float(1e-4 * gradient.abs().max() + (gradient.numel() == 1) * 1e-5)
        torch.testing.assert_close(found, gradient, rtol=0, atol=limit)


def test_gradients_are_added_and_a_backward_pass_may_come_twice():
    X = make_impressions(20)
    module = make_network(X)
    _, once = gradients_of(lambda batch: logits_of(module, batch), module, X)
    module.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(logits_of(module, Batch(X)), labels_of(X))
    loss.backward(retain_graph=True)
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad.to_dense(), 2 * once[name].to_dense())
    weight = module.output.weight
    loss = logits_of(module, Batch(X)).square().sum()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.grad(loss, weight, create_graph=True)[0].sum().backward()


@pytest.mark.parametrize("make", [
    lambda: make_impressions(30, max_length=60),
    lambda: make_prices(30, max_length=60),
    lambda: make_lists(30),
])  # fmt: skip
def test_one_history_of_all_candidates_is_computed_as_many_equal_ones(make):
    X = make()
    ragged = X.behaviours[X.schema.behaviours[0].histories]
    columns = {name: values[:9] for name, values in X.columns.items()}
    X = X[np.full(9, ragged.spans.lengths.argmax())]
    X.columns.update(columns)
    X.columns["item"][:] = np.arange(2, 11)
    module = make_network(X)
    with torch.no_grad():
        assert uses_native(module, X, shared=True)
        shared = logits_of(module, Batch(X, shared=True))
        torch.testing.assert_close(shared, module(Batch(X)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shared, logits_of(module, Batch(X)), rtol=1e-6, atol=1e-6)


def test_positions_have_their_favours():
    X = make_impressions(30)._replace(positions=np.arange(30, dtype=np.int32) % 4)
    module = make_network(X, position_shares=(0.5, 0.3, 0.2))
    _, expected = gradients_of(module, module, X)
    _, found = gradients_of(lambda batch: logits_of(module, batch), module, X)
    torch.testing.assert_close(found["favours"], expected["favours"], rtol=1e-4, atol=1e-5)


def test_an_id_beyond_its_table_and_an_exception_of_the_library_are_errors_of_python():
    X = make_impressions(4)
    module = make_network(X)
    X.columns["category"][2] = 6
    with pytest.raises(IndexError, match=r"category must lie in range\(0, 6\), got 6"):
        logits_of(module, Batch(X))
    pairs = np.zeros(1, dtype=PAIRS)
    pairs["n_ids"] = 2**62
    with pytest.raises(RuntimeError, match="native code failed: sizes"):
        LIBRARY.din_select_pairs(pairs.ctypes.data)


@pytest.mark.skipif(sys.platform != "linux", reason="memory in use is read from /proc")
def test_short_memory_is_an_error_after_which_smaller_batches_are_computed():
    import resource

    X = make_impressions(60, max_length=700)
    module, batch = make_network(X, attention_units=(20_000,)), Batch(X)  # scores take 300 MB
    assert uses_native(module, X[:2])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (32 << 20), before[1]))
    try:
        with pytest.raises(MemoryError, match=r"more memory than .* lower batch_size"):
            logits_of(module, batch)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    own, expected = logits_of(module, Batch(X[:2])), module(Batch(X[:2]))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def add_hook(module):
    module.embeddings.register_forward_hook(lambda part, args, output: None)


def change_layout(module):
    weight = module.mlp[0].weight
    weight.data = weight.data.t().contiguous().t()


CHANGES = {
    "hook": add_hook,
    "hook of the gradient": lambda m: m.mlp.register_full_backward_hook(lambda *a: None),
    "parametrization": lambda m: parametrizations.weight_norm(m.mlp[0]),
    "frozen": lambda m: m.embeddings.requires_grad_(False),
    "not contiguous": change_layout,
    "double": lambda m: m.mlp.bfloat16().float() and m.double(),
    "replaced layer": lambda m: setattr(m, "output", nn.Sequential(m.output)),
    "own forward": lambda m: setattr(m, "forward", lambda batch: "torch"),
    "own forward of a part": lambda m: setattr(m.mlp, "forward", m.mlp.forward),
    "subclass": lambda m: setattr(m, "__class__", type("Own", (DIN,), {})),
    "subclass of a part": lambda m: setattr(
        m.interests[0], "__class__", type("Own", (Interest,), {})
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_torch_computes_networks_that_somebody_changed(change, monkeypatch):
    X = make_impressions(6)
    module = make_network(X)
    assert uses_native(module, X)
    change(module)
    called = []
    monkeypatch.setattr(native_logits._Call, "forward", lambda call: called.append(1))
    monkeypatch.setattr(DIN, "forward", lambda module, batch: "torch")
    assert logits_of(module, Batch(X)) == "torch"
    assert not called


def test_torch_computes_what_it_traces_casts_transforms_or_differentiates_by_numbers():
    X = make_impressions(6)
    module = make_network(X)
    may = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not may_compute(Batch(X))
    batch = Batch(X)
    batch.numbers.requires_grad_()
    logits_of(module, batch).sum().backward()
    assert batch.numbers.grad.abs().min() > 0
    assert not uses_native(module, X, shared=True)

    torch.func.grad(lambda x: may.append(may_compute(Batch(X))) or x)(torch.tensor(1.0))
    assert may == [False]


def test_defaults_of_torch_change_no_bit():
    X = make_impressions(6)
    module, before = make_network(X), torch.get_default_dtype()
    expected = gradients_of(lambda batch: logits_of(module, batch), module, X)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert uses_native(module, X)
            found = gradients_of(lambda batch: logits_of(module, batch), module, X)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_copied_network_has_a_plan_of_its_own():
    X = make_impressions(6)
    module = make_network(X)
    logits = logits_of(module, Batch(X))
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.output.bias += 1
    torch.testing.assert_close(logits_of(copied, Batch(X)), logits + 1)
    torch.testing.assert_close(logits_of(module, Batch(X)), logits, rtol=0, atol=0)


def coalesced(rows, values, shape):
    options = {"is_coalesced": True, "check_invariants": False}
    return torch.sparse_coo_tensor(rows, values, shape, **options)


@pytest.mark.parametrize("row", [50, -1, 10**9])
def test_a_gradient_beyond_its_table_is_torchs_error_and_moves_nothing(row):
    table = nn.Parameter(torch.ones(50, 6))
    optimizer = RowwiseAdam([{"params": [table], "starts": torch.tensor([0])}], lr=0.01)
    rows, values = torch.tensor([[3, row]]), torch.ones(2, 6)
    table.grad = coalesced(rows, values, table.shape)
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        optimizer.step()
    assert (table == 1).all()


def test_torch_computes_with_labels_and_weights_of_other_sizes_and_types():
    X = make_impressions(20)
    module, y = make_network(X), labels_of(X)
    for labels in (y.double(), y[:9], y[:, None], y.long()):
        assert add_gradients(module, Batch(X), labels, "log") is None
    batch = Batch(X)
    for batch.weights in (y.double(), y[:9]):
        assert add_gradients(module, batch, y, "log") is None
    batch.weights = y
    assert add_gradients(module, batch, y, "log") is not None


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("loss", ["log", "squares"])
def test_a_whole_step_equals_gradients_and_then_the_optimizers_step(loss, n_threads):
    X = make_impressions(600, max_length=40)
    modules = [make_network(X, std=None) for _ in range(2)]
    optimizers = [optimizer_of(module, lr=0.01, embedding_lr=0.03) for module in modules]
    decay = {n: np.full(size, 0.01, "f4") for n, size in X.schema.vocabulary_sizes.items()}
    y = labels_of(X)
    for step in range(8):
        batch, labels = Batch(X[60 * step :]), y[60 * step :]
        for module, optimizer in zip(modules, optimizers, strict=True):
            if step == 3:  # new moments, which are the same, and other groups
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if step == 5:
                set_rates(optimizer, lr=0.002, embedding_lr=0.1)
                set_decay(optimizer, module, decay)
        with use_native_threads(n_threads):
            steps = NativeSteps.begin(modules[0], batch, labels, loss, optimizers[0].prepare)
            found = steps.take(batch, labels)
        assert all(parameter.grad is None for parameter in modules[0].parameters())
        expected = add_gradients(modules[1], batch, labels, loss)
        optimizers[1].step()
        optimizers[1].zero_grad()
        assert all(map(torch.equal, found, expected))
        assert all(map(torch.equal, modules[0].parameters(), modules[1].parameters()))
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    version = modules[0].output.bias._version
    steps.take(Batch(X), y)
    assert modules[0].output.bias._version > version


def test_torch_takes_the_steps_where_factors_of_the_l2_have_another_type():
    X = make_impressions(30)
    module = make_network(X)
    optimizer = optimizer_of(module, lr=0.01, embedding_lr=None)
    given = module, Batch(X), labels_of(X), "log", optimizer.prepare
    for dtype, is_covered in ((np.float32, True), (np.float64, False)):
        sizes = X.schema.vocabulary_sizes.items()
        set_decay(optimizer, module, {name: np.full(n, 0.01, dtype=dtype) for name, n in sizes})
        assert (NativeSteps.begin(*given) is not None) == is_covered


def test_steps_that_are_prepared_ahead_draw_what_they_would_draw_then():
    X, ends = make_impressions(300), []
    y = labels_of(X)
    for looks_ahead in (False, True):
        module = make_network(X).train()
        optimizer = optimizer_of(module, lr=0.01, embedding_lr=None)
        made = [Batch(X[start : start + 60]) for start in range(0, 300, 60)]
        for batch, following in zip(made, [*made[1:], None], strict=True):
            batch.look_ahead = (lambda following=following: following) if looks_ahead else None
        with torch.random.fork_rng(devices=[]), use_native_threads(2):
            torch.manual_seed(0)
            steps = NativeSteps.begin(module, made[0], y[:60], "log", optimizer.prepare)
            states = []
            for number in (0, 1, 2, 4, 3):  # the fourth was prepared for nothing
                if number == 2:  # a parameter that lies elsewhere
                    module.output.weight.data = module.output.weight.data.clone()
                if number == 1:  # a callback that draws, too
                    torch.rand(1)
                steps.take(made[number], y[60 * number : 60 * number + 60])
                states.append(torch.random.get_rng_state())
        ends.append([*module.parameters(), *states])
    assert not torch.equal(ends[0][-1], ends[0][-2])
    assert all(map(torch.equal, *ends))


def test_nothing_moves_where_the_loss_is_not_finite():
    X = make_impressions(30)
    module, y = make_network(X), labels_of(X)
    optimizer = optimizer_of(module, lr=0.01, embedding_lr=None)
    before = copy.deepcopy(module.state_dict())
    y[3] = torch.nan
    steps = NativeSteps.begin(module, Batch(X), y, "log", optimizer.prepare)
    loss, _ = steps.take(Batch(X), y)
    assert loss.isnan()
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def fit(n=300, **parameters):
    """A classifier of so many rows, these rows, and their labels."""
    X = make_impressions(n)
    classifier = DINClassifier(**{"max_epochs": 1, "random_state": 0, **parameters})
    return classifier.fit(X, make_labels(X)), X, make_labels(X)


@pytest.mark.parametrize("base", [Callback, EpochTimer])
def test_a_callback_that_looks_at_gradients_changes_nothing(base):
    class Look(base):
        norms: list[float] = []

        def on_batch_end(self, net, training, **kwargs):
            if training:
                self.norms.append(float(net.module_.output.weight.grad.norm()))

    weights = [fit(callbacks=own)[0].module_.state_dict() for own in (None, [Look()])]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert min(Look.norms) > 0


def test_callbacks_may_freeze_parameters_and_load_moments_between_epochs():
    class Freeze(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.module_.output.weight.requires_grad_(False)
            net.optimizer_.load_state_dict(copy.deepcopy(net.optimizer_.state_dict()))

    weights = []
    for Freeze.ignores_gradients in (False, True):
        weights.append(fit(max_epochs=2, callbacks=[Freeze()])[0].module_.state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_parameters_that_are_frozen_or_not_the_optimizers_stay(is_frozen):
    classifier, X, y = fit()
    module = classifier.module_
    before = module.output.weight.detach().clone()
    if is_frozen:
        module.output.weight.requires_grad_(False)
    else:
        module.output.weight = nn.Parameter(before.clone())
    with torch.no_grad():  # in which a fit trains all the same
        classifier.net_.partial_fit(X, y.astype(np.float32))
    assert torch.equal(module.output.weight, before)


def test_a_function_in_place_of_the_optimizers_step_is_called():
    classifier, X, y = fit()
    net, calls, step = classifier.net_, [], classifier.net_.optimizer_.step
    net.optimizer_.step = lambda closure: calls.append(step(closure))  # as torch's schedules do
    net.partial_fit(X, y.astype(np.float32))
    assert len(calls) == len(net.history[-1]["batches"])


@pytest.mark.parametrize("has_decay", [True, False])
def test_rows_move_as_torch_moves_them(has_decay, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    start, ends = torch.randn(50, 6, generator=generator), []
    for library in (LIBRARY, None):
        monkeypatch.setattr(native_optimizer, "load_library", lambda library=library: library)
        table = nn.Parameter(start.clone())
        decay = torch.linspace(0, 0.1, 50) if has_decay else None
        group = {"params": [table], "starts": torch.tensor([0, 9, 30, 45]), "decay": decay}
        optimizer = RowwiseAdam([group], lr=0.01)
        for step in range(5):  # the second and the last vocabulary have no rows at times
            rows = torch.arange(step, 50, 7)[: 5 + step]
            gradient = torch.sin(torch.arange(len(rows) * 6.0) + step).view(-1, 6)
            before = gradient.clone()
            rows = rows.repeat_interleave(2)[None, ::2] if library else rows[None]
            table.grad = coalesced(rows, gradient, table.shape)
            optimizer.step()
            assert torch.equal(gradient, before)
        ends.append([table.detach(), *optimizer.state[table].values()])
    for native, expected in zip(*ends, strict=True):
        torch.testing.assert_close(native, expected, rtol=2e-6, atol=1e-7)
    assert not torch.equal(ends[0][0], start)


@pytest.mark.parametrize("sizes", [{}, {"MOST_WHOLE": 25, "MOST_EXACT": 20, "MOST_NEIGHBOURS": 3}])
@pytest.mark.parametrize("shape", [(40, 30), (9, 70), (300, 260), (3, 1), (2, 300)], ids=str)
def test_pairs_of_items_have_the_bits_of_numpy(shape, sizes, monkeypatch):
    """Many counts are equal; some users had nothing, and nobody had some items."""
    for name, size in sizes.items():
        monkeypatch.setattr(item_scores, name, size)
    rng, n_ids, results = np.random.RandomState(0), shape[1], []
    chances = rng.random_sample((shape[0], 1)) * rng.random_sample(n_ids) - 0.1
    had = csr_array((rng.random_sample(shape) < chances).astype(np.float32))
    n_users = had.sum(axis=0).astype(np.float32)
    for library in (LIBRARY, None):
        monkeypatch.setattr(native_pairs, "load_library", lambda library=library: library)
        one, counts = eye_array(n_ids, dtype=np.float32, format="csr"), csr_array(had.T @ had)
        results.append([])
        for product in ((csr_array(had.T.tocsr()), had), (one, counts * np.float32(3))):
            scores = ItemScores.of_counts(*product, n_users, n_users, n_users / 2, 1.0)
            results[-1] += [scores.ease, scores.cosine]
        for all_pairs in (True, False):
            results[-1].append(scores.choose_counts(had[::2], n_users, all_pairs=all_pairs))
    for native, expected in zip(*results, strict=True):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(native, part), getattr(expected, part))


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


def test_torch_has_one_thread_in_fit_unless_it_was_asked_for_more(torch_threads, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)  # of a container: torch counts all cores
    monkeypatch.setattr(threads, "_UNASKED", 8)
    for n_threads, expected in [(8, (1, 4)), (3, (3, 3)), (6, (4, 4)), (1, (1, 1))]:
        torch_threads(n_threads)
        fit(40, callbacks=[noted := Threads()])
        assert noted.seen == expected
        assert torch.get_num_threads() == n_threads
        assert n_native_threads.get() is None


@pytest.mark.slow
def test_a_training_has_the_same_bits_whatever_threads_its_steps_have(torch_threads, monkeypatch):
    """With several, the next batches are made while they compute."""
    monkeypatch.setattr(batches, "MADE_AHEAD", 5_000)
    monkeypatch.setattr(threads, "_UNASKED", 5)
    predictions, make = [], batches.ImpressionBatches._join
    for n_threads in (4, 2, 1):
        within = []

        def note(self, *rows, within=within):
            names = [frame.name for frame in traceback.extract_stack()]
            within.append("train_step" in names)
            return make(self, *rows)

        monkeypatch.setattr(batches.ImpressionBatches, "_join", note)
        monkeypatch.setattr(joblib, "cpu_count", lambda n=n_threads: n)
        torch_threads(5)
        model, X, _ = fit(1_500, callbacks=[noted := Threads()])
        assert noted.seen == (1, n_threads)
        assert any(within) == (n_threads > 1)
        predictions.append(model.decision_function(X))
    assert np.array_equal(predictions[0], predictions[2])
    assert np.array_equal(predictions[1], predictions[2])


def step_of(module, X, look_ahead=None):
    """Return the logits and a gradient of one step."""
    batch = Batch(X)
    batch.look_ahead = look_ahead
    module.zero_grad(set_to_none=True)
    logits = add_gradients(module, batch, labels_of(X), "log")[1]
    return torch.cat([logits, module.output.weight.grad.flatten()]).numpy()


def test_threads_of_a_training_serve_one_call_at_a_time_and_no_forked_child():
    X = make_impressions(600, max_length=40)
    module = make_network(X)
    expected = step_of(module, X)
    with use_native_threads(3):
        assert np.array_equal(step_of(module, X), expected)
        others, context = [], contextvars.copy_context()
        own = copy.deepcopy(module)
        thread = threading.Thread(target=lambda: others.append(context.run(step_of, own, X)))
        assert np.array_equal(step_of(module, X, lambda: (thread.start(), thread.join())), expected)
        assert np.array_equal(others[0], expected)
        if hasattr(os, "fork"):
            with warnings.catch_warnings(action="ignore"):  # of forks beside threads
                child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(step_of(module, X), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(step_of(module, X), expected)


@pytest.mark.slow
def test_a_thread_that_wakes_late_takes_no_task_of_a_small_batch():
    large, small = make_impressions(600, max_length=40), make_impressions(5, max_length=40)
    module = make_network(large)
    expected = step_of(module, large), step_of(module, small)
    with use_native_threads(8):  # of which some are still asleep when a step is over
        for _ in range(300):
            assert np.array_equal(step_of(module, large), expected[0])
            assert np.array_equal(step_of(module, small), expected[1])


def test_an_exception_while_threads_compute_comes_when_they_have_ended():
    X = make_impressions(600, max_length=40)
    module = make_network(X)

    def interrupt():
        raise KeyboardInterrupt

    with use_native_threads(2):
        expected = step_of(module, X)
        with pytest.raises(KeyboardInterrupt):
            step_of(module, X, interrupt)
        assert np.array_equal(step_of(module, X), expected)


def test_a_step_that_is_interrupted_as_it_begins_moves_nothing_later(monkeypatch):
    X = make_impressions(600, max_length=40)
    module = make_network(X)
    optimizer, begin = optimizer_of(module, lr=0.01, embedding_lr=None), LIBRARY.din_begin

    def interrupt(*given):
        begin(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(LIBRARY, "din_begin", interrupt)
    given = Batch(X), labels_of(X)
    steps = NativeSteps.begin(module, *given, "log", optimizer.prepare)
    with use_native_threads(2), pytest.raises(KeyboardInterrupt) as raised:
        steps.take(*given)
    before = copy.deepcopy(module.state_dict())
    del raised  # and the frames that held the step
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    kind = native_logits._StepOfThreads
    assert kind.__new__(kind).end() == 0  # interrupted before anything else


def test_batches_that_cannot_be_made_ahead_fail_when_they_are_needed(torch_threads, monkeypatch):
    monkeypatch.setattr(batches, "MADE_AHEAD", 1)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    torch_threads(2)
    steps, make = [], batches.ImpressionBatches._join

    def fail_once(self, *rows):
        if len(steps) >= 3:
            raise OSError("a file is gone")
        return make(self, *rows)

    class Count(Callback):
        def on_batch_end(self, net, **kwargs):
            steps.append(0)

    monkeypatch.setattr(batches.ImpressionBatches, "_join", fail_once)
    X = make_impressions(600)
    with pytest.raises(OSError, match="a file is gone"):
        DINClassifier(max_epochs=1, batch_size=64, callbacks=[Count()]).fit(X, make_labels(X))
    assert len(steps) == 4
