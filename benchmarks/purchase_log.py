"""A made log of clicks, purchases and seconds: several things to predict of one impression."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

from sklearn_din.datasets.click_log import check_at_least, find_intercept, make_click_log

_SPREAD = 0.8  # standard deviation of log(seconds) about its mean


def make_purchase_log(
    *,
    n_users: int = 2000,
    n_items: int = 1000,
    purchase_rate: float = 0.01,
    random_state: int | np.random.RandomState | None = None,
    **others: Any,
) -> Bunch:
    """Make a log of clicks, purchases and seconds spent, whose truth is known.

    Clicks are those of :func:`make_click_log`. What is clicked may be bought: the more of the
    user's past events are of the candidate's category, the likelier. Items have a quality q,
    N(0, 1), that clicks do not show::

        logit(purchase | click) = b + log1p(interest) - 0.8 * (log(price) - 3) + 0.7 * q
        log(seconds)            = 3 + 0.5 * log1p(interest) + 0.5 * q + N(0, 0.8)

    interest is the number of those past events, b such that the share `purchase_rate` of all
    impressions is bought. Seconds are spent on every impression.

    Parameters
    ----------
    purchase_rate : float, default=0.01
        Share of the impressions that are bought.
    n_users, n_items, random_state, others
        As for :func:`make_click_log`.

    Returns
    -------
    Bunch
        - events, impressions, relevance, offsets: as of :func:`make_click_log`.
        - y: DataFrame of click and purchase, 1 or 0; what is not clicked is not bought.
        - probability: DataFrame of click and purchase: of all impressions, not of the clicked ones.
        - seconds: ndarray of shape (n_impressions,), the time spent.
        - expected_seconds: ndarray of shape (n_impressions,), its mean.
        - quality: ndarray of shape (n_items,).
        - DESCR: a short description.

    See Also
    --------
    make_click_log : Clicks alone.

    Examples
    --------
    >>> from benchmarks.purchase_log import make_purchase_log
    >>> log = make_purchase_log(n_users=100, purchase_rate=0.1, random_state=0)
    >>> log.y.columns.tolist(), bool((log.y["purchase"] <= log.y["click"]).all())
    (['click', 'purchase'], True)
    >>> log.seconds.shape
    (2000,)
    """
    check_at_least(0, purchase_rate=purchase_rate)
    rng = check_random_state(random_state)
    log = make_click_log(n_users=n_users, n_items=n_items, random_state=rng, **others)
    n = len(log.impressions)
    quality = rng.normal(size=n_items)
    q, price = quality[log.impressions["item"]], log.impressions["price"].to_numpy()
    row = np.repeat(np.arange(n), np.diff(log.offsets))
    interest = np.log1p(np.bincount(row, weights=log.relevance, minlength=n))
    logit = interest - 0.8 * (np.log(price) - 3.0) + 0.7 * q
    if not 0 < purchase_rate < log.probability.mean():
        raise ValueError(
            "purchase_rate must lie between 0 and the share of clicks, "
            f"{log.probability.mean():.2f}, got {purchase_rate}."
        )
    if_clicked = expit(logit + find_intercept(logit, purchase_rate, log.probability))
    bought = log.y * rng.binomial(1, if_clicked)
    mean = 3.0 + 0.5 * interest + 0.5 * q
    same = {name: log[name] for name in ("events", "impressions", "relevance", "offsets")}
    return Bunch(
        **same,
        y=pd.DataFrame({"click": log.y, "purchase": bought}),
        probability=pd.DataFrame(
            {"click": log.probability, "purchase": log.probability * if_clicked}
        ),
        seconds=np.exp(mean + _SPREAD * rng.normal(size=n)),
        expected_seconds=np.exp(mean + _SPREAD**2 / 2),
        quality=quality,
        DESCR=(
            f"A made log: {n} impressions of {n_users} users, each with a click or none, a "
            f"purchase or none ({purchase_rate:.2%} of all) and the seconds spent. {log.DESCR}"
        ),
    )
