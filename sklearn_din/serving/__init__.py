"""Uses of a fitted model: rankings, predictions, files for servers, updates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn_din.serving.onnx_server import OnnxServer

__all__ = ["OnnxServer"]


def __getattr__(name: str) -> Any:
    if name != "OnnxServer":
        raise AttributeError(f"module 'sklearn_din.serving' has no attribute {name!r}")
    # Loaded when asked for (PEP 562): a server has neither torch nor scikit-learn.
    return importlib.import_module("sklearn_din.serving.onnx_server").OnnxServer


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
