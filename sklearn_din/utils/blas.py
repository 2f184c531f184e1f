"""Products and inverses of matrices by one thread of BLAS, which is numpy's and scipy's library."""

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

_turn = threading.Lock()


def _renew() -> None:
    """Give a forked child a lock of its own: the thread that held the old one is not there."""
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def one_thread_of_blas() -> Iterator[None]:
    """Let BLAS compute with one thread within the block, and with as many as before afterwards.

    OpenBLAS's threads wait for each other by spinning: beside two busy loops on two processors, the
    inverses of item neighbours take up to ten times the processor's time with two threads
    (``python -m benchmarks.speed busy``). Their number is that of the process: threads take turns.
    """
    with _turn, _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> ThreadpoolController:
    """Look for numpy's and scipy's BLAS once: it takes milliseconds."""
    import scipy.linalg  # noqa: F401  (loads one of its own)

    return ThreadpoolController().select(user_api="blas")
