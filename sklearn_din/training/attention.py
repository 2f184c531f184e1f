"""The weights of attention, event by event."""

import numpy as np
import pandas as pd
import torch

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.event_table import check_weights, event_table
from sklearn_din.module import DIN
from sklearn_din.training.batches import ImpressionBatches

IMPRESSIONS_PER_BATCH = 1_024


def attention_table(
    module: DIN, X: EncodedFeatures, *, pooling: str, device: str | torch.device
) -> pd.DataFrame:
    """Return the weight of every event in its impression's interest: ``attention_weights``.

    Events have no weights with ``pooling="max"``, or without a history that has a candidate.
    """
    behaviours = check_weights(X, pooling=pooling)
    module.eval()
    weights: dict[tuple[str, ...], list[np.ndarray]] = {b.histories: [] for b in behaviours}
    for batch, _ in ImpressionBatches(X, batch_size=IMPRESSIONS_PER_BATCH):
        of_batch = module.attention(batch.to(device))
        for key, values in weights.items():
            values.append(of_batch[key].cpu().numpy())
    return event_table(X, {k: np.concatenate(v) for k, v in weights.items()}, "weight")
