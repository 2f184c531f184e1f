"""An ONNX graph under construction: nodes, constants, inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

OPSET = 17
IR_VERSION = 8
HIDDEN = np.float32(-1e30)  # a score below that of any event

Operand = Tensor | np.ndarray | np.generic


class Graph:
    """An ONNX graph under construction. Operands are names, or arrays that become constants."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: list[Any] = []

    def input(self, name: str, dtype: type[np.generic], dims: tuple[str, ...]) -> str:
        """Declare an input; equal names of dimensions have equal sizes."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, dims))
        return name

    def output(self, name: str, value: str) -> None:
        """Give a float32 value of shape (n,) out under a name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        kind = self.onnx.TensorProto.FLOAT
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, ("n",)))

    def constant(self, value: Operand) -> str:
        """Store an array or a tensor, and return the name that nodes use it by."""
        name = f"/constant_{len(self.constants)}"
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operation: str, *operands: str | Operand, **attributes: Any) -> str:
        """Append a node and return the name of what it computes."""
        result = f"/{operation}_{len(self.nodes)}"  # no column starts with a slash and ends so
        names = [one if isinstance(one, str) else self.constant(one) for one in operands]
        self.nodes.append(self.onnx.helper.make_node(operation, names, [result], **attributes))
        return result

    def model(self) -> Any:
        """Return the whole as a model."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, "sklearn_din", self.inputs, self.outputs, self.constants
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="sklearn_din",
        )


def axes(*axes: int) -> np.ndarray:
    """Axes as an operand."""
    return np.array(axes, dtype=np.int64)


def signed_log(graph: Graph, value: str) -> str:
    """``sign(x) log(1 + abs(x))``."""
    size = graph.add("Log", graph.add("Add", graph.add("Abs", value), np.float32(1)))
    return graph.add("Mul", graph.add("Sign", value), size)
