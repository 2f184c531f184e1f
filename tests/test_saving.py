"""save and load: the same bits, attributes and parameters; what cannot be kept is named."""

import datetime as dt
import decimal
import json
import os
import pickle
import subprocess
import sys
import uuid
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import EpochScoring, GradientNormClipping

import sklearn_din
from benchmarks.tampering import make_rows
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    explain,
    inspect,
    load,
    rank_candidates,
    save,
)
from sklearn_din.metrics import group_roc_auc_scorer
from sklearn_din.serving.safe_file import SafeFileError
from sklearn_din.state.plain_state import read_state, write_state
from tests.fitted_pipelines import CANDIDATE, fit_pipeline, make_frame


@pytest.fixture(scope="module")
def frame():
    return make_frame()[0]


@pytest.fixture(scope="module")
def y():
    return make_frame()[1]


@pytest.fixture(scope="module")
def fitted(frame, y):
    return fit_pipeline(frame, y)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.din"


def saved(model, path, **options):
    save(model, path, overwrite=True)
    return load(path, **options)


def tiny_classifier(**parameters):
    defaults = {"hidden_units": (4,), "attention_units": (3,), "embedding_dim": 2, "max_epochs": 1}
    return DINClassifier(**(defaults | {"random_state": 0} | parameters))


def test_a_pipeline_predicts_the_same_bits_and_keeps_its_parameters(fitted, frame, path):
    again = saved(fitted, path)
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()
    assert repr(again) == repr(fitted)
    assert again.get_params().keys() == fitted.get_params().keys()


def test_the_whole_path_from_log_to_click_is_kept(path):
    rows, y = make_rows()
    builder = HistoryBuilder(user="user", time="time", columns="item", elapsed="ago")
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    model = Pipeline([("build", builder), ("encode", encoder), ("din", tiny_classifier())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, y)
    again = saved(model, path)
    assert (again.predict_proba(rows) == model.predict_proba(rows)).all()
    assert again["build"].events_.equals(model["build"].events_)
    assert (again["build"].events_.dtypes == model["build"].events_.dtypes).all()
    later = rows.tail(2).assign(time=rows["time"].max() + pd.Timedelta("1D"))
    assert len(again["build"].partial_fit(later, [1, 1]).events_) == y.sum() + 2


def test_a_fresh_process_elsewhere_predicts_the_same_bits(fitted, frame, path, tmp_path):
    save(fitted, path)
    joblib.dump((frame, fitted.predict_proba(frame)), tmp_path / "truth.joblib")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import joblib, sys, sklearn_din; X, p = joblib.load(sys.argv[1]); "
        "assert (sklearn_din.load(sys.argv[2]).predict_proba(X) == p).all()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(sklearn_din.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "truth.joblib"), str(path)],
        check=True,
        cwd=elsewhere,
        env=environment,
    )


def test_what_users_read_is_the_same_after_loading(fitted, frame, path):
    again = saved(fitted, path)
    encoder, its = fitted["encode"], again["encode"]
    assert its.schema_ == encoder.schema_
    assert its.scales_ == encoder.scales_
    assert its.vocabularies_.keys() == encoder.vocabularies_.keys()
    for name, values in encoder.vocabularies_.items():
        assert its.vocabularies_[name].dtype == values.dtype
        assert its.vocabularies_[name].tolist() == values.tolist()
    for one, other in ((encoder, its), (fitted["din"], again["din"])):
        assert one.feature_names_in_.tolist() == other.feature_names_in_.tolist()
        assert one.n_features_in_ == other.n_features_in_
    assert its.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    classifier, its = fitted["din"], again["din"]
    assert its.classes_.tolist() == classifier.classes_.tolist()
    assert its.classes_.dtype == classifier.classes_.dtype
    assert its.n_iter_ == classifier.n_iter_
    assert its.novelty_ == classifier.novelty_
    pd.testing.assert_frame_equal(its.history_, classifier.history_)
    assert its.summary() == classifier.summary()
    X = encoder.transform(frame)
    pd.testing.assert_frame_equal(its.attention_weights(X), classifier.attention_weights(X))
    assert (its.net_.predict_proba(X) == classifier.net_.predict_proba(X)).all()
    assert its.net_.stop_reason_ == classifier.net_.stop_reason_
    assert its.module_ is its.net_.module_


def test_a_loaded_model_explains_ranks_and_exports(fitted, frame, path, tmp_path):
    again = saved(fitted, path)
    pd.testing.assert_frame_equal(explain(again, frame.head(5)), explain(fitted, frame.head(5)))
    users, items = frame.head(3).drop(columns=CANDIDATE), frame[CANDIDATE].drop_duplicates("item")
    ranked = [rank_candidates(model, users, items, top_k=3) for model in (again, fitted)]
    pd.testing.assert_frame_equal(*ranked)
    pytest.importorskip("onnx", reason="exports need '.[onnx]'")
    for model, name in ((again, "again.onnx"), (fitted, "fitted.onnx")):
        sklearn_din.export_onnx(model, tmp_path / name)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "fitted.onnx").read_bytes()


def test_a_loaded_model_can_be_cloned_and_fitted_again(fitted, frame, y, path):
    again = saved(fitted, path)
    fresh = clone(again).fit(frame, y)
    assert (fresh.predict_proba(frame) == fitted.predict_proba(frame)).all()
    assert (saved(again, path).predict_proba(frame) == fitted.predict_proba(frame)).all()


def test_loading_leaves_random_states_alone_and_gives_one_file_per_model(fitted, path, tmp_path):
    state, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    save(saved(fitted, path), tmp_path / "again.din")
    assert (torch.random.get_rng_state() == state).all()
    assert (np.random.get_state()[1] == numbers).all()
    assert path.read_bytes() == (tmp_path / "again.din").read_bytes()


@pytest.mark.parametrize("make", [GridSearchCV, RandomizedSearchCV])
@pytest.mark.parametrize("scoring", [None, "roc_auc", ["roc_auc", "accuracy"]], ids=str)
def test_a_search_is_kept(frame, y, path, make, scoring):
    X = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(frame)
    options = {"n_iter": 2, "random_state": 0} if make is RandomizedSearchCV else {}
    refit = "roc_auc" if isinstance(scoring, list) else True
    search = make(
        tiny_classifier(), {"lr": [0.01, 0.02]}, cv=2, scoring=scoring, refit=refit, **options
    ).fit(X, y)
    again = saved(search, path)
    assert again.best_params_ == search.best_params_
    assert again.best_score_ == search.best_score_
    assert again.cv_results_.keys() == search.cv_results_.keys()
    pd.testing.assert_frame_equal(pd.DataFrame(again.cv_results_), pd.DataFrame(search.cv_results_))
    assert (again.predict_proba(X) == search.predict_proba(X)).all()
    assert again.score(X, y) == search.score(X, y)
    assert again.fit(X, y).best_params_ == search.best_params_


def test_a_searchs_splitter_and_scorer_of_ours_are_kept(frame, y, path):
    model = Pipeline(
        [("encode", HistorySequenceEncoder(drop=["user", "time"])), ("din", tiny_classifier())]
    )
    scorer = group_roc_auc_scorer("user")
    search = GridSearchCV(model, {"din__lr": [0.01]}, cv=TimeSplit(2, time="time"), scoring=scorer)
    again = saved(search.fit(frame, y), path)
    assert repr(again.cv) == repr(search.cv)
    assert again.score(frame, y) == search.score(frame, y)


@pytest.mark.parametrize(
    "estimator",
    [
        DINClassifier(class_weight={0: 1.0, np.int64(1): np.float32(2.5)}, batch_size=np.int64(64)),
        DINClassifier(embedding_dim={"item": 8}, attention_normalization=None, verbose=1),
        DINClassifier(hidden_units=[20, 10], random_state=np.random.RandomState(3)),
        HistorySequenceEncoder(histories={("hist_item", "hist_category"): ("item", "category")}),
        HistorySequenceEncoder(histories={"tags": None}, drop=np.array(["a", "b"])),
        HistoryBuilder(user="u", time="t", columns=("i",), max_age=pd.Timedelta("3D")),
        HistoryBuilder(user="u", time="t", columns="i", max_age=dt.timedelta(days=3)),
    ],
    ids=["weights", "widths", "random state", "aligned", "none and array", "pandas time", "time"],
)
def test_every_parameter_survives_with_its_type(estimator, path):
    again = saved(estimator, path)
    for name, value in estimator.get_params().items():
        found = again.get_params()[name]
        assert type(found) is type(value)
        if isinstance(value, np.random.RandomState):
            assert (found.get_state()[1] == value.get_state()[1]).all()
            assert found.get_state()[2:] == value.get_state()[2:]
        else:
            np.testing.assert_equal(found, value)


ZONE = dt.timezone(dt.timedelta(hours=2))
VALUES = {
    "integers": [3, 1, 2**60],
    "large integers": [2**70, -(2**80)],
    "text": ["hat", "Schuh", "", "kaffee ☕"],
    "booleans": [True, False],
    "dates": [dt.date(2024, 1, 2), dt.date(1999, 12, 31)],
    "datetimes": pd.to_datetime(["2024-01-02 03:04:05.123456", "1999-12-31 01:02:03.5"]),
    "zoned": pd.to_datetime(["2024-01-02 03:04", "1999-12-31 00:00"]).tz_localize("Europe/Berlin"),
    "offset": [dt.datetime(2024, 1, 2, tzinfo=ZONE), dt.datetime(2024, 1, 3, tzinfo=dt.UTC)],
    "intervals": pd.interval_range(0, 3),
    "mixed": [1, "one", True, (1, "a"), dt.date(2024, 1, 1), b"\0\1", decimal.Decimal("1.10")],
    "others": [uuid.UUID(int=5), dt.time(3, 4), dt.timedelta(seconds=9), frozenset({1, 2})],
}


@pytest.mark.parametrize("kind", VALUES)
def test_vocabularies_of_every_kind_survive(kind, path):
    values = pd.Series(VALUES[kind])
    if kind in ("text", "mixed", "others", "offset", "large integers"):
        values = pd.Series(VALUES[kind], dtype=object)
    frame = pd.DataFrame({"id": values.sample(20, replace=True, random_state=0).array})
    encoder = HistorySequenceEncoder(categorical=["id"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = encoder.fit_transform(frame)
        again = saved(encoder, path)
        assert (again.transform(frame)["id"] == X["id"]).all()
    assert again.vocabularies_["id"].tolist() == encoder.vocabularies_["id"].tolist()
    pairs = zip(again.vocabularies_["id"], encoder.vocabularies_["id"], strict=True)
    assert all(type(one) is type(other) for one, other in pairs)


COLUMNS = {
    "text": pd.Series(["a", None, "b"]),
    "python text": pd.Series(["a", None, "b"], dtype=pd.StringDtype("python", na_value=pd.NA)),
    "objects": pd.Series(["a", None, 3, np.nan, pd.NaT], dtype=object),
    "nullable": pd.Series([1, None, 3], dtype="Int64"),
    "small nullable": pd.Series([1, None, 3], dtype="UInt8"),
    "nullable floats": pd.Series([1.5, None], dtype="Float32"),
    "nullable booleans": pd.Series([True, None], dtype="boolean"),
    "categories": pd.Series(["x", None, "y"], dtype=pd.CategoricalDtype(["y", "x"], ordered=True)),
    "zoned": pd.Series(pd.to_datetime(["2024-01-01", None])).dt.tz_localize("Europe/Berlin"),
    "utc": pd.Series(pd.to_datetime(["2024-01-01", None], utc=True)),
    "coarse times": pd.Series(np.array(["2024-01-01", "NaT"], dtype="M8[s]")),
    "durations": pd.Series(pd.to_timedelta([1, None], unit="h")),
    "arrow": pd.Series([1, None], dtype="int64[pyarrow]"),
    "arrow text": pd.Series(["a", None], dtype="string[pyarrow]"),
    "halves": pd.Series([1.5, 2.5], dtype="float16"),
    "none": pd.Series([], dtype="int64"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_every_dtype_survive(kind):
    frame = pd.DataFrame({"column": COLUMNS[kind], 7: np.arange(len(COLUMNS[kind]))})
    state = write_state(frame)
    assert not state.objects
    pd.testing.assert_frame_equal(read_state(state), frame)


@pytest.mark.parametrize(
    "value",
    [
        *(float("inf"), -0.0, 10**40, "\udc80", b"", (), {}, {1: {2}}, {(1, None): [()]}),
        *(np.float16(0.1), np.bool_(True), np.str_("a"), np.datetime64("2024-01-01", "D")),
        *(np.timedelta64(3, "W"), np.array("ab"), np.array([["a", "bcd"]]), np.zeros((0, 3))),
        *(
            np.array([1, "a", None], dtype=object),
            np.array(["\udc80", ""], dtype=object),
            np.array(5),
            np.ma.array([1, 2], mask=[1, 0]),
        ),
        *(np.arange(6).reshape(2, 3).T, np.arange(4, dtype=">i4"), pd.Index(["a", "b"], name="n")),
    ],
    ids=repr,
)
def test_every_plain_value_survives_with_its_type(value):
    state = write_state(value)
    found = read_state(state)
    assert not state.objects
    assert type(found) is type(value)
    np.testing.assert_equal(np.asarray(found), np.asarray(value))
    assert repr(found) == repr(value) or isinstance(value, np.ndarray)


def test_metadata_requests_and_own_attributes_are_kept(path):
    with config_context(enable_metadata_routing=True):
        classifier = tiny_classifier().set_fit_request(groups=True, sample_weight=False)
    classifier.note = {"who": "ann", "at": dt.date(2024, 1, 1)}
    for again in (saved(classifier, path), pickle.loads(pickle.dumps(classifier))):
        assert again.note == classifier.note
        assert again.get_metadata_routing().fit.requests == {"groups": True, "sample_weight": False}


class AddWeekday(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.seen_ = len(X)
        return self

    def transform(self, X):
        return X


def test_steps_of_others_need_trust_by_name(fitted, frame, path):
    pytest.importorskip("skops", reason="steps of other packages need '.[safe]'")
    model = Pipeline([("same", FunctionTransformer()), *fitted.steps])
    assert (saved(model, path).predict_proba(frame) == fitted.predict_proba(frame)).all()
    model = Pipeline([("day", AddWeekday().fit(frame)), *fitted.steps])
    save(model, path, overwrite=True)
    name = f"{AddWeekday.__module__}.AddWeekday"
    assert inspect(path)["untrusted"] == [name]
    with pytest.raises(SafeFileError, match=rf"pass trusted=\['{name}'\]"):
        load(path)
    assert load(path, trusted=[name])["day"].seen_ == len(frame)


def test_what_cannot_be_kept_is_named_with_its_remedy(fitted, path):
    pytest.importorskip("skops", reason="steps of other packages need '.[safe]'")
    classifier = DINClassifier(callbacks=[EpochScoring("roc_auc")])
    function = FunctionTransformer(lambda X: X)
    model = Pipeline([("same", function), fitted.steps[0], ("din", classifier)])
    with pytest.raises(ValueError, match=r"save keeps estimators.*") as caught:
        save(model, path)
    message = str(caught.value)
    assert "steps.same (FunctionTransformer, skops cannot keep it" in message
    assert "steps.din.callbacks[0] (EpochScoring): set callbacks=None before saving" in message
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("model", [DINClassifier, "model", None, {}], ids=repr)
def test_only_estimators_are_saved(model, path):
    with pytest.raises(TypeError, match="save needs an estimator such as a fitted Pipeline"):
        save(model, path)


def test_invalid_parameters_are_refused_when_saved(path):
    with pytest.raises(ValueError, match="The 'lr' parameter of DINClassifier must be"):
        save(DINClassifier(lr=-1.0), path)


def test_integers_that_no_array_can_hold_are_refused(path):
    with pytest.raises(ValueError, match="max_length must fit into 64 bits, got one of 67"):
        save(HistorySequenceEncoder(max_length=10**20), path)


def test_a_file_is_replaced_only_where_that_is_said(fitted, path):
    save(DINClassifier(), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"exists\. Choose another, or pass overwrite=True"):
        save(fitted, path)
    assert path.read_bytes() == before
    save(fitted, path, overwrite=True)
    assert path.read_bytes() != before
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_write_leaves_the_old_file(fitted, path, monkeypatch):
    save(DINClassifier(), path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("sklearn_din.serving.safe_file.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(fitted, path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def rewritten(path, **changes):
    """The file with another manifest."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    for key, value in changes.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_newer_protocol_names_the_version_to_install(path):
    save(DINClassifier(), path)
    rewritten(path, protocol=2, versions={"sklearn_din": "7.8.9"})
    with pytest.raises(
        SafeFileError, match=r"protocol 2 .* up to 1\. Install sklearn_din>=7\.8\.9"
    ):
        load(path)


def test_other_versions_of_libraries_give_one_warning(path):
    save(Pipeline([("encode", HistorySequenceEncoder()), ("din", DINClassifier())]), path)
    rewritten(path, versions={"torch": "9.0.0", "numpy": "8.0", "python": "2.7"})
    with pytest.warns(UserWarning, match="was saved with torch 9.0.0") as caught:
        load(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    rewritten(
        path,
        versions={"torch": f"{torch.__version__.split('+')[0]}+cu999", "numpy": np.__version__},
    )
    load(path)


def test_networks_come_back_on_the_device_that_is_asked_for(fitted, frame, path, monkeypatch):
    classifier = pickle.loads(pickle.dumps(fitted["din"]))
    classifier.net_.device = "cuda"  # as if it had been trained on a GPU
    again = saved(classifier, path)
    X = fitted["encode"].transform(frame)
    assert again.net_.device == "cpu"
    assert (again.predict_proba(X) == fitted["din"].predict_proba(X)).all()
    assert load(path, device="auto").net_.device == "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU that torch can use, and there is none"):
            load(path, device="cuda")
        with pytest.warns(UserWarning, match="trained on 'cuda', which this machine lacks"):
            pickle.loads(pickle.dumps(classifier))
    with pytest.raises(ValueError, match="device must be a torch device such as 'cpu'"):
        load(path, device="gpu")


def test_inspect_tells_what_a_file_holds_without_building_it(fitted, path, monkeypatch):
    save(fitted, path)
    monkeypatch.setattr(DINClassifier, "restore", None)
    contents = inspect(path)
    assert [its["kind"] for its in contents["objects"]] == [
        *("HistorySequenceEncoder", "DINClassifier", "Pipeline"),
    ]
    assert contents["protocol"] == 1
    assert contents["versions"]["torch"] == str(torch.__version__)
    arrays = contents["objects"][1]["arrays"]
    assert arrays["fitted.network.weights.output.bias"] == ("float32", (1,))
    assert contents["untrusted"] == []


def test_files_of_others_are_refused_in_one_sentence(path):
    for content in (b"", b"no zip at all", pickle.dumps(DINClassifier())):
        path.write_bytes(content)
        with pytest.raises(
            SafeFileError, match=r"load needs a whole, unchanged file.*it is no zip"
        ):
            load(path)


def test_weights_that_are_not_finite_are_not_loaded(fitted, path):
    broken = pickle.loads(pickle.dumps(fitted["din"]))
    with torch.no_grad():
        broken.module_.output.bias.fill_(float("nan"))
    save(broken, path)
    with pytest.raises(SafeFileError, match=r"weights 'output\.bias' must be finite"):
        load(path)


def test_skops_needs_our_class_names_alone(fitted, frame):
    skops_io = pytest.importorskip("skops.io", reason="needs '.[safe]'")
    content = skops_io.dumps(fitted)
    names = skops_io.get_untrusted_types(data=content)
    assert names == [
        "sklearn_din.estimator.DINClassifier",
        "sklearn_din.transformers.HistorySequenceEncoder",
    ]
    again = skops_io.loads(content, trusted=names)
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()


def test_skops_keeps_a_builder_with_its_clicks():
    skops_io = pytest.importorskip("skops.io", reason="needs '.[safe]'")
    rows, y = make_rows()
    builder = HistoryBuilder(user="user", time="time", columns="item").fit(rows, y)
    content = skops_io.dumps(builder)
    again = skops_io.loads(content, trusted=["sklearn_din.logs.history.HistoryBuilder"])
    assert again.events_.equals(builder.events_)


def test_joblib_files_warn_of_other_versions(fitted, frame, tmp_path, monkeypatch):
    joblib.dump(fitted, tmp_path / "model.joblib")
    state = fitted["din"].__getstate__()
    assert state["_sklearn_din_version"] == sklearn_din.__version__
    monkeypatch.setattr("sklearn_din.state.estimators.__version__", "9.9.9")
    with pytest.warns(UserWarning, match=r"was saved with sklearn_din .* \(here 9\.9\.9\)"):
        again = joblib.load(tmp_path / "model.joblib")
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()


def test_joblib_maps_weights_into_memory(fitted, frame, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()


def test_pickles_keep_callbacks_and_whatever_else_can_be_pickled(frame, y):
    X = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(frame)
    classifier = tiny_classifier(callbacks=[GradientNormClipping(1.0)]).fit(X, y)
    again = pickle.loads(pickle.dumps(classifier))
    assert isinstance(again.callbacks[0], GradientNormClipping)
    assert (again.predict_proba(X) == classifier.predict_proba(X)).all()


def test_a_network_of_the_users_own_is_pickled_as_it_is(fitted, frame):
    classifier = pickle.loads(pickle.dumps(fitted["din"]))
    classifier.module_.double()
    again = pickle.loads(pickle.dumps(classifier))
    assert next(again.module_.parameters()).dtype == torch.float64


def test_states_of_older_pickles_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="Load it with the version that saved it"):
        DINClassifier().__setstate__({"lr": 0.1})


def test_a_parameter_of_a_newer_version_is_named():
    state = DINClassifier().__getstate__()
    state["text"] = state["text"].replace('["lr", ', '["momentum", ')
    with pytest.raises(ValueError, match=r"no parameter 'momentum'\. A newer version may have"):
        DINClassifier().__setstate__(state)


def test_a_parameter_that_older_versions_lacked_gets_its_default():
    state = DINClassifier(patience=9).__getstate__()
    state["text"] = state["text"].replace('["patience", 9], ', "")
    classifier = DINClassifier.__new__(DINClassifier)
    classifier.__setstate__(state)
    assert classifier.patience == 4
