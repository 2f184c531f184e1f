"""HistorySequenceEncoder: encodes a frame as ids, numbers and ragged histories."""

import dataclasses
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sklearn_din.encoding.fixed_vectors import VectorScale, read_vectors, vectors_of
from sklearn_din.encoding.frames import TableLike, validate_frame
from sklearn_din.encoding.notices import (
    TrainingRows,
    far_numbers,
    log_roles,
    note_owners,
    warn_of_events,
    warn_of_training_rows,
)
from sklearn_din.encoding.profile import ColumnProfile, compare_profiles
from sklearn_din.encoding.roles import (
    METADATA_ROLE,
    HistoriesParameter,
    NamesParameter,
    assign_roles,
)
from sklearn_din.encoding.rows import RowEncoder
from sklearn_din.encoding.scaling import EventScale
from sklearn_din.encoding.table import ColumnReader, Impressions
from sklearn_din.encoding.table_columns import Parts, TableColumns, TableStatistics
from sklearn_din.encoding.vocabulary import IdRules, whole_ids
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.features.vectors import Vectors
from sklearn_din.utils.compat import (
    AUTO,
    COUNT,
    _check_feature_names_in,
    _fit_context,
    constraints_of,
    parameter,
)
from sklearn_din.utils.digests import digest
from sklearn_din.utils.estimator_state import EstimatorState, check_feature_names, check_keys
from sklearn_din.utils.extras import ranks
from sklearn_din.utils.frames import pandas_frame
from sklearn_din.utils.keys import USERS, Keys
from sklearn_din.utils.row_labels import check_row_labels
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.typed_fields import from_dict, to_dict
from sklearn_din.utils.validation import (
    as_tuple,
    check_frame,
    check_names,
    check_times,
    is_auto,
    position_values,
    refuse_new_columns,
    time_numbers,
    time_values,
)
from sklearn_din.utils.version import __version__
from sklearn_din.utils.warnings import ADVICE_FROM, log_once, report_again, warn_of


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class EncoderParameters:
    """Parameters of HistorySequenceEncoder."""

    histories: HistoriesParameter = "auto"
    categorical: NamesParameter = parameter("auto", AUTO, "array-like")
    numeric: NamesParameter = parameter("auto", AUTO, "array-like")
    drop: NamesParameter | None = parameter((), str, "array-like", None)
    user: str | None = parameter(None, str, None)
    time: str | None = parameter(None, str, None)
    position: str | None = parameter(None, str, None)
    item: str | None = parameter(None, str, None)
    max_length: int | str = parameter("auto", AUTO, COUNT)
    min_frequency: int = parameter(1, COUNT)
    max_ids: int | None = parameter(None, COUNT, None)
    separator: str | None = parameter(None, str, None)
    elapsed: NamesParameter = parameter("auto", AUTO, "array-like")
    vectors: Mapping[str, pd.DataFrame] | None = None


EncoderParameters.__init__.__qualname__ = "HistorySequenceEncoder.__init__"  # in Python's errors


class HistorySequenceEncoder(  # type: ignore[call-arg]
    EstimatorState, EncoderParameters, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Encode a frame of impressions with histories for a Deep Interest Network.

    Strings, categories, booleans and integers become ids, floats become standardized numbers, and
    columns of lists become ragged histories of ids. A candidate column and its history share one
    vocabulary, learned from both. Ids are int32: 0 is padding, 1 unknown, and known values follow
    from 2 in sorted order. :meth:`partial_fit` appends the values of later rows.

    Parameters
    ----------
    histories : "auto" or dict, default="auto"
        Exceptions to the rules of "auto": a dict from a history column to the candidate column it
        is compared with. A tuple of histories with a tuple of candidates is one behaviour with
        several attributes per event; None means no candidate, and a behaviour without any
        candidate is a bag. In a behaviour, floats with candidate None are numbers of the events.
        Numbers whose candidate is a number too, such as prices, are compared by their difference.
        They are numbers if one of the two columns has fractions, or is named in ``numeric``;
        otherwise whole numbers are ids. All other histories follow the rules; ``drop`` leaves them
        out. The rules of "auto": columns of lists are histories; ``hist_x``, or a list under any
        other prefix (``buy_x``), is compared with a column ``x`` of ids or of numbers, if there is
        one; histories of the same events form one behaviour (columns of one ``attach_history``
        call, even after a file has turned them into lists: equal lengths in every row).
    categorical : "auto" or list of str, default="auto"
        Columns to encode as ids in addition to those found by the rules: strings, categories,
        booleans, integers, and whole-number floats with a history. The history of a column named
        here contains ids too. Candidates are ids, unless they are numbers by the rules above.
    numeric : "auto" or list of str, default="auto"
        Columns to encode as numbers in addition to those found by the rules: floats, and
        durations in seconds. The history of a column named here contains numbers too, and is
        compared with it: name prices, years and ratings that are whole numbers. A missing
        number gets the mean, and an indicator column if numbers were missing at fit.
    drop : str, list of str or None, default=()
        Columns to leave out. They may be absent at transform.
    user : str, default=None
        Column with the user of each row. It is not a feature but is kept with the encoded rows,
        so that ``DINClassifier(validation="groups")`` and scores by user need no other arguments.
        It may be absent at transform.
    time : str, default=None
        Column with the time of each row: integers, floats or datetimes. It is not a feature but
        is kept with the encoded rows, so that ``DINClassifier(validation="last")`` and
        :class:`TimeSplit` know the order of the rows. It may be absent at transform.
    position : str, default=None
        Column with the position at which each row was shown: 1, 2, 3 and so on, missing if
        unknown. Training learns what a position adds to the log-odds of a click, so that an item
        gets no credit for its position; validation checks include it. Predictions are for an
        average position. It may be absent at transform.
    item : str, default=None
        Column of ids that identifies the item, for rankings, the server, and checks of the log.
        None takes, of the columns that a history is compared with, the one with the most ids. A
        column of numbers, such as amounts, is passed over if a compared column of text has at least
        20 values, but fewer, that do not follow from the numbers, as a category follows from the
        number of an item. Name the item where ``schema_.item`` is another column.
    max_length : int or "auto", default="auto"
        Number of newest events of a history that attention reads. "auto" takes, for each behaviour,
        the first of 50, 100, 200, 500 and 1,000 that at most 1 % of the training rows with events
        exceed. ``summary()`` of the classifier shows it, and ``schema_`` holds it. Time and memory
        grow with it: a fit with 1,000 events per row takes about three times as long as with 50.
        Item neighbours also count older events, up to the newest 1,000 of a cell.
    min_frequency : int, default=1
        Values that occur less often in the training rows and their histories share the unknown
        id. Raise it for catalogues with many ids that occur once.
    max_ids : int, default=None
        Maximum number of values with an id of their own in each vocabulary; the most frequent
        ones are kept. It bounds the size of the embeddings. None means no limit.
    separator : str, default=None
        Where to split histories that are strings, such as "|" for "Comedy|Drama": the columns
        named in ``histories``, and with "auto" those called ``hist_x`` next to a column ``x``.
    elapsed : "auto" or list of str, default="auto"
        Histories of numbers that are times elapsed until the row; they become ``log1p``. "auto"
        takes those that ``attach_history(elapsed=...)`` makes, and those whose numbers never rise
        within a row and are never negative, which is how files keep such times; the logger
        "sklearn_din" names the latter. Name the columns, or pass [] where they are quantities.
    vectors : dict of str to DataFrame, default=None
        Fixed vectors for the values of a column of ids, such as embeddings of the items' texts or
        images: a dict from the column to a frame with that column and either one column of
        numbers per dimension or one column of equally long arrays. Candidates and histories share
        them; the network adds a learned projection of them to the embeddings. The frame may
        include values that no row has, such as tomorrow's items. To add more later, set a new
        frame on the fitted encoder: ``encoder.set_params(vectors={"item": newer})``.

    Attributes
    ----------
    schema_ : Schema
        Every output field and every behaviour, with the ``max_length`` of each.
    vocabularies_ : dict of str to ndarray
        For each column of ids, its known values; ``vocabularies_[name][i]`` has id ``i + 2``.
    scales_ : dict of str to EventScale
        For each column of numbers, its ``shift`` and ``scale``: it is encoded as ``(number -
        shift) / scale``, with the logarithm of extreme values if there are a few
        (``has_outliers``); elapsed times (``is_elapsed``) as ``log1p(elapsed / scale)``, where
        the scale is the power of two nearest to their median. A column and the history that is
        compared with it have one scale, and a missing number of such a history stays NaN.
    longest_history_ : int
        Events of the longest history seen at fit, 1,000 at most unless ``max_length`` is larger.
        Item neighbours read all of them. What serves the model should hold as many.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    Datetimes are not used. A plain 2-D array is entirely numeric. The encoder learns only from
    the training rows and from the events in their histories after truncation. ``set_output`` has
    no effect: the output is always :class:`EncodedFeatures`.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> encoder = HistorySequenceEncoder()
    >>> X = encoder.fit_transform(frame)
    >>> X["hist_item"]
    array([[4, 0],
           [2, 3]], dtype=int32)
    >>> encoder.vocabularies_["item"]
    array(['hat', 'shoe', 'sock'], dtype=object)
    """

    _parameter_constraints: dict = constraints_of(EncoderParameters)
    schema_: Schema
    _learnt: TableColumns

    @property
    def vocabularies_(self) -> dict[str, np.ndarray]:
        """Column of ids -> its known values, in the order of their ids from 2."""
        check_is_fitted(self, "schema_")
        known = self._learnt.vocabularies
        return {name: known[column.owner].values for name, column in self._learnt.ids.items()}

    @property
    def longest_history_(self) -> int:
        """Events of the longest history seen at fit, with older ones than attention reads."""
        check_is_fitted(self, "schema_")
        return self._learnt.longest

    @property
    def scales_(self) -> dict[str, EventScale]:
        """Column of numbers -> how it is scaled."""
        check_is_fitted(self, "schema_")
        return {name: column.scale for name, column in self._learnt.numbers.items()}

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: TableLike, y: ArrayLike | None = None) -> Self:
        """Learn roles, vocabularies and scales.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            One row is one impression: a candidate shown. A scan (:func:`scan_parquet`) is read
            part by part.
        y : object, default=None
            Only its index is compared with that of X.

        Returns
        -------
        self
        """
        report_again()
        check_row_labels(X, y)
        table = self._check_table(X, reset=True)
        with self._before_other_processes(table):
            self._fit(table)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: TableLike, y: ArrayLike | None = None) -> EncodedFeatures:
        """Fit and encode the same rows, as ``fit(X).transform(X)`` does, reading a frame only once.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            One row is one impression: a candidate shown. A scan is read part by part.
        y : object, default=None
            Only its index is compared with that of X.

        Returns
        -------
        EncodedFeatures
            Of a scan, over mapped files.
        """
        report_again()
        check_row_labels(X, y)
        table = self._check_table(X, reset=True)
        with self._before_other_processes(table):
            self._fit(table)
            return self._encode(table)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: TableLike, y: ArrayLike | None = None) -> Self:
        """Learn the ids of further rows. The first call is ``fit``.

        New values get the next free ids, in sorted order; every id that is known keeps its
        meaning. A new value needs ``min_frequency`` occurrences in one call, and ``max_ids`` bounds
        the vocabulary as a whole.

        Roles of columns, lengths of histories and scales of numbers do not change. A missing
        number in a column that had none missing gets the mean and no indicator. To learn all this
        again, call ``fit``.

        A :class:`DINClassifier` that was trained on this encoder's output needs its own
        ``partial_fit`` afterwards; :func:`update` does both.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            Rows that were not given before: rows given twice are counted twice.
        y : object, default=None
            Only its index is compared with that of X.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the values of a column are of another kind than at first, or a column is new or
            missing. The encoder is then unchanged.
        """
        if not hasattr(self, "schema_"):
            return self.fit(X, y)
        frame = X if isinstance(X, Scan) else pandas_frame(X)
        if frame is not None and hasattr(self, "feature_names_in_"):
            beside = self._dropped, self._metadata.values()
            refuse_new_columns(frame.columns, {*self.feature_names_in_}.union(*beside))
        check_row_labels(X, y)
        table = self._check_table(X, reset=False)
        statistics, rows = TableStatistics(self._learnt, len(table)), self._row_encoder()
        for start, parts in table.map(self._learnt.read, rows.names_of(table), "counting"):
            statistics.update(parts, start)
        learnt = self._learnt.grow(
            statistics.occurrences_by_owner(), IdRules(self.min_frequency, self.max_ids)
        )
        self.__dict__.update({"_learnt": learnt, "schema_": learnt.schema})
        return self

    def transform(self, X: TableLike) -> EncodedFeatures:
        """Encode impressions.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            The columns seen at fit, in any order; dropped columns and dates may be absent, and
            other columns are ignored.

        Returns
        -------
        EncodedFeatures
            Of a scan, over mapped files.
        """
        check_is_fitted(self, "schema_")
        return self._encode(self._check_table(X, reset=False))

    def report(self, X: TableLike) -> pd.DataFrame:
        """Compare rows with those of fit, column by column, to detect drift.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            Rows as for :meth:`transform`, for example a day's requests.

        Returns
        -------
        DataFrame
            One row per column (the index): ``kind`` as in ``schema_``; of a history the
            ``candidate``, the column that its events are compared with; the fractions of values
            that are ``unknown`` (not in the vocabulary), ``missing``, of histories ``empty``, and
            of numbers ``beyond`` where a network reads all as one (by a sample of the rows of fit);
            the mean ``length`` of histories of single values; each next to its value ``_at_fit``.
            ``shift`` is the population stability index, ``sum (p - q) log(p / q)`` over bins, p at
            fit and q now, with half a value added to each. Bins are the 19 most frequent ids and
            all other known ones, or the nine deciles of the numbers and the ten intervals between
            them (of a history's newest events). Below .1 there is little change, above .25 a large
            one; with n rows, chance alone gives about 20 / n.
            NaN where a figure has no meaning.

        Notes
        -----
        The encoder keeps only these bins and counts of the rows of fit. :meth:`partial_fit` adds
        ids to the vocabulary but does not change the reference.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"item": ["hat", "tie"], "price": [7.0, 9.0]})
        >>> later = pd.DataFrame({"item": ["hat", "sock"], "price": [7.0, None]})
        >>> encoder = HistorySequenceEncoder().fit(frame)
        >>> encoder.report(later).reset_index()[["column", "unknown", "missing", "missing_at_fit"]]
          column  unknown  missing  missing_at_fit
        0   item      0.5      0.0             0.0
        1  price      NaN      0.5             0.0
        """
        check_is_fitted(self, "schema_")
        table, rows = self._check_table(X, reset=False), self._row_encoder()
        now: dict[str, ColumnProfile] = {}
        for _, parts in table.map(self._learnt.read, rows.names_of(table), "comparing"):
            for name, profile in self._learnt.profile_rows(parts).items():
                now[name] = now[name].plus(profile) if name in now else profile
        leaves = {leaf.name: leaf for leaf in self._learnt.in_order if leaf.name in now}
        kinds = {name: leaf.fields(self._learnt)[0].kind for name, leaf in leaves.items()}
        report = compare_profiles(kinds, {n: leaf.profile for n, leaf in leaves.items()}, now)
        pairs = {h: c for b in self.schema_.behaviours for h, c in b.candidate_of.items()}
        report.insert(1, "candidate", report.index.map(pairs).astype(object))
        return report

    def inverse_transform_ids(self, name: str, ids: ArrayLike) -> np.ndarray:
        """Look up the values behind encoded ids.

        Parameters
        ----------
        name : str
            A column of ids or a history.
        ids : array-like of int
            Of any shape; pandas nullable integers are accepted.

        Returns
        -------
        ndarray of objects
            None for padding, unknown and missing ids.
        """
        check_is_fitted(self, "schema_")
        of_ids = [field.name for field in self.schema_.fields if field.has_ids]
        if name not in of_ids:
            raise ValueError(f"{name!r} has no ids; columns of ids are {of_ids}.")
        return self._learnt.decode(name, whole_ids(ids))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Return the columns of ``X.to_numpy()``; a history has as many as it keeps events.

        Parameters
        ----------
        input_features : array-like of str, default=None
            If given, must equal the names seen at fit.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "schema_")
        _check_feature_names_in(self, input_features)
        return np.asarray(self.schema_.feature_names_out(), dtype=object)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Log once that the output stays as it is: a frame cannot hold ids and histories.

        Parameters
        ----------
        transform : object, default=None
            Ignored; the output is always encoded rows.

        Returns
        -------
        self
        """
        if transform not in (None, "default"):
            log_once(
                f"{type(self).__name__}.set_output(transform={transform!r}) changes nothing: it "
                "returns EncodedFeatures, which DINClassifier reads. EncodedFeatures.to_numpy() "
                "makes a matrix of them for other estimators."
            )
        return self

    @property
    def _dropped(self) -> list[str]:
        return [] if self.drop is None else check_names(self.drop, name="drop")

    @property
    def _metadata(self) -> dict[str, str]:
        """Columns of users, times and positions, which are no features."""
        names = {"users": self.user, "times": self.time, "positions": self.position}
        return {what: name for what, name in names.items() if name is not None}

    @property
    def _optional(self) -> list[str]:
        """Columns of fit that rows may lack: no feature is made of them."""
        return [*self._dropped, *self._metadata.values(), *self.schema_.unused]

    def _check_table(self, X: TableLike, *, reset: bool) -> Impressions:
        """Check the columns of a frame or a scan; ``reset`` where this is ``fit``."""
        if reset:  # an interrupted fit leaves nothing that seems fitted
            self.__dict__.pop("schema_", None)
        source, frame = X, X
        if isinstance(X, Scan):  # its names are checked as those of a frame of one row, or none
            frame = pd.DataFrame(columns=X.columns, index=range(min(len(X), 1)))
        droppable = () if reset else self._optional
        frame = validate_frame(self, frame, reset=reset, droppable=droppable)
        if reset:
            check_frame(frame, self._metadata.values(), name=f"X ({METADATA_ROLE})")
            warn_of([note_owners(frame, self.user)])
        return Impressions(source if isinstance(source, Scan) else frame, separator=self.separator)

    def _fit(self, table: Impressions) -> None:
        """Fit on a table, or load the cached state of the same fit."""
        name = self._store_name(table, "learnt")
        if table.scan is None or not name:
            self._learn(table)
            return
        from sklearn_din.features.store import StoreWriter, make_once

        def learn(writer: StoreWriter) -> None:
            self._learn(table)
            writer.append_value(self._learnt_state())

        store = make_once(table.scan.cache_dir, name, learn, memory=table.scan.memory)
        self._restore_fitted(store.read_value())

    def _learn(self, table: Impressions) -> None:
        """Fit in two passes over the chunks of a table: roles first, then statistics."""
        columns, notices = assign_roles(
            table,
            histories=self.histories,
            categorical=self.categorical,
            numeric=self.numeric,
            drop=self._dropped,
            max_length=self.max_length,
            elapsed=self.elapsed,
            metadata=[*self._metadata.values()],
            item=self.item,
        )
        statistics, newest = TableStatistics(columns, len(table)), -np.inf
        used = {*columns.sources, *self._metadata.values()}
        read_rows = partial(self._read_training_rows, columns)
        for start, (parts, times, latest) in table.map(read_rows, used, "counting"):
            statistics.update(parts, start, times)
            newest = max(newest, latest)
        learnt = statistics.finish(IdRules(self.min_frequency, self.max_ids))
        self._warn(table, learnt, notices, statistics)
        tables = read_vectors(self.vectors, learnt.ids)
        scales = {owner: VectorScale.of(vectors) for owner, (_, vectors) in tables.items()}
        user = "" if self.user is None else self.user
        self._learnt = dataclasses.replace(learnt, vector_scales=scales, user=user, newest=newest)
        self._look_up_vectors()  # also checks that they belong to values of X
        self.schema_ = self._learnt.schema

    def _read_training_rows(
        self, columns: TableColumns, chunk: ColumnReader
    ) -> tuple[Parts, np.ndarray | None, float]:
        times, newest = None, -np.inf
        if self.user is not None:  # lists and the like are no users
            Keys.read(chunk.frame[self.user].iloc[:1], name=USERS)
        if self.time is not None:
            times = check_times(chunk.frame[self.time], name=f"X[{self.time!r}]")[0]
            newest = time_numbers(time_values(chunk.frame[self.time])).max()
        if self.position is not None:
            position_values(chunk.frame[self.position])
        return columns.read(chunk), times, float(newest)

    def _warn(
        self,
        table: Impressions,
        learnt: TableColumns,
        notices: list[str],
        statistics: TableStatistics,
    ) -> None:
        """Warn of what was taken differently from how it looks."""
        pairs = {} if isinstance(self.histories, str) else self.histories
        ids, numbers = (
            [] if is_auto(names) else names for names in (self.categorical, self.numeric)
        )
        histories = {name for key in pairs for name in as_tuple(key)}
        of_table = learnt, notices, statistics.occurrences, table.dtypes, len(table)
        rows = TrainingRows(*of_table, ids, numbers, histories)
        warn_of(far_numbers(learnt))
        warn_of_training_rows(rows)
        warn_of_events(statistics.totals)
        if len(table) >= ADVICE_FROM:
            log_roles(rows, statistics.statistics)

    def _row_encoder(self) -> RowEncoder:
        return RowEncoder(self._learnt, self._metadata, self._look_up_vectors())

    def _look_up_vectors(self) -> dict[str, Vectors]:
        """Return the vectors of each vocabulary's ids, once for the same frames."""
        frames = {} if self.vectors is None else dict(self.vectors)
        given, learnt, made = self.__dict__.get("_vectors_made", ({}, None, {}))
        same = given.keys() == frames.keys() and all(given[n] is frames[n] for n in frames)
        if same and learnt is self._learnt:
            return made
        scales = self._learnt.vector_scales
        tables = read_vectors(self.vectors, self._learnt.ids)
        if tables.keys() != scales.keys():
            raise ValueError(
                f"vectors must be given for the columns of ids {sorted(scales)} as at fit, got "
                f"{sorted(tables)}. Fit again to use others."
            )
        made = {
            owner: vectors_of(self._learnt.vocabularies[owner], scales[owner], *table, name=owner)
            for owner, table in tables.items()
        }
        self._vectors_made = frames, self._learnt, made
        return made

    def _encode(self, table: Impressions) -> EncodedFeatures:
        return self._row_encoder().encode(table, name=self._store_name(table, "encoded"))

    def _before_other_processes(self, table: Impressions) -> AbstractContextManager[None]:
        """Have the first of several processes encode a scan, which the others then read."""
        scan = table.scan
        if scan is None or scan.cache_dir is None or "torch.distributed" not in sys.modules:
            return nullcontext()
        name = partial(self._store_name, table, "learnt")
        return ranks().first_process_first(scan.cache_dir, name)

    def _store_name(self, table: Impressions, what: Literal["learnt", "encoded"]) -> str:
        """Name of the store that keeps what is learnt or encoded; "" without a ``cache_dir``."""
        if table.scan is None or table.scan.cache_dir is None:
            return ""
        from sklearn_din.utils.plain_values import write_value

        facts: dict[str, Any] = {"parameters": self.get_params(deep=False)}
        if what == "encoded":
            facts["learnt"] = self._learnt_state()
        text, arrays = write_value(to_dict(facts))
        scan = table.scan.fingerprint()
        return f"{what}-{digest(__version__, scan, text, *arrays.values())[:32]}"

    def _learnt_state(self) -> dict[str, Any]:
        names = ("n_features_in_", "feature_names_in_")
        features = {name: vars(self)[name] for name in names if name in vars(self)}
        return {"learnt": self._learnt, **features}

    def _get_fitted(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "schema_" not in attributes:
            return None
        for name in ("_learnt", "schema_", "n_features_in_", "feature_names_in_", "_vectors_made"):
            attributes.pop(name, None)
        return self._learnt_state()

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        required, optional = {"learnt", "n_features_in_"}, {"feature_names_in_"}
        check_keys(fitted, required, optional=optional, what="an encoder")
        check_feature_names(fitted)
        learnt = from_dict(TableColumns, fitted.pop("learnt"))
        self.__dict__.update({"_learnt": learnt, "schema_": learnt.schema, **fitted})

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags
