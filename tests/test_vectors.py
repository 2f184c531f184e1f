"""Fixed vectors of items: looked up by ids, projected, and no stranger without an id."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_din import HistorySequenceEncoder, attach_history, export_onnx
from sklearn_din.network.batch import Batch
from sklearn_din.network.interest import FlatEvents
from tests import fitted_pipelines

N_ITEMS, N_DIMS = 40, 6


TABLE = np.random.RandomState(0).normal(size=(N_ITEMS, N_DIMS)) + 3.0
VECTORS = pd.DataFrame(TABLE, columns=[f"v{n}" for n in range(N_DIMS)])
VECTORS["item"] = [f"i{n}" for n in range(N_ITEMS)]


def make_rows():
    """Users click items whose first dimension is high; items from 30 on come up late."""
    rng = np.random.RandomState(1)
    time = np.arange(600)
    number = rng.randint(np.where(time < 400, 30, N_ITEMS))
    y = (TABLE[number, 0] + 0.3 * rng.normal(size=600) > 3).astype(int)
    X = pd.DataFrame({"user": rng.randint(12, size=600), "time": time})
    X["item"] = [f"i{n}" for n in number]
    return attach_history(X, X[y == 1], user="user", time="time", columns=["item"]), y


X, y = make_rows()


def make_model(vectors):
    encoder = HistorySequenceEncoder(user="user", time="time", vectors={"item": vectors})
    return fitted_pipelines.make_model(encoder, max_epochs=3, neighbours=None)


@pytest.fixture(scope="module")
def model():
    return make_model(VECTORS).fit(X[:400], y[:400])


def test_an_embedding_is_its_row_and_its_projected_vector(model):
    encoded = model[:-1].transform(X)
    known = encoded.vectors["item"]
    centred = TABLE - TABLE.mean(0)
    expected = centred / np.sqrt((centred**2).mean())
    own = expected[[int(item[1:]) for item in X["item"]]]
    np.testing.assert_allclose(known.table[known.rows_of(encoded.columns["item"])], own, atol=1e-6)
    batch, module = Batch(encoded[350:450]), model["din"].net_.module_
    with torch.no_grad():
        found = module.embeddings(batch.ids, vectors=batch.vectors)
        rows = module.embeddings(batch.ids)
    for name in ("item", "hist_item"):
        of_ids = batch.vectors.tables["item"][batch.vectors.rows[name]]
        expected = rows[name] + of_ids @ module.embeddings.projections["item"].detach()
        torch.testing.assert_close(found[name], expected)


def test_items_that_came_up_later_are_told_apart_by_their_vectors(model):
    new = X["item"].isin([f"i{n}" for n in range(30, N_ITEMS)])
    click = model.predict_proba(X[new])[:, 1]
    assert np.corrcoef(click, y[new])[0, 1] > 0.5
    without = make_model(None).set_params(encode__vectors=None).fit(X[:400], y[:400])
    assert abs(np.corrcoef(without.predict_proba(X[new])[:, 1], y[new])[0, 1]) < 0.3
    nested = pd.DataFrame({"item": VECTORS["item"], "vector": list(TABLE)})
    again = make_model(nested).fit(X[:400], y[:400])  # a column of arrays says the same
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_newer_frame_knows_items_that_came_up_since(model):
    later = X[-50:].assign(item="brand new")
    row = VECTORS.iloc[[7]].assign(item="brand new")
    newer = copy.deepcopy(model)
    newer.set_params(encode__vectors={"item": pd.concat([VECTORS, row])})
    like = later.assign(item="i7")
    known = newer[:-1].transform(later).vectors["item"]
    rows = known.rows_of(newer[:-1].transform(later).columns["item"])
    expected = known.rows_of(newer[:-1].transform(like).columns["item"])
    np.testing.assert_array_equal(known.table[rows], known.table[expected])
    assert (newer.predict_proba(later) != model.predict_proba(later)).all()
    strangers = newer[:-1].transform(X[-9:].assign(item=[f"stranger {n}" for n in range(9)]))
    assert not known.rows_of(strangers.columns["item"]).any()  # no vector is theirs


def test_likeness_counts_cosines_with_the_candidate_recent_ones_more(model):
    rows = X[300:340]
    batch, module = Batch(model[:-1].transform(rows)), model["din"].net_.module_
    table = TABLE - TABLE.mean(0)
    unit = dict(zip(VECTORS["item"], table / np.linalg.norm(table, axis=1)[:, None], strict=True))
    expected = [
        [
            sum(unit[item] @ unit[e] * decay**age for age, e in enumerate(reversed(events)))
            for decay in (1.0, 0.8)
        ]
        for item, events in zip(rows["item"], rows["hist_item"].tolist(), strict=True)
    ]
    interest = module.interest_modules[0]
    events = FlatEvents(interest, None, torch.zeros(batch.n_events, interest.width), batch)
    found = events.likeness(interest.with_vectors[0]) / events.scale
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_vectors_of_another_model_are_refused(model, tmp_path):
    other = copy.deepcopy(model)
    other.set_params(encode__vectors={"item": VECTORS.drop(columns="v0")})
    with pytest.raises(ValueError, match="must have 6 dimensions as at fit, got 5"):
        other.predict_proba(X)
    other.set_params(encode__vectors=None)
    with pytest.raises(ValueError, match=r"must be given for the columns of ids \['item'\] as at"):
        other.predict_proba(X)
    pytest.importorskip("onnx", reason="needs pip install 'sklearn-din[onnx]'")
    with pytest.raises(TypeError, match="export_onnx needs the whole Pipeline where ids have"):
        export_onnx(model["din"], tmp_path / "model.onnx")
