"""The two real logs, encoded and decoded back: every id is the value it came from."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din.logs.history import attach_history
from sklearn_din.transformers import HistorySequenceEncoder


def decoded(encoder, X, name):
    """Values row by row, None where an event is unknown."""
    values, mask = encoder.inverse_transform_ids(name, X[name]), X[f"{name}_mask"]
    return [row[real].tolist() for row, real in zip(values, mask, strict=True)]


@pytest.fixture
def eshop(shared_data):
    clicks = pd.read_csv(shared_data / "eshop-clicks" / "clicks.csv.gz")
    frame = attach_history(
        clicks, clicks, user="session", time="order", columns=["item", "category"], max_length=30
    )
    return frame[["session", "order", "country", "item", "category", "hist_item", "hist_category"]]


@pytest.fixture
def movielens(shared_data):
    folder = shared_data / "ml-latest-small"
    ratings = pd.read_csv(folder / "ratings.csv.gz").merge(pd.read_csv(folder / "movies.csv.gz"))
    liked = ratings[ratings["rating"] >= 4]
    return attach_history(
        ratings.drop(columns=["rating", "title"]),
        liked,
        user="userId",
        time="timestamp",
        columns="movieId",
        max_length=40,
        elapsed="hist_elapsed",
    )


def test_eshop_clicks_decode_to_the_log(eshop):
    encoder = HistorySequenceEncoder(drop=["session", "order"], max_length=20)
    X = encoder.fit_transform(eshop)

    behaviour = X.schema.behaviours[0]
    assert behaviour.histories == ("hist_item", "hist_category")
    assert behaviour.candidates == ("item", "category")
    for name in ("item", "category", "country"):
        assert np.array_equal(encoder.inverse_transform_ids(name, X[name]), eshop[name])
    rows = np.random.default_rng(0).choice(len(eshop), 5000, replace=False)
    for name in ("hist_item", "hist_category"):
        expected = [cell[-20:].tolist() for cell in eshop[name].iloc[rows]]
        assert decoded(encoder, X[rows], name) == expected
    events = X.behaviours[behaviour.histories].columns["hist_item"]
    assert len(events) < len(eshop) < X["hist_item_mask"].sum()


def test_eshop_sessions_that_were_not_trained_on_leave_no_trace(eshop):
    is_train = (eshop["session"] % 50 == 0).to_numpy()
    encoder = HistorySequenceEncoder(drop=["session", "order"]).fit(eshop[is_train])
    X = encoder.transform(eshop[~is_train])

    assert set(encoder.vocabularies_["item"]) == set(eshop["item"][is_train])
    unseen = ~eshop["item"][~is_train].isin(encoder.vocabularies_["item"]).to_numpy()
    assert unseen.any()
    assert np.array_equal(X["item"] == 1, unseen)
    assert (X["hist_item"][X["hist_item_mask"]] > 0).all()


def test_movielens_decodes_with_genres_as_a_bag(movielens):
    encoder = HistorySequenceEncoder(
        histories={("hist_movieId", "hist_elapsed"): ("movieId", None), "genres": None},
        drop=["userId", "timestamp"],
        separator="|",
        max_length=10,
    )
    X = encoder.fit_transform(movielens)

    assert np.array_equal(encoder.inverse_transform_ids("movieId", X["movieId"]), movielens.movieId)
    rows = np.random.default_rng(0).choice(len(movielens), 2000, replace=False)
    some = movielens.iloc[rows]
    assert decoded(encoder, X[rows], "genres") == some["genres"].str.split("|").tolist()
    expected = [cell[-10:].tolist() for cell in some["hist_movieId"]]
    assert decoded(encoder, X[rows], "hist_movieId") == expected
    elapsed, mask = X[rows]["hist_elapsed"], X[rows]["hist_elapsed_mask"]
    assert elapsed.dtype == np.float32
    assert (elapsed[mask] > 0).all()
