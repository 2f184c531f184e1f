"""Item neighbours: against plain loops, without a look at the future, in every place they reach."""

import copy
import functools
import operator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold

from sklearn_din import (
    DINClassifier,
    EncodedFeatures,
    Field,
    HistorySequenceEncoder,
    Schema,
    attach_aggregates,
    attach_history,
    export_onnx,
    load,
    load_onnx,
    rank_candidates,
    save,
    scan_parquet,
)
from sklearn_din.encoding import histories
from sklearn_din.features import Behaviour, Ragged
from sklearn_din.neighbours import cooccurrence, holding, item_scores
from sklearn_din.neighbours import pairs as neighbour_pairs
from sklearn_din.neighbours.blocks import NOT_COUNTED, ByUser, OrderedRows
from sklearn_din.neighbours.cooccurrence import Interactions
from sklearn_din.neighbours.holding import scores_hold
from sklearn_din.neighbours.levels import UserLevels
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.network import number_bins
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.shrinkage import LEAST_PRIOR, MOST_PRIOR, PRIOR_ROWS
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.typed_fields import from_dict, to_dict
from tests.fitted_pipelines import attach_clicks, make_model

pytestmark = pytest.mark.slow

HOUR = pd.Timedelta("1h")


@pytest.fixture(autouse=True)
def every_attribute_has_neighbours(monkeypatch):
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 3)


@pytest.fixture(scope="module")
def log():
    return attach_clicks(n_users=120, n_items=60, n_categories=8, mean_length=12, random_state=0)


def encode(X, **parameters):
    """Encoded rows as an encoder that knows user and time gives them."""
    columns = {"user": "user", "time": "time"} | parameters
    return HistorySequenceEncoder(**columns).fit_transform(X)


def learn(encoded, y, *, order="time"):
    """Tables, and the training rows with their numbers; no levels of users."""
    return learn_neighbours(encoded, np.asarray(y) == 1, order=order)


def numbers_of(X, neighbour_tables=None):
    """The columns of item neighbours by name; before they were scaled, where tables are given."""
    pairs = () if neighbour_tables is None else neighbour_tables.pairs
    scales = {n: scale for p in pairs for n, scale in zip(p.names, p.scale, strict=True)}
    return {f.name: X[f.name] * scales.get(f.name, 1) for f in X.schema.fields if f.candidate}


def blocks_of_times(times):
    """A row's block follows from how many rows are earlier."""
    return np.array([5 * (times < time).sum() // len(times) for time in times])


def plain_numbers(X, y, counted, asked, column, row, first):
    """One row's fourteen numbers by loops, from the items that each user has in some rows."""
    sets = {}
    for other in range(len(X)):
        if counted[other]:
            mine = sets.setdefault(X["user"].iloc[other], set())
            mine |= set(X[f"hist_{column}"].iloc[other][-50:])
            if y[other]:
                mine.add(X[column].iloc[other])
    candidate, events = asked[column].iloc[row], list(asked[f"hist_{column}"].iloc[row][-50:])
    items = sorted({item for own in sets.values() for item in own})
    if not items:
        return np.zeros(14)
    place = {item: n for n, item in enumerate(items)}
    had = np.zeros((len(sets), len(items)))
    for n, own in enumerate(sets.values()):
        had[n, [place[item] for item in own]] = 1
    gram = had.T @ had
    inverse = np.linalg.inv(gram + item_scores.EASE_L2 * np.eye(len(items)))
    found = []
    for score in ("ease", "cosine"):
        values = []
        for event in events:
            if event not in place or candidate not in place or event == candidate:
                values.append(0.0)
                continue
            i, j = place[event], place[candidate]
            if score == "ease":
                values.append(-inverse[i, j] / inverse[j, j])
            else:
                root = np.sqrt(gram[i, i] * gram[j, j])
                values.append(gram[i, j] / (root + item_scores.SHRINKAGE))
        decayed = sum(v * 0.8**rank for rank, v in enumerate(reversed(values)))
        n = max(len(values), 1)
        raw = [sum(values), sum(values) / n, max(values, default=0.0), (values or [0])[-1], decayed]
        found += [np.sign(v) * np.log1p(abs(v)) for v in raw]
    share = gram[place[candidate], place[candidate]] if candidate in place else 0.0
    popularity = np.log1p(share / gram.diagonal().mean())
    seen = np.flatnonzero(counted)
    own = seen[X[column].iloc[seen].to_numpy() == candidate]
    rate, prior = y[seen].mean(), plain_prior(X[column].to_numpy()[first], y[first])
    odds = (y[own].sum() + prior * rate) / ((1 - y[own]).sum() + prior * (1 - rate))
    click_rate = np.log(odds * (1 - rate) / rate) if len(own) else 0.0
    evidence = len(own) / (len(own) + prior)
    return np.array([*found, popularity, click_rate, float(popularity > 0), evidence])


def plain_prior(items, y):
    """Strength of a beta prior: the variance within items over that between them, by its names."""
    groups = [y[items == item] for item in np.unique(items)]
    if not 1 < len(groups) < len(y):
        return PRIOR_ROWS
    between = sum(len(g) * (g.mean() - y.mean()) ** 2 for g in groups) / (len(groups) - 1)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (len(y) - len(groups))
    usual = (len(y) - sum(len(g) ** 2 for g in groups) / len(y)) / (len(groups) - 1)
    if between <= within:
        return MOST_PRIOR
    correlation = (between - within) / (between + (usual - 1) * within)
    return np.clip((1 - correlation) / correlation, LEAST_PRIOR, MOST_PRIOR)


@pytest.mark.parametrize("max_length", [50, 3])  # the loops read whole histories
@pytest.mark.parametrize("order", ["time", "user"])
def test_numbers_are_those_of_plain_loops(log, order, max_length):
    assert f"{item_scores.N_NUMBERS} per behaviour" in " ".join(DINClassifier.__doc__.split())
    X, y = log
    rng = np.random.RandomState(0)
    rows = rng.choice(len(X), 300, replace=False)  # in no order
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=max_length).fit(X)
    X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    learnt, trained = learn(encoder.transform(X), y, order=order)
    late = X.assign(user=-1 - X["user"], time=X["time"].max() + HOUR)
    late.loc[::3, ["item", "category"]] = -1  # candidates that nobody knows
    times = X["time"].to_numpy()
    parts = np.array([Keys.read(np.array([str(user)])).hashes[0] % 5 for user in X["user"]])
    blocks = blocks_of_times(times)
    ends = [times[blocks == block].max() for block in range(5)]
    for asked in (None, X, X.assign(time=X["time"] - HOUR), late):
        is_training, asked = asked is None, X if asked is None else asked
        encoded = trained if is_training else learnt.add_to(encoder.transform(asked))
        numbers = numbers_of(encoded, learnt)
        for column in ("item", "category"):
            names = [name for name in numbers if name.startswith(f"hist_{column}_")]
            ours = np.column_stack([numbers[name] for name in names])
            for row in (*rng.choice(len(X), 8, replace=False), times.argmax()):  # and a block's end
                first = (blocks if order == "time" else parts) == 0
                if order == "time":
                    ended = [end for end in ends if end < asked["time"][row]]
                    counted = times <= max(ended, default=times.min() - HOUR)
                elif is_training:
                    counted = parts < parts[row]
                else:
                    counted = (parts != parts[row]) | (asked is late)
                wanted = plain_numbers(X, y, counted, asked, column, row, first)
                np.testing.assert_allclose(ours[row], wanted, atol=2e-5)


@pytest.mark.parametrize("order", ["time", "user"])
def test_a_row_reads_the_same_numbers_whenever_it_is_asked_for(log, order):
    X, y = log
    encoded = encode(X)
    learnt, trained = learn(encoded, y, order=order)
    for again in (encoded, encode(X[::-1])[::-1]) if order == "time" else ():
        for name, values in numbers_of(learnt.add_to(again)).items():
            np.testing.assert_array_equal(values, trained[name])
    now = learnt.add_to(encode(X.drop(columns=["user", "time"]), user=None, time=None))
    for pair in learnt.pairs:  # nothing says whose or when: all that is known
        numbers = np.column_stack([now[name] for name in pair.names]) * pair.scale
        ragged = encoded.behaviours["hist_item", "hist_category"]
        events = ragged.whole, ragged.columns[pair.history]
        expected = pair.scores.numbers(encoded.columns[pair.candidate], *events)
        np.testing.assert_allclose(numbers, expected, atol=1e-5)


def coin_flips(columns):
    """Rows of users who click by chance."""
    rng = np.random.RandomState(0)
    log = pd.DataFrame({"user": rng.randint(100, size=3000), "item": rng.randint(300, size=3000)})
    log, y = log.assign(time=np.arange(3000)), rng.randint(2, size=3000)
    X = attach_history(log, log[y == 1], user="user", time="time", columns=["item"])
    return X[[*columns.values(), "item", "hist_item"]], y


@pytest.mark.filterwarnings("ignore:histories of hist_item hold less")  # the first rows of a log
@pytest.mark.parametrize("split", [KFold(3), KFold(3, shuffle=True, random_state=0), GroupKFold(3)])
@pytest.mark.parametrize("columns", [{"user": "user", "time": "time"}, {"user": "user"}])
def test_columns_tell_nothing_of_coin_flips_by_any_split(split, columns):
    """Clicks are the events: a test row's own click stands in later histories of its user."""
    X, y = coin_flips(columns)
    for train, test in split.split(X, y, X["user"] if isinstance(split, GroupKFold) else None):
        encoder = HistorySequenceEncoder(**columns).fit(X.iloc[train])
        options = {"order": [*columns][-1], "y": y[train]}
        learnt, _ = learn_neighbours(encoder.transform(X.iloc[train]), y[train] == 1, **options)
        numbered = learnt.add_to(encoder.transform(X.iloc[test]))
        added = pd.DataFrame({n: numbered[n] for n in learnt.names}, index=X.index[test])
        for rows in (train, slice(None)) if "time" in columns else ():  # or of the test rows too
            log = X.iloc[rows].assign(click=y[rows])
            for key in ("item", "user"):
                rate = {"rate": (key, "click", "shrunk_rate")}
                so_far = attach_aggregates(X.iloc[test], log, time="time", aggregates=rate)
                added[f"{key} of {len(log)}"] = so_far["rate"].fillna(0.5)  # of the first row
        n_ones = y[test].sum()
        spread = np.sqrt((1 / n_ones + 1 / (len(test) - n_ones)) / 12)
        for values in added.to_numpy().T:
            assert abs(roc_auc_score(y[test], values) - 0.5) < 4 * spread


def test_of_equal_weights_the_first_ones_are_kept(monkeypatch):
    monkeypatch.setattr(item_scores, "MOST_NEIGHBOURS", 4)
    weights = np.random.default_rng(0).integers(-3, 4, (20, 20)).astype(np.float32)
    weights[3, 2:] = 0
    matrix = item_scores._sparse(weights, np.arange(2, 22), 23)
    for row, sizes in enumerate(np.abs(weights)):
        order = sorted(range(20), key=lambda column, of=sizes: (-of[column], column))[:4]
        expected = np.zeros(23)
        expected[2:][order] = weights[row, order]
        np.testing.assert_array_equal(matrix[[row + 2]].toarray()[0], expected)
    assert matrix.data.all()


def test_only_the_best_neighbours_and_their_counts_are_kept(monkeypatch, log):
    X, y = log
    monkeypatch.setattr(item_scores, "MOST_NEIGHBOURS", 3)
    monkeypatch.setattr(item_scores, "MOST_WHOLE", 25)
    monkeypatch.setattr(item_scores, "MOST_EXACT", 20)
    monkeypatch.setattr(neighbour_pairs, "MOST_COUNTED", 0)
    pair = learn(encode(X), y)[0].pairs[0]
    assert np.diff(pair.scores.cosine.indptr).max() == 3
    assert np.count_nonzero(np.diff(pair.scores.ease.indptr)) == 20
    monkeypatch.undo()
    whole = learn(encode(X), y)[0].pairs[0]
    full = whole.scores.cosine.toarray()
    wanted = np.zeros_like(full)
    for row, values in enumerate(full):
        best = np.argsort(-values, kind="stable")[:3]  # of equal ones the first
        wanted[row, best] = values[best]
    np.testing.assert_array_equal(pair.scores.cosine.toarray(), wanted)
    kept = cooccurrence.both_triangles(pair.counts[0]).toarray()
    every = cooccurrence.both_triangles(whole.counts[0]).toarray()
    popular = np.argsort(-every.diagonal(), kind="stable")[:20]
    wanted = (pair.scores.cosine + pair.scores.cosine.T).toarray() > 0
    wanted |= np.eye(len(every), dtype=bool)
    wanted[np.ix_(popular, popular)] = True
    np.testing.assert_array_equal(kept, np.where(wanted, every, 0))
    again = from_dict(NeighbourPair, to_dict(pair))
    assert pair.counts[0].dtype == again.counts[0].dtype == np.float32


def test_events_that_rows_of_two_users_share_belong_to_both():
    spans = Spans(np.array([0, 1, 2]), np.array([2, 2, 1]))
    history = Ragged({"hist": np.array([2, 3, 4], "int32")}, spans)
    fields = (Field("item", "categorical", "item", 9), Field("hist", "history", "item", 9))
    schema = Schema(fields, (Behaviour("hist", ("hist",), ("item",), max_length=2),))
    columns = {"item": np.array([5, 6, 7], dtype="int32")}
    X = EncodedFeatures(schema, columns, {("hist",): history}, users=np.array([7, 8, 7]))
    _, rows = ByUser.place(X, np.array([False, True, False]))
    gathered = Interactions.gather(X, rows, "hist", "item")
    assert gathered.users.tolist() == [0, 0, 0, 1, 1, 1]
    assert gathered.items.tolist() == [2, 3, 4, 3, 4, 6]


@pytest.mark.parametrize(("file", "sizes"), [
    (item_scores, {"EVENTS_PER_CHUNK": 37}),
    (item_scores, {"ZEROS_PER_EVENT": 0}),  # each event is searched for
    (item_scores, {"ZEROS_PER_EVENT": 10**9, "FEW_EVENTS": 0}),
    (cooccurrence, {"CHUNK_ITEMS": 7, "CHUNK_PAIRS": 300}),
])  # fmt: skip
def test_the_sizes_of_what_is_read_change_nothing(file, sizes, monkeypatch, log):
    encoded = encode(log[0])
    learnt, trained = learn(encoded, log[1])
    expected = numbers_of(learnt.add_to(encoded)), numbers_of(trained)
    for name, size in sizes.items():
        monkeypatch.setattr(file, name, size)
    again, trained = learn(encoded, log[1])
    for rows, before in zip((learnt.add_to(encoded), trained), expected, strict=True):
        for name, numbers in numbers_of(rows).items():
            np.testing.assert_array_equal(numbers, before[name])
    assert again.digest() == learnt.digest()


@pytest.mark.parametrize("max_length", [50, 3])
def test_numbers_of_mapped_rows_are_those_in_memory(monkeypatch, log, tmp_path, max_length):
    X, y = log
    encoded = encode(X, max_length=max_length)
    learnt, twin = learn(encoded, y)
    monkeypatch.setattr(cooccurrence, "ROWS_PER_BLOCK", 64)
    monkeypatch.setattr(cooccurrence, "PENDING_KEYS", 50)
    encoded.store = SimpleNamespace(memory=1000, parent=None, path=tmp_path)
    mapped_tables, trained = learn(encoded, y)
    later = mapped_tables.add_to(encoded)
    expected = numbers_of(learnt.add_to(encoded))
    for name, values in numbers_of(twin).items():
        assert isinstance(trained[name], np.memmap)
        np.testing.assert_allclose(trained[name], values, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(later[name], expected[name], rtol=1e-6, atol=1e-7)


def test_the_same_rows_find_their_numbers_beside_them(monkeypatch, log, tmp_path):
    X, y = log
    encoded = encode(X)
    encoded.store = SimpleNamespace(memory=1000, parent=tmp_path, path=tmp_path / "rows")
    learnt, trained = learn(encoded, y)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.delattr(neighbour_pairs, "_learn_pair")
        again, kept = learn(encoded, y)
    for name, values in numbers_of(trained).items():
        np.testing.assert_array_equal(kept[name], values)
        np.testing.assert_array_equal(again.add_to(encoded)[name], learnt.add_to(encoded)[name])
    for others in ((encoded, 1 - y), (encoded[:-1], y[:-1])):
        learn(*others)
    learn(encoded, y, order="user")
    assert len(list(tmp_path.iterdir())) == 4


def test_that_they_are_off_and_that_a_growth_leaves_rows_out_is_logged_once(log, caplog):
    X, y = log
    rows = pd.concat([X] * 3, ignore_index=True)[:1000].drop(columns=["user", "time"])
    many = encode(rows, user=None, time=None)
    for _ in range(2):
        assert choose_order(many, "auto") is None
    assert choose_order(many[:999], "auto") is None
    assert [record.getMessage()[:23] for record in caplog.records] == ["item neighbours are off"]
    caplog.clear()
    encoded = encode(X)
    learnt, again = learn(encoded, y)[0], encoded[np.arange(1000) % len(encoded)]
    for rows in (again, again, again[:999]):
        learnt.grow(rows, *np.zeros((2, len(rows)), dtype=bool))
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("1,000 of 1,000 rows are not later than those that item neighbours")


def test_names_of_the_frame_stay_theirs_and_rows_of_nobody_are_each_of_a_user(log):
    X, y = log
    X = X.assign(user=X["user"].mask(np.arange(len(X)) % 7 == 0))
    _, trained = learn(encode(X.assign(hist_item_ease_sum=1.5)), y, order="user")
    assert {"hist_item_ease_sum", "hist_item_ease_sum_"} <= set(trained.keys())
    assert all(np.isfinite(values).all() for values in numbers_of(trained).values())


@pytest.fixture
def least_ids(monkeypatch):
    """As many as everywhere else."""
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 64)


HISTORIES = ["hist_item", "hist_category"]


def test_no_more_than_the_newest_thousand_count(log, monkeypatch):
    X, y = log
    monkeypatch.setattr(histories, "MOST_EVENTS", 5)
    encoded = encode(X, max_length=2)
    learnt, _ = learn(encoded, y)
    monkeypatch.undo()
    lists = {name: [cell[-5:] for cell in X[name]] for name in HISTORIES}
    expected = numbers_of(learnt.add_to(encode(X.assign(**lists))))
    for name, values in numbers_of(learnt.add_to(encoded)).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.usefixtures("least_ids")
def test_every_way_to_predict_counts_older_events_and_knows_the_user(log, tmp_path):
    X, y = log
    X["price"] = X["price"].astype(float)
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=3)
    model = make_model(encoder, neighbours="time").fit(X, y)
    rows = X[-200:].reset_index(drop=True).drop(columns="time")
    expected = model.predict_proba(rows)[:, 1]
    newest = rows.assign(**{name: [cell[-3:] for cell in rows[name]] for name in HISTORIES})
    for other in (newest, rows.drop(columns="user")):  # no event is older; nobody is named
        assert np.abs(model.predict_proba(other)[:, 1] - expected).max() > 1e-3
    save(model, tmp_path / "model.din")
    np.testing.assert_array_equal(load(tmp_path / "model.din").predict_proba(rows)[:, 1], expected)
    rows_of_parquet = tmp_path / "rows.parquet"
    rows.to_parquet(rows_of_parquet)
    stored = model.predict_proba(scan_parquet(rows_of_parquet))[:, 1]
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    users = X[["user", "device", *HISTORIES]][-3:].reset_index(drop=True)
    candidates = X[["item", "category", "price"]].drop_duplicates("item")[:30]
    best = rank_candidates(model, users, candidates, top_k=30).sort_values(["row", "item"])
    pairs = users.merge(candidates.sort_values("item"), how="cross")[rows.columns]
    np.testing.assert_allclose(best["probability"], model.predict_proba(pairs)[:, 1], atol=1e-6)
    export_onnx(model, tmp_path / "model.onnx")
    loaded = load_onnx(tmp_path / "model.onnx")
    np.testing.assert_allclose(loaded.predict_proba(rows)[:, 1], expected, atol=2e-6)
    without = model.predict_proba(newest)[:, 1]
    np.testing.assert_allclose(loaded.predict_proba(newest)[:, 1], without, atol=2e-6)
    again = rank_candidates(loaded, users, candidates, top_k=30).sort_values(["row", "item"])
    np.testing.assert_allclose(again["probability"], best["probability"], atol=2e-6)


@pytest.mark.usefixtures("least_ids")
def test_the_classifier_s_inputs_are_the_ordered_numbers(log, monkeypatch):
    monkeypatch.setattr(number_bins, "LEAST_ROWS", np.inf)  # learnt numbers have none, columns have
    X, y = log
    encoded, plain = encode(X), {"max_epochs": 2, "random_state": 0}
    plain["early_stopping"] = False  # no folds, which learn numbers of their own
    classifier = DINClassifier(**plain).fit(encoded, y)
    learnt, trained = learn_neighbours(encoded, y == 1, order="time", y=y)
    assert [*map(type, learnt.parts)] == [NeighbourPair, UserLevels]
    assert classifier.schema_ == encoded.schema
    assert classifier.module_.schema == trained.schema
    twin = DINClassifier(neighbours=None, **plain).fit(trained, y)
    later = learnt.add_to(encoded)
    np.testing.assert_array_equal(classifier.predict_proba(encoded), twin.predict_proba(later))
    found = classifier.net_.predict_proba(encoded)
    np.testing.assert_array_equal(found, classifier.net_.predict_proba(later))
    assert classifier.attention_weights(encoded[:9]).equals(twin.attention_weights(later[:9]))


@pytest.mark.parametrize("max_length", [50, 4])
def test_later_clicks_are_counted_as_fit_would_have(max_length):
    """Where every event is a clicked row and no history is cut, growing equals fitting all."""
    rng = np.random.RandomState(0)
    clicks = pd.DataFrame({"user": rng.permutation(np.repeat(np.arange(20), 12))})
    clicks = clicks.assign(item=rng.randint(16, size=240), time=np.arange(240))
    clicks.loc[200:, "item"] = rng.randint(20, size=40)  # new items among them
    stranger = pd.DataFrame({"user": [99], "item": [3], "time": [-1]})  # shown, not clicked
    shown = pd.concat([stranger, clicks], ignore_index=True)
    X = attach_history(shown, clicks, user="user", time="time", columns=["item"])
    y = np.arange(241) > 0
    encoder = HistorySequenceEncoder(user="user", time="time", max_length=max_length)
    whole = learn(encoder.fit_transform(X), y)[0].pairs[0]
    known = encoder.vocabularies_["item"]
    parts, _ = learn(encoder.fit_transform(X[:150]), y[:150])
    for rows in (slice(150, 190), slice(190, 241)):
        encoder.partial_fit(X[rows])
        parts = parts.grow(encoder.transform(X[rows]), y[rows], y[rows])
        again = parts.grow(encoder.transform(X[rows]), y[rows], y[rows])
        assert again.digest() == parts.digest()  # rows given twice
    order = np.r_[0, 1, 2 + np.searchsorted(known, encoder.vocabularies_["item"])]
    wanted = cooccurrence.both_triangles(whole.counts[0]).toarray()
    ours = cooccurrence.both_triangles(parts.pairs[0].counts[0]).toarray()
    np.testing.assert_array_equal(ours, wanted[np.ix_(order, order)])
    ease = whole.scores.ease.toarray()[np.ix_(order, order)]
    np.testing.assert_allclose(parts.pairs[0].scores.ease.toarray(), ease, atol=1e-6)


@pytest.mark.parametrize("columns", [{"user": "user", "time": "time"}, {"user": "user"}])
def test_rows_given_twice_do_not_look_their_own_clicks_up(columns):
    """The events are the clicks, nothing tells labels: whoever knows the rows would know them."""
    X, y = coin_flips(columns)
    encoder = HistorySequenceEncoder(**columns)
    encoded = encoder.fit_transform(X)
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    classifier.fit(encoded[:2400], y[:2400])
    twice, looked_up = encoded[1800:2400], []
    for _ in range(2):
        looked_up.append(classifier.net_.neighbours_.add_to(twice))
        classifier.partial_fit(twice, y[1800:2400])
    looked_up.append(classifier.net_.neighbours_.add_to(twice))
    for rows in looked_up:
        for values in numbers_of(rows).values():
            assert abs(roc_auc_score(y[1800:2400], values) - 0.5) < 0.1
    loss = log_loss(y[2400:], classifier.predict_proba(encoded[2400:])[:, 1])
    assert loss < 0.75
    encoded.times = encoded.users = None
    with pytest.raises(ValueError, match=r"have no (time|user)s, but item neighbours were learned"):
        classifier.partial_fit(encoded, y)


def test_attributes_with_few_ids_have_none_and_users_with_many_items_are_cut(monkeypatch, log):
    X, y = log
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 64)
    assert [pair.history for pair in learn(encode(X), y)[0].pairs] == ["hist_item"]
    monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", 8)  # categories, without padding and unknown
    both = [pair.history for pair in learn(encode(X), y)[0].pairs]
    assert both == ["hist_item", "hist_category"]
    encoded = encode(X)
    n_items = X["item"].nunique()
    for least, order in ((n_items, "user"), (n_items + 1, None)):
        monkeypatch.setattr(neighbour_pairs, "LEAST_ITEMS", least)
        monkeypatch.setattr(neighbour_pairs, "LEAST_IDS", least)
        assert choose_order(encoded, "user") == order  # levels of users need times
        assert len(learn(encoded, y)[0].pairs) == (order is not None)
    assert choose_order(encoded, "auto") == "time"  # of users' levels alone
    users, items = np.repeat([0, 1], [50, 3]), np.r_[np.arange(2, 52), [2, 3, 4]]
    both = cooccurrence.Interactions(users, items, np.zeros(53, dtype=int), (2, 52))
    assert both.cap() is both
    monkeypatch.setattr(cooccurrence, "MOST_PAIRS", 500)
    cut = both.cap()
    assert np.bincount(cut.users).tolist() == [15, 3]
    assert len(set(cut.items[cut.users == 0])) == 15


@pytest.mark.parametrize(("slopes", "n_ones", "hold"), [
    ((0, 1, 1, 1, 1), None, True),
    ((0, 1, 1, 1, -1), None, False),
    ((0, 1, 1, 1, -1), 1, True),  # too few clicks to know
    ((0, -1, 1), None, False),
    ((1, -1), None, True),  # no block to learn from has numbers
])  # fmt: skip
def test_scores_hold_unless_the_last_block_is_predicted_better_without(slopes, n_ones, hold):
    rng, n = np.random.RandomState(0), 400 * len(slopes)
    blocks, numbers = np.repeat(np.arange(len(slopes)), 400), rng.normal(size=(n, 14))
    clicked = rng.random_sample(n) < expit(np.take(slopes, blocks) * numbers[:, 0])
    if n_ones is not None:
        clicked = np.arange(n) == 500
    numbers[blocks == 0] = 0
    blocks[::100] = NOT_COUNTED  # rows without a time
    order = rng.permutation(n)
    rows = OrderedRows(np.arange(n), blocks.astype(np.int8)[order], clicked[order])
    assert scores_hold(numbers.astype(np.float32)[order], [], rows) is hold


def test_neither_users_that_differ_nor_one_row_nor_a_drifting_rate_decides_that_scores_hold():
    rng, blocks = np.random.RandomState(0), np.repeat(np.arange(5, dtype=np.int8), 400)

    def rows_of(odds):
        return OrderedRows(np.arange(2000), blocks, rng.random_sample(2000) < expit(odds))

    level, numbers = rng.normal(size=(2000, 1)), np.zeros((2000, 14))
    numbers[:, 1] = rng.normal(size=2000)
    rows = rows_of(2 * level[:, 0] + numbers[:, 1] / 2)
    numbers[:, 0] = np.where(blocks < 4, 1, -1) * level[:, 0] + rng.normal(size=2000)
    assert [scores_hold(numbers, levels, rows) for levels in ([], [level])] == [False, True]
    numbers = np.c_[rng.normal(size=(2000, 1)), np.zeros((2000, 13))]
    rows = rows_of(np.array([0, 1, -1, 1, -1])[blocks] * numbers[:, 0])
    for numbers[-1, 0] in (0, 1e6, -1e6):
        assert not scores_hold(numbers, [], rows)
    for slope in (0.5, -0.5):  # of a rate that drifts; the scores tell the time alone
        rows = rows_of(slope * (blocks - 2))
        numbers = (blocks[:, None] + rng.normal(size=(2000, 14))) * (blocks[:, None] > 0)
        numbers[:, 10:] = 0
        assert not scores_hold(numbers, [], rows)


@pytest.mark.parametrize(("slopes", "rate", "is_click", "hold"), [
    ((0, 0.3, 0.3, 0.3, 0.3), 0.5, False, True),  # scores hold, and one row speaks against them
    ((0, 0.7, 0.7, 0, 0), 0.03, True, False),  # they do not, and a rare click speaks for them
])  # fmt: skip
def test_one_row_outweighs_no_others(slopes, rate, is_click, hold):
    rng, blocks = np.random.RandomState(0), np.repeat(np.arange(5, dtype=np.int8), 400)
    numbers = np.c_[rng.normal(size=(2000, 1)), np.zeros((2000, 13))]
    odds = np.log(rate / (1 - rate)) + np.take(slopes, blocks) * numbers[:, 0]
    clicked = rng.random_sample(2000) < expit(odds)
    rows = OrderedRows(np.arange(2000), blocks, clicked)
    assert scores_hold(numbers, [], rows) is hold
    numbers[-1, 0], clicked[-1] = 1e6, is_click
    assert scores_hold(numbers, [], rows) is hold


@pytest.mark.parametrize("order", ["time", "user"])
def test_numbers_of_small_logs_are_bounded_for_every_row(order):
    largest = 0
    for seed in range(12):
        rng = np.random.RandomState(seed)
        shown = {"user": rng.randint(20, size=900), "item": rng.randint(300, size=900)}
        log, y = pd.DataFrame(shown).assign(time=np.arange(900)), rng.random_sample(900) < 0.3
        X = attach_history(log, log[y], user="user", time="time", columns=["item"])
        encoder = HistorySequenceEncoder(user="user", time="time").fit(X[:400])
        learnt, trained = learn(encoder.transform(X[:400]), y[:400], order=order)
        weights, [pair] = np.abs(learnt.pairs[0].scores.ease.data), learnt.pairs
        assert weights.min(initial=1) >= item_scores.LEAST_WEIGHT
        asked = learnt.add_to(encoder.transform(X[400:]))
        for rows in (trained, asked):
            largest = max(largest, *(np.abs(rows[name]).max() for name in pair.names))
    assert 10 < largest <= np.sqrt(400)  # as far as a number of 400 rows can be from the mean


@pytest.mark.usefixtures("least_ids")
def test_no_number_is_larger_in_an_onnx_file(log, tmp_path, monkeypatch):
    X, y = log
    monkeypatch.setattr(neighbour_pairs, "LARGEST", np.float32(1))
    model = make_model(max_epochs=1).fit(X, y)
    asked = X[-200:].assign(time=X["time"].max() + HOUR)
    expected = model.predict_proba(asked)
    export_onnx(model, tmp_path / "model.onnx")
    loaded = load_onnx(tmp_path / "model.onnx").predict_proba(asked)
    np.testing.assert_allclose(loaded, expected, atol=2e-6)
    monkeypatch.setattr(neighbour_pairs, "LARGEST", np.float32(50))
    assert np.abs(make_model(max_epochs=1).fit(X, y).predict_proba(asked) - expected).max() > 1e-3


def test_scores_that_do_not_hold_are_zeros_everywhere(log, monkeypatch, tmp_path):
    X, y = log
    encoded = encode(X)
    kept = numbers_of(learn(encoded, y)[1])
    monkeypatch.setattr(holding, "scores_hold", lambda numbers, others, rows: False)
    learnt, at_fit = learn(encoded, y)
    later = numbers_of(learnt.add_to(encoded))
    for name, values in numbers_of(at_fit).items():
        is_score = "_ease_" in name or "_cosine_" in name
        np.testing.assert_array_equal(values, 0 * kept[name] if is_score else kept[name])
        np.testing.assert_array_equal(later[name], values)
    assert NeighbourTables.from_dict(to_dict(learnt), encoded.schema).digest()
    model = make_model(max_epochs=1).fit(X, y)
    assert "for item (the history's scores are off" in model[-1].summary()
    asked = X[-20:].assign(time=X["time"].max() + HOUR)
    save(model, tmp_path / "model.din")
    export_onnx(model, tmp_path / "model.onnx")
    for read in (load(tmp_path / "model.din"), load_onnx(tmp_path / "model.onnx")):
        np.testing.assert_allclose(read.predict_proba(asked), model.predict_proba(asked), atol=1e-5)


@pytest.fixture(scope="module")
def plain_tables(log):
    """Schema of some rows, and their tables by order, as files hold them."""
    encoded, y, tables = encode(log[0]), log[1], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_pairs, "LEAST_IDS", 3)
        for order in ("time", "user"):
            tables[order] = to_dict(learn_neighbours(encoded, y == 1, order=order, y=y)[0])
    return encoded.schema, tables


PAIR, LEVELS = ("parts", 0), ("parts", -1)
TABLE = (*PAIR, "tables", 0)


@pytest.mark.parametrize(("place", "damage", "message"), [
    ((*TABLE, "cosine"), lambda m: m | {"columns": m["columns"] + 10**6}, "must lie between 0"),
    ((*TABLE, "ease"), lambda m: m | {"columns": m["columns"] * 0}, "in order, each once"),
    ((*TABLE, "ease"), lambda m: m | {"lengths": m["lengths"][:-1]}, "must lie between 0"),
    ((*TABLE, "popularity"), lambda its: its * np.nan, "neighbours must be finite"),
    ((*PAIR, "tables"), lambda its: its[:-1], "must have a table for each"),
    ((*PAIR, "counts"), lambda its: (its[0] | {"values": -its[0]["values"]},), "triangle"),
    ((*PAIR, "counts"), lambda its: its[0], r"NeighbourPair\.counts cannot be"),
    ((*PAIR, "clicked"), lambda its: its + 10**6, "more often than it was shown"),
    ((*PAIR, "scale"), lambda its: its * 0, "scale of item neighbours must be positive"),
    ((*PAIR, "names"), lambda its: its[:3], "14 columns with names"),
    (("order", "ends"), lambda ends: ends[::-1].copy(), "in ascending order"),
    (("order", "ends"), lambda ends: ends[:3], "must be int64 of shape"),
    (("order", "ends"), lambda ends: ends.view("M8[D]"), "in a known unit"),
    (("order", "ends"), lambda ends: np.append(ends.view("M8[s]"), [None]), "in a known unit"),
    (("order", "users"), lambda users: users[::-1].copy(), "in ascending order"),
    (("order", "users"), lambda users: users.astype(int), "must be uint64"),
    ((*LEVELS, "users"), lambda users: users[::-1].copy(), "in ascending order"),
    ((*LEVELS, "totals"), lambda totals: totals + 1e6, "must lie between 0 and 1"),
    ((*LEVELS, "n_rows"), lambda its: its[:, :3], "levels of users must be float32 of shape"),
    ((*LEVELS, "priors"), lambda priors: -priors, "cannot be negative"),
    ((*LEVELS, "averages"), lambda averages: averages + 1, "must lie between 0 and 1"),
])  # fmt: skip
def test_damaged_tables_are_refused(plain_tables, place, damage, message):
    schema, plain = plain_tables
    plain = copy.deepcopy(plain["user" if place == ("order", "users") else "time"])
    assert NeighbourTables.from_dict(plain, schema).names
    *way, part = place
    damaged = functools.reduce(operator.getitem, way, plain)
    damaged[part] = damage(damaged.get(part))
    with pytest.raises(ValueError, match=message):
        NeighbourTables.from_dict(plain, schema)
