"""Early stopping: which validation check is the best, and whether training may stop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the server reads checks without torch
    from torch import Tensor

    from sklearn_din.training.moved_rate import MovedRate

CHECK = ("epoch", "train_loss", "valid_loss", "valid_auc", "seconds")  # its numbers
AVERAGED_CHECKS = 4
# Patience starts with the first full average: earlier, the weights may still change so much that
# their average is worse than each (benchmarks/quality-results.md, "Recent matches in attention").
CHECKS_BEFORE_PATIENCE = AVERAGED_CHECKS


def best_check(checks: Iterable[Mapping[Any, float]]) -> Mapping[Any, float] | None:
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

    A fit must not end worse than knowing nothing: where no check has a smaller loss than the base
    rate of the training rows (of numbers their mean), predicted for every validation row, the
    weights to keep predict that rate. The last layer then is its bias alone, so that later
    training goes on from there. That bias is ``base_bias``, and ``base_loss`` its loss on the
    validation rows; None: there are none, nothing is judged. Of ``patience`` the first
    ``CHECKS_BEFORE_PATIENCE`` checks do not count.

    With ``moved``, checks are of moved outputs, and must be better than the moved base rate. Then
    one check must also be better without being moved than ``base_loss``, that of the training
    rows' rate, or rank the rows better than chance (:class:`MovedRate`).
    """

    def __init__(
        self,
        patience: int,
        base_bias: Tensor,
        base_loss: float | None,
        moved: MovedRate | None = None,
    ) -> None:
        self.patience, self.moved = patience, moved
        self._base_bias, self._base_loss = base_bias, base_loss
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

    def is_better(self, checks: Sequence[Mapping[Any, float]]) -> bool:
        """Return whether there is a best check, and it is better than the base rate, if judged."""
        best, base = best_check(checks), self._base_loss
        if not self.best or base is None or best is None:
            return bool(self.best)
        if self.moved is None:
            return best["valid_loss"] < base
        from sklearn_din.training.moved_rate import errors_by_chance

        moved = [check for check in checks if "errors" in check]
        is_found = min(check["unmoved_loss"] for check in moved) < base
        ranks = max(check["errors"] for check in moved) > errors_by_chance(len(moved))
        return best["valid_loss"] < self.moved.loss and (is_found or ranks)

    def weights_of_base_rate(self) -> Mapping[str, Tensor]:
        """Return the best check's weights with a last layer that predicts the base rate."""
        weight, bias = self.best["output.weight"], self.best["output.bias"]
        zero, constant = weight.new_zeros(weight.shape), self._base_bias.to(bias).expand_as(bias)
        return {**self.best, "output.weight": zero, "output.bias": constant}
