"""Advice that is logged once per process, not once for every fold of a cross-validation."""

from __future__ import annotations

import functools
import logging

ADVICE_FROM = 1_000  # training rows: with fewer nothing is logged


@functools.cache
def log_once(message: str) -> None:
    """Log a message the first time it is given."""
    logging.getLogger("sklearn_din").warning(message)
