"""How an encoder reads a scan: in passes over its parts, into files that are mapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from sklearn_din._validation import check_frame
from sklearn_din.encoding.array_files import ArrayFiles, append_encoded, append_files
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.encoded_cache import (
    EncodedCache,
    digest_of,
    digest_of_labels,
    digest_of_state,
    plain_parameters,
)
from sklearn_din.encoding.encoder_neighbours import (
    add_neighbours,
    append_neighbours,
    clicked_label,
    learn_of_encoder,
    neighbour_order,
    schema_without,
)
from sklearn_din.encoding.events import HistoryTotals
from sklearn_din.encoding.frames import checked_frame
from sklearn_din.encoding.lookup import learn_vocabularies_from, make_schema
from sklearn_din.encoding.notices import empty_histories, log_older_events, odd_ids, say
from sklearn_din.encoding.roles import assign_roles, is_auto
from sklearn_din.encoding.scanned_rows import ScannedRows, first_rows
from sklearn_din.encoding.shared_logs import SharedLogs
from sklearn_din.encoding.streamed_counts import TableStatistics
from sklearn_din.encoding.team import Team, encoding_team
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.tables.scan import Scan


def write_rows(
    encoder: Any,
    scan: Scan,
    schema: Schema,
    files: ArrayFiles,
    *,
    is_fit: bool,
    team: Team | None = None,
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
    team : Team, default=None
        Processes each of which encodes its share; the files of the leader get all rows.
    """
    team = Team() if team is None else team
    scan, places = scan.in_file_order()
    is_wanted = is_fit or encoder.unknown != "error"  # the log holds what no row of these shows
    shared = SharedLogs(scan, encoder, is_wanted=is_wanted)
    rest = tuple(b for b in schema.behaviours if b not in shared.behaviours)
    apart = {name for b in shared.behaviours for name in (*b.histories, *b.numbers)}
    fields = tuple(field for field in schema.fields if field.name not in apart)
    rows = ScannedRows(encoder, scan, replace(encoder._roles, behaviours=rest), team)
    offsets: dict[str, int] = {}
    for part in rows.encoded(replace(schema, fields=fields, behaviours=rest), is_fit=is_fit):
        append_encoded(files, part, offsets)
    if team.is_leader:
        shared.write(files)
    else:
        files.close()
    for folder, arrays, n_events in team.from_members((files.folder, files.arrays, offsets)):
        append_files(files, folder, arrays, offsets)
        offsets = {key: offsets[key] + n_events.get(key, 0) for key in offsets}
    if team.is_leader and places is not None:
        files.reorder(places)


def fit_scan(encoder: Any, scan: Scan, y: ArrayLike | None) -> EncodedFeatures:
    """Fit an encoder on a scan and encode its rows, or read both where they were kept.

    Processes of one group of torch that share ``cache_dir`` do it together.

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
    key = _key_of_fit(encoder, scan, y)
    cache = EncodedCache(scan, key)
    with encoding_team(scan, key) as team:
        kept = cache.read() if team.is_leader else None
        if not team.agree(kept is not None):
            written = _fit_rows(encoder, scan, y, cache, team)
            if written is not None:
                return written
            kept = None
        encoded, learnt = kept or _written_by_leader(cache)
        encoder._restore_fitted(learnt)
        return encoded


def _fit_rows(
    encoder: Any, scan: Scan, y: ArrayLike | None, cache: EncodedCache, team: Team
) -> EncodedFeatures | None:
    """Learn and encode; None in processes that have done their share for another one."""
    schema = _learn(encoder, scan.in_file_order()[0], team)
    with cache.writing(is_kept=team.is_leader) as files:
        write_rows(encoder, scan, schema, files, is_fit=True, team=team)
        encoded = _fit_written(encoder, scan, y, cache, files, schema) if team.is_leader else None
        team.told(None)  # what the leader reads of the others is theirs until then
    return encoded


def _fit_written(
    encoder: Any,
    scan: Scan,
    y: ArrayLike | None,
    cache: EncodedCache,
    files: ArrayFiles,
    schema: Schema,
) -> EncodedFeatures:
    """Learn item neighbours from rows that are written, and keep all."""
    order = neighbour_order(
        encoder.neighbours,
        has_candidates=bool(encoder._roles.candidates),
        user=encoder.user,
        time=encoder.time,
        n_rows=len(scan),
    )
    if order is not None:
        encoder._clicked_label = clicked_label(y)
        encoder._neighbours, numbered = learn_of_encoder(
            cache.mapped(files, schema), y, order=order, taken=scan.columns
        )
        append_neighbours(numbered, files)
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
        state = digest_of_state(encoder)
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
        append_neighbours(add_neighbours(cache.mapped(files, plain), encoder._neighbours), files)
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


def _written_by_leader(cache: EncodedCache) -> tuple[EncodedFeatures, Any]:
    kept = cache.read(is_checked=True)
    if kept is None:
        raise RuntimeError(
            "the processes of one machine must see the same files in cache_dir, and this one does "
            "not see what another one has just encoded. Was it deleted, or is the folder on a "
            "disk of the network that shows files late? Start all of them again: fit reads it."
        )
    return kept


def _learn(encoder: Any, scan: Scan, team: Team) -> Schema:
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
    found = TableStatistics(roles, len(scan), folder=None if team.is_leader else team.folder)
    for start, read, _ in ScannedRows(encoder, scan, team=team).read("counting"):
        found.add(read, start)
    learnt, totals = team.told(_learnt_from(team.merged(found), encoder, scan))
    vars(encoder).update(learnt)
    encoder._neighbours, encoder._clicked_label = (), None
    say(empty_histories(totals))
    log_older_events(totals, max_length=encoder.max_length, n_rows=len(scan))
    return make_schema(
        list(scan.columns),
        roles,
        encoder._vocabularies,
        has_missing=encoder._numeric_columns.has_missing,
        max_length=encoder.max_length,
    )


def _learnt_from(
    found: TableStatistics | None, encoder: Any, scan: Scan
) -> tuple[dict[str, Any], dict[tuple[str, ...], HistoryTotals]]:
    """Attributes of the encoder, and the events of each behaviour; nothing of nothing."""
    if found is None:
        return {}, {}
    vocabularies = learn_vocabularies_from(
        found.occurrences(),
        min_frequency=encoder.min_frequency,
        max_ids=encoder.max_ids,
        keep_rare=encoder.unknown == "error",
    )
    learnt = {
        "_vocabularies": vocabularies,
        "_numeric_columns": found.numeric_columns(taken=scan.columns),
        "_event_scales": found.event_scales(),
    }
    return learnt, found.totals
