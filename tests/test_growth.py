"""partial_fit of encoder and classifier, and update: what grows, what stays, what goes on."""

import copy
import pickle
import zipfile
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder, load, save, update
from sklearn_din.encoding.vocabulary import IdRules, Vocabulary
from sklearn_din.features import EncodedFeatures, Schema
from sklearn_din.training import batches, growth
from sklearn_din.training.inputs import check_inputs
from sklearn_din.utils.scan import Scan
from tests.callbacks import On
from tests.click_frames import as_lists
from tests.encoded_impressions import make_impressions, make_labels, weights_of
from tests.fitted_pipelines import make_model
from tests.test_vocabulary import learn, occurrences


def grow(vocabulary, *columns, **parameters):
    sources = {f"column{i}": occurrences(values) for i, values in enumerate(columns)}
    return vocabulary.grow(sources, IdRules(**parameters), name="item")


@pytest.fixture(scope="module")
def later(frame):
    """The same impressions of other items and tags: 30 new ids."""
    later = frame.assign(item="new" + frame["item"])
    later["hist_item"] = [[f"new{item}" for item in cell] for cell in frame["hist_item"]]
    later["tags"] = [["hot"]] * len(frame)
    return later


@pytest.fixture
def model(fitted):
    return copy.deepcopy(fitted)


def arrays_in(path):
    """The arrays of a saved file; their names and times differ from file to file."""
    with zipfile.ZipFile(path) as file:
        return sorted(file.read(name) for name in file.namelist() if name.endswith(".npy"))


def update_beside(model, rows, later, y, folder):
    """The updated model, and the one before it is as if nothing had been."""
    save(model, folder / "before")
    answers, steps = model.predict_proba(rows), repr(model)
    newer = update(model, later, y)
    assert type(newer) is type(model)
    assert repr(model) == steps
    np.testing.assert_array_equal(model.predict_proba(rows), answers)
    save(model, folder / "after")
    assert arrays_in(folder / "before") == arrays_in(folder / "after")
    again = update(model, later, y).predict_proba(rows)
    np.testing.assert_array_equal(again, newer.predict_proba(rows))
    loaded = update(load(folder / "before"), later, y).predict_proba(rows)
    np.testing.assert_array_equal(loaded, again)
    assert abs(again - answers).max() > 1e-4
    return newer


def grown_untrained(classifier, X, y):
    """The classifier with the tables of X's vocabularies, and not a step of training."""
    schema = check_inputs(classifier, X, y, None, is_partial=True).X.schema
    grown, tables = copy.deepcopy(classifier), classifier.net_.neighbours_
    grown.net_, grown.schema_ = growth.grow(classifier.net_, tables.extend(schema)), schema
    return grown


# the vocabulary


@given(batches=st.lists(st.lists(st.integers(-3, 12) | st.none()), min_size=1, max_size=4),
       min_frequency=st.integers(1, 4))  # fmt: skip
def test_a_value_that_is_frequent_in_some_call_has_an_id_from_then_on(batches, min_frequency):
    batches = [[value for value in batch if value is not None] for batch in batches]
    vocabulary = learn(batches[0], min_frequency=min_frequency)
    for batch in batches[1:]:
        known = vocabulary.values.tolist()
        vocabulary = grow(vocabulary, batch, min_frequency=min_frequency)
        assert vocabulary.values.tolist()[: len(known)] == known
        assert vocabulary.values[len(known) :].tolist() == sorted(vocabulary.values[len(known) :])
    counts = [Counter(batch).items() for batch in batches]
    often = {value for batch in counts for value, count in batch if count >= min_frequency}
    assert set(vocabulary.values.tolist()) == often


def test_max_ids_takes_the_most_frequent_new_values_and_an_empty_vocabulary_their_kind():
    before = learn(["hat", "hat"], max_ids=3)
    after = grow(before, ["boot", "sock", "sock", "clog", "clog", "clog"], max_ids=3)
    assert after.values.tolist() == ["hat", "clog", "sock"]
    assert grow(after, ["boot"] * 9, max_ids=3).values.tolist() == ["hat", "clog", "sock"]
    empty = Vocabulary(np.empty(0, dtype=object))
    assert grow(empty, [3, 1]).values.dtype == np.int64
    assert grow(empty, ["hat"]).values.tolist() == ["hat"]


@pytest.fixture(scope="module")
def with_neighbours(frame, y):
    encoder = HistorySequenceEncoder(user="user", time="time", max_ids=40)
    return make_model(encoder, lr=0.02).fit(frame, y)


@pytest.fixture(scope="module")
def with_builder(frame, y):
    steps = make_model(lr=0.02, early_stopping=False).steps
    builder = HistoryBuilder(user="user", time="time", columns="item", prefix="past_")
    return Pipeline([("build", builder), *steps]).fit(frame, y)


# the encoder


def test_a_sequence_of_calls_counts_as_one_fit_on_all_rows(frame, later):
    parameters = {"drop": ["user", "time"]}
    rows = pd.concat([frame, later, later], ignore_index=True)
    parts = [rows[start : start + 150] for start in range(0, len(rows), 150)]
    grown = HistorySequenceEncoder(**parameters).fit(parts[0])
    for part in parts[1:]:
        assert grown.partial_fit(part) is grown
    whole = HistorySequenceEncoder(**parameters).fit(pd.concat(parts))
    for name, values in whole.vocabularies_.items():
        assert sorted(grown.vocabularies_[name]) == sorted(values)
        assert grown.schema_[name].n_ids == whole.schema_[name].n_ids
    names = whole.schema_.names("categorical", "history")
    mine, theirs = grown.transform(later), whole.transform(later)
    for name in names:
        first = grown.inverse_transform_ids(name, mine[name])
        assert (first == whole.inverse_transform_ids(name, theirs[name])).all()


def test_scales_and_roles_stay_and_a_bad_batch_changes_nothing(frame, later):
    priced = frame.assign(cost=frame["user"] / 3)
    encoder = HistorySequenceEncoder(drop=["user", "time"]).fit(priced)
    scales, names = encoder.scales_, encoder.schema_.names("numeric")
    X = encoder.partial_fit(later.assign(cost=np.nan)).transform(later.assign(cost=np.nan))
    assert encoder.scales_ == scales
    assert encoder.schema_.names("numeric") == names
    assert (X["cost"] == 0).all()
    encoder = HistorySequenceEncoder(drop=["user", "time"]).fit(frame)
    before = encoder.schema_
    with pytest.raises(ValueError, match="they share a vocabulary and could never match"):
        encoder.partial_fit(later.assign(category="hat"))
    assert encoder.schema_ is before
    assert not any("new" in str(item) for item in encoder.vocabularies_["item"])


# the classifier


@pytest.mark.parametrize("what", ["fitted", "with_neighbours"])
def test_growth_alone_changes_no_prediction_to_the_bit(what, request, frame, later, y):
    model = copy.deepcopy(request.getfixturevalue(what))
    before = model.predict_proba(frame)
    weights_before = model["din"].attention_weights(model["encode"].transform(frame))
    model["encode"].partial_fit(later)
    grown = grown_untrained(model["din"], model["encode"].transform(later), y)
    X = model["encode"].transform(frame)
    assert (grown.predict_proba(X) == before).all()
    pd.testing.assert_frame_equal(grown.attention_weights(X), weights_before)
    assert np.isfinite(grown.predict_proba(model["encode"].transform(later))).all()


def test_rows_of_known_ids_keep_their_weights_and_moments(model, later, y):
    old = model["din"]
    model["encode"].partial_fit(later)
    grown = grown_untrained(old, model["encode"].transform(later), y)
    optimizer, embeddings = grown.net_.optimizer_, grown.module_.embeddings
    square = optimizer.state[embeddings.tables["16"]]["square"]
    assert len(square) == len(embeddings.tables["16"])
    before = old.net_.optimizer_.state[old.module_.embeddings.tables["16"]]["square"]
    assert before.any()
    for name, n_known in old.module_.embeddings.sizes.items():
        known = old.module_.embeddings.weight(name)
        assert torch.equal(embeddings.weight(name)[:n_known], known)
        of_name = square[embeddings.offset_of[name] :][: embeddings.sizes[name]]
        first = old.module_.embeddings.offset_of[name]
        assert torch.equal(of_name[:n_known], before[first : first + n_known])
        assert (of_name[n_known:] == 0).all()
    new = embeddings.weight("item")[old.module_.embeddings.sizes["item"] :].detach()
    assert float(new.std()) == pytest.approx(embeddings.scale, rel=0.2)


@pytest.mark.parametrize("parameters", [{"interest": "paper"}, {"activation": "dice"}])
@pytest.mark.parametrize("random_state", [0, "instance"])
@pytest.mark.slow
def test_two_passes_equal_one_pass_and_one_more(parameters, random_state):
    """Without L2, which counts rows given twice twice; without hidden numbers, drawn per fit."""
    X = make_impressions(300, seed=3)
    y = make_labels(X)
    if "activation" in parameters:
        X = EncodedFeatures(
            Schema(X.schema.fields[1:], X.schema.behaviours),
            {name: X.columns[name] for name in ("item", "category")},
            X.behaviours,
        )

    def classifier(**more):
        state = np.random.RandomState(5) if random_state == "instance" else random_state
        its = {"early_stopping": False, "embedding_l2": 0.0, "batch_size": 50, **parameters}
        return DINClassifier(random_state=state, **its, **more)

    whole = classifier(max_epochs=3).fit(X, y)
    for parts in (
        classifier(max_epochs=2).fit(X, y).partial_fit(X, y),
        classifier().partial_fit(X, y).partial_fit(X, y).partial_fit(X, y),
        pickle.loads(pickle.dumps(classifier(max_epochs=1).fit(X, y))).partial_fit(X, y),
    ):
        if len(parts.history_) == 2:
            parts.partial_fit(X, y)
        torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=0)
        assert parts.n_iter_ == whole.n_iter_ == 3
        columns = ["epoch", "train_loss", "valid_loss", "valid_auc"]
        pd.testing.assert_frame_equal(parts.history_[columns], whole.history_[columns])
        states = [c.net_.optimizer_.state_dict()["state"] for c in (parts, whole)]
        torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_batch_size_that_fit_chose_stays(monkeypatch):
    X = make_impressions(40)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "LARGE_BATCH_ROWS", 10)
        classifier = DINClassifier(max_epochs=1, random_state=0).fit(X, make_labels(X))
    assert classifier.partial_fit(X, make_labels(X)).net_.batch_size_ == 1024
    classifier.set_params(batch_size=16).partial_fit(X, make_labels(X))
    assert classifier.net_.batch_size_ == 16


def test_labels_of_one_kind_and_classes_at_the_first_call():
    X, y = np.eye(4, dtype=np.float32), np.array(["skip", "skip", "skip", "skip"])
    with pytest.raises(ValueError, match=r"two classes, got \['skip'\]. In the first call"):
        DINClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"must have two classes, got \['pass'\]"):
        DINClassifier().partial_fit(X, y, classes=["pass"])
    classifier = DINClassifier(random_state=0).partial_fit(X, y, classes=["skip", "pass"])
    assert classifier.classes_.tolist() == ["pass", "skip"]
    classifier.partial_fit(X, np.array(["pass"] * 4), classes=["pass", "skip"])
    with pytest.raises(ValueError, match="classes must stay"):
        classifier.partial_fit(X, y, classes=["skip", "buy"])
    with pytest.raises(ValueError, match=r"y must hold the labels .* got \['buy'\]"):
        classifier.partial_fit(X, np.array(["skip", "buy", "skip", "skip"]))
    with pytest.raises(ValueError, match="must not be missing, got 1 NaN"):
        classifier.partial_fit(X, np.array(["skip", None, "skip", "skip"], dtype=object))


def test_weights_count_in_partial_fit_and_labels_may_be_of_half_precision():
    X, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    heavy, light = (
        DINClassifier(random_state=0, lr=0.05, max_epochs=1)
        .fit(X, y)
        .partial_fit(X, y, sample_weight=[1, share, 1, 1])
        for share in (50.0, 0.0)
    )
    assert heavy.predict_proba(X)[1, 1] > light.predict_proba(X)[1, 1]
    models = [DINClassifier(random_state=0, max_epochs=1) for _ in range(2)]
    for model, labels in zip(models, (y, y.astype(np.float16)), strict=True):
        model.fit(X, labels).partial_fit(X, labels)
    np.testing.assert_array_equal(*(model.decision_function(X) for model in models))


def test_parameters_that_need_another_network_are_refused(model, frame, y):
    X = model["encode"].transform(frame)
    classifier = model["din"].set_params(hidden_units=(7,), pooling="sum")
    with pytest.raises(ValueError, match="but pooling, hidden_units changed since"):
        classifier.partial_fit(X, y)
    with pytest.raises(ValueError, match="'lr' parameter"):
        classifier.set_params(lr=-1.0).partial_fit(X, y)


def test_other_catalogues_and_ids_not_learnt_yet_are_refused(model, frame, later, y):
    other = HistorySequenceEncoder(**model["encode"].get_params())
    X = other.fit(pd.concat([frame, later], ignore_index=True)).transform(later)
    assert X.schema["item"].n_ids > model["din"].schema_["item"].n_ids
    with pytest.raises(ValueError, match="another encoder than the one"):
        model["din"].partial_fit(X, y)
    with pytest.raises(ValueError, match="another encoder than the one"):
        model["din"].predict(X)
    model["encode"].partial_fit(later)
    with pytest.raises(ValueError, match=r"has learnt more ids since .*DINClassifier.partial_fit"):
        model.predict(frame)


@pytest.mark.parametrize("what", ["fitted", "with_neighbours"])
def test_rows_encoded_before_growth_are_still_taken(what, request, frame, later, y):
    model = copy.deepcopy(request.getfixturevalue(what))
    early = model["encode"].transform(frame)
    model = update(model, later, y)
    classifier = model["din"]
    assert early.schema["item"].n_ids < classifier.schema_["item"].n_ids
    assert (classifier.predict_proba(early) == model.predict_proba(frame)).all()
    assert (classifier.net_.score(early) == model.decision_function(frame)).all()
    classifier.partial_fit(early, y)
    assert classifier.schema_ == model["encode"].schema_
    assert model.predict_proba(later).shape == (len(later), 2)


def test_moments_of_another_network_are_neither_used_nor_saved(model, frame, later, y, tmp_path):
    other = clone(model).set_params(din__hidden_units=(7,)).fit(frame, y)["din"]
    model["din"].net_.module_ = other.module_
    with pytest.raises(ValueError, match="the network of this classifier was replaced"):
        update(model, later, y)
    save(model, tmp_path / "model.din")
    again = load(tmp_path / "model.din")
    assert not growth.can_go_on(again["din"].net_)
    assert (again.predict_proba(frame) == model.predict_proba(frame)).all()


def replace_optimizer(kind, by_groups=lambda groups: [{"params": of["params"]} for of in groups]):
    def replace(net, **_):
        net.optimizer_ = kind(by_groups(net.optimizer_.param_groups), lr=0.01)

    return On(train_begin=replace)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of torch's
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.slow
def test_a_model_that_an_optimizer_of_torchs_trained_is_saved_and_trained_on(
    kind, frame, later, y, tmp_path
):
    model = make_model(callbacks=[replace_optimizer(kind)], early_stopping=False).fit(frame, y)
    assert type(model["din"].net_.optimizer_) is kind
    save(model.set_params(din__callbacks=None), tmp_path / "model.din")
    again = load(tmp_path / "model.din")
    assert (again.predict_proba(frame) == model.predict_proba(frame)).all()
    expected = update(model, later, y).predict_proba(later)
    np.testing.assert_array_equal(update(again, later, y).predict_proba(later), expected)


def test_an_optimizer_of_one_group_is_refused_at_the_first_step(frame, y):
    def join(groups):
        return [parameter for of in groups for parameter in of["params"]]

    steps = []
    note = On(batch_end=lambda *_, **__: steps.append(1))
    callbacks = [replace_optimizer(torch.optim.SGD, join), note]
    with pytest.raises(ValueError, match=r"needs 2 groups .* dense ones .* SGD .* has 1\. Take"):
        make_model(callbacks=callbacks).fit(frame, y)
    assert not steps


def fail(net, **_):
    raise RuntimeError("in the middle")


@pytest.mark.parametrize(
    ("act", "error"),
    [(fail, RuntimeError), (lambda net, **_: net.training_.stop("user"), KeyboardInterrupt)],
)
@pytest.mark.parametrize("what", ["fitted", "with_neighbours"])
def test_a_training_that_fails_leaves_all_as_it_was(act, error, what, request, frame, later, y):
    model = copy.deepcopy(request.getfixturevalue(what))
    before, history = model.predict_proba(frame), model["din"].history_
    model["din"].set_params(callbacks=[On(batch_end=act)], batch_size=16)
    with pytest.raises(error):
        update(model, later, y)
    with pytest.raises(error):
        model["din"].partial_fit(model["encode"].transform(frame), y)
    assert (model.predict_proba(frame) == before).all()
    assert model["din"].history_ is history


# update


@pytest.mark.parametrize(("batch_size", "n_parts"), [(10, 8), (80, 3)])
def test_update_averages_the_weights_of_its_pass(batch_size, n_parts, model, later, y):
    along = []

    def note(net, **_):
        along.append(copy.deepcopy(net.module_.state_dict()))

    model["din"].set_params(batch_size=batch_size)
    twin = copy.deepcopy(model)
    X = twin["encode"].partial_fit(later).transform(later)
    twin["din"].set_params(callbacks=[On(train_begin=note, batch_end=note)]).partial_fit(X, y)
    ends = [round((len(along) - 1) * part / n_parts) for part in range(n_parts + 1)]
    counts = [n_parts / 2, *[1] * n_parts]
    assert len(set(ends)) == len(counts)
    for name, weight in twin["din"].module_.state_dict().items():
        by_part = torch.stack([along[end][name].double() for end in ends])
        average = torch.tensordot(torch.tensor(counts).double(), by_part, dims=1) / sum(counts)
        weight.copy_(average)
    model = update(model, later, y)
    assert model["din"].callbacks is None
    found, expected = (weights_of(one["din"]) for one in (model, twin))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert model["din"].schema_ == model["encode"].schema_


@pytest.mark.parametrize("what", ["fitted", "with_neighbours", "with_builder"])
@pytest.mark.slow
def test_an_update_leaves_its_model_as_if_nothing_had_been(
    what, request, frame, later, y, tmp_path
):
    model = request.getfixturevalue(what)
    again = frame.assign(time=frame["time"] + pd.Timedelta("90D"))
    for new in (later, again):  # of known ids alone the network's tables keep their sizes
        update_beside(model, frame, new, y, tmp_path)


def test_an_update_has_the_same_bits_whatever_torchs_default_dtype_is(model, later, y):
    expected = update(model, later, y).predict_proba(later)
    torch.set_default_dtype(torch.float64)
    try:
        found = update(model, later, y).predict_proba(later)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)


def test_steps_without_partial_fit_only_transform(fitted, frame, later, y):
    class Counting(StandardScaler):
        """A step that learns, and passes its rows on."""

        def fit(self, X, y=None):
            self.n_seen_ = np.array([len(X)])
            return self

        def partial_fit(self, X, y=None):
            self.n_seen_ += len(X)  # writes to what it has learnt
            return self

        def transform(self, X):
            return X

    same = FunctionTransformer()
    steps = [
        ("nothing", "passthrough"),
        ("inner", Pipeline([("same", same), ("count", Counting())])),
        ("encode", clone(fitted["encode"])),
        ("din", DINClassifier(max_epochs=1, random_state=0)),
    ]
    model = Pipeline(steps).fit(frame, y)
    newer = update(model, later, y)
    assert newer["inner"]["same"] is same
    assert newer["inner"]["count"].n_seen_ == len(frame) + len(later)
    assert model["inner"]["count"].n_seen_ == len(frame)


@pytest.mark.parametrize(("what", "as_form"), [
    ("fitted", "scan"), *product(["fitted", "with_builder"], ["frame", "polars"]),
], indirect=["as_form"])  # fmt: skip
def test_a_new_column_is_left_out_and_said(what, as_form, request, frame, y):
    later = as_form(as_lists(frame.assign(brand="red", score=0.5)))
    model = request.getfixturevalue(what)
    message = r"columns \['brand', 'score'\] were not there at fit: .* leave them out of X"
    with pytest.raises(ValueError, match=message):
        model[0].partial_fit(later, y)
    if isinstance(later, Scan):
        with pytest.raises(ValueError, match=message):
            update(model, later, y)
        return
    with pytest.warns(UserWarning, match=r"columns \['brand'\] were .* and are left out"):
        newer = update(model, later, y)  # score is read_events' own
    plain = as_form(as_lists(frame))
    expected = update(model, plain, y).predict_proba(plain)
    np.testing.assert_array_equal(newer.predict_proba(plain), expected)


@pytest.mark.parametrize("make", [pd.DataFrame, lambda X: pl.from_pandas(as_lists(X))])
@pytest.mark.parametrize("gone", [["price"], ["item"], ["price", "item"]])
def test_a_column_that_is_gone_names_the_way_which_works(fitted, frame, y, gone, make):
    later = make(frame.drop(columns=gone))
    message = r"(?s)now missing.*fit again without it, or give it as missing values: X\."
    with pytest.raises(ValueError, match=message) as error:
        update(fitted, later, y)
    filled = eval(str(error.value).split(": ")[-1][:-1], {"X": later})
    assert update(fitted, filled, y).predict_proba(filled).shape == (len(y), 2)


def test_update_says_what_it_takes_and_that_rows_are_clicks_alone(frame, y, model, later):
    for wrong in (HistorySequenceEncoder(), StandardScaler(), DINClassifier):
        with pytest.raises(TypeError, match="update needs a DINClassifier, DINRegressor, or"):
            update(wrong, frame, y)
    X = model["encode"].transform(frame)
    assert update(model["din"], X, y).n_iter_ == 3
    days = [later[y == 1]] * 4
    with pytest.warns(UserWarning, match="rows given to update are clicks: .* sample_negatives"):
        update(model, pd.concat(days), np.ones(len(days[0]) * 4, dtype=int))
