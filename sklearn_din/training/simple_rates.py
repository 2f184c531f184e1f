"""Rates of clicks among the training rows, as rivals of the network on the validation rows."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.target import Click
from sklearn_din.utils.shrinkage import shrunk_rate, sums_of_keys
from sklearn_din.utils.warnings import log_once

MANY_ERRORS = 3  # standard errors of an AUC by chance


def note_better_rate(
    net: NeuralNet,
    X: EncodedFeatures,
    y: np.ndarray,
    train: np.ndarray | None,
    valid: np.ndarray | None,
) -> None:
    """Log where the rate of the item, or of the user, ranks later rows better than the network."""
    check = best_check(net.checks_)
    has_levels = any(field.is_level for field in X.schema.fields)
    if X.times is None or type(net.target) is not Click or check is None or has_levels:
        return
    if train is None or valid is None or not 0 < y[valid].sum() < len(valid):
        return
    is_click = y[valid] == 1
    error = np.sqrt((1 / is_click.sum() + 1 / (~is_click).sum()) / 12)
    item = X.schema.item
    keys = {} if not item else {f"column {item!r}": ids_to_look_up(X.columns[item])}
    if X.users is not None:
        keys["user"] = X.user_keys.codes
    for name, codes in keys.items():
        if codes.min() < 0:  # users without a name
            continue
        counted = {"minlength": codes.max() + 1}
        of_keys = (
            np.bincount(codes[train], **counted),
            np.bincount(codes[train], y[train], **counted),
        )
        rates = shrunk_rate(np.stack(of_keys), sums_of_keys(*of_keys).sum(axis=1, keepdims=True))
        auc = roc_auc_score(is_click, rates[codes[valid]])
        if auc > check["valid_auc"] + MANY_ERRORS * error:
            log_once(
                f"the rate of clicks of each {name} in the training rows ranks the validation "
                f"rows better (AUC {auc:.3f}) than the network ({check['valid_auc']:.3f}). "
                "HistoryBuilder(levels='auto') gives the network rates as of each row."
            )
