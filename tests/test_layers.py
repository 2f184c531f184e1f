import pytest
import torch

from sklearn_din.network.layers import ActivationUnit, Dice

ROWS = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


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


def test_a_unit_that_starts_as_matching_weighs_same_ids_more(generator):
    unit = ActivationUnit(8, 3, units=(16, 4), activation="prelu")
    unit.start_as_matching(2)
    small = 0.01 * torch.randn(4, 8, generator=generator)
    keys = 0.01 * torch.randn(8, 8, generator=generator)
    relations = torch.zeros(8, 3)
    relations[::2, :2] = 1.0
    weights = unit(small, keys, relations, ROWS)
    assert weights[::2].min() > weights[1::2].max() + 1
