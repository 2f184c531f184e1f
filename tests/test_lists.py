"""Several values per event: the genres of each past film, and of the candidate."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    EncodedFeatures,
    Field,
    HistorySequenceEncoder,
    Schema,
    attach_history,
    explain,
)
from sklearn_din.features.lists import IdLists
from sklearn_din.network.batch import Batch
from sklearn_din.network.interest import find_same
from tests import fitted_pipelines
from tests.click_frames import same
from tests.network_options import each_network
from tests.padded_network import padded_logits
from tests.tables import as_scan

GENRES = {"f0": ["b", "a"], "f1": ["b"], "f2": ["a", "c", "d"], "f3": [], "f4": None, "f5": ["c"]}
OF_FILM = {film: sorted(genres or []) for film, genres in GENRES.items()}
BEHAVIOUR = ("hist_film", "hist_genres")


def make_clicks():
    """Users click films of their own genre."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"user": rng.randint(9, size=300), "time": np.arange(300)})
    X["film"] = [f"f{n}" for n in rng.randint(6, size=300)]
    X["genres"] = X["film"].map(GENRES)
    taste = np.array(["a", "b", "c"])[X["user"] % 3]
    likes = [own in (genres or []) for own, genres in zip(taste, X["genres"], strict=True)]
    return X, (rng.random_sample(300) < np.where(likes, 0.8, 0.2)).astype(int)


X, y = make_clicks()
NAMES = {"user": "user", "time": "time", "columns": ["film", "genres"]}
SHOWN = attach_history(X, X[y == 1], **NAMES)


def make_model(**parameters):
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=20)
    quick = {"neighbours": None, "early_stopping": False}
    return fitted_pipelines.make_model(encoder, **quick | parameters)


@pytest.fixture(scope="module")
def model():
    return make_model().fit(SHOWN, y)


def through_a_file(frame, read):
    sink = pa.BufferOutputStream()
    frame.to_parquet(sink)
    return read(pa.BufferReader(sink.getvalue()))


def of_cells(make):
    """Change each cell of nested histories that is there."""
    cells = lambda cells: [None if cell is None else make(cell) for cell in cells]  # noqa: E731
    return lambda frame: frame.assign(hist_genres=cells(frame["hist_genres"]))


CHANGES = {
    "lists": of_cells(lambda cell: cell.tolist()),
    "arrays": of_cells(lambda cell: np.array([*cell, 0], dtype=object)[:-1]),
    "Parquet": lambda frame: through_a_file(frame, pd.read_parquet),
    "Arrow": pa.Table.from_pandas,
    "polars": lambda frame: through_a_file(frame, pl.read_parquet),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_nested_histories_of_any_kind_give_the_network_the_same(model, change):
    assert same(clone(model[0]).fit_transform(change(SHOWN), y), model[0].transform(SHOWN))
    np.testing.assert_array_equal(model.predict_proba(change(SHOWN)), model.predict_proba(SHOWN))


@each_network("interest", "pooling")
def test_logits_are_those_of_padded_lists_whose_embeddings_are_averaged(options):
    model = make_model(**options).fit(SHOWN, y)
    X, module = model[:-1].transform(SHOWN), model["din"].net_.module_
    expected = padded_logits(module.eval(), X).detach().numpy()
    np.testing.assert_allclose(model["din"].decision_function(X), expected, atol=1e-5)


def test_lists_are_alike_by_the_values_that_they_share(model):
    rows = pd.concat([SHOWN.iloc[[-1]]] * 6)
    rows["genres"] = [["a", "b"], ["zz", "a"], [None], [], ["zz"], ["zz", None]]
    rows["hist_genres"] = [[["b"], ["b", "b"], ["zz", "b", "a", "c"], [None], [], ["yy", "a"]]] * 6
    rows["hist_film"] = [["f0"] * 6] * 6
    expected = [
        [len({*a} & {*b} - {None}) / (len({*a}) * len({*b}) or 1) ** 0.5 for b in cell]
        for a, cell in zip(rows["genres"], rows["hist_genres"], strict=True)
    ]
    X, module = model[:-1].transform(rows), model["din"].net_.module_
    found = find_same(module.interest_modules[0], Batch(X))[1]
    np.testing.assert_allclose(found.reshape(6, 6), expected, atol=1e-6)


def test_values_that_are_missing_or_not_known_are_unknown_and_an_empty_list_is_zeros(model):
    row = SHOWN.iloc[[-1]]

    def vector(genres):
        X = model[:-1].transform(row.assign(genres=[genres]))
        batch = Batch(X)
        module = model["din"].net_.module_
        return module.embeddings(batch.ids, lists=batch.lists)["genres"][0].detach()

    of_a = vector(["a"])
    assert (vector([]) == 0).all()
    assert (vector(None) == 0).all()
    assert (of_a != 0).any()
    unknown = model["din"].net_.module_.embeddings.weight("genres")[1].detach()
    for other in (["a", "zz"], ["a", None]):
        torch.testing.assert_close(vector(other), (of_a + unknown) / 2)


def test_histories_of_scans_train_the_same_network(model, tmp_path):
    pytest.importorskip("duckdb", reason="needs pip install 'sklearn-din[large]'")
    rows = as_scan(X.assign(y=y), tmp_path, group=64, target="y")
    events = as_scan(X[y == 1], tmp_path, group=32)
    scan = attach_history(rows, events, **NAMES)
    streamed = make_model().fit(scan, scan.target_)
    found = streamed.predict_proba(SHOWN)
    np.testing.assert_allclose(found, model.predict_proba(SHOWN), atol=1e-6)
    encoded, expected = (streamed[:-1].transform(table) for table in (scan, SHOWN))
    np.testing.assert_array_equal(encoded["hist_genres"], expected["hist_genres"])
    n_lists = len({tuple(genres or ()) for genres in GENRES.values()})
    assert len(encoded.behaviours[BEHAVIOUR].columns["hist_genres"].distinct) == n_lists


def test_explained_events_show_the_values(model):
    for by in ("weight", "leave_out"):
        table = explain(model, SHOWN[-5:], by=by)
        assert len(table)
        assert table["hist_genres"].tolist() == [OF_FILM[film] for film in table["hist_film"]]
    options = NAMES | {"columns": ["film"], "prefix": "a_", "max_length": 3}
    both = attach_history(attach_history(X, X[y == 1], **options), X, **NAMES)
    table = explain(make_model(max_epochs=1).fit(both, y), both[-1:])
    assert table["a_film"].tolist() == [*both["a_film"].iloc[-1], *[None] * (len(table) - 3)]
    expected = [OF_FILM[film] for film in table["hist_film"][3:]]
    assert table["hist_genres"].tolist() == [None] * 3 + expected


def test_shifts_and_unknown_values_of_lists_are_reported(model):
    later = SHOWN.assign(genres=[["a", "zz"]] * 300)
    report = model["encode"].report(later)
    assert report.loc["genres", "unknown"] == 0.5
    assert report.loc["genres", "shift"] > 0.25
    assert report.loc["hist_genres", "unknown"] == 0.0


def test_single_values_and_vectors_in_place_of_lists_are_refused(model):
    vectors = {"genres": pd.DataFrame({"genres": ["a"], "v": [0.5]})}
    with pytest.raises(ValueError, match=r"column of ids of X, which are \['film', 'hist_film'\]"):
        HistorySequenceEncoder(drop=["user", "time"], vectors=vectors).fit(SHOWN)
    with pytest.raises(ValueError, match="genres, hist_genres hold a list of ids for"):
        model[:-1].transform(SHOWN).to_numpy()
    schema = Schema((Field("genres", "list", "genres", 5),))
    with pytest.raises(ValueError, match="genres must hold list of ids, got"):
        EncodedFeatures(schema, {"genres": np.array([2], dtype=np.int32)})
    lists = IdLists.from_lengths(np.array([1]), np.array([5], dtype=np.int32))
    with pytest.raises(ValueError, match=r"genres must lie in range\(0, 5\)"):
        EncodedFeatures(schema, {"genres": lists})
    with pytest.raises(ValueError, match="hist_genres holds one value for each event, such as 'f"):
        model.predict_proba(SHOWN.assign(hist_genres=SHOWN["hist_film"].tolist()))
    with pytest.raises(ValueError, match=r"hist_film holds a list of values .* such as \['"):
        model.predict_proba(SHOWN.assign(hist_film=SHOWN["hist_genres"].tolist()))
    empty = model.predict_proba(SHOWN.assign(hist_film=[[]] * 300, hist_genres=[[]] * 300))
    missing = model.predict_proba(SHOWN.assign(hist_film=None, hist_genres=None))
    np.testing.assert_array_equal(empty, missing)


def test_events_that_are_lists_alone_are_learnt():
    frame = pd.DataFrame({"item": [("hat", "red"), ("tie",)] * 8})
    frame["hist_item"] = [[("hat",), ("tie", "red")], [], [("tie",)], [("hat", "red")]] * 4
    model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=2, random_state=0))
    p = model.fit(frame, [1, 0, 0, 1] * 4).predict_proba(frame)[:, 1]
    assert np.isfinite(p).all()
    assert len(np.unique(p)) > 2
