"""Impressions with histories and labels from a log, and the Pipelines fitted on them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from sklearn_din.command_line.options import Options
from sklearn_din.datasets.click_log import make_click_log
from sklearn_din.estimator import DINClassifier
from sklearn_din.logs.aggregates import with_known_times
from sklearn_din.logs.attach import attach_history
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.logs.negatives import sample_negatives
from sklearn_din.logs.sampling_notices import MANY, share_of_repeats
from sklearn_din.transformers import HistorySequenceEncoder

DEFAULT_NEGATIVES = 4

Parameters = Mapping[str, str | int]

PARTS: dict[str, Parameters] = {
    "base model": {"interest": "paper", "pooling": "sum"},
    "published DIN": {"interest": "paper"},
    "DIN with sums": {"pooling": "sum"},
    "DIN": {},
}
"""What each part of the network is worth: on the embedded log."""

MODELS = {name: PARTS[name] for name in ("base model", "DIN")}
"""What is compared on a log of the user's."""


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


def study_log(roles: Options, log: pd.DataFrame, labels: pd.Series | None) -> Study:
    """Return the study of a log; without labels each row is a click and negatives are sampled."""
    with_known_times(log, roles.time, roles.known, name=roles.log.name)  # of all rows: raises
    impressions, told = (log[n].reset_index(drop=True) for n in (roles.columns, roles.told))
    if labels is not None:
        y = labels[log.index].to_numpy()
        log = log.reset_index(drop=True)
        clicks = impressions.assign(**{roles.time: log[roles.known or roles.time]})[y == 1]
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
            n_negatives=roles.negatives or DEFAULT_NEGATIVES,
            random_state=roles.seed,
        )
    return Study(attach_histories(impressions, clicks, roles), y, roles, None, told)


def make_model(roles: Options, parameters: Parameters, *, order: str) -> Pipeline:
    """Encoder and classifier, for impressions that have their histories.

    ``order`` ("user" or "time") says whether the rows to predict are of other users than the rows
    of fit or later than them. Item neighbours are learned in this order.
    """
    encoder = HistorySequenceEncoder(user=roles.user, time=roles.time)
    if order == "user":
        encoder.set_params(time=None, drop=[roles.time])
    return Pipeline([("encode", encoder), ("din", DINClassifier().set_params(**parameters))])


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
