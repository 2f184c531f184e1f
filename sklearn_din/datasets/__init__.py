"""Logs to learn on: clicks, purchases, answers, a market made with known truth, and MovieLens."""

from sklearn_din.datasets.answer_log import make_answer_log
from sklearn_din.datasets.click_log import make_click_log
from sklearn_din.datasets.market_log import make_market_log
from sklearn_din.datasets.movielens import fetch_movielens
from sklearn_din.datasets.purchase_log import make_purchase_log

__all__ = [
    "fetch_movielens",
    "make_answer_log",
    "make_click_log",
    "make_market_log",
    "make_purchase_log",
]
