"""Impressions with histories and labels from a log, and the Pipelines fitted on them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from sklearn_din.command_line.conditions import keep_rows
from sklearn_din.command_line.options import FOLDS, Options
from sklearn_din.command_line.tables import (
    ask_for_names,
    read_log,
    read_table,
    refuse_histories,
)
from sklearn_din.datasets.click_log import make_click_log
from sklearn_din.estimator import DINClassifier
from sklearn_din.logs.aggregates import with_known_times
from sklearn_din.logs.history import HistoryBuilder, attach_history
from sklearn_din.logs.negatives import sample_negatives
from sklearn_din.logs.sampling_notices import MANY, share_of_repeats
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.utils.label_waits import check_known

DEFAULT_NEGATIVES = 4

Parameters = Mapping[str, str | int]

MODELS: dict[str, Parameters] = {
    "base model (sum pooling)": {"pooling": "sum", "interest": "paper"},
    "DIN": {},
}


class Study(NamedTuple):
    """Impressions with histories, their labels (1 for a click), and the roles of their columns.

    ``ceiling`` is the true probability of each click, where it is known: in the embedded log, whose
    events are no rows of ``X``. ``told`` holds what came of the rows, beside their labels.
    """

    X: pd.DataFrame
    y: np.ndarray
    roles: Options
    ceiling: np.ndarray | None
    told: pd.DataFrame = pd.DataFrame()

    @property
    def rows(self) -> pd.DataFrame:
        """Rows as a memory is told them: without histories, with what came of them."""
        return self.X[self.roles.columns].join(self.told)

    @property
    def is_labelled(self) -> bool:
        """Whether its rows say themselves what came of them: sampled negatives tell no rates."""
        return self.roles.label is not None

    @property
    def users(self) -> pd.Series:
        """The user of each impression."""
        return self.X[self.roles.user]

    @property
    def catalogue(self) -> pd.DataFrame:
        """Each item, with what followed from it last."""
        in_order = self.X[self.roles.columns].sort_values(self.roles.time, kind="stable")
        return in_order[self.roles.events].drop_duplicates(self.roles.item, keep="last")


def make_study(options: Options) -> Study:
    """Return the embedded click log, whose true click probabilities are known."""
    log = make_click_log(random_state=0)
    own = {name: name for name in ("user", "item", "time")}
    lists = {"category": ["category"], "context": ["price", "device"]}
    roles = Options(**{**vars(options), **own, **lists})
    return Study(
        attach_histories(log.impressions, log.events, roles), log.y, roles, log.probability
    )


def read_study(options: Options) -> Study:
    """Read a log; without a label column each row is a click and negatives are sampled."""
    roles, path = options, options.log
    if not (roles.user and roles.item and roles.time):
        raise ValueError(ask_for_names(path, options))
    times = [roles.time, *filter(None, [roles.known])]
    needed = [roles.user, roles.item, *times, *filter(None, [options.label_column])]
    filtered = [condition.column for condition in options.where]
    log = read_table(path, [*roles.columns, *roles.told, *needed, *filtered], options)
    refuse_histories(log, path)
    log = keep_rows(log, options.where, path, drop_bad=options.drop_bad)
    dates = [n for n in roles.context if getattr(log[n].dtype, "kind", None) == "M"]
    if dates:
        raise ValueError(
            f"--context cannot use dates, got {dates}. Make a number or a text of them, such as "
            "the hour or the day of the week."
        )
    ids = [roles.user, *roles.events]
    if (condition := options.label_condition) is not None:
        values = condition.read(log[condition.column], drop_bad=options.drop_bad)
        log = log.assign(**{condition.column: values})
    if roles.known is not None and not options.drop_bad:
        check_known(log[roles.known], log[options.label_column], name=f"{path}: {roles.known!r}")
    log = read_log(log, path, options, needed=needed, ids=ids, times=times)
    with_known_times(log, roles.time, roles.known, name=path.name)  # of all rows: raises
    log = _sample_users(log, options).reset_index(drop=True)
    impressions, told = log[roles.columns], log[roles.told]
    if options.label is not None:
        y = _read_labels(log[options.label_column], options)
        clicks = impressions.assign(**{roles.time: log[times[-1]]})[y == 1]
        two = np.array([y.argmin(), y.argmax()])  # refused early: a name that levels would take
        begin_with_memory(roles, levels="auto")[0].fit(impressions.join(told).iloc[two], y[two])
    else:
        clicks = impressions
        impressions, y = sample_negatives(
            clicks,
            user=_owner_of_items(clicks, roles),
            item=roles.item,
            item_columns=roles.category,
            time=roles.time,
            n_negatives=options.negatives or DEFAULT_NEGATIVES,
            random_state=options.seed,
        )
    return Study(attach_histories(impressions, clicks, roles), y, roles, None, told)


def make_model(roles: Options, parameters: Parameters, *, order: str) -> Pipeline:
    """Encoder and classifier, for impressions that have their histories.

    ``order`` ("user" or "time") says what parts the rows to predict from the rows of fit, and item
    neighbours are learnt so. The paper's network gets no numbers of them: it stays as published.
    """
    encoder = HistorySequenceEncoder(user=roles.user, time=roles.time)
    if order == "user":
        encoder.set_params(time=None, drop=[roles.time])
    classifier = DINClassifier().set_params(**parameters)
    if classifier.interest == "paper":
        classifier.set_params(neighbours=None)
    return Pipeline([("encode", encoder), ("din", classifier)])


def begin_with_memory(
    roles: Options, *steps: tuple[str, BaseEstimator], levels: str | None
) -> Pipeline:
    """Return steps behind a HistoryBuilder, for rows without histories."""
    names: dict[str, Any] = {"user": roles.user, "time": roles.time, "columns": roles.events}
    if roles.told:
        names |= {"events": "all", "outcomes": roles.outcome or None}
        names["known"] = roles.known or roles.time
    return Pipeline([("history", HistoryBuilder(**names, levels=levels)), *steps])


def fit_final_model(study: Study, parameters: Parameters) -> Pipeline:
    """DIN fitted on all rows.

    For a log of one's own it begins with a HistoryBuilder that remembers every click, and of rows
    with labels what came of them: new rows need no histories. The events of the embedded log are no
    rows, so there it has none.
    """
    model = make_model(study.roles, parameters, order="time")
    if study.ceiling is not None:
        return model.fit(study.X, study.y)
    levels = "auto" if study.is_labelled else None
    model = begin_with_memory(study.roles, *model.steps, levels=levels)
    return model.fit(study.rows, study.y)


def note_sampling(options: Options) -> None:
    """Print that sampled negatives shift probabilities, where there are any."""
    if options.log is not None and options.label is None:
        print(
            f"note: probabilities are those among one click and "
            f"{options.negatives or DEFAULT_NEGATIVES} sampled negatives; "
            "sklearn_din.metrics.correct_for_sampling corrects them"
        )


def _sample_users(log: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return all rows of some users, who have about ``--rows`` of them."""
    if not options.rows:
        return log
    n_rows = log[options.user].value_counts(sort=False).sample(frac=1, random_state=options.seed)
    n_fitting = int((n_rows.cumsum() <= options.rows).sum())
    n_users = min(max(n_fitting, options.folds or FOLDS), len(n_rows))
    sample = log[log[options.user].isin(n_rows.index[:n_users])]
    print(
        f"note: a sample, {len(sample):,} of {len(log):,} rows, all those of {n_users:,} of "
        f"{len(n_rows):,} users (--seed {options.seed}); items and negatives are the sample's alone"
    )
    return sample


def attach_histories(
    impressions: pd.DataFrame, clicks: pd.DataFrame, roles: Options
) -> pd.DataFrame:
    """Return impressions with the clicks of their users before them."""
    return attach_history(
        impressions, clicks, user=roles.user, time=roles.time, columns=roles.events
    )


def _owner_of_items(clicks: pd.DataFrame, roles: Options) -> str | None:
    """Return the user column, where what a user has clicked is no negative; None where many return.

    Where users come back to items, negatives without those of their own would tell the clicks.
    """
    if (repeated := share_of_repeats(clicks[roles.user], clicks[roles.item])) >= MANY:
        print(
            f"note: {repeated:.0%} of the clicks repeat one of the same user and item: negatives "
            "may be items of the user's own"
        )
        return None
    return roles.user


def _read_labels(column: pd.Series, options: Options) -> np.ndarray:
    """Return 1 for a click: the larger of two values, or where a condition such as >=4 holds."""
    condition = options.label_condition
    if condition is not None:
        is_click = condition.holds(column)
        print(f"note: a click is a row with {options.label}: {is_click.mean():.1%} of them")
        if is_click.all() or not is_click.any():
            raise ValueError(
                f"{condition} must be true of some rows and not of others, got "
                f"{is_click.mean():.0%}. {column.name!r} has values such as {column.tolist()[0]!r}."
            )
        return is_click.astype(np.int64)
    values = sorted(column.unique().tolist(), key=lambda value: (str(type(value)), value))
    if len(values) != 2:
        shown = ", ".join(repr(value) for value in values[:5])
        more = f", ... ({len(values)} values)" if len(values) > 5 else ""
        advice = f"A condition makes two of many: --label '{column.name}=={values[-1]}'."
        advice = "A log of clicks alone needs no --label." if len(values) == 1 else advice
        raise ValueError(
            f"--label needs a column of two values, the larger one for a click; {column.name!r} "
            f"has {shown}{more}. {advice}"
        )
    if isinstance(values[1], str):
        ways = " or ".join(f"--label '{column.name}=={value}'" for value in values)
        raise ValueError(
            f"--label needs to know which of two texts is a click; {column.name!r} has "
            f"{values[0]!r} and {values[1]!r}. Give {ways}."
        )
    if values[1] != 1:
        print(f"note: a click is a row whose {column.name!r} is {values[1]!r}")
    return (column == values[1]).to_numpy().astype(np.int64)
