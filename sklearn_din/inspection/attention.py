"""The weight of every past event, as a table of encoded ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sklearn_din.batches.batch import Batch
from sklearn_din.batches.in_memory import ImpressionBatches
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.module import DIN

IMPRESSIONS_PER_BATCH = 1_024


def attention_table(
    module: DIN, X: EncodedFeatures, *, pooling: str, device: str | torch.device
) -> pd.DataFrame:
    """List the weight of every event in its impression's interest.

    Parameters
    ----------
    module : DIN
        Trained.
    X : EncodedFeatures
        Impressions.
    pooling : {"attention", "sum", "mean", "max"}
        How the network makes one vector of a history.
    device : str or torch.device
        Where the network is.

    Returns
    -------
    DataFrame
        As ``DINClassifier.attention_weights`` says.

    Raises
    ------
    ValueError
        Where events have no weights: ``pooling="max"``, or no history with a candidate.
    """
    behaviours = [behaviour for behaviour in X.schema.behaviours if not behaviour.is_bag]
    if pooling == "max" or not behaviours:
        raise ValueError(
            "attention_weights needs pooling='attention', 'sum' or 'mean' and a history with "
            f"a candidate, got pooling={pooling!r} and {len(behaviours)} such histories."
        )
    module.eval()
    frames, first = [], 0
    for batch, _ in ImpressionBatches(X, batch_size=IMPRESSIONS_PER_BATCH):
        weights = module.attention(batch.to(device))
        for behaviour in behaviours:
            frame = _frame_of(batch, behaviour, weights[behaviour.histories], first)
            frames.append(frame.assign(behaviour=X.schema.display_name(behaviour)))
        first += len(batch)
    columns = ["row", "behaviour", "position"]
    columns += list(dict.fromkeys(name for b in behaviours for name in b.histories))
    table = pd.concat(frames, ignore_index=True)[[*columns, "weight"]]
    return table.sort_values(["row", "behaviour", "position"], ignore_index=True)


def _frame_of(batch: Batch, behaviour: Behaviour, weights: Tensor, first: int) -> pd.DataFrame:
    """Events of one behaviour in one batch; ``first`` is the batch's first impression."""
    rows = batch.rows[behaviour.histories].cpu().numpy()
    starts = batch.offsets[behaviour.histories].cpu().numpy()[rows]
    ids = {name: pd.array(batch.ids[name].cpu().numpy(), "Int32") for name in behaviour.histories}
    return pd.DataFrame(
        {
            "row": rows + first,
            "position": np.arange(len(rows)) - starts,
            **ids,
            "weight": weights.cpu().numpy(),
        }
    )
