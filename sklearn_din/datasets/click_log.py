"""A synthetic click log with known interests, and therefore a known best possible AUC."""

from numbers import Real

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

DAY = 86_400  # seconds
_START = np.datetime64("2024-01-01", "ns")
_BASE_RATE = 0.3
_N_INTERESTS = 5
_DEVICES = {"phone": 0.0, "desktop": 0.4, "tablet": -0.4}

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]


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
    random_state: int | np.random.RandomState | None = None,
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
    impressions are drawn independently: a click on an impression adds no event.

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
        Number of impressions. None means twenty per user.
    interest_strength : float, default=1.0
        How much the past matters; with 0, only price and device do.
    recency : float, default=None
        Half-life of an event's relevance, in events: 1 for the newest, 1/2 for the one `recency`
        events earlier. None means 1 for all.
    max_length : int, default=50
        Number of newest events that count, as in ``attach_history``.
    random_state : int, RandomState instance or None, default=None
        Pass an int to get the same log in each call.

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
    >>> from sklearn_din.datasets.click_log import make_click_log
    >>> log = make_click_log(n_users=10, random_state=0)
    >>> len(log.impressions), log.y.shape, log.offsets.shape
    (200, (200,), (201,))
    """
    n_impressions = 20 * n_users if n_impressions is None else n_impressions
    check_at_least(1, n_users=n_users, n_categories=n_categories, mean_length=mean_length)
    check_at_least(1, n_impressions=n_impressions, max_length=max_length)
    check_at_least(n_categories, n_items=n_items)
    check_at_least(0, interest_strength=interest_strength)
    if recency is not None and not recency > 0:
        raise ValueError(f"recency must be None or a half-life above 0, got {recency}.")
    rng = check_random_state(random_state)
    catalogue = _Catalogue(n_items, n_categories, rng)
    interests = _Interests(n_users, n_categories, rng)
    events = _draw_events(catalogue, interests, mean_length, rng)
    impressions = _draw_impressions(catalogue, interests, events, n_impressions, rng)
    row, event, rank = find_past(impressions, events, max_length)
    matches = events["category"].to_numpy()[event] == impressions["category"].to_numpy()[row]
    relevance = matches.astype(np.float32)
    if recency is not None:
        relevance *= np.exp2(-rank / recency, dtype=np.float32)
    interest = np.bincount(row, weights=relevance, minlength=n_impressions)
    probability = _click_probability(impressions, interest, interest_strength)
    return Bunch(
        events=add_dates(events.sort_values("time", kind="stable", ignore_index=True)),
        impressions=add_dates(impressions),
        y=rng.binomial(1, probability),
        probability=probability,
        relevance=relevance,
        offsets=np.append(0, np.cumsum(np.bincount(row, minlength=n_impressions))),
        DESCR=(
            f"A made click log: {len(events)} events and {len(impressions)} impressions of "
            f"{n_users} users, {n_items} items in {n_categories} categories. The more of the "
            f"user's newest {max_length} earlier events are of the candidate's category, the "
            f"likelier a click. Half-life of an event's relevance, in events: {recency}."
        ),
    )


class _Catalogue:
    """Items with a category, a Zipf popularity and a price."""

    def __init__(self, n_items: int, n_categories: int, rng: np.random.RandomState) -> None:
        # Every category has an item; the other items get a category at random.
        rest = rng.randint(n_categories, size=n_items - n_categories)
        self.category = rng.permutation(np.concatenate([np.arange(n_categories), rest]))
        self.price = np.round(np.exp(rng.normal(3.0, 0.6, size=n_items)), 2)
        popularity = 1 / (1 + rng.permutation(n_items))
        self._by_category = np.argsort(self.category, kind="stable")
        bounds = np.append(0, np.cumsum(np.bincount(self.category)))
        self._first, self._end = np.append(bounds[:-1], 0), np.append(bounds[1:], n_items)
        cumulated = np.append(0.0, np.cumsum(popularity[self._by_category]))
        self._cumulated = cumulated / cumulated[-1]

    def draw(self, category: Integers, rng: np.random.RandomState) -> Integers:
        """Draw an item of each category by popularity; of any category where it is -1."""
        first, end = self._first[category], self._end[category]
        low, high = self._cumulated[first], self._cumulated[end]
        point = low + (high - low) * rng.random_sample(category.size)
        position = np.searchsorted(self._cumulated, point, side="right") - 1
        return self._by_category[np.clip(position, first, end - 1)]  # rounding at the edges


class _Interests:
    """Each user's categories of interest and how much of the time each takes."""

    def __init__(self, n_users: int, n_categories: int, rng: np.random.RandomState) -> None:
        self.n_users = n_users
        self.categories = rng.randint(n_categories, size=(n_users, _N_INTERESTS))
        share = rng.standard_exponential((n_users, _N_INTERESTS))
        self._cumulated = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)

    def draw(self, user: Integers, rng: np.random.RandomState) -> Integers:
        """Draw a category by share: what the user does."""
        point = rng.random_sample(len(user))
        slot = (point[:, None] >= self._cumulated[user, :-1]).sum(axis=1)
        return self.categories[user, slot]


def _draw_events(
    catalogue: _Catalogue, interests: _Interests, mean_length: float, rng: np.random.RandomState
) -> pd.DataFrame:
    """Draw events of all users, user by user and oldest to newest; times in seconds."""
    length = 1 + rng.poisson(rng.gamma(2.0, (mean_length - 1) / 2, size=interests.n_users))
    user = np.repeat(np.arange(length.size), length)
    first = np.cumsum(length) - length
    category = interests.draw(user, rng)
    changes = rng.random_sample(user.size) < 0.4
    changes[first] = True
    burst = np.maximum.accumulate(np.where(changes, np.arange(user.size), 0))
    category = np.where(rng.random_sample(user.size) < 0.2, -1, category[burst])
    item = catalogue.draw(category, rng)
    gap = 1 + (rng.standard_exponential(user.size) * DAY / 2).astype(np.int64)
    gap[rng.random_sample(user.size) < 0.02] = 0  # two clicks in the same second
    time = spread_over_days(gap, first, user, rng)
    return pd.DataFrame(
        {"user": user, "item": item, "category": catalogue.category[item], "time": time}
    )


def _draw_impressions(
    catalogue: _Catalogue,
    interests: _Interests,
    events: pd.DataFrame,
    n_impressions: int,
    rng: np.random.RandomState,
) -> pd.DataFrame:
    """Draw impressions in the order of time, most of them late in the user's events."""
    user = rng.randint(interests.n_users, size=n_impressions)
    length = np.bincount(events["user"])
    first = (np.cumsum(length) - length)[user]
    event_time = events["time"].to_numpy()
    begin, end = event_time[first] - DAY, event_time[first + length[user] - 1] + DAY
    time = begin + ((end - begin) * rng.beta(3, 1, size=n_impressions)).astype(np.int64)
    tied = rng.random_sample(n_impressions) < 0.02  # shown in the second of some event
    some_event = first + (rng.random_sample(n_impressions) * length[user]).astype(np.int64)
    time = np.where(tied, event_time[some_event], time)
    of_interest = rng.random_sample(n_impressions) < 0.5
    slot = rng.randint(_N_INTERESTS, size=n_impressions)  # each interest with the same probability
    item = catalogue.draw(np.where(of_interest, interests.categories[user, slot], -1), rng)
    impressions = pd.DataFrame(
        {"user": user, "item": item, "category": catalogue.category[item], "time": time}
    )
    impressions["price"] = catalogue.price[item]
    impressions["device"] = rng.choice(list(_DEVICES), p=[0.6, 0.3, 0.1], size=n_impressions)
    return impressions.sort_values("time", kind="stable", ignore_index=True)


def _click_probability(
    impressions: pd.DataFrame, interest: np.ndarray, interest_strength: float
) -> Floats:
    """Return each impression's probability of a click, by the formula of ``make_click_log``."""
    logit = 1.5 * interest_strength * np.log1p(interest)
    logit -= 0.4 * (np.log(impressions["price"].to_numpy()) - 3.0)
    logit += impressions["device"].map(_DEVICES).to_numpy()
    return expit(logit + find_intercept(logit, _BASE_RATE))


def check_at_least(least: float, **values: object) -> None:
    """Raise where one of the named values is no number or is smaller than ``least``."""
    for name, value in values.items():
        if not isinstance(value, Real):
            raise ValueError(f"{name} must be a number, got {value!r}.")
        if not float(value) >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def find_intercept(logit: Floats, mean: float, factor: Floats | float = 1.0) -> float:
    """Return the constant that makes log-odds, times ``factor``, average ``mean``."""
    return brentq(lambda b: (factor * expit(logit + b)).mean() - mean, -100, 100, xtol=1e-14)


def add_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its seconds since the first of January 2024 as dates."""
    return frame.assign(time=_START + frame["time"].to_numpy().astype("timedelta64[s]"))


def spread_over_days(
    gap: Integers, first: Integers, user: Integers, rng: np.random.RandomState
) -> Integers:
    """Return times of events, user after user: a random second of sixty days, then gap by gap."""
    elapsed = np.cumsum(gap)
    return elapsed + (rng.randint(DAY, 60 * DAY, size=first.size) - elapsed[first])[user]


def find_past(
    impressions: pd.DataFrame, events: pd.DataFrame, max_length: int
) -> tuple[Integers, Integers, Integers]:
    """Find the newest earlier events of each impression's user, sorted by user, then time.

    Returned are by past event, oldest to newest: impression, row of ``events``, and rank from 0.
    """
    span = 1 + max(events["time"].max(), impressions["time"].max())
    event_key = events["user"].to_numpy() * span + events["time"].to_numpy()
    user = impressions["user"].to_numpy()
    end = np.searchsorted(event_key, user * span + impressions["time"].to_numpy(), side="left")
    begin = np.maximum(np.searchsorted(event_key, user * span, side="left"), end - max_length)
    first = np.cumsum(end - begin) - (end - begin)
    row = np.repeat(np.arange(len(impressions)), end - begin)
    event = np.arange(len(row)) - first[row] + begin[row]
    return row, event, end[row] - 1 - event
