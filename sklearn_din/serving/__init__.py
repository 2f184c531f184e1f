"""Uses of a fitted model: rankings, predictions, files for servers, updates."""

from sklearn_din.serving.onnx_server import OnnxServer

__all__ = ["OnnxServer"]
