"""One batch: tensors of some impressions, real events only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures


class Batch:
    """Tensors of some impressions: real events only, one flat list per behaviour.

    Parameters
    ----------
    X : EncodedFeatures
        The impressions of this batch.
    weights : ndarray of shape (n,), default=None
        Factor of each impression's loss.
    shared : bool, default=False
        Whether all impressions have the first one's histories, which are then held once:
        the batch has one row of events and many candidates.

    Attributes
    ----------
    numbers : Tensor of shape (n, n_numeric), float32
    ids : dict of str to Tensor, int32
        (n,) for a categorical field, (n_events,) for a history.
    event_numbers : dict of str to Tensor of shape (n_events,), float32
        Numeric histories.
    rows : dict of tuple of str to Tensor of shape (n_events,), int64
        By the histories of each behaviour: the impression of each event.
    offsets : dict of tuple of str to Tensor of shape (n + 1,), int64
        By the histories of each behaviour: where each impression's events begin.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import EncodedFeatures, Field, Schema
    >>> schema = Schema((Field("price", "numeric"),))
    >>> batch = Batch(EncodedFeatures(schema, {"price": np.ones(3, dtype="float32")}))
    >>> len(batch), batch.numbers.shape
    (3, torch.Size([3, 1]))
    """

    def __init__(
        self, X: EncodedFeatures, weights: np.ndarray | None = None, *, shared: bool = False
    ) -> None:
        self.n_rows = len(X)
        self.shared = shared
        self.weights = None if weights is None else torch.from_numpy(weights)
        numeric = X.schema.names("numeric")
        numbers = [X.columns[name] for name in numeric]
        self.numbers = torch.from_numpy(np.stack(numbers, axis=1)) if numbers else torch.empty(0)
        categorical = X.schema.names("categorical")
        self.ids = {n: torch.from_numpy(np.ascontiguousarray(X.columns[n])) for n in categorical}
        self.event_numbers: dict[str, Tensor] = {}
        self.rows: dict[tuple[str, ...], Tensor] = {}
        self.offsets: dict[tuple[str, ...], Tensor] = {}
        for behaviour in X.schema.behaviours:
            ragged = X.behaviours[behaviour.histories]
            if shared:
                ragged = ragged.take(slice(0, 1))
            index = ragged.spans.index()
            for name in behaviour.histories:
                self.ids[name] = torch.from_numpy(ragged.flat(name, index))
            for name in behaviour.numbers:
                self.event_numbers[name] = torch.from_numpy(ragged.flat(name, index))
            lengths = ragged.spans.lengths
            offsets = np.zeros(len(ragged) + 1, dtype=np.int64)
            np.cumsum(lengths, out=offsets[1:])
            self.offsets[behaviour.histories] = torch.from_numpy(offsets)
            rows = np.repeat(np.arange(len(ragged)), lengths)
            self.rows[behaviour.histories] = torch.from_numpy(rows)

    def __len__(self) -> int:
        return self.n_rows

    def to(self, device: str | torch.device) -> Batch:
        """Move every tensor to the device; the same object on the CPU."""
        if torch.device(device).type == "cpu":
            return self
        self.numbers = self.numbers.to(device)
        self.weights = None if self.weights is None else self.weights.to(device)
        groups: list[dict[Any, Tensor]] = [self.ids, self.event_numbers, self.rows, self.offsets]
        for group in groups:
            group.update({key: tensor.to(device) for key, tensor in group.items()})
        return self
