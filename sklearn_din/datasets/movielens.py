"""MovieLens ratings, from a local copy or from GroupLens."""

import csv
import hashlib
import os
import shutil
import urllib.request
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch

_MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/ml-{}.zip"
# As in url_checksums/movielens.txt of the TensorFlow Datasets repository.
_MOVIELENS_SHA256 = {
    "latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    "1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "20m": "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
}
_RATING_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "time": "int64"}
_MOVIE_TYPES = {"item": "int32", "title": "str", "genres": "str"}


def fetch_movielens(
    variant: str = "latest-small",
    *,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
) -> Bunch:
    """Load MovieLens ratings and movies, from a local copy or from GroupLens.

    Looks in `data_home` for the extracted folder (``ml-latest-small/ratings.csv`` or
    ``ratings.csv.gz``, and the like), then for the zip as GroupLens offers it, and else
    downloads the zip there. A zip must have the known SHA-256; a folder's files need not.

    Parameters
    ----------
    variant : {"latest-small", "1m", "20m", "25m"}, default="latest-small"
        The edition. "latest-small" is the one of September 2018.
    data_home : str or path-like, default=None
        The folder of local copies. None means scikit-learn's, see
        :func:`sklearn.datasets.get_data_home`.
    download_if_missing : bool, default=True
        If False, raise OSError (which says where to put the zip) if there is no copy.

    Returns
    -------
    Bunch
        - ratings: DataFrame of user, item, rating, time, in the order of the file.
        - movies: DataFrame of item, title, genres (one string, separated by ``|``).
        - url: where the edition is.
        - DESCR: a short description.

    Examples
    --------
    >>> from sklearn_din.datasets import fetch_movielens
    >>> ratings = fetch_movielens("latest-small").ratings  # doctest: +SKIP
    """
    if variant not in _MOVIELENS_SHA256:
        raise ValueError(f"variant must be one of {list(_MOVIELENS_SHA256)}, got {variant!r}.")
    source = _find_movielens(variant, Path(get_data_home(data_home)), download_if_missing)
    read = partial(_read_table, source, f"ml-{variant}")
    if variant == "1m":  # the fast parser splits at one character: at ":" every other one is empty
        ratings = read("ratings.dat", _RATING_TYPES, sep=":", usecols=[0, 2, 4, 6])
        slow = {"sep": "::", "engine": "python", "encoding": "latin-1", "quoting": csv.QUOTE_NONE}
        movies = read("movies.dat", _MOVIE_TYPES, **slow)
    else:
        ratings = read("ratings.csv", _RATING_TYPES, header=0)
        movies = read("movies.csv", _MOVIE_TYPES, header=0)
    ratings["time"] = pd.to_datetime(ratings["time"], unit="s")
    return Bunch(
        ratings=ratings,
        movies=movies,
        url=_MOVIELENS_URL.format(variant),
        DESCR=(
            f"MovieLens {variant}: {len(ratings)} ratings. F. M. Harper and J. A. Konstan, The "
            "MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015. For research, not for "
            "commercial use: the README in the zip has the terms."
        ),
    )


def _find_movielens(variant: str, home: Path, download_if_missing: bool) -> Path:
    folder, archive = home / f"ml-{variant}", home / f"ml-{variant}.zip"
    if folder.is_dir():
        return folder
    if archive.exists():
        _check_sha256(archive, _MOVIELENS_SHA256[variant])
        return archive
    url = _MOVIELENS_URL.format(variant)
    by_hand = f"Download {url} by hand and put the zip at {archive}."
    if not download_if_missing:
        raise OSError(f"MovieLens {variant} is not in {home}, and downloads are off. {by_hand}")
    with TemporaryDirectory(dir=home) as scratch:  # an interrupted download leaves nothing
        download = Path(scratch) / archive.name
        try:
            with urllib.request.urlopen(url, timeout=60) as source, download.open("wb") as file:
                shutil.copyfileobj(source, file)
        except OSError as error:
            problem = f"MovieLens {variant} could not be downloaded ({error})."
            raise OSError(f"{problem} {by_hand}") from error
        _check_sha256(download, _MOVIELENS_SHA256[variant])
        os.replace(download, archive)
    return archive


def _check_sha256(archive: Path, expected: str) -> None:
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected:
        raise OSError(
            f"{archive.name} must have the SHA-256 {expected}, got {sha256}: it is damaged or "
            "another edition. Download it again, or, if you trust it, extract it in data_home."
        )


def _read_table(
    source: Path, folder: str, name: str, types: dict[str, str], **options: Any
) -> pd.DataFrame:
    """Read one file of the edition, from the extracted folder or out of the zip."""
    read: Callable[..., pd.DataFrame] = pd.read_csv
    options = {"header": None, "names": list(types), "dtype": types} | options
    if source.is_dir():
        path = source / name if (source / name).exists() else source / f"{name}.gz"
        return read(path, **options)
    with zipfile.ZipFile(source) as archive, archive.open(f"{folder}/{name}") as file:
        return read(file, **options)
