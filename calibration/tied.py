"""The table of a decoder's tokens, which serves both its ends: a column is looked up, and all of it gives the logits.

The mean over the tokens is left out of the product: it adds the same to every logit, which changes no probability, and
of Whisper's tables it is most of a few channels, which would set the scale of every column. Without it the table is a
product as every other one: its channels are evened out, its activation is watched, its columns become INT8 codes. Those
are rounded to fewer levels, together, and two lie in a byte of the file. Engines unpack them once, while they load the
graph: what multiplies is INT8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeser.calibration.graph import Graph, prune
from edgeser.calibration.rows import RowSample
from edgeser.calibration.tables import SMALLEST

BITS = 4
CODES = 8 // BITS  # in a byte
GROUP = 16  # bytes of a column that share a step
STEPS = 1 << BITS  # sizes that a step has, from 1 to what makes the largest level an INT8 code's largest
_BLOCK = 32  # rows that are rounded before the others hear of it
_MIDDLE = (1 << (BITS - 1)) - 1
_LEVELS = 1 << BITS


def untie_table(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose product for the logits has a table of its own, without the mean over the tokens.

    All logits of a state are smaller by the same number.
    """
    untied = onnx.ModelProto()
    untied.CopyFrom(proto)
    graph = Graph(untied)
    for lookup in list(untied.graph.node):
        table = _table(graph, lookup)
        if table is None:
            continue
        products = [node for node in graph.users[lookup.input[0]] if _multiplies_by(node, lookup.input[0])]
        if len(products) == 1:
            _give_product_its_own(graph, products[0], lookup.input[0], table)
    return untied


def tie_table(
    proto: onnx.ModelProto, packed: bool = True, samples: Mapping[str, RowSample] | None = None
) -> onnx.ModelProto:
    """Return an untied graph, in INT8 or not, that looks columns up in what it multiplies by.

    Args:
        proto: Of `untie_table`, perhaps smoothed and quantized.
        packed: Store INT8 codes in `BITS` bits, where the table's width allows it.
        samples: Rows of activations, by tensor: with those of the product's, codes are rounded together.
    """
    tied = onnx.ModelProto()
    tied.CopyFrom(proto)
    graph, products = Graph(tied), {node.name: node for node in tied.graph.node}
    for lookup in list(tied.graph.node):
        table = _table(graph, lookup)
        product = products.get(_product(lookup.input[0])) if table is not None else None
        if table is not None and product is not None:
            _Tied(graph, lookup, product, samples or {}).tie(table.mean(axis=1, keepdims=True), packed)
    prune(tied)
    onnx.checker.check_model(tied)
    return tied


def pack_codes(
    codes: NDArray[np.int8], rows: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return `(width, tokens)` codes in `(width / CODES, tokens)` bytes, and the step that each `GROUP` of them takes.

    The low bits of a column's first byte are its first row, the high bits the first row of its second half. Steps lie
    in bytes the same way.

    Args:
        codes: Of a table.
        rows: `(n, width)` of what multiplies them. Where there are some, later rows make up for what rounding the rows
            before changes of those products (GPTQ, Frantar et al. 2023).
    """
    width, tokens = codes.shape
    # (CODES, groups, GROUP, tokens)
    values = codes.reshape(CODES, width // (CODES * GROUP), GROUP, tokens).astype(np.float32)
    book, steps = codebook()
    groups = np.zeros((values.shape[1], tokens), np.uint8)
    least = np.full(groups.shape, np.inf, np.float32)
    for place, step in enumerate(steps):
        errors = np.square(book[place].astype(np.float32)[_levels(values, step)] - values).sum(axis=(0, 2))
        groups[errors < least] = place
        least = np.minimum(errors, least)
    return _in_bytes(_rounded(codes.astype(np.float32), groups, rows)), _in_bytes(groups)


def _in_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    halves = values.reshape(CODES, -1, values.shape[1]).astype(np.uint8)
    shifts = (BITS * np.arange(CODES, dtype=np.uint8))[:, None, None]
    stored: NDArray[np.uint8] = np.bitwise_or.reduce(halves << shifts, axis=0)
    return stored


def _rounded(
    values: NDArray[np.float32], groups: NDArray[np.uint8], rows: NDArray[np.float32] | None
) -> NDArray[np.int8]:
    """Return the level of each value, by the steps of the groups."""
    book, steps = codebook()
    width = values.shape[0]
    group_of = np.arange(width) % (width // CODES) // GROUP
    if rows is None:
        return _levels(values, steps[groups[group_of]])
    products = rows.T.astype(np.float64) @ rows
    damped = products / np.trace(products) * width + np.eye(width)
    share = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)  # of a row's error that later ones take
    left, levels = values.copy(), np.zeros(values.shape, np.int8)
    for first in range(0, width, _BLOCK):
        last = min(first + _BLOCK, width)
        errors = np.zeros((last - first, values.shape[1]), np.float32)
        for row in range(first, last):
            group = groups[group_of[row]]
            levels[row] = _levels(left[row], steps[group])
            error = errors[row - first] = (left[row] - book[group, levels[row]]) / share[row, row]
            left[row + 1 : last] -= share[row, row + 1 : last, None] * error
        left[last:] -= share[first:last, last:].T @ errors
    return levels


def codebook() -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the INT8 code of each level `(STEPS, levels)` and the sizes of the steps; the last level is never used."""
    steps = np.geomspace(1.0, 127.0 / _MIDDLE, STEPS).astype(np.float32)
    levels = np.minimum(np.arange(_LEVELS) - _MIDDLE, _MIDDLE)
    return np.clip(np.rint(steps[:, None] * levels), -127, 127).astype(np.int8), steps


def _levels(values: NDArray[np.float32], steps: Any) -> NDArray[np.int8]:
    levels: NDArray[np.int8] = (np.clip(np.rint(values / steps), -_MIDDLE, _MIDDLE) + _MIDDLE).astype(np.int8)
    return levels


def _table(graph: Graph, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return a large table whose columns a node looks up."""
    if node.op_type != "Gather" or not any(a.name == "axis" and a.i == 1 for a in node.attribute):
        return None
    table = graph.constant(node.input[0])
    is_one = table is not None and table.ndim == 2 and table.size >= SMALLEST and table.dtype == np.float32
    return table if is_one else None


def _multiplies_by(node: onnx.NodeProto, name: str) -> bool:
    return node.op_type == "MatMul" and node.input[1] == name


def _give_product_its_own(graph: Graph, product: onnx.NodeProto, name: str, table: NDArray[np.float32]) -> None:
    product.name, product.input[1] = _product(name), f"{name}.weight"
    own = table - table.mean(axis=1, keepdims=True)
    graph.proto.graph.initializer.append(numpy_helper.from_array(own, product.input[1]))


def _product(name: str) -> str:
    """Return what the node is called that multiplies by a table."""
    return f"{name}.product"


@dataclass
class _Tied:
    """Writes the nodes that look a column up in a product's weights.

    Attributes:
        graph: The graph.
        lookup: The node that they stand for.
        product: The one that multiplies.
        samples: Rows of activations, by tensor.
    """

    graph: Graph
    lookup: onnx.NodeProto
    product: onnx.NodeProto
    samples: Mapping[str, RowSample]

    def tie(self, mean: NDArray[np.float32], packed: bool) -> None:
        name, nodes = self.lookup.input[0], self.graph.proto.graph.node
        pair: onnx.NodeProto | None = self.graph.makers.get(self.product.input[1])
        made: list[onnx.NodeProto] = []
        if pair is not None and pair.op_type == "DequantizeLinear":
            made, column = self._of_codes(pair, name, packed)
        else:
            column = f"{name}.column"
            made.append(helper.make_node("Gather", [self.product.input[1], self.lookup.input[1]], [column], axis=1))
        evened = self._reciprocals()
        if evened is not None:
            self._store(f"{name}.reciprocals", evened.reshape(-1, 1))
            made.append(helper.make_node("Mul", [column, f"{name}.reciprocals"], [f"{name}.even"]))
            column = f"{name}.even"
        self._store(f"{name}.mean", mean)
        made.append(helper.make_node("Add", [column, f"{name}.mean"], [self.lookup.output[0]]))
        place = list(nodes).index(self.lookup)
        nodes.remove(self.lookup)
        for offset, node in enumerate(made):
            node.name = f"{node.output[0]}.lookup"
            nodes.insert(place + offset, node)

    def _reciprocals(self) -> NDArray[np.float32] | None:
        """Return what `smooth` multiplies the product's activation by."""
        node = self._before(self.product.input[0])
        is_smooth = node is not None and node.op_type == "Mul" and node.output[0].endswith(".smooth")
        return self.graph.constant(node.input[1]) if node is not None and is_smooth else None

    def _rows(self) -> NDArray[np.float32] | None:
        """Return rows of what multiplies the codes, where some were kept."""
        node, evened = self._before(self.product.input[0]), self._reciprocals()
        if node is None:
            return None
        sample = self.samples.get(node.output[0] if evened is None else node.input[0])
        return None if sample is None else sample.rows * (1.0 if evened is None else evened)

    def _before(self, name: str) -> onnx.NodeProto | None:
        """Return what makes a tensor, with no Q/DQ pair between."""
        node: onnx.NodeProto | None = self.graph.makers.get(name)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            node = self.graph.makers.get(node.input[0])
        return node

    def _of_codes(self, pair: onnx.NodeProto, name: str, packed: bool) -> tuple[list[onnx.NodeProto], str]:
        """Return the nodes that give a column of INT8 codes as numbers, and what the last of them gives."""
        codes, scales = self.graph.constant(pair.input[0]), pair.input[1]
        assert codes is not None
        made: list[onnx.NodeProto] = []
        token, column = self.lookup.input[1], f"{name}.codes"
        if packed and codes.shape[0] % (CODES * CODES * GROUP) == 0:
            made += self._unpacked(name, codes, token, pair)
        else:
            made.append(helper.make_node("Gather", [pair.input[0], token], [column], axis=1))
        made += [
            helper.make_node("Cast", [column], [f"{name}.numbers"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [scales, token], [f"{name}.scale"]),
            helper.make_node("Mul", [f"{name}.numbers", f"{name}.scale"], [f"{name}.column"]),
        ]
        return made, f"{name}.column"

    def _unpacked(self, name: str, codes: NDArray[np.int8], token: str, pair: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Store bytes; return the nodes that unpack a column, and all of them for the product.

        A book has the INT8 codes of every byte at every step, so that a byte is one lookup in it.
        """
        stored, groups = pack_codes(codes, self._rows())
        every = np.arange(1 << 8)[:, None] >> (BITS * np.arange(CODES)) & (_LEVELS - 1)
        each = codes.shape[0] // (CODES * GROUP)
        constants: Mapping[str, Any] = {
            "bytes": stored.reshape(each, GROUP, -1),
            "groups": groups.reshape(-1, 1, groups.shape[1]),
            "levels": codebook()[0].reshape(-1),
            "of_bytes": every.astype(np.uint8),
            "of_steps": (_LEVELS * np.arange(STEPS, dtype=np.int32)).reshape(-1, 1, 1),
            "by_byte": np.array([-1, CODES], np.int64),
            "pages": np.int32(1 << 8),
            "each": np.array([each, 1, -1], np.int64),
            "flat": np.array([codes.shape[0], -1], np.int64),
        }
        for key, value in constants.items():
            self._store(f"{name}.{key}", np.asarray(value))
        whole = f"{name}.all"
        pair.input[0] = f"{whole}.codes"
        made = self._steps(
            name,
            [
                ("Cast", ["of_bytes"], "byte_levels"),
                ("Add", ["byte_levels", "of_steps"], "places"),
                ("Gather", ["levels", "places"], "byte_codes"),
                ("Reshape", ["byte_codes", "by_byte"], "book"),
            ],
        )
        made += [
            helper.make_node("Gather", [f"{name}.{what}", token], [f"{name}.own_{what}"], axis=2)
            for what in ("bytes", "groups")
        ]
        return [*made, *self._unpack(name, "own_", ""), *self._unpack(name, "", "all.")]

    def _unpack(self, name: str, given: str, wanted: str) -> list[onnx.NodeProto]:
        return self._steps(
            name,
            [
                ("Cast", [f"{given}bytes"], f"{wanted}numbers_of_bytes"),
                ("Cast", [f"{given}groups"], f"{wanted}bytes_of_groups"),
                ("Gather", ["byte_levels", f"{wanted}bytes_of_groups"], f"{wanted}pairs_of_groups"),
                ("Transpose", [f"{wanted}pairs_of_groups"], f"{wanted}halves_of_groups"),
                ("Reshape", [f"{wanted}halves_of_groups", "each"], f"{wanted}numbers_of_groups"),
                ("Mul", [f"{wanted}numbers_of_groups", "pages"], f"{wanted}page"),
                ("Add", [f"{wanted}numbers_of_bytes", f"{wanted}page"], f"{wanted}found"),
                ("Gather", ["book", f"{wanted}found"], f"{wanted}looked_up"),
                ("Transpose", [f"{wanted}looked_up"], f"{wanted}halves"),
                ("Reshape", [f"{wanted}halves", "flat"], f"{wanted}codes"),
            ],
        )

    @staticmethod
    def _steps(name: str, steps: Sequence[tuple[str, Sequence[str], str]]) -> list[onnx.NodeProto]:
        attributes: Mapping[str, dict[str, Any]] = {
            "Cast": {"to": onnx.TensorProto.INT32},
            "Transpose": {"perm": [3, 0, 1, 2]},
        }
        return [
            helper.make_node(kind, [f"{name}.{one}" for one in given], [f"{name}.{made}"], **attributes.get(kind, {}))
            for kind, given, made in steps
        ]

    def _store(self, name: str, value: NDArray[Any]) -> None:
        self.graph.proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
