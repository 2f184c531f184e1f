"""Write what the container serves, where the model was trained: call it after each update."""

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

from sklearn_din import export_onnx
from sklearn_din.serving import OnnxServer


def write_for_container(model: Any, catalogue: Any, folder: Path) -> None:
    """Write the network, the catalogue and the server's file; the network last, in one move."""
    folder.mkdir(exist_ok=True)
    partial = folder / "catalogue.partial"
    partial.write_text(json.dumps(catalogue.to_dict("list")), encoding="utf-8")
    os.replace(partial, folder / "catalogue.json")
    export_onnx(model, folder / "model.onnx", layout="ranking")
    shutil.copy(inspect.getfile(OnnxServer), folder.parent / "onnx_server.py")
