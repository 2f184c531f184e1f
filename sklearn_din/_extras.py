"""Extras, which stand beside the core: loaded by name, where something of theirs is given."""

from __future__ import annotations

import importlib
from typing import Any

EXTRAS = ("large", "serving", "inspection", "resilient", "server", "command_line", "datasets")


def extra(name: str) -> Any:
    """Return a module of an extra, such as "large.sql"; the core imports none of them."""
    return importlib.import_module(f"sklearn_din.{name}")
