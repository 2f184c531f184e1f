"""The role of each column of a frame: ids, numbers, histories of the same events, candidates."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from sklearn_din.encoding.facts import ColumnFacts, gather_facts
from sklearn_din.encoding.table import Impressions, find_candidate, is_history_name
from sklearn_din.features.schema import Behaviour
from sklearn_din.utils.validation import check_columns, check_names

NamesParameter = str | Sequence[str]  # "auto", or names
HistoriesParameter = str | Mapping[Hashable, Hashable]  # "auto", or history -> candidate


@dataclass(frozen=True)
class Roles:
    """The part of each column.

    Columns are in frame order; those ``unused`` are of a kind that never is, such as dates.
    ``lists`` are the columns whose values are lists of ids: candidates that are no column of single
    ids, and histories. Each notice says what was taken differently from how it looks.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    behaviours: tuple[Behaviour, ...]
    unused: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    notices: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Return the owner of each column's vocabulary: of a history, its candidate."""
        owners = {name: name for name in (*self.categorical, *self.lists)}
        for behaviour in self.behaviours:
            owners |= {n: n if c is None else c for n, c in behaviour.candidate_of.items()}
        return owners

    def join(self, later: "Roles") -> "Roles":
        """Return these roles, and behind them those of columns that came later."""
        names = ("numeric", "categorical", "behaviours", "unused", "lists")
        both = {name: (*getattr(self, name), *getattr(later, name)) for name in names}
        roles = Roles(**both)
        numbers = {name for behaviour in roles.behaviours for name in behaviour.numbers}
        _check_output_names(roles, roles.histories | numbers)
        return roles

    @property
    def owners_of_single_ids(self) -> dict[str, str]:
        """The same, of columns whose values are no lists."""
        return {name: owner for name, owner in self.owners.items() if name not in self.lists}

    @cached_property
    def histories(self) -> set[str]:
        """Histories of ids, or of lists of ids."""
        return {name for behaviour in self.behaviours for name in behaviour.histories}

    @cached_property
    def candidates(self) -> set[str]:
        """Columns that some history is compared with."""
        return {name for b in self.behaviours for name in b.candidates if name is not None}


def is_auto(value: object) -> bool:
    """Return whether a parameter leaves the choice to the rules."""
    return isinstance(value, str) and value == "auto"


def assign_roles(
    table: Impressions,
    *,
    histories: HistoriesParameter,
    categorical: NamesParameter,
    numeric: NamesParameter,
    drop: Sequence[str],
    metadata: Sequence[str] = (),
) -> Roles:
    """Give each column its part: by name where it is named, by what it holds otherwise.

    All rows decide what a column holds (:func:`gather_facts`), of frames and of scans alike.
    Parameters are those of :class:`sklearn_din.HistorySequenceEncoder`; columns ``metadata`` say
    whose the row is, when it was, and where it was shown.
    """
    if not is_auto(histories) and not isinstance(histories, Mapping):
        raise ValueError(
            "histories must be 'auto' or a dict of history and candidate columns, such as "
            f"{{'hist_item': 'item'}}, got {histories!r}."
        )
    named = _check_named(table, categorical=categorical, numeric=numeric, drop=drop)
    out = {*drop, *metadata}
    pairs = {} if isinstance(histories, str) else histories
    in_histories = [name for key in pairs for name in as_tuple(key)]
    facts = gather_facts(table, out=out, ids=named["categorical"], histories=in_histories)
    ids, numbers = {*named["categorical"]}, {*named["numeric"]}
    finder = Histories(table, facts, out, ids, numbers)
    behaviours = tuple(finder.find(pairs))
    candidates = Roles((), (), behaviours).candidates
    _check_disjoint(named | {METADATA_ROLE: list(metadata), "candidates": sorted(candidates)})
    kinds: dict[str, str] = {n: facts[n].kind for n in table.names if n not in out}
    kinds |= dict.fromkeys(named["categorical"], "ids") | dict.fromkeys(named["numeric"], "numbers")
    kinds |= dict.fromkeys(finder.names, "history") | dict.fromkeys(candidates, "ids")
    kinds |= dict.fromkeys(candidates & finder.lists, "lists")
    in_use = {name for b in behaviours for name in b.columns}

    def of_kind(*some: str) -> tuple[str, ...]:
        return tuple(n for n in table.names if kinds.get(n) in some and n not in in_use)

    kinds_of_roles = of_kind("numbers"), of_kind("ids"), behaviours, of_kind("time", "history")
    lists = tuple(name for name in table.names if name in finder.lists)
    roles = Roles(*kinds_of_roles, lists, notices=tuple(finder.notices))
    _check_output_names(roles, in_use)
    return roles


def _check_named(table: Impressions, **parameters: NamesParameter) -> dict[str, list[str]]:
    named = {}
    for parameter, value in parameters.items():
        named[parameter] = [] if is_auto(value) else check_names(value, name=parameter)
        check_columns(table.names, named[parameter], name=f"X ({parameter})")
    return named


def _check_disjoint(taken: Mapping[str, Sequence[str]]) -> None:
    for first, second in combinations(sorted(taken), 2):
        both = sorted({*taken[first]} & {*taken[second]})
        if both and {first, second} not in ({"candidates", "categorical"}, OUTSIDE):
            raise ValueError(
                f"a column has one part to play, got {both} among the {first} and in {second}. "
                "Candidates of histories are always categorical."
            )


METADATA_ROLE = "user, time and position"
OUTSIDE = {"drop", METADATA_ROLE}  # both keep a column out of the features


def _check_output_names(roles: Roles, histories: set[str]) -> None:
    used = {*roles.numeric, *roles.categorical, *roles.lists, *histories}
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


@dataclass
class Histories:
    """Finds the behaviours of a table, by the user's names or by rule.

    ``ids`` and ``numbers`` are columns that the user calls so: a history and its candidate play one
    part, naming either of them names both. Columns that are ``out`` are no features. ``names`` are
    the columns that are read as histories, in the order of the table, ``of_numbers`` those whose
    events are quantities, ``lists`` those whose events are lists, and their candidates, ``notices``
    sentences about what was taken differently from how it looks.
    """

    table: Impressions
    facts: Mapping[str, ColumnFacts]
    out: set[str]
    ids: set[str]
    numbers: set[str]
    names: list[str] = field(default_factory=list)
    of_numbers: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)

    def find(self, named: Mapping[Hashable, Hashable]) -> list[Behaviour]:
        """Take the columns that the user names, with their candidates, and all others of lists.

        Others of the same events as a named history, or as each other, form one behaviour with it.
        """
        candidates = self._check_named(named)
        self.names = [n for n in self.table.names if n in candidates or self._is_history(n)]
        groups = [list(as_tuple(key)) for key in named]
        bags = [group for group in groups if all(candidates[name] is None for name in group)]
        self._pair_lists(candidates)
        for name in self.names:
            if candidates.get(name) is None:
                candidate = None if name in candidates else self._find_candidate(name)
                part = self._part(name, candidate)
                candidates[name] = candidate if part == "compared" else None
                self.of_numbers |= {name} if part == "numbers" else set()
            if any(name in group for group in groups) or self.facts[name].history.kinds == {"time"}:
                continue
            others = (group for group in groups if group not in bags)
            group = next((group for group in others if self._are_aligned(group[0], name)), [])
            if not group:
                groups.append(group)
            group.append(name)
        self._check_separator()
        return [self._behaviour(group, candidates) for group in groups]

    def _pair_lists(self, candidates: dict[str, str | None]) -> None:
        """Pair histories whose events are lists with candidates that are lists, no histories then.

        ``candidates`` are those of the histories that the user names; others are added.
        """
        facts = self.facts
        nested = [name for name in self.names if facts[name].history.is_nested]
        lists = {n for n in self.names if n not in nested and facts[n].kind == "history"}
        for name in nested:
            if name not in candidates:
                free, same = lists - candidates.keys(), find_candidate(name, self.table.names)
                if same is None and not is_history_name(name):
                    same = _longest_suffix(name, free)
                candidates[name] = same if same in free else None
            candidate = candidates[name]
            if candidate is not None and candidate not in lists:
                raise ValueError(
                    f"{name} holds a list of values for each event, and so must {candidate}, which "
                    f"it is compared with and holds {facts[candidate].kind}: of text, "
                    f"X[{candidate!r}].str.split(','); of single values, lists of one."
                )
            self.lists |= {name} if candidate is None else {name, candidate}
        self.names = [name for name in self.names if name in nested or name not in self.lists]

    def _check_named(self, named: Mapping[Hashable, Hashable]) -> dict[str, str | None]:
        """Return the candidate of each history that the user names."""
        keys = [name for key in named for name in as_tuple(key)]
        check_columns(self.table.names, keys, name="X (histories)")
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
            pairs |= dict(zip(names, candidates, strict=True))
        there = [candidate for candidate in pairs.values() if candidate is not None]
        check_columns(self.table.names, there, name="X (histories)")
        return pairs

    def _is_history(self, name: str) -> bool:
        facts = self.facts
        if name in self.out:
            return False
        if facts[name].kind == "history":
            return True
        candidate = find_candidate(name, self.table.names)
        if not is_history_name(name) or candidate is None or name in self.ids:
            return False
        if facts[name].is_text and self.table.separator is None:
            raise ValueError(
                f"{name} holds text such as {facts[name].example!r:.40} where lists were meant: "
                "CSV files turn histories into text. Keep them in Parquet, or join them, '22|29|7' "
                f"(separator='|'). Name {name} in categorical or drop if it is no history."
            )
        if facts[name].is_text or facts[name].example is None:
            return True
        if name not in self.numbers:
            self.notices.append(
                f"{name} holds one value per cell, such as {facts[name].example!r:.40}, where its "
                f"name and the column {candidate} mean a history: it is taken for a column of its "
                f"own. Make lists as attach_history does, or name {name} in categorical, numeric "
                "or drop."
            )
        return False

    def _check_separator(self) -> None:
        """Refuse lists as text, whose brackets would be in ids, and separators in no cell."""
        facts, separator = self.facts, self.table.separator
        for name in self.names:
            if facts[name].is_text_of_lists:
                raise ValueError(
                    f"{name} holds lists as text, such as {facts[name].example!r:.40}: split at "
                    f"{separator!r}, brackets and quotes would be in the ids. Read histories "
                    f"from Parquet, or take them off, "
                    f"X[{name!r}].str.replace(r\"[][()'\\\"]\", '', regex=True)."
                )
            if facts[name].is_text and facts[name].history.longest <= 1:
                raise ValueError(
                    f"separator={separator!r} splits nothing in {name}, whose cells are such "
                    f"as {facts[name].example!r:.40}. Give theirs, or make lists of the cells."
                )

    def _find_candidate(self, name: str) -> str | None:
        """Find the column that a history is named after, where that is no history."""
        candidate = find_candidate(name, self.table.names)
        if candidate is None and not is_history_name(name):
            candidate = self._candidate_of_suffix(name)
        return None if candidate in {*self.out, *self.names} else candidate

    def _part(self, name: str, candidate: str | None) -> str:
        """Return whether a history is compared with the candidate, of numbers, or pooled."""
        events, same = self.facts[name].history, find_candidate(name, self.table.names)
        column = ColumnFacts() if candidate is None else self.facts[candidate]
        is_single = candidate is not None and column.kind in ("ids", "numbers")
        may_match = is_single and not events.has_row_times
        are_numbers = not self.numbers.isdisjoint((name, same))
        are_ids = not are_numbers and not self.ids.isdisjoint((name, candidate))
        is_number = self.facts.get(str(same), ColumnFacts()).kind == "numbers"
        rules = (  # the first that holds
            (may_match and are_ids, "compared"),
            (name in self.ids, "pooled"),
            (are_numbers or (events.is_numeric and not events.is_whole), "numbers"),
            (may_match and (column.kind == "ids" or column.is_whole), "compared"),
            (events.is_numeric or (events.is_integer and is_number), "numbers"),
            (True, "pooled"),
        )
        part = next(part for holds, part in rules if holds)
        if part == "compared" and column.kind == "numbers" and events.is_numeric and not are_ids:
            self.notices.append(
                f"{candidate} and {name} hold whole numbers as floats, as ids are where some are "
                f"missing: both are encoded as ids. Name {candidate} in categorical or in numeric."
            )
        return part

    def _candidate_of_suffix(self, name: str) -> str | None:
        """Find the column of ids that a list is named after: ``item`` for ``buy_item``.

        That is what ``attach_history(prefix="buy_")`` writes.
        """
        free = self.facts.keys() - {*self.out, *self.names, *self.numbers}
        return _longest_suffix(name, (n for n in free if self._are_alike(name, n)))

    def _are_alike(self, history: str, column: str) -> bool:
        """Return whether both hold whole numbers, or both other ids, however these are stored.

        Where both are floats, these are ids if some are missing, else they may be quantities.
        """
        events, facts = self.facts[history].history, self.facts[column]
        is_whole = events.is_integer or events.is_whole
        if facts.kind == "numbers":
            are_ids = events.is_integer or facts.any_missing or events.any_missing
            return facts.is_whole and is_whole and are_ids
        are_ids = facts.kind == "ids" and (is_whole or not events.is_numeric)
        return bool(events.kinds) and are_ids and facts.is_whole == is_whole

    def _are_aligned(self, first: str, second: str) -> bool:
        """Return whether two histories describe the same events.

        Windows of one ``attach_history`` call do. The same columns read back from a file have
        lost that kinship: there, equal lengths in every row tell, if each has a column to be
        compared with, is a history of numbers, or comes from ``attach_history`` by its name and
        the lengths vary.
        """
        facts = self.facts
        mine, theirs = facts[first].history, facts[second].history
        if mine.lengths != theirs.lengths:
            return False
        if mine.windows == theirs.windows or not self.of_numbers.isdisjoint((first, second)):
            return True
        vary = mine.longest > mine.shortest
        return all(
            (is_history_name(name) and (vary or find_candidate(name, self.table.names) is not None))
            or self._candidate_of_suffix(name) is not None
            for name in (first, second)
        )

    def _behaviour(self, names: Sequence[str], candidates: Mapping[str, str | None]) -> Behaviour:
        numbers = [name for name in names if name in self.of_numbers]
        ids = [name for name in names if name not in self.of_numbers]
        if not ids:
            raise ValueError(
                f"{numbers[0]} holds one number per event, and no history of ids says which events "
                "they are. Attach both in one call of attach_history; else name both as one "
                f"behaviour, histories={{('hist_item', {numbers[0]!r}): ('item', None)}}, or name "
                "it in drop."
            )
        of_ids = tuple(candidates[name] for name in ids)
        return Behaviour("+".join(ids), tuple(ids), of_ids, tuple(numbers))


def _longest_suffix(name: str, columns: Iterable[str]) -> str | None:
    """Find the column that a list is named after: ``item`` for ``buy_item``."""
    return max((n for n in columns if name.endswith(f"_{n}")), key=len, default=None)


def as_tuple(value: Hashable) -> tuple:
    """Return the names that a key or a value of ``histories`` consists of."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)
