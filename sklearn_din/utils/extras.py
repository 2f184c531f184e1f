"""Extras, imported by name when an argument needs them, and the packages they require."""

import importlib
from typing import Any

EXTRAS = ("large", "serving", "inspection", "resilient", "server", "command_line", "datasets")


def extra(name: str) -> Any:
    """Return a module of an extra, such as "large.sql"; the core imports none of them."""
    return importlib.import_module(f"sklearn_din.{name}")


def import_package(name: str, *, purpose: str, extra: str) -> Any:
    """Import a package of an extra; the error says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {name.partition('.')[0]}, which is not installed. Install it with: "
            f"pip install 'sklearn-din[{extra}]'"
        ) from error
