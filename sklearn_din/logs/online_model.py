"""The online model of a memory: one estimate from all keys of a row, exact as of any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import erfc

from sklearn_din.logs.online_updates import (
    PRIOR_OF_BIAS,
    Questions,
    Rows,
    State,
    fade,
    update,
)
from sklearn_din.logs.timeline import search_in_order, since, stable_order
from sklearn_din.native.structures import load_library
from sklearn_din.utils.keys import NO_KEY, join_hashes, mix_hashes

if TYPE_CHECKING:
    from sklearn_din.logs.row_memory import Moments, RowMemory

VARIANCES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of a key column's weights; or the column is none
HALF_LIVES = (1.0, 0.5, 0.25, 0.1)  # in time spans of the training rows; or nothing fades
MARGIN = 2.0  # nats by which a column or a half-life must lower the loss of the training rows
EVIDENCE_ROWS = 20_000  # of whole users, by which variances are chosen
ROWS_IN_PYTHON = 2_000  # the same without the native code
TAIL_ROWS = 10_000  # newest rows that each update computes again, at least
TAIL_SHARE = 0.05  # of all rows, at least as many
POSITION_BITS = 32  # of a place: the number of the key, then the position of the row
LEAST_RATE = 1e-12


@dataclass(frozen=True, eq=False)
class OnlineModel:
    """Which keys an online model has, and how far it trusts each label.

    keys : the columns of each key: one column, or two together
    variances : the prior variance of the weights of each key's values
    half_life : in which what was learnt fades by half, in seconds or the unit of numeric times; 0
        if nothing fades
    """

    keys: tuple[tuple[str, ...], ...]
    variances: tuple[float, ...]
    half_life: float = 0.0

    @property
    def priors(self) -> np.ndarray:
        """Prior variances, that of the bias last: (n_keys + 1,)."""
        return np.array([*self.variances, PRIOR_OF_BIAS])

    def check(self) -> None:
        """Raise ValueError unless there is a positive variance for each key."""
        numbers = np.array([*self.variances, 1.0])
        is_right = len(self.keys) == len(self.variances) and np.isfinite(numbers).all()
        if not is_right or numbers.min() <= 0 or not 0 <= self.half_life < np.inf:
            raise ValueError("an online model needs a positive variance for each key.")

    @classmethod
    def learn(cls, memory: RowMemory, user: str) -> OnlineModel:
        """Choose keys, variances and the half-life by the rows of a memory.

        The loss that counts is that of each row's rate as of its time, from earlier rows alone.
        Coordinate descent starts without any key; a key must lower the loss by ``MARGIN``.
        """
        rows = LabelledRows.of(memory)
        some = _rows_of_some_users(memory, rows, user)
        evidence = _Evidence.of(memory, rows, some)
        keys, variances = [*memory.keys], [0.0] * len(memory.keys)
        span = float(np.ptp(rows.clock[some])) if len(some) else 0.0
        best, half_life = evidence.loss(variances, 0.0), 0.0
        for is_first in (True, False, False):
            before = [*variances]
            for number in range(len(keys)):
                for variance in _near(variances[number], is_first=is_first):
                    tried = [*variances[:number], variance, *variances[number + 1 :]]
                    margin = MARGIN * ((variance > 0) - (variances[number] > 0))
                    loss = evidence.loss(tried, half_life)
                    if loss < best - margin:
                        best, variances = loss, tried
            if is_first and any(variances) and span > 0:
                losses = {part * span: evidence.loss(variances, part * span) for part in HALF_LIVES}
                shortest = min(losses, key=lambda own: losses[own])
                if losses[shortest] < best - MARGIN:
                    best, half_life = losses[shortest], shortest
            elif variances == before:
                break
        chosen = {key: v for key, v in zip(keys, variances, strict=True) if v}
        return cls(tuple(chosen), tuple(chosen.values()), half_life)


def _near(variance: float, *, is_first: bool) -> list[float]:
    """Return the variances to try in place of one: first all, then those beside it and none."""
    if is_first or not variance:
        return [*VARIANCES]
    at = VARIANCES.index(variance)
    return [*VARIANCES[max(at - 1, 0) : at], *VARIANCES[at + 1 : at + 2], 0.0]


def _rows_of_some_users(memory: RowMemory, rows: LabelledRows, user: str) -> np.ndarray:
    """Return positions of all rows of some users, chosen by their hash, in order.

    All rows of a user and not the newest rows of all: a cut in time changes how often keys return.
    """
    n_most = EVIDENCE_ROWS if load_library() is not None else ROWS_IN_PYTHON
    own = memory.hashes[memory.columns.index(user)][rows.rows]
    if len(own) <= n_most:
        return np.arange(len(own))
    codes, users = pd.factorize(own)
    order = np.argsort(mix_hashes([users, users]), kind="stable")
    n_taken = np.searchsorted(np.cumsum(np.bincount(codes)[order]), n_most, side="right")
    is_taken = np.zeros(len(users), dtype=bool)
    is_taken[order[: max(n_taken, 1)]] = True
    return np.flatnonzero(is_taken[codes])[-n_most:]


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Training rows as labelled rows and as questions."""

    rows: Rows
    questions: Questions
    labels: np.ndarray
    n_keys: tuple[int, ...]

    @classmethod
    def of(cls, memory: RowMemory, rows: LabelledRows, some: np.ndarray) -> _Evidence:
        """Take some of the labelled rows of a memory."""
        own, codes = rows.rows[some], []
        columns = dict(zip(memory.columns, memory.hashes[:, own], strict=True))
        for key in memory.keys:
            hashes = join_hashes([columns[name] for name in key])
            code = np.full(len(some), -1)
            code[hashes != NO_KEY] = pd.factorize(hashes[hashes != NO_KEY])[0]
            codes.append(code)
        keys = np.array(codes, dtype=np.int32).reshape(len(memory.keys), len(some))
        labels = rows.labels[some]
        after = np.searchsorted(rows.known[some], memory.times[own], side="left")
        order = np.argsort(after, kind="stable")
        times = since(memory.times, rows.origin, memory.unit)[own]
        questions = Questions(keys[:, order], after[order], times[order])
        n_keys = tuple(int(code.max(initial=-1)) + 1 for code in codes)
        return cls(Rows(keys, rows.clock[some], labels), questions, labels[order], n_keys)

    def loss(self, variances: Sequence[float], half_life: float) -> float:
        """Return the log loss of all rows, their sum, with these prior variances; 0: no key."""
        taken = [number for number, variance in enumerate(variances) if variance]
        rows, asked = self.rows, self.questions
        state = State.of_new_keys([self.n_keys[number] for number in taken])
        priors = np.array([*(variances[number] for number in taken), PRIOR_OF_BIAS])
        rates, _ = update(
            rows._replace(keys=rows.keys[taken]),
            priors,
            half_life,
            state,
            questions=asked._replace(keys=asked.keys[taken]),
        )
        rates = np.clip(rates, LEAST_RATE, 1 - LEAST_RATE)
        return float(-np.log(np.where(self.labels == 1, rates, 1 - rates)).sum())


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Labelled rows of a memory in the order in which the model learns them.

    A row is learnt at the time at which its first label became known. Rows of one time are ordered
    by the hash of their columns and by that label: the order of updates makes no difference.

    rows : (n,), numbers of the rows' first labelled entries in the memory
    known : (n,), their label times, as the memory has them
    clock : (n,) float64, the same since ``origin``, the memory's earliest label time, in seconds or
        the unit of numeric times
    labels : (n,) int8, the newest label of each row
    places : (n_corrections,), positions of the rows whose label was corrected, in order of time
    corrected : (n_corrections,), the label times of the corrections
    earlier : (n_corrections,) int8, the label that each of them replaced
    """

    rows: np.ndarray
    known: np.ndarray
    clock: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    corrected: np.ndarray
    earlier: np.ndarray
    origin: float | int

    @classmethod
    def of(cls, memory: RowMemory) -> LabelledRows:
        """Read the rows of a memory."""
        entries = np.flatnonzero(~np.isnan(memory.values[:, 0]))
        chain = np.where(memory.replaces[entries] < 0, entries, memory.replaces[entries])
        in_chains = np.argsort(chain, kind="stable")
        entries, chain = entries[in_chains], chain[in_chains]
        is_first = np.append(True, chain[1:] != chain[:-1])[: len(chain)]
        rows = entries[is_first]
        order = _order(memory, rows)
        labels = (memory.values[:, 0] == 1).astype(np.int8)
        newest = entries[np.append(is_first[1:], True)[: len(entries)]]
        position = np.empty(len(rows), dtype=np.int64)
        position[order] = np.arange(len(rows))
        again = np.flatnonzero(~is_first)
        known = memory.known[rows[order]]
        origin = memory.known.min().item() if len(memory.known) else 0
        in_time = stable_order(memory.known[entries[again]])
        again = again[in_time]
        return cls(
            rows[order],
            known,
            since(known, origin, memory.unit),
            labels[newest[order]],
            position[np.cumsum(is_first)[again] - 1],
            memory.known[entries[again]],
            labels[entries[again - 1]],
            origin,
        )

    def grow(self, memory: RowMemory, n_before: int, start: int) -> LabelledRows:
        """Return the rows of a memory with its further entries, sorted from a position on.

        n_before : number of the first new entry of the memory; none of them corrects a label
        start : position that all new rows come after
        """
        new = n_before + np.flatnonzero(~np.isnan(memory.values[n_before:, 0]))
        rows = np.append(self.rows[start:], new)
        order = _order(memory, rows)
        labels = np.append(self.labels[start:], (memory.values[new, 0] == 1).astype(np.int8))
        known, position = memory.known[rows[order]], np.empty(len(rows), dtype=np.int64)
        position[order] = start + np.arange(len(rows))
        is_moved = self.places >= start
        places = self.places.copy()
        places[is_moved] = position[self.places[is_moved] - start]
        return replace(
            self,
            rows=np.append(self.rows[:start], rows[order]),
            known=np.append(self.known[:start], known),
            clock=np.append(self.clock[:start], since(known, self.origin, memory.unit)),
            labels=np.append(self.labels[:start], labels[order]),
            places=places,
        )

    def labels_before(self, n_corrections: int) -> np.ndarray:
        """Return the labels as they were after so many of the corrections."""
        labels = self.labels.copy()
        undone = slice(None, n_corrections - 1 if n_corrections else None, -1)
        labels[self.places[undone]] = self.earlier[undone]  # of several the earliest is last
        return labels


def _order(memory: RowMemory, rows: np.ndarray) -> np.ndarray:
    """Return the order of rows by label time, hash of their columns and time, and label."""
    known = memory.known[rows]
    order = stable_order(known)
    if (np.diff(known[order]) != 0).all():
        return order
    times = memory.times[rows].view(np.uint64)
    ties = mix_hashes([*memory.hashes[:, rows], times])
    return np.lexsort((memory.values[rows, 0], ties, known))


@dataclass(frozen=True, eq=False)
class _KeyStates:
    """Weights of the values of one key, after each of their rows.

    hashes : (n_keys,), of the values in ascending order
    places : (n_rows,) int64, the number of the value and the position of the row, ascending
    precisions, shifts : (n_rows,)
    """

    hashes: np.ndarray
    places: np.ndarray
    precisions: np.ndarray
    shifts: np.ndarray

    def find(self, hashes: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return where the newest row of each value before a position is; -1 without one."""
        if not len(self.places):
            return np.full(len(hashes), -1)
        at = np.minimum(search_in_order(self.hashes, hashes), len(self.hashes) - 1)
        last = search_in_order(self.places, (at << POSITION_BITS) + positions) - 1
        is_there = (last >= 0) & (self.places[last] >> POSITION_BITS == at)
        return np.where(is_there & (self.hashes[at] == hashes), last, -1)

    def position(self, at: np.ndarray) -> np.ndarray:
        """Return the positions of rows."""
        return self.places[at] & ((1 << POSITION_BITS) - 1)


@dataclass(frozen=True, eq=False)
class Segment:
    """Weights after each of some labelled rows that follow each other.

    start, end : positions of the first row, and behind the last one
    of_keys : of each key of the model
    bias : (2, n_rows), precision and shift
    """

    start: int
    end: int
    of_keys: tuple[_KeyStates, ...]
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class OnlineStates:
    """An online model after each labelled row of a memory, in one or two segments.

    An update computes the newest segment alone again, while it is small.
    """

    model: OnlineModel
    rows: LabelledRows
    segments: tuple[Segment, ...]

    @classmethod
    def of(
        cls, memory: RowMemory, model: OnlineModel, rows: LabelledRows, labels: np.ndarray
    ) -> OnlineStates:
        """Learn all rows of a memory, the newest ones in a segment of their own."""
        start = max(len(rows.rows) - TAIL_ROWS // 2, 0)
        if start:  # rows of one time are in one segment
            start = int(np.searchsorted(rows.known, rows.known[start], side="left"))
        return (
            cls(model, rows, ())
            ._with_segment(memory, labels, 0, start)
            ._with_segment(memory, labels, start, len(rows.rows))
        )

    def can_grow(self, known: np.ndarray) -> bool:
        """Return whether rows with these label times come after the first segment."""
        end = self.segments[0].end
        return not end or not len(known) or bool(known.min() > self.rows.known[end - 1])

    def grow(self, memory: RowMemory, n_before: int) -> OnlineStates:
        """Return the states with the further rows of a memory, as of :meth:`LabelledRows.grow`."""
        base = self.segments[0]
        rows = self.rows.grow(memory, n_before, base.end)
        if len(rows.rows) - base.end > max(TAIL_ROWS, TAIL_SHARE * len(rows.rows)):
            return self.of(memory, self.model, rows, rows.labels)
        states = OnlineStates(self.model, rows, (base,))
        return states._with_segment(memory, rows.labels, base.end, len(rows.rows))

    def _with_segment(
        self, memory: RowMemory, labels: np.ndarray, start: int, end: int
    ) -> OnlineStates:
        return replace(self, segments=(*self.segments, self._learn(memory, labels, start, end)))

    def _learn(self, memory: RowMemory, labels: np.ndarray, start: int, end: int) -> Segment:
        """Return the segment of some rows, which follows those that are here."""
        own = self.rows.rows[start:end]
        columns = dict(zip(memory.columns, memory.hashes[:, own], strict=True))
        codes, hashes_of = [], []
        for key in self.model.keys:
            hashes = join_hashes([columns[name] for name in key])
            is_there = hashes != NO_KEY
            code = np.full(len(own), -1)
            number, values = pd.factorize(hashes[is_there])
            rank = np.argsort(values, kind="stable")
            place = np.empty(len(values), dtype=np.int64)
            place[rank] = np.arange(len(values))
            code[is_there] = place[number]
            codes.append(code)
            hashes_of.append(np.asarray(values)[rank])
        state = State.of_new_keys([len(hashes) for hashes in hashes_of])
        if start:
            self._fill(state, hashes_of, start)
        keys = np.array(codes, dtype=np.int32).reshape(len(codes), len(own))
        given = Rows(keys, self.rows.clock[start:end], labels[start:end])
        model = self.model
        history = update(given, model.priors, model.half_life, state, with_history=True)[1]
        assert history is not None
        of_keys = []
        for number, (code, hashes) in enumerate(zip(codes, hashes_of, strict=True)):
            places = (code << POSITION_BITS) + start + np.arange(len(own))
            order = stable_order(places)[np.count_nonzero(code < 0) :]
            parts = history.precisions[number][order], history.shifts[number][order]
            of_keys.append(_KeyStates(hashes, places[order], *parts))
        bias = np.stack([history.precisions[-1], history.shifts[-1]])
        return Segment(start, end, tuple(of_keys), bias)

    def _fill(self, state: State, hashes_of: Sequence[np.ndarray], position: int) -> None:
        """Fill a state with the weights before a position, and the bias."""
        for number, hashes in enumerate(hashes_of):
            to = slice(*state.first_keys[number : number + 2])
            found = self._find(number, hashes, np.full(len(hashes), position))
            state.precisions[to], state.shifts[to], state.updated[to] = found
        state.precisions[-1], state.shifts[-1] = self._bias(np.array([position]))[:, 0]

    def _find(
        self, number: int, hashes: np.ndarray, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return precision, shift and time of the last update before positions; 0 without one."""
        precision, shift, time = np.zeros((3, len(hashes)))
        left = np.flatnonzero(hashes != NO_KEY)
        for segment in reversed(self.segments):
            states = segment.of_keys[number]
            at = states.find(hashes[left], positions[left])
            rows, at = left[at >= 0], at[at >= 0]
            precision[rows], shift[rows] = states.precisions[at], states.shifts[at]
            time[rows] = self.rows.clock[states.position(at)]
            left = np.setdiff1d(left, rows, assume_unique=True)
        return precision, shift, time

    def _bias(self, positions: np.ndarray) -> np.ndarray:
        """Return precision and shift of the bias before positions: (2, n), 0 without a row."""
        bias = np.zeros((2, len(positions)))
        for segment in self.segments:
            is_here = (positions > segment.start) & (positions <= segment.end)
            bias[:, is_here] = segment.bias[:, positions[is_here] - segment.start - 1]
        return bias

    def weights(
        self, number: int, hashes: np.ndarray, positions: np.ndarray, now: np.ndarray
    ) -> np.ndarray:
        """Return mean and variance of a key's weights before positions, at times: (2, n)."""
        precision, shift, time = self._find(number, hashes, positions)
        prior = self.model.variances[number]
        return np.stack(fade(precision, shift, now - time, prior, self.model.half_life))

    def bias(self, positions: np.ndarray) -> np.ndarray:
        """Return mean and variance of the bias before positions: (2, n)."""
        precision, shift = self._bias(positions)
        return np.stack(fade(precision, shift, precision, PRIOR_OF_BIAS, 0.0))


def rate_of(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the probabilities that weights have together.

    weights : of each key and of the bias, (2, n), means and variances

    >>> rate_of([np.array([[0.0, 1.0], [1.0, 3.0]])]).round(3)
    array([0.5  , 0.691])
    """
    mean, variance = np.zeros((2, weights[0].shape[1]))
    for own in weights:
        mean, variance = mean + own[0], variance + own[1]
    return 0.5 * erfc(-mean / np.sqrt(1 + variance) / np.sqrt(2.0))


def _count_before(times: np.ndarray, memory: RowMemory, moments: Moments) -> np.ndarray:
    """Return how many of some label times, in order, come before each of some times."""
    if not len(times):
        return np.zeros(len(moments.ticks), dtype=np.int64)
    latest = memory.label_times[np.maximum(moments.ticks - 1, 0)]
    return np.where(moments.ticks > 0, np.searchsorted(times, latest, side="right"), 0)


class OnlineEstimates:
    """The online model of a memory, as of any time.

    Of times before the newest correction of a label, rows are learnt again with the labels of then.
    """

    def __init__(self, memory: RowMemory, model: OnlineModel) -> None:
        self.memory, self.model = memory, model
        self._versions: dict[int, OnlineStates] = {}

    @cached_property
    def newest(self) -> OnlineStates:
        """The states with the newest label of each row."""
        rows = LabelledRows.of(self.memory)
        return OnlineStates.of(self.memory, self.model, rows, rows.labels)

    def grow(self, memory: RowMemory, n_before: int) -> OnlineEstimates:
        """Return the estimates of a memory with further rows, which :meth:`can_grow` allows."""
        estimates = OnlineEstimates(memory, self.model)
        estimates.__dict__["newest"] = self.newest.grow(memory, n_before)
        return estimates

    def can_grow(self, known: np.ndarray, *, corrects: bool) -> bool:
        """Return whether :meth:`grow` may add rows with these label times."""
        newest: OnlineStates | None = self.__dict__.get("newest")
        return newest is not None and not corrects and newest.can_grow(known)

    def weights(
        self, hashes: Mapping[tuple[str, ...], Sequence[np.ndarray]], moments: Moments
    ) -> dict[tuple[str, ...], np.ndarray]:
        """Return mean and variance of weights as of some times, by key: (2, n) each.

        hashes : of the columns of keys of the model; the key without a column is the bias
        """
        joined = {key: join_hashes(own) for key, own in hashes.items() if key}
        rows = self.newest.rows
        before = _count_before(rows.known, self.memory, moments)
        versions = _count_before(rows.corrected, self.memory, moments)
        result = {key: np.empty((2, len(before))) for key in hashes}
        for version in np.unique(versions).tolist():
            own = versions == version
            states, at, now = self._states(version), before[own], moments.now[own]
            for key, of_key in result.items():
                if not key:
                    of_key[:, own] = states.bias(at)
                    continue
                number = self.model.keys.index(key)
                of_key[:, own] = states.weights(number, joined[key][own], at, now)
        return result

    def _states(self, version: int) -> OnlineStates:
        """Return the states with the labels after so many corrections."""
        newest = self.newest
        if version == len(newest.rows.corrected):
            return newest
        if version not in self._versions:
            labels = newest.rows.labels_before(version)
            made = OnlineStates.of(self.memory, self.model, newest.rows, labels)
            self._versions = {version: made}  # the others are as large, and seldom needed
        return self._versions[version]
