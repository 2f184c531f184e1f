"""A ranking equals scoring each pair alone."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    attach_history,
    explain,
    rank_candidates,
    remember,
    update,
)
from sklearn_din.encoding.rows import RowEncoder
from tests.fitted_pipelines import CANDIDATE, make_model, make_rows
from tests.network_options import ONE_BY_ONE
from tests.plain_memory import PlainMemory, begin_with, make_asked, make_memory, make_tellings
from tests.tables import said


def score_each_pair_alone(fitted, users, candidates):
    """The slow twin: one frame of one row per pair, through every step."""
    scores = np.empty((len(users), len(candidates)))
    for i in range(len(users)):
        for j in range(len(candidates)):
            both = (users.iloc[[i]], candidates.iloc[[j]])
            pair = pd.concat([row.reset_index(drop=True) for row in both], axis=1)
            names = [name for name in fitted.feature_names_in_ if name in pair]
            scores[i, j] = fitted.predict_proba(pair[names])[0, 1]
    return scores


def assert_scored_as_alone(ranking, fitted, users, candidates):
    """Each probability is that of the pair alone, found by its item."""
    expected = score_each_pair_alone(fitted, users, candidates)
    position = {item: number for number, item in enumerate(candidates["item"])}
    pairs = expected[ranking["row"], ranking["item"].map(position)]
    np.testing.assert_allclose(ranking["probability"], pairs, rtol=0, atol=1e-6)


@pytest.fixture
def pairs(users, candidates):
    """A fifth of all pairs, one of a stranger, and one without an item."""
    every = users[["user"]].merge(candidates[["item"]], how="cross")
    some = every.sample(frac=0.2, random_state=0)
    strange = pd.DataFrame({"user": [10**6, every["user"][0]], "item": ["i0", None]})
    return pd.concat([some, strange, some[:3]], ignore_index=True)


def filter_full_ranking(fitted, users, candidates, is_allowed, top_k):
    """The slow twin: rank every pair, then leave out and number again."""
    full = rank_candidates(fitted, users, candidates, top_k=10**6)
    pairs = zip(users["user"].to_numpy()[full["row"]], full["item"], strict=True)
    full = full[list(map(is_allowed, pairs))]
    full = full.assign(rank=full.groupby("row").cumcount() + 1)
    return full[full["rank"] <= top_k].reset_index(drop=True)


@pytest.mark.parametrize(
    ("chooses", "block"), [("exclude", 1), ("exclude", 65_536), ("only", 1), ("both", 65_536)]
)
def test_pairs_are_left_out_or_chosen_as_a_filter_of_the_full_ranking_would(
    fitted, users, candidates, pairs, monkeypatch, chooses, block
):
    named, had = (set(some.itertuples(index=False, name=None)) for some in (pairs, pairs[::2]))
    allowed, options = {
        "exclude": (lambda pair: pair not in named, {"exclude": pairs}),
        "only": (lambda pair: pair in named, {"only": pairs}),
        "both": (lambda pair: pair in named - had, {"only": pairs, "exclude": pairs[::2]}),
    }[chooses]
    expected = filter_full_ranking(fitted, users, candidates, allowed, top_k=3)
    monkeypatch.setattr("sklearn_din.serving.ranking.PAIRS_PER_BLOCK", block)
    ranking = rank_candidates(fitted, users, candidates, top_k=3, **options)
    pd.testing.assert_frame_equal(ranking, expected, rtol=0, atol=1e-6)


def test_what_is_in_the_history_is_left_out_known_or_not(fitted, users, candidates):
    users, new = users[:4].copy(), candidates[:1].assign(item="new")
    users["hist_item"] = [[*cell[:-1], "new"] for cell in users["hist_item"]]
    candidates = pd.concat([candidates, new], ignore_index=True)
    pairs = zip(users["user"], users["hist_item"], strict=True)
    had = {(user, item) for user, cell in pairs for item in cell}
    expected = filter_full_ranking(fitted, users, candidates, lambda pair: pair not in had, 20)
    ranking = rank_candidates(fitted, users, candidates, top_k=20, exclude="history")
    pd.testing.assert_frame_equal(ranking, expected, rtol=0, atol=1e-6)
    assert "new" not in ranking["item"].tolist()


def test_a_user_who_had_everything_gets_no_row_and_that_is_said(fitted, users, candidates):
    had = users[["user"]][:1].merge(candidates[["item"]], how="cross")
    with pytest.warns(UserWarning, match="exclude leaves no candidate for 1 of 2 users: the") as w:
        ranking = rank_candidates(fitted, users[:2], candidates, top_k=1, exclude=had)
    assert ranking["row"].tolist() == [1]
    assert w[0].filename == __file__
    with pytest.warns(UserWarning, match="exclude leaves no candidate for 1 of 1 users"):
        none = rank_candidates(fitted, users[:1], candidates, exclude=had)
    assert len(none) == 0
    pd.testing.assert_series_equal(none.dtypes, ranking.dtypes)
    for nobody in (users[:0], pa.Table.from_pandas(users[:0])):
        none = rank_candidates(fitted, nobody, candidates, exclude="history", only=["i1"])
        pd.testing.assert_frame_equal(none, rank_candidates(fitted, users, candidates)[:0])


@pytest.mark.parametrize("as_form", ["frame", "polars"], indirect=True)
def test_integers_and_text_that_spells_them_are_the_same_items(as_form):
    frame = pd.DataFrame({"user": [1, 2], "item": [7, 8], "hist_item": [[8], [7]]})
    model = make_pipeline(HistorySequenceEncoder(user="user"), DINClassifier(max_epochs=1))
    model.fit(frame, [0, 1])
    users, items = frame[["user", "hist_item"]], frame[["item"]]
    users, items = as_form(users.assign(hist_item=[["8"], ["7"]])), as_form(items)
    ranking = rank_candidates(model, users, items, exclude="history")
    assert list(ranking["item"]) == [7, 8]
    ranking = rank_candidates(model, users, items, exclude=frame[["user", "item"]].astype("Int64"))
    assert list(ranking["item"]) == [8, 7]


def test_a_ranker_encodes_the_catalogue_once(fitted, users, candidates, monkeypatch):
    encoded, encode = [], RowEncoder.encode_columns

    def note(rows, columns):
        encoded.append(len(columns.frame))
        return encode(rows, columns)

    monkeypatch.setattr(RowEncoder, "encode_columns", note)
    ranker = Ranker(fitted, candidates)
    together = ranker.rank(users, top_k=5)  # whatever the catalogue, each history once
    for row in range(len(users)):
        alone = ranker.rank(users.iloc[[row]], top_k=5)
        expected = together[together["row"] == row].assign(row=0).reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, expected, rtol=0, atol=1e-6)
    assert encoded == [len(candidates), len(users)] + [1] * len(users)


@pytest.mark.parametrize("chosen", [["i3", "i7", "new", None], ("i3",), np.array(["i7", "i3"])])
def test_items_are_pairs_of_all_and_a_dict_is_one_user(fitted, users, candidates, chosen):
    pairs = users[["user"]].merge(pd.DataFrame({"item": list(chosen)}), how="cross")
    for option in ("only", "exclude"):
        expected = rank_candidates(fitted, users, candidates, **{option: pairs})
        listed = rank_candidates(fitted, users, candidates, **{option: chosen})
        pd.testing.assert_frame_equal(listed, expected, rtol=0, atol=1e-6)
    ranker, row = Ranker(fitted, candidates), users.iloc[[2]]
    expected = ranker.rank(row, exclude="history")
    for user in ({name: row[name].iloc[0] for name in row}, users.iloc[2]):
        found = ranker.rank(user, exclude="history")
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-6)


def test_a_ranker_stays_with_its_model(frame_and_labels, users, candidates):
    frame, y = frame_and_labels
    frame = frame.drop(columns=["user", "time"])
    histories, drop = {"hist_item": "item"}, ["tags", "hist_category"]
    encoder = HistorySequenceEncoder(histories=histories, drop=drop)
    model = make_model(encoder, max_epochs=1, lr=0.05).fit(frame, y)
    later = frame.assign(item=["new", "newer"] * (len(frame) // 2) + ["new"] * (len(frame) % 2))
    items = pd.concat([candidates, candidates[:1].assign(item="new")])[CANDIDATE]
    user, y = users.iloc[[5]][["device", "hist_item", "age"]], 1 - y
    ranker = Ranker(model, items)
    before = ranker.rank(user, top_k=50)
    newer = update(model, later, y)
    pd.testing.assert_frame_equal(ranker.rank(user, top_k=50), before)
    after = Ranker(newer, items).rank(user, top_k=50)
    assert abs(after["probability"] - before["probability"]).max() > 1e-3
    rows = model[0].partial_fit(later).transform(later)
    with pytest.raises(ValueError, match="an encoder that has learnt more ids since"):
        ranker.rank(user)
    model[1].partial_fit(rows, y)
    expected = Ranker(model, items).rank(user, top_k=50)
    pd.testing.assert_frame_equal(ranker.rank(user, top_k=50), expected, rtol=0, atol=1e-6)


def test_a_ranker_refuses_a_mixed_column_at_the_second_user_at_the_latest(frame_and_labels):
    frame, y = frame_and_labels
    frame = frame[["item", "price", "age", "hist_item"]].fillna(1.0).assign(age=frame["user"] / 9)
    mix = FunctionTransformer(lambda X: X.assign(ratio=X["price"] / (1 + X["age"])))
    pipeline = make_pipeline(mix, HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    ranker = Ranker(pipeline.fit(frame, y), frame[["item", "price"]][:9])
    users = frame[["age", "hist_item"]]
    alone = ranker.rank(users[:1], top_k=9)
    expected = score_each_pair_alone(pipeline, users[:1], frame[["item", "price"]][:9])
    np.testing.assert_allclose(alone["probability"], -np.sort(-expected[0]), rtol=0, atol=1e-6)
    other = users[users["age"] != users["age"].iloc[0]]
    with pytest.raises(ValueError, match="ratio depends on both"):
        ranker.rank(other[:1])
    with pytest.raises(ValueError, match="ratio depends on both"):
        rank_candidates(pipeline, users[:40], frame[["item", "price"]][:9])


def test_missing_prices_of_a_memory_are_no_mixed_columns():
    rows, y = make_rows()
    memory = HistoryBuilder(user="user", time="time", columns=["item", "price"], events="all")
    model = make_pipeline(memory, *make_model(max_epochs=1)).fit(rows, y)
    users = rows.drop_duplicates("user", keep="last")
    assert np.isnan(np.concatenate([*memory.transform(users)["hist_price"]])).any()
    users, items = users[["user", "time"]], rows[["item", "price"]].drop_duplicates("item")[:3]
    assert_scored_as_alone(rank_candidates(model, users, items), model, users, items)


def test_ties_keep_the_order_of_the_catalogue(fitted, users, candidates):
    twice = candidates.iloc[[0, 0, 0]].assign(title=["a", "b", "c"])
    assert rank_candidates(fitted, users[:2], twice)["title"].tolist() == [*"abcabc"]


def test_a_search_ranks_and_explains_by_its_best_model(frame, y, users, candidates):
    cv = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(make_model(max_epochs=1), {"din__pooling": ["sum"]}, cv=cv).fit(frame, y)
    best = search.best_estimator_
    found, expected = (rank_candidates(model, users, candidates) for model in (search, best))
    pd.testing.assert_frame_equal(found, expected)
    pd.testing.assert_frame_equal(explain(search, frame[:5]), explain(best, frame[:5]))
    del search.best_estimator_
    with pytest.raises(TypeError, match="needs a model, got a GridSearchCV with refit=False"):
        rank_candidates(search, users, candidates)


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.slow
def test_older_events_of_a_candidate_count_as_in_each_pair_alone(behind):
    rng = np.random.default_rng(0)
    sold_in = {item: rng.integers(0, 80, 6).tolist() for item in range(20)}
    frame = pd.DataFrame({"user": np.arange(400) // 8, "item": rng.integers(0, 20, 400)})
    frame["shop"] = rng.integers(0, 80, 400)
    frame["hist_shop"] = [sold_in[item] for item in frame["item"]]
    y = [int(shop in cell) for shop, cell in zip(frame["shop"], frame["hist_shop"], strict=True)]
    steps = [FunctionTransformer()] if behind else []
    encoder = HistorySequenceEncoder(histories={"hist_shop": "shop"}, user="user", max_length=2)
    classifier = DINClassifier(max_epochs=1, lr=0.05, neighbours="user", random_state=0)
    model = make_pipeline(*steps, encoder, classifier).fit(frame, y)
    assert model[-1].net_.neighbours_.pairs
    users = frame[["user", "shop"]][::50]
    items = frame.drop_duplicates("item")[["item", "hist_shop"]]
    ranking = rank_candidates(model, users, items, top_k=20)
    assert_scored_as_alone(ranking, model, users.drop(columns="user"), items)


@pytest.mark.parametrize(("user", "columns", "said"), [
    (None, ["hist_item"], r"\['hist_item'\]"),
    ("user", ["user", "hist_item"], r"\['user', 'hist_item'\]"),
    ("user", ["hist_item"], r"\['hist_item'\]"),
])  # fmt: skip
def test_users_in_the_place_of_candidates_are_said(frame_and_labels, user, columns, said):
    frame, y = frame_and_labels
    encoder = HistorySequenceEncoder(user=user)
    seen = frame[["hist_item", "item", *([] if user is None else [user])]]
    model = make_pipeline(encoder, DINClassifier(max_epochs=1)).fit(seen, y)
    users, candidates = frame[columns][:3], frame[["item"]].drop_duplicates()
    rank_candidates(model, users, candidates)
    with pytest.warns(UserWarning, match=rf"candidates have {said}, which .* swapped\?"):
        rank_candidates(model, candidates, users)


def test_without_a_history_of_the_candidate_the_word_history_is_refused(frame_and_labels):
    frame, y = frame_and_labels
    model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    model.fit(frame[["item", "tags"]], y)
    users, items = frame[["tags"]][:2], frame[["item"]][:3]
    with pytest.raises(ValueError, match="exclude='history' needs candidates that are compared"):
        rank_candidates(model, users, items, exclude="history")
    with pytest.raises(ValueError, match="only as a list of items needs candidates that are"):
        rank_candidates(model, users, items, only=["i1"])


def test_rankings_by_a_memory_are_those_of_what_plain_loops_show():
    loop, (first, *later) = PlainMemory(), make_tellings()
    model = begin_with(make_memory(), max_epochs=2).fit(*first)
    loop.tell(*first, "known")
    items = first[0][["item"]].drop_duplicates()
    users = make_asked(first[0]).drop(columns="item").drop_duplicates(ignore_index=True)
    for rows, y in later:
        model = remember(model, rows, y)
        loop.tell(rows, y, "known")
        p = model[1:].predict_proba(loop.show(users.merge(items, how="cross")))[:, 1]
        ranked = rank_candidates(model, users, items).pivot(columns="item", index="row")
        expected = p.reshape(len(users), -1)
        np.testing.assert_allclose(ranked["probability"][items["item"]], expected, atol=1e-6)


def draw_rows(draw):
    """Rows of drawn columns: histories of ids, kinds, lists and numbers, and bags of both sides."""
    names = ["category", "genres", "answer", "age", "price", "tags", "labels", "income"]
    has, rows = dict(zip(names, draw.rand(8) < 0.5, strict=True)), []
    lengths = draw.choice([0, 1, 2, 5, 9], 60)
    lengths[21] = 0  # of a user who is ranked for
    for length in lengths:
        row = {"item": draw.choice(list("abcdefgh")), "price": draw.rand(), "income": draw.rand()}
        row |= {"category": draw.randint(3), "hist_category": draw.randint(3, size=length).tolist()}
        row["hist_item"] = draw.choice(list("abcdefgh"), length).tolist()
        row["buy_item"] = row["hist_item"][::3]
        lists = [draw.choice(list("xyz"), draw.randint(3)).tolist() for _ in range(length + 3)]
        row |= {"tags": lists[0], "labels": lists[1], "genres": lists[2], "hist_genres": lists[3:]}
        row["hist_answer"] = draw.choice(["yes", "no"], length).tolist()
        row["hist_price"] = [*draw.rand(length - 1), None] if length else []
        row["hist_age"] = np.sort(draw.rand(length) * 900)[::-1].tolist()
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.loc[::7, ["price", "income"]] = None
    return frame.drop(columns=[n for n in frame if not has.get(n.removeprefix("hist_"), True)])


def draw_model(options, seed):
    """A model of drawn columns, its frame, and the columns of the candidate."""
    draw = np.random.RandomState(seed)
    frame, labels = draw_rows(draw), (draw.rand(60) < 0.4).astype(int)
    small = {"embedding_dim": 4, "early_stopping": False, "max_epochs": 2, "lr": 0.05}
    small["attention_units"] = [(64, 16), (8,), (8, 4, 3)][draw.randint(3)]
    classifier = DINClassifier(random_state=0, **small, **options)
    model = make_pipeline(HistorySequenceEncoder(max_length=6), classifier).fit(frame, labels)
    of_items = ["item", "category", "genres", "price", "labels"]
    return model, frame, frame.columns.intersection(of_items)


PUBLISHED = {"interest": "paper", "attention_activation": "dice", "activation": "dice"}
DRAWN = [({}, 0), ({}, 1), (PUBLISHED, 2), *zip(ONE_BY_ONE, range(3, 99), strict=False)]


@pytest.mark.parametrize(("options", "seed"), DRAWN)
@pytest.mark.slow
def test_rankings_by_every_model_equal_scoring_each_pair_alone(options, seed, monkeypatch):
    monkeypatch.setattr("sklearn_din.training.batches.PAIRS_PER_BATCH", [1 << 17, 1][seed % 2])
    model, frame, columns = draw_model(options, seed)
    if seed == 0:
        y = np.arange(len(frame)) % 2
        model = CalibratedClassifierCV(FrozenEstimator(model)).fit(frame, y)
    candidates = frame[columns][:6].assign(number=range(6))
    candidates.loc[:1, "item"] = ["new", None]
    users = frame.drop(columns=columns)[20:22].reset_index(drop=True)
    users.at[0, "hist_item"] = ["new"] * len(users["hist_item"][0])
    expected = score_each_pair_alone(model, users, candidates)
    ranker = Ranker(model, candidates)
    together = ranker.rank(users, top_k=20).sort_values(["row", "number"])["probability"]
    np.testing.assert_allclose(together, expected.ravel(), rtol=0, atol=2e-6)
    for user in range(2):
        for given in (users[user : user + 1], users.iloc[user].to_dict()):
            found = ranker.rank(given, top_k=20).sort_values("number")["probability"]
            np.testing.assert_allclose(found, expected[user], rtol=0, atol=2e-6)


def test_what_follows_from_the_item_never_comes_from_the_user():
    """Each of 40 items has a category; any hour may be its."""
    chance, n_rows = np.random.RandomState(0), 600
    log = pd.DataFrame({"user": chance.randint(30, size=n_rows), "time": np.arange(n_rows)})
    log["item"] = chance.randint(40, size=n_rows)
    log["category"], log["hour"] = log["item"] % 5, chance.randint(24, size=n_rows)
    columns = ["item", "category", "hour"]
    X = attach_history(log, log, user="user", time="time", columns=columns)
    model = make_model(max_epochs=1).fit(X, np.arange(len(X)) % 3 == 0)
    users = X.drop_duplicates("user", keep="last").drop(columns="item")
    items = log[["item", "category"]].drop_duplicates("item")
    with pytest.raises(ValueError, match=r"must have \['category'\], which followed from 'item'"):
        Ranker(model, items[["item"]])
    best = rank_candidates(model, users.drop(columns="category"), items, top_k=1)
    assert len(best) == len(users)  # the hour is the users'


def test_a_catalogue_of_unknown_items_is_reported_unless_one_is_known_or_vectors_describe_them(
    fitted, users, candidates
):
    strange = candidates.assign(item=[f"z{7919 * n}" for n in range(len(candidates))])
    with pytest.warns(UserWarning, match=f"none of the {len(candidates)} candidates is known"):
        ranked = rank_candidates(fitted, users, strange, top_k=3)
    assert len(ranked) == 3 * len(users)
    one_known = pd.concat([strange, candidates[:1]])
    assert said(lambda: rank_candidates(fitted, users, one_known, top_k=3)) == ([], [])
    assert said(lambda: rank_candidates(fitted, users, strange[:1], top_k=3)) == ([], [])
