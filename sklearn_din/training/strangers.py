"""Training rows that know nothing of their user or item, as rows of new ones will."""

from __future__ import annotations

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.level_columns import find_levels

SHARE_OF_STRANGERS = 0.1  # of the training rows, at least, that know nothing of a key


def hide_levels(X: EncodedFeatures) -> EncodedFeatures:
    """Return training rows of which enough have no level of each key.

    Levels are those of an attached log or of a memory (``NAME_rate``, ``NAME_count``,
    ``NAME_elapsed``). In the order of time nearly all late training rows have one, and the network
    would hardly learn what to expect of strangers, who come where a memory ends with training. A
    row whose level is hidden gets the numbers of the stranger just before it: the average rate of
    that time, no rows, and no time elapsed. Where a column's level is hidden, so is that of its
    pairs.
    """
    levels = find_levels(X.schema.names("numeric"))
    missing = {key: f"{columns.elapsed}_missing" for key, columns in levels.items()}
    levels = {key: levels[key] for key, name in missing.items() if name in X.columns}
    if not levels:
        return X
    random, hidden = np.random.RandomState(0), dict[str, np.ndarray]()
    order = np.arange(len(X)) if X.times is None else np.argsort(X.times, kind="stable")
    columns = dict(X.columns)
    for key in sorted(levels, key=len):  # a pair comes after its columns
        is_stranger = X.columns[missing[key]] == 1
        share = 1 - (1 - SHARE_OF_STRANGERS) / max(float(1 - is_stranger.mean()), 1e-9)
        hidden[key] = random.random_sample(len(X)) < share
        for other in hidden:
            if key.startswith(f"{other}_") or key.endswith(f"_{other}"):
                hidden[key] |= hidden[other]
        rows = np.flatnonzero(hidden[key] & ~is_stranger)
        if len(rows) and is_stranger.any():
            before = np.maximum.accumulate(np.where(is_stranger[order], np.arange(len(X)), -1))
            nearest = np.empty(len(X), dtype=np.intp)
            nearest[order] = order[np.where(before < 0, np.argmax(is_stranger[order]), before)]
            for name in (*levels[key], missing[key]):
                columns[name] = np.array(columns[name])
                columns[name][rows] = X.columns[name][nearest[rows]]
    return X._replace(columns=columns)
