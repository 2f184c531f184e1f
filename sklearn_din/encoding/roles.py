"""The role of each column of a frame: ids, numbers, histories and their candidates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sklearn_din._validation import check_columns, check_names
from sklearn_din.encoding.behaviours import Histories, as_tuple
from sklearn_din.encoding.facts import gather_facts
from sklearn_din.encoding.table import Impressions
from sklearn_din.features.schema import Behaviour

NamesParameter = str | Sequence[str]  # "auto", or names
HistoriesParameter = str | Mapping[Hashable, Hashable]  # "auto", or history -> candidate


@dataclass(frozen=True)
class Roles:
    """The part of each column.

    Columns are in frame order; those ``unused`` are of a kind that never is, such as dates. Each
    notice says what was taken differently from how it looks.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    behaviours: tuple[Behaviour, ...]
    unused: tuple[str, ...] = ()
    notices: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Return the owner of each column's vocabulary: of a history, its candidate."""
        owners = {name: name for name in self.categorical}
        for behaviour in self.behaviours:
            pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
            owners |= {n: n if candidate is None else candidate for n, candidate in pairs}
        return owners

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
    beside: Sequence[str] = (),
) -> Roles:
    """Give each column its part: by name where it is named, by what it holds otherwise.

    All rows decide what a column holds (:func:`gather_facts`), of frames and of scans alike.
    Parameters are those of :class:`sklearn_din.HistorySequenceEncoder`; columns ``beside`` say
    whose the row is, and when.
    """
    _check_histories(histories)
    named = _check_named(table, categorical=categorical, numeric=numeric, drop=drop)
    out = {*drop, *beside}
    pairs = {} if isinstance(histories, str) else histories
    in_histories = [name for key in pairs for name in as_tuple(key)]
    facts = gather_facts(table, out=out, ids=named["categorical"], histories=in_histories)
    finder = Histories(
        facts,
        separator=table.separator,
        out=out,
        ids=named["categorical"],
        numbers=named["numeric"],
    )
    behaviours = tuple(finder.find(pairs))
    candidates = Roles((), (), behaviours).candidates
    _check_disjoint(named | {"user and time": list(beside), "candidates": sorted(candidates)})
    kinds: dict[str, str] = {n: facts[n].kind for n in table.names if n not in out}
    kinds |= dict.fromkeys(named["categorical"], "ids") | dict.fromkeys(named["numeric"], "numbers")
    kinds |= dict.fromkeys(finder.names, "history") | dict.fromkeys(candidates, "ids")
    in_use = {name for b in behaviours for name in (*b.histories, *b.numbers)}

    def of_kind(*some: str) -> tuple[str, ...]:
        return tuple(n for n in table.names if kinds.get(n) in some and n not in in_use)

    kinds_of_roles = of_kind("numbers"), of_kind("ids"), behaviours, of_kind("time", "history")
    roles = Roles(*kinds_of_roles, notices=tuple(finder.notices))
    _check_output_names(roles, in_use)
    return roles


def _check_histories(histories: object) -> None:
    if not is_auto(histories) and not isinstance(histories, Mapping):
        raise ValueError(
            "histories must be 'auto' or a dict of history and candidate columns, such as "
            f"{{'hist_item': 'item'}}, got {histories!r}."
        )


def _check_named(table: Impressions, **parameters: NamesParameter) -> dict[str, list[str]]:
    named = {}
    for parameter, value in parameters.items():
        named[parameter] = [] if is_auto(value) else check_names(value, name=parameter)
        check_columns(table.names, named[parameter], name=f"X ({parameter})")
    return named


def _check_disjoint(taken: Mapping[str, Sequence[str]]) -> None:
    parameters = sorted(taken)
    for position, first in enumerate(parameters):
        for second in parameters[position + 1 :]:
            both = sorted(set(taken[first]) & set(taken[second]))
            if both and {first, second} not in ({"candidates", "categorical"}, OUTSIDE):
                raise ValueError(
                    f"a column has one part to play, got {both} among the {first} and in "
                    f"{second}. Candidates of histories are always categorical."
                )


OUTSIDE = {"drop", "user and time"}  # both keep a column out of the features


def _check_output_names(roles: Roles, histories: set[str]) -> None:
    used = {*roles.numeric, *roles.categorical, *histories}
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
