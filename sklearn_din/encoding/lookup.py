"""From values to ids: vocabularies of a frame that was read, its columns looked up, its schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sklearn_din.encoding.frames import ReadFrame
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.scaling import EventScale, indicator
from sklearn_din.encoding.single_values import Codes
from sklearn_din.encoding.vocabulary import Occurrences, Vocabulary, plain_ids
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind, Schema

Vocabularies = Mapping[str, Vocabulary]


def learn_vocabularies(
    read: ReadFrame, roles: Roles, *, min_frequency: int, max_ids: int | None, keep_rare: bool
) -> dict[str, Vocabulary]:
    """One vocabulary per column of ids; a history shares its candidate's.

    Parameters
    ----------
    read : ReadFrame
    roles : Roles
    min_frequency, max_ids, keep_rare
        As for :meth:`Vocabulary.learn`.
    """
    return learn_vocabularies_from(
        occurrences_by_owner(read, roles),
        min_frequency=min_frequency,
        max_ids=max_ids,
        keep_rare=keep_rare,
    )


def learn_vocabularies_from(
    sources: Mapping[str, Mapping[str, Occurrences]],
    *,
    min_frequency: int,
    max_ids: int | None,
    keep_rare: bool,
) -> dict[str, Vocabulary]:
    """One vocabulary per owner, from what :func:`occurrences_by_owner` has counted."""
    return {
        owner: Vocabulary.learn(
            shared, min_frequency=min_frequency, max_ids=max_ids, keep_rare=keep_rare
        )
        for owner, shared in sources.items()
    }


def occurrences_by_owner(read: ReadFrame, roles: Roles) -> dict[str, dict[str, Occurrences]]:
    """Count the values of every column of ids, grouped by the vocabulary that they share.

    Parameters
    ----------
    read : ReadFrame
        An event counts once for every row whose history holds it.
    roles : Roles
        They say whose vocabulary each column belongs to.

    Returns
    -------
    sources : dict of str to dict of str to Occurrences
        By vocabulary, then by column.
    """
    sources: dict[str, dict[str, Occurrences]] = {}
    for name, ((codes, values), counts) in read.id_columns().items():
        occurrences = np.bincount(codes + 1, weights=counts, minlength=len(values) + 1)[1:]
        owner = roles.owners[name]
        sources.setdefault(owner, {})[name] = Occurrences(plain_ids(values, name=name), occurrences)
    return sources


def learn_event_scales(read: ReadFrame) -> dict[str, EventScale]:
    """Scale of each history of numbers."""
    return {
        name: EventScale.of_events(name, events)
        for events in read.events.values()
        for name in events.numbers
    }


def refuse_unknown(read: ReadFrame, roles: Roles, vocabularies: Vocabularies) -> None:
    """Raise where a value was not seen at fit."""
    for name, ((codes, values), _) in read.id_columns().items():
        present = np.bincount(codes + 1, minlength=len(values) + 1)[1:] > 0
        plain = plain_ids(values[present], name=name)
        vocabulary = vocabularies[roles.owners[name]]
        vocabulary.refuse_unknown(plain, vocabulary.encode(plain, name=name), name=name)


def encoded_ids(read: ReadFrame, roles: Roles, vocabularies: Vocabularies) -> dict[str, np.ndarray]:
    """Columns with one id per cell."""
    return {name: ids_of(name, codes, roles, vocabularies) for name, codes in read.codes.items()}


def encoded_behaviours(
    read: ReadFrame, roles: Roles, vocabularies: Vocabularies, scales: Mapping[str, EventScale]
) -> dict[tuple[str, ...], Ragged]:
    """Histories of each behaviour: ids, and numbers on their scale."""
    behaviours = {}
    for behaviour, events in read.events.items():
        values = {
            name: ids_of(name, codes, roles, vocabularies) for name, codes in events.codes.items()
        }
        anchors = {}
        for name, numbers in events.numbers.items():
            scale = scales[name]
            if name in events.anchors:
                values[name], anchors[name] = scale.encode_times(numbers, events.anchors[name])
            else:
                values[name] = scale.encode(numbers)
        behaviours[behaviour] = Ragged(values, events.spans, anchors)
    return behaviours


def make_schema(
    columns: Sequence[str],
    roles: Roles,
    vocabularies: Vocabularies,
    *,
    has_missing: Collection[str],
    max_length: int,
) -> Schema:
    """What each encoded column means.

    Parameters
    ----------
    columns : sequence of str
        The frame's, in their order.
    roles : Roles
    vocabularies : mapping of str to Vocabulary
    has_missing : collection of str
        Columns of numbers that have an indicator.
    max_length : int
        Newest events that a history keeps.
    """
    numbers = [name for behaviour in roles.behaviours for name in behaviour.numbers]
    fields = []
    for name in columns:
        if name in roles.numeric:
            fields.append(Field(name, "numeric"))
            if name in has_missing:
                fields.append(Field(indicator(name), "numeric"))
        elif name in roles.owners:
            kind: Kind = "categorical" if name in roles.categorical else "history"
            owner = roles.owners[name]
            vocabulary = vocabularies[owner]
            fields.append(Field(name, kind, owner, vocabulary.n_ids, vocabulary.digest))
        elif name in numbers:
            fields.append(Field(name, "numeric_history"))
    return Schema(tuple(fields), roles.behaviours, max_length, roles.unused)


def ids_of(name: str, codes: Codes, roles: Roles, vocabularies: Vocabularies) -> np.ndarray:
    """Ids of one column's values, given as codes and distinct values."""
    ids = vocabularies[roles.owners[name]].encode(plain_ids(codes[1], name=name), name=name)
    return np.append(ids, np.int32(UNKNOWN_ID))[codes[0]]  # code -1 (missing) is unknown
