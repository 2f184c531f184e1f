"""The log of the main job, read and checked before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_din.command_line.conditions import Condition
from sklearn_din.command_line.options import Options
from sklearn_din.command_line.tables import (
    gather,
    raise_all,
    read_log,
    read_table,
    refuse_histories,
)
from sklearn_din.utils.label_waits import check_known

MOST_WITHOUT_USER = 0.2  # of the rows


def read_rows(options: Options) -> tuple[pd.DataFrame, pd.Series | None]:
    """Return the rows of a log, and labels where a column has them; raise for all that is wrong."""
    path, label, problems = options.log, None, list[str]()
    if not (options.user and options.item and options.time):
        columns = [*map(str, read_table(path, [], options))]
        raise ValueError(f"a log needs --user, --item and --time. {path} has columns {columns}.")
    times = [options.time, *filter(None, [options.known])]
    needed = [options.user, options.item, *times, *filter(None, [options.label_column])]
    log = read_table(path, [*options.columns, *options.told, *needed], options)
    refuse_histories(log, path)
    log = _drop_without_user(log, path, options)
    with gather(problems):
        dates = [n for n in options.context if getattr(log[n].dtype, "kind", None) == "M"]
        if dates:
            raise ValueError(
                f"--context cannot use dates, got {dates}. Make a number or a text of them, such "
                "as the hour or the day of the week."
            )
    with gather(problems):
        if (condition := options.label_condition) is not None:
            log, condition = _read_condition(log, condition, options)
        if options.label is not None:
            column = log[options.label_column].dropna()
            label = pd.Series(read_labels(column, options, condition), index=column.index)
    with gather(problems):
        if options.known is not None and not options.drop_bad:
            name = f"{path}: {options.known!r}"
            check_known(log[options.known], log[options.label_column], name=name)
        ids = [options.user, *options.events]
        log = read_log(log, path, options, needed=needed, ids=ids, times=times)
    raise_all(problems)
    return log, label


def _drop_without_user(log: pd.DataFrame, path: Path, options: Options) -> pd.DataFrame:
    """Leave out up to a fifth of the rows, which have no user; of more, the caller decides."""
    has_none = log[options.user].isna()
    n_without = int(has_none.sum())
    if not 0 < n_without <= MOST_WITHOUT_USER * len(log):
        return log
    print(
        f"note: {n_without:,} of {len(log):,} rows of {path} left out, which have no "
        f"{options.user!r} ({n_without / len(log):.1%})"
    )
    return log[~has_none]


def _read_condition(
    log: pd.DataFrame, condition: Condition, options: Options
) -> tuple[pd.DataFrame, Condition]:
    """Return the log with the column that a condition compares, and the condition on it.

    Two columns are compared by their difference, which the condition compares with 0.
    """
    other = condition.other_column(log)
    if other is None:
        values = condition.read(log[condition.column], drop_bad=options.drop_bad)
        return log.assign(**{condition.column: values}), condition
    if other in options.columns:
        raise ValueError(f"a column has one role, got {other!r} in --label and in another option.")
    values = condition.difference(log, other, drop_bad=options.drop_bad)
    return log.assign(**{condition.column: values}), condition._replace(value="0")


def read_labels(
    column: pd.Series, options: Options, condition: Condition | None = None
) -> np.ndarray:
    """Return 1 for a click: the larger of two numbers, or where a condition such as >=4 holds."""
    if condition is not None:
        is_click = condition.holds(column)
        print(f"note: a click is a row with {options.label}: {is_click.mean():.1%} of them")
        if is_click.all() or not is_click.any():
            raise ValueError(
                f"--label {options.label} must be true of some rows and not of others, got "
                f"{is_click.mean():.0%}. {column.name!r} has values such as {column.tolist()[0]!r}."
            )
        return is_click.astype(np.int64)
    values = sorted(column.unique().tolist(), key=lambda value: (str(type(value)), value))
    if len(values) != 2 or isinstance(values[1], str):
        ways = " or ".join(f"--label '{column.name}=={value}'" for value in values[:2])
        raise ValueError(
            f"--label needs a column of two numbers, the larger one for a click; {column.name!r} "
            f"has {len(values)} values, such as {values[:5]}. A condition says which rows are "
            f"clicks: {ways}. A log of clicks needs no --label."
        )
    if values[1] != 1:
        print(f"note: a click is a row whose {column.name!r} is {values[1]!r}")
    return (column == values[1]).to_numpy().astype(np.int64)
