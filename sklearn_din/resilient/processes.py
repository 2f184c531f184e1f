"""Processes of a torch group that do one piece of work, and what happens if one of them is gone."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar

Exchanged = TypeVar("Exchanged")

MINUTES_TO_WAIT = 10.0  # for a process that is slower than the others, or gone without a trace
SECONDS_FOR_REASON = 3.0  # for the others to give their reasons, after one has ended
MOST_LETTERS = 2_000  # of an error that is sent to the others


def process_group() -> ModuleType | None:
    """``torch.distributed`` where this process is one of several in a group; None elsewhere.

    torch is never imported here: where nothing else has, there is no group.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return dist if dist.get_world_size() > 1 else None


class Processes:
    """All processes of torch's group, at one piece of work, and the values that they exchange.

    Every method is called by all of them, in the same order. They wait for each other there. A
    process that ends the work with an error says so and closes its connections, so that none of the
    others waits for it. ``work`` ("a training of") and ``remedy``, what happens when all are
    started again, are for what is said when a process is gone.
    """

    def __init__(self, *, work: str, remedy: str) -> None:
        self._dist: ModuleType = sys.modules["torch.distributed"]
        self.rank, self.size = self._dist.get_rank(), self._dist.get_world_size()
        self._work, self._remedy = work, remedy
        self._is_closed, self._key = False, ""
        self._groups: list[Any] = []
        # Groups of their own: they can be closed when the work fails, and the user's stays.
        # The one name here that torch does not document: its store, where a process that has lost
        # its connections can still leave a message for the others.
        self._store = self._dist.distributed_c10d._get_default_store()
        self._on_cpu = self.open("gloo")
        self._key = self.from_first(f"sklearn_din/{uuid.uuid4().hex}")

    def open(self, backend: str | None, *, minutes: float | None = None) -> Any:
        """Open a further group; that of the user's backend, where none is named."""
        timeout = timedelta(minutes=MINUTES_TO_WAIT if minutes is None else minutes)

        def new() -> None:
            self._groups.append(self._dist.new_group(backend=backend, timeout=timeout))

        self.call(new)
        return self._groups[-1]

    def wait_up_to(self, minutes: float) -> None:
        """Let the others compute for so long from here on before one of them answers."""
        self._on_cpu = self.open("gloo", minutes=minutes)

    def from_first(self, value: Exchanged) -> Exchanged:
        """Return the value of rank 0; those of the others are ignored."""
        values = [value]
        self.call(lambda: self._dist.broadcast_object_list(values, src=0, group=self._on_cpu))
        return values[0]

    def of_all(self, value: Exchanged) -> list[Exchanged]:
        """Values of all processes in the order of their ranks."""
        values: list[Any] = [None] * self.size
        self.call(lambda: self._dist.all_gather_object(values, value, group=self._on_cpu))
        return values

    def end(self) -> None:
        """Close the connections when all processes have ended their work."""
        keys = [f"{self._key}/{rank}" for rank in range(self.size)]
        with suppress(RuntimeError):  # the process that holds the store may have ended
            self._store.set(keys[self.rank], "")
            self._store.wait(keys, timedelta(minutes=MINUTES_TO_WAIT))
        self._close()

    def fail(self, error: BaseException) -> None:
        """Tell the others what ended the work here, and close the connections."""
        if not self._is_closed:
            self._leave(f"{type(error).__name__}: {error}"[:MOST_LETTERS])

    def call(self, operation: Callable[[], object]) -> None:
        """Call an operation of torch; its error becomes one that says which process is gone."""
        try:
            operation()
        except RuntimeError as error:
            self._leave("")
            raise RuntimeError(self._reason()) from error

    def _leave(self, reason: str) -> None:
        """End without the others; an empty reason where another process failed first."""
        with suppress(RuntimeError):  # the process that holds the store may have ended
            self._store.set(f"{self._key}/{self.rank}", reason)
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        for group in self._groups:
            with suppress(RuntimeError):
                self._dist.destroy_process_group(group)

    def _reason(self) -> str:
        reasons = self._reasons()
        ended = [f"rank {rank} ended with {text}" for rank, text in reasons.items() if text]
        silent = [rank for rank in range(self.size) if rank not in reasons]
        cause = " and ".join(ended) or f"{name_ranks(silent)} is gone or does not answer"
        return (
            f"{self._work} {self.size} processes needs all of them, and {cause}. Rank "
            f"{self.rank} has ended too. Start all of them again: {self._remedy}."
        )

    def _reasons(self) -> dict[int, str]:
        """Return the reasons of the processes that ended: empty text where one lost another."""
        others = {rank: f"{self._key}/{rank}" for rank in range(self.size) if rank != self.rank}
        reasons = {self.rank: ""}
        try:
            self._store.wait(list(others.values()), timedelta(seconds=SECONDS_FOR_REASON))
        except self._dist.DistNetworkError:  # the process that holds the store has ended
            return reasons
        except RuntimeError:  # one of them gave no reason in time
            pass
        with suppress(RuntimeError):
            for rank, key in others.items():
                if self._store.check([key]):
                    reasons[rank] = self._store.get(key).decode()
        return reasons


def name_ranks(ranks: list[int]) -> str:
    """Name ranks in a sentence.

    Examples
    --------
    >>> name_ranks([0]), name_ranks([1, 2])
    ('rank 0', 'ranks 1, 2')
    """
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
