"""save and load: the same bits, attributes and parameters; what cannot be kept is named."""

import datetime as dt
import importlib
import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.metrics import log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import EpochScoring, GradientNormClipping

import sklearn_din
from benchmarks import tampering
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    inspect,
    load,
    save,
    saving,
    trusted_types,
    update,
)
from sklearn_din.metrics import group_roc_auc_scorer
from sklearn_din.saving import ModelFileError
from sklearn_din.training.early_stopping import best_check
from tests.abilities import ABILITIES, FRAME, encode_grown, make_encoder, outputs
from tests.click_frames import assert_same_encoders
from tests.fitted_pipelines import make_rows
from tests.model_origins import make_origins, make_pipeline_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.din"


def saved(model, path, **options):
    save(model, path)
    return load(path, **options)


def tiny_classifier(**parameters):
    defaults = {"hidden_units": (4,), "attention_units": (3,), "embedding_dim": 2, "max_epochs": 1}
    return DINClassifier(**(defaults | {"random_state": 0} | parameters))


def test_what_users_read_is_the_same_after_loading(fitted, frame, path):
    again = saved(fitted, path)
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()
    assert repr(again) == repr(fitted)
    encoder, its = fitted["encode"], again["encode"]
    assert its.schema_ == encoder.schema_
    assert_same_encoders(its, encoder)
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
    assert its.net_.stop_reason_ == classifier.net_.stop_reason_
    assert its.module_ is its.net_.module_


def test_a_loaded_model_can_be_fitted_again_and_random_states_stay(fitted, frame, y, path):
    state, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    again = saved(fitted, path)
    assert (torch.random.get_rng_state() == state).all()
    assert (np.random.get_state()[1] == numbers).all()
    fresh = clone(again).fit(frame, y)
    assert (fresh.predict_proba(frame) == fitted.predict_proba(frame)).all()
    assert (saved(again, path).predict_proba(frame) == fitted.predict_proba(frame)).all()


@pytest.mark.parametrize(("kind", "own", "labels"), ABILITIES.values(), ids=ABILITIES)
def test_a_fit_is_of_float32_and_is_kept_whatever_torchs_default_dtype_is(kind, own, labels, path):
    model = kind(**own, max_epochs=1, random_state=0)
    expected = outputs(model.fit(make_encoder().fit_transform(FRAME), labels), encode_grown())
    torch.set_default_dtype(torch.float64)
    try:
        found = saved(clone(model).fit(make_encoder().fit_transform(FRAME), labels), path)
        assert torch.get_default_dtype() is torch.float64
        np.testing.assert_array_equal(outputs(found, encode_grown()), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_a_search_by_our_splitter_and_scorer_is_kept(frame, y, path):
    options = {"cv": TimeSplit(2, time="time"), "scoring": group_roc_auc_scorer("user")}
    search = GridSearchCV(make_pipeline_of(), {"din__lr": [0.01, 0.02]}, **options).fit(frame, y)
    again = saved(search, path)
    assert repr(again.cv) == repr(search.cv)
    assert again.best_params_ == search.best_params_
    pd.testing.assert_frame_equal(pd.DataFrame(again.cv_results_), pd.DataFrame(search.cv_results_))
    assert (again.predict_proba(frame) == search.predict_proba(frame)).all()
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


def test_steps_of_others_and_callbacks_need_trust_by_name(fitted, frame, path):
    model = Pipeline([("day", AddWeekday().fit(frame)), *fitted.steps])
    save(model, path)
    name = f"{AddWeekday.__module__}.AddWeekday"
    assert inspect(path)["untrusted"] == [name]
    with pytest.raises(ModelFileError, match=rf"pass trusted=\['{name}'\]"):
        load(path)
    assert load(path, trusted=[name])["day"].seen_ == len(frame)
    save(DINClassifier(callbacks=[EpochScoring("roc_auc")]), path)
    names = ["skorch.callbacks.scoring.EpochScoring", "skorch.utils.to_numpy"]
    assert inspect(path)["untrusted"] == names
    with pytest.raises(ModelFileError, match=r"not trusted.*EpochScoring', 'skorch"):
        load(path)
    assert load(path, trusted=names).callbacks[0].scoring == "roc_auc"


def test_what_cannot_be_kept_is_named_with_its_remedy(fitted, path):
    save(DINClassifier(), path)
    before = path.read_bytes()
    model = Pipeline([("same", FunctionTransformer(lambda X: X)), *fitted.steps])
    with pytest.raises(ValueError, match=r"save keeps.*lambda.*cannot be imported by name.*pickle"):
        save(model, path)
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_objects_that_hold_each_other_are_named_and_a_scorers_request_is_kept(path):
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(roc_auc_score).set_score_request(sample_weight=True)
    search = GridSearchCV(DINClassifier(), {"lr": [0.1]}, scoring=scorer)
    if scorer._metadata_request.owner is not scorer:  # older releases of scikit-learn: its name
        again = saved(search, path).scoring._metadata_request
        assert again.score.requests == {"sample_weight": True}
        path.unlink()
    search.itself = search
    with pytest.raises(ValueError, match="objects that hold each other, as scikit-learn's meta"):
        save(search, path)
    assert not path.exists()


def test_only_estimators_are_saved_and_into_folders_that_are_there(tmp_path):
    for model in (DINClassifier, "model", None, {}):
        with pytest.raises(TypeError, match="save needs an estimator such as a fitted Pipeline"):
            save(model, tmp_path / "m.din")
    with pytest.raises(FileNotFoundError, match=r"m\.din needs a folder that is there.*models'"):
        save(DINClassifier(), tmp_path / "models" / "m.din")
    assert not list(tmp_path.iterdir())
    for use in (lambda path: save(DINClassifier(), path), load, inspect):
        with pytest.raises(IsADirectoryError, match=r"this is a folder: give the path of a file"):
            use(tmp_path)


def test_networks_come_back_on_the_device_that_is_asked_for(fitted, frame, path, monkeypatch):
    classifier = pickle.loads(pickle.dumps(fitted["din"]))
    classifier.net_.device = "cuda"  # as if it had been trained on a GPU
    again = saved(classifier, path)
    X = fitted["encode"].transform(frame)
    assert again.net_.device == "cpu"
    assert (again.predict_proba(X) == fitted["din"].predict_proba(X)).all()
    assert load(path, device="auto").net_.device == "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' needs a CUDA GPU"):
            load(path, device="cuda")
        with pytest.warns(UserWarning, match="trained on 'cuda', which this machine lacks"):
            pickle.loads(pickle.dumps(classifier))
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or"):
        load(path, device="gpu")


def test_inspect_tells_what_a_file_holds_without_building_it(fitted, path, monkeypatch):
    save(fitted, path)
    monkeypatch.setattr(DINClassifier, "__setstate__", None)
    contents = inspect(path)
    assert contents["model"] == "sklearn.pipeline.Pipeline"
    assert {"sklearn_din.estimator.DINClassifier", "numpy.ndarray"} <= set(contents["types"])
    assert contents["versions"]["torch"] == str(torch.__version__)
    assert contents["versions"]["sklearn_din"] == sklearn_din.__version__
    assert 0 < contents["n_bytes"] < path.stat().st_size
    assert contents["untrusted"] == []


@pytest.mark.parametrize("read", [load, inspect])
def test_files_of_others_are_refused_in_one_sentence(path, read):
    for content in (b"", b"no zip at all", pickle.dumps(DINClassifier())):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"no whole, unchanged file.*not a zip file.*Copy"):
            read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "a zip of another kind")
    with pytest.raises(ModelFileError, match=r"There is no item named 'schema\.json'"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(path.with_name("none.din"))


def test_a_zip_that_takes_more_memory_than_its_size_is_refused(fitted, path):
    save(fitted, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + b" " * (1 << 20))
    with pytest.raises(ModelFileError, match=r"its members are larger than it|is compressed"):
        load(path)
    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
    np.lib.format.write_array_header_1_0(header, shape)
    name = next(name for name in members if name.endswith(".npy"))
    with zipfile.ZipFile(path, "w") as archive:
        for other, content in (members | {name: header.getvalue()}).items():
            archive.writestr(other, content)
    with pytest.raises(ModelFileError, match="has not the size that its header states"):
        load(path)


@pytest.fixture(scope="module")
def judge(fitted, frame, tmp_path_factory):
    tampering.listen()
    rows = {"pipeline": frame.head(5)}
    return tampering.Judge({"pipeline": fitted}, rows, tmp_path_factory.mktemp("changed"))


@pytest.mark.parametrize("change", [*tampering.DAMAGES, *tampering.FORGERIES])
def test_a_changed_file_is_refused_or_a_model_and_runs_no_code(judge, change, request):
    """``python -m benchmarks.tampering`` draws thousands of changes."""
    chance = random.Random(request.node.name)
    content = change(chance, judge.saved["pipeline"])
    outcome, sentence = judge.outcome("pipeline", content, is_forged=change in tampering.FORGERIES)
    assert outcome != "WRONG", sentence


def test_code_that_a_file_would_run_is_noticed(judge, monkeypatch):
    monkeypatch.setattr(tampering, "load", lambda path: exec("1 + 1"))
    outcome, sentence = judge.outcome("pipeline", b"", is_forged=True)
    assert outcome == "WRONG"
    assert sentence.startswith("it ran code: ['exec")


def test_infinite_weights_and_newer_protocols_are_not_loaded(fitted, judge, path):
    broken = pickle.loads(pickle.dumps(fitted["din"]))
    with torch.no_grad():
        broken.module_.output.bias.fill_(float("nan"))
    save(broken, path)
    with pytest.raises(ModelFileError, match=r"weights 'output\.bias' must be finite"):
        load(path)
    changed = judge.saved["pipeline"]
    path.write_bytes(changed.zip_with_schema(changed.schema | {"protocol": 99}))
    with pytest.raises(ModelFileError, match="protocol"):
        load(path)


def test_skops_reads_and_writes_the_same_files(fitted, frame, path):
    """As MLflow does: the list of our types is all that it needs."""
    save(fitted, path)
    again = skops.io.load(path, trusted=trusted_types())
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()
    skops.io.dump(fitted, path)
    assert (load(path).predict_proba(frame) == fitted.predict_proba(frame)).all()
    types = {"estimator.DINClassifier", "transformers.HistorySequenceEncoder"}
    expected = {f"sklearn_din.{name}" for name in types}
    assert set(skops.io.get_untrusted_types(file=path)) == expected
    for name in trusted_types():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    assert set(saving.OWN_TYPES) <= set(trusted_types())


def test_files_and_pickles_warn_of_other_versions(fitted, frame, path, monkeypatch):
    save(fitted, path)
    content = pickle.dumps(fitted)
    monkeypatch.setattr("sklearn_din.utils.estimator_state.__version__", "9.9.9")
    for read in (lambda: load(path), lambda: pickle.loads(content)):
        with pytest.warns(UserWarning, match=r"was saved with sklearn_din .* \(here 9\.9\.9\)"):
            again = read()
        assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()


def test_pickles_keep_callbacks_and_networks_as_they_are(fitted, frame, y, tmp_path):
    X = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(frame)
    classifier = tiny_classifier(callbacks=[GradientNormClipping(1.0)]).fit(X, y)
    again = pickle.loads(pickle.dumps(classifier))
    assert isinstance(again.callbacks[0], GradientNormClipping)
    assert (again.predict_proba(X) == classifier.predict_proba(X)).all()
    classifier.module_.double()
    again = pickle.loads(pickle.dumps(classifier))
    assert next(again.module_.parameters()).dtype == torch.float64
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert (again.predict_proba(frame) == fitted.predict_proba(frame)).all()


# Models of every origin

ASK = """
import joblib, sys, sklearn_din
rows, expected = joblib.load(sys.argv[1])
for path in sys.argv[2:]:
    assert (sklearn_din.load(path).predict_proba(rows) == expected[path]).all(), path
"""


@pytest.mark.slow
def test_models_of_every_origin_predict_the_same_bits_in_a_fresh_process(tmp_path):
    """None asks for trust, and each can go on learning."""
    origins, rows = make_origins(tmp_path / "sources")
    paths = {name: tmp_path / f"{name}.din" for name in origins}
    later, y = rows.assign(time=rows["time"] + pd.Timedelta("60D"), item="newest"), make_rows()[1]
    expected = {}
    for name, model in origins.items():
        save(model, paths[name])
        expected[str(paths[name])] = model.predict_proba(rows)
        assert inspect(paths[name])["untrusted"] == []
        twins = [load(paths[name]), pickle.loads(pickle.dumps(model))]
        found = [update(twin, later, y).predict_proba(rows) for twin in twins]
        np.testing.assert_array_equal(*found, err_msg=name)
    kinds = [inspect(paths[name])["types"] for name in ("scan", "frame")]
    assert kinds[0] == kinds[1]  # a file tells nothing of where the rows lay
    assert b"rows.parquet" not in paths["scan"].read_bytes()
    joblib.dump((rows, expected), tmp_path / "truth.joblib")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(sklearn_din.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path / "truth.joblib")]
    subprocess.run([*command, *expected], check=True, cwd=elsewhere, env=environment)


def test_memory_that_does_not_suffice_is_named_whatever_zipfile_makes_of_it(tmp_path, monkeypatch):
    def run_out(*args, **kwargs):
        try:
            raise MemoryError
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    monkeypatch.setattr(skops.io, "dump", run_out)
    with pytest.raises(MemoryError, match="too little memory to save DINClassifier"):
        save(DINClassifier(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_figures_on_a_fits_own_validation_rows_are_kept_with_it(tmp_path):
    chance, n = np.random.default_rng(0), 3_000
    X = pd.DataFrame({"user": chance.integers(0, 50, n), "item": chance.integers(0, 40, n)})
    y = (chance.random(n) < chance.uniform(0.1, 0.9, 40)[X["item"]]).astype(int)
    classifier = DINClassifier(max_epochs=2, validation="last", random_state=0)
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = make_pipeline(encoder, classifier).fit(X.assign(time=range(n)), y)
    best = best_check(model[-1].net_.checks_)
    held_out, rate = y[-n // 10 :], y[: -n // 10].mean()
    assert best["base_loss"] == pytest.approx(log_loss(held_out, np.full(n // 10, rate)), abs=1e-4)
    assert best["valid_loss"] < best["base_loss"]
    predicted = [each["predicted"] for each in best["bins"]]
    assert (predicted, len(predicted)) == (sorted(predicted), 10)
    assert np.mean([each["observed"] for each in best["bins"]]) == pytest.approx(held_out.mean())
    save(model, tmp_path / "model.din")
    kept = best_check(load(tmp_path / "model.din")[-1].net_.checks_)
    assert kept["bins"] == best["bins"]
    assert kept["base_loss"] == best["base_loss"]
    assert kept["rows"] == [n - n // 10, n // 10]
