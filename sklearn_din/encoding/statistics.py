"""Everything that an encoder learns from the values of a table: statistics that fold by parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sklearn_din._warnings import warn_of
from sklearn_din.encoding.events import HistoryTotals
from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.learnt import Learnt
from sklearn_din.encoding.notices import far_numbers
from sklearn_din.encoding.profile import ColumnProfile, NumberSample, newest_numbers
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventNumbers, EventScale, Moments, indicator
from sklearn_din.encoding.vocabulary import IdRules, Occurrences, ValueCounts, Vocabulary, plain_ids


class TableStatistics:
    """Counts of values, moments of numbers and lengths of histories, gathered part by part.

    ``n_rows`` is that of the whole table; ``totals`` has by behaviour how many events the rows
    hold.
    """

    def __init__(self, roles: Roles, n_rows: int) -> None:
        self._roles = roles
        self._counts = {name: ValueCounts() for name in roles.owners}
        self._moments = {name: Moments() for name in roles.numeric}
        self._any_missing = dict.fromkeys(roles.numeric, False)
        numbers = [name for behaviour in roles.behaviours for name in behaviour.numbers]
        self._events = {name: EventNumbers(n_rows) for name in numbers}
        self.totals = {b.histories: HistoryTotals(0, 0, 0) for b in roles.behaviours}
        self._n_rows = 0
        self._n_missing = dict.fromkeys(roles.owners, 0.0)
        self._samples = {name: NumberSample(n_rows) for name in (*roles.numeric, *numbers)}

    def update(self, read: ReadFrame, start: int) -> None:
        """Take in further rows, of which ``start`` is the first of the table."""
        for name, values, counts, n_missing in read.count_values():
            self._counts[name].update(plain_ids(values, name=name), counts)
            self._n_missing[name] += n_missing
        for name, numbers in read.numbers.items():
            sample = self._samples[name]
            sample.update(numbers[sample.rows(start)])
            self._moments[name].update(numbers)
            self._any_missing[name] |= bool(np.isnan(numbers).any())
        for histories, events in read.events.items():
            self.totals[histories] = self.totals[histories].plus(events.totals)
            for name in events.numbers:
                self._events[name].update(name, events, start)
                sample = self._samples[name]
                sample.update(newest_numbers(events, name, sample.rows(start)))
        self._n_rows += read.n_rows

    def counts(self) -> dict[str, Occurrences]:
        """Values of each column of ids and how often they count, in the order of the rows."""
        return {name: counts.finish() for name, counts in self._counts.items()}

    def counts_by_owner(self) -> dict[str, dict[str, Occurrences]]:
        """The same by the vocabulary that columns share, then by column."""
        sources: dict[str, dict[str, Occurrences]] = {}
        for name, counts in self.counts().items():
            sources.setdefault(self._roles.owners[name], {})[name] = counts
        return sources

    def finish(
        self,
        rules: IdRules,
        *,
        names: Sequence[str],
        max_length: int,
        known: Mapping[str, Vocabulary] | None = None,
    ) -> Learnt:
        """Return what is learnt.

        No indicator of missing numbers may be named like a column of the table (``names``).
        Vocabularies that are ``known`` are not learnt.
        """
        vocabularies = {
            owner: (known or {}).get(owner) or Vocabulary.learn(sources, rules)
            for owner, sources in self.counts_by_owner().items()
        }
        scales = {name: EventScale.of(moments) for name, moments in self._moments.items()}
        scales |= {name: events.finish() for name, events in self._events.items()}
        scales = {n: s.resist_outliers(self._samples[n].finish()) for n, s in scales.items()}
        warn_of(far_numbers(scales))
        missing = [name for name in self._any_missing if self._any_missing[name]]
        return Learnt(
            tuple(names),
            max_length,
            self._roles,
            vocabularies,
            {name: scales[name] for name in self._moments},
            {name: scales[name] for name in self._events},
            tuple(name for name in missing if indicator(name) not in names),
            self._profiles(vocabularies),
        )

    def _profiles(self, vocabularies: Mapping[str, Vocabulary]) -> dict[str, ColumnProfile]:
        """Return what the columns look like."""
        n_empty = {
            name: self.totals[behaviour.histories].empty
            for behaviour in self._roles.behaviours
            for name in (*behaviour.histories, *behaviour.numbers)
        }
        profiles = {
            name: ColumnProfile.of_sample(
                sample.finish(), rows=self._n_rows, empty=n_empty.get(name, 0)
            )
            for name, sample in self._samples.items()
        }
        for name, (values, counts) in self.counts().items():
            profiles[name] = ColumnProfile.of_ids_at_fit(
                vocabularies[self._roles.owners[name]].encode(values, name=name),
                counts,
                missing=self._n_missing[name],
                rows=self._n_rows,
                empty=n_empty.get(name, 0),
            )
        return profiles
