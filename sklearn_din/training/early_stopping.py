"""Early stopping: which validation check is the best, and whether training may stop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the server reads checks without torch
    from torch import Tensor

# The numbers of a check. The losses on validation rows are those of the scaled logits, and before.
CHECK = ("epoch", "train_loss", "valid_loss", "unscaled_loss", "valid_auc", "seconds")
AVERAGED_CHECKS = 4
SMALL_SCALE = 0.1  # of logits on validation rows, below which a sentence says so
# Patience starts with the first full average: earlier, the weights may still change so much that
# their average is worse than each (benchmarks/quality-results.md, "Recent matches in attention").
CHECKS_BEFORE_PATIENCE = AVERAGED_CHECKS


def best_check(checks: Iterable[Mapping[Any, Any]]) -> Mapping[Any, Any] | None:
    """Return the check with the smallest validation loss, the first of equal ones.

    None where no row has one: without validation rows, each row is an epoch. Early stopping, what
    is kept, what is shown and what is warned of follow from this alone.

    >>> best_check([{"valid_loss": 0.4}, {"valid_loss": 0.3}, {"valid_loss": float("nan")}])
    {'valid_loss': 0.3}
    """
    judged = [check for check in checks if math.isfinite(check["valid_loss"])]
    return min(judged, key=lambda check: check["valid_loss"], default=None)


class EarlyStopping:
    """Judge the validation checks of a training by their loss, and keep the weights of the best.

    Of ``patience`` the first ``CHECKS_BEFORE_PATIENCE`` checks do not count.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best: dict[str, Tensor] = {}
        self._latest: Mapping[str, Tensor] = {}  # the best check's while they are copied

    def judge(self, checks: Sequence[Mapping[Any, float]], weights: Mapping[str, Tensor]) -> bool:
        """Keep the latest check's weights if it is the best; return whether patience is over."""
        best = best_check(checks)
        is_best = [check is best for check in checks]
        if is_best[-1]:
            self._latest = weights
            self.keep_latest()
            return False
        n_without = len(checks) - max(is_best.index(True) + 1, CHECKS_BEFORE_PATIENCE)
        return n_without >= self.patience

    def keep_latest(self) -> None:
        """Copy the weights of a check that is the best, anew where Ctrl-C came in the middle."""
        for name, weight in self._latest.items():  # large tables are not allocated anew
            if name in self.best:
                self.best[name].copy_(weight)
            else:
                self.best[name] = weight.clone()
        self._latest = {}
