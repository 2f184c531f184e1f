"""The log of the main job, read and checked before anything slow is imported."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklearn_din.command_line.options import Options
from sklearn_din.command_line.tables import (
    gather,
    raise_all,
    read_log,
    read_table,
    refuse_histories,
)
from sklearn_din.utils.label_waits import check_known


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
    with gather(problems):
        dates = [n for n in options.context if getattr(log[n].dtype, "kind", None) == "M"]
        if dates:
            raise ValueError(
                f"--context cannot use dates, got {dates}. Make a number or a text of them, such "
                "as the hour or the day of the week."
            )
    with gather(problems):
        if (condition := options.label_condition) is not None:
            values = condition.read(log[condition.column], drop_bad=options.drop_bad)
            log = log.assign(**{condition.column: values})
        if options.label is not None:
            column = log[options.label_column].dropna()
            label = pd.Series(read_labels(column, options), index=column.index)
    with gather(problems):
        if options.known is not None and not options.drop_bad:
            name = f"{path}: {options.known!r}"
            check_known(log[options.known], log[options.label_column], name=name)
        ids = [options.user, *options.events]
        log = read_log(log, path, options, needed=needed, ids=ids, times=times)
    raise_all(problems)
    return log, label


def read_labels(column: pd.Series, options: Options) -> np.ndarray:
    """Return 1 for a click: the larger of two numbers, or where a condition such as >=4 holds."""
    condition = options.label_condition
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
