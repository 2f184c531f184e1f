"""Deep Interest Network for click prediction, inside scikit-learn.

Start from a click log as a DataFrame: attach each user's past to every impression, encode columns
as ids and masks, and train a Deep Interest Network on them, all as a regular scikit-learn
Pipeline.
"""

import importlib
import re
from pathlib import Path
from typing import Any

from sklearn_din.utils.postponed import import_sklearn
from sklearn_din.utils.version import __version__ as __version__  # re-exported

# Loaded when asked for (PEP 562): a worker that only encodes never pays for torch. The names stand
# in __init__.pyi alone, where type checkers read them.
_FOLDERS = ("datasets", "features", "metrics")
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_IMPORT = re.compile(r"^from (\S+) import ([A-Za-z]\w*)", re.M)
_FILE_OF = {name: file for file, name in _IMPORT.findall(_STUB)}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FOLDERS and name not in _FILE_OF:
        raise AttributeError(f"module 'sklearn_din' has no attribute {name!r}")
    import_sklearn()
    if name in _FOLDERS:
        return importlib.import_module(f"sklearn_din.{name}")
    return getattr(importlib.import_module(_FILE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FOLDERS})
