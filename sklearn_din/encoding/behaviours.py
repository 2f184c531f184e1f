"""Which columns are histories, which of them describe the same events, and with what candidates."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from sklearn_din._validation import check_frame
from sklearn_din.encoding.columns import Columns, is_history_name
from sklearn_din.features.schema import Behaviour


class Histories:
    """Finds the behaviours of a frame, by the user's names or by rule.

    Parameters
    ----------
    columns : Columns
        The frame.
    out : collection of str
        Columns that are no features.
    ids, numbers : collection of str
        Columns that the user calls ids, or numbers. A history and its candidate play one part:
        naming either of them names both.

    Attributes
    ----------
    names : list of str
        The columns that are read as histories, in frame order.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        out: Collection[str] = (),
        ids: Collection[str] = (),
        numbers: Collection[str] = (),
    ) -> None:
        self.columns = columns
        self.out, self.ids, self.numbers = set(out), set(ids), set(numbers)
        self.names: list[str] = []
        self._notices: list[str] = []

    @property
    def notices(self) -> tuple[str, ...]:
        """What was taken differently from how it looks."""
        return tuple(self._notices)

    def infer(self) -> list[Behaviour]:
        """Take all columns of lists; those of the same events form one behaviour."""
        self.names = [name for name in self.columns.names if self._is_history(name)]
        candidates: dict[str, str | None] = {}
        groups: list[list[str]] = []
        for name in self.names:
            if self.columns.history(name).is_time:
                continue
            candidates[name] = self._candidate(name)
            numbers = self._is_of_numbers(name, candidates[name])
            aligned = [g for g in groups if self._are_aligned(g[0], name, has_numbers=numbers)]
            group = aligned[0] if aligned else None
            if group is None:
                groups.append([name])
            else:
                group.append(name)
        self._check_separator()
        behaviours = [self._behaviour(group, candidates) for group in groups]
        self._notice_unpaired(behaviours)
        return behaviours

    def named(self, histories: Mapping[Hashable, Hashable]) -> list[Behaviour]:
        """Take the columns that the user names, with the candidates that the user names."""
        frame = self.columns.frame
        keys = [name for key in histories for name in _as_tuple(key)]
        check_frame(frame, keys, name="X (histories)")
        twice = sorted({name for name in keys if keys.count(name) > 1})
        if twice:
            raise ValueError(
                f"histories must name each history column once, got {twice} more than once. "
                "Copy the column under another name to use it twice."
            )
        self.names = [name for name in self.columns.names if name in keys]
        behaviours = []
        for key, value in histories.items():
            names, candidates = _as_tuple(key), _as_tuple(value)
            if len(names) != len(candidates):
                raise ValueError(
                    f"histories must name one candidate, or None, for each history, got {value!r} "
                    f"for {key!r}. Write {{('hist_item', 'hist_category'): ('item', 'category')}}."
                )
            check_frame(frame, [c for c in candidates if c is not None], name="X (histories)")
            behaviours.append(self._behaviour(names, dict(zip(names, candidates, strict=True))))
        self._check_separator()
        return behaviours

    def _is_history(self, name: str) -> bool:
        columns = self.columns
        if name in self.out:
            return False
        if columns.kind(name) == "history":
            return True
        if not is_history_name(name) or columns.twin(name) is None or name in self.ids:
            return False
        if columns.is_text(name) and columns.separator is None:
            raise ValueError(
                f"{name} holds text such as {columns.first_value(name)!r:.40} where lists were "
                "meant: CSV files turn histories into text. Keep them in Parquet (to_parquet, "
                f"read_parquet), or write them joined, '22|29|7', and give separator='|'. Name "
                f"{name} in categorical if it is an id, in drop to leave it out."
            )
        if columns.is_text(name) or columns.is_missing(name):
            return True
        if name not in self.numbers:
            self._notices.append(
                f"{name} holds one value per cell, such as {columns.first_value(name)!r:.40}, "
                f"where its name and the column {columns.twin(name)} mean a history: it is taken "
                "for a column of its own. Make a list of each row's past, as attach_history does. "
                f"Name {name} in categorical or numeric to keep it as it is, in drop to leave it "
                "out."
            )
        return False

    def _check_separator(self) -> None:
        """Refuse a separator that stands in no cell of a text history."""
        columns = self.columns
        for name in self.names:
            if columns.is_text(name) and columns.history(name).spans.lengths.max() <= 1:
                raise ValueError(
                    f"separator={columns.separator!r} splits nothing in {name}, whose cells are "
                    f"such as {columns.first_value(name)!r:.40}. Give the separator that they "
                    "have; where no row has two events, make lists of the cells."
                )

    def _candidate(self, name: str) -> str | None:
        """Find the column that a history of ids is compared with; None for numbers."""
        twin = self.columns.twin(name)
        if twin is None or twin in {*self.out, *self.names}:
            return None
        return twin if self._is_of_ids(name, twin) else None

    def _is_of_ids(self, name: str, twin: str) -> bool:
        """Whether a history and the column of its name are ids rather than quantities."""
        cells, kind = self.columns.history(name), self.columns.kind(twin)
        if cells.anchors is not None or kind in ("time", "history"):
            return False
        if {name, twin} & {*self.ids, *self.numbers}:
            return not {name, twin} & self.numbers
        has_fractions = cells.is_numeric and not cells.is_whole
        if kind != "numbers":
            return not has_fractions
        if has_fractions or not self.columns.is_whole(twin):
            return False
        if cells.is_numeric:
            self._notices.append(
                f"{twin} and {name} hold whole numbers as floats, as ids are where some are "
                f"missing: both are encoded as ids. Name {twin} in categorical to say so, in "
                "numeric if it is a quantity."
            )
        return True

    def _is_of_numbers(self, name: str, candidate: str | None) -> bool:
        """Whether the events of a history are quantities."""
        if candidate is not None or name in self.ids:
            return False
        cells, twin = self.columns.history(name), self.columns.twin(name)
        if cells.is_numeric or name in self.numbers or twin in self.numbers:
            return True
        pairs_with_numbers = twin is not None and self.columns.kind(twin) == "numbers"
        return pairs_with_numbers and cells.is_integer and twin not in self.out

    def _are_aligned(self, first: str, second: str, *, has_numbers: bool) -> bool:
        """Whether two histories describe the same events.

        Windows of one ``attach_history`` call do. The same columns read back from a file have
        lost that kinship: there, equal lengths in every row tell, if each has a column to be
        compared with, is a history of numbers, or comes from ``attach_history`` by its name and
        the lengths vary.
        """
        columns = self.columns
        if columns.same_windows(first, second):
            return True
        lengths = columns.history(first).spans.lengths
        if not np.array_equal(lengths, columns.history(second).spans.lengths):
            return False
        if has_numbers or self._is_of_numbers(first, None):
            return True
        return all(
            is_history_name(name) and (columns.twin(name) is not None or np.ptp(lengths) > 0)
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
        kept = tuple(candidates[name] for name in ids)
        return Behaviour("+".join(ids), tuple(ids), kept, tuple(numbers))

    def _notice_unpaired(self, behaviours: Sequence[Behaviour]) -> None:
        """Say which histories are pooled although they look made to be compared."""
        alone = [name for b in behaviours if b.is_bag for name in b.histories]
        wanted = {name: self.columns.likely_twin(name, self.out) for name in alone}
        lost = [name for name in alone if is_history_name(name) or wanted[name] is not None]
        if lost:
            pair = f"{{{lost[0]!r}: {wanted[lost[0]] or '...'!r}}}"
            self._notices.append(
                f"histories {', '.join(lost)} have no candidate: pooled without attention; name "
                f"pairs in histories={pair}."
            )


def _as_tuple(value: Hashable) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
