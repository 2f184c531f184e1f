"""Products and inverses of matrices by one thread of BLAS, which is numpy's and scipy's library."""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
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
    """Let BLAS compute with one thread within the block.

    OpenBLAS's threads wait by spinning: beside two busy loops on two processors, the inverses of
    item neighbours take up to ten times as long with two (``python -m benchmarks.speed busy``).
    """
    with _turn, _libraries().limit(limits=1, user_api="blas"):
        yield


def invert(matrix: np.ndarray) -> bool:
    """Write the upper triangle of a matrix's inverse over its own; False where it has none.

    LAPACK is called by ctypes, which releases the interpreter's lock; scipy's functions hold it.

    matrix : (n, n), float32, symmetric and positive definite, in Fortran's order
    """
    size, code = np.zeros((2, 1), dtype=np.int64)  # read as int32 or int64
    size[0] = len(matrix)
    for function in _inverting():
        function(b"U", *(of.ctypes.data for of in (size, matrix, size, code)))
        if code[0]:
            return False
    return True


@functools.cache
def _inverting() -> list[Callable[..., None]]:
    """Return LAPACK's factorization and what inverts by it."""
    from scipy.linalg import cython_lapack

    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_char_p, *[ctypes.c_void_p] * 4])
    capsules = [cython_lapack.__pyx_capi__[name] for name in ("spotrf", "spotri")]
    return [kind(address_of(capsule, name_of(capsule))) for capsule in capsules]


@functools.cache
def _libraries() -> ThreadpoolController:
    """Look for numpy's and scipy's BLAS once: it takes milliseconds."""
    import scipy.linalg  # noqa: F401  (loads one of its own)

    return ThreadpoolController().select(user_api="blas")
