"""The exchange between processes that train one model, for a single process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.module import DIN

if TYPE_CHECKING:
    from skorch import NeuralNet

Exchanged = TypeVar("Exchanged")


class Given(NamedTuple):
    """What a training is given: the net's parameters, and rows as its target has encoded them."""

    net: NeuralNet
    X: EncodedFeatures
    y: np.ndarray
    weights: np.ndarray | None
    groups: ArrayLike | None = None
    goes_on: bool = False  # from a network that was trained before


class Alone:
    """One process at a training: every sum is its own summand, and all values are its own.

    ``resilient/ranks.py`` has the same for several processes, which call every method together.

    >>> Alone().from_first("mine"), Alone().of_all("mine")
    ('mine', ['mine'])
    """

    rank, size = 0, 1
    has_agreed = True  # whether all processes stop at this moment
    stop: Literal["user", "callback"] | None = None  # why they do, where they had to agree

    def device_for(self, device: str) -> str:
        """Return the device that this process trains on."""
        return device

    def from_first(self, value: Exchanged) -> Exchanged:
        """Return the value of rank 0."""
        return value

    def of_all(self, value: Exchanged) -> list[Exchanged]:
        """Return the values of all processes in the order of their ranks."""
        return [value]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in rank 0, and then in the others."""
        if self.rank > 0:
            self.of_all(None)
        yield
        if self.rank == 0:
            self.of_all(None)

    def sum_gradients(self, module: DIN, loss: Tensor, *, by_user: bool) -> Tensor:
        """Sum gradients over the processes, average running moments; return the sum of the losses.

        ``by_user`` says whether Ctrl-C was pressed in this process.
        """
        return loss

    def join_logits(self, step: dict[str, Tensor], n_rows: int) -> dict[str, Tensor]:
        """Return loss and logits of all ``n_rows`` of a joint batch."""
        return step

    def check_given(self, given: Given) -> None:
        """Raise where two processes were given different parameters or data."""

    def check_same(self, describe: Callable[[], dict[str, dict[str, Any]]]) -> None:
        """Raise where what two processes were given is described differently."""

    def check_same_weights(self, module: nn.Module) -> None:
        """Raise where the processes have ended with different weights."""

    def postpone_stop(self, event: str, reason: str) -> bool:
        """Return whether the stop of a callback has to wait until all processes know of it."""
        return False

    def share_stops(self, *, by_user: bool) -> None:
        """Share with all processes whether this one stops."""
