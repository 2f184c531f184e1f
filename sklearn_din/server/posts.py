"""Posted events: checked, written to the store, and read from it into a model's histories."""

import json
import logging
from collections.abc import Collection
from typing import Any, cast

from sklearn_din.logs.attach import LABEL
from sklearn_din.server.answers import Answers
from sklearn_din.server.histories import Event, Histories
from sklearn_din.server.json_values import (
    Values,
    check_spelling,
    check_value,
    plain,
    refuse_other_keys,
    write,
)
from sklearn_din.server.store import BLOCK, Posted, Removed, Store

LOGGER = logging.getLogger("sklearn_din.server")
MOST_ID = 200  # characters of an event's id, and of a request's
OWN_KEYS = ("event_id", "label", "request")  # of an event, beside columns
NO_LOG = (
    "there is no log that a click could join: start the server with --history, or serve a Pipeline "
    "that begins with a HistoryBuilder."
)


class Forgotten:
    """Users whose events in files do not count until these have been made anew."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.keys = set[str]()

    def __contains__(self, user: Any) -> bool:
        return bool(self.keys) and self._store.user_key(user) in self.keys


class Posts:
    """A store's events, as far as they have joined the histories of one model's answers.

    What a model cannot take, as another one posted it, never stops anything: an event whose user,
    time or values are of another kind is left out, and a column that neither it nor the catalogue
    has is null. Both are counted.
    """

    def __init__(self, answers: Answers, store: Store) -> None:
        self.answers, self._store = answers, store
        self.n_left_out, self.n_without_a_value = 0, 0
        self.removed_to, self._read_to = 0, 0
        self._forgotten = Forgotten(store)
        answers.forget(self._forgotten)
        self._cells_of: dict[str, list[Any]] = {}  # of the catalogue, where an event has none

    def read(self, events: list[Values]) -> list[tuple[Event, Posted]]:
        """Return events of a request, checked, and as the store has them."""
        log, item = self.answers.histories, self.answers.items.item
        if log is None:
            raise ValueError(NO_LOG)
        names = [log.user, log.time, *log.columns, *log.told]
        known = dict.fromkeys([*names, item, *self.answers.posted_columns, *OWN_KEYS])
        refuse_other_keys(events, known, what="an event")
        whole = self.answers.fill_events(events)
        own = {log.user, log.time, item, *OWN_KEYS[:2]}
        texts = []
        for values in whole:
            self._check(values)
            others = {name: value for name, value in values.items() if name not in own}
            if log.known in others:
                moment = log.clock.read(others[log.known])
                others[log.known] = log.clock.write(others[log.known], moment)
                if moment < log.clock.read(values[log.time]):
                    raise ValueError(f"{log.known} must not be earlier than {log.time}.")
            texts.append((write(values.get(item)), values.get("label"), write(others)))
        rows = []
        for event, values, text in zip(log.read(whole), whole, texts, strict=True):
            time = log.clock.write(values[log.time], event.time)
            stored = Posted("", write(event.user), write(time), *text)
            event_id = values.get("event_id")
            if event_id is None:  # equal ones are one, whatever came of it
                columns = {n: v for n, v in json.loads(text[-1]).items() if n not in log.told}
                same = stored._replace(label=None, columns=write(columns))
                event_id = self._store.hash(" ".join(map(str, same)))
            rows.append((event, stored._replace(event_id=str(event_id))))
        return rows

    def find_new(
        self, rows: list[tuple[Event, Posted]], events: list[Values]
    ) -> tuple[list[Posted], list[str]]:
        """Return events that neither the store nor the history's file has, and ids they replace.

        An event is there once, as it was posted last: another label is new, none is a click. Where
        histories have outcomes, one that is missing says nothing, and so does a missing label.
        """
        log = cast(Histories, self.answers.histories)  # else read has raised
        has_outcomes = log.known is not None
        stored = self._store.find_stored([row.event_id for _, row in rows])
        new: dict[str, Posted] = {}
        for (event, row), given in zip(rows, events, strict=True):
            if row.event_id not in stored and row.event_id not in new:
                is_click = given.get("event_id") is None and row.label != 0
                if is_click and log.are_clicks and log.has(event):
                    continue
            elif has_outcomes and row.event_id in stored:
                row = _fill(row, *stored[row.event_id], log.told)
            new[row.event_id] = row
        told: Any = tuple if has_outcomes else (lambda row: row[0] != 0)
        changed = [n for n in stored if told(new[n][-2:]) != told(stored[n])]
        return [row for n, row in new.items() if n not in stored or n in changed], changed

    def catch_up(self) -> None:
        """Let what the store has since join, and what is gone from it go."""
        n_rows = BLOCK
        while n_rows == BLOCK:
            removed = self._store.read_removed(self.removed_to)
            rows = self._store.read_rows("events", self._read_to)
            self._forget(removed)
            if rows:
                self._read_to = rows[-1][0]
            if self.answers.histories is None:
                self.n_left_out += len(rows)
            self._read(rows)
            n_rows = len(rows)
        if self.answers.levels is not None:
            self.answers.levels.join()

    def _forget(self, removed: list[Removed]) -> None:
        if not removed:
            return
        self._forgotten.keys |= {gone.user_key for gone in removed if gone.first == 0}
        log = self.answers.histories
        if log is not None:
            wanted, users = {gone.user_key for gone in removed}, {}
            for user in [*log.posted]:
                if (key := self._store.user_key(user)) in wanted:
                    users[key] = user
            log.remove(removed, users)
        self.removed_to = removed[-1].sequence  # rankings that begin now know all of it
        has_lost_rows = any(gone.last for gone in removed)
        if self.answers.levels is not None and has_lost_rows:  # sums cannot be taken back
            self.answers.levels.begin_anew()
            n_without = self.n_without_a_value
            for rows in self._store.read_blocks("events"):
                self._read([row for row in rows if row[0] <= self._read_to], joins=False)
                if not rows or rows[-1][0] >= self._read_to:
                    break
            self.n_without_a_value = n_without

    def _read(self, rows: list[tuple[Any, ...]], *, joins: bool = True) -> None:
        """Read rows of the store; those that ``joins`` is for join histories, too.

        Where histories have outcomes, a row waits for the first thing that is told of it.
        """
        log, levels = self.answers.histories, self.answers.levels
        if log is not None and log.known is not None:
            rows = [row for row in rows if row[4] is not None or _has_come(row[5], log.told)]
        if log is None or not rows:
            return
        sequences, users, times, items, labels, others = zip(*rows, strict=True)
        texts = (users, times, items, others)
        users, times, items, others = (json.loads(f"[{','.join(column)}]") for column in texts)
        cells = {name: self._cells(name, items, others) for name in log.columns}
        came = [{**row, LABEL: label} for row, label in zip(others, labels, strict=True)]
        events = log.read_stored(users, times, [*cells.values()], came)
        if levels is not None:
            more = [name for name in levels.columns if name not in cells and name != log.user]
            cells |= {name: self._cells(name, items, others) for name in more} | {log.user: users}
            there = [n for n, event in enumerate(events) if event is not None]
            of_events = {name: [cells[name][n] for n in there] for name in levels.columns}
            told = [cast(Event, events[n]) for n in there]
            moments = [e.time for e in told], [e.came[0] for e in told]
            levels.add(of_events, *moments, [labels[n] for n in there])
        if not joins:
            return
        no_clicks = ((0, None) if log.known is not None else (0,)) if log.are_clicks else ()
        read = [
            (sequence, event)
            for sequence, event, label in zip(sequences, events, labels, strict=True)
            if event is not None and label not in no_clicks
        ]
        log.add(read)
        self.n_left_out += sum(event is None for event in events)

    def _cells(self, name: str, items: list[Any], others: list[Values]) -> list[Any]:
        """Return a column of stored events: what they lack, the catalogue has of their item."""
        if name == self.answers.items.item:
            return items
        cells, catalogue = [], self.answers.items
        for item, values in zip(items, others, strict=True):
            if name in values:
                cells.append(values[name])
                continue
            if name not in self._cells_of and name in catalogue.frame:
                self._cells_of[name] = [plain(cell) for cell in catalogue.frame[name].tolist()]
            row = catalogue.row_of(item) if name in catalogue.frame else None
            self.n_without_a_value += row is None
            cells.append(None if row is None else self._cells_of[name][row])
        return cells

    def _check(self, event: Values) -> None:
        """Raise where an event has a wrong id or label, or no column of an unknown item."""
        log, items = self.answers.histories, self.answers.items
        for name in ("event_id", "request"):
            value = event.get(name)
            if value is not None and (type(value) not in (str, int) or len(str(value)) > MOST_ID):
                raise ValueError(
                    f"{name} must be text or an integer of at most {MOST_ID} characters, got "
                    f"{value!r:.60}."
                )
        label = event.get("label")
        if label is not None and (type(label) is not int or label not in (0, 1)):
            raise ValueError(f"label must be 1, or 0 of what was shown alone, got {label!r:.40}.")
        absent = [name for name in log.columns if name not in event] if log is not None else []
        if absent and items.item in event and items.row_of(event[items.item]) is None:
            raise ValueError(
                f"{items.item} {event[items.item]!r:.60} is not in the catalogue, so that an "
                f"event of it must have the keys {absent} itself."
            )
        for name, value in event.items():
            check_value(value, name=name)
            if name in self.answers.posted_columns:
                check_spelling([value], self.answers.posted_columns[name], name=name)


def _has_come(columns: str, told: Collection[str]) -> bool:
    """Return whether stored columns say what came of an event, or when that was known."""
    return any(name in told and value is not None for name, value in json.loads(columns).items())


def _fill(row: Posted, label: int | None, columns: str, told: Collection[str]) -> Posted:
    """Return an event that was posted before, with what came of it that is told now."""
    came = {n: v for n, v in json.loads(row.columns).items() if n in told and v is not None}
    columns = write({**json.loads(columns), **came})
    return row._replace(label=label if row.label is None else row.label, columns=columns)
