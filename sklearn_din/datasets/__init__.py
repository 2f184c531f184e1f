"""Logs to learn with: synthetic clicks with known probabilities, and MovieLens."""

from sklearn_din.datasets.click_log import make_click_log
from sklearn_din.datasets.movielens import fetch_movielens

__all__ = ["fetch_movielens", "make_click_log"]
