"""The parts of a network as data: every parameter once, layers in the order of the data."""

import pytest

from sklearn_din.inspection.structure import layers_of, learnt_parts, mlp_layers, pooling_of
from sklearn_din.module import DIN
from tests.encoded_impressions import make_schema


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"pooling": "sum", "interest": "paper"},
        {"pooling": "max"},
        {"activation": "dice", "attention_activation": "sigmoid", "dropout": 0.5},
        {"attention_units": (3,), "hidden_units": ()},
        {"embedding_dim": {"item": 3, "category": 5, "tags": 7}},
    ],
)
def test_the_parts_hold_every_parameter_once(parameters):
    module = DIN(make_schema(), **parameters)
    total = sum(parameter.numel() for parameter in module.parameters())
    assert sum(part.n_parameters for part in learnt_parts(module)) == total


def test_layers_are_named_in_the_order_of_the_data():
    module = DIN(make_schema(), attention_units=(7, 5, 3), activation="dice", dropout=0.1)
    unit, mlp = layers_of(module.interests[0].unit), layers_of(module.mlp)
    assert (unit.widths[1:], unit.activation) == ((7, 5, 3, 1), "PReLU")
    assert (mlp.widths[1:], mlp.activation) == ((200, 80), "Dice")
    assert mlp_layers(module).widths == (*mlp.widths, 1)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"interest": "paper"}, ("attention", None)),
        ({"attention_normalization": "softmax"}, ("attention", "softmax")),
        ({"pooling": "sum"}, ("sum", "sqrt")),
        ({"pooling": "mean"}, ("mean", None)),
    ],
)
def test_interest_is_described_by_pooling_and_normalization(parameters, expected):
    assert pooling_of(DIN(make_schema(), **parameters).interests[0]) == expected
