"""Fitted state of an encoder: statistics updated chunk by chunk, and encoding by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import Codes, HistoryCells
from sklearn_din.encoding.fixed_vectors import VectorScale
from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.item_columns import ItemColumns, ItemSample
from sklearn_din.encoding.notices import FEW_VALUES, far_numbers, note_unknown
from sklearn_din.encoding.profile import COMPARED_ROWS, SAMPLED_ROWS, ColumnProfile, count_rows
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, Moments, indicator
from sklearn_din.encoding.vocabulary import IdRules, Occurrences, ValueCounts, Vocabulary, plain_ids
from sklearn_din.features.level_columns import find_levels, level_columns
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind, Schema
from sklearn_din.utils.warnings import warn_of

if TYPE_CHECKING:
    from sklearn_din.encoding.event_numbers import EventNumbers

LATE = 0.1  # of the rows, the last ones
FEW_LATE = 20  # with fewer, their fraction of new ids says nothing
HALF = 0.5  # of a column with few values
FAR_MORE = 3  # times fewer known ids than late in training: they are written in another way


@dataclass(frozen=True)
class Learnt:
    """Roles, vocabularies and scales: all that encoding needs. It never changes.

    ``names`` are the columns of fit in their order. Vocabularies are named by the column that they
    belong to: a history shares its candidate's. Columns in ``has_missing`` get an indicator of
    missing numbers. ``profiles`` say what the rows of fit looked like, and have no part in
    encoding; rows that came later do not change them. Nor has ``late_unknown``, the fraction of
    each candidate's ids that the last rows of fit had and no earlier one, ``longest``, the events
    of the longest history, older ones that item neighbours count among them, ``of_item``, the
    columns that follow from the item, ``item_sample``, some items' values of them, and ``user``,
    the column that says whose the rows are.
    """

    names: tuple[str, ...]
    roles: Roles
    vocabularies: Mapping[str, Vocabulary]
    scales: Mapping[str, EventScale]
    has_missing: tuple[str, ...]
    profiles: Mapping[str, ColumnProfile]
    vector_scales: Mapping[str, VectorScale] = field(default_factory=dict)
    late_unknown: Mapping[str, float] = field(default_factory=dict)
    longest: int = 0
    of_item: tuple[str, ...] = ()
    user: str = ""
    item_sample: ItemSample = field(default_factory=ItemSample)

    @cached_property
    def schema(self) -> Schema:
        """The meaning of each encoded column."""
        roles, fields = self.roles, list[Field]()
        for name in self.names:
            if name in roles.numeric:
                scale = self.scales[name]
                elapsed = scale.scale if scale.is_elapsed else 0.0
                fields.append(Field(name, "numeric", elapsed_scale=elapsed))
                if name in self.has_missing:
                    fields.append(Field(indicator(name), "numeric"))
            elif name in roles.owners:
                kind: Kind = "history" if name in roles.histories else "categorical"
                if name in roles.lists:
                    kind = "list_history" if name in roles.histories else "list"
                owner = roles.owners[name]
                known, vectors = self.vocabularies[owner], self.vector_scales.get(owner)
                size = known.n_ids, known.digest
                n_dims = 0 if vectors is None else len(vectors.mean)
                grown_from = known.grown_from
                fields.append(Field(name, kind, owner, *size, n_dims=n_dims, grown_from=grown_from))
            elif name in self.scales:
                fields.append(Field(name, "numeric_history"))
        return Schema(tuple(fields), roles.behaviours, roles.unused, self.user)

    def encode_columns(self, read: ReadFrame) -> dict[str, Column]:
        """Columns of one number, one id or one list of ids per row, by name."""
        columns: dict[str, Column] = {**self.encode_numbers(read.numbers)}
        return columns | {name: self.ids_of(name, codes) for name, codes in read.codes.items()}

    def encode_numbers(self, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Numbers on their scales, and where they are missing, by name."""
        columns = {}
        for name, values in numbers.items():
            columns[name] = self.scales[name].encode(values)
            if name in self.has_missing:
                columns[indicator(name)] = np.isnan(values).astype(np.float32)
        return columns

    def encode_behaviours(self, read: ReadFrame) -> dict[tuple[str, ...], Ragged]:
        """Histories of each behaviour: ids, and numbers on their scale."""
        behaviours = {}
        for behaviour, events in read.events.items():
            values = {name: self.ids_of(name, codes) for name, codes in events.codes.items()}
            row_times = {}
            for name, numbers in events.numbers.items():
                scale = self.scales[name]
                if name in events.row_times:  # Ragged takes log1p of the difference
                    values[name] = numbers / scale.scale
                    row_times[name] = events.row_times[name] / scale.scale
                else:
                    values[name] = scale.encode(numbers)
            behaviours[behaviour] = Ragged(values, events.spans, row_times, events.n_older)
        return behaviours

    def ids_of(self, name: str, codes: Codes) -> Column:
        """Ids of one column's values, or lists of them, given as codes and distinct values."""
        vocabulary = self.vocabularies[self.roles.owners[name]]
        ids = vocabulary.encode(plain_ids(codes[1], name=name), name=name)
        ids = np.append(ids, np.int32(UNKNOWN_ID))  # code -1 is missing: of no value
        return codes[0].map(ids) if isinstance(codes[0], IdLists) else ids[codes[0]]

    def decode(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Return the values of a column's ids, None where they are unknown."""
        return self.vocabularies[self.roles.owners[name]].decode(ids)

    def ids_of_events(self, name: str, cells: HistoryCells) -> tuple[np.ndarray, np.ndarray]:
        """Return all events of a history, one row after the other: the row of each, and its id."""
        cells = cells.expand()
        rows = np.repeat(np.arange(len(cells.spans)), cells.spans.lengths)
        return rows, self.ids_of(name, cells.codes(slice(0, len(cells.values))))

    def note_unknown(
        self,
        read: ReadFrame,
        encoded: Mapping[str, Column],
        behaviours: Mapping[tuple[str, ...], Ragged],
    ) -> list[str]:
        """Return what to say of columns of whose ids far more are unknown than at fit.

        The ids are encoded already. At fit, some were new late in training, or too rare for an id.
        """
        ids = dict(encoded)
        for ragged in behaviours.values():
            ids |= ragged.columns
        ids = {name: v.distinct.ids if isinstance(v, IdLists) else v for name, v in ids.items()}
        owners = {name: owner for name, owner in self.roles.owners.items() if name in ids}
        now, at_fit = dict[str, float](), dict[str, float]()  # fractions; missing ids do not count
        for name, owner in owners.items():
            n_unknown = int(np.count_nonzero(ids[name] < 0))
            n_known = int(np.count_nonzero(ids[name] > UNKNOWN_ID))
            now[name] = n_unknown / max(n_unknown + n_known, 1)
            too_rare, late = self.profiles[name].fraction("unknown"), self.late_unknown.get(owner)
            at_fit[name] = float(np.fmax(too_rare, late or 0.0))
        far = [n for n in owners if FAR_MORE * (1 - now[n]) < 1 - at_fit[n]]
        few = [n for n in owners if len(self.vocabularies[owners[n]].values) < FEW_VALUES]
        far += [n for n in few if n not in far and now[n] > max(HALF, at_fit[n])]
        notices = list[str]()
        for name in far:
            if len(read.values()[name]) < FEW_VALUES and name not in few:
                continue
            same = [other for other in owners if owners[other] == owners[name]]
            values = pd.unique(plain_ids(read.values()[name], name=name))
            vocabulary = self.vocabularies[owners[name]]
            values = values[vocabulary.encode(values, name=name) < 0]
            is_item = any(n in self.roles.candidates for n in same)
            options = {"is_item": is_item, "is_compared": is_item and set(same) <= set(far)}
            shares = now[name], at_fit[name]
            notice = note_unknown(name, values, vocabulary.values, shares, **options)
            notices += [] if notice is None else [notice]
        return notices

    def profile(self, read: ReadFrame) -> dict[str, ColumnProfile]:
        """Return what the columns of some rows look like, in the bins of the training rows."""
        profiles = {
            name: self.profiles[name].of_ids(
                self.ids_of(name, (np.arange(len(values)), values)), counts, missing=n_missing
            )
            for name, values, counts, n_missing in read.count_values()
        }
        for name, numbers in read.single_numbers().items():
            profiles[name] = self.profiles[name].of_numbers(numbers)
        totals = {histories: events.totals for histories, events in read.events.items()}
        return count_rows(profiles, self.roles, totals, read.n_rows)

    def find_changed_units(self, read: ReadFrame) -> dict[str, float]:
        """Return the columns whose numbers are a multiple of those at fit, and which."""
        some = slice(None, None, max(1, read.n_rows // COMPARED_ROWS))
        numbers = read.single_numbers(some)
        own = level_columns(self.roles.numeric)  # counts and times that grow
        factors = {n: self.profiles[n].find_factor(numbers[n]) for n in numbers if n not in own}
        return {name: factor for name, factor in factors.items() if factor is not None}

    def note_lengths(self, n_events: Mapping[tuple[str, ...], int], n_rows: int) -> list[str]:
        """Return what to say of histories, by behaviour, with far fewer events than at fit."""
        single = {names: [n for n in names if n not in self.roles.lists] for names in n_events}
        return [
            f"histories of {'+'.join(names)} hold less than a third of the events that they held "
            "at fit: are they empty, or cut? Attach them as for fit, from a log up to these rows."
            for names, n in n_events.items()
            if single[names] and self.profiles[single[names][0]].has_more_events(n, n_rows)
        ]

    def grow(self, counts: Mapping[str, Mapping[str, Occurrences]], rules: IdRules) -> Learnt:
        """Append the values of later rows to the vocabularies; all else stays.

        Counts are by vocabulary, then by column.
        """
        vocabularies = {
            owner: self.vocabularies[owner].grow(sources, rules, name=owner)
            for owner, sources in counts.items()
        }
        return replace(self, vocabularies=vocabularies)

    def without(self, names: Collection[str]) -> Learnt:
        """Return the same without some columns; a behaviour goes with any of its histories."""
        roles, names = self.roles, {*names}
        rest = tuple(b for b in roles.behaviours if names.isdisjoint(b.columns))
        names |= {name for b in roles.behaviours if b not in rest for name in b.columns}
        columns = {
            part: tuple(name for name in getattr(roles, part) if name not in names)
            for part in ("numeric", "categorical", "lists")
        }
        roles = replace(roles, behaviours=rest, **columns)
        scales = {name: scale for name, scale in self.scales.items() if name not in names}
        return replace(self, roles=roles, scales=scales)

    def check(self) -> None:
        """Raise ValueError if the attributes are inconsistent."""
        roles = self.roles
        numbers = {*roles.numeric, *(name for b in roles.behaviours for name in b.numbers)}
        if self.scales.keys() != numbers:
            raise ValueError("each column of numbers must have a scale.")
        if not {*self.has_missing} <= {*roles.numeric}:
            raise ValueError("columns with missing numbers must be columns of numbers.")
        if self.vocabularies.keys() != {*roles.owners.values()}:
            raise ValueError("each column of ids must have a vocabulary.")
        if not self.vector_scales.keys() <= self.vocabularies.keys():
            raise ValueError("vectors must be those of a vocabulary.")
        kinds = {name: profile.bins.dtype.kind for name, profile in self.profiles.items()}
        if kinds != dict.fromkeys(numbers, "f") | dict.fromkeys(roles.owners, "i"):
            raise ValueError("each column must have a profile of its kind.")
        if not kinds.keys() <= {*self.names}:
            raise ValueError("each column with a role must be one of the columns of fit.")
        self.schema.check()


class TableStatistics:
    """Counts of values, moments of numbers and lengths of histories, collected in chunks.

    ``n_rows`` is that of the whole table, ``columns`` are those that are read; ``totals`` has by
    behaviour how many events the rows hold.
    """

    def __init__(
        self, roles: Roles, n_rows: int, *, elapsed: Collection[str] | None = None
    ) -> None:
        self._roles, self._n_late, self.longest = roles, dict[str, tuple[int, int]](), 0
        self._counts = {name: ValueCounts() for name in roles.owners}
        self._moments = {name: Moments() for name in roles.numeric}
        numbers = [name for behaviour in roles.behaviours for name in behaviour.numbers]
        self._events: dict[str, EventNumbers] = {}
        if numbers:
            from sklearn_din.encoding.event_numbers import EventNumbers

            self._events = {
                name: EventNumbers(n_rows, is_elapsed=None if elapsed is None else name in elapsed)
                for name in numbers
            }
        self.totals = {b.histories: Counter[str]() for b in roles.behaviours}
        single = {*roles.categorical} - {*roles.lists}
        candidates = [name for b in roles.behaviours for name in b.candidates if name in single]
        self._item_columns = ItemColumns(dict.fromkeys(candidates))
        self._n_rows, self._step = n_rows, max(1, n_rows // SAMPLED_ROWS)
        self._n_missing = dict.fromkeys(roles.owners, 0.0)
        self._samples = {name: [np.empty(0)] for name in (*roles.numeric, *numbers)}
        self.columns = {*roles.owners, *self._samples}

    def update(self, read: ReadFrame, start: int, times: np.ndarray | None = None) -> None:
        """Take in further rows, of which ``start`` is the first of the table.

        Every so many rows are sampled, wherever the parts begin. ``times`` put the rows in order.
        """
        self._count_late(read, start, times)
        self._item_columns.update(read)
        sampled = slice(-start % self._step, None, self._step)
        for name, values, counts, n_missing in read.count_values():
            self._counts[name].update(plain_ids(values, name=name), counts)
            self._n_missing[name] += n_missing
        for name, numbers in read.numbers.items():
            self._moments[name].update(numbers)
        for histories, events in read.events.items():
            self.totals[histories].update(events.totals)
            self.longest = max(self.longest, events.longest)
            for name in events.numbers:
                self._events[name].update(name, events, start)
        for name, numbers in read.single_numbers(sampled).items():
            self._samples[name].append(np.array(numbers))

    def _count_late(self, read: ReadFrame, start: int, times: np.ndarray | None) -> None:
        """Count candidates in the last rows, and those that no earlier row has.

        Of a table in parts, these are parts at its end.
        """
        n_late = int(LATE * self._n_rows)
        is_end = start + read.n_rows == self._n_rows
        if not is_end and start < self._n_rows - n_late:
            return
        is_whole = start == 0 and is_end  # then the last rows by their times, or as they stand
        is_late = np.arange(read.n_rows) >= (read.n_rows - n_late if is_whole else 0)
        if is_whole and times is not None:
            is_late = times > np.partition(times, -n_late - 1)[-n_late - 1]
        for name in sorted(self._roles.candidates.difference(self._roles.lists)):
            codes, values = read.codes[name]
            is_known = np.zeros(len(values) + 1, dtype=bool)  # -1 is missing
            is_known[codes[~is_late]] = True
            if start:
                earlier = self._counts[name].finish().values
                is_known[:-1] |= pd.Index(plain_ids(values, name=name)).isin(earlier)
            late = codes[is_late]
            late = late[late >= 0]
            n_late_before, n_new = self._n_late.get(name, (0, 0))
            n_new += int((~is_known[late]).sum())
            self._n_late[name] = n_late_before + len(late), n_new

    def samples(self) -> dict[str, np.ndarray]:
        """Return some numbers of each column of numbers, NaN where missing."""
        return {name: np.concatenate(parts) for name, parts in self._samples.items()}

    @property
    def guessed(self) -> list[str]:
        """Histories of numbers that are taken for times elapsed by what they look like alone."""
        return [name for name, numbers in self._events.items() if numbers.is_guess]

    def counts(self) -> dict[str, Occurrences]:
        """Values of each column of ids and how often they count, in the order of the rows."""
        return {name: counts.finish() for name, counts in self._counts.items()}

    def counts_by_owner(self) -> dict[str, dict[str, Occurrences]]:
        """The same by the vocabulary that columns share, then by column."""
        sources: dict[str, dict[str, Occurrences]] = {}
        for name, counts in self.counts().items():
            sources.setdefault(self._roles.owners[name], {})[name] = counts
        return sources

    def finish(self, rules: IdRules, *, names: Sequence[str]) -> Learnt:
        """Return the fitted state.

        No indicator of missing numbers may be named like a column of the table (``names``).
        """
        vocabularies = {
            owner: Vocabulary.learn(sources, rules)
            for owner, sources in self.counts_by_owner().items()
        }
        scales = {name: EventScale.of(moments) for name, moments in self._moments.items()}
        scales |= {name: events.finish() for name, events in self._events.items()}
        samples = self.samples()
        scales = {name: scale.resist_outliers(samples[name]) for name, scale in scales.items()}
        own = level_columns(self._roles.numeric)
        warn_of(far_numbers({name: scale for name, scale in scales.items() if name not in own}))
        for level in find_levels(self._roles.numeric).values():
            scales[level.elapsed] = EventScale.of_elapsed(samples[level.elapsed])
        missing = [name for name, some in self._moments.items() if some.weight < self._n_rows]
        profiles = {name: ColumnProfile.of_sample(sample) for name, sample in samples.items()}
        for name, (values, counts) in self.counts().items():
            ids = vocabularies[self._roles.owners[name]].encode(values, name=name)
            n_missing = self._n_missing[name]
            profiles[name] = ColumnProfile.of_ids_at_fit(ids, counts, missing=n_missing)
        n_ids = {name: vocabularies[owner].n_ids for name, owner in self._roles.owners.items()}
        return Learnt(
            tuple(names),
            self._roles,
            vocabularies,
            scales,
            tuple(name for name in missing if indicator(name) not in names),
            count_rows(profiles, self._roles, self.totals, self._n_rows),
            late_unknown={
                name: n_new / n_late
                for name, (n_late, n_new) in self._n_late.items()
                if n_late >= FEW_LATE
            },
            longest=self.longest,
            of_item=self._item_columns.finish(n_ids),
            item_sample=self._item_columns.sample(
                n_ids,
                lambda name, values: vocabularies[self._roles.owners[name]].encode(
                    plain_ids(values, name=name), name=name
                ),
            ),
        )
