import pytest
import torch

from sklearn_din.module import OPTIONS
from sklearn_din.network.fused import attend, can_fuse, logits_of
from sklearn_din.network.layers import MLP, ActivationUnit
from sklearn_din.network.segments import sum_events


def both_ways(units, n_relations, lengths, slope=0.25, dtype=torch.float64, detached=False):
    """Outputs and gradients of the fused function and of its plain twin."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor(lengths)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    torch.manual_seed(0)
    unit = ActivationUnit(6, n_relations, units=units, activation="prelu").to(dtype)
    for activation in [unit.first_activation, *list(unit.rest)[1::2]]:
        torch.nn.init.constant_(activation.slope, slope)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    queries = random(len(lengths), 6).requires_grad_()
    keys = random(len(rows), 6).requires_grad_()
    pair = (queries.detach(), keys.detach()) if detached else (queries, keys)
    relations = random(len(rows), n_relations) if n_relations else None
    weights = unit(*pair, relations, rows)
    plain = sum_events(pair[1], rows, offsets, weights), weights
    ours = attend(unit, *pair, relations, rows, offsets)
    inputs = [*unit.parameters()] if detached else [queries, keys, *unit.parameters()]

    def gradients(interest, weights):
        loss = interest.sin().sum() + (weights * (torch.arange(len(rows)) % 10)).cos().sum()
        return torch.autograd.grad(loss, inputs)

    return [*plain, *gradients(*plain)], [*ours, *gradients(*ours)]


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [1], [0, 2, 0], [0, 0]])
@pytest.mark.parametrize("n_relations", [0, 3])
@pytest.mark.parametrize("units", [(8,), (8, 4), (8, 5, 3)])
@pytest.mark.parametrize("slope", [0.25, 0.85, 1.0, 1.5, 0.0, -0.1])
@pytest.mark.parametrize("detached", [False, True])
def test_fused_attention_equals_its_plain_twin_in_numbers_and_gradients(
    units, n_relations, lengths, slope, detached
):
    with torch.random.fork_rng(devices=[]):
        plain, ours = both_ways(units, n_relations, lengths, slope, detached=detached)
    for expected, found in zip(plain, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("detached", [False, True])
def test_long_histories_in_float32_equal_the_plain_twin(detached):
    lengths = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(4)).tolist()
    with torch.random.fork_rng(devices=[]):
        plain, ours = both_ways((64, 16), 3, lengths, dtype=torch.float32, detached=detached)
    for expected, found in zip(plain, ours, strict=True):
        # Entries near zero are sums of large numbers that cancel: those' last bit is their error.
        last_bit = torch.finfo(torch.float32).eps * float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=max(2e-3, last_bit))


@pytest.mark.parametrize("n_rows", [0, 1, 9, 4100])
@pytest.mark.parametrize("units", [(7,), (7, 4), (5, 6, 3)])
@pytest.mark.parametrize("slope", [0.25, 0.0])
def test_the_fused_mlp_equals_its_plain_twin_in_numbers_and_gradients(n_rows, units, slope):
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = MLP(6, units, activation="prelu").double()
        output = torch.nn.Linear(units[-1], 1).double()
    for activation in list(mlp)[1::2]:
        torch.nn.init.constant_(activation.slope, slope)
    inputs = torch.randn(n_rows, 6, generator=generator, dtype=torch.float64).requires_grad_()
    both = [output(mlp(inputs)).squeeze(1), logits_of(mlp, output, inputs)]
    leaves = [inputs, *mlp.parameters(), *output.parameters()]
    plain, ours = ([out, *torch.autograd.grad(out.sin().sum(), leaves)] for out in both)
    for expected, found in zip(plain, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("slope", [0.25, 0.95])
def test_a_second_backward_pass_gives_the_same_gradients(slope):
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = ActivationUnit(3, 0, units=(5, 4), activation="prelu")
        mlp, output = MLP(3, (6, 4), activation="prelu"), torch.nn.Linear(4, 1)
    for activation in [unit.first_activation, *list(unit.rest)[1::2], *list(mlp)[1::2]]:
        torch.nn.init.constant_(activation.slope, slope)
    queries, keys = (torch.randn(n, 3, generator=generator).requires_grad_() for n in (2, 3))
    rows, offsets = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 3])
    interest, weights = attend(unit, queries, keys, None, rows, offsets)
    loss = (logits_of(mlp, output, interest) * weights[1:]).sum()
    leaves = [queries, keys, *unit.parameters(), *mlp.parameters(), *output.parameters()]
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in first)


def test_only_prelu_units_and_mlps_without_dropout_are_fused():
    assert can_fuse(ActivationUnit(2, 0, units=(4, 2), activation="prelu").above)
    for activation in {*OPTIONS["attention_activation"]} - {"prelu"}:
        assert not can_fuse(ActivationUnit(2, 0, units=(4, 2), activation=activation).above)
    assert can_fuse(MLP(4, (3, 2), activation="prelu"))
    for activation in {*OPTIONS["activation"]} - {"prelu"}:
        assert not can_fuse(MLP(4, (3, 2), activation=activation))
    assert not can_fuse(MLP(4, (3, 2), activation="prelu", dropout=0.5))
    assert not can_fuse(MLP(4, (), activation="prelu"))
