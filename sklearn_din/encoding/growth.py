"""How an encoder learns from rows that come later: ids are appended, none changes its meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from sklearn_din._compat import _fit_context
from sklearn_din.encoding.frames import TableLike
from sklearn_din.encoding.lookup import occurrences_by_owner
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scanned_rows import ScannedRows
from sklearn_din.encoding.streaming import check_columns, write_scan
from sklearn_din.encoding.vocabulary import (
    Occurrences,
    Vocabulary,
    frequent,
    is_awaited,
    kind_of_ids,
    merged,
    plain_ids,
    sorted_order,
)
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.tables.scan import Scan

Sources = Mapping[str, Occurrences]  # occurrences by the column that they stand in
Encoder = TypeVar("Encoder", bound="EncoderGrowth")


class EncoderGrowth:
    """Mixin of :class:`sklearn_din.HistorySequenceEncoder`: what ``partial_fit`` does."""

    min_frequency: int
    max_ids: int | None
    unknown: str
    schema_: Schema
    _roles: Roles
    _vocabularies: dict[str, Vocabulary]
    _neighbours: tuple[NeighbourPair, ...]
    _clicked_label: Any

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self: Encoder, X: TableLike, y: ArrayLike | None = None) -> Encoder:
        """Learn the ids of further rows. The first call is ``fit``.

        New values get the next free ids, in sorted order; every id that is known keeps its
        meaning. A value below ``min_frequency`` is counted until it has occurred often enough in
        all calls together: until then, it is remembered with its count, in memory and in files.
        ``max_ids`` bounds the vocabulary as before; once it is full, nothing is counted any more.

        Item neighbours count the clicks of these rows, each with the events of its history; where
        ``y`` is not given they stay, and an appended id has none.

        All else stays as it was learnt at first: the part that each column plays, and the scales of
        numbers. A number that is missing in a column that had none missing gets the mean and no
        indicator. To learn these anew, ``fit`` starts from nothing.

        A :class:`DINClassifier` that was trained on this encoder's output needs its own
        ``partial_fit`` afterwards; :func:`update` does both.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Rows that were not learnt from yet: what is given twice is counted twice.
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked, for the item neighbours.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a column holds values of another kind than at first. The encoder is then as before.
        """
        encoder: Any = self
        if not hasattr(self, "schema_"):
            return encoder.fit(X, y)
        self._grow(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit_transform(self, X: TableLike, y: ArrayLike | None = None) -> EncodedFeatures:
        """Learn from further rows, and encode them with the item neighbours of before.

        As ``fit_transform`` differs from ``transform``: rows whose own clicks are counted already
        would tell the network their labels. Train on this output; :func:`update` does.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Rows that were not learnt from yet.
        y : array-like of shape (n_rows,), default=None
            Which candidates were clicked, for the item neighbours.

        Returns
        -------
        EncodedFeatures
        """
        encoder: Any = self
        if not hasattr(self, "schema_"):
            return encoder.fit_transform(X, y)
        return self._grow(X, y)

    def _grow(self, X: TableLike, y: ArrayLike | None) -> EncodedFeatures:
        encoder: Any = self
        if y is not None:
            check_consistent_length(X, y)
        if isinstance(X, Scan):
            check_columns(encoder, X)
            occurrences = ScannedRows(encoder, X).occurrences()
        else:
            read, frame = encoder._read(X)
            occurrences = occurrences_by_owner(read, self._roles)
        vocabularies = {
            owner: grown_vocabulary(
                self._vocabularies[owner],
                sources,
                name=owner,
                min_frequency=self.min_frequency,
                max_ids=self.max_ids,
                keep_rare=self.unknown == "error",
            )
            for owner, sources in occurrences.items()
        }
        schema = grown_schema(self.schema_, vocabularies)
        neighbours = tuple(pair.widen(schema[pair.candidate].n_ids) for pair in self._neighbours)
        grown: Any = type(self).__new__(type(self))  # encodes; a failure leaves this one as it was
        grown.__dict__ |= {**vars(self), "_vocabularies": vocabularies, "_neighbours": neighbours}
        if isinstance(X, Scan):
            encoded = write_scan(grown, X, schema)
        else:
            encoded = grown._with_neighbours(grown._encode(read, frame, schema))
        if y is not None and self._clicked_label is not None:
            clicked = np.asarray(y) == self._clicked_label
            neighbours = tuple(pair.grow(encoded, clicked) for pair in neighbours)
        self.__dict__ |= {
            "schema_": schema,
            "_vocabularies": vocabularies,
            "_neighbours": neighbours,
        }
        return encoded


def grown_vocabulary(
    vocabulary: Vocabulary,
    sources: Sources,
    *,
    name: str,
    min_frequency: int = 1,
    max_ids: int | None = None,
    keep_rare: bool = False,
) -> Vocabulary:
    """Append the values that have become frequent enough; the given vocabulary stays as it is.

    Parameters
    ----------
    vocabulary : Vocabulary
    sources : mapping of str to Occurrences
        What the new rows hold, by column.
    name : str
        Column that the vocabulary belongs to, for the error.
    min_frequency : int, default=1
        Values that count less often, in earlier rows and these together, get no id yet.
    max_ids : int, default=None
        Most values of the vocabulary; the most frequent new ones come first.
    keep_rare : bool, default=False
        Remember all values that get no id, not only those that may get one later.

    Returns
    -------
    Vocabulary

    Raises
    ------
    ValueError
        If the new values are text and the known ones integers, or the like.

    Examples
    --------
    >>> known = Vocabulary(np.array(["boot", "shoe"], dtype=object))
    >>> new = Occurrences(np.array(["clog", "shoe"], dtype=object), np.array([1, 5]))
    >>> grown_vocabulary(known, {"item": new}, name="item").values
    array(['boot', 'shoe', 'clog'], dtype=object)
    """
    values, counts = merged(sources)
    values = vocabulary.as_learnt(values)
    _check_kind(vocabulary, values, name=name)
    is_new = vocabulary.positions(values) < 0
    values, counts = _with_earlier_counts(vocabulary, values[is_new], counts[is_new])
    most = None if max_ids is None else max(0, max_ids - len(vocabulary.values))
    kept = frequent(counts, min_frequency=min_frequency, most=most)
    n_values = len(vocabulary.values) + int(kept.sum())
    left = ~kept & (keep_rare or is_awaited(n_values, min_frequency, max_ids))
    together, grown_from = vocabulary.values, vocabulary.grown_from
    if kept.any():
        together = _appended(vocabulary.values, values[kept], name=name)
        grown_from = (*grown_from, vocabulary.digest)
    return Vocabulary(together, values[left], counts[left], grown_from)


def grown_schema(schema: Schema, vocabularies: Mapping[str, Vocabulary]) -> Schema:
    """Return the schema with the sizes and digests of vocabularies that have grown."""
    fields = []
    for field in schema.fields:
        if field.has_ids:
            its = vocabularies[field.vocabulary]
            field = dataclasses.replace(
                field, n_ids=its.n_ids, digest=its.digest, grown_from=its.grown_from
            )
        fields.append(field)
    return dataclasses.replace(schema, fields=tuple(fields))


def _check_kind(vocabulary: Vocabulary, values: np.ndarray, *, name: str) -> None:
    """Raise where new values could never match the known ones: ids must keep their meaning."""
    learnt, given = kind_of_ids(vocabulary.values), kind_of_ids(values)
    if learnt and len(values) and learnt != given:
        raise ValueError(
            f"{name} was learnt as {learnt} and now holds {given or 'values of several kinds'}, "
            f"such as {values[0]!r:.40}: they could never match. Give the column the dtype that "
            "it had at fit."
        )


def _with_earlier_counts(
    vocabulary: Vocabulary, values: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add what was counted of rare values before: values in sorted order, and their counts."""
    if not len(vocabulary.rare):
        return values, counts
    both = np.concatenate([vocabulary.rare, values.astype(object)])
    codes, distinct = pd.factorize(both)
    weights = np.concatenate([vocabulary.rare_counts, counts])
    totals = np.bincount(codes, weights=weights, minlength=len(distinct))
    order = sorted_order(distinct)
    return distinct[order], totals[order]


def _appended(known: np.ndarray, new: np.ndarray, *, name: str) -> np.ndarray:
    """Both arrays as one; an empty vocabulary takes the type of its first values."""
    new = plain_ids(new, name=name)
    if not len(known):
        return new
    if known.dtype != new.dtype:  # a vocabulary of several kinds
        new = new.astype(object)
    return np.concatenate([known, new])
