"""The server answers plain values as the Pipeline answers frames, and says what it cannot read."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline, make_pipeline

from sklearn_din.estimator import DINClassifier
from sklearn_din.features import schema
from sklearn_din.serving import OnnxServer, onnx_server
from sklearn_din.serving.export import export_onnx
from sklearn_din.serving.ranking import Ranker
from sklearn_din.transformers import HistorySequenceEncoder
from tests.click_frames import as_lists
from tests.fitted_pipelines import attach_clicks

WHY = "needs onnx and onnxruntime: pip install 'sklearn-din[onnx]'"
onnx = pytest.importorskip("onnx", reason=WHY)
pytest.importorskip("onnxruntime", reason=WHY)

HOUSE = Path(__file__).resolve().parents[1]
HISTORIES = {("hist_item", "hist_category", "hist_price"): ("item", "category", None), "tags": None}


def make_frame(n_users=30, seed=0):
    """Text ids, integer ids, booleans, numbers with gaps, histories with numbers, split text."""
    frame, y = attach_clicks(
        n_users=n_users, n_items=40, n_categories=5, mean_length=5, random_state=seed
    )
    rng = np.random.default_rng(seed)
    lengths = frame["hist_item"].map(len)
    frame["item"] = "i" + frame["item"].astype(str)
    frame["hist_item"] = [[f"i{item}" for item in cell] for cell in frame["hist_item"]]
    frame["hist_category"] = [list(map(int, cell)) for cell in frame["hist_category"]]
    frame["hist_price"] = [rng.normal(5, 2, n).tolist() for n in lengths]
    frame["tags"] = [["", "red", "red | new", None][row % 4] for row in range(len(frame))]
    frame["is_new"] = rng.random(len(frame)) < 0.5
    frame["price"] = frame["price"].where(frame["category"] != 2)
    frame["age"] = rng.normal(40, 10, len(frame))
    return frame.drop(columns=["user", "time"]), y


@pytest.fixture(scope="module")
def pipeline():
    encoder = HistorySequenceEncoder(histories=HISTORIES, separator="|", max_length=6)
    classifier = DINClassifier(max_epochs=2, lr=0.02, random_state=0)
    return Pipeline([("encode", encoder), ("din", classifier)]).fit(*make_frame())


@pytest.fixture(scope="module")
def path(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(pipeline, path)
    return path


@pytest.fixture(scope="module")
def server(path):
    return OnnxServer(path)


@pytest.fixture
def row():
    return {
        "item": "i3", "category": 1, "price": 4.5, "device": "phone", "is_new": True, "age": 30,
        "hist_item": ["i1", "i3"], "hist_category": [2, 1], "hist_price": [1.0, None],
        "tags": "red|new",
    }  # fmt: skip


def assert_served(server, rows, pipeline, frame):
    expected = pipeline.predict_proba(frame)[:, 1]
    np.testing.assert_allclose(server.predict(rows), expected, rtol=0, atol=1e-5)


def test_the_server_answers_plain_dictionaries_as_the_pipeline_answers_frames(server, pipeline):
    frame, _ = make_frame(n_users=20, seed=3)
    frame.loc[:5, "item"] = "never seen"
    frame.loc[6:9, "item"] = None
    frame["hist_item"] = [[*cell[:-1], None] if cell else cell for cell in frame["hist_item"]]
    assert (frame["hist_item"].map(len) > 6).any()
    rows = json.loads(frame.to_json(orient="records"))
    assert_served(server, rows, pipeline, frame)
    for number in range(3):
        assert_served(server, rows[number : number + 1], pipeline, frame[number : number + 1])


@pytest.fixture(scope="module")
def ranking_server(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "ranking.onnx"
    export_onnx(pipeline, path, layout="ranking")
    return OnnxServer(path)


OF_CANDIDATES = ["item", "category", "price", "is_new"]


@pytest.mark.parametrize("bag", ["user's", "candidate's"])
def test_a_user_and_candidates_are_ranked_as_by_the_pipeline(ranking_server, pipeline, bag):
    frame, _ = make_frame(n_users=20, seed=3)
    frame.loc[frame.index[::7], "item"] = "never seen"
    frame.loc[frame.index[3::9], "item"] = None
    names = [*OF_CANDIDATES, "tags"][: 4 + (bag == "candidate's")]
    shown = frame[names].drop_duplicates("item")
    longest = frame["hist_item"].map(len).argmax()
    assert len(frame["hist_item"].iloc[longest]) > 6
    users = json.loads(frame.drop(columns=names).to_json(orient="records"))
    for number in (0, 5, longest):
        user = users[number] | {"unused": 3}
        if user["hist_item"]:
            user["hist_item"] = ["never seen", *user["hist_item"][1:]]
        pairs = pd.DataFrame([user] * len(shown)).drop(columns="unused")
        pairs = pairs.assign(**{name: shown[name].to_numpy() for name in names})
        expected = pipeline.predict_proba(pairs[list(frame)])[:, 1]
        for candidates in (shown.to_dict("list"), json.loads(shown.to_json(orient="records"))):
            positions, probability = ranking_server.rank(user, candidates, top_k=1000)
            np.testing.assert_array_equal(np.sort(positions), np.arange(len(shown)))
            np.testing.assert_allclose(probability, expected[positions], rtol=0, atol=1e-5)
            assert (np.diff(probability) <= 0).all()
        best, top = ranking_server.rank(user, shown.to_dict("list"), top_k=3)
        np.testing.assert_array_equal(best, positions[:3])
        np.testing.assert_array_equal(top, probability[:3])


def test_no_candidate_gives_no_place(ranking_server, row):
    for candidates in ([], {"item": [], "category": [], "price": [], "is_new": []}):
        user = {name: value for name, value in row.items() if name not in OF_CANDIDATES}
        positions, probability = ranking_server.rank(user, candidates)
        assert (len(positions), len(probability)) == (0, 0)


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda u, c: (u | {"item": "i3"}, c), r"got \['item'\] in both"),
        (lambda u, c: (u, {"items": c["item"]}), "every candidate would score the same"),
        (lambda u, c: (u, {"item": c["item"]}), r"user must have the keys .* got none of \['cat"),
        (
            lambda u, c: ({}, c | {n: [[]] for n in u if n not in c}),
            r"histories are the user's, got \['hist_item', 'hist_category', 'hist_price'\] among",
        ),
        (lambda u, c: (u, c | {"price": [1.0, 2.0]}), "one value per row, got lengths"),
    ],
)
def test_what_is_the_users_and_what_the_candidates_is_said(ranking_server, row, move, message):
    user = {name: value for name, value in row.items() if name not in OF_CANDIDATES}
    with pytest.raises(ValueError, match=message):
        ranking_server.rank(*move(user, {name: [row[name]] for name in OF_CANDIDATES}))


@pytest.mark.parametrize("top_k", [-1, 0, True, 2.5, "3"])
def test_places_are_a_number_as_for_a_ranker(ranking_server, row, top_k):
    of_user = {name: value for name, value in row.items() if name not in OF_CANDIDATES}
    candidates = {name: [row[name]] for name in OF_CANDIDATES}
    with pytest.raises(ValueError, match=f"top_k must be an integer of at least 1, got {top_k!r}"):
        ranking_server.rank(of_user, candidates, top_k=top_k)


def test_each_layout_has_its_method(server, ranking_server, row):
    with pytest.raises(ValueError, match="predict needs a file of the layout 'rows', got 'rank"):
        ranking_server.predict([row])
    with pytest.raises(ValueError, match="rank needs a file of the layout 'ranking', got 'rows'"):
        server.rank(row, {"item": ["i3"]})


def test_item_neighbours_and_older_events_reach_a_ranking(tmp_path):
    frame, y = attach_clicks(n_users=80, n_items=70, n_categories=5, mean_length=9, random_state=0)
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=4)
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, random_state=0)).fit(frame, y)
    assert model[-1].net_.neighbours_.pairs
    export_onnx(model, tmp_path / "model.onnx", layout="ranking")
    server, of_candidates = OnnxServer(tmp_path / "model.onnx"), ["item", "category", "price"]
    shown = frame[of_candidates].drop_duplicates("item")[:40]
    lengths = frame["hist_item"].map(len).to_numpy()
    for number in (lengths.argmin(), lengths.argmax(), 100):
        user = frame.drop(columns=of_candidates).iloc[number].to_dict()
        expected = Ranker(model, shown).rank(user, top_k=40)
        _, probability = server.rank(user, shown.to_dict("list"), top_k=40)
        np.testing.assert_allclose(probability, expected["probability"], rtol=0, atol=1e-5)


def test_a_dictionary_of_columns_is_read_as_rows_are(server, pipeline):
    frame, _ = make_frame(n_users=8, seed=4)
    assert_served(server, frame.to_dict("list"), pipeline, frame)
    assert_served(server, {name: frame[name] for name in frame}, pipeline, frame)
    arrays = {name: frame[name].to_numpy() for name in frame} | {"title": None}
    assert_served(server, arrays, pipeline, frame)
    assert server.predict([]).shape == (0,)
    assert server.predict({name: [] for name in server.columns_}).shape == (0,)


def test_the_server_says_what_it_needs_and_what_it_answers(server, pipeline):
    assert server.classes_ == pipeline.classes_.tolist()
    assert set(server.columns_) == set(pipeline.feature_names_in_)
    assert server.predict([dict.fromkeys(server.columns_)]).dtype == np.float32


def test_a_row_without_anything_is_served(server, pipeline):
    frame, _ = make_frame()
    blank = frame.head(1).astype(object).copy()
    blank.loc[:, :] = None
    blank = blank.astype({"price": float, "age": float})
    for missing in (None, float("nan"), np.float32("nan"), np.float16("nan"), pd.NA, pd.NaT):
        assert_served(server, [dict.fromkeys(server.columns_, missing)], pipeline, blank)


def ids_pipeline(values, tmp_path):
    """A Pipeline and a server of one column of ids, and a number that tells rows apart."""
    frame = pd.DataFrame({"id": values, "price": np.linspace(0, 1, len(values))})
    encoder = HistorySequenceEncoder(categorical=["id"])
    pipeline = make_pipeline(encoder, DINClassifier(max_epochs=3, lr=0.05, random_state=0))
    pipeline.fit(frame, np.arange(len(values)) % 2)
    export_onnx(pipeline, tmp_path / "ids.onnx")
    return pipeline, OnnxServer(tmp_path / "ids.onnx")


@pytest.mark.parametrize(
    ("learnt", "asked"),
    [
        ([1, 2, 0, 5], [1, 2.0, "2", "02", "5", "1.0", "hat", np.int64(5), np.float32(2), None]),
        ([1, 2, 0, 5], [True, False]),  # True is not 1
        ([True, False] * 2, [True, False, np.True_, None]),
        ([True, False] * 2, [1, 0]),
        (["a", "1", "b", "c"], ["a", "1", " a", "", None, np.str_("b")]),
        (["a", "1", "b", "c"], ["a", 1, 1.0]),
        (["a", "1", "b", "c"], ["a", True]),
    ],
)
@pytest.mark.filterwarnings("ignore:id was learnt as")
def test_an_id_is_looked_up_as_the_encoder_does(learnt, asked, tmp_path):
    pipeline, server = ids_pipeline(learnt, tmp_path)
    frame = pd.DataFrame({"id": pd.Series(asked, dtype=object), "price": 0.5})
    rows = [{"id": value, "price": 0.5} for value in asked]
    assert_served(server, rows, pipeline, frame)


@pytest.mark.parametrize(
    ("learnt", "given", "kinds"),
    [
        (["1", "2", "3", "4"], [1, 2], "text and now holds integers"),
        ([1, 2, 3, 4], ["i1", "02"], "integers and now holds text"),
    ],
)
def test_ids_of_another_kind_are_warned_of_as_the_encoder_does(learnt, given, kinds, tmp_path):
    pipeline, server = ids_pipeline(learnt, tmp_path)
    frame = pd.DataFrame({"id": given, "price": 0.5})
    with pytest.warns(UserWarning, match=f"id was learnt as {kinds}"):
        pipeline.predict_proba(frame)
    with pytest.warns(UserWarning, match=f"id was learnt as {kinds}"):
        server.predict(frame.to_dict("list"))


@pytest.mark.parametrize(
    "cells",
    [
        ["red|new", " red | | new ", "|", " ", None, "blue"],
        [["red", " new "], ["red", None], [], None, ("new",), np.array(["red"], dtype=object)],
    ],
)
def test_text_is_split_and_trimmed_as_the_encoder_does(server, pipeline, cells):
    frame = make_frame()[0].head(len(cells)).assign(tags=pd.Series(cells, dtype=object))
    assert_served(server, frame.to_dict("records"), pipeline, frame)


def test_numbers_of_event_and_impression_are_columns_of_lists(tmp_path):
    options = {"n_users": 30, "n_items": 20, "n_categories": 4, "mean_length": 5, "random_state": 0}
    frame, y = attach_clicks(columns=["item", "time"], elapsed="hist_elapsed", **options)
    pasts = [pd.DatetimeIndex(list(cell)).day_of_week for cell in frame["hist_time"]]
    days = zip(frame["time"], pasts, strict=True)
    frame["same_day"] = [list(1.0 * (past == now.day_of_week)) for now, past in days]
    frame = as_lists(frame.drop(columns=["user", "time", "hist_time"]))
    histories = {("hist_item", "hist_elapsed", "same_day"): ("item", None, None)}
    encoder = HistorySequenceEncoder(histories=histories)
    pipeline = make_pipeline(encoder, DINClassifier(max_epochs=1, random_state=0))
    pipeline.fit(frame, y)
    assert encoder.schema_.behaviours[0].numbers == ("hist_elapsed", "same_day")
    export_onnx(pipeline, tmp_path / "model.onnx")
    rows = json.loads(frame.to_json(orient="records", double_precision=15))
    assert_served(OnnxServer(tmp_path / "model.onnx"), rows, pipeline, frame)


@pytest.mark.filterwarnings("ignore:some numbers of (hist_)?price lie so far off")
def test_numbers_far_off_are_served_as_the_pipeline_takes_them(tmp_path):
    frame, y = make_frame()
    frame.loc[3, "price"], frame.loc[5, "hist_price"][0] = -1e9, 1e9
    encoder = HistorySequenceEncoder(histories=HISTORIES, separator="|")
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, random_state=0)).fit(frame, y)
    export_onnx(model, tmp_path / "model.onnx")
    served = OnnxServer(tmp_path / "model.onnx").predict(frame.to_dict("list"))
    assert model[0].scales_["price"].has_outliers
    np.testing.assert_allclose(served, model.predict_proba(frame)[:, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (None, r"other\.onnx does not say how .* export_onnx\(pipeline"),
        ({"version": 99}, r"version 99, and this OnnxServer reads version 1\."),
    ],
)
def test_files_of_another_recipe_are_refused(recipe, message, path, tmp_path):
    model = onnx.load(path)
    (entry,) = model.metadata_props
    assert entry.key == onnx_server.METADATA_KEY
    assert json.loads(entry.value)["version"] == onnx_server.RECIPE_VERSION
    ids = (onnx_server.UNKNOWN_ID, onnx_server.FIRST_KNOWN_ID)
    assert ids == (schema.UNKNOWN_ID, schema.FIRST_KNOWN_ID)
    del model.metadata_props[:]
    if recipe is not None:
        onnx.helper.set_model_props(model, {entry.key: json.dumps(recipe)})
    onnx.save_model(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=message):
        OnnxServer(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": ["i3"]}, r"item must hold ids \(integers, text or booleans\), got \['i3'\]"),
        ({"category": 1.5}, r"category must hold ids, got the float 1\.5\. Ids are integers"),
        ({"category": float("inf")}, "category must hold ids, got the float inf"),
        ({"category": 2.0**60}, r"where neighbouring ids merge\. Send it as an integer"),
        ({"price": "cheap"}, r"price must hold numbers, got \['cheap'\]"),
        ({"price": [1.0]}, r"price must hold finite numbers, one each, got \[\[1\.0\]\]"),
        ({"price": float("inf")}, "price must hold finite numbers"),
        ({"price": 10**400}, r"price must hold numbers, got \[10"),
        ({"price": 1e300}, r"price must hold numbers that fit into float32, got 1e\+300\. Send a"),
        ({"hist_price": [-4e38, None]}, r"hist_price must hold numbers that fit .*, got 4e\+38\."),
        ({"hist_price": ["a", "b"]}, r"hist_price must hold numbers, got \['a', 'b'\]"),
        ({"hist_item": {"i1", "i3"}}, r"hist_item must hold one history per cell .* \(set\)"),
        ({"hist_item": 7}, r"hist_item must hold one history per cell .*, got 7 \(int\)"),
        ({"hist_item": ["i1"]}, "hist_item and hist_category describe the same events and must "
         "have one length in each row, got 1 and 2 in row 0"),
        ({"hist_price": None}, "hist_item and hist_price .* got 2 and 0 in row 0"),
        ({"hist_item": ["i1"] * 9, "hist_category": [1] * 8, "hist_price": [1.0] * 9}, "9 and 8"),
    ],
)  # fmt: skip
def test_a_value_that_its_column_cannot_hold_is_refused(server, row, change, message):
    with pytest.raises(ValueError, match=message):
        server.predict([row | change])


def test_text_without_a_separator_is_no_history(tmp_path):
    frame = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    pipeline = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    export_onnx(pipeline.fit(frame, [0, 1]), tmp_path / "model.onnx")
    server = OnnxServer(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"got 'hat' \(str\)"):
        server.predict([{"item": "hat", "hist_item": "hat"}])


def test_a_misspelt_or_missing_key_is_named(server, row):
    misspelt = {("hist_itm" if name == "hist_item" else name): row[name] for name in row}
    with pytest.raises(ValueError, match=r"rows\[1\] must have the keys .*, got none of "
                       r"\['hist_item'\]\. Is it 'hist_itm', misspelt\? Where"):  # fmt: skip
        server.predict([row, misspelt])
    del row["price"]
    with pytest.raises(ValueError, match=r"\['price'\]\. Where a value is not known, pass None"):
        server.predict([row])
    with pytest.raises(ValueError, match=r"rows must have the keys .* none of \['price'\]"):
        server.predict({name: [value] for name, value in row.items()})


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda row: pd.DataFrame([row]), r"got DataFrame\. A pandas DataFrame has .to_dict"),
        (lambda row: [list(row)], "got a list of list"),
        (lambda row: iter([row]), "got list_iterator"),
        (lambda row: json.dumps(row), "got str"),
        (lambda row: row, r"must be a list with one value per row, .* pass a list: \[row\]"),
    ],
)
def test_rows_of_another_shape_are_refused(server, row, make, got):
    with pytest.raises(TypeError, match=got):
        server.predict(make(row))


def test_columns_of_unequal_lengths_are_refused(server, row):
    columns = {name: [value] for name, value in row.items()} | {"item": ["i1", "i2"]}
    with pytest.raises(ValueError, match=r"every column must have one value per row, .*'item': 2"):
        server.predict(columns)


@pytest.mark.parametrize("n_threads", [0, True, 1.5, "2"])
def test_threads_are_a_number(path, n_threads):
    with pytest.raises(ValueError, match="intra_op_num_threads must be an integer of at least 1"):
        OnnxServer(path, intra_op_num_threads=n_threads)


def test_one_thread_answers_unless_more_are_asked_for(path, row):
    one, two = OnnxServer(path), OnnxServer(path, intra_op_num_threads=2)
    assert one._session.get_session_options().intra_op_num_threads == 1
    assert two._session.get_session_options().intra_op_num_threads == 2
    np.testing.assert_allclose(one.predict([row]), two.predict([row]), atol=1e-6)


ANSWER = (
    "row = dict.fromkeys(OnnxServer(sys.argv[1]).columns_); row['item'] = 'i3'; row['price'] = 2; "
    "print(OnnxServer(sys.argv[1]).predict([row])[0]); "
)


@pytest.mark.parametrize(
    ("get_class", "never"),
    [
        ("from sklearn_din.serving import OnnxServer", {"torch", "skorch", "sklearn", "pandas"}),
        (f"import runpy; OnnxServer = runpy.run_path({onnx_server.__file__!r})['OnnxServer']",
         {"torch", "skorch", "sklearn", "pandas", "sklearn_din"}),
    ],
    ids=["from the package", "the file alone"],
)  # fmt: skip
def test_the_server_loads_neither_torch_nor_scikit_learn(path, get_class, never):
    code = f"import sys; {get_class}; {ANSWER} assert not {never!r} & set(sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    ).stdout
    assert 0 < float(printed) < 1


def test_without_onnxruntime_it_is_named(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        OnnxServer(path)


def test_the_example_serves(capsys):
    runpy.run_path(str(HOUSE / "examples" / "serve_onnx.py"), run_name="__main__")
    difference = float(capsys.readouterr().out.rsplit(" ", 1)[1])
    assert difference < 1e-5
