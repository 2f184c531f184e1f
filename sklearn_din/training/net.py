"""The skorch net behind DINClassifier: how a batch is fed, the loss, the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.utils import TeeGenerator
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.batches.batch import Batch
from sklearn_din.batches.in_memory import ImpressionBatches, ScoringBatches
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.network.embeddings import FieldEmbeddings
from sklearn_din.training.optim import RowwiseRMSprop

COUNTED_ROWS = 1 << 16  # impressions whose ids are counted at a time, for the memory's sake


def keep_freed_memory() -> None:
    """Have glibc keep the memory that one step frees for the next one.

    A step frees tens of megabytes, glibc gives them back to the system, and the next step pays a
    page fault for every 4 KiB: a third of the step's time. Freeing one large block raises both
    of glibc's dynamic thresholds (mallopt(3), M_MMAP_THRESHOLD). The block is never touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class TrainingRows(NamedTuple):
    """What ``DINNet.fit`` takes as X: batches to learn from, and to look at if any."""

    train: ImpressionBatches
    valid: ImpressionBatches | None


class DINNet(NeuralNetBinaryClassifier):
    """skorch net over opaque batches, with one optimizer for tables and one for the rest.

    ``predict_proba`` takes EncodedFeatures. The net never keeps rows it was trained on.

    Parameters
    ----------
    module, *args, **kwargs
        As for :class:`skorch.NeuralNetBinaryClassifier`.
    embedding_lr : float, default=0.001
        Learning rate of the embedding tables.
    embedding_decay : dict of str to Tensor, default=None
        By table, each row's factor of the mini-batch aware L2.
    """

    def __init__(
        self,
        module: Any,
        *args: Any,
        embedding_lr: float = 0.001,
        embedding_decay: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        self.embedding_lr = embedding_lr
        self.embedding_decay = embedding_decay
        super().__init__(module, *args, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
        ]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> DINNet:
        """Adam for dense parameters, the row-wise optimizer for the embedding tables."""
        embeddings = self.module_.embeddings
        tables = dict(embeddings.tables.items())
        is_table = {id(table) for table in tables.values()}
        dense = [p for p in self.module_.parameters() if id(p) not in is_table]
        self.optimizer_ = torch.optim.Adam(dense, lr=self.lr, fused=True)
        if tables:
            decay = {w: d.to(self.device) for w, d in (self.embedding_decay or {}).items()}
            groups: Any = [
                {"params": [table], "starts": embeddings.starts(width), "decay": decay.get(width)}
                for width, table in tables.items()
            ]
            self.embedding_optimizer_ = RowwiseRMSprop(groups, lr=self.embedding_lr)
        return self

    def forget_training(self) -> None:
        """Let go of the optimizers' moments and of the tables' decay."""
        self.embedding_decay = None
        for name in self._optimizers:
            optimizer = getattr(self, f"{name}_")
            optimizer.state.clear()
            for group in optimizer.param_groups:
                if "decay" in group:  # a further step finds none
                    group["decay"] = None

    def check_data(self, X: Any, y: Any = None) -> None:
        """Leave the checks to DINClassifier, which made the batches."""

    def get_dataset(self, X: Any, y: Any = None) -> ScoringBatches:
        """Batches of encoded impressions in order."""
        if not isinstance(X, EncodedFeatures):
            raise TypeError(
                f"net_ takes EncodedFeatures, got {type(X).__name__}. "
                "Call the encoder's transform first, or predict with the classifier."
            )
        return ScoringBatches(X)

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **kwargs: Any) -> DINNet:
        """Train as skorch does."""
        keep_freed_memory()
        return super().fit_loop(X, y, epochs, **kwargs)

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Return the training and the validation batches."""
        return X.train, X.valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Batches are their own iterator: whole index blocks, no collate step."""
        return dataset

    def infer(self, x: Batch, **fit_params: Any) -> Tensor:
        """Batch -> logits (n,)."""
        return self.module_(x.to(self.device))

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False
    ) -> Tensor:
        """Weighted negative log-likelihood of the click."""
        loss = F.binary_cross_entropy_with_logits(
            y_pred, y_true.to(y_pred.device), weight=X.weights
        )
        if not torch.isfinite(loss):
            raise ValueError(self._divergence_message(X))
        return loss

    def _divergence_message(self, batch: Batch) -> str:
        numeric = self.module_.schema.names("numeric")
        hint = ""
        if numeric:
            scales = batch.numbers.abs().amax(dim=0)
            largest = int(scales.argmax())
            hint = f" Largest number: {float(scales[largest]):.3g} in column {numeric[largest]!r}."
        return (
            f"the loss is no longer finite in epoch {len(self.history)} with lr={self.lr:g} and "
            f"embedding_lr={self.embedding_lr:g}.{hint} Lower the learning rates, or standardise "
            "the numeric columns (HistorySequenceEncoder does)."
        )

    def _set_training(self, training: bool = True) -> None:
        """As skorch does before each batch, but walk through the modules only to change them."""
        if self.module_.training != training:
            super()._set_training(training)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """One step of both optimizers; skorch's own would run the batch once for each."""
        self._zero_grad_optimizer(set_to_none=True)
        step = self.train_step_single(batch, **fit_params)
        named = TeeGenerator(self._named_gradients())
        self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self._step_optimizer(None)
        return step

    def _named_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters for callbacks; a table's touched rows stand in for the table.

        Their gradient is the sparse gradient's own memory, each row once: what a callback does
        to it (clipping) reaches the optimizer.
        """
        for name, parameter in self.get_all_learnable_params():
            if parameter.grad is not None and parameter.grad.is_sparse:
                rows = parameter.grad._values()
                parameter = torch.empty_like(rows)
                parameter.grad = rows
            yield name, parameter


def embedding_decay(
    X: EncodedFeatures, embeddings: FieldEmbeddings, strength: float
) -> dict[str, Tensor]:
    """Factors of the mini-batch aware L2: ``strength / n_j`` for each row j of each table.

    n_j is the number of times that id j occurs in X, as a candidate, elsewhere, or in histories
    (paper, section 5.1).
    """
    counts = {width: np.zeros(len(table)) for width, table in embeddings.tables.items()}
    for first in range(0, len(X), COUNTED_ROWS):
        block = X[first : first + COUNTED_ROWS]
        ids = {name: block.columns[name] for name in X.schema.names("categorical")}
        for behaviour in X.schema.behaviours:
            ragged = block.behaviours[behaviour.histories]
            index = ragged.spans.index()
            ids |= {name: ragged.flat(name, index) for name in behaviour.histories}
        for name, values in ids.items():
            found = np.bincount(values)
            start = embeddings.offset_of[embeddings.vocabulary_of[name]]
            counts[str(embeddings.width(name))][start : start + len(found)] += found
    return {
        width: torch.from_numpy((strength / np.maximum(count, 1)).astype(np.float32))
        for width, count in counts.items()
    }
