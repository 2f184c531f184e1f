"""An unknown value is known again where it comes back, and no table is ever asked for it."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, explain, update
from sklearn_din.features.event_table import WITHOUT_WEIGHTS
from sklearn_din.features.identities import identify, is_identity
from sklearn_din.neighbours import pairs
from sklearn_din.neighbours.tables import learn_neighbours
from sklearn_din.network.batch import Batch
from sklearn_din.network.interest import find_same
from sklearn_din.resilient.fingerprint import digests_of
from tests.encoded_impressions import make_impressions, make_labels, weights_of
from tests.network_options import networks


def rows(items, histories, **columns):
    return pd.DataFrame({"item": items, "hist_item": histories, **columns})


def counts_of(X):
    """How many events of each impression have the candidate's id, as the network finds them."""
    model = DINClassifier(max_epochs=1, batch_size=50, random_state=0)
    interest = model.fit(X, np.arange(len(X)) % 2).module_.interest_modules[0]
    batch = Batch(X)
    (same,) = find_same(interest, batch)
    lengths = batch.offsets[interest.behaviour.histories].diff()
    return [int(part.sum()) for part in same.split(lengths.tolist())]


def test_identities_are_those_of_the_text_the_same_in_every_process():
    values = np.array(["boot", "7", 7, "ä\ud800", -3, True], dtype=object)
    ids = identify(values)
    expected = [-1101936223, -1648854508, -1430304126, -1250181426, -1641862906, -1647385677]
    assert ids.tolist() == expected
    assert is_identity(ids).all()
    assert not is_identity(np.array([-(2**30), -2, 0, 1, 2**31 - 1], dtype=np.int32)).any()


def test_equal_unknown_values_match_and_others_do_not_and_missing_ones_match_nothing():
    encoder = HistorySequenceEncoder().fit(rows(["a", "b"], [["b"], ["a"]]))
    X = encoder.transform(
        rows(
            ["new", "new", None, "a", "new"],
            [["new", "a", "new"], ["newer", None], [None, "a"], ["new", "a"], []],
        )
    )
    assert counts_of(X) == [2, 0, 0, 1, 0]
    encoder = HistorySequenceEncoder().fit(rows([1, 2], [[2], [1]]))
    X = encoder.transform(rows([12, 13], [["12", "012"], ["13", "12"]]))
    assert counts_of(X) == [1, 1]  # integers and the text that spells them are one
    rare = rows(["a", "a", "rare"], [["a"], ["rare", "a"], ["rare", "rarer"]])
    for limit in ({"min_frequency": 4}, {"max_ids": 1}):  # too rare for an id, at fit too
        assert counts_of(HistorySequenceEncoder(**limit).fit_transform(rare)) == [1, 1, 1]


def test_public_reading_gives_one_and_explanations_none(model):
    encoder = HistorySequenceEncoder().fit(rows(["a", "b"], [["b"], ["a"]]))
    X = encoder.transform(rows(["new", "a"], [["a", "newer"], []]))
    assert X["item"].tolist() == [1, 2]
    assert X["hist_item"].tolist() == [[2, 1], [0, 0]]
    assert X.to_numpy()[0].tolist()[:3] == [1, 2, 1]
    smallest = {name: X[name].min() for name in X if name != "hist_item_mask"}
    assert smallest == {"item": 1, "hist_item": 0}
    assert encoder.inverse_transform_ids("item", X.columns["item"]).tolist() == [None, "a"]
    copied = pickle.loads(pickle.dumps(X))
    assert copied["item"].tolist() == [1, 2]
    assert copied.columns["item"].tolist() == X.columns["item"].tolist()
    fresh = rows(["fresh"], [["fresh", "i1"]])
    assert explain(model, fresh)["hist_item"].tolist() == [None, "i1"]
    table = model[1].attention_weights(model[0].transform(fresh))
    known = model[0].transform(rows(["i1"], [[]]))["item"][0]
    assert table["hist_item"].tolist() == [1, known]


def with_identities(n=200, seed=0):
    """Impressions with unknown ids, and the same told apart: no event equals its candidate."""
    plain, told = (make_impressions(n, seed=seed) for _ in range(2))
    plain.times = told.times = np.arange(n)
    plain.users = told.users = np.arange(n) % 20

    def tell(ids, first):
        unknown = np.flatnonzero(ids == 1)
        ids[unknown] = identify(np.arange(first, first + len(unknown)))

    tell(told.columns["item"], 0)
    tell(told.columns["category"], 1000)
    for behaviour, ragged in told.behaviours.items():
        for number, name in enumerate(behaviour):
            tell(ragged.columns[name], (2 + number) * 10_000)
    assert all((told.columns[name] < 0).any() for name in ("item", "category"))
    return plain, told


@pytest.mark.parametrize("parameters", [
    *networks("pooling", "interest"),
    {"neighbours": None, "early_stopping": "auto"},
    {"embedding_dim": {"item": 4, "category": 8, "tags": 4}, "neighbours": "user"},
    {"early_stopping": True, "validation": "random"},
    {"early_stopping": True, "embedding_l2": 0.0},
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:in .* of the pairs:UserWarning")  # histories are drawn
@pytest.mark.filterwarnings("ignore:the validation rows hardly follow:UserWarning")  # and labels
def test_identities_that_match_nothing_change_no_bit_of_any_path(parameters):
    plain, told = with_identities()
    y = make_labels(plain)
    quick = {"max_epochs": 2, "batch_size": 50, "random_state": 0, "early_stopping": False}
    models = [DINClassifier(**quick | parameters).fit(X[:160], y[:160]) for X in (plain, told)]
    for learn in (False, True):
        if learn:
            models = [
                update(model, X[160:], y[160:])
                for model, X in zip(models, (plain, told), strict=True)
            ]
        for X in (plain[160:], told[160:], plain[np.zeros(40, int)], told[np.zeros(40, int)]):
            assert np.array_equal(models[0].predict_proba(X), models[1].predict_proba(X))
        if parameters.get("pooling") not in WITHOUT_WEIGHTS:
            tables = [models[0].attention_weights(X) for X in (plain, told)]
            pd.testing.assert_frame_equal(*tables)
    weights = list(map(weights_of, models))
    assert torch.equal(*weights)
    assert models[0].novelty_ == models[1].novelty_
    for name, counts in models[0].net_.occurrences_.items():
        assert np.array_equal(counts, models[1].net_.occurrences_[name])


def test_item_neighbours_are_the_same_with_identities_and_fingerprints_are_not(monkeypatch):
    monkeypatch.setattr(pairs, "LEAST_ITEMS", 3)
    plain, told = with_identities()
    y = make_labels(plain)
    numbers = []
    for X in (plain, told):
        tables, numbered = learn_neighbours(X, y == 1, order="time")
        made = [numbered, tables.add_to(X)]
        numbers.append([m[name] for m in made for name in m.schema.names("numeric")])
    assert len(numbers[0]) > 20
    assert all(np.array_equal(*pair) for pair in zip(*numbers, strict=True))
    plain, told = digests_of(plain), digests_of(told)
    assert plain["item"] != told["item"]
    assert plain["the schema"] == told["the schema"]


def sold(n=240, seed=0):
    """A log whose labels mostly say whether the candidate stands in the history."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 5, n)
    pasts = [rng.integers(0, 5, size).tolist() for size in rng.integers(0, 7, n)]
    frame = rows([f"i{i}" for i in items], [[f"i{i}" for i in past] for past in pasts])
    again = np.array([i in past for i, past in zip(items, pasts, strict=True)])
    return frame, np.where(rng.random(n) < 0.2, ~again, again).astype(int)


@pytest.fixture(scope="module")
def model():
    classifier = DINClassifier(max_epochs=3, batch_size=40, lr=0.02, random_state=0)
    return make_pipeline(HistorySequenceEncoder(), classifier).fit(*sold())


def new(frame):
    histories = [[f"new {item}" for item in past] for past in frame["hist_item"]]
    return rows("new " + frame["item"], histories)


def test_an_onnx_file_knows_a_new_item_again(model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from sklearn_din import export_onnx, load_onnx

    export_onnx(model, tmp_path / "model.onnx")
    loaded = load_onnx(tmp_path / "model.onnx")
    further = rows(["fresh", "fresh", None], [["fresh", "fresh"], ["other", "i1"], [None, "i1"]])
    frame = pd.concat([new(sold(40, seed=2)[0]), further], ignore_index=True)
    expected = model.predict_proba(frame)[:, 1]
    assert expected[-3] > expected[-2] + 0.1
    np.testing.assert_allclose(loaded.predict_proba(frame)[:, 1], expected, atol=1e-6)
