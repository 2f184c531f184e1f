"""A memory: the rows of training as a log, and what came of them, attached to later rows."""

import copy
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from sklearn_din.features.level_columns import ONLINE_RATE
from sklearn_din.logs.aggregates import with_known_times
from sklearn_din.logs.attach import LABEL, HistoryRequest, history_columns, sort_log, why_all_empty
from sklearn_din.logs.clocks import MANY_ROWS, note_clocks, note_untold
from sklearn_din.logs.distinct import holds_lists, note_sampled, note_spelling
from sklearn_din.logs.row_memory import RowMemory
from sklearn_din.logs.timeline import Timeline
from sklearn_din.logs.windows import EventLog
from sklearn_din.utils.compat import (
    AUTO,
    COUNT,
    StrOptions,
    _fit_context,
    constraints_of,
    parameter,
)
from sklearn_din.utils.estimator_state import EstimatorState, check_feature_names, check_keys
from sklearn_din.utils.frames import CallerFrame, list_types
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.label_waits import RATIO, check_known, compare_waits, describe_span
from sklearn_din.utils.labels import first_labels, is_one_hot, match_classes, two_classes
from sklearn_din.utils.page_rows import note_pages
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.typed_fields import from_dict
from sklearn_din.utils.validation import (
    Age,
    as_tuple,
    check_frame,
    check_name,
    check_names,
    check_times,
    is_auto,
    read_times_alike,
    refuse_new_columns,
)
from sklearn_din.utils.warnings import report_again, warn_of, warn_user

MANY_LATER = 20  # newest rows of the label that is known later, by the rate of older rows
ROWS_OF_RECENT = 3_000  # of training: with fewer, networks follow the rate of the latest backwards
COME_BACK = 0.5  # of training rows: with fewer, rates of pairs say little, and get any weight
OF_FIT = ("X", "the events of fit")
LEARNT = (
    "events_",
    "memory_",
    "classes_",
    "positive_class_",
    "n_features_in_",
    "feature_names_in_",
)


@dataclass(kw_only=True, eq=False, repr=False)
class HistoryBuilderParameters:
    """Parameters of HistoryBuilder; those without a default are required."""

    user: str
    time: str
    columns: str | Sequence[str] = parameter(MISSING, str, "array-like")
    max_length: int = parameter(50, COUNT)
    max_age: Age = None
    prefix: str = parameter("hist_", str)
    elapsed: str | None = parameter(None, str, None)
    events: str = parameter("positive", StrOptions({"positive", "all"}))
    levels: str | Sequence[str | tuple[str, ...]] | None = parameter(None, AUTO, "array-like", None)
    known: str | None = parameter(None, str, None)
    outcomes: str | Sequence[str] | None = parameter(None, str, "array-like", None)
    online_model: bool = parameter(False, "boolean")


HistoryBuilderParameters.__init__.__qualname__ = "HistoryBuilder.__init__"  # in Python's errors


class HistoryBuilder(  # type: ignore[call-arg]
    EstimatorState,
    HistoryBuilderParameters,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Store the training rows as a log and attach each row's past from it.

    This is :func:`attach_history` as a transformer, and with ``levels`` also
    :func:`attach_aggregates`: what came of all earlier rows of the user, the item and so on, as of
    each row's time. It knows the training rows only, which is right for splits by time and for
    serving: fit on the past, transform later rows, and add newer events with :meth:`partial_fit` as
    they arrive. In a split by user every test user is new: use :func:`attach_history` before it.
    Training rows see only events strictly before them. The result is of the kind of X: pandas,
    polars or Arrow.

    Parameters
    ----------
    user : str
        User column. A missing user gets an empty history.
    time : str
        Time column: integers, floats or datetimes, without missing values.
    columns : str or list of str
        Columns of the training rows that become histories.
    max_length : int, default=50
        Maximum number of events per history; the newest are kept. Attention reads all of them, up
        to 1,000, unless the encoder's ``max_length`` says less; item neighbours read up to 1,000.
        In pandas, longer windows take no memory.
    max_age : number, str, timedelta or None, default=None
        Maximum age of events at the time of the row: a number in the unit of the time column, or
        a duration such as "30D" for datetimes. None means no limit.
    prefix : str, default="hist_"
        Prefix of the history columns, before the name of the event column.
    elapsed : str or None, default=None
        Name of an additional history column of floats: the time from each event to the row, in
        seconds for datetimes and in the unit of the time column for numbers. None adds no such
        column.
    events : {"positive", "all"}, default="positive"
        Which training rows are events. "positive": those whose ``y`` is the larger of the two
        labels, so that what was shown but not clicked is no interest; with several labels in
        ``y``, the first one counts. A row whose label is missing is no event. "all": every row.
    levels : "auto", list of str and tuple of str, or None, default=None
        Columns, and tuples of several, of whose values each row gets the level so far: how often
        ``y`` was the positive class in all strictly earlier rows with the same value (shrunk
        toward the average rate), in how many rows, and how long ago the latest one was. The three
        columns are ``NAME_rate``, ``NAME_count`` and ``NAME_elapsed``; a fourth one for all,
        ``recent_rate``, is the rate of the latest 1,000 rows. Where y holds numbers, means take the
        place of rates; where it has several columns, each has levels, ``NAME_LABEL_rate``. "auto":
        the user, each of ``columns``, and each pair of the user and one of them that half of the
        rows of ``fit`` have had before; below 3,000 rows no ``recent_rate``, and networks read
        no time elapsed. Use it wherever
        rows have true labels and what is known now decides; not with sampled negatives, which tell
        nothing of rates. Columns of lists have no level.
    known : str or None, default=None
        Column of the training rows with the moment at which ``y`` was known, such as two weeks
        after an offer was sent: in levels, and in histories with ``outcomes``, a row counts for
        rows strictly later than that. Other histories hold events from their own time on: set
        ``events="all"``, so that they tell what was shown. Where the newest rows are known for
        their label alone, such as purchases, fit and partial_fit warn. The column is no feature;
        rows to predict need not have it. None: labels are known at once.
    outcomes : str, list of str or None, default=None
        Columns with what came of an event, such as minutes late or stars: they become histories,
        too, and are no features; rows to predict need not have them. ``sklearn_din.LABEL`` is
        ``y``, of several labels the first one, in the history ``hist_label``: 1 and 0 of two
        labels, whatever their dtype, else the number. It needs ``events="all"``. ``known`` must say
        when they were known, by the name of ``time`` that it was at once: the whole event enters
        histories then, ``elapsed`` and ``max_age`` count from that moment, and
        ``hist_outcome_age`` says how long ago it was. Some training rows are shown with older
        histories, so that a model learns what those are worth that nobody tells.
    online_model : bool, default=False
        Whether to add the column ``online_rate``: the probability that an online model gives the
        row, one estimate from the user, each column and each pair together. The running rates of
        ``levels`` ignore each other: a user who is shown good items looks willing to click. The
        model is AdPredictor [1]_, Bayesian probit regression with one Gaussian weight per key. It
        is updated after every labelled row, and what it learnt may fade. Each key's prior variance
        and the half-life are chosen in ``fit``, by the loss of training rows that are predicted
        from earlier rows only. :class:`DINClassifier` starts from this probability: its logit is
        that of the online model plus the network's. It needs ``levels`` and one label of two
        classes.

    Attributes
    ----------
    events_ : pandas DataFrame
        The stored log: user, time and history columns, in clear; with ``outcomes`` of each row.
    memory_ : RowMemory or None
        What came of all rows, by hashes of their values; None without ``levels``.
    classes_ : ndarray of shape (2,) or None
        The labels seen at fit; None with ``events="all"`` unless two labels have levels or are
        among the ``outcomes``.
    positive_class_ : label or None
        The larger label, which makes a row an event; None where ``classes_`` is.
    feature_names_in_ : ndarray of str
        Columns seen at fit.
    n_features_in_ : int
        Their number.

    References
    ----------
    .. [1] T. Graepel, J. Quinonero Candela, T. Borchert and R. Herbrich, "Web-Scale Bayesian
       Click-Through Rate Prediction for Sponsored Search Advertising in Microsoft's Bing Search
       Engine", ICML 2010.

    Examples
    --------
    >>> shown = pd.DataFrame({"user": [1, 1, 1], "item": ["hat", "sock", "hat"], "time": [1, 2, 3]})
    >>> builder = HistoryBuilder(user="user", time="time", columns=["item"])
    >>> builder.fit_transform(shown, [1, 0, 1])
       user  item  time hist_item
    0     1   hat     1        []
    1     1  sock     2     [hat]
    2     1   hat     3     [hat]
    >>> memory = HistoryBuilder(user="user", time="time", columns=["item"], levels=["user"])
    >>> memory.fit_transform(shown, [1, 0, 1])[["user_rate", "user_count", "recent_rate"]]
       user_rate  user_count  recent_rate
    0        NaN         0.0          NaN
    1        1.0         1.0          1.0
    2        0.5         2.0          0.5
    """

    _parameter_constraints: dict = constraints_of(HistoryBuilderParameters)
    events_: pd.DataFrame
    memory_: RowMemory | None
    classes_: np.ndarray | None
    _sorted: tuple[pd.DataFrame, Timeline, EventLog] | None
    _n_clicks_alone: int  # rows that were told, call by call, since one without a click

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: IntoDataFrame, y: ArrayLike | None = None) -> Self:
        """Store the events among the rows of X, replacing earlier ones."""
        report_again()
        frame = self._check_rows(X, None).pandas
        classes = self._find_classes(y)
        values, names = self._read_labels(frame, y, classes)
        events = self._keep(self._as_rows(frame, values))
        memory, _ = self._remember(frame, values, names, memory=None)
        label = None if classes is None else classes[1]
        fitted = {"_sorted": None, "events_": events, "memory_": memory, "_n_clicks_alone": 0}
        self.__dict__.update({**fitted, "classes_": classes, "positive_class_": label})
        self._warn_of_waits(frame, y)
        if classes is not None and self.known is None:
            warn_of([note_pages(frame, self.user, self.time, values[:, 0] == 1)])
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: IntoDataFrame, y: ArrayLike | None = None) -> Self:
        """Remember the rows of X beside those already remembered.

        The k-th of rows that are equal in user, time and the columns named is the k-th of those
        remembered: its label replaces that one's, so a batch may be sent twice, and what was 0 or
        missing may become 1. A missing label says nothing. Levels change from when it was known on,
        without ``known`` from the newest moment told so far on; those of earlier moments stay. A
        row may become an event, or cease to be one; one whose outcomes change is in histories from
        when they were known on. Rows of one call are different rows. A builder without levels and
        outcomes remembers events alone. A column that was not there at fit is an error, and so are
        values of another kind than there, such as 3.5 where numbers were whole, and labels that
        are neither: nothing of the call is remembered then.
        """
        if not hasattr(self, "events_"):
            return self.fit(X, y)
        given = CallerFrame(X, name="X").pandas
        refuse_new_columns(given.columns, {*self.feature_names_in_, *self._request.new_names})
        self._tell(X, y, self.feature_names_in_)
        self._warn_of_waits(given, y)
        return self

    def _tell(self, X: IntoDataFrame, y: ArrayLike | None, names: Sequence[str]) -> Self:
        """Remember rows, of which these columns are taken."""
        from sklearn_din.logs.appended_events import as_at_fit, tell

        frame, fitted = self._check_rows(X, names).pandas.copy(deep=False), self.events_
        for name in fitted.columns.drop([self.time, self.known, LABEL], errors="ignore"):
            frame[name] = as_at_fit(frame[name], fitted[name])
        values, labels = self._read_labels(frame, y, self.classes_)
        rows = self._as_rows(frame, values)
        if LABEL in fitted:
            rows[LABEL] = as_at_fit(rows[LABEL], fitted[LABEL])
        memory, before = self._remember(frame, values, labels, memory=self.memory_)
        clicks = rows[rows[LABEL] == 1] if self.events == "positive" else rows
        clocks = note_clocks(clicks[self.time], fitted[self.time], OF_FIT)
        opposite = fitted[self.time], rows[self.time], ("the rows of fit", "X")
        warn_of([clocks or note_clocks(*opposite)])
        is_new = np.zeros(len(rows), dtype=bool) if before is None else before < 0
        if not self._holds_all:
            fitted = fitted.assign(**{LABEL: 1})
            if before is None:
                rows = rows.sort_values(LABEL, key=lambda own: own.eq(0), kind="stable")
            else:
                is_new |= cast(RowMemory, self.memory_).values[before, 0] != 1
        outcomes = [name for name in rows if name in (*self._outcomes, LABEL)]
        moments = {"time": self.time, "known": self.known if self._outcomes else self.time}
        events = self._keep(tell(fitted, rows, outcomes, is_new, **moments))
        self.__dict__.update({"_sorted": None, "events_": events, "memory_": memory})
        told = values[~np.isnan(values).any(axis=1), :1]
        self._n_clicks_alone = self._n_clicks_alone + len(told) if (told == 1).all() else 0
        return self

    def _warn_of_waits(self, X: pd.DataFrame, y: ArrayLike | None) -> None:
        """Warn where the newest rows are known for their label, which is then their rate."""
        if self.known is None or y is None:
            return
        (times, known), unit = read_times_alike([X[self.time], X[self.known]])
        if (waits := compare_waits(times, known, y, unit)) is None:
            return
        is_new = times > known.max() - waits.age
        expected = is_new.sum() * waits.is_later.mean()
        if expected < MANY_LATER or (is_new & waits.is_later).sum() * RATIO > expected:
            return
        age = describe_span(waits.age, unit)
        warn_user(
            f"{waits.text}, which here are {is_new.sum()} of {len(times)}: a model learns their "
            f"rate as that of now. Fit, or update, by X[X[{self.known!r}].max() - X[{self.time!r}] "
            f">= {age if unit is None else repr(age)}], and tell the others to remember."
        )

    def _without(self, users: np.ndarray) -> Self:
        """Return a builder that was told nothing of some users, given by their hashes."""
        is_gone = np.isin(Keys.read(self.events_[self.user]).hashes, users, kind="sort")
        memory, other = self.memory_, copy.copy(self)
        if memory is not None:
            of_users = memory.hashes[memory.columns.index(self.user)]
            memory = memory.take(np.flatnonzero(~np.isin(of_users, users, kind="sort")))
        events = self.events_[~is_gone].reset_index(drop=True)
        other.__dict__.update({"_sorted": None, "events_": events, "memory_": memory})
        return other

    def transform(self, X: IntoDataFrameT) -> IntoDataFrameT:
        """Attach to each row of X the stored events strictly before it."""
        check_is_fitted(self, "events_")
        shown = self._check_rows(X, self._names_of_rows)
        events, request, memory = self.events_, self._request, self.memory_
        cached = self._sorted  # serving asks often, a few rows at a time, and in threads
        if cached is None or cached[0] is not events:  # partial_fit may end meanwhile
            counted = events
            if self._outcomes:  # each event from when its outcomes were known on
                is_event = events[LABEL] == 1 if self.events == "positive" else slice(None)
                counted = events[is_event].sort_values(self.time, kind="stable", ignore_index=True)
                counted = counted.assign(**{self.time: counted[self.known]})
            sorted_log = sort_log(counted, self.user, self.time, request.columns)
            sorted_log[1].owner = self.user
            cached = self._sorted = events, *sorted_log
        _, timeline, log = cached
        past = timeline.past(shown.pandas, max_age=self.max_age)
        clocks = note_clocks(shown.pandas[self.time], events[self.time], OF_FIT)
        if clocks is None and memory is not None:
            clocks = memory.note_early(shown.pandas, self.time)
        empty = None
        if why_all_empty(shown.pandas, timeline, past, self.user) == "users":
            empty = note_spelling(shown.pandas[self.user], timeline.owners)
            if empty is None and not timeline.precedes(shown.pandas):  # as by time, of sessions
                empty = (
                    f"every history is empty: no {self.user!r} of these {len(past.end)} rows was "
                    "among the events at fit. Under a split by user call attach_history before the "
                    "split; HistoryBuilder is for splits by time and for serving."
                )
        warn_of([clocks, empty])
        new: dict[str, Any] = {**history_columns(shown.pandas, timeline, log, past, request)}
        new |= {} if memory is None else memory.levels(shown.pandas, self.time)
        self._note_untold(shown.pandas)
        return shown.with_columns(new, types=list_types(events, request.sources))

    def online_parts(self, X: IntoDataFrame) -> pd.DataFrame:
        """Return what each key adds to the estimate of the online model, as of each row's time.

        The estimate is the probability that a normal variable with the sum of all means, and with
        one plus the sum of all variances as its variance, is positive.

        Parameters
        ----------
        X : DataFrame of shape (n_rows, n_columns)
            Rows, as for :meth:`transform`.

        Returns
        -------
        DataFrame of shape (n_rows, 2 * n_keys + 2)
            Mean and variance of the weight of each key and of the bias, such as ``user_mean``,
            ``user_variance``, ``user_item_mean`` and ``bias_mean``. It has no column without an
            online model. The index is that of X.

        References
        ----------
        Graepel et al., "Web-Scale Bayesian Click-Through Rate Prediction", ICML 2010.
        """
        check_is_fitted(self, "events_")
        rows = self._check_rows(X, self._names_of_rows).pandas
        if self.memory_ is None or self.memory_.online is None:
            return pd.DataFrame(index=rows.index)
        parts = self.memory_.online_parts(rows, self.time)
        columns = {
            f"{'_'.join(key) or 'bias'}_{what}": values
            for key, of_key in parts.items()
            for what, values in zip(("mean", "variance"), of_key, strict=True)
        }
        return pd.DataFrame(columns, index=rows.index)

    def _note_untold(self, asked: pd.DataFrame) -> None:
        """Log where rows are asked long after all outcomes; nothing of clicks alone."""
        if len(asked) < MANY_ROWS or not (self.memory_ or self._outcomes):
            return
        if (memory := self.memory_) is not None:
            times, known, unit = memory.times, memory.known, memory.unit
            own: Any = memory.hashes[memory.columns.index(self.user)]
            what = "levels and outcomes" if self._outcomes else "levels"
        else:
            columns = [self.events_[n] for n in (self.time, self.known)]
            (times, known), unit = read_times_alike(columns)
            own, what = self.events_[self.user], "outcomes"
        note_untold(asked[self.time], times, known, unit, (asked[self.user], own), what=what)

    def next_moment(self) -> Any:
        """Return the time just after all that is remembered, as the time column holds times."""
        check_is_fitted(self, "events_")
        time: Any = self.known if self._outcomes else self.time
        times, memory = self.events_[time], self.memory_
        numbers, unit, zoned = check_times(times, name=f"events_[{time!r}]")
        latest = times.max() if len(times) else _moment(numbers.dtype.type(0).item(), unit, zoned)
        if memory is not None and len(memory.known):
            known = _moment(memory.known.max().item(), memory.unit, memory.zoned)
            latest = max(latest, known) if len(times) else known
        if isinstance(latest, pd.Timestamp):
            return latest + pd.Timedelta(1, unit=latest.unit)
        return latest + 1 if isinstance(latest, Integral) else np.nextafter(latest, np.inf).item()

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Columns of the transformed frame: those of X, then histories and levels."""
        check_is_fitted(self, "events_")
        levels = [] if self.memory_ is None else self.memory_.names
        names = [*self._names_of_rows, *self._request.new_names, *levels]
        return np.array(names, dtype=object)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Return self: the output is of the kind of X whatever is asked for."""
        return self

    @property
    def _columns(self) -> list[str]:
        return check_names(self.columns, name="columns")

    @property
    def _outcomes(self) -> list[str]:
        return [] if self.outcomes is None else check_names(self.outcomes, name="outcomes")

    @property
    def _request(self) -> HistoryRequest:
        options = self.max_length, self.max_age, self.prefix, self.elapsed, bool(self._outcomes)
        return HistoryRequest(self.user, self.time, [*self._columns, *self._outcomes], *options)

    @property
    def _names_of_keys(self) -> list[str]:
        """Columns by which rows of one moment are told apart."""
        return [*dict.fromkeys([self.user, *self._columns, *sum(self._keys, ())])]

    @property
    def _names_to_tell(self) -> list[str]:
        """Columns of rows that are remembered."""
        known = [] if self.known is None else [self.known]
        names = dict.fromkeys([self.user, self.time, *self._names_of_keys, *known, *self._outcomes])
        return [name for name in names if name != LABEL]

    @property
    def _names_of_rows(self) -> list[str]:
        """Columns that rows to predict have."""
        told = {self.known, *self._outcomes} - {self.time}
        return [name for name in self.feature_names_in_ if name not in told]

    def _check_rows(
        self, X: IntoDataFrameT, names: Sequence[str] | None
    ) -> CallerFrame[IntoDataFrameT]:
        """Return rows with columns by name, None: those of fit, and times that can be used."""
        if isinstance(X, Scan):
            raise TypeError(
                "HistoryBuilder keeps its log in memory and takes frames, got a scan. "
                "attach_history and attach_aggregates, encoder and classifier take scans."
            )
        shown = CallerFrame(X, name="X")
        frame = shown.pandas
        check_frame(frame, [], name="X")
        check_name(self.user, name="user")
        check_name(self.time, name="time")
        if names is None or not set(names) <= set(frame.columns):
            validate_data(self, frame, skip_check_array=True, reset=names is None)
        elif list(frame.columns) != list(names):  # taken by name, as by the encoder
            shown = CallerFrame(shown.select(names), name="X")
            frame = shown.pandas
        request = self._request
        check_frame(frame, [self.user, self.time, *self._columns], name="X")
        check_frame(frame, [name for key in self._keys for name in key], name="X (levels)")
        if names is None:
            self._check_outcomes()
            check_frame(frame, self._names_to_tell, name="X (outcomes)")
        request.check_impressions(frame, name="X")
        check_times(frame[self.time], name=f"X[{self.time!r}]")
        return shown

    @property
    def _keys(self) -> list[tuple[str, ...]]:
        """The keys that have a level."""
        if self.levels is None:
            return []
        if not is_auto(self.levels):
            return [as_tuple(key) for key in self.levels]
        names = [name for name in self._columns if name != self.user]
        return [(name,) for name in (self.user, *names)] + [(self.user, name) for name in names]

    def _check_outcomes(self) -> None:
        """Raise unless outcomes are columns of their own, known at a moment that is named."""
        if self._outcomes and self.known is None:
            raise ValueError(
                f"outcomes={self._outcomes} enter histories when they are known: set known= to the "
                f"column that says when, or known={self.time!r} where they are known at once."
            )
        if taken := {self.time, self.known, *self._names_of_keys} & {*self._outcomes}:
            raise ValueError(f"outcomes must be no other columns' names, got {[*taken]}.")
        if LABEL in self._outcomes and self.events == "positive":
            raise ValueError("LABEL is the same of each event with events='positive': set 'all'.")

    @property
    def _needs_labels(self) -> bool:
        is_told = self.levels is not None or LABEL in self._outcomes
        return self.events == "positive" or is_told

    def _find_classes(self, y: ArrayLike | None) -> np.ndarray | None:
        """Return the two labels of y; None where it needs none: numbers, or every row an event."""
        if not self._needs_labels:
            return None
        labels, several = first_labels(y), np.asarray(y)
        if LABEL in self._outcomes and several.shape[1:] == (2,) and is_one_hot(several):
            raise ValueError(
                "LABEL is the first column of y, and each row of y has a 1 in one of two columns: "
                "one label as one-hot columns, of which the first says what was not clicked. Give "
                "the column of clicks alone, y[:, 1] of an array, y.iloc[:, 1] of a frame."
            )
        present = labels[pd.notna(labels)]
        if present.dtype == object:  # as columns of several types become
            present = pd.Series(present).infer_objects().to_numpy()
        is_number = present.dtype.kind in "biuf" and self.events != "positive"
        if is_number and len(np.unique(present)) != 2:
            return None
        return two_classes(present, "Set events='all' to remember every row.")

    def _read_labels(
        self, X: pd.DataFrame, y: ArrayLike | None, classes: np.ndarray | None
    ) -> tuple[np.ndarray, list[str]]:
        """Return labels as numbers and their names: "" for a single one; none that is not needed.

        values : (n_rows, n_labels) float64, 1 for the positive class, NaN where a label is missing
        """
        if self.known in X:
            check_known(X[self.known], y, name=f"X[{self.known!r}]")
        if not self._needs_labels:
            return np.empty((len(X), 0)), []
        labels, several = first_labels(y), np.asarray(y)
        if classes is not None:
            first = match_classes(labels, classes)
        else:
            first = np.where(pd.isna(labels), np.nan, labels).astype(np.float64)
        values, names = first[:, None], [""]
        if several.ndim == 2 and several.shape[1] > 1 and self.levels is not None:
            names = [*map(str, getattr(y, "columns", range(several.shape[1])))]
            values = np.column_stack([first, several[:, 1:].astype(np.float64)])
        if np.isinf(values).any():
            raise ValueError("y must hold finite numbers, got infinity. Leave such labels missing.")
        check_consistent_length(X, values)
        return values, names

    def _remember(
        self,
        X: pd.DataFrame,
        values: np.ndarray,
        names: list[str],
        *,
        memory: RowMemory | None,
    ) -> tuple[RowMemory | None, np.ndarray | None]:
        """Return a memory of what came of rows, with those of X, and which row each replaces.

        memory : None: without earlier rows
        before : (n_rows,), as of :meth:`RowMemory.append`; None where nothing remembers it
        """
        if self.levels is None and self.known is not None and not self._outcomes:
            raise ValueError(
                f"known={self.known!r} says from when on labels count in levels, and there are "
                "none: set levels='auto', or known=None."
            )
        if self.online_model and self.levels is None:
            raise ValueError(
                "online_model=True estimates one rate from the keys that have running rates, and "
                "levels=None names none: set levels='auto', or online_model=False."
            )
        at_known = with_known_times(X, self.time, self.known, name="X")
        if self.levels is None:
            return None, None
        is_late = not self._outcomes and not (at_known[self.time] == X[self.time]).all()
        if self.events == "positive" and is_late:
            warn_user(
                "events='positive' puts each click into histories from its own time on, before "
                f"{self.known!r} says that it was known: they tell labels too early. Set "
                "events='all' where what was shown is known at once."
            )
        of_clicks = bool(np.isin(values[~np.isnan(values)], (0, 1)).all())
        if memory is None:
            columns = [name for name in self._names_of_keys if name != self.time]
            keys, has_recent = self._keys, True
            if is_auto(self.levels):
                lists = {name for name in columns if holds_lists(X[name])}
                keys = [key for key in keys if lists.isdisjoint(key)]
                keys = [key for key in keys if len(key) == 1 or _come_back(X, key, self.time)]
                has_recent = len(X) >= ROWS_OF_RECENT
            options = {"of_clicks": of_clicks, "has_recent": has_recent}
            memory = RowMemory.empty(columns, keys, names, **options)
            online = [ONLINE_RATE] if self.online_model else []
            if {*online} & {*memory.names}:
                raise ValueError(
                    "online_model=True adds the column 'online_rate', and the running rate of the "
                    "column 'online' has the same name. Rename that column."
                )
            taken = [name for name in [*memory.names, *online] if name in X]
            if taken:
                raise ValueError(
                    f"X already has columns {taken}, which levels would add. Drop them, or set "
                    "levels=None."
                )
        if (memory.of_clicks and not of_clicks) or len(memory.labels) != len(names):
            raise ValueError(
                "y must hold labels as at fit, zeros and ones in as many columns, got "
                f"{len(names)} columns."
            )
        is_new = not len(memory.times)
        if self.online_model and (not of_clicks or len(names) > 1):
            what = f"{len(names)} labels" if len(names) > 1 else "numbers"
            raise ValueError(
                f"online_model=True needs one label of two classes in y, got {what}. Set "
                "online_model=False, or give y one column of two classes."
            )
        warn_of([note_sampled(X[[self.user, self.time]], values)])
        memory, before = memory.append(X, self.time, values, known=self.known)
        if self.online_model and is_new:
            memory = memory.with_online_model(self.user)
        return memory, before

    @property
    def _holds_all(self) -> bool:
        """Return whether all rows are held, and not the clicks alone."""
        return bool(self._outcomes) or self.events == "all"

    def _as_rows(self, X: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
        """Return what is told of rows, with their label where that counts in histories."""
        names = self._names_to_tell if self._outcomes else [self.user, self.time, *self._columns]
        rows = X[list(dict.fromkeys(names))].reset_index(drop=True)
        if LABEL in self._outcomes or self.events == "positive":
            label = pd.Series(values[:, 0])
            if label.dropna().isin((0, 1)).all():  # clicks are ids, others numbers
                label = label.astype("Int64" if label.hasnans else "int64")
            rows[LABEL] = label
        return rows

    def _keep(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that are held."""
        if self._holds_all:
            return rows
        return rows[rows[LABEL] == 1].drop(columns=LABEL).reset_index(drop=True)

    def _get_fitted(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "events_" not in attributes:
            return None
        attributes.pop("_sorted", None)  # made again when it is needed
        return {name: attributes.pop(name) for name in LEARNT if name in attributes}

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        check_keys(fitted, set(LEARNT))
        check_feature_names(fitted)
        events = fitted["events_"]
        needed = self._names_to_tell if self._outcomes else []
        needed = [*needed, *[LABEL] * (bool(needed) and self.events == "positive")]
        check_frame(events, [self.user, self.time, *needed, *self._request.columns], name="events_")
        for name in {self.time, self.known} & {*events}:
            check_times(events[name], name=f"events_[{name!r}]")
        memory = fitted.pop("memory_")
        memory = None if memory is None else from_dict(RowMemory, memory)
        self.__dict__.setdefault("_n_clicks_alone", 0)
        self.__dict__.update({"_sorted": None, "memory_": memory, **fitted})

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._needs_labels
        tags.transformer_tags.preserves_dtype = []
        return tags


def _moment(number: Any, unit: str | None, zoned: bool) -> Any:
    """Return a moment that is told by a number as a time."""
    return number if unit is None else pd.Timestamp(number, unit=unit, tz="UTC" if zoned else None)


def _come_back(X: pd.DataFrame, key: tuple[str, ...], time: str) -> bool:
    """Return whether many rows have an earlier one with the same values of a key."""
    names = [*key]
    values = X[[*names, time]].assign(**{n: Keys.read(X[n], name=n).hashes for n in names})
    first = values.groupby(names)[time].transform("min")
    return bool((first < values[time]).mean() >= COME_BACK)
