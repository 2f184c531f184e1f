"""ItemNeighbours: numbers on candidate and history from all histories, for any model."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from sklearn_din.encoding.roles import HistoriesParameter
from sklearn_din.encoding.table import Columns
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID, Schema
from sklearn_din.neighbours.blocks import find_clicks
from sklearn_din.neighbours.shortlist import NOBODY, Shortlist
from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.utils.compat import StrOptions, _fit_context
from sklearn_din.utils.estimator_state import EstimatorState, check_keys
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.typed_fields import from_dict, to_dict
from sklearn_din.utils.validation import check_count

FrameOrEncoded = IntoDataFrame | EncodedFeatures  # what is transformed, into the same kind


class ItemNeighbours(  # type: ignore[call-arg]
    EstimatorState, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Add item neighbour features to a frame, or to encoded rows.

    :class:`DINClassifier` computes these numbers itself. This transformer provides them to any
    other model, such as a boosted tree: 14 columns per behaviour, for the attribute with the most
    ids, and for others with at least 64 ids; and ``user_level``, how often the user said yes so
    far, if users and times are known and the users differ.

    It also takes the output of :class:`HistorySequenceEncoder`, and adds the numbers as fields.
    As a step between encoder and classifier it is fitted only once if the Pipeline caches its
    steps (``memory``): the classifier adds no numbers to rows that already have them.

    Parameters
    ----------
    user : str, default=None
        User column. Encoded rows use the encoder's users.
    time : str, default=None
        Time column: integers, floats or datetimes. Encoded rows use the encoder's times.
    neighbours : {"auto", "time", "user"}, default="auto"
        "time": the numbers of each row come from what was known at the end of the last of five
        blocks of time that ended before it. "user": users are divided into five parts; the
        numbers of a row of a user known at fit come from all other parts, those of new users from
        all parts. "auto": "time" if times are known, otherwise "user".
    histories : "auto" or dict, default="auto"
        A dict from each history column to the candidate column it is compared with. "auto":
        ``hist_x`` is compared with ``x``. Encoded rows use their schema.

    Attributes
    ----------
    encoder_ : HistorySequenceEncoder or None
        Reads the columns of frames. None if fitted on encoded rows.
    schema_ : Schema
        Schema of the encoded rows, without the numbers.

    Notes
    -----
    The numbers of a row never include its own label or anything later, under any split. By time,
    ``fit_transform`` equals ``fit`` followed by ``transform``, except for ``user_level``: it counts
    the user's rows up to each row, afterwards up to the end of a block. By user they differ: the
    rows that
    ``fit_transform`` returns read only the parts before their user's. Train on these: from the
    numbers of ``transform``, a model that knows items would learn which clicks each part lacks.
    Rows without user and time are predicted as of now: their numbers come from all rows of fit.

    Examples
    --------
    >>> import pandas as pd
    >>> shown = pd.DataFrame(
    ...     {
    ...         "user": ["ann", "bob", "cid", "dee", "eve"],
    ...         "item": ["hat", "sock", "hat", "sock", "hat"],
    ...         "hist_item": [["shoe"], ["shoe"], ["shoe"], ["shoe"], ["shoe"]],
    ...     }
    ... )
    >>> neighbours = ItemNeighbours(user="user").fit(shown, [1, 0, 1, 0, 1])
    >>> neighbours.transform(shown[["item", "hist_item"]])["hist_item_cosine_sum"].round(2)
    0    0.32
    1    0.00
    2    0.32
    3    0.00
    4    0.32
    Name: hist_item_cosine_sum, dtype: float32
    """

    _parameter_constraints: dict = {
        "user": [str, None],
        "time": [str, None],
        "neighbours": [StrOptions({"auto", "time", "user"})],
        "histories": "no_validation",
    }

    def __init__(
        self,
        *,
        user: str | None = None,
        time: str | None = None,
        neighbours: str = "auto",
        histories: HistoriesParameter = "auto",
    ) -> None:
        self.user = user
        self.time = time
        self.neighbours = neighbours
        self.histories = histories

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: FrameOrEncoded, y: ArrayLike | None = None) -> Self:
        """Learn which items go together.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns), or EncodedFeatures
            Candidates and histories; other columns are passed through.
        y : array-like of shape (n_rows,), default=None
            Two labels, the larger of which is a click. With any other y, only histories count.

        Returns
        -------
        self
        """
        self._fit(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: FrameOrEncoded, y: ArrayLike | None = None) -> FrameOrEncoded:
        """Learn which items go together, and add the columns to train a model on.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns), or EncodedFeatures
            Candidates and histories; other columns are passed through.
        y : array-like of shape (n_rows,), default=None
            Two labels, the larger of which is a click. With any other y, only histories count.

        Returns
        -------
        frame of the kind of X, or EncodedFeatures
            X and the new columns.
        """
        return self._with_numbers(X, self._fit(X, y))

    def transform(self, X: FrameOrEncoded) -> FrameOrEncoded:
        """Add the columns, from tables that do not count the row.

        Parameters
        ----------
        X : pandas, polars or Arrow frame of shape (n_rows, n_columns), or EncodedFeatures
            As given to ``fit``; columns ``user`` and ``time`` may be absent.

        Returns
        -------
        frame of the kind of X, or EncodedFeatures
            X and the new columns.

        Raises
        ------
        ValueError
            Where X is encoded by another encoder than the rows of ``fit``.
        """
        check_is_fitted(self)
        if not isinstance(X, EncodedFeatures):
            if self.encoder_ is None:
                raise ValueError(
                    "ItemNeighbours was fitted on encoded rows, got a frame. Transform it with "
                    "the encoder first."
                )
            encoded = self.encoder_.transform(CallerFrame(X, name="X").pandas)
            return self._with_numbers(X, self._tables.add_to(encoded))
        if not self.schema_.is_prefix_of(X.schema):
            raise ValueError(
                "X comes from another encoder than the one that ItemNeighbours was fitted with: "
                f"{self.schema_.difference(X.schema)}. Transform with that encoder, or fit both "
                "again as one Pipeline."
            )
        return self._tables.add_to(X)

    def recommend(self, histories: Sequence[Sequence[object]], n: int = 10) -> pd.DataFrame:
        """Return the items that go best with each history, without a network.

        An item's score is the sum of its EASE weights and cosines over the events, of each event
        where they are above zero together. Items in the history are excluded; if too few items go
        with it, the most popular ones follow, with a score of zero. Pass many histories in one
        call: each call prepares the tables.

        Parameters
        ----------
        histories : list of lists, or a history column
            The items of each user, as in the history with the most ids at fit.
        n : int, default=10
            Number of items to return for each history; all if there are fewer.

        Returns
        -------
        DataFrame
            The histories in their order and the best item first: row (position in
            ``histories``), rank (from 1), the column of the candidate, score.

        Raises
        ------
        ValueError
            Where it was fitted on encoded rows, or no history had a candidate.
        """
        check_is_fitted(self)
        check_count(n, name="n")
        encoder = self.encoder_
        if encoder is None or not self._tables.pairs:
            raise ValueError(
                "recommend needs ItemNeighbours that was fitted on a frame with a history and its "
                f"candidate, got {'encoded rows' if encoder is None else 'one without'}. Give both "
                "columns to fit, such as hist_item and item."
            )
        pair = max(self._tables.pairs, key=lambda pair: pair.n_ids)
        frame = pd.DataFrame({pair.history: pd.Series(list(histories), dtype=object)})
        cells = Columns(frame, separator=encoder.separator).history(pair.history)
        rows, ids = encoder._learnt.ids_of_events(pair.history, cells)
        bounds = np.searchsorted(rows, np.arange(len(frame) + 1))
        shortlist = Shortlist([pair.scores], np.arange(pair.n_ids))
        best, lengths = [(NOBODY, NOBODY)], np.empty(len(frame), int)
        for number in range(len(frame)):
            events = ids[bounds[number] : bounds[number + 1]]
            left_out = np.append(ids_to_look_up(events), range(FIRST_KNOWN_ID))
            best.append(shortlist.rank([events], n, left_out))
            lengths[number] = len(best[-1][0])
        items, scores = map(np.concatenate, zip(*best, strict=True))
        row = np.repeat(np.arange(len(frame)), lengths)
        columns = {"row": row, "rank": 1 + np.arange(len(row)) - np.searchsorted(row, row)}
        columns[pair.candidate] = encoder.inverse_transform_ids(pair.candidate, items)
        return pd.DataFrame(columns | {"score": scores})

    def _fit(self, X: FrameOrEncoded, y: ArrayLike | None) -> EncodedFeatures:
        """Learn, and return the training rows with their numbers."""
        is_ordered = self.user is not None or self.time is not None
        if isinstance(X, EncodedFeatures):
            is_ordered |= X.users is not None or X.times is not None
        if not is_ordered:
            raise ValueError(
                "ItemNeighbours needs the user or the time of each row, got "
                "user=None and time=None. Name the column: ItemNeighbours(user=...)."
            )
        encoder, taken = None, []
        if isinstance(X, EncodedFeatures):
            encoded = X
        else:
            encoder = HistorySequenceEncoder(
                histories=self.histories, user=self.user, time=self.time
            )
            frame = CallerFrame(X, name="X").pandas
            encoded, taken = encoder.fit_transform(frame), list(frame.columns)
        if y is not None:
            check_consistent_length(np.empty(len(encoded)), y)
        is_click, order = find_clicks(y, len(encoded)), choose_order(encoded, self.neighbours)
        tables, numbered = learn_neighbours(encoded, is_click, order=order, y=is_click, taken=taken)
        self.encoder_, self.schema_, self._tables = encoder, encoded.schema, tables
        return numbered

    def _with_numbers(self, X: FrameOrEncoded, encoded: EncodedFeatures) -> FrameOrEncoded:
        """Rows of the caller's kind with the numbers: of a frame as they were before scaling."""
        if isinstance(X, EncodedFeatures):
            return encoded
        numbers = {
            name: encoded[name] * scale
            for pair in self._tables.pairs
            for name, scale in zip(pair.names, pair.scale, strict=True)
        }
        if self._tables.levels is not None:
            numbers |= {name: encoded[name] for name in self._tables.levels.names}
        return CallerFrame(X, name="X").with_columns(numbers)

    def _get_fitted(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "_tables" not in attributes:
            return None
        tables = attributes.pop("_tables")
        return {
            "encoder": attributes.pop("encoder_"),
            "schema": to_dict(attributes.pop("schema_")),
            "neighbours": to_dict(tables),
        }

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        check_keys(fitted, {"encoder", "schema", "neighbours"}, what="ItemNeighbours")
        encoder = fitted["encoder"]
        if encoder is not None:
            if type(encoder) is not HistorySequenceEncoder:
                raise ValueError("the encoder must be a HistorySequenceEncoder.")
            check_is_fitted(encoder)
        self.encoder_, self.schema_ = encoder, from_dict(Schema, fitted["schema"])
        self._tables = NeighbourTables.from_dict(fitted["neighbours"], self.schema_)
