"""The threads of a training: all for the native code, one for torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import torch

from sklearn_din.module import compute_alone_if_forked
from sklearn_din.native_network.logits import use_native_threads

_UNASKED = torch.get_num_threads()  # what torch takes where nobody sets a number


@contextmanager
def use_threads() -> Iterator[None]:
    """Let torch compute with one thread, unless ``torch.set_num_threads`` was asked for others.

    Threads of torch meet at some hundred barriers per step: on a quiet machine two gain a quarter,
    on a busy one a step takes up to forty times as long. The native code's threads take the next
    piece of work and do not wait for each other. They are as many as torch had, at most those
    that this process may use: of 64, a container may have 2.
    """
    compute_alone_if_forked()
    before = torch.get_num_threads()
    most = min(before, joblib.cpu_count())
    torch.set_num_threads(1 if before == _UNASKED else most)
    try:
        with use_native_threads(most):
            yield
    finally:
        torch.set_num_threads(before)
