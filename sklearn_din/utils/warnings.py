"""Warnings that point at the user's code, and messages that appear only once."""

import functools
import logging
import sys
import warnings
from collections.abc import Iterable

LIBRARIES = {"sklearn_din", "sklearn", "skorch", "torch", "joblib", "contextlib"}
ADVICE_FROM = 1_000  # training rows: with fewer nothing is logged


def warn_user(message: str) -> None:
    """Warn at the innermost line that belongs to none of the libraries between it and here.

    A fixed ``stacklevel`` would have to know how many functions and decorators of scikit-learn
    and skorch stand between the user's call and the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def warn_of(notices: Iterable[str | None]) -> None:
    """Warn once with each sentence; None is none."""
    for notice in filter(None, notices):
        warn_user(notice)


@functools.cache
def log_once(message: str) -> None:
    """Log advice the first time that it is given: not for each fold of a cross-validation."""
    logging.getLogger("sklearn_din").warning(message)


@functools.cache
def warn_once(message: str) -> None:
    """Warn the first time: not for each request that is answered."""
    warn_user(message)
