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
from sklearn_din._notebook import EncoderInNotebooks
from sklearn_din._validation import check_frame, check_names, check_times, plain_values, time_values
from sklearn_din.encoding.cells import Codes
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.encoder_state import EncoderState
from sklearn_din.encoding.frames import ReadFrame, TableLike, checked_frame, read_frame
from sklearn_din.encoding.notices import empty_histories, odd_ids, say
from sklearn_din.encoding.roles import (
    HistoriesParameter,
    NamesParameter,
    assign_roles,
    is_auto,
)
from sklearn_din.encoding.scaling import EventScale, NumericColumns, indicator
from sklearn_din.encoding.vocabulary import Occurrences, Vocabulary, plain_ids, whole_ids
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind, Schema


class HistorySequenceEncoder(  # type: ignore[call-arg]
    EncoderState,
    CallbackSupportMixin,
    TransformerMixin,
    EncoderInNotebooks,
    auto_wrap_output_keys=None,
):
    """Encode a frame of impressions with histories for a Deep Interest Network.

    Text, categories, booleans and integers become ids, floats become standardised numbers, and
    columns of lists become ragged histories of ids. A candidate column and its history share
    one vocabulary, learnt from both. Ids are int32: 0 is padding, 1 unknown, known values
    follow in sorted order from 2.

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
        self.separator = separator

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: TableLike, y: ArrayLike | None = None) -> HistorySequenceEncoder:
        """Learn roles, vocabularies and scales.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            One row is one impression: a candidate shown.
        y : ignored

        Returns
        -------
        self
        """
        with fit_task(self, X, y):
            self._learn(X)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: TableLike, y: ArrayLike | None = None) -> EncodedFeatures:
        """Fit and encode the same rows, reading them once.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
        y : ignored

        Returns
        -------
        EncodedFeatures
        """
        with fit_task(self, X, y):
            return self._encode(*self._learn(X))

    def transform(self, X: TableLike) -> EncodedFeatures:
        """Encode impressions.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            The columns seen at fit, in their order; dropped ones may be absent.

        Returns
        -------
        EncodedFeatures
        """
        check_is_fitted(self, "schema_")
        absent = [*self._dropped, self.user, self.time]
        frame = checked_frame(self, X, reset=False, droppable=absent)
        read = read_frame(
            Columns(frame, separator=self.separator),
            self._roles,
            max_length=self.max_length,
            as_numbers_alone=[n for n, its in self._event_scales.items() if not its.is_elapsed],
        )
        if self.unknown == "error":
            self._refuse_unknown(read)
        return self._encode(read, frame)

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

    def inverse_transform_ids(self, name: str, ids: ArrayLike) -> np.ndarray:
        """Look up the values behind encoded ids.

        Parameters
        ----------
        name : str
            A column of ids or a history.
        ids : array-like of int
            Of any shape; pandas' nullable integers as well.

        Returns
        -------
        ndarray of objects
            None for padding, unknown and missing ids.
        """
        check_is_fitted(self, "schema_")
        if name not in self.schema_.names("categorical", "history"):
            raise ValueError(
                f"{name!r} has no ids; columns of ids are "
                f"{self.schema_.names('categorical', 'history')}."
            )
        return self._vocabularies[self._roles.owners[name]].decode(whole_ids(ids))

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

    @property
    def vocabularies_(self) -> dict[str, np.ndarray]:
        """Column of ids -> its known values, in the order of their ids from 2."""
        check_is_fitted(self, "schema_")
        owners = self._roles.owners
        return {name: self._vocabularies[owner].values for name, owner in owners.items()}

    @property
    def scales_(self) -> dict[str, EventScale]:
        """Column of numbers -> how it is scaled."""
        check_is_fitted(self, "schema_")
        return self._numeric_columns.scales | self._event_scales

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
        self._learn_vocabularies(read)
        self._numeric_columns = NumericColumns(
            self._roles.numeric, read.numbers, taken=frame.columns
        )
        self._event_scales = {
            name: EventScale.of_events(name, events)
            for events in read.events.values()
            for name in events.numbers
        }
        self.schema_ = self._make_schema(list(frame.columns))
        chosen = [] if is_auto(self.categorical) else self.categorical  # checked with the roles
        say(self._roles.notices)
        say(empty_histories(read.events))
        say(odd_ids(read.codes, frame, chosen={*chosen, *self._roles.candidates}))
        return read, frame

    def _learn_vocabularies(self, read: ReadFrame) -> None:
        sources: dict[str, dict[str, Occurrences]] = {}
        for name, ((codes, values), counts) in read.id_columns().items():
            occurrences = np.bincount(codes + 1, weights=counts, minlength=len(values) + 1)[1:]
            owner = self._roles.owners[name]
            sources.setdefault(owner, {})[name] = Occurrences(
                plain_ids(values, name=name), occurrences
            )
        self._vocabularies = {
            owner: Vocabulary.learn(
                shared,
                min_frequency=self.min_frequency,
                max_ids=self.max_ids,
                keep_rare=self.unknown == "error",
            )
            for owner, shared in sources.items()
        }

    def _refuse_unknown(self, read: ReadFrame) -> None:
        for name, ((codes, values), _) in read.id_columns().items():
            present = np.bincount(codes + 1, minlength=len(values) + 1)[1:] > 0
            plain = plain_ids(values[present], name=name)
            vocabulary = self._vocabularies[self._roles.owners[name]]
            vocabulary.refuse_unknown(plain, vocabulary.encode(plain, name=name), name=name)

    @property
    def _dropped(self) -> list[str]:
        return [] if self.drop is None else check_names(self.drop, name="drop")

    def _encode(self, read: ReadFrame, frame: pd.DataFrame) -> EncodedFeatures:
        columns = self._numeric_columns.encode(read.numbers)
        columns |= {name: self._ids(name, codes) for name, codes in read.codes.items()}
        behaviours = {}
        for behaviour, events in read.events.items():
            values = {name: self._ids(name, codes) for name, codes in events.codes.items()}
            anchors = {}
            for name, numbers in events.numbers.items():
                scale = self._event_scales[name]
                if name in events.anchors:
                    values[name], anchors[name] = scale.encode_times(numbers, events.anchors[name])
                else:
                    values[name] = scale.encode(numbers)
            behaviours[behaviour] = Ragged(values, events.spans, anchors)
        users = plain_values(frame[self.user]) if self.user in frame else None
        times = time_values(frame[self.time]) if self.time in frame else None
        return EncodedFeatures(self.schema_, columns, behaviours, users=users, times=times)

    def _ids(self, name: str, codes: Codes) -> np.ndarray:
        vocabulary = self._vocabularies[self._roles.owners[name]]
        ids = vocabulary.encode(plain_ids(codes[1], name=name), name=name)
        return np.append(ids, np.int32(UNKNOWN_ID))[codes[0]]  # code -1 (missing) is unknown

    def _make_schema(self, columns: list[str]) -> Schema:
        roles = self._roles
        numbers = [name for behaviour in roles.behaviours for name in behaviour.numbers]
        fields = []
        for name in columns:
            if name in roles.numeric:
                fields.append(Field(name, "numeric"))
                if name in self._numeric_columns.has_missing:
                    fields.append(Field(indicator(name), "numeric"))
            elif name in roles.owners:
                kind: Kind = "categorical" if name in roles.categorical else "history"
                owner = roles.owners[name]
                vocabulary = self._vocabularies[owner]
                fields.append(Field(name, kind, owner, vocabulary.n_ids, vocabulary.digest))
            elif name in numbers:
                fields.append(Field(name, "numeric_history"))
        return Schema(tuple(fields), roles.behaviours, self.max_length, roles.unused)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags
