"""Click logs to learn on: one made with known truth, and MovieLens."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import urllib.request
import zipfile
from functools import partial
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch, check_random_state

__all__ = ["fetch_movielens", "make_click_log"]

_BASE_RATE = 0.3
_N_INTERESTS = 5
_DEVICES = {"phone": 0.0, "desktop": 0.4, "tablet": -0.4}
_START = np.datetime64("2024-01-01", "ns")
_DAY = 86_400  # seconds
_MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/ml-{}.zip"
# As in url_checksums/movielens.txt of the TensorFlow Datasets repository.
_MOVIELENS_SHA256 = {
    "latest-small": "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    "100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "20m": "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
}
_RATING_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "time": "int64"}
_MOVIE_TYPES = {"item": "int32", "title": "str", "genres": "str"}
_OLD_TEXT = {"encoding": "latin-1", "quoting": csv.QUOTE_NONE}


def make_click_log(
    *,
    n_users: int = 2000,
    n_items: int = 1000,
    n_categories: int = 50,
    mean_length: float = 20,
    n_impressions: int | None = None,
    interest_strength: float = 1.0,
    recency: float | None = None,
    max_length: int = 50,
    random_state=None,
) -> Bunch:
    """Make a click log whose true interests, and so the best possible AUC, are known.

    Each user has up to five interests (categories) of unequal weight and acts in bursts: an
    event mostly stays with the interest of the event before. One event in five is of a
    popular item (Zipf) of any category. Half the impressions show an item of one of the
    user's interests, half a popular one. The log-odds of a click rise with how often the
    candidate's category occurs among the user's past events::

        logit = b + 1.5 * interest_strength * log(1 + sum(relevance)) + price and device

    with b such that 3 impressions in 10 are clicked. Whether a past event counts depends
    on the candidate: attention can express that, one vector per user cannot. Events and
    impressions are drawn apart: no label is hidden in an event.

    Parameters
    ----------
    n_users : int, default=2000
        Number of users.

    n_items : int, default=1000
        Number of items; each has one category, and a price.

    n_categories : int, default=50
        Number of categories, at most `n_items`.

    mean_length : float, default=20
        Mean number of events of a user; the numbers vary, the smallest is 1.

    n_impressions : int, default=None
        Number of impressions. None means twenty a user.

    interest_strength : float, default=1.0
        How much the past matters; 0 leaves price and device.

    recency : float, default=None
        Half-life of an event's relevance, in events: the newest counts 1, the one
        `recency` events earlier 1/2. None means that all count 1.

    max_length : int, default=50
        How many of the newest events count, as in ``attach_history``.

    random_state : int, RandomState instance or None, default=None
        Pass an int for the same log at each call.

    Returns
    -------
    Bunch
        - events: DataFrame of user, item, category, time, in the order of time; some are tied.
        - impressions: DataFrame of user, item, category, time, price, device, in the order of time.
        - y: ndarray of shape (n_impressions,), 1 for a click.
        - probability: ndarray of shape (n_impressions,), of a click; its AUC is the ceiling.
        - relevance: float32 ndarray, the true relevance of every past event of every impression,
          one impression after the other, oldest to newest: aligned with what
          ``attach_history(..., max_length=max_length)`` attaches.
        - offsets: ndarray of shape (n_impressions + 1,); the past of impression i is
          ``relevance[offsets[i]:offsets[i + 1]]``.
        - DESCR: a short description.

    Examples
    --------
    >>> from sklearn_din.datasets import make_click_log
    >>> log = make_click_log(n_users=10, random_state=0)
    >>> len(log.impressions), log.y.shape, log.offsets.shape
    (200, (200,), (201,))
    """
    n_impressions = 20 * n_users if n_impressions is None else n_impressions
    _check_at_least(1, n_users=n_users, n_categories=n_categories, mean_length=mean_length)
    _check_at_least(1, n_impressions=n_impressions, max_length=max_length)
    _check_at_least(n_categories, n_items=n_items)
    _check_at_least(0, interest_strength=interest_strength)
    if recency is not None and not recency > 0:
        raise ValueError(f"recency must be None or a half-life above 0, got {recency}.")
    rng = check_random_state(random_state)
    catalogue = _Catalogue(n_items, n_categories, rng)
    interests = _Interests(n_users, n_categories, rng)
    events = _draw_events(catalogue, interests, mean_length, rng)
    impressions = _draw_impressions(catalogue, interests, events, n_impressions, rng)
    relevance, offsets = _relevance(events, impressions, recency, max_length)
    probability = _click_probability(impressions, relevance, offsets, interest_strength)
    return Bunch(
        events=_with_times(events.sort_values("time", kind="stable", ignore_index=True)),
        impressions=_with_times(impressions),
        y=rng.binomial(1, probability),
        probability=probability,
        relevance=relevance,
        offsets=offsets,
        DESCR=(
            f"A made click log: {len(events)} events and {len(impressions)} impressions of "
            f"{n_users} users, {n_items} items in {n_categories} categories. The more of the "
            f"user's newest {max_length} earlier events are of the candidate's category, the "
            f"likelier a click. Half-life of an event's relevance, in events: {recency}."
        ),
    )


def fetch_movielens(
    variant: str = "latest-small",
    *,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
) -> Bunch:
    """Load MovieLens ratings and movies, from a local copy or from GroupLens.

    Looks in `data_home` for the extracted folder (``ml-latest-small/ratings.csv`` or
    ``ratings.csv.gz``, and the like), then for the zip as GroupLens offers it, and else
    downloads the zip there. A zip must have the known SHA-256; a folder's files need not.

    Parameters
    ----------
    variant : {"latest-small", "100k", "1m", "20m", "25m"}, default="latest-small"
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
    layout = {"100k": _read_100k, "1m": _read_1m}.get(variant, _read_csv)
    ratings, movies = layout(partial(_read_table, source, f"ml-{variant}"))
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


def _check_at_least(least, **values):
    for name, value in values.items():
        if not isinstance(value, Real):
            raise ValueError(f"{name} must be a number, got {value!r}.")
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


class _Catalogue:
    """Items with a category, a Zipf popularity and a price."""

    def __init__(self, n_items, n_categories, rng):
        # Every category has an item; the rest fall where they fall.
        rest = rng.randint(n_categories, size=n_items - n_categories)
        self.category = rng.permutation(np.concatenate([np.arange(n_categories), rest]))
        self.price = np.round(np.exp(rng.normal(3.0, 0.6, size=n_items)), 2)
        popularity = 1 / (1 + rng.permutation(n_items))
        self._by_category = np.argsort(self.category, kind="stable")
        bounds = np.append(0, np.cumsum(np.bincount(self.category)))
        self._first, self._end = np.append(bounds[:-1], 0), np.append(bounds[1:], n_items)
        cumulated = np.append(0.0, np.cumsum(popularity[self._by_category]))
        self._cumulated = cumulated / cumulated[-1]

    def draw(self, category, rng):
        """Draw an item of each category by popularity; of any category where it is -1."""
        first, end = self._first[category], self._end[category]
        low, high = self._cumulated[first], self._cumulated[end]
        point = low + (high - low) * rng.random_sample(category.size)
        position = np.searchsorted(self._cumulated, point, side="right") - 1
        return self._by_category[np.clip(position, first, end - 1)]  # rounding at the edges


class _Interests:
    """Each user's categories of interest and how much of the time each takes."""

    def __init__(self, n_users, n_categories, rng):
        self.n_users = n_users
        self._categories = rng.randint(n_categories, size=(n_users, _N_INTERESTS))
        share = rng.standard_exponential((n_users, _N_INTERESTS))
        self._cumulated = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)

    def draw(self, user, rng):
        """Draw a category by share: what the user does."""
        point = rng.random_sample(len(user))
        slot = (point[:, None] >= self._cumulated[user, :-1]).sum(axis=1)
        return self._categories[user, slot]

    def draw_evenly(self, user, rng):
        """Draw a category, each alike: what the user is shown."""
        return self._categories[user, rng.randint(_N_INTERESTS, size=len(user))]


def _draw_events(catalogue, interests, mean_length, rng):
    """Events of all users, user by user and oldest to newest; times in seconds."""
    length = 1 + rng.poisson(rng.gamma(2.0, (mean_length - 1) / 2, size=interests.n_users))
    user = np.repeat(np.arange(length.size), length)
    first = np.cumsum(length) - length
    category = interests.draw(user, rng)
    changes = rng.random_sample(user.size) < 0.4
    changes[first] = True
    burst = np.maximum.accumulate(np.where(changes, np.arange(user.size), 0))
    category = np.where(rng.random_sample(user.size) < 0.2, -1, category[burst])
    item = catalogue.draw(category, rng)
    gap = 1 + (rng.standard_exponential(user.size) * _DAY / 2).astype(np.int64)
    gap[rng.random_sample(user.size) < 0.02] = 0  # two clicks in the same second
    gap[first] = 0
    elapsed = np.cumsum(gap)
    time = elapsed + (rng.randint(_DAY, 60 * _DAY, size=length.size) - elapsed[first])[user]
    return pd.DataFrame(
        {"user": user, "item": item, "category": catalogue.category[item], "time": time}
    )


def _draw_impressions(catalogue, interests, events, n_impressions, rng):
    """Impressions in the order of time, most of them late in the user's events."""
    user = rng.randint(interests.n_users, size=n_impressions)
    length = np.bincount(events["user"])
    first = (np.cumsum(length) - length)[user]
    event_time = events["time"].to_numpy()
    begin, end = event_time[first] - _DAY, event_time[first + length[user] - 1] + _DAY
    time = begin + ((end - begin) * rng.beta(3, 1, size=n_impressions)).astype(np.int64)
    tied = rng.random_sample(n_impressions) < 0.02  # shown in the second of some event
    some_event = first + (rng.random_sample(n_impressions) * length[user]).astype(np.int64)
    time = np.where(tied, event_time[some_event], time)
    of_interest = rng.random_sample(n_impressions) < 0.5
    item = catalogue.draw(np.where(of_interest, interests.draw_evenly(user, rng), -1), rng)
    impressions = pd.DataFrame(
        {"user": user, "item": item, "category": catalogue.category[item], "time": time}
    )
    impressions["price"] = catalogue.price[item]
    impressions["device"] = rng.choice(list(_DEVICES), p=[0.6, 0.3, 0.1], size=n_impressions)
    return impressions.sort_values("time", kind="stable", ignore_index=True)


def _relevance(events, impressions, recency, max_length):
    """Relevance of each impression's newest earlier events, flat, and where each begins."""
    span = 1 + max(events["time"].max(), impressions["time"].max())
    event_key = events["user"].to_numpy() * span + events["time"].to_numpy()
    user = impressions["user"].to_numpy()
    end = np.searchsorted(event_key, user * span + impressions["time"].to_numpy(), side="left")
    begin = np.maximum(np.searchsorted(event_key, user * span, side="left"), end - max_length)
    offsets = np.append(0, np.cumsum(end - begin))
    row = np.repeat(np.arange(len(impressions)), end - begin)
    event = np.arange(offsets[-1]) - offsets[row] + begin[row]
    matches = events["category"].to_numpy()[event] == impressions["category"].to_numpy()[row]
    relevance = matches.astype(np.float32)
    if recency is not None:
        relevance *= np.exp2((event + 1 - end[row]) / recency, dtype=np.float32)
    return relevance, offsets


def _click_probability(impressions, relevance, offsets, interest_strength):
    row = np.repeat(np.arange(len(impressions)), np.diff(offsets))
    interest = np.bincount(row, weights=relevance, minlength=len(impressions))
    logit = 1.5 * interest_strength * np.log1p(interest)
    logit -= 0.4 * (np.log(impressions["price"].to_numpy()) - 3.0)
    logit += impressions["device"].map(_DEVICES).to_numpy()
    low, high = -100.0, 100.0
    for _ in range(60):  # bisection for the base rate
        middle = (low + high) / 2
        too_high = _sigmoid(logit + middle).mean() > _BASE_RATE
        low, high = (low, middle) if too_high else (middle, high)
    return _sigmoid(logit + low)


def _sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def _with_times(frame):
    return frame.assign(time=_START + frame["time"].to_numpy().astype("timedelta64[s]"))


def _find_movielens(variant, home, download_if_missing):
    """Return the extracted folder or the checked zip of the edition."""
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


def _check_sha256(archive, expected):
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise OSError(
            f"{archive.name} must have the SHA-256 {expected}, got {found}: it is damaged or "
            "another edition. Download it again, or, if you trust it, extract it in data_home."
        )


def _read_table(source, folder, name, types, **options):
    options = {"header": None, "names": list(types), "dtype": types} | options
    if source.is_dir():
        path = source / name if (source / name).exists() else source / f"{name}.gz"
        if not path.exists():
            raise OSError(
                f"MovieLens needs {name} or {name}.gz in {source}. Extract the whole zip there."
            )
        return pd.read_csv(path, **options)
    with zipfile.ZipFile(source) as archive, archive.open(f"{folder}/{name}") as file:
        return pd.read_csv(file, **options)


def _read_csv(read):
    ratings = read("ratings.csv", _RATING_TYPES, header=0)
    return ratings, read("movies.csv", _MOVIE_TYPES, header=0)


def _read_1m(read):
    # "::" separates, which the fast parser cannot: to it every second column is empty.
    ratings = read("ratings.dat", _RATING_TYPES, sep=":", usecols=[0, 2, 4, 6])
    return ratings, read("movies.dat", _MOVIE_TYPES, sep="::", engine="python", **_OLD_TEXT)


def _read_100k(read):
    ratings = read("u.data", _RATING_TYPES, sep="\t")
    genres = read("u.genre", {"genre": "str", "column": "int"}, sep="|", **_OLD_TEXT)["genre"]
    other = {"item": "int32", "title": "str", "released": "str", "video": "str", "url": "str"}
    movies = read("u.item", other | dict.fromkeys(genres, "int8"), sep="|", **_OLD_TEXT)
    flags = movies[genres].to_numpy(dtype=bool)
    movies["genres"] = ["|".join(genres[row]) for row in flags]
    return ratings, movies[list(_MOVIE_TYPES)]
