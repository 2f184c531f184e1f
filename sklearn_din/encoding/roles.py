"""The role of each column of a frame: ids, numbers, histories of the same events, candidates."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import combinations

from sklearn_din.encoding.column import Column
from sklearn_din.encoding.facts import LIST, ColumnFacts, gather_facts, gather_ids
from sklearn_din.encoding.histories import Histories
from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.encoding.table import (
    Impressions,
    find_candidate,
    is_history_name,
    share_words,
)
from sklearn_din.encoding.table_columns import TableColumns
from sklearn_din.features.schema import Behaviour
from sklearn_din.utils.validation import as_tuple, check_columns, check_names, is_auto

NamesParameter = str | Sequence[str]  # "auto", or names
HistoriesParameter = str | Mapping[Hashable, Hashable]  # "auto", or history -> candidate


def assign_roles(
    table: Impressions,
    *,
    histories: HistoriesParameter,
    categorical: NamesParameter,
    numeric: NamesParameter,
    drop: Sequence[str],
    max_length: int | str,
    elapsed: NamesParameter,
    metadata: Sequence[str] = (),
    item: str | None = None,
) -> tuple[TableColumns, list[str]]:
    """Assign a role to each column: by name if it is named, otherwise by its values in all rows.

    Return the columns as objects of their kinds, which have learnt nothing yet, and notices.
    Options are those of :class:`sklearn_din.HistorySequenceEncoder`; ``metadata`` are users, times,
    positions.
    """
    if not is_auto(histories) and not isinstance(histories, Mapping):
        raise ValueError(
            "histories must be 'auto' or a dict of history and candidate columns, such as "
            f"{{'hist_item': 'item'}}, got {histories!r}."
        )
    named: dict[str, list[str]] = {}
    for parameter, value in (("categorical", categorical), ("numeric", numeric), ("drop", drop)):
        named[parameter] = [] if is_auto(value) else check_names(value, name=parameter)
        check_columns(table.names, named[parameter], name=f"X ({parameter})")
    pairs = {} if isinstance(histories, str) else histories
    groups = [list(as_tuple(key)) for key in pairs]
    candidates = _check_pairs(table, pairs)
    out, ids, numbers = {*drop, *metadata}, named["categorical"], named["numeric"]
    facts = gather_facts(table, out=out, ids=ids, histories=candidates)
    finder = _BehaviourFinder(table, facts, out, ids, numbers, candidates, max_length)
    behaviours, lists = finder.find_behaviours(groups)
    compared = {n for b in behaviours for n in b.candidates if n is not None}
    _check_disjoint(named | {METADATA_ROLE: list(metadata), "candidates": sorted(compared)})
    in_use = {name for behaviour in behaviours for name in behaviour.columns}
    roles = {name: str(of.kind) for name, of in facts.items()}  # unless a later rule names it
    roles |= dict.fromkeys(out, "out") | dict.fromkeys(ids, "ids")
    roles |= dict.fromkeys(numbers, "numbers") | dict.fromkeys(finder.histories, "history")
    roles |= dict.fromkeys(finder.number_of.values(), "numbers") | dict.fromkeys(compared, "ids")
    roles |= dict.fromkeys(lists, "lists") | dict.fromkeys(in_use, "behaviour")

    def having(*some: str) -> list[str]:
        return [name for name in table.names if roles[name] in some]

    times = None if is_auto(elapsed) else check_names(elapsed, name="elapsed")
    of_events = [name for behaviour in behaviours for name in behaviour.numbers]
    check_columns(of_events, times or [], name="elapsed: the histories of numbers")
    in_order: list[Column] = [
        *map(NumberColumn, having("numbers")),
        *(IdColumn(name, name, is_compared=name in compared) for name in having("ids")),
        *(IdColumn(name, name, holds_lists=True) for name in having("lists")),
        *(_make_histories(b, lists, times, finder.number_of) for b in behaviours),
    ]
    _check_output_names({leaf.name for column in in_order for leaf in column.leaves}, in_use)
    if item is not None and item not in having("ids"):
        raise ValueError(
            f"item must be a column of single ids, got {item!r}; those of X are {having('ids')}. "
            "Name whole numbers in categorical."
        )
    unused = tuple(having("time", "history"))
    columns = TableColumns(tuple(table.names), tuple(in_order), unused, item=item or "")
    return columns, finder.notices


def _make_histories(
    behaviour: Behaviour,
    lists: Collection[str],
    times: Collection[str] | None,
    number_of: Mapping[str, str],
) -> Histories:
    """Return the columns of a behaviour; a history has its candidate's vocabulary, or scale.

    ``lists`` hold a list of ids for each event, ``times`` are times elapsed; None: look at them,
    where ``number_of`` has no number of the candidate that those of the events are compared with.
    """
    columns: list[IdColumn | NumberColumn] = []
    for name, candidate in behaviour.candidate_of.items():
        owner = name if candidate is None else candidate
        columns.append(IdColumn(name, owner, is_history=True, holds_lists=name in lists))
    for name in behaviour.numbers:
        of_candidate = "" if behaviour.is_bag or name in (times or ()) else number_of.get(name, "")
        is_elapsed = None if times is None and not of_candidate else name in (times or ())
        columns.append(NumberColumn(name, True, is_elapsed, of_candidate))
    return Histories(behaviour, tuple(columns))


def _check_disjoint(taken: Mapping[str, Sequence[str]]) -> None:
    for first, second in combinations(sorted(taken), 2):
        both = sorted({*taken[first]} & {*taken[second]})
        if both and {first, second} not in ({"candidates", "categorical"}, OUTSIDE):
            raise ValueError(
                f"a column must have one role, got {both} among the {first} and in {second}. "
                "Candidates of histories are always categorical."
            )


METADATA_ROLE = "user, time and position"
OUTSIDE = {"drop", METADATA_ROLE}  # both keep a column out of the features


def _check_output_names(used: Collection[str], histories: Collection[str]) -> None:
    """Raise ValueError where no column is left, or one is named like a mask."""
    if not used:
        raise ValueError(
            "no column is left to encode: X needs a column of ids, numbers or histories that is "
            "not dropped (datetimes are not used)."
        )
    clash = sorted(f"{name}_mask" for name in histories if f"{name}_mask" in used)
    if clash:
        raise ValueError(
            f"{clash} would hide the masks of the histories in the output. Rename or drop them."
        )


def _check_pairs(table: Impressions, named: Mapping[Hashable, Hashable]) -> dict[str, str | None]:
    """Return the candidate of each history that the user names."""
    keys = [name for key in named for name in as_tuple(key)]
    check_columns(table.names, keys, name="X (histories)")
    twice = sorted({name for name in keys if keys.count(name) > 1})
    if twice:
        raise ValueError(
            f"histories must name each history column once, got {twice} more than once. "
            "Copy the column under another name to use it twice."
        )
    for key, value in named.items():
        if len(as_tuple(key)) != len(as_tuple(value)):
            raise ValueError(
                f"histories must name one candidate, or None, for each history, got {value!r} "
                f"for {key!r}. Write {{('hist_item', 'hist_category'): ('item', 'category')}}."
            )
    candidates = [name for value in named.values() for name in as_tuple(value)]
    there = [name for name in candidates if name is not None]
    check_columns(table.names, there, name="X (histories)")
    return dict(zip(keys, candidates, strict=True))


@dataclass(eq=False)
class _BehaviourFinder:
    """The rules by which some columns of a table form behaviours.

    ``ids`` and ``numbers`` are what the user calls so: naming a history or its candidate names
    both. Columns that are ``out`` are no features, ``pairs`` are the histories that the user names,
    and their candidates. ``number_of`` are the numbers of candidates that those of histories are
    compared with.
    """

    table: Impressions
    facts: Mapping[str, ColumnFacts]
    out: Collection[str]
    ids: Collection[str]
    numbers: Collection[str]
    pairs: Mapping[str, str | None]
    max_length: int | str
    notices: list[str] = field(default_factory=list)
    number_of: dict[str, str] = field(default_factory=dict)
    _of_ids: set[str] = field(default_factory=set)  # histories whose candidates share their ids

    def __post_init__(self) -> None:
        names = [name for name in self.table.names if name in self.facts]
        self._named_after = {name: find_candidate(name, self.table.names) for name in names}
        self.histories = [name for name in names if self._is_history(name)]
        for name in self.histories:
            self._check_text(name)
        single = [name for name in names if name not in {*self.histories, *self.numbers}]
        self.notices += [
            f"{name} holds one value per cell, such as {self.facts[name].example!r:.40}, where its "
            f"name and the column {self._named_after[name]} mean a history: it is taken for a "
            f"column of its own. Make lists as attach_history does, or name {name} in categorical, "
            "numeric or drop."
            for name in filter(self._is_meant, single)
        ]

    def find_behaviours(self, groups: list[list[str]]) -> tuple[tuple[Behaviour, ...], set[str]]:
        """Return behaviours, those that the user names (``groups``) first, and columns of lists.

        Other histories of the same events as a named one, or as each other, form one behaviour
        with it; never with a bag that the user names.
        """
        candidates = self._pair_lists()
        nested = {name for name in self.histories if self.facts[name].history.kind == "lists"}
        lists = nested | {c for name in nested if (c := candidates[name]) is not None}
        self.histories = [n for n in self.histories if n in nested or n not in lists]
        possible = {n: self._candidate(n) for n in self.histories if n not in candidates}
        both = {**possible, **self.pairs}.items()
        pairs = [(n, c) for n, c in both if c is not None and c in self.facts]
        of = {c: [n for n, candidate in pairs if candidate == c] for _, c in pairs}
        self.number_of = {n: c for n, c in pairs if self._are_quantities(n, c, of[c])}
        possible |= {name: None for name in self.histories if candidates.get(name, "") is None}
        roles = {name: self._role(name, candidate) for name, candidate in possible.items()}
        roles |= dict.fromkeys(self.number_of, "numbers")
        compared = {n: c for n, c in possible.items() if c is not None and roles[n] == "compared"}
        self.notices += filter(None, (self._note_floats(n, c) for n, c in compared.items()))
        candidates |= dict.fromkeys([*possible, *self.number_of]) | compared
        self._of_numbers = {name for name, role in roles.items() if role == "numbers"}
        bags = [group for group in groups if all(self.pairs[name] is None for name in group)]
        for name in self.histories:
            if name in self.pairs or self.facts[name].history.kind == "time":
                continue
            others = [group for group in groups if group not in bags]
            same = next((group for group in others if self._are_aligned(group[0], name)), None)
            if same is None:
                groups.append(same := [])
            same.append(name)
        return tuple(self._behaviour(group, candidates) for group in groups), lists

    def _is_history(self, name: str) -> bool:
        """Return whether a column is read as a history, by its cells and its name."""
        facts = self.facts[name]
        is_by_name = self._is_meant(name) and (facts.is_text or facts.example is None)
        return name in self.pairs or facts.kind == "history" or is_by_name

    def _is_meant(self, name: str) -> bool:
        """Return whether a column is named like the history of another one."""
        is_named = is_history_name(name) and self._named_after[name] is not None
        return is_named and name not in self.ids

    def _check_text(self, name: str) -> None:
        """Raise ValueError where a history is text that is not joined by the separator."""
        facts, separator = self.facts[name], self.table.separator
        example = f"{facts.example!r:.40}"
        if facts.is_text and separator is None:
            raise ValueError(
                f"{name} holds text such as {example} where lists were meant: CSV files turn "
                "histories into text. Keep them in Parquet, or join them, '22|29|7' "
                f"(separator='|'). Name {name} in categorical or drop if it is no history."
            )
        if facts.is_text and LIST.fullmatch(str(facts.example).strip()):  # as CSV files write them
            raise ValueError(
                f"{name} holds lists as text, such as {example}: split at {separator!r}, brackets "
                "and quotes would be in the ids. Read histories from Parquet, or take them off, "
                f"X[{name!r}].str.replace(r\"[][()'\\\"]\", '', regex=True)."
            )
        if facts.is_text and max(facts.history.n_rows, default=0) <= 1:
            raise ValueError(
                f"separator={separator!r} splits nothing in {name}, whose cells are such as "
                f"{example}. Give theirs, or make lists of the cells."
            )

    def _role(self, name: str, candidate: str | None) -> str:
        """Return whether a history is "compared" with the candidate, of "numbers", or "pooled"."""
        events, same = self.facts[name].history, self._named_after[name]
        column = ColumnFacts() if candidate is None else self.facts[candidate]
        is_single = candidate is not None and column.kind in ("ids", "numbers")
        may_match = is_single and not events.has_row_times
        are_numbers = not {*self.numbers}.isdisjoint((name, same))
        if may_match and not are_numbers and not {*self.ids}.isdisjoint((name, candidate)):
            return "compared"
        if name in self.ids:
            return "pooled"
        if are_numbers or (events.is_numeric and not events.is_whole):
            return "numbers"
        if may_match and (column.kind == "ids" or column.is_whole):
            return "compared"
        is_number = self.facts.get(str(same), ColumnFacts()).kind == "numbers"
        return (
            "numbers" if events.is_numeric or (events.kind == "integer" and is_number) else "pooled"
        )

    def _are_quantities(self, history: str, candidate: str, histories: Sequence[str]) -> bool:
        """Return whether a history and its candidate hold numbers, and so have differences.

        Those do that the user calls numbers, and those of which either has a fraction, or another
        one of the candidate's ``histories``: for all of them it is a number, or an id.
        """
        events, column = self.facts[history].history, self.facts[candidate]
        are_numbers = events.kind in ("integer", "float") and not events.has_row_times
        are_numbers &= column.kind == "numbers" or (column.kind == "ids" and column.is_whole)
        is_named = not {*self.numbers}.isdisjoint((*histories, candidate))
        has_fraction = any(self.facts[name].history.any_fraction for name in histories)
        has_fraction |= column.kind == "numbers" and column.any_other
        is_id = not {*self.ids}.isdisjoint((*histories, candidate))
        return are_numbers and (is_named or has_fraction) and (is_named or not is_id)

    def _note_floats(self, name: str, candidate: str) -> str | None:
        """Return what to say of a history and its candidate, if both hold floats taken for ids."""
        are_floats = self.facts[name].history.is_numeric and self.facts[candidate].kind == "numbers"
        if not are_floats or not {*self.ids}.isdisjoint((name, candidate)):
            return None
        return (
            f"{candidate} and {name} hold whole numbers as floats, as ids are where some are "
            f"missing: both are encoded as ids. Name {candidate} in categorical or in numeric."
        )

    def _pair_lists(self) -> dict[str, str | None]:
        """Return candidates that the user names, and those of histories of lists, lists too."""
        facts, candidates = self.facts, dict(self.pairs)
        nested = [name for name in self.histories if facts[name].history.kind == "lists"]
        lists = {n for n in self.histories if n not in nested and facts[n].kind == "history"}
        for name in nested:
            free, same = lists - self.pairs.keys(), self._named_after[name]
            if same is None and not is_history_name(name):
                same = _longest_suffix(name, free)
            candidate = candidates.setdefault(name, same if same in free else None)
            if candidate is not None and candidate not in lists:
                raise ValueError(
                    f"{name} holds a list of values for each event, and so must {candidate}, which "
                    f"it is compared with and holds {facts[candidate].kind}: of text, "
                    f"X[{candidate!r}].str.split(','); of single values, lists of one."
                )
        return candidates

    def _candidate(self, name: str) -> str | None:
        """Return the column that a history is named after, where that is no history."""
        candidate = self._named_after[name]
        if candidate is None and not is_history_name(name):
            candidate = self._candidate_of_suffix(name)
        if candidate is None and name not in self.numbers:
            candidate = self._candidate_of_ids(name)
        return None if candidate in {*self.out, *self.histories} else candidate

    def _candidate_of_ids(self, name: str) -> str | None:
        """Find the column whose name has the same words and that holds most ids of a history.

        Where several columns fit, the one counts that alone holds more than half of the ids. Raise
        ValueError if there is none: only the user knows which column the history belongs to.
        """
        free = self.facts.keys() - {*self.out, *self.histories, *self.numbers}
        matching = sorted(n for n in free if share_words(name, n) and self._are_alike(name, n))
        if not matching:
            return None
        ids = gather_ids(self.table, [name], matching)
        own = ids.pop(name)
        likely = [n for n in matching if _is_most(own & ids[n], own) and _fills(own, ids[n])]
        if len(likely) > 1:
            others = {n: set().union(*(ids[o] for o in likely if o != n)) for n in likely}
            only = [n for n in likely if _is_most(own & ids[n] - others[n], own)]
            if not only:
                raise ValueError(
                    f"{name} may be a history of {' or of '.join(likely)}: their names match, and "
                    f"each holds most of its ids. Name the candidate, histories={{{name!r}: "
                    f"{likely[0]!r}}}, or pool the events without attention, "
                    f"histories={{{name!r}: None}}."
                )
            likely = only
        if not likely:
            return None
        self._of_ids.add(name)
        return likely[0]

    def _candidate_of_suffix(self, name: str) -> str | None:
        """Find the column of ids that a list is named after: ``item`` for ``buy_item``."""
        free = self.facts.keys() - {*self.out, *self.histories, *self.numbers}
        return _longest_suffix(name, (n for n in free if self._are_alike(name, n)))

    def _are_alike(self, history: str, column: str) -> bool:
        """Return whether both hold whole numbers, or both other ids, however these are stored.

        Where both are floats, these are ids if some are missing, else they may be quantities; with
        fractions, quantities are what both hold.
        """
        events, facts = self.facts[history].history, self.facts[column]
        is_whole = events.kind == "integer" or events.is_whole
        if facts.kind == "numbers":
            are_ids = events.kind == "integer" or facts.any_missing or events.any_missing
            are_quantities = events.any_fraction and facts.any_other
            return are_quantities or (facts.is_whole and is_whole and are_ids)
        are_ids = facts.kind == "ids" and (is_whole or not events.is_numeric)
        return events.kind is not None and are_ids and facts.is_whole == is_whole

    def _are_aligned(self, first: str, second: str) -> bool:
        """Return whether two histories describe the same events: of one ``attach_history`` call.

        Read back from a file, equal lengths in every row tell, if each has a column to be compared
        with, is a history of numbers, or is named by ``attach_history`` and the lengths vary.
        """
        facts = self.facts
        mine, theirs = facts[first].history, facts[second].history
        if mine.lengths != theirs.lengths:
            return False
        if mine.windows == theirs.windows or not self._of_numbers.isdisjoint((first, second)):
            return True
        vary = len(mine.n_rows) > 1
        return all(
            (is_history_name(name) and (vary or self._named_after[name] is not None))
            or self._candidate_of_suffix(name) is not None
            or name in self._of_ids
            for name in (first, second)
        )

    def _behaviour(self, names: Sequence[str], candidates: Mapping[str, str | None]) -> Behaviour:
        """Return the behaviour of some histories; at least one of them must hold ids."""
        numbers = [name for name in names if name in self._of_numbers]
        ids = [name for name in names if name not in self._of_numbers]
        if not ids:
            lengths = self.facts[numbers[0]].history.n_rows
            if len(lengths) == 1 and max(lengths) > 1:
                raise ValueError(
                    f"{numbers[0]} holds {max(lengths)} numbers in every row, as vectors of items "
                    "do. Drop the column and give each item's vector once, "
                    f"HistorySequenceEncoder(vectors={{'item': X[['item', {numbers[0]!r}]]"
                    ".drop_duplicates('item')}). Numbers of events need the history of their ids."
                )
            raise ValueError(
                f"{numbers[0]} holds one number per event, and no history of ids says which events "
                "they are. Attach both in one call of attach_history; else name both as one "
                f"behaviour, histories={{('hist_item', {numbers[0]!r}): ('item', None)}}, or name "
                "it in drop."
            )
        of_ids, n_events = tuple(candidates[name] for name in ids), self.max_length
        if isinstance(n_events, str):  # "auto"
            n_events = self.facts[ids[0]].history.choose_max_length()
        return Behaviour("+".join(ids), tuple(ids), of_ids, tuple(numbers), int(n_events))


def _is_most(some: Sized, ids: Sized) -> bool:
    """Return whether some ids are more than half of all."""
    return 2 * len(some) > len(ids)


def _fills(ids: Collection[str], candidates: Collection[str]) -> bool:
    """Return whether integer ids have the range of the candidates', as those of one catalogue have.

    Numbers of tags from 0 to 50 are also numbers of items from 0 to 1,000. Text is never in another
    column by chance.
    """
    if not all(map(_is_integer, (*ids, *candidates))):
        return True
    numbers = {*map(int, ids)}
    low, high = min(numbers), max(numbers)
    return _is_most([n for n in map(int, candidates) if low <= n <= high], candidates)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _longest_suffix(name: str, columns: Iterable[str]) -> str | None:
    """Find the column that a list is named after: ``item`` for ``buy_item``."""
    return max((n for n in columns if name.endswith(f"_{n}")), key=len, default=None)
