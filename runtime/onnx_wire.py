"""ONNX graphs read field by field, as protobuf lays them out: the device has no `onnx` package."""

from __future__ import annotations

from collections.abc import Mapping

from edgeser.runtime.errors import BundleError

MESSAGES: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
"""Where a model has tensors: the fields that lead to them, by message and number."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DAMAGED = "the graph is damaged, or is none of ONNX: export it again"
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a TensorProto
_GRAPH = 7  # of a ModelProto
_NODE, _INITIALIZER = 1, 5  # of a GraphProto
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5  # of a NodeProto
_DIMS, _TENSOR_NAME = 1, 8  # of a TensorProto
_INTEGER = 3  # of an AttributeProto
_PASSED_ON = ("Cast", "Identity", "DequantizeLinear")

Field = tuple[int, int, int, int]
"""Number, wire type, and where the value lies: from, to. Of a varint the value itself, and where it ends."""


def check_graph(graph: bytes) -> None:
    """Refuse a graph that keeps tensors in other files.

    A bundle has no such files. OpenVINO would take them from the working directory, whatever lies there.

    Raises:
        BundleError: It keeps some outside, or is no ONNX graph.
    """
    todo = [("ModelProto", memoryview(graph))]
    while todo:
        kind, message = todo.pop()
        inner = MESSAGES[kind]
        is_tensor = kind == "TensorProto"
        for number, wire, start, end in _fields(message):
            if wire == _BYTES and number in inner:
                todo.append((inner[number], message[start:end]))
            elif is_tensor and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and start)):
                raise BundleError(
                    "the graph keeps tensors in other files, which a bundle has not: export it with its data inside"
                )


def embedding_rows(graph: bytes, name: str) -> int | None:
    """Return how many ids the tables have that an input's values look up by `Gather`.

    Args:
        graph: An ONNX graph.
        name: The input.

    Returns:
        The rows of the smallest table; `None` where no initializer is looked up so.

    Raises:
        BundleError: It is no ONNX graph.
    """
    ids, tables, rows = {name}, dict[str, int](), list[int]()
    graphs = [message for number, message in _messages(memoryview(graph)) if number == _GRAPH]
    parts = [part for message in graphs for part in _messages(message)]
    for tensor in (message for number, message in parts if number == _INITIALIZER):
        tables.update(dict.fromkeys(_texts(_messages(tensor), _TENSOR_NAME)[-1:], _first_size(tensor)))
    for node in (message for number, message in parts if number == _NODE):
        kind, inputs, outputs, axis = _node(node)
        if kind == "Gather" and len(inputs) == 2 and inputs[0] in tables and inputs[1] in ids and not axis:
            rows.append(tables[inputs[0]])
        elif kind in _PASSED_ON and inputs and inputs[0] in ids:
            ids.update(outputs)
        elif kind in _PASSED_ON and inputs and inputs[0] in tables:
            tables.update(dict.fromkeys(outputs, tables[inputs[0]]))
    return min(rows, default=None)


def _messages(message: memoryview) -> list[tuple[int, memoryview]]:
    """Return the messages and texts inside a message, with their numbers."""
    return [(number, message[start:end]) for number, wire, start, end in _fields(message) if wire == _BYTES]


def _node(node: memoryview) -> tuple[str, list[str], list[str], int]:
    """Return an operator's kind, inputs and outputs, and of a `Gather` the axis; no more than the kind of others."""
    parts = _messages(node)
    kind = "".join(_texts(parts, _OP_TYPE)[-1:])
    if kind != "Gather" and kind not in _PASSED_ON:
        return kind, [], [], 0
    attributes = [message for number, message in parts if kind == "Gather" and number == _ATTRIBUTE]
    numbers = [start for attribute in attributes for n, _, start, _ in _fields(attribute) if n == _INTEGER]
    return kind, _texts(parts, _INPUT), _texts(parts, _OUTPUT), max(numbers, default=0)


def _texts(parts: list[tuple[int, memoryview]], number: int) -> list[str]:
    return [str(raw, "utf-8", "replace") for n, raw in parts if n == number]


def _first_size(tensor: memoryview) -> int:
    """Return a tensor's first size; sizes come one in a field, or several."""
    for number, wire, start, end in _fields(tensor):
        if number == _DIMS and (wire == _VARINT or start < end):
            return start if wire == _VARINT else _varint(tensor, start)[0]
    return 0


def _fields(message: memoryview) -> list[Field]:
    """Return a message's fields; a list, which is quicker than a generator where they are few."""
    found, at, end = [], 0, len(message)
    try:
        while at < end:
            tag = message[at]
            at += 1
            if tag > 127:
                tag, at = _varint(message, at - 1)
            wire = tag & 7
            if wire == _BYTES:
                size = message[at]
                at += 1
                if size > 127:
                    size, at = _varint(message, at - 1)
                found.append((tag >> 3, wire, at, at + size))
                at += size
            elif wire == _VARINT:
                value, at = _varint(message, at)
                found.append((tag >> 3, wire, value, at))
            else:
                at += _FIXED[wire]
    except (IndexError, KeyError) as error:
        raise BundleError(_DAMAGED) from error
    if at != end:
        raise BundleError(_DAMAGED)
    return found


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number of up to ten bytes, seven bits in each; return it, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at
        if shift == 70 or at == len(message):
            raise BundleError(_DAMAGED)
