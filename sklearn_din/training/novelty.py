"""New items: how many candidates are new over time, and hiding recent ids in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID, Schema
from sklearn_din.neighbours.blocks import NEVER
from sklearn_din.training.occurrences import COUNTED_ROWS, ids_of_rows
from sklearn_din.training.validation import late_times, why_no_order
from sklearn_din.utils.spans import Rows, Spans, row_dtype

LEAST_SHARE = 0.01  # below, nothing is hidden: rare ids of a static catalogue are new by chance
MOST_BLOCKS = 5  # of late rows; with a tenth of the rows each, these are the newer half
N_TENTHS = 10  # chunks of rows in order of time; the first ones may differ from later ones
SAMPLED_ROWS = 1 << 17  # to estimate where the beginning of the log ends
MORE_AT_FIRST = 1.5  # times the novelty of late rows: beyond, items are new because the log starts
HIDING_RATE = 0.8  # fraction of the rows with hidden ids; others are unchanged
N_BLOCKS_AHEAD = 2  # the size of the validation block, and once more
ALWAYS = -NEVER  # a moment


@dataclass(frozen=True, eq=False)
class Novelty:
    """When each id came up, and from which rows training hides those that came up lately.

    An item that comes up after training has the unknown id, which the network would meet for the
    first time. So training shows a row at moment t, the number of rows before it, as to a model of
    the rows before t - d, with d drawn evenly from 0 to ``reach``.
    """

    shares: Mapping[str, float]  # of late rows whose id no earlier row has, by candidate column
    first_seen: Mapping[str, np.ndarray]  # moments of ids, by vocabulary; empty: nothing is hidden
    reach: int = 0
    start: int = 0  # the moment from which ids are hidden; before, most are new: the log begins
    n_rows: int = 0  # so far: the moment at which later rows begin

    def widen(self, schema: Schema) -> Novelty:
        """Return the same for vocabularies to which ids were appended: no row has had them."""
        sizes = schema.vocabulary_sizes
        first_seen = {
            name: np.pad(first, (0, sizes[name] - len(first)), constant_values=NEVER)
            for name, first in self.first_seen.items()
        }
        return replace(self, first_seen=first_seen)

    def extend(self, X: EncodedFeatures) -> tuple[Novelty, np.ndarray]:
        """Return the novelty after further rows, which have come since, and their moments."""
        if not self.first_seen:
            return self, np.empty(0, dtype=np.int64)
        moments = self.n_rows + moments_of(X)
        first_seen = _first_moments(X, moments, self.widen(X.schema).first_seen)
        return replace(self, first_seen=first_seen, n_rows=self.n_rows + len(X)), moments

    def draw_cutoffs(self, moments: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """Draw the time up to which each row's ids are known: (n_rows,), infinity hides nothing."""
        ahead, chance = random.random_sample((2, len(moments)))
        is_hidden = (chance < HIDING_RATE) & (moments >= self.start)
        return np.where(is_hidden, moments - ahead * self.reach, np.inf)

    def hide(self, X: EncodedFeatures, until: np.ndarray) -> EncodedFeatures:
        """Hide the ids that came up from a moment on, ``until``: (n_rows,).

        An id i becomes -i, which equals itself alone; numbers looked up by a hidden candidate 0.
        """
        columns, hidden, behaviours = dict(X.columns), {}, {}
        first = {
            field.name: self.first_seen[field.vocabulary]
            for field in X.schema.fields
            if field.kind in ("categorical", "history") and field.vocabulary in self.first_seen
        }
        for name in columns.keys() & first.keys():
            columns[name], is_hidden = _hide_ids(columns[name], first[name], until)
            if is_hidden.any():
                hidden[name] = is_hidden
        for field in X.schema.fields:
            if field.candidate in hidden:
                numbers = columns[field.name]
                columns[field.name] = np.where(hidden[field.candidate], np.float32(0), numbers)
        for behaviour, ragged in X.behaviours.items():
            index, lengths = ragged.spans.index(), ragged.spans.lengths
            events = {name: values[index] for name, values in ragged.columns.items()}
            of_events = np.repeat(until, lengths)
            for name in events.keys() & first.keys():
                events[name], _ = _hide_ids(events[name], first[name], of_events)
            behaviours[behaviour] = ragged.over(events, Spans.from_lengths(lengths))
        return X._replace(columns=columns, behaviours=behaviours)

    def _chances(self, vocabulary: str, ids: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Return how likely a row at each moment that is shown as seen hides an id."""
        age = moments - self.first_seen[vocabulary][ids]
        return np.clip(1 - age / self.reach, 0, 1)


def _hide_ids(
    ids: np.ndarray, first_seen: np.ndarray, until: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, -id where it came up from a moment on, and where that is."""
    hidden = first_seen.take(ids_to_look_up(ids)) >= until
    ids, at = ids.copy(), np.flatnonzero(hidden)
    ids[at] = -ids[at]
    return ids, hidden


NO_NOVELTY = Novelty({}, {})


@dataclass(frozen=True, eq=False)
class ShownRows:
    """Rows that are shown as a model of earlier ones would see them: the novelty, their moments."""

    novelty: Novelty
    moments: np.ndarray  # (n_rows,), int32, or int64 of many rows
    until: np.ndarray | None = None  # when each row's model has learnt; None: drawn each time

    def hold_out(self, *, are_last: bool) -> ShownRows:
        """Return the rows as shown in validation, the same each time."""
        until = np.full(len(self.moments), self.moments.min(), dtype=float)
        if not are_last:
            until = self.novelty.draw_cutoffs(self.moments, np.random.RandomState(0))
        return replace(self, until=until)

    def draw(self, rows: Rows, random: np.random.RandomState) -> np.ndarray:
        """Return the moments up to which a batch of the given rows shows their ids: (n_rows,)."""
        if self.until is not None:
            return self.until[rows]
        return self.novelty.draw_cutoffs(self.moments[rows], random)

    def count_hidden(self, X: EncodedFeatures, rows: np.ndarray | None = None) -> dict[str, float]:
        """Count by vocabulary how many ids one pass over rows of X is expected to hide."""
        novelty, n_hidden = self.novelty, dict.fromkeys(self.novelty.first_seen, 0.0)
        for begin in range(0, len(self.moments), COUNTED_ROWS):
            some = slice(begin, begin + COUNTED_ROWS)
            moments = self.moments[some]
            for name, ids, lengths in ids_of_rows(X[some if rows is None else rows[some]]):
                vocabulary = X.schema[name].vocabulary
                if vocabulary in n_hidden:
                    now = moments if lengths is None else np.repeat(moments, lengths)
                    chances = novelty._chances(vocabulary, ids, now)
                    n_hidden[vocabulary] += HIDING_RATE * chances[now >= novelty.start].sum()
        return n_hidden


def measure_novelty(X: EncodedFeatures, *, share: float) -> tuple[Novelty, np.ndarray]:
    """Find out when each id came up, and how many candidates of late rows are new.

    The newer half of the rows is cut by time into blocks, the last one that of
    ``validation="last"``; several, because one may lie between two arrivals. An id is new where an
    encoder fitted on the rows before its block would not know it. Returned too are the moments of
    the rows. Nothing is hidden where all shares are below LEAST_SHARE, or times do not tell earlier
    from later; nor in columns that no behaviour holds: an hour may be new in late rows, and comes
    back tomorrow.
    """
    names = candidate_columns(X.schema)
    if not names or X.times is None or why_no_order(X.times):
        return NO_NOVELTY, np.empty(0, dtype=np.int64)
    moments, sizes = moments_of(X), X.schema.vocabulary_sizes
    histories = X.schema.names("history")  # values in lists are rarely new: not hidden
    used = {X.schema[name].vocabulary for name in histories}
    never = {name: np.full(n_ids, NEVER) for name, n_ids in sizes.items() if name in used}
    first_seen = _first_moments(X, moments, never)
    n_block = max(1, round(share * len(X)))
    n_blocks = min(MOST_BLOCKS, max(1, len(X) // (2 * n_block)))
    cuts = late_times(X.times, n_wanted=n_block, n_times=n_blocks)
    starts = np.array([np.count_nonzero(X.times < cut) for cut in cuts])
    late = np.flatnonzero(moments >= starts[0])
    since = starts[np.searchsorted(starts, moments[late], side="right") - 1]
    some = np.linspace(0, len(X) - 1, min(len(X), SAMPLED_ROWS)).astype(np.intp)
    shares, chances = dict[str, float](), np.zeros(len(some))
    novelty = Novelty(shares, first_seen, round(N_BLOCKS_AHEAD * n_block), 0, len(X))
    for name in names:
        vocabulary, ids = X.schema[name].vocabulary, X.columns[name]
        first = first_seen[vocabulary][ids_to_look_up(ids[late])]
        shares[name] = float((first >= since).mean())
        of_some = novelty._chances(vocabulary, ids_to_look_up(ids[some]), moments[some])
        chances = np.maximum(chances, of_some)
    if max(shares.values()) < LEAST_SHARE:
        return replace(NO_NOVELTY, shares=shares), moments
    start = _end_of_beginning(moments[some], chances, n_rows=len(X))
    return replace(novelty, start=start), moments


def _end_of_beginning(moments: np.ndarray, chances: np.ndarray, *, n_rows: int) -> int:
    """Return the moment from which on ids are new because they come up.

    That is the first tenth of the rows whose candidates are not hidden much more often, by their
    ``chances``, than those of the newer half.
    """
    tenths = moments.astype(np.int64) * N_TENTHS // n_rows
    sizes = np.maximum(np.bincount(tenths, minlength=N_TENTHS), 1)
    hidden = np.bincount(tenths, weights=chances, minlength=N_TENTHS) / sizes
    is_late = tenths >= min(N_TENTHS // 2, int(tenths.max()))  # all rows may have one of two times
    is_like_late = hidden <= MORE_AT_FIRST * chances[is_late].mean()
    is_like_late[N_TENTHS // 2] = True
    return int(np.argmax(is_like_late)) * n_rows // N_TENTHS


def moments_of(X: EncodedFeatures) -> np.ndarray:
    """Count the rows before each row's time; all 0 if times do not define an order."""
    if X.times is None or why_no_order(X.times):
        return np.zeros(len(X), dtype=np.int64)
    times = X.times
    in_order = times if (times[1:] >= times[:-1]).all() else np.sort(times)
    moments = np.empty(len(times), dtype=row_dtype(len(times)))
    for begin in range(0, len(times), COUNTED_ROWS):
        block = slice(begin, begin + COUNTED_ROWS)
        moments[block] = np.searchsorted(in_order, times[block])
    return moments


def _first_moments(
    X: EncodedFeatures, moments: np.ndarray, before: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return by vocabulary the moment of the first row, also ``before``, that has each id."""
    first_seen = {name: first.copy() for name, first in before.items()}
    for begin in range(0, len(X), COUNTED_ROWS):
        block = slice(begin, begin + COUNTED_ROWS)
        for name, ids, lengths in ids_of_rows(X[block]):
            first = first_seen.get(X.schema[name].vocabulary)
            if first is not None:
                own = moments[block].astype(first.dtype)  # of two types "at" takes 16 times as long
                np.minimum.at(first, ids, own if lengths is None else np.repeat(own, lengths))
    for first in first_seen.values():
        first[:FIRST_KNOWN_ID] = ALWAYS
    return first_seen


def candidate_columns(schema: Schema) -> list[str]:
    """Names of the columns that some behaviour's history is compared with, in order."""
    used = {name for behaviour in schema.behaviours for name in behaviour.candidates}
    return [name for name in schema.names("categorical") if name in used]
