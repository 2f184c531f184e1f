"""A file of export_onnx is used like the Pipeline that wrote it, and torch is not loaded for it."""

import base64
import functools
import json
import operator
import os
import pickle
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sklearn_din import attach_history, export_onnx, load_onnx
from sklearn_din.features.event_table import WITHOUT_WEIGHTS
from sklearn_din.inspection.explain import explain
from sklearn_din.server.answers import Answers
from sklearn_din.serving.onnx_model import DIGEST_KEY, METADATA_KEY, seal
from sklearn_din.serving.ranking import Ranker
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.utils.digests import digest
from sklearn_din.utils.plain_values import from_json, to_json
from sklearn_din.utils.whole_files import ModelFileError
from tests import fitted_pipelines
from tests.fitted_pipelines import attach_clicks, edit_state, make_model
from tests.network_options import each_network
from tests.processes import HOUSE, run_python

pytestmark = pytest.mark.slow

WHY = "needs onnx and onnxruntime: pip install 'sklearn-din[onnx]'"
onnx = pytest.importorskip("onnx", reason=WHY)
runtime = pytest.importorskip("onnxruntime", reason=WHY)

EVENTS = "hist_item", "hist_category", "hist_price"
HISTORIES = {EVENTS: ("item", "category", "price"), "tags": None}
LAYOUTS = ("rows", "ranking")
OF_CANDIDATES = ["item", "category", "price", "is_new"]


def make_frame(n_users=30, seed=0):
    """Text ids, integer ids, booleans, numbers with gaps, histories with numbers, split text."""
    frame, y = fitted_pipelines.make_frame(n_users, seed)
    rng, lengths = np.random.default_rng(seed), frame["hist_item"].map(len)
    frame["hist_category"] = [list(map(int, cell)) for cell in frame["hist_category"]]
    frame["hist_price"] = [[*rng.normal(5, 2, n - 1), None] if n else [] for n in lengths]
    frame["tags"] = [["", "red", "red | new", None][row % 4] for row in range(len(frame))]
    frame["is_new"] = rng.random(len(frame)) < 0.5
    return frame.drop(columns=["user", "time"]), y


@pytest.fixture(scope="module")
def pipeline():
    encoder = HistorySequenceEncoder(histories=HISTORIES, separator="|", max_length=6)
    return make_model(encoder, lr=0.02).fit(*make_frame())


@pytest.fixture(scope="module")
def paths(pipeline, tmp_path_factory):
    """The file of each layout."""
    folder = tmp_path_factory.mktemp("onnx")
    for layout in LAYOUTS:
        export_onnx(pipeline, folder / f"{layout}.onnx", layout=layout)
    return {layout: folder / f"{layout}.onnx" for layout in LAYOUTS}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def log():
    """Rows of users at times, among which item neighbours are learnt."""
    return attach_clicks(n_users=80, n_items=70, n_categories=5, mean_length=9, random_state=0)


def reload(model, tmp_path, layout):
    export_onnx(model, tmp_path / "model.onnx", layout=layout)
    return load_onnx(tmp_path / "model.onnx")


def assert_alike(answer, expected, atol=2e-6):
    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=atol)


def test_rows_are_answered_as_by_the_pipeline(layout, paths, pipeline):
    frame, _ = make_frame(n_users=20)
    frame.loc[:5, "item"] = "never seen"
    frame.loc[6:9, "item"] = None
    frame["hist_item"] = [[*cell[:-1], None] if cell else cell for cell in frame["hist_item"]]
    assert (frame["hist_item"].map(len) > 6).any()
    model = load_onnx(paths[layout])
    assert model.classes_.tolist() == pipeline.classes_.tolist()
    assert model.feature_names_in_.tolist() == pipeline.feature_names_in_.tolist()
    for rows in (frame, frame[:1], frame[5:7]):
        assert_alike(model.predict_proba(rows), pipeline.predict_proba(rows))
        assert_alike(model.decision_function(rows), pipeline.decision_function(rows), atol=1e-5)
        np.testing.assert_array_equal(model.predict(rows), pipeline.predict(rows))
    assert model.predict_proba(frame).dtype == np.float32
    assert isinstance(model[:-1].transform(frame), type(pipeline[:-1].transform(frame)))


@pytest.mark.parametrize("chosen", [None, "0"])
def test_usage_data_of_onnxruntime_is_off_unless_somebody_wants_it(chosen, paths, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    if chosen is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", chosen)
    load_onnx(paths["rows"])
    assert os.environ["ORT_DISABLE_TELEMETRY"] == (chosen or "1")


def test_many_rows_are_run_some_at_a_time(paths, pipeline, monkeypatch):
    monkeypatch.setattr("sklearn_din.serving.onnx_model.ROWS_PER_RUN", 7)
    frame, _ = make_frame(n_users=20)
    model = load_onnx(paths["rows"])
    for n in (7, 14, 20):
        assert_alike(model.predict_proba(frame[:n]), pipeline.predict_proba(frame[:n]))


@pytest.mark.parametrize("bag", ["user's", "candidate's"])
def test_a_user_and_candidates_are_ranked_as_by_the_pipeline(bag, layout, paths, pipeline):
    frame, _ = make_frame(n_users=20)
    frame.loc[frame.index[::7], "item"] = "never seen"
    names = [*OF_CANDIDATES, "tags"][: 4 + (bag == "candidate's")]
    shown = frame[names].drop_duplicates("item")
    users = frame.drop(columns=names)
    users = users.iloc[[0, 5, frame["hist_item"].map(len).argmax()]]
    rankers = [Ranker(model, shown) for model in (pipeline, load_onnx(paths[layout]))]
    for options in ({}, {"exclude": "history"}, {"only": shown["item"][2:9].tolist()}):
        expected, best = (ranker.rank(users, top_k=99, **options) for ranker in rankers)
        assert best["item"].tolist() == expected["item"].tolist()
        assert_alike(best["probability"], expected["probability"])


def test_neighbours_older_events_and_a_shortlist_are_in_the_file(layout, log, tmp_path):
    frame, y = log
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=4)
    model = make_model(encoder, max_epochs=1, neighbours="time").fit(frame, y)
    assert model[-1].net_.neighbours_.pairs
    loaded, now = reload(model, tmp_path, layout), frame.drop(columns="time")
    assert (frame["hist_item"].map(len) > 4).any()
    assert_alike(loaded.predict_proba(frame), model.predict_proba(now))
    shown = frame[["item", "category", "price"]].drop_duplicates("item")
    users = frame.drop(columns=list(shown)).iloc[[0, 100, frame["hist_item"].map(len).argmax()]]
    for shortlist in (None, 15):
        rankers = [Ranker(m, shown, shortlist=shortlist) for m in (model, loaded)]
        expected, best = (ranker.rank(users, top_k=15) for ranker in rankers)
        assert best["item"].tolist() == expected["item"].tolist()
        assert_alike(best["probability"], expected["probability"])


@each_network("pooling", "attention_normalization", "interest")
def test_events_are_explained_as_by_the_pipeline(options, log, tmp_path):
    frame, y = log[0].drop(columns=["user", "time"])[::3], log[1][::3]
    model = make_model(HistorySequenceEncoder(max_length=5), max_epochs=1, **options).fit(frame, y)
    for layout in LAYOUTS if options["interest"] == "paper" else LAYOUTS[1:]:
        loaded, rows = reload(model, tmp_path, layout), frame[::13]
        for by, column in (("weight", "weight"), ("leave_out", "effect")):
            if by == "weight" and options["pooling"] in WITHOUT_WEIGHTS:
                with pytest.raises(ValueError, match="attention_weights needs pooling="):
                    explain(loaded, rows, by=by)
                continue
            table, expected = explain(loaded, rows, by=by), explain(model, rows, by=by)
            assert_alike(table.pop(column), expected.pop(column), atol=1e-5)
            assert table.drop(columns="share").equals(expected.drop(columns="share"))
            assert table.attrs == expected.attrs


@pytest.mark.parametrize(("method", "layout"), [
    ("sigmoid", "rows"), ("isotonic", "ranking"), ("falling", "ranking"), ("temperature", "rows"),
])  # fmt: skip
def test_a_calibration_is_in_the_file(method, layout, pipeline, tmp_path):
    frame, y = make_frame()
    labels = 1 - y if method == "falling" else y
    name = "sigmoid" if method == "falling" else method
    try:
        model = CalibratedClassifierCV(FrozenEstimator(pipeline), method=name).fit(frame, labels)
    except ValueError:
        pytest.skip("temperatures are of scikit-learn 1.8")
    loaded = reload(model, tmp_path, layout)
    atol = 1e-4 if method == "isotonic" else 2e-6  # its curve may be steep
    expected = model.predict_proba(frame)
    assert_alike(loaded.predict_proba(frame), expected, atol=atol)
    is_clear = abs(expected[:, 1] - 0.5) > atol  # a flat part of a curve may lie at one half
    np.testing.assert_array_equal(loaded.predict(frame)[is_clear], model.predict(frame)[is_clear])
    shown = frame[OF_CANDIDATES].drop_duplicates("item")
    user = frame.drop(columns=OF_CANDIDATES).iloc[30].to_dict()
    model.feature_names_in_ = pipeline.feature_names_in_
    expected, best = (Ranker(m, shown).rank(user, top_k=40) for m in (model, loaded))
    assert best["item"].tolist() == expected["item"].tolist()
    assert_alike(best["probability"], expected["probability"], atol=atol)


@pytest.fixture(scope="module")
def model_with_trees():
    """Trees on numbers with gaps, past prices and answers, rates of users and of items."""
    rng, n_rows = np.random.default_rng(0), 1500
    user, item = rng.integers(40, size=n_rows), rng.integers(30, size=n_rows)
    frame = pd.DataFrame({"user": user, "item": item, "price": rng.normal(size=n_rows)})
    frame["time"] = np.sort(rng.integers(3000, size=n_rows))
    odds = np.where(abs(frame["price"]) < 0.7, 2.0, -2.0) + rng.normal(size=40)[user]
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-odds))).astype(int)
    frame.loc[::7, "price"] = np.nan
    events = frame.assign(answer=np.where(y, "right", "wrong"))
    columns = {"columns": ["item", "price", "answer"], "user": "user", "time": "time"}
    frame = attach_history(frame, events, **columns)
    model = make_model(max_epochs=1, trees=True, neighbours=None).fit(frame, y)
    return model, frame


def test_boosted_trees_are_in_the_file(layout, model_with_trees, tmp_path):
    model, frame = model_with_trees
    mixture, loaded = model[-1].net_.mixture_, reload(model, tmp_path, layout)
    assert mixture.weight > 0
    assert [own.column for own in mixture.trees.columns.rates] == ["", "item"]
    assert mixture.trees.columns.n_answers == {"hist_answer": 2}
    rows = frame[-300:].copy()
    rows.loc[rows.index[::5], "user"] = -1
    rows.loc[rows.index[1::5], "item"] = 99
    rows.loc[rows.index[2::5], "item"] = None
    for name in ("hist_item", "hist_price", "hist_answer"):
        cells = [list(cell) for cell in rows[name]]
        cells[3] = []
        rows[name] = [[*c[:-1], 99] if c and name == "hist_item" else c for c in cells]
    for part in (rows, rows[:1], rows[3:4]):
        expected = model.predict_proba(part)
        np.testing.assert_allclose(loaded.predict_proba(part), expected, rtol=0, atol=1e-6)
    shown = frame[["item", "price"]].drop_duplicates("item")
    users = frame.drop(columns=["item", "price"])[-2:]
    expected, best = (Ranker(m, shown).rank(users, top_k=30) for m in (model, loaded))
    assert best["item"].tolist() == expected["item"].tolist()
    np.testing.assert_allclose(best["probability"], expected["probability"], rtol=0, atol=1e-6)
    answers = Answers(loaded, shown)
    assert answers.knows(int(frame["user"].iloc[-1]))
    assert not answers.knows(-1)


def test_columns_of_trees_in_the_file_are_those_of_the_pipeline_to_the_last_bits(
    layout, model_with_trees, tmp_path
):
    model, frame = model_with_trees
    loaded, encoded = reload(model, tmp_path, layout), model[0].transform(frame[-200:])
    written = onnx.load(tmp_path / "model.onnx")
    (node,) = [n for n in written.graph.node if n.op_type == "TreeEnsembleRegressor"]
    info = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.DOUBLE, None)
    written.graph.output.append(info)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(written.SerializeToString(), options)
    feeds = loaded[-1].net_._feeds(encoded)
    columns = np.concatenate([session.run([node.input[0]], feed)[0] for _, feed in feeds])
    expected = model[-1].trees_.columns.read(encoded)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(columns, expected, rtol=1e-14)


def test_trees_of_one_leaf_are_a_constant(tmp_path):
    frame = pd.DataFrame({"price": np.tile([0.0, 1.0], 30)})
    model = make_model(HistorySequenceEncoder(), trees=True).fit(frame, np.arange(60) % 4 > 1)
    trees = model[-1].net_.mixture_.trees
    assert trees is not None
    assert (trees.sizes == 1).all()
    loaded = reload(model, tmp_path, "rows")
    assert_alike(loaded.predict_proba(frame), model.predict_proba(frame))


def test_another_step_behind_the_encoder_and_what_is_no_plain_value_are_refused(pipeline, tmp_path):
    class Other:
        def transform(self, X):
            return X

    model = Pipeline([("encode", pipeline[0]), ("other", Other()), ("din", pipeline[1])])
    with pytest.raises(TypeError, match="got a Other between them"):
        export_onnx(model, tmp_path / "model.onnx")
    model = Pipeline([("encode", clone(pipeline[0]).fit(make_frame()[0])), ("din", pipeline[1])])
    model[0].note = object()
    with pytest.raises(TypeError, match=r"as text, and an object of type object .*pipeline\[-1\]"):
        export_onnx(model, tmp_path / "model.onnx")


def test_fixed_vectors_are_in_the_file(layout, tmp_path):
    rng, items = np.random.default_rng(0), [f"i{n}" for n in range(22)]  # the last two are new
    vectors = pd.DataFrame(rng.normal(size=(22, 3)), columns=list("abc")).assign(item=items)
    frame = pd.DataFrame({"item": rng.choice(items[:20], 200), "user": np.arange(200) % 9})
    frame["hist_item"] = [rng.choice(items[:20], 3).tolist() for _ in range(200)]
    encoder = HistorySequenceEncoder(user="user", vectors={"item": vectors})
    model = make_model(encoder, max_epochs=1).fit(frame, np.arange(200) % 2)
    loaded = reload(model, tmp_path, layout)
    rows = frame[:22].drop(columns="user").assign(item=items)
    assert_alike(loaded.predict_proba(rows), model.predict_proba(rows))
    rankers = [Ranker(m, vectors[["item"]], shortlist=12) for m in (model, loaded)]
    expected, best = (ranker.rank({"hist_item": ["i1", "i20"]})["item"] for ranker in rankers)
    assert best.tolist() == expected.tolist()


def test_ones_own_column_that_says_what_is_missing_may_be_of_ids(layout, tmp_path):
    frame, y = make_frame(12)
    frame["price_missing"] = frame["price"].isna()
    encoder = HistorySequenceEncoder(histories=HISTORIES, separator="|")
    pipeline = make_model(encoder, max_epochs=1).fit(frame, y)
    loaded = reload(pipeline, tmp_path, layout)
    assert_alike(loaded.predict_proba(frame), pipeline.predict_proba(frame))


def test_ids_may_be_dates(tmp_path):
    days = pd.date_range("2024-01-01", periods=6).date
    frame = pd.DataFrame({"day": [*days] * 4, "hist_day": [[day] for day in days] * 4})
    model = make_model(HistorySequenceEncoder(categorical=["day"]), max_epochs=1)
    loaded = reload(model.fit(frame, [0, 1] * 12), tmp_path, "rows")
    assert_alike(loaded.predict_proba(frame), model.predict_proba(frame))


def test_a_file_answers_and_does_not_learn(paths, pipeline):
    model = load_onnx(paths["rows"])
    frame, y = make_frame()
    with pytest.raises(TypeError, match=r"cannot be fitted\. Fit or update the Pipeline, and"):
        model.fit(frame, y)
    with pytest.raises(TypeError, match=r"cannot pickle .*InferenceSession"):
        pickle.dumps(model)
    assert not hasattr(clone(model)[-1], "net_")
    with pytest.raises(TypeError, match="needs the output of its encoder, got DataFrame"):
        model[-1].predict_proba(frame)
    other = HistorySequenceEncoder(histories=HISTORIES, separator="|").fit_transform(frame)
    with pytest.raises(ValueError, match="needs the output of its own encoder, and "):
        model[-1].predict_proba(other)
    checks = model[-1].history_
    pd.testing.assert_frame_equal(checks, pipeline[-1].history_, check_dtype=False)


def change(path, tmp_path, edit):
    """Write a file with other metadata, whose digest is right."""
    model = onnx.load(path)
    text = edit(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
    return save_sealed(model, tmp_path / "other.onnx")


def save_sealed(model, path):
    """Write a file whose digest is right."""
    content = model.SerializeToString()
    path.write_bytes(content + seal(digest(content)))
    return path


def put(*keys, to):
    """Put a value elsewhere; after "encoder", among what its state holds."""

    def edit(value, keys=keys):
        if keys[0] == "encoder" and len(keys) > 1:
            value["encoder"] = edit_state(value["encoder"], functools.partial(edit, keys=keys[1:]))
        else:
            functools.reduce(operator.getitem, keys[:-1], value)[keys[-1]] = to

    def edit_text(text):
        value = from_json(text)
        edit(value)
        return to_json(value)

    return edit_text


def shorten(text):
    value, arrays = json.loads(text)
    longest = max(arrays.values(), key=lambda array: len(array[2]))
    longest[2] = base64.b64encode(base64.b64decode(longest[2])[:-4]).decode()
    return json.dumps([value, arrays])


def as_objects(text):
    value, arrays = json.loads(text)
    next(iter(arrays.values()))[0] = "|O"
    return json.dumps([value, arrays])


BEHAVIOUR = ("encoder", "fitted", "learnt", "columns", -1, "behaviour")
FORGERIES = {
    "absent": (lambda text: None, r"other\.onnx' .*export_onnx wrote: it has no encoder"),
    "no JSON": (lambda text: text[:-9], "Expecting|Unterminated"),
    "a list": (lambda text: "[1]", "not enough values"),
    "deep": (lambda text: "[" * 100_000, "recursion|not enough values"),
    "version": (put("version", to=99), "of version 99, and this sklearn_din reads version 6"),
    "layout": (put("facts", "layout", to="columns"), "OnnxFacts.layout cannot be 'columns'"),
    "a field more": (put("facts", "code", to="x"), "code cannot be 'x'"),
    "labels": (put("facts", "labels", to=("a", "b")), "several labels need a name each"),
    "spread": (put("facts", "spread", to=-1.0), "a spread above 0"),
    "slope": (put("facts", "calibration", "slope", to="steep"), "slope cannot be 'steep'"),
    "a state": (put("encoder", to={}), "cannot take this state"),
    "length": (put(*BEHAVIOUR, "max_length", to=-2), "max_length must not be negative, got -2"),
    "a kind": (lambda text: text.replace("tuple", "eval"), "'eval'"),
    "another schema": (
        put("facts", "schema", "fields", 0, "n_ids", to=7), "disagree|the n_ids of|cannot have"
    ),
    "a shorter array": (shorten, "reshape|multiple"),
    "objects": (as_objects, "cannot create an OBJECT array"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_metadata_are_refused(edit, message, paths, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        load_onnx(change(paths["rows"], tmp_path, edit))


def test_a_flipped_bit_anywhere_is_refused(paths, tmp_path, layout):
    chance, content = np.random.default_rng(0), paths[layout].read_bytes()
    first = onnx.load(paths[layout]).graph.initializer[0].raw_data
    weights = content.index(first)
    tail = len(content) - content.rindex(DIGEST_KEY.encode())
    places = [
        *chance.integers(len(content), size=90),
        *chance.integers(len(first), size=20) + weights,
    ]
    for place in [*places, *(len(content) - chance.integers(1, tail, size=10))]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(chance.integers(8))
        (tmp_path / "changed.onnx").write_bytes(changed)
        with pytest.raises(ModelFileError, match=r"whole, unchanged file .* digest"):
            load_onnx(tmp_path / "changed.onnx")
    model = onnx.load(paths[layout])  # protobuf reads the digest, wherever it stands
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY, DIGEST_KEY]


def test_neighbours_of_no_item_are_refused(log, tmp_path):
    frame, y = log
    model = make_model(max_epochs=1).fit(frame, y)
    export_onnx(model, tmp_path / "model.onnx", layout="ranking")
    written = onnx.load(tmp_path / "model.onnx")
    (ids,) = [c for c in written.graph.initializer if c.name.endswith("hist_item/cosine/ids")]
    array = onnx.numpy_helper.to_array(ids).copy()
    array[1, 0] = 10**6
    ids.CopyFrom(onnx.numpy_helper.from_array(array, ids.name))
    save_sealed(written, tmp_path / "model.onnx")
    shown = frame[["item", "category", "price"]].drop_duplicates("item")
    with pytest.raises(ModelFileError, match="no whole, unchanged file"):
        Ranker(load_onnx(tmp_path / "model.onnx"), shown, shortlist=9)


def test_files_that_are_no_models_and_a_missing_onnxruntime_are_named(
    pipeline, paths, tmp_path, monkeypatch
):
    with pytest.raises(FileNotFoundError):
        load_onnx(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelFileError, match=r"text\.onnx' is no whole, unchanged file"):
        load_onnx(tmp_path / "text.onnx")
    export_onnx(pipeline[-1], tmp_path / "alone.onnx")
    with pytest.raises(ModelFileError, match=r"Export the whole Pipeline: export_onnx"):
        load_onnx(tmp_path / "alone.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-din\[onnx\]'"):
        load_onnx(paths["rows"])


ANSWER = """
import sys
import pandas as pd
from sklearn_din import Ranker, explain, load_onnx
model, frame = load_onnx(sys.argv[1]), pd.read_pickle(sys.argv[2])
model.predict_proba(frame)
explain(model, frame[:2]), explain(model, frame[:2], by="leave_out")
names = ["item", "category", "price", "is_new"]
Ranker(model, frame[names].drop_duplicates("item")).rank(frame.drop(columns=names)[:1])
print(sorted({"torch", "skops", "skorch"} & {*sys.modules}))
"""


def test_neither_torch_nor_skops_is_loaded_to_answer(paths, tmp_path):
    make_frame()[0][:50].to_pickle(tmp_path / "frame.pkl")
    child = run_python(ANSWER, paths["ranking"], tmp_path / "frame.pkl")
    assert child.stdout.strip() == "[]", child.stderr


@pytest.mark.proof
def test_the_example_serves(capsys):
    runpy.run_path(str(HOUSE / "examples" / "serve_onnx.py"), run_name="__main__")
    difference = float(capsys.readouterr().out.rsplit(" ", 1)[1])
    assert difference < 1e-5
