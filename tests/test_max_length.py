"""How many events attention reads where nobody says: those of nearly every training row."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_din import HistorySequenceEncoder, Ranker, export_onnx, load, load_onnx, save
from sklearn_din.encoding.facts import CUT, LENGTHS
from tests.click_frames import with_windows
from tests.fitted_pipelines import make_model
from tests.tables import FORMS, as_scan

HISTORIES = "hist_item", "buy_item", "tags"
PARTS = partial(as_scan, group=9, memory="200KB")
each_form = pytest.mark.parametrize("form", [FORMS["frame"], FORMS["polars"], as_scan, PARTS])


def encoder_of(**parameters):
    return HistorySequenceEncoder(user="user", time="time", **parameters)


def of_all(**parameters):
    return encoder_of(histories={"tags": None}, **parameters)


def with_lengths(*lengths, seed=0):
    """Rows whose histories have so many events each, items known to candidates alone."""
    rng, n = np.random.RandomState(seed), len(lengths[0])
    columns = {"user": np.arange(n), "time": np.arange(n), "item": np.arange(n) % 40}
    for name, each in zip(HISTORIES, lengths, strict=False):
        columns[name] = [rng.randint(40, size=length) for length in each]
    return pd.DataFrame(columns)


def long_rows(n=180, seed=0):
    """Clicks of up to 190 events and once 450, a third of them none; purchases, few; tags."""
    rng = np.random.RandomState(seed)
    clicks = rng.randint(190, size=n) * (np.arange(n) % 3 > 0)
    clicks[-1] = 450
    return with_lengths(clicks, rng.randint(90, size=n), rng.randint(4, size=n), seed=seed)


def slow_length(cells):
    lengths = np.array([len(cell) for cell in cells if len(cell)])
    for most in LENGTHS[:-1]:
        if not len(lengths) or np.mean(lengths > most) <= CUT:
            return most
    return LENGTHS[-1]


def fitted_lengths(encoder):
    return {b.histories[0]: b.max_length for b in encoder.schema_.behaviours}


@each_form
def test_each_behaviour_keeps_what_nearly_all_rows_have(form, tmp_path):
    X = long_rows()
    expected = {name: slow_length(X[name]) for name in HISTORIES}
    assert expected == {"hist_item": 200, "buy_item": 100, "tags": 50}
    encoder = of_all()
    encoded = encoder.fit_transform(form(X, folder=tmp_path))
    assert fitted_lengths(encoder) == expected
    for name, most in expected.items():
        held = np.minimum(X[name].map(len), most).tolist()
        assert encoded.behaviours[(name,)].spans.lengths.tolist() == held
    assert len(encoder.get_feature_names_out()) == encoded.shape[1] == 1 + sum(expected.values())
    assert encoder.fit_transform(X).to_numpy().shape == encoded.shape


@pytest.mark.parametrize(("lengths", "expected"), [
    ([0] * 40, 50),
    ([0] * 39 + [200], 200),  # rows without events say nothing
    ([60] * 99 + [900], 100),
    ([60] * 98 + [900] * 2, 1_000),
    ([501] * 40, 1_000),
    ([3_000] * 40, 1_000),
])  # fmt: skip
def test_the_first_length_that_nearly_no_row_exceeds(lengths, expected):
    frame = with_lengths(lengths)
    encoder = encoder_of()
    if any(lengths):
        encoder.fit(frame)
    else:
        with pytest.warns(UserWarning, match="every history of hist_item is empty at fit"):
            encoder.fit(frame)
    assert fitted_lengths(encoder) == {"hist_item": expected}
    assert slow_length(frame["hist_item"]) == expected


@each_form
def test_who_attaches_as_before_has_what_there_was(form, tmp_path):
    X = form(with_windows(n_events=300, n_users=3, columns=["item"]), folder=tmp_path)
    schema, before = (encoder_of(**way).fit(X).schema_ for way in ({}, {"max_length": 50}))
    assert schema == before


def test_later_rows_do_not_change_it():
    encoder = of_all().fit(long_rows())
    before = fitted_lengths(encoder)
    encoder.partial_fit(with_lengths([700] * 50, [0] * 50, [0] * 50))
    assert fitted_lengths(encoder) == before


@pytest.mark.parametrize("max_length", [50, 200, "auto"])
def test_item_neighbours_are_told_of_as_many_events_as_ever(max_length):
    X = with_lengths([1_300, 3, 0, 70, 999, 1_000, 1_001] * 9)
    encoder = encoder_of(max_length=max_length)
    ragged = encoder.fit_transform(X).behaviours[("hist_item",)]
    events = ragged.columns["hist_item"][ragged.whole.index()]
    newest = [cell[-1_000:] for cell in X["hist_item"]]
    assert ragged.whole.lengths.tolist() == [len(cell) for cell in newest]
    assert encoder.inverse_transform_ids("hist_item", events).tolist() == [*np.concatenate(newest)]


X = long_rows()
y = (X["item"] % 2).to_numpy()


@pytest.fixture(scope="module")
def model():
    return make_model(of_all(), neighbours="time", early_stopping=False).fit(X, y)


def test_the_summary_says_it(model):
    for name, n_events in fitted_lengths(model[0]).items():
        lines = [x for x in model[1].summary().splitlines() if x.startswith(name)]
        (line,) = [x for x in lines if "newest" in x]
        assert line.endswith(f"newest {n_events} events")


def test_copies_and_files_have_it(model, tmp_path):
    save(model, tmp_path / "model.din")
    expected = model.predict_proba(X)
    for copy in (pickle.loads(pickle.dumps(model)), load(tmp_path / "model.din")):
        assert copy[0].get_params()["max_length"] == "auto"
        assert fitted_lengths(copy[0]) == fitted_lengths(model[0])
        np.testing.assert_array_equal(copy.predict_proba(X), expected)
    assert clone(model[0]).max_length == "auto"


@pytest.mark.parametrize("layout", ["rows", "ranking"])
def test_rankings_and_onnx_files_cut_where_the_model_does(model, layout, tmp_path):
    longest = X["hist_item"].map(len).argmax()
    assert len(X["hist_item"][longest]) > fitted_lengths(model[0])["hist_item"]
    export_onnx(model, tmp_path / "model.onnx", layout=layout)
    loaded, shown = load_onnx(tmp_path / "model.onnx"), X[["item"]].drop_duplicates()
    user = X.drop(columns="item").iloc[longest]
    pairs = shown.assign(**{name: [user[name]] * len(shown) for name in user.index})
    expected = model.predict_proba(pairs.drop(columns="time"))[:, 1]  # of now, as rankings are
    for found in (model, loaded):
        best = Ranker(found, shown).rank(user, top_k=99).sort_values("item")["probability"]
        np.testing.assert_allclose(best, expected[shown["item"].argsort()], atol=2e-6)


def test_a_search_over_it():
    model = make_model(of_all(), neighbours=None, early_stopping=False, max_epochs=1)
    search = GridSearchCV(model, {"encode__max_length": ["auto", 5]}, cv=2).fit(X, y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
