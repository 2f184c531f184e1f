"""A made log of a market, its truth known: clicks are rare, tomorrow's items are new."""

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

from sklearn_din.datasets.click_log import DAY, Floats, Integers, add_dates, find_intercept

_N_DAYS = 14
_N_TEST_DAYS = 2
_VISITS_PER_DAY = 5  # or more, where the users are few
_VIEWS_PER_VISIT = 5
_NEWEST = 50  # events of the past that count, as in attach_history
_RETURNS_AMONG = 10  # newest events whose items a user comes back to
_SECONDS_BETWEEN = 20
_ACTIONS = np.array(["view", "favourite", "cart"])
_CART = 2


def make_market_log(
    *,
    n_users: int = 800,
    n_impressions: int = 55_000,
    n_items: int = 1000,
    n_categories: int = 20,
    base_rate: float = 0.02,
    turnover: float = 0.55,
    mood: float = 0.0,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make a log of a marketplace, where clicks are rare and tomorrow's items are new.

    For fourteen days users come by, look at five items and are then shown one more, which they
    click (put into the cart) or not. Whatever they do is an event with a kind of action, and is
    in their histories from then on. Every midnight a share of the items goes for good, and new
    ones take their places: of the last two days' impressions two thirds show an item that nobody
    had seen before, and so does a third of the events in their histories. Users come back to
    items that they looked at. The log-odds of a click::

        logit = b + 1.3 * log(1 + events of this item) + 0.3 * log(1 + events of its category)
                + 3 * share of carts + 3 * share of carts in its category + quality of the item
                + mood of the user's day

    over the user's newest 50 events. Shares are (carts + 1) / (events + 8). An item's quality shows
    in its own clicks alone. b is such that of each visit's impressions the share `base_rate` is
    expected to be clicked; five visits or more make a day.

    ``turnover`` is the share of the items that are replaced every midnight; ``mood`` the standard
    deviation of what each user's day adds to the log-odds, for no reason that shows: whoever learns
    users by their histories learns what is over tomorrow. Returns events and impressions, frames in
    the order of time (a clicked impression is a "cart" one second later); y; probability, whose AUC
    is the ceiling; is_test, True in the last two days; quality by item.
    """
    rng = check_random_state(random_state)
    n_visits = max(_VISITS_PER_DAY, -(-n_impressions // (_N_DAYS * n_users)))
    n_shown = max(1, round(n_impressions / (_N_DAYS * n_visits)))
    market = _Market(n_users, n_items, n_categories, rng)
    shown = []
    for day in range(_N_DAYS + 1):  # on the first one all users look, and nothing is shown
        for visit in range(n_visits):
            user = rng.permutation(n_users)[: n_shown if day else n_users]
            begin = day * DAY + visit * DAY // n_visits
            time = begin + rng.randint(DAY // (2 * n_visits), size=len(user))
            time = market.look(user, time)
            if day:
                shown.append(market.show(user, time, base_rate))
        market.turn(turnover, mood)
    return _bunch(market, pd.concat(shown))


class _Market:
    """Items on show, what each user likes, and what each has done."""

    def __init__(self, n_users: int, n_items: int, n_categories: int, rng: np.random.RandomState):
        self.rng, self.n_categories = rng, n_categories
        self.category = np.arange(n_items) % n_categories  # by item; a place's never changes
        self.place = np.arange(n_items)  # by item
        self.quality = rng.normal(0, 0.4, size=n_items)
        self.on_show = np.arange(n_items)  # by place
        self.mood = np.zeros(n_users)  # of the day
        self._taste = rng.dirichlet(np.full(n_categories, 0.2), n_users).cumsum(axis=1)
        by_category = rng.normal(0, 1, size=(n_users, n_categories))
        self._zeal = by_category + rng.normal(-2.5, 1, size=(n_users, 1))
        # The newest events of each user, from oldest to newest; -1 in front of the first one.
        self._items = np.full((n_users, _NEWEST), -1)
        self._actions = np.zeros((n_users, _NEWEST), dtype=int)
        self.events: list[dict[str, Integers]] = []

    def turn(self, turnover: float, mood: float) -> None:
        """Replace a share of the items by new ones of the same categories; draw all moods."""
        if mood:
            self.mood = self.rng.normal(0, mood, size=len(self._taste))
        n_new = round(turnover * len(self.on_show))
        places = self.rng.choice(len(self.on_show), size=n_new, replace=False)
        self.on_show[places] = len(self.category) + np.arange(n_new)
        self.category = np.append(self.category, places % self.n_categories)
        self.place = np.append(self.place, places)
        self.quality = np.append(self.quality, self.rng.normal(0, 0.4, size=n_new))

    def look(self, user: Integers, time: Integers) -> Integers:
        """Let each user look at some items from some time on; return when they are done."""
        for _ in range(_VIEWS_PER_VISIT):
            item = self._draw(user, again=0.25, by_taste=0.8)
            chance = expit(self._zeal[user, self.category[item]])
            action = self.rng.binomial(1, 0.1, size=len(user))
            action[self.rng.random_sample(len(user)) < chance] = _CART
            self._append(user, item, action, time)
            time = time + 1 + self.rng.randint(_SECONDS_BETWEEN, size=len(user))
        return time

    def show(self, user: Integers, time: Integers, base_rate: float) -> pd.DataFrame:
        """Show each user an item, and append the clicks to their events."""
        item = self._draw(user, again=0.2, by_taste=0.4)
        logit = self._interest(user, item) + self.quality[item] + self.mood[user]
        probability = expit(logit + find_intercept(logit, base_rate))
        clicked = self.rng.random_sample(len(user)) < probability
        carts = np.full(clicked.sum(), _CART)
        self._append(user[clicked], item[clicked], carts, time[clicked] + 1)
        columns = {"user": user, "item": item, "category": self.category[item], "time": time}
        return pd.DataFrame({**columns, "y": clicked.astype(int), "probability": probability})

    def _draw(self, user: Integers, *, again: float, by_taste: float) -> Integers:
        """Draw an item on show for each user: some of the past, some by taste, the rest any."""
        n, n_items = len(user), len(self.on_show)
        drawn_category = (self.rng.random_sample((n, 1)) > self._taste[user, :-1]).sum(axis=1)
        n_places = -(-(n_items - drawn_category) // self.n_categories)
        nth = (self.rng.random_sample(n) * n_places).astype(int)
        place = np.where(
            self.rng.random_sample(n) < by_taste,
            drawn_category + self.n_categories * nth,
            self.rng.randint(n_items, size=n),
        )
        before = self._items[user, _NEWEST - 1 - self.rng.randint(_RETURNS_AMONG, size=n)]
        is_there = (before >= 0) & (self.on_show[self.place[before]] == before)
        comes_back = is_there & (self.rng.random_sample(n) < again)
        return np.where(comes_back, before, self.on_show[place])

    def _interest(self, user: Integers, item: Integers) -> Floats:
        """Return what the log-odds of a click owe to the past: see ``make_market_log``."""
        items, is_cart = self._items[user], self._actions[user] == _CART
        happened = items >= 0
        of_category = happened & (self.category[items] == self.category[item][:, None])
        of_item = items == item[:, None]

        def share(chosen: np.ndarray) -> Floats:
            return ((chosen & is_cart).sum(axis=1) + 1) / (chosen.sum(axis=1) + 8)

        return (
            1.3 * np.log1p(of_item.sum(axis=1))
            + 0.3 * np.log1p(of_category.sum(axis=1))
            + 3 * share(happened)
            + 3 * share(of_category)
        )

    def _append(self, user: Integers, item: Integers, action: Integers, time: Integers) -> None:
        for newest, value in ((self._items, item), (self._actions, action)):
            newest[user] = np.column_stack([newest[user, 1:], value])
        self.events.append({"user": user, "item": item, "action": action, "time": time})


def _bunch(market: _Market, shown: pd.DataFrame) -> Bunch:
    names = market.events[0]
    events = pd.DataFrame({n: np.concatenate([e[n] for e in market.events]) for n in names})
    events["action"] = _ACTIONS[events["action"]]
    events.insert(2, "category", market.category[events["item"]])
    events = events.sort_values("time", kind="stable", ignore_index=True)
    shown = shown.sort_values("time", kind="stable", ignore_index=True)
    is_test = (shown["time"] >= (1 + _N_DAYS - _N_TEST_DAYS) * DAY).to_numpy()
    return Bunch(
        events=add_dates(events),
        impressions=add_dates(shown[["user", "item", "category", "time"]]),
        y=shown["y"].to_numpy(),
        probability=shown["probability"].to_numpy(),
        is_test=is_test,
        quality=market.quality,
    )
