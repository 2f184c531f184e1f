"""Progress of a pass over a large table: a bar on a terminal, log messages elsewhere."""

import logging
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN = 10.0  # two lines of the log of one pass
SECONDS_BEFORE = 1.0  # a shorter pass shows no bar

_log = logging.getLogger("sklearn_din")


class Progress:
    """Shows rows per second and the time left of one pass over a table.

    Where standard error is a terminal, a bar is drawn there by tqdm, once the pass has taken a
    second. Elsewhere a line goes to the log "sklearn_din" at level INFO every ten seconds and at
    the end: ``logging.basicConfig(level="INFO")`` shows them.

    >>> with Progress("reading events", 3) as progress:
    ...     progress.update(3)
    >>> progress.n_done
    3
    """

    def __init__(self, what: str, n_rows: int) -> None:
        self.what, self.n_rows, self.n_done = what, n_rows, 0
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        self._start = self._last = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.n_rows,
                desc=self.what,
                unit="rows",
                unit_scale=True,
                delay=SECONDS_BEFORE,
                leave=False,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif kind is None:
            seconds = time.monotonic() - self._start
            rate = self.n_done / max(seconds, 1e-9)
            _log.info(f"{self.what}: {self.n_done:,} rows in {seconds:.1f} s ({rate:,.0f} rows/s)")

    def update(self, n_rows: int) -> None:
        """Count rows that are done."""
        self.n_done += n_rows
        if self._bar is not None:
            self._bar.update(n_rows)
            return
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN or not self.n_done:
            return
        self._last = now
        rate = self.n_done / (now - self._start)
        left = max(self.n_rows - self.n_done, 0) / rate
        done = f"{self.what}: {self.n_done:,} of {self.n_rows:,} rows"
        _log.info(f"{done}, {rate:,.0f} rows/s, {left:.0f} s left")
