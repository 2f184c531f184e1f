"""Extras: the one file that the core loads, and the packages that they require."""

import importlib
from typing import Any

EXTRAS = ("large", "serving", "inspection", "resilient", "server", "command_line", "datasets")


def ranks() -> Any:
    """Return the module of processes that work together, for those who started several."""
    return importlib.import_module("sklearn_din.resilient.ranks")


def import_package(name: str, *, purpose: str, extra: str) -> Any:
    """Import a package of an extra; the error says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {name.partition('.')[0]}, which is not installed. Install it with: "
            f"pip install 'sklearn-din[{extra}]'"
        ) from error
