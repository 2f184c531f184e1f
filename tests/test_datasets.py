import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sklearn_din import datasets
from sklearn_din.datasets import fetch_movielens, make_click_log
from sklearn_din.logs.history import attach_history
from sklearn_din.metrics import expected_calibration_error

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FRAMES_AND_ARRAYS = ("events", "impressions", "y", "probability", "relevance", "offsets")


@pytest.fixture(scope="module")
def log():
    return make_click_log(random_state=0)


def past_relevance(log, impression, recency, max_length):
    """The slow, obvious twin: what of the user's past the impression's label depends on."""
    events = log.events
    past = events[(events["user"] == impression.user) & (events["time"] < impression.time)]
    past = past.tail(max_length)
    age = np.arange(len(past))[::-1]
    fading = np.ones(len(past)) if recency is None else 0.5 ** (age / recency)
    return (past["category"] == impression.category).to_numpy() * fading


def interest(log):
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    return np.bincount(row, weights=log.relevance, minlength=len(log.y))


def ceiling(**parameters):
    log = make_click_log(random_state=0, **parameters)
    return roc_auc_score(log.y, log.probability)


@pytest.mark.parametrize(("recency", "max_length"), [(None, 50), (2.5, 50), (None, 3), (1, 7)])
def test_relevance_agrees_with_a_loop_over_impressions(recency, max_length):
    log = make_click_log(
        n_users=15, n_categories=4, recency=recency, max_length=max_length, random_state=1
    )
    assert log.offsets[0] == 0
    for i, impression in enumerate(log.impressions.itertuples()):
        expected = past_relevance(log, impression, recency, max_length)
        got = log.relevance[log.offsets[i] : log.offsets[i + 1]]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("strength", [0, 1, 2])
def test_probability_follows_the_formula_of_the_docstring(strength):
    log = make_click_log(n_users=100, interest_strength=strength, random_state=0)
    logit = np.log(log.probability / (1 - log.probability))
    rest = pd.Series(logit - 1.5 * strength * np.log1p(interest(log)))
    rest += 0.4 * np.log(log.impressions["price"])
    by_device = rest.groupby(log.impressions["device"])
    assert by_device.std().max() < 1e-6  # nothing is left but the device and a constant
    assert by_device.mean().idxmax() == "desktop"
    assert by_device.mean().idxmin() == "tablet"


def test_three_impressions_in_ten_are_clicked_with_the_stated_probability(log):
    assert log.probability.mean() == pytest.approx(0.3, abs=1e-6)
    assert set(log.y) == {0, 1}
    assert expected_calibration_error(log.y, log.probability) < 0.01


def test_the_ceiling_is_within_reach_and_far_from_perfect():
    assert 0.75 < ceiling() < 0.8


def test_a_stronger_interest_raises_the_ceiling():
    ceilings = [ceiling(n_users=1000, interest_strength=strength) for strength in (0, 0.5, 1, 2)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] < 0.62  # price and device matter only a bit
    assert ceilings[3] > 0.85


def test_with_recency_counting_is_not_enough():
    log = make_click_log(recency=2, interest_strength=2, random_state=0)
    row = np.repeat(np.arange(len(log.y)), np.diff(log.offsets))
    count = np.bincount(row, weights=log.relevance > 0, minlength=len(log.y))
    assert roc_auc_score(log.y, interest(log)) > roc_auc_score(log.y, count) + 0.02


def test_later_events_do_not_tell_the_label(log):
    last = log.events.groupby(["user", "item"])["time"].max().rename("last").reset_index()
    shown = log.impressions.merge(last, on=["user", "item"], how="left")
    comes_back = (shown["last"] >= shown["time"]).to_numpy()
    surprise = (log.y - log.probability)[comes_back]
    assert comes_back.sum() > 500
    assert abs(surprise.mean()) < 3 * 0.5 / np.sqrt(comes_back.sum())


def test_events_and_impressions_come_in_the_order_of_time(log):
    for frame in (log.events, log.impressions):
        assert frame["time"].is_monotonic_increasing
        assert frame["time"].dtype == "datetime64[ns]"
        assert frame.index.equals(pd.RangeIndex(len(frame)))


def test_relevance_is_aligned_with_what_attach_history_attaches(log):
    attached = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["category"], max_length=50
    )
    history = [np.asarray(cell) for cell in attached["hist_category"]]
    np.testing.assert_array_equal([len(cell) for cell in history], np.diff(log.offsets))
    shown = np.repeat(log.impressions["category"], np.diff(log.offsets))
    np.testing.assert_array_equal(np.concatenate(history) == shown, log.relevance)


def test_some_times_are_tied(log):
    tied_events = log.events.duplicated(["user", "time"]).mean()
    shown_at_an_event = log.impressions.merge(
        log.events[["user", "time"]].drop_duplicates(), on=["user", "time"]
    )
    assert 0.005 < tied_events < 0.05
    assert 0.005 < len(shown_at_an_event) / len(log.impressions) < 0.05


def test_an_item_has_one_category_and_one_price(log):
    columns = ["item", "category"]
    pairs = pd.concat([log.events[columns], log.impressions[columns]]).drop_duplicates()
    assert not pairs["item"].duplicated().any()
    assert (log.impressions.groupby("item")["price"].nunique() == 1).all()


def test_few_items_are_popular(log):
    counts = log.events["item"].value_counts()
    assert counts.iloc[: len(counts) // 10].sum() > 0.3 * len(log.events)


def test_users_have_several_interests_but_not_all(log):
    shares = log.events.groupby("user")["category"].value_counts(normalize=True)
    long = log.events["user"].value_counts().loc[lambda n: n >= 20].index
    top = shares.groupby("user").nlargest(5).groupby(level=0).sum()
    assert shares.groupby("user").max()[long].median() < 0.6
    assert top[long].median() > 0.7


def test_the_past_is_sometimes_empty_and_never_longer_than_max_length(log):
    length = np.diff(log.offsets)
    assert (length == 0).any()
    assert length.max() == 50


def test_sizes_are_as_asked():
    log = make_click_log(
        n_users=300, n_items=40, n_categories=40, mean_length=7, n_impressions=123, random_state=0
    )
    assert len(log.impressions) == len(log.y) == len(log.probability) == 123
    assert log.events["user"].nunique() == 300
    assert len(log.events) / 300 == pytest.approx(7, abs=1)
    seen = pd.concat([log.events, log.impressions])
    assert seen["item"].nunique() == seen["category"].nunique() == 40
    assert "300 users, 40 items in 40 categories" in log.DESCR


def test_the_smallest_log_there_is():
    log = make_click_log(n_users=1, n_items=1, n_categories=1, mean_length=1, random_state=0)
    assert len(log.events) == 1
    assert len(log.impressions) == 20


def test_a_seed_makes_the_same_log_and_touches_no_global_state():
    state = np.random.get_state()
    first, second = (make_click_log(n_users=20, random_state=5) for _ in range(2))
    other = make_click_log(n_users=20, random_state=6)
    for name in FRAMES_AND_ARRAYS:
        np.testing.assert_array_equal(first[name], second[name])
    assert not first.events.equals(other.events)
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_users": 0}, r"n_users must be at least 1, got 0"),
        ({"n_items": 10, "n_categories": 20}, r"n_items must be at least 20, got 10"),
        ({"mean_length": 0.5}, r"mean_length must be at least 1, got 0\.5"),
        ({"n_impressions": 0}, r"n_impressions must be at least 1, got 0"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"interest_strength": -1}, r"interest_strength must be at least 0, got -1"),
        ({"recency": 0}, r"recency must be None or a half-life above 0, got 0"),
    ],
)
def test_click_log_says_what_is_wrong(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_click_log(**parameters)


CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.5,60\n2,20,3.0,0\n",
    "movies.csv": 'movieId,title,genres\n10,"Café, The (1995)",Comedy|War\n20,Heat,Crime\n',
}
DAT = {
    "ratings.dat": "1::10::4.5::60\n2::20::3::0\n",
    "movies.dat": "10::Café, The (1995)::Comedy|War\n20::Heat::Crime\n",
}
U = {
    "u.data": "1\t10\t4.5\t60\n2\t20\t3\t0\n",
    "u.genre": "Comedy|0\nCrime|1\nWar|2\n\n",
    "u.item": "10|Café, The (1995)|01-Jan-1995||http://a|1|0|1\n20|Heat||||0|1|0\n",
}
LAYOUTS = {"latest-small": CSV, "20m": CSV, "25m": CSV, "1m": DAT, "100k": U}
RATINGS = pd.DataFrame(
    {
        "user": np.array([1, 2], dtype="int32"),
        "item": np.array([10, 20], dtype="int32"),
        "rating": np.array([4.5, 3.0], dtype="float32"),
        "time": pd.to_datetime([60, 0], unit="s"),
    }
)
MOVIES = [(10, "Café, The (1995)", "Comedy|War"), (20, "Heat", "Crime")]


@pytest.fixture
def grouplens(tmp_path, monkeypatch):
    """A GroupLens on this disk: write_zip(variant) publishes an edition and its checksum."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(datasets, "_MOVIELENS_URL", f"{site.as_uri()}/ml-{{}}.zip")

    def write_zip(variant):
        path = site / f"ml-{variant}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in LAYOUTS[variant].items():
                encoded = text.encode("utf-8" if name.endswith(".csv") else "latin-1")
                archive.writestr(f"ml-{variant}/{name}", encoded)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(datasets._MOVIELENS_SHA256, variant, checksum)
        return path

    return write_zip


@pytest.mark.parametrize("variant", LAYOUTS)
def test_every_edition_reads_alike_from_the_network_and_then_from_disk(
    variant, grouplens, tmp_path
):
    published = grouplens(variant)
    home = tmp_path / "home"
    first = fetch_movielens(variant, data_home=home)
    published.unlink()
    second = fetch_movielens(variant, data_home=home, download_if_missing=False)
    for movielens in (first, second):
        pd.testing.assert_frame_equal(
            movielens.ratings, RATINGS.astype({"time": movielens.ratings["time"].dtype})
        )
        assert list(movielens.movies.itertuples(index=False, name=None)) == MOVIES
        assert list(movielens.movies.columns) == ["item", "title", "genres"]
        assert movielens.url == published.as_uri()
        assert movielens.DESCR.startswith(f"MovieLens {variant}: 2 ratings")
    assert [path.name for path in home.iterdir()] == [published.name]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_extracted_folder_comes_first(suffix, tmp_path):
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    pd.DataFrame([[1, 10, 4.5, 60], [2, 20, 3.0, 0]]).to_csv(
        folder / f"ratings.csv{suffix}", header=["u", "i", "r", "t"], index=False
    )
    pd.DataFrame(MOVIES).to_csv(folder / f"movies.csv{suffix}", index=False)
    movielens = fetch_movielens(data_home=tmp_path, download_if_missing=False)
    assert movielens.ratings["rating"].tolist() == [4.5, 3.0]
    assert list(movielens.movies.itertuples(index=False, name=None)) == MOVIES


def test_a_folder_without_its_files_is_named(tmp_path):
    (tmp_path / "ml-latest-small").mkdir()
    with pytest.raises(OSError, match=r"needs ratings\.csv or ratings\.csv\.gz in .*Extract the"):
        fetch_movielens(data_home=tmp_path)


def test_a_damaged_zip_is_refused(grouplens, tmp_path):
    published = grouplens("1m")
    (tmp_path / "ml-1m.zip").write_bytes(published.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"ml-1m\.zip must have the SHA-256 .*Download it again"):
        fetch_movielens("1m", data_home=tmp_path)


def test_a_damaged_download_leaves_nothing_behind(grouplens, tmp_path):
    published = grouplens("1m")
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"ml-1m\.zip must have the SHA-256"):
        fetch_movielens("1m", data_home=tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_without_network_the_message_says_where_to_put_the_file(grouplens, tmp_path):
    grouplens("100k").unlink()
    by_hand = r"Download file:.*ml-100k\.zip by hand and put the zip at .*home.ml-100k\.zip"
    with pytest.raises(OSError, match=rf"could not be downloaded \(.*\)\. {by_hand}"):
        fetch_movielens("100k", data_home=tmp_path / "home")
    with pytest.raises(OSError, match=rf"not in .*home, and downloads are off\. {by_hand}"):
        fetch_movielens("100k", data_home=tmp_path / "home", download_if_missing=False)


def test_an_unknown_edition_lists_those_that_are(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['latest-small', '100k', .*\], got '2m'"):
        fetch_movielens("2m", data_home=tmp_path)


@pytest.mark.skipif(
    not (SHARED / "ml-latest-small").is_dir(), reason="no local copy of MovieLens latest-small"
)
def test_the_real_latest_small_edition():
    movielens = fetch_movielens("latest-small", data_home=SHARED, download_if_missing=False)
    assert movielens.ratings.shape == (100_836, 4)
    assert movielens.ratings["user"].nunique() == 610
    assert movielens.movies.loc[0, "title"] == "Toy Story (1995)"
    assert movielens.ratings["time"].dt.year.agg(["min", "max"]).tolist() == [1996, 2018]
