"""Token embeddings in five bits: six codes in a 32-bit word, unpacked by standard operators; a scale for 32 codes.

Only the rows that an utterance's tokens look up are ever unpacked, so this costs no time worth measuring. The words are
INT32 because TensorRT takes an INT8 constant nowhere but before a DequantizeLinear, and a whole table dequantized would
be 47 MB that is worked through for every utterance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeser.calibration.graph import Graph, prune

GROUP = 32
BITS = 5
CODES = 6  # in a word: 30 of its 31 bits without the sign
_MIDDLE = (1 << (BITS - 1)) - 1  # what is added to a code, -15 to 15, so that words are never negative
SMALLEST = 1 << 20  # codes; a smaller table is not worth its nodes


def pack_tables(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose large embedding tables take five bits a value."""
    packed = onnx.ModelProto()
    packed.CopyFrom(proto)
    graph = Graph(packed)
    for node in list(packed.graph.node):
        found = _table(graph, node) if node.op_type == "Gather" else None
        if found is not None:
            _replace(graph, node, *found)
    prune(packed)
    onnx.checker.check_model(packed)
    return packed


def pack(values: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    """Return `(rows, dim / CODES)` words and `(rows, dim / GROUP)` scales of `(rows, dim)` values.

    The first word of a row holds the first code of each sixth of it, the lowest bits the first sixth's.
    """
    rows, dim = values.shape
    groups = values.reshape(rows, dim // GROUP, GROUP)
    peaks = np.abs(groups).max(axis=2, keepdims=True)
    scales = np.where(peaks > 0, np.maximum(peaks / _MIDDLE, np.finfo(np.float16).tiny), 1.0).astype(np.float16)
    codes = np.clip(np.rint(groups / scales.astype(np.float32)), -_MIDDLE, _MIDDLE).astype(np.int32) + _MIDDLE
    sixths = codes.reshape(rows, CODES, dim // CODES)
    words: NDArray[np.int32] = (sixths << (BITS * np.arange(CODES, dtype=np.int32))[:, None]).sum(
        axis=1, dtype=np.int32
    )
    return words, scales[:, :, 0]


def _table(graph: Graph, node: onnx.NodeProto) -> tuple[onnx.NodeProto, NDArray[np.float32]] | None:
    """Return a table that a Gather looks up, and the node that gives its rows as numbers.

    Encoders keep a table as numbers, or as INT8 codes with a scale per row, looked up and multiplied behind.
    """
    table = graph.constant(node.input[0])
    if table is None or table.ndim != 2 or table.size < SMALLEST or table.shape[1] % GROUP or table.shape[1] % CODES:
        return None
    if any(attribute.name == "axis" and attribute.i != 0 for attribute in node.attribute):
        return None
    if table.dtype != np.int8:
        return (node, table) if table.dtype == np.float32 else None
    users = [user for cast in graph.users[node.output[0]] for user in graph.users[cast.output[0]]]
    makers = [graph.makers.get(name) for user in users for name in user.input]
    scales = [maker for maker in makers if maker is not None and maker.op_type == "Gather"]
    constant = graph.constant(scales[0].input[0]) if len(scales) == 1 else None
    return None if constant is None else (users[0], (table * constant).astype(np.float32))


def _replace(graph: Graph, node: onnx.NodeProto, last: onnx.NodeProto, table: NDArray[np.float32]) -> None:
    """Put the lookup and its unpacking where `node` is; what `last` gave comes from there."""
    words, scales = pack(table)
    name, dim = f"{node.output[0]}.packed", table.shape[1]
    half = 1 << (BITS * CODES // 2)
    places = (1 << (BITS * np.arange(CODES // 2)))[:, None].astype(np.float32)
    constants = {
        "words": words,
        "scales": scales,
        "half": np.int32(half),
        "places": places,
        "next_places": places * (1 << BITS),
        "base": np.float32(1 << BITS),
        "middle": np.float32(_MIDDLE),
        "grouped": np.array([0, 0, dim // GROUP, GROUP], np.int64),
        "flat": np.array([0, 0, dim], np.int64),
        "second": np.array([2], np.int64),
        "third": np.array([3], np.int64),
        "last": np.array([-1], np.int64),
    }
    graph.proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"{name}.{key}") for key, value in constants.items()
    )
    # Halves first: OpenVINO divides integers as floats, which is exact for a word's upper half, and for 15 bits.
    steps = [
        ("Gather", ["words", node.input[1]], "row"),
        ("Div", ["row", "half"], "upper"),
        ("Mul", ["upper", "half"], "above"),
        ("Sub", ["row", "above"], "lower"),
        ("Unsqueeze", ["lower", "second"], "lower_half"),
        ("Unsqueeze", ["upper", "second"], "upper_half"),
        ("Concat", ["lower_half", "upper_half"], "halves"),
        ("Cast", ["halves"], "numbers"),
        ("Unsqueeze", ["numbers", "third"], "wide"),
        ("Div", ["wide", "places"], "down"),
        ("Floor", ["down"], "from_here"),
        ("Div", ["wide", "next_places"], "further_down"),
        ("Floor", ["further_down"], "from_next"),
        ("Mul", ["from_next", "base"], "above_here"),
        ("Sub", ["from_here", "above_here"], "shifted"),
        ("Sub", ["shifted", "middle"], "codes"),
        ("Reshape", ["codes", "grouped"], "groups"),
        ("Gather", ["scales", node.input[1]], "half_scales"),
        ("Cast", ["half_scales"], "single_scales"),
        ("Unsqueeze", ["single_scales", "last"], "steps"),
        ("Mul", ["groups", "steps"], "scaled"),
        ("Reshape", ["scaled", "flat"], ""),
    ]
    attributes: dict[str, dict[str, Any]] = {"Cast": {"to": onnx.TensorProto.FLOAT}, "Concat": {"axis": 2}}
    place = list(graph.proto.graph.node).index(node)
    for offset, (kind, given, wanted) in enumerate(steps):
        inputs = [one if one == node.input[1] else f"{name}.{one}" for one in given]
        output = f"{name}.{wanted}" if wanted else last.output[0]
        made = helper.make_node(kind, inputs, [output], name=f"{output}.unpack", **attributes.get(kind, {}))
        graph.proto.graph.node.insert(place + offset, made)
    graph.proto.graph.node.remove(last)
