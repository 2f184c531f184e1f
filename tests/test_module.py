"""The flat network against a padded one written as the textbook has it."""

import numpy as np
import pytest
import torch

from sklearn_din.features import Behaviour, EncodedFeatures, Field, Ragged, Schema
from sklearn_din.features.identities import LEAST_ID
from sklearn_din.module import DIN, NUMBERS_HIDDEN
from sklearn_din.network.batch import Batch
from sklearn_din.network.embeddings import FieldEmbeddings
from tests.encoded_impressions import (
    make_answers,
    make_impressions,
    make_impressions_with_a_column_named_like_a_behaviour,
    make_schema,
)
from tests.padded_network import padded_logits

CLICKS = ("hist_item", "hist_category")


def make_with_numbers(n):
    return make_impressions(n, numbers=("hist_elapsed",))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


MAKES = [
    make_impressions,
    make_with_numbers,
    make_answers,
    make_impressions_with_a_column_named_like_a_behaviour,
]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("interest", ["paper", "extended"])
@pytest.mark.parametrize("pooling", ["attention", "sum", "mean", "max"])
@pytest.mark.parametrize("normalization", ["auto", "softmax", "sqrt", None])
@pytest.mark.parametrize("activation", ["prelu", "dice", "relu", "sigmoid"])
def test_flat_and_padded_networks_give_the_same_numbers_and_gradients(
    make, interest, pooling, normalization, activation
):
    X = make(32)
    network = DIN(
        X.schema,
        embedding_dim=4,
        interest=interest,
        pooling=pooling,
        attention_units=(6, 3),
        attention_activation=activation,
        attention_normalization=normalization,
        hidden_units=(7, 5),
        activation="relu" if activation == "sigmoid" else activation,
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


def test_sparse_gradients_hold_each_row_once_in_order():
    X = make_impressions(32)
    network = DIN(X.schema, embedding_dim=4)
    network(Batch(X)).sum().backward()
    (table,) = network.embeddings.tables.values()
    rows = table.grad._indices()[0]
    assert (rows.diff() > 0).all()
    batch_ids = {name: ids.unique() for name, ids in Batch(X).ids.items()}
    offsets, vocabulary = network.embeddings.offset_of, network.embeddings.vocabulary_of
    used = {int(i) + offsets[vocabulary[n]] for n, ids in batch_ids.items() for i in ids}
    assert set(rows.tolist()) == used


def test_the_papers_network_has_no_input_beyond_the_paper():
    schema = make_schema(numbers=("hist_elapsed",))
    network = DIN(schema, embedding_dim=4, interest="paper")
    assert network.interests[0].unit.first.in_features == 4 * 8
    assert network.mlp[0].in_features == 1 + 4 + 4 + 8 + 4
    assert network.interests[0].normalization is None


def test_the_extended_unit_sees_same_ids_recency_and_numbers():
    schema = make_schema(numbers=("hist_elapsed",))
    columns = {
        "price": np.zeros(2, dtype=np.float32),
        "item": np.array([7, 1], dtype=np.int32),
        "category": np.array([3, 1], dtype=np.int32),
    }
    events = {
        "hist_item": np.array([7, 5, 1], dtype=np.int32),
        "hist_category": np.array([2, 3, 1], dtype=np.int32),
        "hist_elapsed": np.array([0.5, 0.25, 2.0], dtype=np.float32),
    }
    X = EncodedFeatures(
        schema,
        columns,
        {
            CLICKS: Ragged.from_lengths(events, np.array([2, 1], dtype=np.int32)),
            ("tags",): Ragged.from_lengths(
                {"tags": np.empty(0, np.int32)}, np.zeros(2, dtype=np.int32)
            ),
        },
    )
    network, batch = DIN(schema), Batch(X)
    interest = network.interests[0]
    matches = interest._matches(batch)
    relations = interest._relations(matches, batch)
    expected = [  # equal ids, the same where recent events count more, recency, the event's number
        [1, 0, 0.8, 0, 0.5, 0, np.log(2), 0.5],
        [0, 1, 0, 1, 0, 1, 0, 0.25],
        [0, 0, 0, 0, 0, 0, 0, 2.0],  # unknown equals no unknown
    ]
    torch.testing.assert_close(relations, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("interest", ["paper", "extended"])
@pytest.mark.parametrize("pooling", ["attention", "sum", "mean", "max"])
@pytest.mark.parametrize("normalization", ["auto", None, "sqrt", "softmax"])
def test_a_rows_logit_does_not_depend_on_its_neighbours(interest, pooling, normalization):
    X = make_impressions(16)
    network = DIN(
        X.schema, interest=interest, pooling=pooling, attention_normalization=normalization
    ).eval()
    together = network(Batch(X))
    backwards = network(Batch(X[::-1])).flip(0)
    alone = torch.cat([network(Batch(X[i : i + 1])) for i in range(16)])
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-6)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_candidate_and_history_share_rows_and_vocabularies_do_not():
    embeddings = FieldEmbeddings(make_schema(), 4)
    ids = {
        "item": torch.tensor([7], dtype=torch.int32),
        "category": torch.tensor([5], dtype=torch.int32),
        "hist_item": torch.tensor([7, 11], dtype=torch.int32),
        "hist_category": torch.tensor([5, 2], dtype=torch.int32),
        "tags": torch.tensor([4], dtype=torch.int32),
    }
    found, _ = embeddings(ids, {})
    torch.testing.assert_close(found[("item",)][0], found[CLICKS][0, :4])
    torch.testing.assert_close(found[("category",)][0], embeddings.weight("category")[5])
    torch.testing.assert_close(found[CLICKS][1, :4], embeddings.weight("item")[11])
    torch.testing.assert_close(found[("tags",)][0], embeddings.weight("tags")[4])


def test_widths_by_vocabulary_give_each_behaviour_its_own_width():
    X = make_impressions(6)
    network = DIN(X.schema, embedding_dim={"item": 6, "category": 2, "tags": 3})
    assert network.embeddings.weight("item").shape == (12, 6)
    assert network.interests[0].unit.width == 8
    network(Batch(X)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_padding_and_unknown_rows_start_at_zero_and_known_ones_small():
    embeddings = FieldEmbeddings(make_schema(), 16)
    for vocabulary in ("item", "category", "tags"):
        assert (embeddings.weight(vocabulary)[:2] == 0).all()
        assert 0.02 < embeddings.weight(vocabulary)[2:].std() < 0.08


def means_and_weights(network, X):
    """Return the weighted means of answers and seconds, and the weights of the events."""
    batch, (interest,) = Batch(X), network.interest_modules
    embeddings, sums = network.embeddings(batch.ids, network._segments(batch))
    queries, keys = network._queries_and_keys(interest.behaviour, embeddings, batch)
    total = sums.get(interest.behaviour.histories)
    _, weights, _ = interest(queries, keys, total, batch)
    return interest.outputs(queries, keys, total, batch)[-2], weights


def test_means_of_actions_are_those_of_all_events_and_of_the_same_item_and_category():
    fields = [Field(name, "categorical", name, n) for name, n in (("item", 9), ("category", 5))]
    fields += [Field(f"hist_{field.name}", "history", field.name, field.n_ids) for field in fields]
    fields.append(Field("hist_action", "history", "hist_action", 5))
    histories, new = ("hist_item", "hist_category", "hist_action"), LEAST_ID
    events = {
        "hist_item": [7, 7, 5, new, 1, 5],
        "hist_category": [2, 2, 2, 3, 2, 2],
        "hist_action": [2, 3, 3, 4, 4, 2],
    }
    columns = {"item": [7, new, 1, 7], "category": [2, 2, 3, 2]}
    lengths = np.array([3, 2, 1, 0], dtype=np.int32)
    flat = {name: np.array(ids, dtype=np.int32) for name, ids in events.items()}
    X = EncodedFeatures(
        Schema(tuple(fields), (Behaviour("b", histories, ("item", "category", None)),), 3),
        {name: np.array(ids, dtype=np.int32) for name, ids in columns.items()},
        {histories: Ragged.from_lengths(flat, lengths)},
    )
    network, batch = DIN(X.schema, embedding_dim=2).eval(), Batch(X)
    embeddings, sums = network.embeddings(batch.ids, network._segments(batch))
    (interest,) = network.interest_modules
    queries, keys = network._queries_and_keys(interest.behaviour, embeddings, batch)
    means = interest.outputs(queries, keys, sums[histories], batch)[-1]
    view, favourite, cart = network.embeddings.weight("hist_action")[2:]
    nothing = torch.zeros(2)
    expected = [  # over all events, over those of the item, over those of the category
        [(view + 2 * favourite) / 11, (view + favourite) / 10, (view + 2 * favourite) / 11],
        [2 * cart / 10, cart / 9, cart / 9],  # an unknown item equals itself
        [view / 9, nothing, nothing],  # a missing one equals nothing
        [nothing, nothing, nothing],
    ]
    expected = torch.stack([torch.cat(row) for row in expected])
    torch.testing.assert_close(means, expected)


@pytest.mark.parametrize("pooling", ["attention", "sum", "mean", "max"])
@pytest.mark.parametrize("name", ["hist_answer", "hist_seconds"])
def test_an_answer_and_a_number_count_whatever_the_pooling(pooling, name):
    X = make_answers(30)
    network = DIN(X.schema, pooling=pooling).eval()
    before = network(Batch(X)).detach()
    (ragged,) = X.behaviours.values()
    values = ragged.columns[name]
    ragged.columns[name] = values % 3 + 1 if name == "hist_answer" else -values
    is_changed = (network(Batch(X)) != before).numpy()
    assert is_changed.sum() > 15
    assert not is_changed[ragged.spans.lengths == 0].any()


@pytest.mark.parametrize("pooling", ["attention", "sum"])
def test_the_means_train_the_answers(pooling):
    X = make_answers(30)
    network = DIN(X.schema, pooling=pooling)
    means, _ = means_and_weights(network, X)
    means.sum().backward()
    (table,) = network.embeddings.tables.values()
    rows = table.grad._indices()[0][table.grad._values().abs().sum(1) > 0].tolist()
    start = network.embeddings.offset_of["hist_answer"]
    answers = {start + 1, start + 2, start + 3}
    assert set(rows) == answers if pooling == "sum" else set(rows) > answers


@pytest.mark.parametrize("activation", ["prelu", "dice"])
@pytest.mark.parametrize("interest", ["paper", "extended"])
@pytest.mark.parametrize("has_answers", [True, False])
def test_attention_moves_embeddings_in_the_paper_and_where_events_have_answers(
    has_answers, interest, activation
):
    X = make_answers(30) if has_answers else make_impressions(30)
    network = DIN(X.schema, interest=interest, attention_activation=activation)
    interests, batch = network.interests[0], Batch(X)
    embeddings, _ = network.embeddings(batch.ids, {})
    queries, keys = network._queries_and_keys(interests.behaviour, embeddings, batch)
    total, weights, _ = interests(queries, keys, None, batch)
    is_moved = has_answers or interest == "paper"
    loss = total.square().sum() + weights.square().sum()
    if not is_moved:  # the unit alone
        table, *_ = torch.autograd.grad(
            loss, list(network.embeddings.parameters()), allow_unused=True
        )
        assert table is None
        return
    loss.backward()
    (table,) = network.embeddings.tables.values()
    moved = set(table.grad._indices()[0][table.grad._values().abs().sum(1) > 0].tolist())
    offset_of, vocabulary_of = network.embeddings.offset_of, network.embeddings.vocabulary_of
    for name in interests.behaviour.histories:
        start = offset_of[vocabulary_of[name]]
        assert {start + int(i) for i in batch.ids[name]} <= moved


def test_weights_of_attention_are_those_of_the_weighted_sum():
    X = make_impressions(12)
    network, batch = DIN(X.schema), Batch(X)
    weights = network.attention(batch)[CLICKS]
    embeddings, _ = network.embeddings(batch.ids, {})
    queries, keys = network._queries_and_keys(network.interests[0].behaviour, embeddings, batch)
    interest, *_ = network.interests[0](queries, keys, None, batch)
    expected = torch.zeros(12, keys.shape[1])
    expected.index_add_(0, batch.rows[CLICKS], keys * weights[:, None])
    torch.testing.assert_close(interest, expected)


def test_impressions_without_any_event_train():
    X = make_impressions(4, max_length=0)
    network = DIN(X.schema)
    network(Batch(X)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.mlp.parameters())


def test_dice_statistics_are_those_of_real_events():
    X = make_impressions(64)
    network = DIN(X.schema, attention_activation="dice", activation="dice").train()
    network(Batch(X))
    dice = network.interests[0].unit.first_activation
    captured = []
    handle = dice.register_forward_hook(lambda _, inputs, __: captured.append(inputs[0]))
    network(Batch(X))
    handle.remove()
    assert len(captured[0]) == X["hist_item_mask"].sum()


@pytest.mark.parametrize("interest", ["paper", "extended"])
@pytest.mark.parametrize("pooling", ["attention", "sum", "mean", "max"])
@pytest.mark.parametrize("normalization", ["auto", "softmax"])
@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize("make", [make_answers, make_with_numbers])
def test_candidates_of_one_shared_history_equal_rows_of_their_own(
    make, interest, pooling, normalization, is_empty
):
    X = make(16)
    columns, lengths = X.columns, X["hist_item_mask"].sum(axis=1)
    row = lengths.argmin() if is_empty else lengths.argmax()
    repeated = X[np.full(16, row)]
    repeated.columns = columns
    network = DIN(
        X.schema, interest=interest, pooling=pooling, attention_normalization=normalization
    ).eval()
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


def test_training_hides_some_numbers_beside_ids_and_leaves_the_others_as_they_are():
    X = make_impressions(4000)
    network = DIN(X.schema, activation="dice")  # whose MLP is called layer by layer
    price = seen_numbers(network.train(), X)
    hidden = price == 0.0
    assert abs(hidden.mean() - NUMBERS_HIDDEN) < 0.02
    np.testing.assert_array_equal(price[~hidden], X["price"][~hidden])


@pytest.mark.parametrize("interest", ["paper", "extended"])
def test_no_number_is_hidden_at_prediction_in_the_paper_or_without_ids(interest):
    X = make_impressions(500)
    network = DIN(X.schema, interest=interest, activation="dice").train(interest == "paper")
    np.testing.assert_array_equal(seen_numbers(network, X), X["price"])
    alone = EncodedFeatures(Schema((Field("price", "numeric"),)), {"price": X["price"]})
    network = DIN(alone.schema, interest=interest, activation="dice").train()
    np.testing.assert_array_equal(seen_numbers(network, alone), X["price"])


@pytest.mark.parametrize("interest", ["paper", "extended"])
@pytest.mark.parametrize("pooling", ["attention", "sum", "mean", "max"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("make", [make_answers, make_with_numbers])
def test_an_interest_says_how_many_columns_it_gives_the_mlp(make, interest, pooling, shared):
    X = make(7)
    if shared:
        histories = {name: r.take(np.full(7, 1)) for name, r in X.behaviours.items()}
        X = EncodedFeatures(X.schema, X.columns, histories)
    network = DIN(X.schema, interest=interest, pooling=pooling, embedding_dim=3).eval()
    batch = Batch(X, shared=shared)
    embeddings, sums = network.embeddings(batch.ids, network._segments(batch))
    total = len(X.schema.names("numeric")) + 3 + 3  # price, item, category
    for module in network.interest_modules:
        queries, keys = network._queries_and_keys(module.behaviour, embeddings, batch)
        if shared:
            shown, histories = network.read_sides(batch, network.history_readers())
            with torch.no_grad():
                bag = shown.bags.get(module.behaviour.histories)
                if bag is None:
                    outputs = histories[module.behaviour.histories].outputs(shown)
                else:
                    outputs = [bag]
            outputs = [output.expand(7, -1) for output in outputs]  # once for all, or for each
        else:
            outputs = module.outputs(queries, keys, sums.get(module.behaviour.histories), batch)
        assert all(len(output) == 7 for output in outputs)
        assert sum(output.shape[1] for output in outputs) == module.n_outputs
        total += module.n_outputs
    assert network.mlp[0].in_features == total


def test_a_column_named_like_a_joint_behaviour_is_a_behaviour_of_its_own():
    X = make_impressions_with_a_column_named_like_a_behaviour()
    column = ("hist_item+hist_category",)
    network, batch = DIN(X.schema, embedding_dim=4).eval(), Batch(X)
    assert set(batch.rows) == set(batch.offsets) == {CLICKS, column}
    embeddings, sums = network.embeddings(batch.ids, network._segments(batch))
    assert set(sums) == {CLICKS, column}
    for key in (CLICKS, column):
        assert embeddings[key].shape == (X.behaviours[key].spans.lengths.sum(), 4 * len(key))
    weights = network.attention(batch)
    assert {key: len(w) for key, w in weights.items()} == {
        key: X.behaviours[key].spans.lengths.sum() for key in (CLICKS, column)
    }
    before = network(batch)
    for key in (CLICKS, column):
        other = dict(X.behaviours)
        other[key] = X.behaviours[key].take(np.arange(40)[::-1])
        after = network(Batch(EncodedFeatures(X.schema, X.columns, other)))
        assert not torch.allclose(before, after)
