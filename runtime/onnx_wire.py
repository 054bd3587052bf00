"""ONNX graphs read field by field, as protobuf lays them out: the device has no `onnx` package."""

from __future__ import annotations

from collections.abc import Container, Mapping

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
_OUTSIDE = (_EXTERNAL_DATA, _DATA_LOCATION)
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
    todo = [("ModelProto", 0, len(graph))]
    while todo:
        kind, first, last = todo.pop()
        inner = MESSAGES[kind]
        wanted = _OUTSIDE if kind == "TensorProto" else inner
        for number, wire, start, end in _fields(graph, first, last, wanted):
            if wire == _BYTES and number in inner:
                todo.append((inner[number], start, end))
            elif wanted is _OUTSIDE and (number == _EXTERNAL_DATA or start):
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
    graphs = [(start, end) for _, _, start, end in _fields(graph, 0, len(graph), (_GRAPH,))]
    parts = [part for span in graphs for part in _fields(graph, *span, (_INITIALIZER, _NODE))]
    for _, _, start, end in (part for part in parts if part[0] == _INITIALIZER):
        names = _texts(graph, _fields(graph, start, end, (_TENSOR_NAME,)))
        tables.update(dict.fromkeys(names[-1:], _first_size(graph, start, end)))
    for _, _, start, end in (part for part in parts if part[0] == _NODE):
        kind, inputs, outputs, axis = _node(graph, start, end)
        if kind == "Gather" and len(inputs) == 2 and inputs[0] in tables and inputs[1] in ids and not axis:
            rows.append(tables[inputs[0]])
        elif kind in _PASSED_ON and inputs and inputs[0] in ids:
            ids.update(outputs)
        elif kind in _PASSED_ON and inputs and inputs[0] in tables:
            tables.update(dict.fromkeys(outputs, tables[inputs[0]]))
    return min(rows, default=None)


def _node(graph: bytes, start: int, end: int) -> tuple[str, list[str], list[str], int]:
    """Return an operator's kind, inputs and outputs, and of a `Gather` the axis; no more than the kind of others."""
    kind = "".join(_texts(graph, _fields(graph, start, end, (_OP_TYPE,)))[-1:])
    if kind != "Gather" and kind not in _PASSED_ON:
        return kind, [], [], 0
    inputs, outputs = (_texts(graph, _fields(graph, start, end, (number,))) for number in (_INPUT, _OUTPUT))
    attributes = _fields(graph, start, end, (_ATTRIBUTE,)) if kind == "Gather" else []
    numbers = [number[2] for _, _, first, last in attributes for number in _fields(graph, first, last, (_INTEGER,))]
    return kind, inputs, outputs, max(numbers, default=0)


def _texts(graph: bytes, fields: list[Field]) -> list[str]:
    return [graph[start:end].decode("utf-8", "replace") for _, wire, start, end in fields if wire == _BYTES]


def _first_size(graph: bytes, start: int, end: int) -> int:
    """Return a tensor's first size; sizes come one in a field, or several."""
    for _, wire, at, last in _fields(graph, start, end, (_DIMS,)):
        if wire == _VARINT or at < last:
            return at if wire == _VARINT else _varint(graph, at)[0]
    return 0


def _fields(graph: bytes, at: int, end: int, wanted: Container[int]) -> list[Field]:
    """Return the wanted fields of the message from `at` to `end`."""
    found: list[Field] = []
    try:
        while at < end:
            tag = graph[at]
            at += 1
            if tag > 127:
                tag, at = _varint(graph, at - 1)
            wire = tag & 7
            if wire == _BYTES:
                start = graph[at]
                at += 1
                if start > 127:
                    start, at = _varint(graph, at - 1)
                start, at = at, at + start
            elif wire == _VARINT:
                start, at = _varint(graph, at)
            else:
                start, at = at, at + _FIXED[wire]
            if tag >> 3 in wanted:
                found.append((tag >> 3, wire, start, at))
    except (IndexError, KeyError) as error:
        raise BundleError(_DAMAGED) from error
    if at != end:
        raise BundleError(_DAMAGED)
    return found


def _varint(graph: bytes, at: int) -> tuple[int, int]:
    """Read a number of up to ten bytes, seven bits in each; return it, and where it ends."""
    value = shift = 0
    while True:
        byte = graph[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at
        if shift == 70 or at == len(graph):
            raise BundleError(_DAMAGED)
