"""Where a graph can be quantized: every product of activations with constant weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgeser.calibration.graph import Graph
from edgeser.calibration.tables import SMALLEST

_LINEAR = ("MatMul", "Gemm")
_RECURRENT = ("LSTM", "GRU")


@dataclass(frozen=True)
class Site:
    """One product that INT8 can compute.

    Attributes:
        name: Of the layer, as its bias or its weight is called.
        node: The node's name.
        kind: `matmul`, `conv` or `recurrent`.
        activation: The tensor that is quantized beside the weight; empty for `recurrent`, whose weights alone are
            stored as INT8: engines compute recurrences in floating point.
        weights: The constant inputs' names.
        axis: The axis of the weights that has a scale for each of its entries: the output channels.
        parameters: How many weights.
        float_reason: Why it stays in floating point by default; empty when it does not.
    """

    name: str
    node: str
    kind: str
    activation: str
    weights: tuple[str, ...]
    axis: int
    parameters: int
    float_reason: str = ""


def find_sites(proto: onnx.ModelProto) -> list[Site]:
    """Return a graph's sites in the order they run; names are unique.

    What stays in floating point by default, and why:

    - the last product before an output of the model: its error goes into the logits undamped, and it costs nothing, but
      for one with a table of tokens, which costs most;
    - a convolution over one channel: it hears raw samples or sees raw energies, which 8 bits are too coarse for;
    - weights that several nodes share: the readout of the importances uses the classifier's.
    """
    graph = Graph(proto)
    last = set(_last(graph))
    sites: list[Site] = []
    for node in proto.graph.node:
        found = _site(graph, node)
        if found is None:
            continue
        is_last = node.name in last and found.parameters < SMALLEST
        reason = found.float_reason or ("last before an output" if is_last else "")
        taken = sum(site.name.partition("#")[0] == found.name for site in sites)
        name = f"{found.name}#{taken + 1}" if taken else found.name
        sites.append(Site(**{**vars(found), "name": name, "float_reason": reason}))
    return sites


def _site(graph: Graph, node: onnx.NodeProto) -> Site | None:
    if node.op_type in _RECURRENT:
        return _recurrent(graph, node)
    if node.op_type not in (*_LINEAR, "Conv") or len(node.input) < 2 or graph.constant(node.input[0]) is not None:
        return None
    weight = graph.constant(node.input[1])
    is_conv = node.op_type == "Conv"
    if weight is None or weight.dtype != np.float32 or (weight.ndim != 2 and not is_conv):
        return None
    transposed = {a.name: a.i for a in node.attribute if a.name in ("transA", "transB")}
    if transposed.get("transA"):
        return None
    reason = ""
    if is_conv and weight.shape[1] == 1:
        reason = "reads one raw channel"
    elif any(len(graph.users[stored]) > 1 for stored in (node.input[1], *graph.stored_in(node.input[1]))):
        reason = "weights are shared"
    return Site(
        name=_layer_name(graph, node),
        node=node.name,
        kind="conv" if is_conv else "matmul",
        activation=node.input[0],
        weights=(node.input[1],),
        axis=0 if is_conv or transposed.get("transB") else 1,
        parameters=int(weight.size),
        float_reason=reason,
    )


def _recurrent(graph: Graph, node: onnx.NodeProto) -> Site | None:
    weights = tuple(node.input[1:3])
    values = [value for value in map(graph.constant, weights) if value is not None]
    if len(values) != len(weights) or has_codes(graph, node):
        return None
    size = sum(value.size for value in values)
    return Site(_layer_name(graph, node), node.name, "recurrent", "", weights, 1, size)


def has_codes(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a recurrence whose weights are stored as INT8 codes."""
    if node.op_type not in _RECURRENT:
        return False
    stored = (graph.constant(name) for weight in node.input[1:3] for name in graph.stored_in(weight))
    return any(value is not None and value.dtype == np.int8 for value in stored)


def _layer_name(graph: Graph, node: onnx.NodeProto) -> str:
    """Name a layer by its bias, which keeps its name through export, or by its weight."""
    candidates: list[str] = list(node.input[2:])
    for user in graph.users[node.output[0]]:
        if user.op_type == "Add":
            candidates += [name for name in user.input if name != node.output[0]]
    for name in candidates:
        if name.endswith((".bias", "_bias")) and graph.constant(name) is not None:
            # The exporter calls the bias that a folded batch norm gives `conv1.weight_bias`.
            return name.removesuffix("bias").rstrip("._").removesuffix(".weight").removeprefix("model.")
    weight: str = node.input[1]
    return weight.removesuffix(".smooth").removesuffix(".half").removesuffix(".weight").removeprefix("model.")


def _last(graph: Graph) -> Iterator[str]:
    """Yield the names of the products that the logits come from with no other product between."""
    outputs = [value.name for value in graph.proto.graph.output if value.name == "logits"]
    seen = set(outputs)
    while outputs:
        node = graph.makers.get(outputs.pop())
        if node is None:
            continue
        if node.op_type in (*_LINEAR, "Conv"):
            yield node.name
            continue
        new = set(node.input) - seen
        seen |= new
        outputs += new
