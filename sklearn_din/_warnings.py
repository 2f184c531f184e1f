"""Warnings that point at the line of the user's code, however deep they arise."""

from __future__ import annotations

import sys
import warnings

LIBRARIES = {"sklearn_din", "sklearn", "skorch", "torch", "joblib", "contextlib"}


def warn_user(message: str) -> None:
    """Warn at the innermost line that belongs to none of the libraries between it and here.

    A fixed ``stacklevel`` would have to know how many functions and decorators of scikit-learn
    and skorch stand between the user's call and the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _library_of(frame.f_globals) in LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _library_of(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
