"""Batches made together are those made one by one."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sklearn_din import EncodedFeatures, Field, Schema
from sklearn_din.features import Behaviour, Ragged
from sklearn_din.features.lists import IdLists
from sklearn_din.features.vectors import Vectors
from sklearn_din.network.batch import Batch, JointRows, rows_of_rank
from sklearn_din.training import batches
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.novelty import Novelty, ShownRows
from tests.encoded_impressions import make_prices

N = 200
NOVELTY = Novelty({}, {"item": np.arange(12) * 15}, reach=50, start=20, n_rows=N)


def make_numbers():
    X = make_prices(N)
    X.positions = np.arange(N, dtype=np.int32) % 5
    return X


def make_lists():
    """Lists of ids, and ids with fixed vectors."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, N)
    ids = rng.integers(0, 3, lengths.sum()), rng.integers(2, 9, 999, dtype=np.int32)
    events = IdLists.from_lengths(*ids)
    fields = (
        Field("genres", "list", "genre", 9),
        Field("item", "categorical", "item", 12, n_dims=1),
        Field("hist_genres", "list_history", "genre", 9),
    )
    clicks = Behaviour("clicks", ("hist_genres",), ("genres",), max_length=3)
    genres = IdLists.from_lengths(np.full(N, 2), rng.integers(2, 9, 2 * N, dtype=np.int32))
    none = np.zeros(0, dtype=np.int32)
    return EncodedFeatures(
        Schema(fields, (clicks,)),
        {"genres": genres, "item": rng.integers(1, 12, N, dtype=np.int32)},
        {("hist_genres",): Ragged.from_lengths({"hist_genres": events}, lengths)},
        vectors={"item": Vectors(np.ones((12, 1), "float32"), np.arange(12), none, none)},
    )


def tensors_of(batch):
    """All that a network reads of a batch."""
    groups = [batch.identities, batch.lists, batch.event_numbers, batch.differences, batch.offsets]
    tensors = {str(name): value for group in groups for name, value in group.items()}
    tensors |= {f"vector {n}": values for group in batch.vectors for n, values in group.items()}
    rows = {f"rows {name}": rows for name, rows in batch.rows.items()}
    own = {"numbers": batch.numbers, "positions": batch.positions, "weights": batch.weights}
    return tensors | rows | own


def assert_equal(batch, expected):
    assert (len(batch), batch.joint) == (len(expected), expected.joint)
    assert batch.n_events_of == expected.n_events_of
    own, theirs = tensors_of(batch), tensors_of(expected)
    torch.testing.assert_close(own, theirs, rtol=0, atol=0, equal_nan=True)
    for name in expected.X:
        np.testing.assert_array_equal(batch.X[name], expected.X[name])


@pytest.mark.parametrize(("make", "pool", "n_ranks", "made_ahead"), [  # all pairs of values
    (make_numbers, None, 1, 1), (make_lists, 60, 2, 1),
    (make_numbers, 60, 1, 100), (make_lists, None, 2, 100),
    (make_numbers, 60, 2, 10_000), (make_lists, None, 1, 10_000),
])  # fmt: skip
def test_batches_made_together_are_those_made_singly(make, pool, n_ranks, made_ahead, monkeypatch):
    monkeypatch.setattr(batches, "MADE_AHEAD", made_ahead)
    monkeypatch.setattr(batches, "VALUES_PER_GATHER", 500)
    monkeypatch.setattr(batches, "rows_per_pool", lambda X: pool)
    X, y, weights = make(), np.arange(N, dtype=np.float32), np.linspace(1, 2, N, dtype=np.float32)
    shown = ShownRows(NOVELTY, np.arange(N))
    order = np.random.RandomState(0)
    made = ImpressionBatches(X, y, weights, batch_size=9, shuffle=order, shown=shown)
    made.share_among(n_ranks, rank=n_ranks - 1)
    for number, (batch, labels) in enumerate(made):
        rows, random = labels.numpy().astype(int), np.random.RandomState(made._seed + number)
        until = NOVELTY.draw_cutoffs(rows, random)
        own = rows_of_rank(len(rows), n_ranks - 1, n_ranks)
        joint = None if n_ranks == 1 else JointRows(own.start, len(rows))
        alone = NOVELTY.hide(X[rows], until)[own]
        assert_equal(batch, Batch(alone, weights[rows[own]], joint=joint))
    assert number == (N - 1) // 9


@pytest.mark.parametrize("make", [make_numbers, make_lists])
def test_a_part_of_a_batch_is_the_batch_of_its_rows(make):
    X, weights, ends = make(), np.linspace(1, 2, N, dtype=np.float32), [0, 50, 50, 120, N]
    batch = Batch(X, weights, joint=JointRows(7, 999))
    tensors_of(batch)  # found before it is cut
    for (start, stop), part in zip(pairwise(ends), batch.cut(ends), strict=True):
        joint = JointRows(7 + start, 999)
        assert_equal(part, Batch(X[start:stop], weights[start:stop], joint=joint))
    assert batch.cut([0, N]) == [batch]
