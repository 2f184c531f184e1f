"""Every edition of MovieLens reads alike; damaged and missing copies are named."""

import hashlib
import zipfile

import numpy as np
import pandas as pd
import pytest

from sklearn_din.datasets import fetch_movielens
from sklearn_din.datasets import movielens as movielens_file

CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.5,60\n2,20,3.0,0\n",
    "movies.csv": 'movieId,title,genres\n10,"Café, The (1995)",Comedy|War\n20,Heat,Crime\n',
}
DAT = {
    "ratings.dat": "1::10::4.5::60\n2::20::3::0\n",
    "movies.dat": "10::Café, The (1995)::Comedy|War\n20::Heat::Crime\n",
}
LAYOUTS = {"latest-small": CSV, "20m": CSV, "25m": CSV, "1m": DAT}
RATINGS = pd.DataFrame({
    "user": np.array([1, 2], dtype="int32"),
    "item": np.array([10, 20], dtype="int32"),
    "rating": np.array([4.5, 3.0], dtype="float32"),
    "time": pd.to_datetime([60, 0], unit="s"),
})  # fmt: skip
MOVIES = [(10, "Café, The (1995)", "Comedy|War"), (20, "Heat", "Crime")]


@pytest.fixture
def grouplens(tmp_path, monkeypatch):
    """A GroupLens on this disk: write_zip(variant) publishes an edition and its checksum."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(movielens_file, "_MOVIELENS_URL", f"{site.as_uri()}/ml-{{}}.zip")

    def write_zip(variant):
        path = site / f"ml-{variant}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in LAYOUTS[variant].items():
                encoded = text.encode("utf-8" if name.endswith(".csv") else "latin-1")
                archive.writestr(f"ml-{variant}/{name}", encoded)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(movielens_file._MOVIELENS_SHA256, variant, checksum)
        return path

    return write_zip


@pytest.mark.parametrize("variant", LAYOUTS)
def test_every_edition_reads_alike_from_network_and_disk(variant, grouplens, tmp_path):
    published = grouplens(variant)
    home = tmp_path / "home"
    first = fetch_movielens(variant, data_home=home)
    published.unlink()
    second = fetch_movielens(variant, data_home=home, download_if_missing=False)
    for movielens in (first, second):
        expected = RATINGS.astype({"time": movielens.ratings["time"].dtype})
        pd.testing.assert_frame_equal(movielens.ratings, expected)
        assert list(movielens.movies.itertuples(index=False, name=None)) == MOVIES
        assert list(movielens.movies.columns) == ["item", "title", "genres"]
        assert movielens.url == published.as_uri()
        assert movielens.DESCR.startswith(f"MovieLens {variant}: 2 ratings")
    assert [path.name for path in home.iterdir()] == [published.name]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_extracted_folder_comes_first(suffix, tmp_path):
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    ratings = pd.DataFrame([[1, 10, 4.5, 60], [2, 20, 3.0, 0]], columns=["u", "i", "r", "t"])
    ratings.to_csv(folder / f"ratings.csv{suffix}", index=False)
    pd.DataFrame(MOVIES).to_csv(folder / f"movies.csv{suffix}", index=False)
    movielens = fetch_movielens(data_home=tmp_path, download_if_missing=False)
    assert movielens.ratings["rating"].tolist() == [4.5, 3.0]
    assert list(movielens.movies.itertuples(index=False, name=None)) == MOVIES


def test_a_damaged_zip_is_refused_and_a_damaged_download_removed(grouplens, tmp_path):
    published = grouplens("1m")
    (tmp_path / "ml-1m.zip").write_bytes(published.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"ml-1m\.zip must have the SHA-256 .*Download it again"):
        fetch_movielens("1m", data_home=tmp_path)
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"ml-1m\.zip must have the SHA-256"):
        fetch_movielens("1m", data_home=tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_without_network_the_message_says_where_to_put_the_file(grouplens, tmp_path):
    grouplens("20m").unlink()
    by_hand = r"Download file:.*ml-20m\.zip by hand and put the zip at .*home.ml-20m\.zip"
    with pytest.raises(OSError, match=rf"could not be downloaded \(.*\)\. {by_hand}"):
        fetch_movielens("20m", data_home=tmp_path / "home")
    with pytest.raises(OSError, match=rf"not in .*home, and downloads are off\. {by_hand}"):
        fetch_movielens("20m", data_home=tmp_path / "home", download_if_missing=False)


def test_the_real_latest_small_edition(shared_data):
    movielens = fetch_movielens("latest-small", data_home=shared_data, download_if_missing=False)
    assert movielens.ratings.shape == (100_836, 4)
    assert movielens.ratings["user"].nunique() == 610
    assert movielens.movies.loc[0, "title"] == "Toy Story (1995)"
    assert movielens.ratings["time"].dt.year.agg(["min", "max"]).tolist() == [1996, 2018]
