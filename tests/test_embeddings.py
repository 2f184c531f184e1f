"""Look-ups against plain indexing: numbers, sums, and the gradient of every way to use them."""

import pytest
import torch

from sklearn_din.network.batch import Batch
from sklearn_din.network.embeddings import FieldEmbeddings
from sklearn_din.network.segments import Segments, sum_events
from tests.encoded_impressions import make_impressions, make_schema

CLICKS = ("hist_item", "hist_category")


def plain(embeddings, ids, segments):
    """The same by indexing a table for each field."""

    def rows(name):
        return embeddings.weight(embeddings.vocabulary_of[name])[ids[name].long()]

    found = {slot: torch.cat([rows(n) for n in slot], 1) for slot in embeddings.slots}
    sums = {slot: sum_events(found[slot], *its) for slot, its in segments.items()}
    return found, sums


@pytest.fixture
def batch():
    return Batch(make_impressions(32))


@pytest.mark.parametrize("width", [4, {"item": 6, "category": 2, "tags": 3}])
@pytest.mark.parametrize("used", ["events", "sums", "events and sums", "candidates"])
def test_look_ups_equal_plain_indexing_in_numbers_and_gradients(batch, width, used):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embeddings = FieldEmbeddings(make_schema(), width)
    (behaviour, tags) = make_schema().behaviours
    names = [*embeddings.slots_of(behaviour), *embeddings.slots_of(tags)]
    asked = {} if used == "candidates" else dict.fromkeys(names[:-1], segments_of(batch, CLICKS))
    asked |= {} if used == "candidates" else {("tags",): segments_of(batch, ("tags",))}
    ours, theirs = embeddings(batch.ids, asked), plain(embeddings, batch.ids, asked)
    assert [by_slot.keys() for by_slot in ours] == [by_slot.keys() for by_slot in theirs]
    gradients = []
    for found, sums in (ours, theirs):
        values = [found[("item",)]]
        values += [found[name] for name in names if "events" in used]
        values += [sums[name] for name in names if "sums" in used]
        loss = sum(value.sin().sum() for value in values)
        tables = list(embeddings.parameters())
        gradients.append(torch.autograd.grad(loss, tables, allow_unused=True))
    for mine, expected in zip(*gradients, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            torch.testing.assert_close(mine.to_dense(), expected)
    for found, expected in zip(ours, theirs, strict=True):
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


def segments_of(batch, name):
    return Segments(batch.rows[name], batch.offsets[name])
