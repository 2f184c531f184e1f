"""What users did: a log, and the events that have been posted since."""

import bisect
import heapq
import itertools
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sklearn_din.logs.attach import LABEL
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.logs.sampling_notices import MANY, share_of_repeats
from sklearn_din.server.clock import SECOND, Clock
from sklearn_din.server.json_values import (
    Values,
    check_keys,
    check_spelling,
    check_value,
    plain,
    read_id,
)
from sklearn_din.server.store import Removed
from sklearn_din.utils.validation import check_frame, check_max_age
from sklearn_din.utils.warnings import warn_user

KINDS = {list: "a list", float: "a number", bool: "true or false"}
MOST_COUNTED = 1_000  # moments whose events were counted, of each log
PLAIN = ("int64", "bool")  # dtypes whose cells are as JSON has them
FAR_MORE = 2  # times the clicks that a model remembers: so many rows are not clicks alone


class Event(NamedTuple):
    """What a user did: equal ones are the same event."""

    user: Any
    time: Any  # as of ``Clock``
    values: tuple[Any, ...]  # of the log's columns
    came: tuple[Any, ...]  # from when on it counts, and its outcomes


class Joined(NamedTuple):
    """An event that was posted, as it stands among its user's, in the order of time."""

    time: Any
    sequence: int  # in the store
    is_new: bool  # False: one of those that the log has
    values: tuple[Any, ...]
    came: tuple[Any, ...]


class Histories:
    """Each user's newest events: those of the log, in order, and those posted, user by user.

    A post and a history cost the same however long the log is. An event counts as often as it was
    posted, or as often as the log has it, whichever is more. Threads may share it.

    The ``builder``, which need not be fitted, says which columns and events a history has. ``log``
    are events beside those that it remembers; other columns are what was last known of each user.
    """

    def __init__(
        self,
        builder: HistoryBuilder,
        log: pd.DataFrame | None = None,
        *,
        now: Literal["clock", "newest"] | None = None,
    ) -> None:
        names = [builder.columns] if isinstance(builder.columns, str) else [*builder.columns]
        self.user, self.time, self.columns = builder.user, builder.time, names
        self.sources = {f"{builder.prefix}{name}": name for name in names}
        self.max_length, self._ages = builder.max_length, builder._request.times_elapsed
        self.are_clicks = builder.events == "positive"  # else they hold what was shown, too
        self._outcomes = builder._outcomes
        self.known: Any = builder.known if self._outcomes else None
        # Columns that an event may have, too, at once or later with the same id
        self.told: set[Any] = {self.known, *self._outcomes} - {None, self.time, LABEL}
        columns = [self.user, self.time, *names]
        if log is not None:
            check_frame(log, columns, name="the history")
            log = log.sort_values(self.time, kind="stable")
        self._builder = _remember(builder, log, columns)
        events = self._builder.events_
        self.n_events = len(events)
        self.clock = Clock(events[self.time], now=now)
        counts_from = Clock(events[self.known]) if self._outcomes else self.clock
        self.clock.newest = max(self.clock.newest, counts_from.newest)
        unit = "ns" if self.clock.are_dates else None
        self._max_age = check_max_age(builder.max_age, unit=unit)
        self.sources |= {name: name for name in self._ages}
        self.sources |= {n: c for n, c in builder._request.sources.items() if c in self._outcomes}
        codes, users = pd.factorize(events[self.user])  # missing ones, -1, are nobody's
        self._order = np.lexsort((self.clock.values, codes))
        self._times = self.clock.values[self._order]
        self._counts_from = counts_from.values[self._order]
        ends = np.searchsorted(codes[self._order], np.arange(-1, len(users)), side="right")
        self.span_of = dict(zip(users.tolist(), itertools.pairwise(ends.tolist()), strict=True))
        self.forgotten: Container[Any] = ()  # users whose events in the log do not count
        self._find_example()
        last = events[:1] if log is None else log.drop_duplicates(self.user, keep="last")
        self._last_known = last.set_index(self.user)
        # Plain tuples, which the garbage collector leaves alone: it is half of the time of a start
        self.posted: dict[Any, list[tuple[Any, ...]]] = {}
        # How often each event of a moment is in the log, and was posted, where that was asked
        self._counts: dict[Any, list[Counter[Any]]] = {}
        self._kinds = {n: _kinds_of(self._known[n]) for n in (self.user, *names, *self._outcomes)}

    def of(self, user: Any) -> tuple[dict[str, list[Any]], list[Any]]:
        """Return the histories of one user, and the time of each event, oldest first.

        Of an unknown user they are empty.
        """
        check_spelling([user], self._known[self.user], name=self.user)
        posted, now, (start, end) = self.posted.get(user, []), self.now_of(user), self._span(user)
        if not self._outcomes:  # each counts from its own time on: the newest are enough
            end, n_past = self._place(user, now), bisect.bisect_left(posted, (now,))
            start = max(start, end - self.max_length)
            posted = posted[max(n_past - self.max_length, 0) : n_past]
        events = self._tell(self._in_log(user, start, end), map(Joined._make, posted))
        oldest = -np.inf if self._max_age is None else now - self._max_age
        events = [event for event in events if oldest <= event.came[0] < now]
        events = sorted(events, key=lambda e: (e.came[0], e.time))[-self.max_length :]
        names, unit = [*self.columns, *self._outcomes], SECOND if self.clock.are_dates else 1
        rows = [dict(zip(names, (*e.values, *e.came[1:]), strict=True)) for e in events]
        ages = [(now - event.came[0]) / unit for event in events]
        histories = {
            name: ages if name in self._ages else [row[column] for row in rows]
            for name, column in self.sources.items()
        }
        return histories, [self.clock.show(event.came[0]) for event in events]

    def users_return_to(self, item: str) -> bool:
        """Return whether many of the log's events repeat one of the same user and item."""
        events = self._builder.events_
        return item in events and share_of_repeats(events[self.user], events[item]) >= MANY

    def now_of(self, user: Any) -> Any:
        """Return the moment that is now for a user."""
        posted = self.posted.get(user, [])
        return self.clock.now(max((came[0] for *_, came in posted), default=None))

    def n_of(self, user: Any) -> int:
        """Return how many events of a user there are."""
        start, end = self._span(user)
        return end - start + sum(event[2] for event in self.posted.get(user, ()))

    def last_known(self, user: Any, name: str) -> Any:
        """Return what the log last had of a user in a column; None where it had nothing."""
        known = self._last_known
        if name not in known or user in self.forgotten or user not in known.index:
            return None
        return plain(known.at[user, name])

    def rows(self, n: int) -> pd.DataFrame:
        """Return the newest events of the log as rows with the histories that they had."""
        return self._builder.transform(self._builder.events_.nlargest(n, self.time))

    def read(self, events: list[Values]) -> list[Event]:
        """Return events of a request, checked: nothing is remembered yet."""
        check_keys(events, [self.user, self.time, *self.columns], what="an event")
        for name in (self.user, self.time):
            if any(event[name] is None for event in events):
                raise ValueError(f"an event must have a value for {name}, got null.")
        for name, kinds in self._kinds.items():
            _check_cells([event.get(name) for event in events], self._known[name], kinds, name)
        times = [self.clock.read(event[self.time]) for event in events]
        cells = [tuple(event[name] for name in self.columns) for event in events]
        users = [event[self.user] for event in events]
        return [Event(*e, (e[1],)) for e in zip(users, times, cells, strict=True)]

    def read_stored(
        self, users: list[Any], times: list[Any], columns: Iterable[list[Any]], came: list[Values]
    ) -> list[Event | None]:
        """Return events of a store; None where this log cannot have one.

        That is, as another model posted it, or one of a log of another kind. They are not too
        late, should the log be shorter now.
        """
        moments, cells = self.clock.read_stored(times), list(columns)
        is_right = [moment is not None for moment in moments]
        told, known = [[row.get(name) for row in came] for name in self._outcomes], moments
        if self.known in self.told:
            known = self.clock.read_stored([row.get(self.known) for row in came])
            known = [own if k is None else k for k, own in zip(known, moments, strict=True)]
        for kinds, own in zip(self._kinds.values(), (users, *cells, *told), strict=True):
            is_right = [right and type(c) in kinds for right, c in zip(is_right, own, strict=True)]
        outcomes = zip(known, *told, strict=True)
        events = zip(users, moments, zip(*cells, strict=True), outcomes, is_right, strict=True)
        return [Event(*event) if right else None for *event, right in events]

    def has(self, event: Event) -> bool:
        """Return whether the log has an event, or it was posted."""
        return any(self._count(event, self.posted.get(event.user, [])))

    def add(
        self,
        events: Iterable[tuple[int, Event]],
        touched: dict[Any, list[Any]] | None = None,
    ) -> None:
        """Remember events with their numbers in the store, beside those of ``touched`` users."""
        touched = {} if touched is None else touched  # new lists: readers may have the old
        for sequence, event in events:
            own = touched.get(event.user)
            if own is None:
                own = touched[event.user] = [*self.posted.get(event.user, ())]
            is_new, moment = True, event[:2]
            if moment in self._counts or self._place(*moment) < self._place(*moment, "right"):
                n_in_log, n_posted = self._count(event, own)
                is_new = n_posted >= n_in_log
                self._counts[moment][1][_hashable(event.values)] += 1
            bisect.insort(own, (event.time, sequence, is_new, *event[2:]))
            self.n_events += is_new
        self.posted |= touched

    def read_user(self, text: str | int) -> Any:
        """Return a user's id that was typed: an integer where the log's are."""
        return read_id(text, 0 if int in self._kinds[self.user] else None)

    def remove(self, removed: Iterable[Removed], users: dict[str, Any]) -> None:
        """Forget events that were posted; ``users`` says whose each key is."""
        self._counts.clear()
        if self._known[self.user] and self._known[self.user][0] in self.forgotten:
            self._find_example()
        for gone in removed:
            user = users.get(gone.user_key)
            own = [Joined(*event) for event in self.posted.get(user, ())]
            kept = [event for event in own if not gone.first <= event.sequence <= gone.last]
            self.n_events -= sum(event.is_new for event in own)
            self.add(((e.sequence, Event(user, e.time, *e[3:])) for e in kept), {user: []})
            if not kept:
                self.posted.pop(user, None)

    def example(self) -> Values:
        """Return an event as :meth:`read` takes it."""
        event = {str(name): [*cells, None][0] for name, cells in self._known.items()}
        event.pop(LABEL, None)
        return event | {self.time: self.clock.show(self.clock.values[self._example].item())}

    def search(self, text: str, n: int) -> list[Values]:
        """Return users whose id holds a text, those with the most events first."""
        users = {*self.span_of, *self.posted}
        n_events = {u: self.n_of(u) for u in users if text.lower() in str(u).lower()}
        hits = heapq.nsmallest(n, n_events, key=lambda user: (-n_events[user], str(user)))
        return [{"user": plain(u), "events": n_events[u]} for u in hits if n_events[u]]

    def _tell(self, events: list[Event], posted: Iterable[Joined]) -> list[Event]:
        """Return events of the log and posted ones; outcomes of one that it has replace those."""
        same = defaultdict[Any, list[int]](list)
        for place, event in enumerate(events if self._outcomes else ()):
            same[event.time, _hashable(event.values)].append(place)
        for own in posted:
            if own.is_new:
                events.append(Event(None, own.time, own.values, own.came))
            elif self._outcomes:
                place = same[own.time, _hashable(own.values)].pop(0)
                known, *before = events[place].came
                came = [b if o is None else o for o, b in zip(own.came[1:], before, strict=True)]
                known = known if came == before else max(known, own.came[0])
                events[place] = events[place]._replace(came=(known, *came))
        return events

    def _find_example(self) -> None:
        """Take the event of messages and of the documentation from a user who is not forgotten."""
        events, own = self._builder.events_, [self.user, self.time, *self.columns, *self._outcomes]
        is_shown = (not pd.isna(u) and u not in self.forgotten for u in events[self.user])
        first = next((row for row, is_one in enumerate(is_shown) if is_one), len(events))
        known = {name: events[name].iloc[first:].dropna().head(1).tolist() for name in own}
        self._known = {name: plain(cells) for name, cells in known.items()}
        self._example = min(first, len(events) - 1)

    def _place(self, user: Any, moment: Any, side: Literal["left", "right"] = "left") -> int:
        """Return where a moment comes among the events of a user in the log."""
        find = bisect.bisect_left if side == "left" else bisect.bisect_right
        return find(self._times, moment, *self._span(user))

    def _span(self, user: Any) -> tuple[int, int]:
        """Return where the events of a user lie in the log."""
        return (0, 0) if user in self.forgotten else self.span_of.get(user, (0, 0))

    def _in_log(self, user: Any, start: int, end: int) -> list[Event]:
        """Return events of a user in the log, from one place to before another."""
        frame, rows = self._builder.events_, self._order[start:end]
        cells = [frame[name].array[rows] for name in (*self.columns, *self._outcomes)]
        columns = [c.to_numpy().tolist() if str(c.dtype) in PLAIN else plain(c) for c in cells]
        times, counts_from = (own[start:end].tolist() for own in (self._times, self._counts_from))
        n, rows_of = len(self.columns), zip(times, counts_from, *columns, strict=True)
        return [Event(user, t, tuple(own[:n]), (known, *own[n:])) for t, known, *own in rows_of]

    def _count(self, event: Event, own: list[Any]) -> list[int]:
        """Count how often the log has an event, and how often it was posted, among its user's.

        A moment is read once, however many events of it are asked for.
        """
        moment, values = event[:2], _hashable(event.values)
        if moment not in self._counts:
            if len(self._counts) >= MOST_COUNTED:
                self._counts.clear()
            start, end = self._place(*moment), self._place(*moment, "right")
            rows = self._in_log(event.user, start, end) if start < end else []
            own = own[bisect.bisect_left(own, moment[1:]) :]
            same = itertools.takewhile(lambda other: other[0] == event.time, own)
            known = [row.values for row in rows], [other[3] for other in same]
            self._counts[moment] = [Counter(map(_hashable, some)) for some in known]
        return [counts[values] for counts in self._counts[moment]]


def _hashable(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values of an event, lists as tuples."""
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _remember(
    builder: HistoryBuilder, log: pd.DataFrame | None, names: list[str]
) -> HistoryBuilder:
    """Return a builder of all events: of one that remembers some, and of a log."""
    parts = [builder.events_] if hasattr(builder, "events_") else []
    if builder._outcomes and builder.events == "positive":
        parts = [part[part[LABEL] == 1] for part in parts]
    parts = [*parts, log] if log is not None else parts
    if not sum(map(len, parts)):
        raise ValueError("the history must have at least one event, got none.")
    known: Any = builder.known if builder._outcomes else builder.time
    told = [*dict.fromkeys([*names, known, *builder._outcomes])]
    parts = [part.assign(**{known: part.get(known, part[builder.time])}) for part in parts]
    parts = [part.reindex(columns=told) for part in parts]
    of_events = {"events": "all", "levels": None, "online_model": False}
    of_events["known"] = known if builder._outcomes else None
    remembered = HistoryBuilder(**{**builder.get_params(), **of_events})
    remembered.fit(parts[0], parts[0].get(LABEL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of events that are in both
        for part in parts[1:]:
            remembered.partial_fit(part, part.get(LABEL))
    if len(parts) > 1:
        _warn_of_other_rows(remembered, parts[0])
    return remembered


def _warn_of_other_rows(remembered: HistoryBuilder, clicks: pd.DataFrame) -> None:
    """Warn where a log has far more rows than a model's clicks, of the same users and times."""
    user, time, events = remembered.user, remembered.time, remembered.events_
    is_same = events[user].isin(clicks[user])
    is_same &= events[time].between(clicks[time].min(), clicks[time].max())
    if is_same.sum() > FAR_MORE * len(clicks):
        warn_user(
            f"the history has {is_same.sum():,} rows of the users and times of training, of which "
            f"the model remembers {len(clicks):,} as clicks, and each row counts as a click. Leave "
            "rows without a click out, such as by history[history['clicked'] == 1]."
        )


def _kinds_of(known: list[Any]) -> frozenset[type]:
    """Return the types of JSON that a column may have, as the log has it."""
    first = known[0] if known else None
    if isinstance(first, list):
        return frozenset((list, type(None)))
    if first is None:
        return frozenset((str, int, float, bool, list, type(None)))
    return frozenset((type(first), type(None), *((int,) if type(first) is float else ())))


def _check_cells(cells: list[Any], known: list[Any], kinds: Collection[type], name: str) -> None:
    """Raise where a column gets another kind of values than the log has, or a long text."""
    for cell in cells:
        if type(cell) not in kinds:
            check_spelling([cell], known, name=name)
            what = next((text for kind, text in KINDS.items() if kind in kinds), "one value")
            raise ValueError(f"{name} must be {what}, as in the log, got {cell!r:.40}.")
        if isinstance(cell, list):
            check_spelling(cell, known[0] if known else [], name=name)
        check_value(cell, name=name)
