"""Calls that do not depend on each other, by as many threads as torch has."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib

Value = TypeVar("Value")
Result = TypeVar("Result")


def map_in_parallel(function: Callable[[Value], Result], values: Sequence[Value]) -> list[Result]:
    """Return the function's results in order, by threads: it should release Python's lock."""
    if len(values) > 1:
        import torch  # whoever only encodes does without

        n_threads = min(torch.get_num_threads(), joblib.cpu_count(), len(values))
        if n_threads > 1:
            with ThreadPoolExecutor(n_threads) as threads:
                return list(threads.map(function, values))
    return list(map(function, values))
