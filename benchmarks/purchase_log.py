"""A made log of clicks, purchases and seconds: several things to predict of one impression."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

from sklearn_din.datasets.click_log import find_intercept, make_click_log

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

    interest is the number of those past events, b such that the share ``purchase_rate`` of all
    impressions is bought. Seconds are spent on every impression.

    Returns, beside what :func:`make_click_log` gives: y and probability, frames of click and
    purchase (what is not clicked is not bought; probabilities are of all impressions); seconds and
    expected_seconds by impression; quality by item.
    """
    rng = check_random_state(random_state)
    log = make_click_log(n_users=n_users, n_items=n_items, random_state=rng, **others)
    n = len(log.impressions)
    quality = rng.normal(size=n_items)
    q, price = quality[log.impressions["item"]], log.impressions["price"].to_numpy()
    row = np.repeat(np.arange(n), np.diff(log.offsets))
    interest = np.log1p(np.bincount(row, weights=log.relevance, minlength=n))
    logit = interest - 0.8 * (np.log(price) - 3.0) + 0.7 * q
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
    )
