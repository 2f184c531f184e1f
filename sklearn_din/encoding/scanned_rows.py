"""The rows of a scan as an encoder reads them: part by part, each process its share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from sklearn_din._progress import Progress
from sklearn_din._validation import check_times, plain_values
from sklearn_din.encoding.columns import Columns
from sklearn_din.encoding.frames import ReadFrame, read_frame
from sklearn_din.encoding.lookup import refuse_unknown
from sklearn_din.encoding.roles import Roles
from sklearn_din.encoding.streamed_counts import FoundUsers, SharedOccurrences, UserCodes
from sklearn_din.encoding.team import Team
from sklearn_din.encoding.vocabulary import Occurrences
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.tables.scan import Scan

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
    team : Team, default=None
        Processes each of which reads its share of the rows. None: this one alone.
    """

    def __init__(
        self, encoder: Any, scan: Scan, roles: Roles | None = None, team: Team | None = None
    ) -> None:
        self._team = Team() if team is None else team
        self._encoder, self._scan = encoder, scan
        if self._team.n_members > 1:
            self._scan = scan.shared_out(self._team.place, self._team.n_members)
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
        found = self._team.merged(FoundUsers(plain_values(part[user]) for _, part in parts))
        return self._team.told(None if found is None else UserCodes(found))

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


def first_rows(scan: Scan) -> pd.DataFrame:
    """The first rows of a scan as one frame."""
    parts = [part for _, part in scan[:FIRST_ROWS].parts()]
    return pd.concat(parts) if parts else pd.DataFrame(columns=scan.columns)


def progress(scan: Scan, columns: Sequence[str], what: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Parts of a scan, with rows per second and the time left."""
    with Progress(what, scan.n_own_rows) as shown:
        for start, part in scan.parts(columns):
            yield start, part
            shown.update(len(part))
    pa.default_memory_pool().release_unused()  # Arrow keeps what the largest part took
