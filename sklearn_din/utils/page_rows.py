"""Rows of one page that have moments of their own: the later ones know that there was a click."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from sklearn_din.utils.label_waits import describe_span
from sklearn_din.utils.validation import check_times

CHECKED_ROWS = 200_000  # the first ones
MIN_GAPS = 100
QUANTILES = np.linspace(0.02, 0.98, 97)  # of gaps between rows
MIN_PAIRS = 20  # of clicks within a page, by chance
FEW_PAIRS = 0.25  # of these
FOLLOW = 0.5  # of the rows that follow a click by chance: fewer where a click ends a session


def note_pages(
    frame: pd.DataFrame,
    user: str,
    time: str,
    labels: np.ndarray | Callable[[pd.DataFrame], np.ndarray],
) -> str | None:
    """Return what to ask where rows come in runs that hardly ever have two clicks.

    A run is of one user's rows, with gaps below the widest jump in their logarithms; rows of one
    moment, which are not each other's past, count as one. Where clicks have nothing to do with each
    other, there are as many pairs as by chance; where one ends the session, no row follows it.

    labels : of the rows, 1 for a click, or a function that says it of some of them
    """
    if len(frame) < MIN_GAPS:  # no request waits for it
        return None
    frame = frame[:CHECKED_ROWS]
    clicks = labels(frame) if callable(labels) else labels[:CHECKED_ROWS]
    codes, (times, unit, _) = pd.factorize(frame[user])[0], check_times(frame[time], name=time)
    moments = pd.Series(clicks == 1).groupby([codes, times]).max().loc[0:]  # -1: of nobody
    users, times = (moments.index.get_level_values(level).to_numpy() for level in (0, 1))
    is_other, steps, is_click = np.diff(users) != 0, np.diff(times), moments.to_numpy()
    if (~is_other).sum() < MIN_GAPS:
        return None
    gaps = np.quantile(steps[~is_other], QUANTILES)
    jump = int((gaps[1:] / gaps[:-1]).argmax())
    limit = float(f"{np.sqrt(gaps[jump] * gaps[jump + 1]):.3g}")
    run = np.append(0, np.cumsum(is_other | (steps > limit)))
    n_rows, n_clicks = np.bincount(run), np.bincount(run, is_click)
    expected = (n_rows * (n_rows - 1)).sum() / 2 * is_click.mean() ** 2
    n_pairs = (n_clicks * (n_clicks - 1)).sum() / 2
    n_behind = np.cumsum(n_rows)[run] - np.arange(len(run)) - 1
    is_followed = n_behind[is_click].sum() >= FOLLOW * (n_rows[run] - 1)[is_click].sum() / 2
    if expected < MIN_PAIRS or n_pairs >= FEW_PAIRS * expected or not is_followed:
        return None
    span = describe_span(limit, unit)
    return (
        f"are rows of one user that come within {span} of each other rows of one page? Hardly two "
        f"of them are clicked ({n_pairs:.0f} pairs, {expected:.0f} by chance), and rows follow a "
        "click: later rows of a page know that there was one. Give them one time, that of the "
        f"first: X[{time!r}] = (s := X.sort_values([{user!r}, {time!r}])).groupby([{user!r}, "
        f"(s[{time!r}].diff() > {span if unit is None else repr(span)}).cumsum()])[{time!r}]"
        ".transform('min')."
    )
