"""Whether what goes together in one period still does in the next."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from sklearn_din.neighbours.blocks import NOT_COUNTED, OrderedRows
from sklearn_din.neighbours.item_scores import N_OF_HISTORY
from sklearn_din.utils.blas import one_thread_of_blas

MOST_ROWS = 100_000  # to learn from, and to predict
LEAST_CLICKS = 2  # of each kind
ERRORS = 2.0  # standard errors of the difference in log loss


@one_thread_of_blas()
def scores_hold(numbers: np.ndarray, levels: np.ndarray | None, rows: OrderedRows) -> bool:
    """Return whether scores of a history do no harm to predictions of the last training rows.

    A logistic regression on numbers and users' levels learns the blocks before the last one, and
    predicts it with the scores and without. They do not hold where its log loss is higher with
    them, by more than two standard errors: the network, which learns from all blocks, would expect
    them to hold later (made offers, log loss -.002; real logs keep theirs,
    benchmarks/quality-results.md, "Few items").

    numbers : (n_rows, 14), those of the first block zeros
    levels : (n_rows, n_columns), or None
    """
    is_counted = rows.blocks < NOT_COUNTED
    last = rows.blocks[is_counted].max(initial=0)
    earlier = _some((rows.blocks > 0) & (rows.blocks < last))
    later = _some((rows.blocks == last) & is_counted)
    if np.bincount(rows.clicked[earlier], minlength=2).min() < LEAST_CLICKS:
        return True
    known, asked = (
        np.column_stack([of[own] for of in (numbers, levels) if of is not None]).astype(float)
        for own in (earlier, later)
    )
    if not known[:, :N_OF_HISTORY].any():
        return True
    whole, without = (
        _losses(known[:, first:], rows.clicked[earlier], asked[:, first:], rows.clicked[later])
        for first in (0, N_OF_HISTORY)
    )
    harm = whole - without
    return bool(harm.mean() <= ERRORS * harm.std() / np.sqrt(len(harm)))


def _losses(
    known: np.ndarray, is_click: np.ndarray, asked: np.ndarray, is_asked_click: np.ndarray
) -> np.ndarray:
    """Return the log loss of each asked row by a logistic regression on the known ones.

    That of scikit-learn with C=1; its import alone would take half a second of the first fit.
    """
    mean, spread = known.mean(axis=0), known.std(axis=0)
    known, asked = ((own - mean) / np.where(spread > 0, spread, 1) for own in (known, asked))

    def penalized(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = known @ weights[1:] + weights[0]
        behind = expit(logits) - is_click
        loss = (np.logaddexp(0, logits) - is_click * logits).sum() + (weights[1:] ** 2).sum() / 2
        return loss, np.append(behind.sum(), behind @ known + weights[1:])

    weights = minimize(penalized, np.zeros(1 + known.shape[1]), jac=True, method="L-BFGS-B").x
    logits = asked @ weights[1:] + weights[0]
    return np.logaddexp(0, logits) - is_asked_click * logits


def _some(is_chosen: np.ndarray) -> np.ndarray:
    """Return positions of at most MOST_ROWS of the chosen rows, evenly spread."""
    chosen = np.flatnonzero(is_chosen)
    return chosen[:: 1 + len(chosen) // MOST_ROWS]
