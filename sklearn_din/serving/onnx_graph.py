"""An ONNX graph under construction: values are computed on as in numpy, each step adds a node."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from torch import Tensor

OPSET = 18
IR_VERSION = 8
LOOK_UPS = "ai.onnx.ml"  # domain of operations that look keys up, and of trees
OPSETS = {"": OPSET, LOOK_UPS: 3}
HIDDEN = np.float32(-1e30)  # a score below that of any event
MOST_BYTES = 2**31 - 2**20  # protobuf's limit is 2 GiB per file


def _node(operation: str) -> Callable[..., Value]:
    """Return a method that adds a node of the value and of further operands."""
    return lambda self, *others: self.graph.add(operation, self, *others)


def _reduction(operation: str) -> Callable[..., Value]:
    """Return a method that adds a node that makes one number of those along an axis."""
    return lambda self, axis, *, keepdims=False: self.graph.add(
        operation, self, np.array([axis]), keepdims=int(keepdims)
    )


def _cast(kind: str) -> Callable[[Value], Value]:
    """Return a method that adds a node of another type."""
    return lambda self: self.call("Cast", to=self.graph.onnx.TensorProto.DataType.Value(kind))


def _on_axis(operation: str) -> Callable[[Value, int], Value]:
    """Return a method that adds a node that adds an axis of size one, or takes it away."""
    return lambda self, axis: self.graph.add(operation, self, np.array([axis]))


class Value:
    """A value that a graph computes. Operators and methods add nodes, and return new values.

    Python's numbers become float32; axes count from the front.
    """

    __array_ufunc__ = None  # so that numpy's arrays leave operators to this class

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    __add__ = _node("Add")
    __sub__ = _node("Sub")
    __mul__ = _node("Mul")
    __truediv__ = _node("Div")
    __matmul__ = _node("MatMul")
    __and__ = _node("And")
    __ge__ = _node("GreaterOrEqual")
    equals = _node("Equal")
    clamp = _node("Max")  # the larger of the two
    where = _node("Where")  # of two others: the first where this value is True

    def __rpow__(self, base: float) -> Value:
        return self.graph.add("Pow", base, self)

    def call(self, operation: str, **attributes: Any) -> Value:
        """Apply an operation of one operand, such as "Log"."""
        return self.graph.add(operation, self, **attributes)

    unsqueeze = _on_axis("Unsqueeze")
    squeeze = _on_axis("Squeeze")

    def reshape(self, *dims: int) -> Value:
        """Return the value in another shape; -1 is what is left, 0 as it was."""
        return self.graph.add("Reshape", self, np.array(dims))

    def transpose(self, *axes: int) -> Value:
        """Return the value with its axes in another order."""
        return self.call("Transpose", perm=axes)

    sum = _reduction("ReduceSum")
    max = _reduction("ReduceMax")

    as_float = _cast("FLOAT")
    as_double = _cast("DOUBLE")
    as_int32 = _cast("INT32")
    as_int64 = _cast("INT64")
    as_bool = _cast("BOOL")  # where it is not zero

    def look_up(self, keys: np.ndarray, values: np.ndarray) -> Value:
        """Return the value of each key, int64, and 0 where it is none of the keys."""
        pairs = {"keys_int64s": keys.tolist(), "values_int64s": values.tolist()}
        return self.as_int64().call("LabelEncoder", domain=LOOK_UPS, default_int64=0, **pairs)

    # What formulas ask of torch's tensors too, by the same names

    sign = _node("Sign")
    abs = _node("Abs")
    sigmoid = _node("Sigmoid")

    def log1p(self) -> Value:
        return (self + 1.0).call("Log")

    def rsqrt(self) -> Value:
        return self.call("Sqrt").call("Reciprocal")

    def flatten(self, axis: int) -> Value:
        """Return the value with two axes: those in front of an axis as one, the others as one."""
        return self.call("Flatten", axis=axis)

    @property
    def mT(self) -> Value:  # noqa: N802
        """The value, of three axes, with the last two in turn."""
        return self.transpose(0, 2, 1)

    def __getitem__(self, columns: tuple[EllipsisType, slice]) -> Value:
        """Return some columns of the last axis."""
        _, part = columns
        return self.graph.add(
            "Slice", self, *(np.array([n]) for n in (part.start or 0, part.stop, -1))
        )


class Graph:
    """An ONNX graph under construction; the caller imports the package ``onnx``.

    ``n_bytes`` counts what constants take, and what else the file will hold.
    """

    def __init__(self, onnx: Any, *, n_bytes: int = 0) -> None:
        self.onnx, self.n_bytes = onnx, n_bytes
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: list[Any] = []
        self._numbers = itertools.count()

    def input(
        self,
        name: str,
        dtype: type[np.generic],
        dims: tuple[str | int, ...],
        default: np.ndarray | None = None,
    ) -> Value:
        """Declare an input with names of dimensions; with a ``default``, it may be left out."""
        if default is not None:
            self.constants.append(self.onnx.numpy_helper.from_array(default, name))
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, dims))
        return Value(self, name)

    def output(self, name: str, value: Value, dims: tuple[str, ...] = ("n",)) -> None:
        """Give a float32 value, of shape (n,) unless other dimensions are named, out."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value.name], [name], name=name))
        kind = self.onnx.TensorProto.FLOAT
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, dims))

    def constant(self, number: Any, name: str = "") -> Value:
        """Store an array, a tensor or a number of Python, which becomes float32."""
        name = name or f"/constant_{len(self.constants)}"
        if isinstance(number, float):
            number = np.float32(number)
        array = number.detach().cpu().numpy() if isinstance(number, Tensor) else np.asarray(number)
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.n_bytes += array.nbytes
        if self.n_bytes > MOST_BYTES:
            raise ValueError(
                "an ONNX file holds at most 2 GiB, and this model takes more. Fit with a smaller "
                "embedding_dim, or with max_ids or min_frequency in the encoder."
            )
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return Value(self, name)

    def add(self, operation: str, *operands: Any, **attributes: Any) -> Value:
        """Append a node and return its value; what is no Value becomes a constant."""
        result = f"/{operation}_{next(self._numbers)}"  # no column starts with a slash and ends so
        values = [v if isinstance(v, Value) else self.constant(v) for v in operands]
        names = [value.name for value in values]
        # named, since older runtimes name what they fuse by it, and refuse two nodes of one name
        node = self.onnx.helper.make_node(operation, names, [result], name=result, **attributes)
        self.nodes.append(node)
        return Value(self, result)

    def scan(self, values: Sequence[Value], most: Value, body: Callable[..., Value]) -> Value:
        """Return what a function makes of a block of the first axis at a time.

        The blocks are of one size, so zeros may follow the last, and what becomes of them.

        values : one length of the first axis, at least 1
        most : (1,), positions of a block
        body : gives a matrix whose numbers are as many for each position of the first axis
        scanned : (length and more, numbers of a position)
        """
        zero, step, rest = (self.constant(np.array([number])) for number in (0, 1, -1))
        length = self.add("Shape", values[0], end=1)
        n_blocks = (length - step) / most + step
        n_more = self.add("Mod", zero - length, n_blocks)
        pads = join([zero, n_more], axis=0)
        values = [self.add("Pad", value, pads, 0.0, zero) for value in values]
        shapes = [join([n_blocks, rest, value.call("Shape", start=1)], axis=0) for value in values]
        blocks = [self.add("Reshape", *pair) for pair in zip(values, shapes, strict=True)]
        before, self.nodes = self.nodes, []
        inner = [Value(self, f"{block.name}_block") for block in blocks]
        result = body(*inner)
        info, kind = self.onnx.helper.make_tensor_value_info, self.onnx.TensorProto.FLOAT
        inputs = [info(value.name, kind, None) for value in inner]
        outputs = [info(result.name, kind, (None, None))]  # onnxruntime 1.19 needs the axes
        graph = self.onnx.helper.make_graph(self.nodes, "block", inputs, outputs)
        self.nodes = before
        stacked = self.add("Scan", *blocks, body=graph, num_scan_inputs=len(blocks))
        return self.add("Reshape", stacked, join([length + n_more, rest], axis=0))

    def model(self) -> Any:
        """Return the whole as a model, without nodes and constants that no output needs."""
        needed, nodes = {value.name for value in [*self.inputs, *self.outputs]}, []  # and defaults
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.output):
                inner = [nested for attribute in node.attribute for nested in attribute.g.node]
                needed.update(name for reader in [node, *inner] for name in reader.input)
                nodes.append(node)
        self.nodes = nodes[::-1]
        self.constants = [constant for constant in self.constants if constant.name in needed]
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, "sklearn_din", self.inputs, self.outputs, self.constants
        )
        return helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid(domain, OPSETS[domain])
                for domain in sorted({"", *(node.domain for node in self.nodes)})
            ],
            ir_version=IR_VERSION,
            producer_name="sklearn_din",
        )


def join(values: list[Value], *, axis: int) -> Value:
    """Return values side by side along an axis."""
    return values[0].graph.add("Concat", *values, axis=axis)


def rank_of_recency(mask: Value) -> Value:
    """Return how many events have come after each, 0 behind the last: (..., T), like the mask."""
    from_newest = mask.graph.add("CumSum", mask, np.int64(-1), reverse=1)
    return from_newest.clamp(1.0) - 1.0
