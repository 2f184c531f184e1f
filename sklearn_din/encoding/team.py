"""Processes that encode one scan together: who reads which rows, and what they tell each other."""

from __future__ import annotations

import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self, TypeVar

from sklearn_din._processes import Processes, process_group
from sklearn_din._whole_files import make_cache_folder
from sklearn_din.tables.scan import Scan

MINUTES_TO_ENCODE = 24 * 60.0  # for which the others wait; one that is killed is noticed at once

Value = TypeVar("Value")


class Mergeable(Protocol):
    """What is found in some rows, and can take in what was found in the rows behind them."""

    def merge(self, later: Self) -> None:
        """Take in what was found in later rows."""
        ...


Found = TypeVar("Found", bound=Mergeable)


class Team:
    """Processes that see one cache folder and encode the same rows into it; or one process alone.

    Each reads its share of the row groups. What they find is merged by the leader in the order of
    the rows, and what has to be computed at once (item neighbours) is computed by the leader
    alone, while the others wait. The result has the bits of one process.

    Parameters
    ----------
    processes : Processes, default=None
        All processes of the group, of which there may be several teams: one per machine. None: a
        process alone, for which each method gives back what it is given.
    members : sequence of int, default=(0,)
        Ranks of this team, in their order. The first one leads.
    folder : Path, default=None
        Of this process alone, for what it keeps for a while.
    """

    def __init__(
        self,
        processes: Processes | None = None,
        members: tuple[int, ...] = (0,),
        folder: Path | None = None,
    ) -> None:
        self._processes, self._members, self.folder = processes, members, folder
        self.n_members = len(members)
        self.place = 0 if processes is None else members.index(processes.rank)

    @property
    def is_leader(self) -> bool:
        """Whether this process does what is to be done once."""
        return self.place == 0

    def agree(self, is_so: bool) -> bool:
        """Whether the leaders of all teams say yes; the others say nothing."""
        if self._processes is None:
            return is_so
        return all(self._processes.of_all(is_so or not self.is_leader))

    def merged(self, found: Found) -> Found | None:
        """What all members have found; None in those that do not lead."""
        for its in self.from_members(found):
            found.merge(its)
        return found if self.is_leader else None

    def from_members(self, value: Value) -> Iterator[Value]:
        """Yield to the leader what each other member says, in their order."""
        if self._processes is None:
            return
        if not self.is_leader:
            self._processes.send(value, receiver=self._members[0])
            return
        for rank in self._members[1:]:
            yield self._processes.receive(sender=rank)

    def told(self, value: Value) -> Value:
        """What the leader says; what the others say is ignored."""
        if self._processes is None:
            return value
        if not self.is_leader:
            return self._processes.receive(sender=self._members[0])
        for rank in self._members[1:]:
            self._processes.send(value, receiver=rank)
        return value


@contextmanager
def encoding_team(scan: Scan, key: str) -> Iterator[Team]:
    """Join the processes that fit an encoder together, and tell them if this one fails.

    Parameters
    ----------
    scan : Scan
        The rows. Where they have no ``cache_dir``, or there is no group of several processes, a
        process encodes alone.
    key : str
        Equal where the same is encoded.
    """
    if scan.cache_dir is None or process_group() is None:
        yield Team()
        return
    remedy = "fit begins anew, nothing was kept of what they have encoded"
    processes = Processes(work="an encoding by", remedy=remedy)
    folder = scan.cache_dir / f".partial-{uuid.uuid4().hex}"
    try:
        make_cache_folder(folder, cache_dir=scan.cache_dir)
        # Shares fit together where the parts are those of all: memory decides how long they are.
        yield Team(processes, _members(processes, folder, f"{key} {scan.memory}"), folder)
        processes.of_all(None)  # the teams of other machines may need longer
    except BaseException as error:
        processes.fail(error)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    processes.end()


def _members(processes: Processes, folder: Path, key: str) -> tuple[int, ...]:
    """Ranks on this machine that encode the same into the same folder.

    Equal paths are no proof: each process looks for the folders that the others have made. Two
    machines that share a disk are two teams. They do the same work, and the first one to end puts
    its folder in place: what a machine sees of another one's files may be some seconds old.
    """
    others = processes.of_all((platform.node(), key, folder.name))
    mine = others[processes.rank]
    members = tuple(
        rank
        for rank, its in enumerate(others)
        if its[:2] == mine[:2] and (folder.parent / its[2]).is_dir()
    )
    processes.wait_up_to(MINUTES_TO_ENCODE)
    return members
