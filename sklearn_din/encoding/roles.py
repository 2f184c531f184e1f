"""Which part each column of a frame plays: ids, numbers, histories and their candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sklearn_din._validation import check_frame, check_names
from sklearn_din.encoding.columns import Columns
from sklearn_din.features.schema import Behaviour

PREFIX = "hist_"
NamesParameter = str | Sequence[str]  # "auto", or names
HistoriesParameter = str | Mapping[Any, Any]  # "auto", or history -> candidate


@dataclass(frozen=True)
class Roles:
    """The part of each column that is used.

    Parameters
    ----------
    numeric, categorical : tuple of str
        Columns with one number or one id per cell, in frame order.
    behaviours : tuple of Behaviour
        Histories that describe the same events, and their candidates.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    behaviours: tuple[Behaviour, ...]

    @property
    def owners(self) -> dict[str, str]:
        """Whose vocabulary each column of ids belongs to: a history's is its candidate's."""
        owners = {name: name for name in self.categorical}
        for behaviour in self.behaviours:
            pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
            owners |= {history: candidate or history for history, candidate in pairs}
        return owners

    @property
    def candidates(self) -> set[str]:
        """Columns that some history is compared with."""
        return {name for b in self.behaviours for name in b.candidates if name is not None}


def is_auto(value: Any) -> bool:
    """Whether a parameter leaves the choice to the rules."""
    return isinstance(value, str) and value == "auto"


def assign_roles(
    columns: Columns,
    *,
    histories: HistoriesParameter,
    categorical: NamesParameter,
    numeric: NamesParameter,
    drop: Sequence[str],
) -> Roles:
    """Give each column its part: by name where it is named, by what it holds where "auto".

    Parameters
    ----------
    columns : Columns
        The frame.
    histories, categorical, numeric, drop
        As for :class:`sklearn_din.HistorySequenceEncoder`.

    Returns
    -------
    Roles
    """
    frame = columns.frame
    named = _named(frame, categorical=categorical, numeric=numeric, drop=drop)
    names = _history_names(columns, histories, drop)
    if isinstance(histories, str):
        behaviours = _infer_behaviours(columns, names, off_limits={*drop, *named["numeric"]})
    else:
        behaviours = _named_behaviours(columns, histories)
    roles = Roles((), (), tuple(behaviours))
    taken = {"histories": names, "candidates": sorted(roles.candidates), **named}
    _check_disjoint(taken)
    used = {name for several in taken.values() for name in several}
    kinds = {name: columns.kind(name) for name in columns.names if name not in used}

    def chosen(parameter: str, value: NamesParameter, kind: str) -> tuple[str, ...]:
        picked = {*named[parameter], *(roles.candidates if kind == "ids" else ())}
        if is_auto(value):
            picked |= {name for name, its_kind in kinds.items() if its_kind == kind}
        return tuple(name for name in columns.names if name in picked)

    roles = Roles(
        chosen("numeric", numeric, "numbers"),
        chosen("categorical", categorical, "ids"),
        roles.behaviours,
    )
    _check_output_names(roles, names)
    return roles


def _history_names(
    columns: Columns, histories: HistoriesParameter, drop: Sequence[str]
) -> list[str]:
    """Columns to be read as histories, in frame order."""
    if isinstance(histories, str):
        return [n for n in columns.names if n not in drop and columns.kind(n) == "history"]
    named = [name for key in histories for name in _as_tuple(key)]
    check_frame(columns.frame, named, name="X (histories)")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(
            f"histories must name each history column once, got {twice} more than once. "
            "Copy the column under another name to use it twice."
        )
    return [name for name in columns.names if name in named]


def _named(frame: pd.DataFrame, **parameters: Any) -> dict[str, list[str]]:
    named = {}
    for parameter, value in parameters.items():
        named[parameter] = [] if is_auto(value) else check_names(value, name=parameter)
        check_frame(frame, named[parameter], name=f"X ({parameter})")
    return named


def _check_disjoint(taken: Mapping[str, Sequence[str]]) -> None:
    parameters = list(taken)
    for position, first in enumerate(parameters):
        for second in parameters[position + 1 :]:
            both = sorted(set(taken[first]) & set(taken[second]))
            if both and (first, second) != ("candidates", "categorical"):
                raise ValueError(
                    f"a column has one part to play, got {both} among the {first} and in "
                    f"{second}. Candidates of histories are always categorical."
                )


def _check_output_names(roles: Roles, histories: Sequence[str]) -> None:
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


def _infer_behaviours(
    columns: Columns, names: Sequence[str], *, off_limits: set[str]
) -> list[Behaviour]:
    groups: list[list[str]] = []
    for name in names:
        if columns.history(name).is_time:
            continue
        for group in groups:
            if columns.same_windows(group[0], name):
                group.append(name)
                break
        else:
            groups.append([name])
    taken = {*off_limits, *names}
    candidates = {name: _candidate_of(name, columns, taken) for name in names}
    return [_behaviour(group, candidates, columns) for group in groups]


def _candidate_of(name: str, columns: Columns, taken: set[str]) -> str | None:
    candidate, history = name.removeprefix(PREFIX), columns.history(name)
    if candidate in taken or candidate not in columns.names:
        return None
    if history.is_numeric:  # unless they are integer ids that missing values made floats
        are_ids = history.is_whole and columns.kind(candidate) == "ids"
        return candidate if are_ids else None
    return candidate


def _named_behaviours(columns: Columns, histories: Mapping[Any, Any]) -> list[Behaviour]:
    behaviours = []
    for key, value in histories.items():
        names, candidates = _as_tuple(key), _as_tuple(value)
        if len(names) != len(candidates):
            raise ValueError(
                f"histories must name one candidate, or None, for each history, got {value!r} "
                f"for {key!r}. Write {{('hist_item', 'hist_category'): ('item', 'category')}}."
            )
        present = [candidate for candidate in candidates if candidate is not None]
        check_frame(columns.frame, present, name="X (histories)")
        behaviours.append(_behaviour(names, dict(zip(names, candidates, strict=True)), columns))
    return behaviours


def _behaviour(
    names: Sequence[str], candidates: Mapping[str, str | None], columns: Columns
) -> Behaviour:
    numbers = [n for n in names if candidates[n] is None and columns.history(n).is_numeric]
    ids = [name for name in names if name not in numbers]
    if not ids:
        raise ValueError(
            f"{numbers[0]} holds one number per event, and no history of ids says which events "
            f"they are. Name both as one behaviour, histories={{('hist_item', {numbers[0]!r}): "
            f"('item', None)}}, or name it in drop."
        )
    return Behaviour("+".join(ids), tuple(ids), tuple(candidates[n] for n in ids), tuple(numbers))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
