"""The weight of every past event: as a table of ids, and in the caller's own values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.inspection.fitted import FittedPipeline, split_pipeline
from sklearn_din.module import DIN
from sklearn_din.network.batch import Batch
from sklearn_din.training.batches import ImpressionBatches

IMPRESSIONS_PER_BATCH = 1_024
KEYS = ("row", "behaviour", "position")


def explain(pipeline: BaseEstimator, X: object) -> pd.DataFrame:
    """Return how much each past event counted for each impression, in the caller's own values.

    The Pipeline's twin of :meth:`DINClassifier.attention_weights`.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
    X : DataFrame
        Impressions, as given to the Pipeline's ``predict_proba``.

    Returns
    -------
    DataFrame
        One row per event, oldest first: row (position of the impression in X), behaviour,
        position (0 is the oldest event kept), one column of original values per attribute
        (None for a value not seen at fit, and where the behaviour lacks the attribute), weight,
        and share: the weight over the sum of absolute weights of the impression's behaviour,
        so that shares compare across impressions.

    Raises
    ------
    TypeError
        If ``pipeline`` is not such a Pipeline.
    ValueError
        If the classifier has no attention: ``pooling="max"``, or no history.

    See Also
    --------
    sklearn_din.inspection.display.AttentionDisplay : The same as a picture.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(pooling="mean", max_epochs=1)
    ... ).fit(shown, [0, 1])
    >>> explain(model, shown).drop(columns="behaviour")
       row  position hist_item  weight  share
    0    0         0      sock     1.0    1.0
    1    1         0       hat     0.5    0.5
    2    1         1      shoe     0.5    0.5
    """
    fitted = split_pipeline(pipeline, purpose="explain")
    return decode_weights(fitted, fitted.encode(X))


def decode_weights(pipeline: FittedPipeline, X: EncodedFeatures) -> pd.DataFrame:
    """Return attention weights with original values in place of ids, and each weight's share."""
    table = pipeline.classifier.attention_weights(X)
    for name in table.columns.drop([*KEYS, "weight"]):
        values = pipeline.decode(name, table[name])
        table[name] = pd.Series(values, index=table.index, dtype=object)
    totals = table["weight"].abs().groupby([table["row"], table["behaviour"]]).transform("sum")
    table["share"] = (table["weight"] / totals.where(totals > 0, 1.0)).astype("float32")
    return table


def attention_table(
    module: DIN, X: EncodedFeatures, *, pooling: str, device: str | torch.device
) -> pd.DataFrame:
    """Return the weight of every event in its impression's interest: ``attention_weights``.

    Events have no weights with ``pooling="max"``, or without a history that has a candidate.
    """
    behaviours = [behaviour for behaviour in X.schema.behaviours if not behaviour.is_bag]
    if pooling == "max" or not behaviours:
        raise ValueError(
            "attention_weights needs pooling='attention', 'sum' or 'mean' and a history with "
            f"a candidate, got pooling={pooling!r} and {len(behaviours)} such histories."
        )
    module.eval()
    frames, first_row = [], 0
    for batch, _ in ImpressionBatches(X, batch_size=IMPRESSIONS_PER_BATCH):
        weights = module.attention(batch.to(device))
        for behaviour in behaviours:
            frame = _weights_of_batch(batch, behaviour, weights[behaviour.histories], first_row)
            frames.append(frame.assign(behaviour=X.schema.display_name(behaviour)))
        first_row += len(batch)
    attributes = dict.fromkeys(name for b in behaviours for name in b.histories)
    table = pd.concat(frames, ignore_index=True)[[*KEYS, *attributes, "weight"]]
    return table.sort_values([*KEYS], ignore_index=True)


def _weights_of_batch(
    batch: Batch, behaviour: Behaviour, weights: Tensor, first_row: int
) -> pd.DataFrame:
    """Events of one behaviour in one batch, whose first impression is number ``first_row``."""
    rows = batch.rows[behaviour.histories].cpu().numpy()
    starts = batch.offsets[behaviour.histories].cpu().numpy()[rows]
    ids = {name: pd.array(batch.ids[name].cpu().numpy(), "Int32") for name in behaviour.histories}
    return pd.DataFrame(
        {
            "row": rows + first_row,
            "position": np.arange(len(rows)) - starts,
            **ids,
            "weight": weights.cpu().numpy(),
        }
    )
