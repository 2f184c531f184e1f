"""The flat network against a padded one written as the textbook has it, and its layers."""

import numpy as np
import pytest
import torch

from sklearn_din import DIN, EncodedFeatures, Field, Schema
from sklearn_din.module import OPTIONS
from sklearn_din.network.batch import Batch
from sklearn_din.network.embeddings import FieldEmbeddings
from sklearn_din.network.layers import ActivationUnit, Dice
from tests.encoded_impressions import (
    make_answers,
    make_impressions,
    make_prices,
    make_schema,
    narrow,
)
from tests.network_options import each_network
from tests.padded_network import padded_logits


def make_with_numbers(n):
    return make_impressions(n, numbers=("hist_elapsed",))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("make", [make_impressions, make_with_numbers, make_prices, make_answers])
@each_network("interest", "pooling", "attention_normalization", "attention_activation")
def test_flat_and_padded_networks_give_the_same_numbers_and_gradients(make, options):
    X, activation = make(32), options["attention_activation"]
    widths = {name: 3 + n for n, name in enumerate(X.schema.vocabulary_sizes)}
    network = DIN(
        X.schema,
        embedding_dim=widths if make is make_answers else 4,
        attention_units=(6, 3),
        hidden_units=(7, 5),
        activation=activation if activation in OPTIONS["activation"] else "relu",
        ranges=narrow(X.schema),
        **options,
    ).eval()
    with torch.no_grad():  # slopes and running averages far from where they start
        for tensor in [*network.mlp.parameters(), *network.mlp.buffers()]:
            tensor += 0.2 * torch.rand(tensor.shape)
    flat, padded = network(Batch(X)), padded_logits(network, X)
    torch.testing.assert_close(flat, padded, rtol=1e-5, atol=1e-5)
    parameters = [p for p in network.parameters() if p.requires_grad]
    ours = torch.autograd.grad(flat.sin().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(padded.sin().sum(), parameters, allow_unused=True)
    for gradient, expected in zip(ours, theirs, strict=True):
        assert (gradient is None) == (expected is None)
        if gradient is not None:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            torch.testing.assert_close(dense, expected, rtol=1e-4, atol=1e-5)


def test_the_papers_network_has_no_input_beyond_the_paper_and_embeddings_start_small():
    schema = make_schema(numbers=("hist_elapsed",))
    network = DIN(schema, embedding_dim=4, interest="paper")
    assert network.interests[0].unit.first.in_features == 4 * 8
    assert network.mlp[0].in_features == 1 + 4 + 4 + 8 + 4
    assert network.interests[0].normalization is None
    embeddings = FieldEmbeddings(make_schema(), 16)
    for vocabulary in ("item", "category", "tags"):
        assert (embeddings.weight(vocabulary)[:2] == 0).all()
        assert 0.02 < embeddings.weight(vocabulary)[2:].std() < 0.08


def test_dice_statistics_are_those_of_real_events_and_none_train_too():
    X = make_impressions(64)
    network = DIN(X.schema, attention_activation="dice", activation="dice").train()
    network(Batch(X))
    dice = network.interests[0].unit.first_activation
    captured = []
    handle = dice.register_forward_hook(lambda _, inputs, __: captured.append(inputs[0]))
    network(Batch(X))
    handle.remove()
    assert len(captured[0]) == X["hist_item_mask"].sum()
    X = make_impressions(4, max_length=0)
    network = DIN(X.schema)
    network(Batch(X)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.mlp.parameters())


@each_network("interest", "pooling", "attention_normalization")
@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize("make", [make_answers, make_with_numbers, make_prices])
def test_candidates_of_one_shared_history_equal_rows_of_their_own(make, options, is_empty):
    X = make(16)
    columns, lengths = X.columns, X["hist_item_mask"].sum(axis=1)
    row = lengths.argmin() if is_empty else lengths.argmax()
    repeated = X[np.full(16, row)]
    repeated.columns = columns
    network = DIN(X.schema, **options).eval()
    with torch.no_grad():
        shared, own = network(Batch(repeated, shared=True)), network(Batch(repeated))
    torch.testing.assert_close(shared, own, rtol=0, atol=1e-6)


def seen_numbers(network, X):
    """What reaches the first layer of the MLP of each impression's price."""
    inputs = []
    first = next(iter(network.mlp))
    first.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    network(Batch(X))
    return inputs[0][:, 0].detach().numpy()


@pytest.mark.parametrize("interest", OPTIONS["interest"])
def test_no_number_is_hidden_at_prediction_in_the_paper_or_without_ids(interest):
    X = make_impressions(500)
    network = DIN(X.schema, interest=interest, activation="dice").train(interest == "paper")
    np.testing.assert_array_equal(seen_numbers(network, X), X["price"])
    alone = EncodedFeatures(Schema((Field("price", "numeric"),)), {"price": X["price"]})
    network = DIN(alone.schema, interest=interest, activation="dice").train()
    np.testing.assert_array_equal(seen_numbers(network, alone), X["price"])


# Layers

ROWS = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3])


def test_dice_is_the_papers_formula_in_training():
    scores = (torch.randn(40, 3) * 2 + 1).requires_grad_()
    weight = torch.randn(40, 3)
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


def test_a_unit_that_starts_as_matching_weighs_same_ids_more():
    unit = ActivationUnit(8, 3, units=(16, 4), activation="prelu")
    unit.start_as_matching(2)
    small = 0.01 * torch.randn(4, 8)
    keys = 0.01 * torch.randn(8, 8)
    relations = torch.zeros(8, 3)
    relations[::2, :2] = 1.0
    weights = unit(small, keys, relations, ROWS)
    assert weights[::2].min() > weights[1::2].max() + 1
