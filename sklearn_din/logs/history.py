"""Each impression's past as history columns: what the user did strictly before it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from sklearn_din._compat import Interval, StrOptions, _fit_context
from sklearn_din._estimator_state import EstimatorState, check_feature_names, check_keys
from sklearn_din._validation import (
    check_frame,
    check_name,
    check_names,
    check_times,
    plain_values,
)
from sklearn_din.logs.eventlog import EventLog
from sklearn_din.logs.timeline import Past, Timeline
from sklearn_din.logs.windows import WindowArray

LEARNT = ("events_", "classes_", "positive_class_", "n_features_in_", "feature_names_in_")


def attach_history(
    impressions: pd.DataFrame,
    events: pd.DataFrame,
    *,
    user: str,
    time: str,
    columns: str | Sequence[str],
    max_length: int = 50,
    max_age: Any = None,
    prefix: str = "hist_",
    elapsed: str | None = None,
) -> pd.DataFrame:
    """Attach to each impression its user's events strictly before it, oldest to newest.

    Events at the impression's own time are not the past, so a log may be its own impressions.
    The new columns share one sorted copy of the log: a cell is a window of it, and slicing,
    merging or copying the frame copies no events. A cell reads as an ndarray.

    Parameters
    ----------
    impressions : DataFrame of shape (n_impressions, ...)
        Rows to describe, in any order. It is not changed.
    events : DataFrame of shape (n_events, ...)
        The log, in any order. Events of equal user and time keep its order.
    user : str
        User column of both frames. A missing user has an empty history.
    time : str
        Time column of both frames: integers, floats, or datetimes that in both frames have a
        zone or in both have none. Missing times are an error.
    columns : str or list of str
        Columns of the events that become histories.
    max_length : int, default=50
        The newest so many events are kept.
    max_age : number, str, timedelta or None, default=None
        Older events are left out: a number in the time's unit, or a duration such as "30D" for
        datetimes. An event exactly this old is kept. None keeps every age.
    prefix : str, default="hist_"
        A history column is named by this and the event column.
    elapsed : str or None, default=None
        Name of one more history column, of floats: the time from each event to the impression,
        in seconds for datetimes and in the time's own unit for numbers.

    Returns
    -------
    DataFrame
        The impressions, in their order and with their index, plus the history columns.

    See Also
    --------
    HistoryBuilder : The same as a transformer, for splits by time and for serving.
    sklearn_din.logs.aggregates.attach_aggregates : Means and counts of what came before.

    Examples
    --------
    >>> clicks = pd.DataFrame(
    ...     {"user": ["ann", "bob", "ann", "ann"], "item": [7, 8, 9, 7], "time": [1, 1, 2, 2]}
    ... )
    >>> now = pd.DataFrame({"user": ["ann", "ann", "eve"], "item": [8, 9, 9], "time": [2, 3, 3]})
    >>> attach_history(now, clicks, user="user", time="time", columns="item", elapsed="ago")
      user  item  time  hist_item        ago
    0  ann     8     2        [7]        [1]
    1  ann     9     3  [7, 9, 7]  [2, 1, 1]
    2  eve     9     3         []         []
    """
    check_name(user, name="user")
    check_name(time, name="time")
    names = check_names(columns, name="columns")
    check_frame(events, [user, time, *names], name="events")
    _check_impressions(impressions, user, time, _history_names(names, prefix, elapsed))
    _check_count(max_length, name="max_length")
    timeline, log = _sorted_log(events, user, time, names)
    if max_age is None and _same_rows(impressions, events, [user, time]):
        past = timeline.own_past()
    else:
        past = timeline.past(impressions, max_age=max_age)
    return _with_windows(impressions, timeline, log, past, max_length, prefix, elapsed)


class HistoryBuilder(EstimatorState, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Remember the training rows as a log and attach each row's past from it.

    The transformer form of :func:`attach_history`. It knows the training rows only, which is
    right for splits by time and for serving: fit on the past, transform what comes later, and
    :meth:`partial_fit` newer events as they arrive. Under a split by user every test user is
    new and would get an empty history: there, use :func:`attach_history` before the split.

    Rows that were trained on see only what is strictly before them, never themselves.

    Parameters
    ----------
    user : str
        User column.
    time : str
        Time column: integers, floats or datetimes.
    columns : str or list of str
        Columns that become histories.
    max_length : int, default=50
        The newest so many events are kept.
    max_age : number, str, timedelta or None, default=None
        Older events are left out: a number in the time's unit, or a duration for datetimes.
    prefix : str, default="hist_"
        A history column is named by this and the event column.
    elapsed : str or None, default=None
        Name of one more history column: the time from each event to the row.
    events : {"positive", "all"}, default="positive"
        Which training rows are events. "positive": those whose ``y`` is the larger of the two
        labels, so that what was shown and not clicked is no interest. "all": every row.

    Attributes
    ----------
    events_ : DataFrame
        The remembered log: user, time and history columns.
    classes_ : ndarray of shape (2,) or None
        The labels seen at fit; None with ``events="all"``.
    positive_class_ : label or None
        Which label made a row an event; None with ``events="all"``.
    feature_names_in_ : ndarray of str
        Columns seen at fit.
    n_features_in_ : int
        Their number.

    Examples
    --------
    >>> shown = pd.DataFrame({"user": [1, 1, 1], "item": ["hat", "sock", "hat"], "time": [1, 2, 3]})
    >>> builder = HistoryBuilder(user="user", time="time", columns=["item"])
    >>> builder.fit_transform(shown, [1, 0, 1])
       user  item  time hist_item
    0     1   hat     1        []
    1     1  sock     2     [hat]
    2     1   hat     3     [hat]
    """

    _parameter_constraints: dict = {
        "columns": [str, "array-like"],
        "max_length": [Interval(Integral, 1, None, closed="left")],
        "prefix": [str],
        "elapsed": [str, None],
        "events": [StrOptions({"positive", "all"})],
    }

    def __init__(
        self,
        *,
        user: str,
        time: str,
        columns: str | Sequence[str],
        max_length: int = 50,
        max_age: Any = None,
        prefix: str = "hist_",
        elapsed: str | None = None,
        events: str = "positive",
    ):
        self.user = user
        self.time = time
        self.columns = columns
        self.max_length = max_length
        self.max_age = max_age
        self.prefix = prefix
        self.elapsed = elapsed
        self.events = events

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: pd.DataFrame, y: Any = None) -> HistoryBuilder:
        """Remember the events among the rows of X, forgetting earlier ones."""
        self._check_rows(X, reset=True)
        self.classes_: Any = _two_classes(y) if self.events == "positive" else None
        self.positive_class_ = None if self.classes_ is None else self.classes_[1]
        self.events_ = self._events_among(X, y)
        self._sorted: tuple[Timeline, EventLog] | None = None
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: pd.DataFrame, y: Any = None) -> HistoryBuilder:
        """Append the events among the rows of X to those already remembered."""
        if not hasattr(self, "events_"):
            return self.fit(X, y)
        self._check_rows(X, reset=False)
        events = pd.concat([self.events_, self._events_among(X, y)], ignore_index=True)
        check_times(events[self.time], name=f"{self.time!r} of the old and new events together")
        self.events_ = events
        self._sorted = None
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Attach to each row of X the remembered events strictly before it."""
        check_is_fitted(self, "events_")
        self._check_rows(X, reset=False)
        if self._sorted is None:  # kept: serving asks often, a few rows at a time
            names = check_names(self.columns, name="columns")
            self._sorted = _sorted_log(self.events_, self.user, self.time, names)
        timeline, log = self._sorted
        past = timeline.past(X, max_age=self.max_age)
        return _with_windows(X, timeline, log, past, self.max_length, self.prefix, self.elapsed)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Columns of the transformed frame: those of X, then the history columns."""
        check_is_fitted(self, "events_")
        return np.array([*self.feature_names_in_, *self._new_names()], dtype=object)

    def set_output(self, *, transform: str | None = None) -> HistoryBuilder:
        """Return self: the output is a DataFrame whatever is asked for."""
        return self

    def _new_names(self) -> list[str]:
        names = check_names(self.columns, name="columns")
        return _history_names(names, self.prefix, self.elapsed)

    def _check_rows(self, X: Any, *, reset: bool) -> None:
        check_frame(X, [], name="X")
        check_name(self.user, name="user")
        check_name(self.time, name="time")
        validate_data(self, X, skip_check_array=True, reset=reset)
        names = check_names(self.columns, name="columns")
        check_frame(X, [self.user, self.time, *names], name="X")
        _check_impressions(X, self.user, self.time, self._new_names(), name="X")
        check_times(X[self.time], name=f"X[{self.time!r}]")

    def _events_among(self, X: pd.DataFrame, y: Any) -> pd.DataFrame:
        names = check_names(self.columns, name="columns")
        log = X[list(dict.fromkeys([self.user, self.time, *names]))]
        if self.events == "all":
            return log.reset_index(drop=True)
        labels = _checked_labels(y)
        check_consistent_length(X, labels)
        unseen = pd.unique(labels[~pd.Series(labels).isin(self.classes_).to_numpy()]).tolist()
        if unseen:
            raise ValueError(
                f"y has labels {unseen} that were not seen at fit: {self.classes_.tolist()}."
            )
        return log[labels == self.positive_class_].reset_index(drop=True)

    def _fitted_state(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "events_" not in attributes:
            return None
        attributes.pop("_sorted", None)  # made again when it is needed
        return {name: attributes.pop(name) for name in LEARNT if name in attributes}

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        check_keys(fitted, set(LEARNT))
        check_feature_names(fitted)
        events = fitted["events_"]
        names = [self.user, self.time, *check_names(self.columns, name="columns")]
        check_frame(events, names, name="events_")
        check_times(events[self.time], name=f"events_[{self.time!r}]")
        self._sorted = None
        self.__dict__.update(fitted)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.events == "positive"
        tags.transformer_tags.preserves_dtype = []
        return tags


def _sorted_log(
    events: pd.DataFrame, user: Any, time: Any, columns: Sequence[Any]
) -> tuple[Timeline, EventLog]:
    timeline = Timeline(events, keys=[user], time=time)
    values = {column: plain_values(events[column])[timeline.order] for column in columns}
    return timeline, EventLog(values)


def _with_windows(
    impressions: pd.DataFrame,
    timeline: Timeline,
    log: EventLog,
    past: Past,
    max_length: int,
    prefix: str,
    elapsed: str | None,
) -> pd.DataFrame:
    starts = np.maximum(past.begin, past.end - max_length)
    lengths = (past.end - starts).astype(np.int32)
    starts = np.where(lengths > 0, starts, 0)
    new = {f"{prefix}{column}": WindowArray(log, column, starts, lengths) for column in log.columns}
    if elapsed is not None:
        clock, anchors = timeline.elapsed_clock(impressions)
        clock_log = EventLog({elapsed: clock}, token=log.token, part=log.part)
        new[elapsed] = WindowArray(clock_log, elapsed, starts, lengths, anchors)
    return impressions.assign(**new)


def _same_rows(impressions: pd.DataFrame, events: pd.DataFrame, columns: Sequence[Any]) -> bool:
    if impressions is events:
        return True
    if len(impressions) != len(events):
        return False
    pairs = [(impressions[column].array, events[column].array) for column in columns]
    return all(ours.dtype == theirs.dtype and ours.equals(theirs) for ours, theirs in pairs)


def _history_names(columns: Sequence[Any], prefix: str, elapsed: str | None) -> list[str]:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be text, got {prefix!r}.")
    if elapsed is not None and not isinstance(elapsed, str):
        raise TypeError(f"elapsed must be text or None, got {elapsed!r}.")
    names = [f"{prefix}{column}" for column in columns]
    if elapsed is not None:
        names.append(elapsed)
    if not columns:
        raise ValueError("columns must name at least one event column, got none.")
    if len(set(names)) < len(names):
        raise ValueError(f"the new columns must have distinct names, got {names}.")
    return names


def _check_impressions(
    impressions: Any, user: Any, time: Any, new: Sequence[str], *, name: str = "impressions"
) -> None:
    check_frame(impressions, [user, time], name=name)
    taken = [column for column in new if column in impressions.columns]
    if taken:
        raise ValueError(
            f"{name} already has columns {taken}. Drop them, or choose another prefix or name."
        )


def _check_count(count: Any, *, name: str) -> None:
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")


def _checked_labels(y: Any) -> np.ndarray:
    if y is None:
        raise ValueError(
            "HistoryBuilder(events='positive') needs y to know which rows were clicks, got None. "
            "Pass y, or set events='all'."
        )
    labels = column_or_1d(y)
    if pd.isna(labels).any():
        raise ValueError("y must not have missing labels. Drop those rows or fill them in.")
    return labels


def _two_classes(y: Any) -> np.ndarray:
    classes = np.unique(_checked_labels(y))
    if len(classes) != 2:
        raise ValueError(
            f"HistoryBuilder(events='positive') needs two classes in y, got {classes.tolist()}. "
            "Set events='all' to remember every row."
        )
    return classes
