"""How an encoder's weights lie in the file; computed with are single-precision numbers either way."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeser.runtime.errors import InputError

FORMS = ("lossless", "half", "int8")
_SMALLEST = 4096  # values; below this a Cast costs more than it saves


def store_weights(proto: onnx.ModelProto, form: str = "lossless") -> onnx.ModelProto:
    """Make large weights smaller; engines fold them back when they load the graph, embeddings row by row when used.

    Args:
        proto: Changed in place.
        form: `lossless` stores as float16 what comes back as it was (checkpoints are often in half precision);
            `half` stores all large weights so; `int8` those of embeddings and matrix products as INT8, symmetric,
            with a scale per token or per output, and the others as `lossless` does.

    Raises:
        InputError: No such form.
    """
    if form not in FORMS:
        raise InputError(f"--weights: got {form!r}, expected one of {', '.join(FORMS)}")
    graph = proto.graph
    added: list[onnx.NodeProto] = []
    for weight in list(graph.initializer):
        if weight.data_type != onnx.TensorProto.FLOAT or int(np.prod(weight.dims)) < _SMALLEST:
            continue
        values = numpy_helper.to_array(weight)
        users = [node for node in graph.node if weight.name in node.input]
        if form == "int8" and values.ndim == 2 and {node.op_type for node in users} <= {"Gather", "MatMul", "Gemm"}:
            added += _as_int8(graph, weight, values, users)
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.isfinite(half).all() and (form == "half" or np.array_equal(half.astype(np.float32), values)):
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            added.append(_to_single(weight.name, name))
    for node in reversed(added):
        graph.node.insert(0, node)
    return proto


def _as_int8(
    graph: onnx.GraphProto, weight: onnx.TensorProto, values: NDArray[np.float32], users: list[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Replace a weight by codes and scales; return the nodes that have to stand before all others."""
    name = weight.name
    is_table = all(node.op_type == "Gather" for node in users)
    peaks = np.abs(values).max(axis=1 if is_table else 0, keepdims=True)
    scales = np.where(peaks > 0, peaks / 127.0, 1.0).astype(np.float32)
    codes = np.rint(values / scales).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(codes, f"{name}.codes"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
    if not is_table:
        single = _to_single(weight.name, f"{name}.unscaled")
        return [single, helper.make_node("Mul", [f"{name}.unscaled", f"{name}.scales"], [name], name=f"{name}.scaled")]
    for node in users:
        place, ids, out = list(graph.node).index(node), node.input[1], node.output[0]
        graph.node.remove(node)
        nodes = (
            helper.make_node("Gather", [weight.name, ids], [f"{out}.codes"], name=f"{out}.gather_codes"),
            _to_single(f"{out}.codes", f"{out}.unscaled"),
            helper.make_node("Gather", [f"{name}.scales", ids], [f"{out}.scales"], name=f"{out}.gather_scales"),
            helper.make_node("Mul", [f"{out}.unscaled", f"{out}.scales"], [out], name=f"{out}.scale"),
        )
        for step, replacement in enumerate(nodes):
            graph.node.insert(place + step, replacement)
    return []


def _to_single(given: str, wanted: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [given], [wanted], to=onnx.TensorProto.FLOAT, name=f"{wanted}.cast")
