"""Whether what goes together in one period still does in the next."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from sklearn_din.neighbours.blocks import NOT_COUNTED, OrderedRows
from sklearn_din.neighbours.item_scores import N_OF_HISTORY
from sklearn_din.utils.blas import one_thread_of_blas
from sklearn_din.utils.parallel import map_in_parallel

MOST_ROWS = 100_000  # to learn from, and to predict
LEAST_CLICKS = 2  # of each kind
N_PREDICTED = 2  # blocks
MOST_ODDS = 10.0  # log-odds of a prediction
MOST_STEPS, SMALL_STEP, TINY = 25, 1e-4, 1e-9  # of Newton's method


@one_thread_of_blas()
def scores_hold(numbers: np.ndarray, others: Sequence[np.ndarray], rows: OrderedRows) -> bool:
    """Return whether scores of a history help to predict the last blocks of training rows.

    A logistic regression on ``numbers``, (n_rows, 14), and ``others``, users' levels, predicts each
    of the last two blocks from those before it, with the scores and without. They do not hold where
    its log loss is higher with them. Both predictions are first moved to the block's rate of
    clicks: where it drifts, scores tell the time (benchmarks/quality-results.md, "Few items"). The
    row that speaks most for them and the one that speaks most against them are left out.
    """
    last = rows.blocks[rows.blocks < NOT_COUNTED].max(initial=0)
    columns = [numbers, *others]
    fits = []
    for block in range(max(last + 1 - N_PREDICTED, 2), last + 1):
        parts = _some((rows.blocks > 0) & (rows.blocks < block)), _some(rows.blocks == block)
        n_least = min(np.bincount(rows.clicked[part], minlength=2).min() for part in parts)
        known, asked = (np.column_stack([of[part] for of in columns]) for part in parts)
        if n_least >= LEAST_CLICKS and known[:, :N_OF_HISTORY].any():
            clicks = [rows.clicked[part] for part in parts]
            for first in (0, N_OF_HISTORY):
                fits.append((known[:, first:], clicks[0], asked[:, first:], clicks[1]))
    losses = map_in_parallel(lambda rows_of_fit: _losses(*rows_of_fit), fits)
    harm = [whole - without for whole, without in zip(losses[::2], losses[1::2], strict=True)]
    return not harm or bool(np.sort(np.concatenate(harm))[1:-1].sum() <= 0)


def _losses(
    known: np.ndarray, is_click: np.ndarray, asked: np.ndarray, is_asked_click: np.ndarray
) -> np.ndarray:
    """Return the log loss of each asked row by a logistic regression (C=1) on the known ones."""
    known = np.column_stack([np.ones(len(known)), known])  # float64, once
    weights, penalty = np.zeros(known.shape[1]), np.append(0.0, np.ones(known.shape[1] - 1))

    def penalized(weights: np.ndarray) -> float:
        logits = known @ weights
        return (np.logaddexp(0, logits) - is_click * logits).sum() + penalty @ weights**2 / 2

    for _ in range(MOST_STEPS):
        chance = expit(known @ weights)
        slope = (chance - is_click) @ known + penalty * weights
        curvature = (known.T * (chance * (1 - chance))) @ known + np.diag(penalty + TINY)
        step = np.linalg.solve(curvature, slope)
        while penalized(weights - step) > penalized(weights) and np.abs(step).max() > TINY:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < SMALL_STEP:
            break
    logits = np.clip(asked @ weights[1:] + weights[0], -MOST_ODDS, MOST_ODDS)
    rate = is_asked_click.mean()
    logits += brentq(lambda more: expit(logits + more).mean() - rate, -4 * MOST_ODDS, 4 * MOST_ODDS)
    return np.logaddexp(0, logits) - is_asked_click * logits


def _some(is_chosen: np.ndarray) -> np.ndarray:
    """Return positions of at most MOST_ROWS of the chosen rows, evenly spread."""
    chosen = np.flatnonzero(is_chosen)
    return chosen[:: 1 + len(chosen) // MOST_ROWS]
