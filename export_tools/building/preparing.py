"""The graph that TensorRT is given: of the wanted precision, in the forms that its parser takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeser.export_tools.building.library import Library
from edgeser.runtime.errors import EngineError, MissingDependencyError

if TYPE_CHECKING:  # a device without it builds what needs no change
    from onnx import ModelProto, NodeProto

_DOMAIN = "edgeser"
_VERSION = "1"


def prepared(graph: bytes, precision: str, library: Library, trt: Any, *, plugins: bool) -> bytes:
    """Return a bundle's graph as TensorRT is to have it.

    Args:
        graph: As it is in the bundle.
        precision: `fp16` to convert what is in FP32; any other leaves the graph as it is.
        library: For whom.
        trt: Its module, with which the plugins are registered.
        plugins: Whether the graph has nodes for plugins.

    Raises:
        MissingDependencyError: A change is needed, and onnx, which makes it, is not installed.
        EngineError: There is no plugin for one of the nodes.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        if plugins or precision == "fp16":
            raise MissingDependencyError("onnx", library.extra, "an engine with plugins or in FP16") from error
        return graph
    proto = onnx.load_from_string(graph)
    fold_codes(proto)
    if precision == "fp16":
        from edgeser.export_tools.building.half import to_half

        proto = to_half(proto)
    widen_codes(proto)
    if plugins:
        _address_plugins(proto, trt)
    content: bytes = proto.SerializeToString()
    return content


def fold_codes(proto: ModelProto) -> None:
    """Compute the INT8 codes that a graph unpacks from fewer bits: TensorRT's `DequantizeLinear` takes constants."""
    import numpy as np
    from onnx import ModelProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    from edgeser.export_tools.building.half import drop_unused

    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for codes in [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"]:
        names = _upstream(codes, makers)
        if codes in stored or not all(name in makers or name in stored for name in names):
            continue
        part = ModelProto()
        part.CopyFrom(proto)
        del part.graph.node[:], part.graph.initializer[:], part.graph.input[:], part.graph.output[:]
        part.graph.node.extend(node for node in graph.node if names.issuperset(node.output))
        part.graph.initializer.extend(stored[name] for name in names if name in stored)
        part.graph.output.append(helper.make_empty_tensor_value_info(codes))
        (value,) = ReferenceEvaluator(part).run(None, {})
        graph.node.remove(makers[codes])
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), codes))
        drop_unused(graph)


def _upstream(name: str, makers: Mapping[str, NodeProto]) -> set[str]:
    """Return the tensors that a tensor is computed from, and itself."""
    found, todo = set[str](), [name]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += makers[one].input if one in makers else ()
    return found


def widen_codes(proto: ModelProto) -> None:
    """Store INT8 codes in half precision, which holds them exactly, where no `DequantizeLinear` takes them.

    So encoders store weights that were not calibrated, and recurrences those that were; TensorRT refuses INT8
    constants anywhere else.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    dequantized = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    points = {name for node in proto.graph.node if node.op_type.endswith("antizeLinear") for name in node.input[2:]}
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.name not in dequantized | points:
            wide = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
            del proto.graph.value_info[:]  # what is cut out of them has another type now


def _address_plugins(proto: ModelProto, trt: Any) -> None:
    """Leave the operators' bodies out, which the parser would use instead, and say where each plugin is registered."""
    from onnx import helper

    from edgeser.export_tools.plugins import register

    register(trt)
    registry = trt.get_plugin_registry()
    del proto.functions[:]
    for node in proto.graph.node:
        if node.domain != _DOMAIN:
            continue
        # TensorRT 10.3's parser looks in the namespace that an attribute names, later ones also in the node's domain.
        places = [place for place in ("", _DOMAIN) if registry.get_creator(node.op_type, _VERSION, place) is not None]
        if not places:
            raise EngineError(f"no plugin is registered for {_DOMAIN}::{node.op_type}")
        attributes = {"plugin_version": _VERSION, "plugin_namespace": places[0]}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
