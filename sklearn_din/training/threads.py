"""The number of threads of a training step: one or all, whichever is faster."""

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import torch
from torch import Tensor, nn

from sklearn_din.module import DIN, compute_alone_if_forked
from sklearn_din.network.fused import attend, can_fuse, logits_of
from sklearn_din.network.layers import MLP, ActivationUnit
from sklearn_din.network.segments import alike_for_all_threads

SMALL_STEP = 1 << 13  # rows and events; below, one thread is nearly as fast as two
TRIAL_STEPS = 4
WARM_UP_STEPS = 2  # the first steps of a process are slow with any number of threads
PAUSE = 1.0  # minimum seconds between two trials
PAY_OFF = 100.0  # the next trial comes after this many times the seconds that a trial lost
LARGEST_BATCH = 1 << 15  # rows up to which torch sums the losses with one thread
SLOWER = 2.0  # slowdown of several threads that indicates a busy machine


class ThreadChoice:
    """One thread or ``most`` for each next step, by the seconds of those before.

    Threads meet at some hundred barriers per step. On a quiet machine two of them gain a quarter.
    Where another process wants their processors, each barrier waits until the system's scheduler
    returns to the thread that it put aside: a step takes up to forty times as long. So the number
    in use is compared with the other one, a few steps each, again and again. A trial ends once it
    has lost, and the more it has lost, the later comes the next one. More threads are not tried
    where no processor waits for them, nor where the first step is small.

    Parameters
    ----------
    most : int
        The other number of threads than one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.n_threads = 1
        self._is_small: bool | None = None  # set by the first step
        self._n_steps = -WARM_UP_STEPS  # with the current number of threads, not counting trials
        self._usual = self._fastest = 0.0  # seconds per unit of size, recently and at best
        self._pause = 0.0  # seconds until the next trial
        self._n_left = 0  # remaining steps of the current trial
        self._lost = 0.0  # extra seconds of the current trial

    @contextmanager
    def step(self, size: int) -> Iterator[None]:
        """Take a step of some size, with the threads that were chosen for it."""
        if self._is_small is None:
            self._is_small = size < SMALL_STEP
        if self._is_small:
            yield
            return
        if torch.get_num_threads() != self.n_threads:
            torch.set_num_threads(self.n_threads)
        token = alike_for_all_threads.set(True)
        began = time.perf_counter()
        try:
            yield
        finally:
            alike_for_all_threads.reset(token)
        self.note(time.perf_counter() - began, size)

    def note(self, seconds: float, size: int) -> None:
        """Take the seconds of a step, and choose the threads of the next one."""
        if self._n_left:
            self._go_on_with_trial(seconds, size)
            return
        self._n_steps += 1
        if self._n_steps <= 0:
            return
        self._usual += (seconds / size - self._usual) / min(self._n_steps, TRIAL_STEPS)
        self._pause -= seconds
        if self._n_steps < TRIAL_STEPS:
            return
        self._fastest = min(self._fastest, self._usual)
        is_slower = self.n_threads > 1 and self._usual > SLOWER * self._fastest
        if not is_slower and self._pause > 0:
            return
        if self.n_threads == 1 and not are_idle(self.most - 1):
            self._pause = PAUSE
            return
        self._n_left, self._lost = TRIAL_STEPS, 0.0
        self._exchange()

    def _go_on_with_trial(self, seconds: float, size: int) -> None:
        usual = self._usual * size
        self._n_left -= 1
        self._lost += seconds - usual
        if self._n_left and self._lost < TRIAL_STEPS * usual:
            return
        self._n_left, self._fastest = 0, float("inf")
        self._pause = max(PAUSE, PAY_OFF * self._lost)
        if self._lost < 0:
            self._n_steps = 0
        else:
            self._exchange()

    def _exchange(self) -> None:
        self.n_threads = self.most if self.n_threads == 1 else 1


def are_idle(n_processors: int) -> bool:
    """Return whether so many processors are idle, by the system's load; True if unknown."""
    try:
        fields = Path("/proc/loadavg").read_text(encoding="ascii").split()
    except OSError:
        return True
    n_runnable = int(fields[3].split("/")[0])  # this thread is one of them
    return n_runnable + n_processors <= (os.cpu_count() or 1)


@contextmanager
def choose_threads(module: nn.Module, *, may_choose: bool) -> Iterator[ThreadChoice | None]:
    """Choose threads for the steps of a network, and leave torch with those that it had.

    Never more than torch has (``torch.set_num_threads``, ``OMP_NUM_THREADS``), nor than the
    processors that this process may use: of 64, a container may have 2. None where the number of
    threads could change the last bits of a result.
    """
    compute_alone_if_forked()
    before = torch.get_num_threads()
    most = min(before, joblib.cpu_count())
    choice = None
    if most > 1 and may_choose and is_fused(module) and sums_are_alike(most):
        choice = ThreadChoice(most)
    n_threads = most if choice is None else choice.n_threads
    if n_threads != before:
        torch.set_num_threads(n_threads)
    try:
        yield choice
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def is_fused(module: nn.Module) -> bool:
    """Return whether all sums over many rows are those of ``network/fused.py``."""
    if type(module) is not DIN or module.has_labels or not can_fuse(module.mlp):
        return False
    attending = [part for part in module.interest_modules if part.pooling == "attention"]
    return all(part.normalization != "softmax" and can_fuse(part.unit.above) for part in attending)


@functools.cache
def sums_are_alike(most: int) -> bool:
    """Return whether one thread and ``most`` give the same bits, by a small network's gradients."""
    before = torch.get_num_threads()
    token = alike_for_all_threads.set(True)
    try:
        gradients = []
        for n_threads in (1, most):
            torch.set_num_threads(n_threads)
            gradients.append(_gradients())
    finally:
        alike_for_all_threads.reset(token)
        torch.set_num_threads(before)
    return all(map(torch.equal, *gradients))


def _gradients() -> list[Tensor]:
    n_rows, n_events, width = 257, 5_003, 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = ActivationUnit(width, 3, units=(64, 16), activation="prelu")
        mlp = MLP(2 * width, (200, 80), activation="prelu")
        output = nn.Linear(80, 1)
        queries = torch.randn(n_rows, width, requires_grad=True)
        keys = torch.randn(n_events, width, requires_grad=True)
        relations = torch.randn(n_events, 3)
    rows = (torch.arange(n_events) % n_rows).sort().values
    offsets = torch.searchsorted(rows, torch.arange(n_rows + 1))
    interest, _ = attend(unit, queries, keys, relations, rows, offsets)
    logits = logits_of(mlp, output, torch.cat([queries, interest], dim=1))
    parameters = [*unit.parameters(), *mlp.parameters(), *output.parameters()]
    return list(torch.autograd.grad(logits.square().sum(), [queries, keys, *parameters]))
