"""Lists, vectors, several labels and numbers: streamed, grown and served as they are in memory."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from sklearn_din import Ranker, export_onnx, load, load_onnx, save, scan_parquet, update
from tests.abilities import (
    ABILITIES,
    CANDIDATE,
    FRAME,
    GENRES,
    LABELS,
    answers,
    make_encoder,
    outputs,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the validation rows hardly follow"),
    pytest.mark.slow,
]  # in a few rows
FIRST, LATER = slice(0, 180), slice(180, 240)


def make_model(ability, **parameters):
    estimator, options, y = ABILITIES[ability]
    options = {"max_epochs": 2, "random_state": 0, "early_stopping": True, **options, **parameters}
    return Pipeline([("encode", make_encoder()), ("din", estimator(**options))]), y


@pytest.mark.parametrize("ability", ABILITIES)
def test_a_scan_gives_the_bits_of_its_frame_at_fit_from_the_cache_and_at_update(ability, tmp_path):
    plain, y = make_model(ability)
    target, path = list(y) if y.ndim == 2 else "y", tmp_path / "rows.parquet"
    FRAME.assign(**y if y.ndim == 2 else {"y": y}).to_parquet(path, row_group_size=70)
    frame = pd.read_parquet(path, columns=list(FRAME))
    expected = outputs(plain.fit(frame, y), frame)
    for is_given in (True, False):  # the second one reads what the first one encoded
        scan = scan_parquet(path, target=target, cache_dir=tmp_path / "cache", memory="1MB")
        streamed = make_model(ability)[0].fit(scan, y if is_given else scan.target_)
        for rows in (frame, scan):
            np.testing.assert_array_equal(outputs(streamed, rows), expected)
    plain, streamed = update(plain, frame, y), update(streamed, scan, y)
    np.testing.assert_array_equal(outputs(streamed, scan), outputs(plain, frame))


def test_a_scan_has_several_labels_in_a_frame_which_may_be_missing(tmp_path):
    names = list(LABELS)
    FRAME.assign(**LABELS).to_parquet(tmp_path / "rows.parquet", row_group_size=70)
    scan = scan_parquet(tmp_path / "rows.parquet", target=names)
    assert scan.target == names
    assert scan.columns == list(FRAME)
    assert list(scan[:0].target_) == names
    some = scan[200:100:-3]
    expected = LABELS[200:100:-3].to_numpy(dtype=float, na_value=np.nan)
    np.testing.assert_array_equal(some.target_.to_numpy(float, na_value=np.nan), expected)


@pytest.fixture(scope="module", params=ABILITIES)
def grown(request, tmp_path_factory):
    """A model that got new values, and its copies that were kept between."""
    model, y = make_model(request.param)
    model.fit(FRAME[FIRST], y[FIRST])
    later = FRAME[LATER].assign(film=["f9", "f0"] * 30, genres=[["new", "a"], ["b"]] * 30)
    path, saved, pickled = tmp_path_factory.mktemp("grown") / "model.din", model, model
    y = y[LATER]
    if isinstance(y, pd.DataFrame):
        y = y.assign(purchase=np.nan)
    for call in range(2):
        save(saved, path)
        saved, pickled = load(path), pickle.loads(pickle.dumps(pickled))
        rows = slice(call, None)
        model, saved, pickled = (
            update(some, later[rows], y[rows]) for some in (model, saved, pickled)
        )
    return model, (saved, pickled), later


def test_a_model_that_is_kept_between_updates_learns_the_same(grown):
    model, copies, later = grown
    assert model[0].vocabularies_["genres"].tolist()[-1] == "new"
    for copy in copies:
        np.testing.assert_array_equal(outputs(copy, later), outputs(model, later))


def test_a_grown_model_is_ranked_and_exported(grown, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs pip install 'sklearn-din[onnx]'")
    model, _, later = grown
    later = later.assign(time=1000)  # rankings answer for now
    users = later[-3:].drop(columns=[*CANDIDATE, "rank"])  # no position yet
    films = pd.DataFrame({"film": [*GENRES, "f9", "f7"]})
    films["genres"] = [*GENRES.values(), ["zz", "new"], ["c", "a"]]
    label = getattr(model[-1]._target, "names", [None])[-1]
    best = Ranker(model, films, label=label).rank(users, top_k=len(films))
    pairs = users.merge(films, how="cross")[later.columns.drop("rank").tolist()]
    expected = answers(model, pairs).reshape(3, len(films), -1)[..., -1]
    is_number = not hasattr(model[-1], "predict_proba")
    assert best.columns[-1] == ("prediction" if is_number else "probability")
    number = best["film"].map({film: n for n, film in enumerate(films["film"])})
    np.testing.assert_allclose(best.iloc[:, -1], expected[best["row"], number], rtol=1e-4)
    for layout in ("ranking", "rows"):
        export_onnx(model, tmp_path / "model.onnx", layout=layout)
        ranker = Ranker(load_onnx(tmp_path / "model.onnx"), films, label=label)
        found = ranker.rank(users, top_k=len(films))
        assert found.columns[-1] == best.columns[-1]
        np.testing.assert_allclose(found.iloc[:, -1], best.iloc[:, -1], rtol=1e-4)
        np.testing.assert_allclose(
            answers(load_onnx(tmp_path / "model.onnx"), pairs), answers(model, pairs), rtol=1e-4
        )
