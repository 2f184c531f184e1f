import numpy as np
import pytest
import torch

from sklearn_din.module import OPTIONS
from sklearn_din.network.layers import MLP, ActivationUnit, Dice, PReLU

ROWS = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_prelu_gives_torchs_numbers_and_gradients(generator):
    scores = torch.randn(9, 5, generator=generator, requires_grad=True)
    ours, theirs = PReLU(5), torch.nn.PReLU()
    for activation in (ours, theirs):
        scores.grad = None
        activation(scores).sin().sum().backward()
        gradient = scores.grad
        if activation is ours:
            kept = gradient.clone()
    torch.testing.assert_close(kept, gradient)
    torch.testing.assert_close(ours.slope.grad, theirs.weight.grad[0])
    torch.testing.assert_close(ours(scores), theirs(scores))


def test_dice_is_the_papers_formula_in_training(generator):
    scores = (torch.randn(40, 3, generator=generator) * 2 + 1).requires_grad_()
    weight = torch.randn(40, 3, generator=generator)
    dice = Dice(3)
    dice.slope.data = torch.tensor([0.1, 0.2, 0.3])
    mean, variance = scores.mean(0), scores.var(0, unbiased=False)
    gate = torch.sigmoid((scores - mean) / torch.sqrt(variance + 1e-8))
    expected = gate * scores + (1 - gate) * dice.slope * scores
    found = dice(scores)
    torch.testing.assert_close(found, expected)
    for twin, ours in zip(
        torch.autograd.grad(expected, (scores, dice.slope), weight),
        torch.autograd.grad(found, (scores, dice.slope), weight),
        strict=True,
    ):
        torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(dice.running_mean, 0.1 * mean.detach())
    torch.testing.assert_close(dice.running_var, 0.9 + 0.1 * scores.detach().var(0))


def test_dice_trains_on_a_batch_of_one_row_and_of_none():
    dice = Dice(2)
    before = dice.running_mean.clone()
    assert torch.isfinite(dice(torch.ones(1, 2))).all()
    assert dice(torch.ones(0, 2)).shape == (0, 2)
    torch.testing.assert_close(dice.running_mean, before)


@pytest.mark.parametrize("n_relations", [0, 2])
@pytest.mark.parametrize("activation", OPTIONS["attention_activation"])
def test_the_split_first_layer_equals_the_papers_concatenation(activation, n_relations, generator):
    unit = ActivationUnit(5, n_relations, units=(7, 3), activation=activation).double()
    queries = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    keys = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    relations = torch.randn(8, n_relations, generator=generator, dtype=torch.float64)
    q = queries[ROWS]
    joined = torch.cat([q, keys, q - keys, q * keys, relations], dim=1)
    textbook = unit.last(unit.rest(unit.first_activation(unit.first(joined)))).squeeze(1)
    ours = unit(queries, keys, relations if n_relations else None, ROWS)
    torch.testing.assert_close(ours, textbook)


def test_weights_start_near_one(generator):
    unit = ActivationUnit(8, 0, units=(16, 4), activation="prelu")
    small = 0.05 * torch.randn(4, 8, generator=generator)
    weights = unit(small, 0.05 * torch.randn(8, 8, generator=generator), None, ROWS)
    assert (weights - 1).abs().max() < 0.7


def test_mlp_has_a_layer_an_entry_and_drops_only_in_training():
    mlp = MLP(4, (8, 3), activation="dice", dropout=0.5)
    assert [layer.out_features for layer in mlp if isinstance(layer, torch.nn.Linear)] == [8, 3]
    mlp.eval()
    inputs = torch.ones(2, 4)
    torch.testing.assert_close(mlp(inputs), mlp(inputs))
    assert MLP(4, (), activation="relu").n_outputs == 4
    assert np.isclose(mlp(inputs).shape[1], 3)


def test_a_unit_that_starts_as_matching_weighs_same_ids_more(generator):
    unit = ActivationUnit(8, 3, units=(16, 4), activation="prelu")
    unit.start_as_matching(2)
    small = 0.01 * torch.randn(4, 8, generator=generator)
    keys = 0.01 * torch.randn(8, 8, generator=generator)
    relations = torch.zeros(8, 3)
    relations[::2, :2] = 1.0
    weights = unit(small, keys, relations, ROWS)
    assert weights[::2].min() > weights[1::2].max() + 1
