"""Click rates of items and users in the training rows, compared with the network."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.target import Click
from sklearn_din.training.training import Training
from sklearn_din.utils.shrinkage import average_and_prior, shrink, sums_of_keys
from sklearn_din.utils.warnings import log_once

MANY_ERRORS = 3  # standard errors of an AUC by chance


def report_better_rates(
    net: NeuralNet, training: Training, X: EncodedFeatures, y: np.ndarray
) -> None:
    """Report a rate of the item or the user that ranks the validation rows better than the network.

    The rates are those of the training rows. Nothing is reported where the network reads running
    rates, which are more than these.
    """
    check = best_check(net.checks_)
    if check is None or training.valid is None or type(net.target) is not Click:
        return
    if X.store is not None or any(field.level for field in X.schema.fields):
        return
    train, valid = training.train.rows, training.valid.rows
    is_click = y[valid] == 1
    n_clicks, n_others = int(is_click.sum()), int((~is_click).sum())
    if not n_clicks or not n_others:
        return
    error = np.sqrt((1 / n_clicks + 1 / n_others) / 12)
    keys = {}
    if X.schema.item in X.schema.names("categorical"):
        keys[f"item ({X.schema.item})"] = ids_to_look_up(X.columns[X.schema.item])
    if X.users is not None:
        keys["user"] = np.unique(X.user_keys.hashes, return_inverse=True)[1]
    for name, codes in keys.items():
        n_codes = codes.max() + 1
        n_rows = np.bincount(codes[train], minlength=n_codes)
        n_ones = np.bincount(codes[train], y[train], minlength=n_codes)
        averages = average_and_prior(sums_of_keys(n_rows, n_ones).sum(axis=1))
        auc = roc_auc_score(is_click, shrink(np.stack([n_rows, n_ones]), averages)[codes[valid]])
        if auc > check["valid_auc"] + MANY_ERRORS * error:
            log_once(
                f"the click rate of each {name} in the training rows ranks the validation rows "
                f"better than the network: AUC {auc:.3f} against {check['valid_auc']:.3f}. Compare "
                "the network with this rate on your test rows, and give it running rates: "
                "HistoryBuilder(levels='auto') attaches them."
            )
