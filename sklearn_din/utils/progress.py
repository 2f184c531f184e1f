"""Progress of a pass over a large table: a bar on a terminal, log messages elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

SECONDS_BETWEEN = 10.0  # two lines of the log of one pass
SECONDS_BEFORE = 1.0  # a shorter pass shows no bar


def show_progress(
    parts: Iterable[Any], what: str, n_rows: int, *, seconds_before: float | None = None
) -> Iterator[Any]:
    """Yield the parts of a table; show rows per second and the time left of the pass over it.

    By a bar where standard error is a terminal, else to the log "sklearn_din" at level INFO every
    ten seconds and at the end. Parts are sized, or tuples whose last element is. A bar is shown
    after ``seconds_before``; None: after a second.
    """
    log, n_done, start = logging.getLogger("sklearn_din"), 0, time.monotonic()
    last, bar = start, None
    if sys.stderr is not None and sys.stderr.isatty():  # a bar that is off starts a thread, too
        from tqdm.auto import tqdm

        style: Any = {"unit": "rows", "unit_scale": True, "leave": False}
        bar = tqdm(
            total=n_rows,
            desc=what,
            delay=SECONDS_BEFORE if seconds_before is None else seconds_before,
            **style,
        )
    with nullcontext() if bar is None else bar:
        for part in parts:
            yield part
            n_part = len(part[-1] if isinstance(part, tuple) else part)
            n_done += n_part
            now = time.monotonic()
            if bar is not None:
                bar.update(n_part)
            elif n_done and now - last >= SECONDS_BETWEEN:
                last, rate = now, n_done / (now - start)
                done = f"{what}: {n_done:,} of {n_rows:,} rows, {rate:,.0f} rows/s"
                log.info(f"{done}, {max(n_rows - n_done, 0) / rate:.0f} s left")
    if bar is None:
        seconds = time.monotonic() - start
        rate = n_done / max(seconds, 1e-9)
        log.info(f"{what}: {n_done:,} rows in {seconds:.1f} s ({rate:,.0f} rows/s)")
