"""torch's global random state, lent to one training at a time."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

_turn = threading.RLock()


def _renew() -> None:
    """Give a forked child a lock of its own: the thread that held the old one is not there."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def seed_torch(seed: int, *, devices: Sequence[int]) -> Iterator[None]:
    """Seed torch within the block, and leave its random state, and that of GPUs, as it was.

    The state is one for the whole process: weights and dropout are drawn from it. Threads that
    train at once would draw from each other's seeds, and the last one would put back a state that
    another had seeded. So they take turns.

    >>> before = torch.random.get_rng_state()
    >>> with seed_torch(0, devices=[]):
    ...     drawn = torch.rand(1)
    >>> torch.equal(torch.random.get_rng_state(), before)
    True
    """
    with _turn, torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


def own_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """As scikit-learn's check, but None draws fresh entropy, not from numpy's global state."""
    if random_state is not None:
        return check_random_state(random_state)
    return np.random.RandomState(np.random.SeedSequence().generate_state(4))


def plain_random_state(random_state: np.random.RandomState) -> list[Any]:
    """Return a RandomState as numbers and a tensor."""
    _, keys, position, has_gauss, gauss = random_state.get_state(legacy=True)
    numbers = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return [numbers, int(position), int(has_gauss), float(gauss)]


def random_state_of(values: list[Any]) -> np.random.RandomState:
    """Return the RandomState that :func:`plain_random_state` wrote."""
    keys, *others = values
    random_state = np.random.RandomState(0)
    random_state.set_state(("MT19937", keys.numpy().astype(np.uint32), *others))
    return random_state
