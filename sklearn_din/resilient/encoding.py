"""Processes that fit on one scan: the first one encodes into ``cache_dir``, the others read it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

from sklearn_din.encoding.table import Impressions
from sklearn_din.resilient.ranks import Processes, end_together, is_one_of_several

MINUTES_TO_ENCODE = 24 * 60.0  # for which the others wait; one that is killed is noticed at once


@contextmanager
def first_process_first(table: Impressions, key: str) -> Iterator[None]:
    """Run the block in the first of several processes, and then in the others.

    Where the table has no ``cache_dir``, or there is no group of several processes, each process
    runs the block alone. ``key`` is equal where the same is encoded.
    """
    scan = table.scan
    if scan is None or scan.cache_dir is None or not is_one_of_several():
        yield
        return
    remedy = "fit begins anew, nothing was kept of what they have encoded"
    with end_together(Processes(work="an encoding by", remedy=remedy)) as processes:
        folder = str(scan.cache_dir.resolve())
        works = processes.of_all((platform.node(), folder, key))
        is_first = works.index(works[processes.rank]) == processes.rank
        processes.wait_up_to(MINUTES_TO_ENCODE)
        if is_first:
            yield
        processes.of_all(None)
        if not is_first:
            yield
        processes.of_all(None)
