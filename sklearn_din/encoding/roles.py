"""Which part each column of a frame plays: ids, numbers, histories and their candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from sklearn_din._validation import check_frame, check_names
from sklearn_din.encoding.cells import HistoryCells, holds_lists
from sklearn_din.features.schema import Behaviour
from sklearn_din.logs.windows import WindowArray

PREFIX = "hist_"
ColumnKind = Literal["ids", "numbers", "time", "history"]


@dataclass(frozen=True)
class Roles:
    """The part of each column that is used.

    Parameters
    ----------
    numeric, categorical : tuple of str
        Columns with one number or one id a cell, in frame order.
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


def column_kind(column: pd.Series) -> ColumnKind:
    """Tell what a column holds by its dtype, and by its cells where the dtype is object.

    Examples
    --------
    >>> [column_kind(pd.Series(cells)) for cells in ([1, 2], [0.5], ["a"], [[1], []])]
    ['ids', 'numbers', 'ids', 'history']
    """
    dtype = column.dtype
    if holds_lists(column):
        return "history"
    if isinstance(dtype, pd.CategoricalDtype):
        return "ids"
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_decimal(dtype.pyarrow_dtype):
        return "numbers"
    is_temporal = isinstance(dtype, pd.ArrowDtype) and pa.types.is_temporal(dtype.pyarrow_dtype)
    if is_temporal or getattr(dtype, "kind", "O") in "mM" or isinstance(dtype, pd.PeriodDtype):
        return "time"
    if pd.api.types.is_object_dtype(dtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        if inferred in ("floating", "mixed-integer-float", "decimal"):
            return "numbers"
        return "time" if inferred in ("date", "datetime", "timedelta", "time", "period") else "ids"
    return "numbers" if pd.api.types.is_float_dtype(dtype) else "ids"


def history_columns(frame: pd.DataFrame, *, histories: Any, drop: Sequence[str]) -> list[str]:
    """Columns to be read as histories, in frame order."""
    if is_auto(histories):
        return [n for n in frame.columns if n not in drop and holds_lists(frame[n])]
    named = [name for key in histories for name in _as_tuple(key)]
    check_frame(frame, named, name="X (histories)")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(
            f"histories must name each history column once, got {twice} more than once. "
            "Copy the column under another name to use it twice."
        )
    return [name for name in frame.columns if name in named]


def assign_roles(
    frame: pd.DataFrame,
    cells: Mapping[str, HistoryCells],
    *,
    histories: Any,
    categorical: Any,
    numeric: Any,
    drop: Sequence[str],
) -> Roles:
    """Give each column its part: by name where it is named, by what it holds where "auto".

    Parameters
    ----------
    frame : DataFrame
    cells : mapping of str to HistoryCells
        The columns that :func:`history_columns` named.
    histories, categorical, numeric, drop
        As for :class:`sklearn_din.HistorySequenceEncoder`.

    Returns
    -------
    Roles
    """
    named = _named(frame, categorical=categorical, numeric=numeric, drop=drop)
    if is_auto(histories):
        behaviours = _infer_behaviours(frame, cells, off_limits={*drop, *named["numeric"]})
    else:
        behaviours = _named_behaviours(frame, cells, histories)
    roles = Roles((), (), tuple(behaviours))
    taken = {"histories": list(cells), "candidates": sorted(roles.candidates), **named}
    _check_disjoint(taken)
    kinds = {name: column_kind(frame[name]) for name in frame.columns if name not in cells}
    free = [name for name in kinds if not any(name in names for names in taken.values())]

    def chosen(parameter: str, value: Any, kind: str, extra: Iterable[str] = ()) -> tuple[str, ...]:
        names = {*named[parameter], *extra}
        if is_auto(value):
            names |= {name for name in free if kinds[name] == kind}
        return tuple(name for name in frame.columns if name in names)

    roles = Roles(
        chosen("numeric", numeric, "numbers"),
        chosen("categorical", categorical, "ids", roles.candidates),
        roles.behaviours,
    )
    _check_output_names(roles, cells)
    return roles


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


def _check_output_names(roles: Roles, cells: Mapping[str, HistoryCells]) -> None:
    used = {*roles.numeric, *roles.categorical, *cells}
    if not used:
        raise ValueError(
            "no column is left to encode: X needs a column of ids, numbers or histories that is "
            "not dropped (datetimes are not used)."
        )
    clash = sorted(f"{name}_mask" for name in cells if f"{name}_mask" in used)
    if clash:
        raise ValueError(
            f"{clash} would hide the masks of the histories in the output. Rename or drop them."
        )


def _infer_behaviours(
    frame: pd.DataFrame, cells: Mapping[str, HistoryCells], *, off_limits: set[str]
) -> list[Behaviour]:
    groups: list[list[str]] = []
    for name, history in cells.items():
        if history.is_time:
            continue
        array = frame[name].array
        for group in groups:
            other = frame[group[0]].array
            both_windows = isinstance(array, WindowArray) and isinstance(other, WindowArray)
            if both_windows and array.same_windows(other):
                group.append(name)
                break
        else:
            groups.append([name])
    candidates = {name: _candidate_of(name, frame, cells, off_limits) for name in cells}
    return [_behaviour(group, candidates, cells) for group in groups]


def _candidate_of(
    name: str, frame: pd.DataFrame, cells: Mapping[str, HistoryCells], off_limits: set[str]
) -> str | None:
    candidate = name.removeprefix(PREFIX)
    if candidate not in frame.columns or candidate in {*off_limits, *cells}:
        return None
    if cells[name].is_numeric:  # unless they are integer ids that missing values made floats
        are_ids = cells[name].is_whole and column_kind(frame[candidate]) == "ids"
        return candidate if are_ids else None
    return candidate


def _named_behaviours(
    frame: pd.DataFrame, cells: Mapping[str, HistoryCells], histories: Mapping[Any, Any]
) -> list[Behaviour]:
    behaviours = []
    for key, value in histories.items():
        names, candidates = _as_tuple(key), _as_tuple(value)
        if len(names) != len(candidates):
            raise ValueError(
                f"histories must name one candidate, or None, for each history, got {value!r} "
                f"for {key!r}. Write {{('hist_item', 'hist_category'): ('item', 'category')}}."
            )
        present = [candidate for candidate in candidates if candidate is not None]
        check_frame(frame, present, name="X (histories)")
        behaviours.append(_behaviour(names, dict(zip(names, candidates, strict=True)), cells))
    return behaviours


def _behaviour(
    names: Sequence[str],
    candidates: Mapping[str, str | None],
    cells: Mapping[str, HistoryCells],
) -> Behaviour:
    numbers = [name for name in names if cells[name].is_numeric and candidates[name] is None]
    ids = [name for name in names if name not in numbers]
    if not ids:
        raise ValueError(
            f"{numbers[0]} holds one number an event, and no history of ids says which events "
            f"they are. Name both as one behaviour, histories={{('hist_item', {numbers[0]!r}): "
            f"('item', None)}}, or name it in drop."
        )
    return Behaviour("+".join(ids), tuple(ids), tuple(candidates[n] for n in ids), tuple(numbers))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
