"""Validation checks as rows of numbers, and the best of them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

CHECK = ("epoch", "train_loss", "valid_loss", "valid_auc", "seconds")


def best_check(checks: Iterable[Mapping[Any, float]]) -> Mapping[Any, float] | None:
    """Return the check with the smallest validation loss, the first of equal ones.

    None where no row has one: without validation rows, each row is an epoch. Early stopping, what
    is kept, what is shown and what is warned of follow from this alone.

    Examples
    --------
    >>> best_check([{"valid_loss": 0.4}, {"valid_loss": 0.3}, {"valid_loss": float("nan")}])
    {'valid_loss': 0.3}
    """
    judged = [check for check in checks if math.isfinite(check["valid_loss"])]
    return min(judged, key=lambda check: check["valid_loss"], default=None)


def drop_unfinished_epoch(history: list[Any], n_before: int) -> int:
    """Return how many epochs were begun; those that were finished stay in the history."""
    n_epochs = len(history) - n_before
    if n_epochs and "train_loss" not in history[-1]:
        history.pop()
    return n_epochs
