"""Comparisons within requests of tables larger than memory: one pass over whole requests."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sklearn_din.features.request_columns import name_columns
from sklearn_din.features.store import StoreWriter, make_once
from sklearn_din.large.attached_scan import AttachedScan
from sklearn_din.logs.requests import check_compared, compare_rows, hash_requests
from sklearn_din.utils.digests import digest
from sklearn_din.utils.scan import Scan


def compare_scan(scan: Scan, request: list[str], columns: list[str]) -> AttachedScan:
    """Attach comparisons to a scan, in whose order the rows of a request follow each other."""
    check_compared(scan.frame, request, columns)
    new_names = [new for name in columns for new in name_columns(name)]
    read = scan.narrow([*request, *columns])

    def write(writer: StoreWriter) -> None:
        begun = [np.empty(0, dtype=np.uint64)]
        for new in new_names:
            writer.append(new, np.empty(0))
        for part, hashes in _whole_requests(read, request):
            for new, numbers in compare_rows(part, hashes, columns).items():
                writer.append(new, numbers)
            is_first = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
            begun.append(hashes[is_first & (hashes != 0)])
        all_begun = np.concatenate(begun)
        if n_again := len(all_begun) - len(np.unique(all_begun)):
            raise ValueError(
                f"rows of a request must follow each other in a scan, and {n_again} times one "
                f"comes back after others. Sort the table by {request} before it is written."
            )

    name = f"requests-{digest(read.fingerprint(), repr((request, columns)))[:32]}"
    store = make_once(scan.cache_dir, name, write, memory=scan.memory)
    return AttachedScan.on(scan, new_names, store)


def _whole_requests(scan: Scan, request: list[str]) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Yield parts that end where a request does, and the request of each row."""
    rest = None
    for _, part in scan.parts():
        whole = part if rest is None else pd.concat([rest, part])
        hashes = hash_requests(whole, request)
        goes_on = (hashes == hashes[-1:]) & (hashes != 0)  # rows without a request are alone
        n_whole = len(whole) - int(np.argmin(np.append(goes_on[::-1], False)))
        yield whole[:n_whole], hashes[:n_whole]
        rest = whole[n_whole:]
    if rest is not None:
        yield rest, hash_requests(rest, request)
