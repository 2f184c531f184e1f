"""HistorySequenceEncoder: columns of a frame become ids, numbers and ragged histories."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sklearn_din._callbacks import CallbackSupportMixin, fit_task
from sklearn_din._compat import Interval, StrOptions, _check_feature_names_in, _fit_context
from sklearn_din._notebook import ShownInNotebooks
from sklearn_din._validation import check_frame, check_names, check_times, plain_values, time_values
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.encoder_neighbours import (
    add_neighbours,
    clicked_label,
    learn_of_encoder,
    neighbour_order,
    schema_without,
)
from sklearn_din.encoding.encoder_state import EncoderState
from sklearn_din.encoding.frames import ReadFrame, TableLike, checked_frame, read_frame
from sklearn_din.encoding.growth import EncoderGrowth
from sklearn_din.encoding.lookup import (
    encoded_behaviours,
    encoded_ids,
    learn_event_scales,
    learn_vocabularies,
    make_schema,
    refuse_unknown,
)
from sklearn_din.encoding.notices import empty_histories, log_older_events, odd_ids, say
from sklearn_din.encoding.roles import (
    HistoriesParameter,
    NamesParameter,
    assign_roles,
    is_auto,
)
from sklearn_din.encoding.scaling import NumericColumns
from sklearn_din.encoding.streaming import fit_scan, transform_scan
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.tables.scan import Scan


class HistorySequenceEncoder(  # type: ignore[call-arg]
    EncoderState,
    EncoderGrowth,
    CallbackSupportMixin,
    TransformerMixin,
    ShownInNotebooks,
    auto_wrap_output_keys=None,
):
    """Encode a frame of impressions with histories for a Deep Interest Network.

    Text, categories, booleans and integers become ids, floats become standardised numbers, and
    columns of lists become ragged histories of ids. A candidate column and its history share
    one vocabulary, learnt from both. Ids are int32: 0 is padding, 1 unknown, known values
    follow in sorted order from 2. :meth:`partial_fit` appends the values of later rows.

    Parameters
    ----------
    histories : "auto" or dict, default="auto"
        History column -> the candidate column that it is compared with. A tuple of histories
        with a tuple of candidates is one behaviour with several attributes per event; None
        stands for no candidate, and a behaviour without any is a bag. In a behaviour, floats
        with candidate None are numbers of the events. "auto": columns of lists; ``hist_x``
        pairs with ``x`` where there is such a column; histories of the same events are one
        behaviour (columns of one ``attach_history`` call, also after a file has made lists of
        them: equal lengths in every row).
    categorical : "auto" or list of str, default="auto"
        Columns of ids in addition to those that the rules find: text, categories, booleans,
        integers, and floats that are all whole and have a history. The history of a column that
        is named here holds ids too. Candidates always are ids.
    numeric : "auto" or list of str, default="auto"
        Columns of numbers in addition to those that the rules find: floats. The history of a
        column that is named here holds numbers too. A missing number gets the mean, and an
        indicator column where numbers were missing at fit.
    drop : str, list of str or None, default=()
        Columns to leave out. They may be absent at transform.
    user : str, default=None
        Column that says whose each row is. It is no feature: it travels beside them, so that
        ``DINClassifier(validation="groups")`` and scores by user need no more arguments. It may
        be absent at transform.
    time : str, default=None
        Column that says when each row was: integers, floats or datetimes. It is no feature: it
        travels beside them, so that ``DINClassifier(validation="last")`` and :class:`TimeSplit`
        know what came last. It may be absent at transform.
    max_length : int, default=50
        How many of its newest events a history keeps. Time and memory grow with it.
    min_frequency : int, default=1
        Values that occur less often in the training rows and their histories share the unknown
        id: for catalogues with many ids that are seen once.
    max_ids : int, default=None
        How many values of each vocabulary get an id of their own, the most frequent ones. It
        bounds the size of the embeddings. None gives one to every value.
    unknown : {"embed", "error"}, default="embed"
        What to do at transform with a value not seen at fit: give it id 1, or raise. A missing
        value always has id 1.
    neighbours : {"auto", "time", "user"} or None, default="auto"
        Whether the candidate gets numbers of item neighbours: what everybody's histories say
        about the candidate and the user's past events (see Notes), 13 per behaviour: for the
        attribute with the most ids, and for others from 64 ids on. "time": each training row is
        told what was known before its block of time, for models that predict later rows. "user":
        it is told of other users alone, for models that predict users not seen at fit. "auto":
        "time" where ``time`` is named, "user" where only ``user`` is, otherwise none. None: none,
        as in the paper.
    separator : str, default=None
        Where to split histories that are text, "|" for "Comedy|Drama": the columns named in
        ``histories``, and with "auto" those called ``hist_x`` beside a column ``x``.

    Attributes
    ----------
    schema_ : Schema
        Every output field and every behaviour.
    vocabularies_ : dict of str to ndarray
        Column of ids -> known values; ``vocabularies_[name][i]`` has id ``i + 2``.
    scales_ : dict of str to EventScale
        Column of numbers -> its ``shift`` and ``scale``: it is encoded as ``(number - shift) /
        scale``; times elapsed (``is_elapsed``) as ``log1p(elapsed / scale)``, whose scale is
        the power of two nearest to their median.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    With item neighbours, ``fit_transform`` differs from ``fit`` and ``transform``, as that of
    scikit-learn's TargetEncoder does: ``fit_transform`` tells each training row of earlier blocks
    of rows alone (the first of five blocks is told nothing), ``transform`` of all rows of fit.
    Train on ``fit_transform``, as a Pipeline does. Per history these are the sum, mean, maximum,
    newest and decayed sum (0.8 per event) of two scores between the candidate and each past event,
    the weights of EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019;
    exact among the 3,000 most popular items) and a shrunk cosine, each by its 200 best neighbours;
    the logarithm of the candidate's popularity; its rate of clicks; and whether it is known.

    Datetimes are not used. A plain 2-D array is numeric throughout. Only the training rows and
    the events that their histories hold after truncation are learnt from. ``set_output`` has no
    effect: the output is always :class:`EncodedFeatures`.

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

    _parameter_constraints: dict = {
        "histories": "no_validation",
        "categorical": [StrOptions({"auto"}), "array-like"],
        "numeric": [StrOptions({"auto"}), "array-like"],
        "drop": [str, "array-like", None],
        "user": [str, None],
        "time": [str, None],
        "max_length": [Interval(Integral, 1, None, closed="left")],
        "min_frequency": [Interval(Integral, 1, None, closed="left")],
        "max_ids": [Interval(Integral, 1, None, closed="left"), None],
        "unknown": [StrOptions({"embed", "error"})],
        "neighbours": [StrOptions({"auto", "time", "user"}), None],
        "separator": [str, None],
    }

    def __init__(
        self,
        *,
        histories: HistoriesParameter = "auto",
        categorical: NamesParameter = "auto",
        numeric: NamesParameter = "auto",
        drop: NamesParameter | None = (),
        user: str | None = None,
        time: str | None = None,
        max_length: int = 50,
        min_frequency: int = 1,
        max_ids: int | None = None,
        unknown: str = "embed",
        neighbours: str | None = "auto",
        separator: str | None = None,
    ) -> None:
        self.histories = histories
        self.categorical = categorical
        self.numeric = numeric
        self.drop = drop
        self.user = user
        self.time = time
        self.max_length = max_length
        self.min_frequency = min_frequency
        self.max_ids = max_ids
        self.unknown = unknown
        self.neighbours = neighbours
        self.separator = separator

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: TableLike, y: ArrayLike | None = None) -> HistorySequenceEncoder:
        """Learn roles, vocabularies and scales.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            One row is one impression: a candidate shown. A scan (:func:`scan_parquet`) is read
            part by part.
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked, for the item neighbours; nothing else is learnt from it.

        Returns
        -------
        self
        """
        with fit_task(self, X, y):
            self._fit(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: TableLike, y: ArrayLike | None = None) -> EncodedFeatures:
        """Fit and encode the same rows, reading them once.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked, for the item neighbours; nothing else is learnt from it.

        Returns
        -------
        EncodedFeatures
            Of a scan, over mapped files.
        """
        with fit_task(self, X, y):
            return self._fit(X, y)

    def transform(self, X: TableLike) -> EncodedFeatures:
        """Encode impressions.

        Parameters
        ----------
        X : DataFrame, scan or array-like of shape (n_rows, n_columns)
            The columns seen at fit, in their order; dropped ones may be absent.

        Returns
        -------
        EncodedFeatures
        """
        check_is_fitted(self, "schema_")
        if isinstance(X, Scan):
            return transform_scan(self, X)
        read, frame = self._read(X)
        if self.unknown == "error":
            refuse_unknown(read, self._roles, self._vocabularies)
        return self._with_neighbours(self._encode(read, frame, self.schema_))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Names of the columns of ``np.asarray(X)``: a history takes ``max_length`` of them.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Must be the names seen at fit where they are given.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "schema_")
        _check_feature_names_in(self, input_features)
        return np.asarray(self.schema_.feature_names_out(), dtype=object)

    def set_output(self, *, transform: str | None = None) -> HistorySequenceEncoder:
        """Do nothing: a frame of numbers could not carry ids and histories.

        Parameters
        ----------
        transform : ignored

        Returns
        -------
        self
        """
        return self

    def _learn(self, X: TableLike) -> tuple[ReadFrame, pd.DataFrame]:
        self.__dict__.pop("schema_", None)  # an interrupted fit leaves nothing that seems fitted
        frame = checked_frame(self, X, reset=True)
        apart = [name for name in (self.user, self.time) if name is not None]
        check_frame(frame, apart, name="X (user and time)")
        if self.time is not None:
            check_times(frame[self.time], name=f"X[{self.time!r}]")
        columns = Columns(frame, separator=self.separator)
        self._roles = assign_roles(
            columns,
            histories=self.histories,
            categorical=self.categorical,
            numeric=self.numeric,
            drop=self._dropped,
            apart=apart,
        )
        read = read_frame(columns, self._roles, max_length=self.max_length)
        self._vocabularies = learn_vocabularies(
            read,
            self._roles,
            min_frequency=self.min_frequency,
            max_ids=self.max_ids,
            keep_rare=self.unknown == "error",
        )
        self._numeric_columns = NumericColumns(
            self._roles.numeric, read.numbers, taken=frame.columns
        )
        self._event_scales = learn_event_scales(read)
        self._neighbours, self._clicked_label = (), None
        chosen = [] if is_auto(self.categorical) else self.categorical  # checked with the roles
        say(self._roles.notices)
        totals = {names: events.totals for names, events in read.events.items()}
        say(empty_histories(totals))
        log_older_events(totals, max_length=self.max_length, n_rows=len(frame))
        say(odd_ids(read.codes, frame, chosen={*chosen, *self._roles.candidates}))
        return read, frame

    def _read(self, X: TableLike) -> tuple[ReadFrame, pd.DataFrame]:
        """Read rows as those of fit were read."""
        absent = [*self._dropped, self.user, self.time]
        frame = checked_frame(self, X, reset=False, droppable=absent)
        read = read_frame(
            Columns(frame, separator=self.separator),
            self._roles,
            max_length=self.max_length,
            as_numbers_alone=[n for n, its in self._event_scales.items() if not its.is_elapsed],
        )
        return read, frame

    def _fit(self, X: TableLike, y: ArrayLike | None) -> EncodedFeatures:
        if isinstance(X, Scan):
            return fit_scan(self, X, y)
        read, frame = self._learn(X)
        schema = make_schema(
            list(frame.columns),
            self._roles,
            self._vocabularies,
            has_missing=self._numeric_columns.has_missing,
            max_length=self.max_length,
        )
        encoded = self._encode(read, frame, schema)
        order = neighbour_order(
            self.neighbours,
            has_candidates=bool(self._roles.candidates),
            user=self.user,
            time=self.time,
            n_rows=len(frame),
        )
        if order is not None:
            self._clicked_label = clicked_label(y)
            self._neighbours, encoded = learn_of_encoder(
                encoded, y, order=order, taken=frame.columns
            )
        self.schema_ = encoded.schema
        return encoded

    @property
    def _dropped(self) -> list[str]:
        return [] if self.drop is None else check_names(self.drop, name="drop")

    def _with_neighbours(self, X: EncodedFeatures) -> EncodedFeatures:
        """Impressions with the numbers of item neighbours, by their ids and histories."""
        return add_neighbours(X, self._neighbours)

    def _encode(self, read: ReadFrame, frame: pd.DataFrame, schema: Schema) -> EncodedFeatures:
        """Everything but the numbers of item neighbours."""
        columns = self._numeric_columns.encode(read.numbers)
        columns |= encoded_ids(read, self._roles, self._vocabularies)
        behaviours = encoded_behaviours(read, self._roles, self._vocabularies, self._event_scales)
        users = plain_values(frame[self.user]) if self.user in frame else None
        times = time_values(frame[self.time]) if self.time in frame else None
        schema = schema_without(schema, self._neighbours)
        return EncodedFeatures(schema, columns, behaviours, users=users, times=times)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags
