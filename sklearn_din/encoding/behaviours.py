"""Behaviours of a table: history columns, those of the same events together, and candidates."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

from sklearn_din._validation import check_columns
from sklearn_din.encoding.facts import TableFacts
from sklearn_din.encoding.table import is_history_name
from sklearn_din.features.schema import Behaviour


class Histories:
    """Finds the behaviours of a table, by the user's names or by rule.

    ``ids`` and ``numbers`` are columns that the user calls so: a history and its candidate play one
    part, naming either of them names both. Columns that are ``out`` are no features. ``names`` are
    the columns that are read as histories, in the order of the table, ``notices`` sentences about
    what was taken differently from how it looks.
    """

    def __init__(
        self,
        facts: TableFacts,
        *,
        separator: str | None = None,
        out: Collection[str] = (),
        ids: Collection[str] = (),
        numbers: Collection[str] = (),
    ) -> None:
        self.facts, self.separator = facts, separator
        self.out, self.ids, self.numbers = set(out), set(ids), set(numbers)
        self.names: list[str] = []
        self.notices: list[str] = []

    def find(self, named: Mapping[Hashable, Hashable]) -> list[Behaviour]:
        """Take the columns that the user names, with their candidates, and all others of lists.

        Others of the same events as a named history, or as each other, form one behaviour with it.
        """
        candidates = self._check_named(named)
        self.names = [n for n in self.facts.names if n in candidates or self._is_history(n)]
        groups = [list(as_tuple(key)) for key in named]
        open_groups = [g for g in groups if any(candidates[name] is not None for name in g)]
        for name in self.names:
            if name in candidates or self.facts[name].history.is_time:
                continue
            candidates[name] = self._candidate(name)
            numbers = self._is_of_numbers(name, candidates[name])
            aligned = [g for g in open_groups if self._are_aligned(g[0], name, has_numbers=numbers)]
            if aligned:
                aligned[0].append(name)
            else:
                groups.append([name])
                open_groups.append(groups[-1])
        self._check_separator()
        return [self._behaviour(group, candidates) for group in groups]

    def _check_named(self, named: Mapping[Hashable, Hashable]) -> dict[str, str | None]:
        """Return the candidate of each history that the user names."""
        keys = [name for key in named for name in as_tuple(key)]
        check_columns(self.facts.names, keys, name="X (histories)")
        twice = sorted({name for name in keys if keys.count(name) > 1})
        if twice:
            raise ValueError(
                f"histories must name each history column once, got {twice} more than once. "
                "Copy the column under another name to use it twice."
            )
        pairs: dict[str, str | None] = {}
        for key, value in named.items():
            names, candidates = as_tuple(key), as_tuple(value)
            if len(names) != len(candidates):
                raise ValueError(
                    f"histories must name one candidate, or None, for each history, got {value!r} "
                    f"for {key!r}. Write {{('hist_item', 'hist_category'): ('item', 'category')}}."
                )
            there = [candidate for candidate in candidates if candidate is not None]
            check_columns(self.facts.names, there, name="X (histories)")
            pairs |= dict(zip(names, candidates, strict=True))
        return pairs

    def _is_history(self, name: str) -> bool:
        facts = self.facts
        if name in self.out:
            return False
        if facts[name].kind == "history":
            return True
        candidate = facts.find_candidate(name)
        if not is_history_name(name) or candidate is None or name in self.ids:
            return False
        if facts[name].is_text and self.separator is None:
            raise ValueError(
                f"{name} holds text such as {facts[name].example!r:.40} where lists were "
                "meant: CSV files turn histories into text. Keep them in Parquet (to_parquet, "
                f"read_parquet), or write them joined, '22|29|7', and give separator='|'. Name "
                f"{name} in categorical if it is an id, in drop to leave it out."
            )
        if facts[name].is_text or facts[name].example is None:
            return True
        if name not in self.numbers:
            self.notices.append(
                f"{name} holds one value per cell, such as {facts[name].example!r:.40}, "
                f"where its name and the column {candidate} mean a history: it is taken "
                "for a column of its own. Make a list of each row's past, as attach_history does. "
                f"Name {name} in categorical or numeric to keep it as it is, in drop to leave it "
                "out."
            )
        return False

    def _check_separator(self) -> None:
        """Refuse a separator that stands in no cell of a text history."""
        facts = self.facts
        for name in self.names:
            if facts[name].is_text and facts[name].history.longest <= 1:
                raise ValueError(
                    f"separator={self.separator!r} splits nothing in {name}, whose cells are "
                    f"such as {facts[name].example!r:.40}. Give the separator that they "
                    "have; where no row has two events, make lists of the cells."
                )

    def _candidate(self, name: str) -> str | None:
        """Find the column that a history of ids is compared with; None for numbers."""
        candidate = self.facts.find_candidate(name)
        if candidate is None and not is_history_name(name):
            return self._candidate_of_suffix(name)
        if candidate is None or candidate in {*self.out, *self.names}:
            return None
        return candidate if self._is_of_ids(name, candidate) else None

    def _candidate_of_suffix(self, name: str) -> str | None:
        """Find the column of ids that a list is named after: ``item`` for ``buy_item``.

        That is what ``attach_history(prefix="buy_")`` writes.
        """
        facts, events = self.facts, self.facts[name].history
        if events.is_numeric or not events.kinds:
            return None
        of_name = [
            column
            for column in facts.columns
            if name.endswith(f"_{column}")
            and facts[column].kind == "ids"
            and column not in {*self.out, *self.names, *self.numbers}
            and (column in facts.integers) == events.is_integer
        ]
        return max(of_name, key=len, default=None)

    def _is_of_ids(self, name: str, candidate: str) -> bool:
        """Return whether a history and the column of its name are ids rather than quantities."""
        events, kind = self.facts[name].history, self.facts[candidate].kind
        if events.has_anchors or kind in ("time", "history"):
            return False
        if {name, candidate} & {*self.ids, *self.numbers}:
            return not {name, candidate} & self.numbers
        has_fractions = events.is_numeric and not events.is_whole
        if kind != "numbers":
            return not has_fractions
        if has_fractions or not self.facts[candidate].is_whole:
            return False
        if events.is_numeric:
            self.notices.append(
                f"{candidate} and {name} hold whole numbers as floats, as ids are where some are "
                f"missing: both are encoded as ids. Name {candidate} in categorical to say so, in "
                "numeric if it is a quantity."
            )
        return True

    def _is_of_numbers(self, name: str, candidate: str | None) -> bool:
        """Return whether the events of a history are quantities."""
        if candidate is not None or name in self.ids:
            return False
        events, of_same_name = self.facts[name].history, self.facts.find_candidate(name)
        if events.is_numeric or name in self.numbers or of_same_name in self.numbers:
            return True
        if of_same_name is None or of_same_name in self.out:
            return False
        return events.is_integer and self.facts[of_same_name].kind == "numbers"

    def _are_aligned(self, first: str, second: str, *, has_numbers: bool) -> bool:
        """Return whether two histories describe the same events.

        Windows of one ``attach_history`` call do. The same columns read back from a file have
        lost that kinship: there, equal lengths in every row tell, if each has a column to be
        compared with, is a history of numbers, or comes from ``attach_history`` by its name and
        the lengths vary.
        """
        facts = self.facts
        if facts.same_windows[first] == facts.same_windows[second]:
            return True
        if facts.same_lengths[first] != facts.same_lengths[second]:
            return False
        if has_numbers or self._is_of_numbers(first, None):
            return True
        vary = facts[first].history.longest > facts[first].history.shortest
        return all(
            (is_history_name(name) and (vary or facts.find_candidate(name) is not None))
            or self._candidate_of_suffix(name) is not None
            for name in (first, second)
        )

    def _behaviour(self, names: Sequence[str], candidates: Mapping[str, str | None]) -> Behaviour:
        numbers = [name for name in names if self._is_of_numbers(name, candidates[name])]
        ids = [name for name in names if name not in numbers]
        if not ids:
            raise ValueError(
                f"{numbers[0]} holds one number per event, and no history of ids says which "
                f"events they are. attach_history(columns=['item', ...]) attaches both in one "
                f"call; otherwise name both as one behaviour, histories={{('hist_item', "
                f"{numbers[0]!r}): ('item', None)}}, or name it in drop."
            )
        of_ids = tuple(candidates[name] for name in ids)
        return Behaviour("+".join(ids), tuple(ids), of_ids, tuple(numbers))


def as_tuple(value: Hashable) -> tuple:
    """Return the names that a key or a value of ``histories`` consists of."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)
