"""Half precision for a graph: matrix products and what lies between them; the rest stays in FP32.

Strongly typed networks compute in the types that the graph states, so a graph in half precision is another graph:

1. Products run in FP16, except with a constant that FP16 cannot hold. Those between Q/DQ pairs stay in INT8, and what
   they give is FP16.
2. Operators that only move numbers, and the plain arithmetic of `_FOLLOWING`, run in FP16 where all that they are
   given by others is in FP16 already and FP16 holds their constants.
3. All else runs in FP32: softmax, layer normalisation, reductions, powers, comparisons, TopK. So does what mixes with
   it, a residual for example, until the next product.
4. What may be of any size, a quotient, a power or a count, stays in FP32 through that product too, until something
   bounds it.

So a mask of -1e9 or an epsilon of 1e-12 keeps its arithmetic in FP32: clamped to -65504, two masks that meet would add
up to minus infinity, and a row that is all padding to NaN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeser.runtime.errors import InputError

_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "KeySparseAttention", "DropAttention"})
_MOVING = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Pad", "Reshape"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
_FOLLOWING = _MOVING | {
    *("Abs", "Add", "Clip", "Div", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max"),
    *("MaxPool", "Min", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Sub", "Tanh"),
}
_UNBOUNDED = frozenset({"Exp", "Log", "Pow", "Reciprocal"})
_BOUNDING = frozenset(
    {
        *("Erf", "GroupNormalization", "HardSigmoid", "InstanceNormalization", "LayerNormalization"),
        *("LogSoftmax", "LpNormalization", "QuantizeLinear", "Sigmoid", "Softmax", "Tanh"),
    }
)
_QUANTIZED = 19  # the opset from which Q/DQ have scales in half precision
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_normal)


def to_half(proto: ModelProto) -> ModelProto:
    """Return a copy of a graph with its products in half precision; what it takes and gives stays as it is.

    Args:
        proto: A graph in FP32, perhaps with Q/DQ pairs, which `onnx.checker` accepts; opaque operators with their
            function bodies.

    Raises:
        InputError: The graph has loops or branches.
    """
    half = ModelProto()
    half.CopyFrom(proto)
    for node in half.graph.node:
        if any(part.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for part in node.attribute):
            raise InputError(f"fp16: {node.name} ({node.op_type}) holds a graph of its own, expected none: use fp32")
    _plain_casts(half)
    _Converter(half).run()
    if any(node.op_type == "QuantizeLinear" for node in half.graph.node):
        _raise_opset(half, _QUANTIZED)
    del half.graph.value_info[:]  # of the types before
    drop_unused(half.graph)
    onnx.checker.check_model(half, full_check=True)
    return half


class _Converter:
    """Writes a graph's nodes anew, with casts between the two types.

    A tensor has the type of what makes it; in the other type it goes by another name, and is cast once.
    """

    def __init__(self, proto: ModelProto) -> None:
        self._graph = proto.graph
        self._types = _element_types(proto)
        self._stored = {tensor.name: tensor for tensor in self._graph.initializer}
        self._makers = {out: node for node in self._graph.node for out in node.output}
        self._half: set[str] = set()  # tensors that are in half precision now
        self._other: dict[str, str] = {}  # the name of a tensor in its other type
        self._free: set[str] = set()  # neither FP32 nor FP16 by what makes them: both hold them, as good as exactly
        self._wild: set[str] = set()  # in FP32, and perhaps of a size that half precision does not hold
        self._nodes: list[NodeProto] = []
        self._pairs = self._half_pairs()

    def run(self) -> None:
        for name, tensor in self._stored.items():
            if tensor.data_type == TensorProto.FLOAT and _fits(numpy_helper.to_array(tensor)):
                self._free.add(name)
        for node in self._graph.node:
            self._write(node)
        for value in self._graph.output:
            if value.name in self._half:
                self._give(value.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _write(self, node: NodeProto) -> None:
        places = [place for place, name in enumerate(node.input) if self._types.get(name) == TensorProto.FLOAT]
        floats = [node.input[place] for place in places]
        half = self._runs_in_half(node, floats)
        if not half:
            self._note_free(node, floats)
            if self._is_wild(node, floats):
                self._wild.update(node.output)
        for place in places:
            node.input[place] = self._as(node.input[place], half)
        self._nodes.append(node)
        if half:
            self._half.update(out for out in node.output if self._types.get(out) == TensorProto.FLOAT)

    def _runs_in_half(self, node: NodeProto, floats: list[str]) -> bool:
        if any(name in self._stored and name not in self._free for name in floats):
            return False
        if node.op_type in _PRODUCTS:
            return bool(floats) and self._wild.isdisjoint(floats) and self._pairs_fit(floats)
        if node.op_type == "DequantizeLinear":
            return node.output[0] in self._pairs
        if node.op_type == "Gather" and floats and floats[0] in self._stored:
            return True  # a table is half as large
        if node.op_type == "QuantizeLinear":
            return floats[0] in self._half and self._stores_scale(node)
        others = [name for name in floats if name not in self._free]
        return node.op_type in _FOLLOWING and bool(others) and self._half.issuperset(others)

    def _is_wild(self, node: NodeProto, floats: list[str]) -> bool:
        if node.op_type in _BOUNDING:
            return False
        # A quotient of two numbers that are computed; one by a constant is only as large as the constant makes it.
        divides = node.op_type == "Div" and len(floats) == 2 and floats[1] not in self._free
        unfit = any(name in self._stored and name not in self._free for name in floats)
        counts = node.op_type == "Cast" and self._types.get(node.input[0]) in (TensorProto.INT32, TensorProto.INT64)
        return node.op_type in _UNBOUNDED or divides or unfit or counts or not self._wild.isdisjoint(floats)

    def _stores_scale(self, node: NodeProto) -> bool:
        """Whether half precision holds the scales of a Q or DQ."""
        scale = self._stored.get(node.input[1])
        return scale is not None and _holds(numpy_helper.to_array(scale))

    def _pairs_fit(self, floats: list[str]) -> bool:
        """Whether what a product takes is not from Q/DQ pairs, or from such that half precision has all scales of."""
        return all(name in self._pairs for name in floats if self._kind(name) == "DequantizeLinear")

    def _half_pairs(self) -> set[str]:
        """Return what `DequantizeLinear` may give in half precision: all that a product takes, or none of it.

        A cast between the pair and the product would keep the product from running in INT8.
        """
        users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self._graph.node:
            for name in node.input:
                users[name].append(node)
        pairs = {name: node for name, node in self._makers.items() if node.op_type == "DequantizeLinear"}
        fit = {name for name, node in pairs.items() if self._stores_scale(node)}
        while True:
            torn = {n for n in fit if not all(self._serves(user, fit) for user in users[n])}
            if not torn:
                return fit
            fit -= torn

    def _serves(self, user: NodeProto, fit: set[str]) -> bool:
        others = [name for name in user.input if self._kind(name) == "DequantizeLinear"]
        return user.op_type in _PRODUCTS and fit.issuperset(others)

    def _kind(self, name: str) -> str:
        return self._makers[name].op_type if name in self._makers else ""

    def _note_free(self, node: NodeProto, floats: list[str]) -> None:
        """Note zeros and ones, and what is stored in half precision: they are the same in either type."""
        if node.op_type == "Cast":
            given = self._types.get(node.input[0])
            if given in (TensorProto.BOOL, TensorProto.FLOAT16):
                self._free.add(node.output[0])
            if given == TensorProto.FLOAT16:
                self._other[node.output[0]] = node.input[0]
        elif node.op_type in _MOVING and floats and self._free.issuperset(floats):
            self._free.update(node.output)

    def _as(self, name: str, half: bool) -> str:
        """Return the name of a tensor in half precision or in FP32."""
        if (name in self._half) == half:
            return name
        if name not in self._other:
            self._other[name] = f"{name}.half" if half else f"{name}.float"
            self._convert(name, self._other[name], half)
        return self._other[name]

    def _convert(self, name: str, other: str, half: bool) -> None:
        if name in self._stored:
            value = numpy_helper.to_array(self._stored[name]).astype(np.float16)
            self._graph.initializer.append(numpy_helper.from_array(value, other))
        else:
            self._nodes.append(_cast(name, other, TensorProto.FLOAT16 if half else TensorProto.FLOAT))

    def _give(self, name: str) -> None:
        """Give an output in FP32 under its own name."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for place, other in enumerate(names):
                    names[place] = f"{name}.half" if other == name else other
        if name in self._other:  # cast already
            self._nodes.append(helper.make_node("Identity", [self._other[name]], [name], name=f"{name}.give"))
        else:
            self._nodes.append(_cast(f"{name}.half", name, TensorProto.FLOAT))


def _fits(value: NDArray[np.float32]) -> bool:
    """Whether half precision holds a constant: neither too large for it, nor all so small that digits are lost."""
    peak = float(np.abs(value).max(initial=0.0))
    return peak == 0.0 or _SMALLEST <= peak <= _LARGEST


def _holds(scales: NDArray[np.float32]) -> bool:
    """Whether half precision holds each of some scales with all digits that it has."""
    return bool((scales >= _SMALLEST).all() and (scales <= _LARGEST).all())


def _raise_opset(proto: ModelProto, version: int) -> None:
    """State a newer opset. From 18 to 19 the operators only learnt more types."""
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        for opset in imports:
            if not opset.domain:
                opset.version = max(opset.version, version)


def _cast(given: str, made: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [given], [made], name=f"{made}.cast", to=kind)


def _element_types(proto: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor whose type can be inferred."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    types: dict[str, int] = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types.update({v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)})
    return types


def _plain_casts(proto: ModelProto) -> None:
    """Store constants, turn `CastLike` into `Cast`, and leave casts from FP32 to FP32 out."""
    graph = proto.graph
    for node in list(_float_constants(graph)):
        graph.initializer.append(numpy_helper.from_array(_value(node), node.output[0]))
        graph.node.remove(node)
    types = _element_types(proto)
    nodes, same = [], dict[str, str]()
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "CastLike" and node.input[1] in types:
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types[node.input.pop(1)]))
        kinds = {types.get(name) for name in (node.input[0], node.output[0])} if node.op_type == "Cast" else {0}
        if kinds == {TensorProto.FLOAT} and node.output[0] not in {value.name for value in graph.output}:
            same[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _float_constants(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        if node.op_type == "Constant" and _value(node).dtype == np.float32:
            yield node


def _value(node: NodeProto) -> NDArray[np.generic]:
    """Return the value of a `Constant`, of an empty array where it is of a kind without numbers."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    kind = kinds.get(attribute.name)
    return np.zeros(0, np.bool_) if kind is None else np.array(helper.get_attribute_value(attribute), kind)


def drop_unused(graph: GraphProto) -> None:
    """Drop operators and constants that nothing takes any more."""
    while True:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        idle = [node for node in graph.node if used.isdisjoint(node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    stored = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(stored)
