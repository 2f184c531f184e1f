"""What one training needs, wherever the impressions lie: batches, network, rates, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_din.batches.batch import Batch
from sklearn_din.batches.in_memory import Place
from sklearn_din.module import DIN
from sklearn_din.training.distributed import Ranks
from sklearn_din.training.novelty import Novelty

Batches = Iterable[tuple[Batch, Tensor]]  # the batch's impressions and their clicks (n,)


class TrainingBatches(Protocol):
    """Batches in an order that a later training can go on with."""

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        """One pass, or what was left of it."""

    def place(self) -> Place:
        """Where the order stands."""

    def go_to(self, place: Place) -> None:
        """Put the order where another one stood."""

    def share_among(self, n_ranks: int, *, rank: int) -> None:
        """Give each of several processes its slice of each batch."""


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What one training needs. Batches may come from memory or from elsewhere.

    Parameters
    ----------
    train : iterable of (Batch, Tensor of shape (n,))
        Batches to learn from, and their clicks. One pass ends where the next validation check
        is due; ``checks_per_epoch`` passes are one epoch. A checkpoint asks for their place.
    valid : iterable of (Batch, Tensor of shape (n,)) or None
        Batches of one validation check, and their clicks. None: no checks, no early stopping.
    checks_per_epoch : int
        Passes over ``train`` in an epoch, each followed by a validation check.
    batches_per_epoch : int
        Training batches in an epoch, for the progress bar.
    make_module : callable
        Returns a new network. It is called under ``seed``.
    embedding_decay : dict of str to ndarray of shape (n_ids,), or None
        By vocabulary, each id's factor of the mini-batch aware L2. None: no such L2.
    lr : float
        Learning rate of everything but the embeddings.
    embedding_lr : float
        Learning rate of the embeddings.
    max_epochs : int
        Most epochs.
    patience : int
        Validation checks without a smaller loss before training stops.
    callbacks : sequence of skorch callbacks
        The user's own.
    verbose : int
        0 is silent, 1 shows a progress bar.
    device : str
        torch device.
    seed : int
        Of torch: initial weights, dropout, hidden numbers.
    batch_size : int
        Impressions per training batch; the last one of an epoch may have fewer.
    order : RandomState
        Draws the order of the impressions.
    occurrences : dict of str to ndarray of shape (n_ids,)
        By vocabulary, how often each id occurs in the impressions trained on, in earlier
        trainings too. Empty without L2 on embeddings.
    novelty : dict of str to float, default={}
        By candidate column, the share of the last rows whose id no row before has.
    hiding : Novelty or None, default=None
        Which ids each training step hides. None: none.
    checkpoint : skorch callback, default=None
        Called after all others: keeps what a training goes on from. None: nothing is kept.
    ranks : Ranks or None, default=None
        The processes that train together. None: this one trains alone.
    """

    train: TrainingBatches
    valid: Batches | None
    checks_per_epoch: int
    batches_per_epoch: int
    make_module: Callable[[], DIN]
    embedding_decay: Mapping[str, np.ndarray] | None
    lr: float
    embedding_lr: float
    max_epochs: int
    patience: int
    callbacks: tuple[Callback, ...]
    verbose: int
    device: str
    seed: int
    batch_size: int
    order: np.random.RandomState
    occurrences: Mapping[str, np.ndarray]
    novelty: Mapping[str, float] = field(default_factory=dict)
    hiding: Novelty | None = None
    checkpoint: Callback | None = None
    ranks: Ranks | None = None

    @property
    def n_checks(self) -> int:
        """Most passes over ``train``: rows that the history can have."""
        return self.max_epochs * self.checks_per_epoch
