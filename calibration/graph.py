"""An ONNX graph with its edges: who makes a tensor, who takes it, and which tensors are constant."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


class Graph:
    """An index over a model, valid until the model's nodes change.

    Attributes:
        proto: The model.
        makers: The node that makes a tensor, by the tensor's name.
        users: The nodes that take a tensor, by the tensor's name.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.makers = {out: node for node in proto.graph.node for out in node.output}
        self.users: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in proto.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a tensor's value where it is constant: stored, or made from stored ones by a cast or a scale.

        Encoders keep weights in half precision or as INT8 codes with scales; what they stand for is the weight.
        """
        if name in self._initializers:
            value: NDArray[Any] = numpy_helper.to_array(self._initializers[name])
            return value
        node = self.makers.get(name)
        if node is None or node.op_type not in ("Constant", "Cast", "Mul"):
            return None
        if node.op_type == "Constant":
            return numpy_helper.to_array(node.attribute[0].t) if node.attribute[0].name == "value" else None
        inputs = [self.constant(given) for given in node.input]
        if any(given is None for given in inputs):
            return None
        if node.op_type == "Cast":
            kind = onnx.helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            cast: NDArray[Any] = np.asarray(inputs[0]).astype(kind)
            return cast
        product: NDArray[Any] = np.asarray(inputs[0]) * np.asarray(inputs[1])
        return product

    def stored_in(self, name: str) -> frozenset[str]:
        """Return the initializers that a constant is made from."""
        if name in self._initializers:
            return frozenset([name])
        node = self.makers.get(name)
        return frozenset().union(*map(self.stored_in, node.input)) if node is not None else frozenset()


def prune(proto: onnx.ModelProto) -> None:
    """Drop nodes and initializers that no output needs any more."""
    graph = proto.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(out in needed for out in node.output if out):  # "" stands for an output or input left out
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(stored)
