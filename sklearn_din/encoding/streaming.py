"""How an encoder reads a scan: in passes over its parts, into files that are mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from sklearn_din._progress import Progress
from sklearn_din._spans import Spans
from sklearn_din._validation import check_frame, check_times, plain_values
from sklearn_din.encoding.array_files import ArrayFiles, append_encoded
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.encoded_cache import (
    EncodedCache,
    digest_of,
    digest_of_labels,
    digest_of_state,
    plain_parameters,
)
from sklearn_din.encoding.events import Events
from sklearn_din.encoding.frames import ReadFrame, checked_frame, read_frame
from sklearn_din.encoding.lookup import learn_vocabularies_from, make_schema, refuse_unknown
from sklearn_din.encoding.mapped_neighbours import append_neighbours, learn_mapped_neighbours
from sklearn_din.encoding.neighbours import clicked_label, neighbour_order, schema_without
from sklearn_din.encoding.notices import empty_histories, odd_ids, say
from sklearn_din.encoding.roles import Roles, assign_roles, is_auto
from sklearn_din.encoding.shared_logs import SharedLogs
from sklearn_din.encoding.streamed_counts import SharedOccurrences, TableStatistics, UserCodes
from sklearn_din.encoding.vocabulary import Occurrences
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.logs.scan_views import Scan

FIRST_ROWS = 100_000  # the part of each column is decided by so many


class ScannedRows:
    """The rows of a scan as an encoder reads them: by the roles that it has.

    Parameters
    ----------
    encoder : HistorySequenceEncoder
        Its roles are known.
    scan : Scan
        The rows.
    roles : Roles, default=None
        What to read. None: all columns that the encoder uses.
    """

    def __init__(self, encoder: Any, scan: Scan, roles: Roles | None = None) -> None:
        self._encoder, self._scan = encoder, scan
        self._roles = roles = encoder._roles if roles is None else roles
        wanted = {*roles.numeric, *roles.owners, encoder.user, encoder.time}
        wanted |= {name for behaviour in roles.behaviours for name in behaviour.numbers}
        self._names = [name for name in scan.columns if name in wanted]

    def read(
        self, what: str, *, as_numbers_alone: Sequence[str] = ()
    ) -> Iterator[tuple[int, ReadFrame, pd.DataFrame]]:
        """Yield the parts: first row, what was read, the frame.

        Parameters
        ----------
        what : str
            What the pass is for, on the progress bar.
        as_numbers_alone : sequence of str, default=()
            As for :func:`read_frame`.
        """
        encoder = self._encoder
        if not self._names:
            return
        for start, frame in progress(self._scan, self._names, what):
            try:
                if encoder.time in self._names:
                    check_times(frame[encoder.time], name=f"X[{encoder.time!r}]")
                read = read_frame(
                    Columns(frame, separator=encoder.separator),
                    self._roles,
                    max_length=encoder.max_length,
                    as_numbers_alone=as_numbers_alone,
                )
            except ValueError as error:
                raise ValueError(
                    f"{error} This is among the rows {start} to {start + len(frame) - 1} of the "
                    f"scan; the part that each column plays was decided by the first "
                    f"{FIRST_ROWS:,} rows of fit. Where they misled, say what the column is in "
                    "histories, categorical, numeric or drop."
                ) from error
            yield start, read, frame

    def occurrences(self) -> dict[str, dict[str, Occurrences]]:
        """Count the values of all columns of ids."""
        found = SharedOccurrences(self._encoder._roles)
        for _, read, _ in self.read("counting"):
            found.add(read)
        return found.by_owner()

    def user_codes(self) -> UserCodes | None:
        """How users become numbers; None where the rows have none."""
        user = self._encoder.user
        if user not in self._scan.columns:
            return None
        parts = progress(self._scan, [user], "users")
        return UserCodes(plain_values(part[user]) for _, part in parts)

    def encoded(self, schema: Schema, *, is_fit: bool) -> Iterator[EncodedFeatures]:
        """Yield the parts encoded, without item neighbours; users are numbers."""
        encoder, users = self._encoder, self.user_codes()
        scales = encoder._event_scales.items()
        alone = [] if is_fit else [name for name, its in scales if not its.is_elapsed]
        for _, read, frame in self.read("encoding", as_numbers_alone=alone):
            if not is_fit and encoder.unknown == "error":
                refuse_unknown(read, encoder._roles, encoder._vocabularies)
            part = encoder._encode(read, frame, schema)
            if users is not None:
                part.users = users.encode(part.users)
            yield part


def write_rows(
    encoder: Any, scan: Scan, schema: Schema, files: ArrayFiles, *, is_fit: bool
) -> None:
    """Encode all rows of a scan, without item neighbours, and write them to files.

    Parameters
    ----------
    encoder : HistorySequenceEncoder
        It has learnt all that encoding needs.
    scan : Scan
    schema : Schema
        Without the columns of item neighbours.
    files : ArrayFiles
        New.
    is_fit : bool
        Whether the rows are those that the encoder learnt from.
    """
    scan, places = scan.in_file_order()
    is_wanted = is_fit or encoder.unknown != "error"  # the log holds what no row of these shows
    shared = SharedLogs(scan, encoder, is_wanted=is_wanted)
    rest = tuple(b for b in schema.behaviours if b not in shared.behaviours)
    apart = {name for b in shared.behaviours for name in (*b.histories, *b.numbers)}
    fields = tuple(field for field in schema.fields if field.name not in apart)
    rows = ScannedRows(encoder, scan, replace(encoder._roles, behaviours=rest))
    offsets: dict[str, int] = {}
    for part in rows.encoded(replace(schema, fields=fields, behaviours=rest), is_fit=is_fit):
        append_encoded(files, part, offsets)
    shared.write(files)
    if places is not None:
        files.reorder(places)


def fit_scan(encoder: Any, scan: Scan, y: ArrayLike | None) -> EncodedFeatures:
    """Fit an encoder on a scan and encode its rows, or read both where they were kept.

    Parameters
    ----------
    encoder : HistorySequenceEncoder
        Gets the same attributes as from the same rows in memory.
    scan : Scan
        The training rows.
    y : array-like of shape (n_rows,) or None
        Which candidates were clicked, for the item neighbours.

    Returns
    -------
    EncodedFeatures
        Over mapped arrays.
    """
    encoder.__dict__.pop("schema_", None)
    cache = EncodedCache(scan, _key_of_fit(encoder, scan, y))
    kept = cache.read()
    if kept is not None:
        encoded, learnt = kept
        encoder._restore_fitted(learnt)
        return encoded
    schema = _learn(encoder, scan.in_file_order()[0])
    with cache.writing() as files:
        write_rows(encoder, scan, schema, files, is_fit=True)
        order = neighbour_order(
            encoder.neighbours,
            encoder._roles,
            user=encoder.user,
            time=encoder.time,
            n_rows=len(scan),
        )
        if order is not None:
            encoder._clicked_label = clicked_label(y)
            encoder._neighbours = learn_mapped_neighbours(
                cache.mapped(files, schema), y, order=order, taken=scan.columns, files=files
            )
            fields = tuple(field for pair in encoder._neighbours for field in pair.fields())
            schema = replace(schema, fields=schema.fields + fields)
        learnt = None
        if scan.cache_dir is not None:
            learnt = encoder._fitted_state(vars(encoder) | {"schema_": schema})
        encoded = cache.keep(files, schema, learnt)
    encoder.schema_ = schema
    return encoded


def transform_scan(encoder: Any, scan: Scan) -> EncodedFeatures:
    """Encode the rows of a scan by a fitted encoder, or read them where they were kept.

    Parameters
    ----------
    encoder : HistorySequenceEncoder
        Fitted.
    scan : Scan

    Returns
    -------
    EncodedFeatures
        Over mapped arrays.
    """
    check_columns(encoder, scan)
    key = ""
    if scan.cache_dir is not None:
        state = digest_of_state(encoder.plain_state())
        key = digest_of("transform", scan.fingerprint(), state)
    cache = EncodedCache(scan, key)
    kept = cache.read()
    if kept is not None:
        return kept[0]
    return write_scan(encoder, scan, encoder.schema_, cache)


def write_scan(
    encoder: Any, scan: Scan, schema: Schema, cache: EncodedCache | None = None
) -> EncodedFeatures:
    """Encode the rows of a scan into files.

    Parameters
    ----------
    encoder : HistorySequenceEncoder
        It has learnt all that encoding needs.
    scan : Scan
    schema : Schema
        Of the rows, with the columns of item neighbours.
    cache : EncodedCache, default=None
        Where to keep them. None: a temporary folder.
    """
    if cache is None:
        cache = EncodedCache(scan.without_cache(), "")
    with cache.writing() as files:
        plain = schema_without(schema, encoder._neighbours)
        write_rows(encoder, scan, plain, files, is_fit=False)
        append_neighbours(cache.mapped(files, plain), encoder._neighbours, files)
        return cache.keep(files, schema)


def check_columns(encoder: Any, scan: Scan) -> None:
    """Raise unless a scan has rows, and the columns of fit."""
    names_alone = pd.DataFrame(columns=scan.columns, index=range(min(len(scan), 1)))
    absent = [*encoder._dropped, encoder.user, encoder.time]
    checked_frame(encoder, names_alone, reset=False, droppable=absent)


def _key_of_fit(encoder: Any, scan: Scan, y: ArrayLike | None) -> str:
    """Digest of all that decides what is learnt; of no use without a cache."""
    if scan.cache_dir is None:
        return ""
    parameters = plain_parameters(encoder.get_params(deep=False))
    return digest_of("fit", scan.fingerprint(), parameters, digest_of_labels(y))


def _learn(encoder: Any, scan: Scan) -> Schema:
    """Learn roles from the first rows, all else from all; return the schema without neighbours."""
    frame = checked_frame(encoder, first_rows(scan), reset=True)
    apart = [name for name in (encoder.user, encoder.time) if name is not None]
    check_frame(frame, apart, name="X (user and time)")
    columns = Columns(frame, separator=encoder.separator)
    roles = encoder._roles = assign_roles(
        columns,
        histories=encoder.histories,
        categorical=encoder.categorical,
        numeric=encoder.numeric,
        drop=encoder._dropped,
        apart=apart,
    )
    codes = {name: columns.codes(name) for name in roles.categorical}
    chosen = [] if is_auto(encoder.categorical) else encoder.categorical
    say(roles.notices)
    say(odd_ids(codes, frame, chosen={*chosen, *roles.candidates}))
    del frame, columns, codes
    found = TableStatistics(roles, len(scan))
    for start, read, _ in ScannedRows(encoder, scan).read("counting"):
        found.add(read, start)
    encoder._vocabularies = learn_vocabularies_from(
        found.occurrences(),
        min_frequency=encoder.min_frequency,
        max_ids=encoder.max_ids,
        keep_rare=encoder.unknown == "error",
    )
    encoder._numeric_columns = found.numeric_columns(taken=scan.columns)
    encoder._event_scales = found.event_scales()
    encoder._neighbours, encoder._clicked_label = (), None
    say(empty_histories({name: _some(n) for name, n in found.n_events.items()}))
    return make_schema(
        list(scan.columns),
        roles,
        encoder._vocabularies,
        has_missing=encoder._numeric_columns.has_missing,
        max_length=encoder.max_length,
    )


def first_rows(scan: Scan) -> pd.DataFrame:
    """The first rows of a scan as one frame."""
    parts = [part for _, part in scan[:FIRST_ROWS].parts()]
    return pd.concat(parts) if parts else pd.DataFrame(columns=scan.columns)


def progress(scan: Scan, columns: Sequence[str], what: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Parts of a scan, with rows per second and the time left."""
    with Progress(what, len(scan)) as shown:
        for start, part in scan.parts(columns):
            yield start, part
            shown.update(len(part))
    pa.default_memory_pool().release_unused()  # Arrow keeps what the largest part took


def _some(n_events: int) -> Events:
    """Events of which only the number is known."""
    spans = Spans(np.zeros(1, dtype=np.int64), np.array([min(n_events, 1)], dtype=np.int32))
    return Events(spans, np.zeros(0, dtype=np.int32))
