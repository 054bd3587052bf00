"""Writing Q/DQ pairs into a graph: where, in which types, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeser.calibration.graph import Graph, prune
from edgeser.calibration.ranges import Range
from edgeser.calibration.sites import Site, find_sites, has_codes
from edgeser.runtime.errors import InputError

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 256


@dataclass(frozen=True)
class Preset:
    """How an engine likes its integers.

    Weights are signed INT8, symmetric, with a scale per output channel, in all of them; biases stay in floating point.

    Attributes:
        name: As users choose it.
        unsigned: Activations as U8 with a zero point instead of S8 without one.
        conv_outputs: A Q/DQ pair behind each convolution too.
        why: The reason.
    """

    name: str
    unsigned: bool
    conv_outputs: bool
    why: str


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "tensorrt",
            unsigned=False,
            conv_outputs=False,
            why="TensorRT takes symmetric S8 activations only; ONNX Runtime and OpenVINO run them too",
        ),
        Preset(
            "onnxruntime-x86",
            unsigned=True,
            conv_outputs=True,
            why="x86 multiplies U8 by S8 in one instruction, and ONNX Runtime's integer convolution writes integers; "
            "zero points use the whole code for activations that are mostly of one sign",
        ),
        Preset(
            "onnxruntime-arm",
            unsigned=False,
            conv_outputs=True,
            why="Arm multiplies S8 by S8 in one instruction, and ONNX Runtime's integer convolution writes integers",
        ),
    )
}


@dataclass(frozen=True)
class Scale:
    """What the codes of an activation stand for: `(code - zero_point) * scale`."""

    scale: float
    zero_point: int


def activation_scale(covered: Range, preset: Preset) -> Scale:
    """Return the scale and zero point for a range: 127 steps to either side, or 255 steps from low to high."""
    if covered.magnitude == 0.0:
        return Scale(1.0 / 127.0, 0)  # any scale gives 0, and this one leaves room for a bias, see `_bias_room`
    if not preset.unsigned:
        return Scale(max(covered.magnitude / 127.0, _SMALLEST_SCALE), 0)
    scale = max((covered.high - covered.low) / 255.0, _SMALLEST_SCALE)
    return Scale(scale, int(np.clip(np.rint(-covered.low / scale), 0, 255)))


def quantize_weight(
    weight: NDArray[np.float32], axis: int, smallest: NDArray[np.float64] | float = _SMALLEST_SCALE
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return INT8 codes and scales `(channels,)`: symmetric, -127 to 127, a scale for each entry along an axis.

    Args:
        weight: Of any rank.
        axis: The output channels.
        smallest: What scales are at least, for all channels or for each.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.abs(weight).max(axis=others)
    scales = np.maximum(np.where(peaks > 0, peaks, 1.0) / 127.0, smallest).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    codes = np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8)
    return codes, scales


def chosen(sites: Collection[Site], in_float: Collection[str] = ()) -> list[Site]:
    """Return the sites to quantize: all but those that stay in floating point by default or by name.

    Raises:
        InputError: A name is no site's.
    """
    names = {site.name for site in sites}
    unknown = sorted(set(in_float) - names)
    if unknown:
        raise InputError(f"floating point: no layer {unknown[0]!r}, expected some of {', '.join(sorted(names)[:6])} …")
    return [site for site in sites if not site.float_reason and site.name not in in_float]


def activations(proto: onnx.ModelProto, sites: Collection[Site], preset: Preset) -> list[str]:
    """Return the tensors whose ranges a preset needs: what goes into the sites, and what convolutions give."""
    nodes = {node.name: node for node in proto.graph.node}
    needed = [site.activation for site in sites if site.activation]
    if preset.conv_outputs:
        needed += [nodes[site.node].output[0] for site in sites if site.kind == "conv"]
    return list(dict.fromkeys(needed))


def quantize(
    proto: onnx.ModelProto, sites: Collection[Site], ranges: Mapping[str, Range], preset: Preset
) -> onnx.ModelProto:
    """Return a copy of a graph with Q/DQ pairs around the given sites.

    Args:
        proto: A graph in floating point.
        sites: Which of its products become INT8.
        ranges: Of the tensors that `activations` names.
        preset: Types and places.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(proto)
    writer = _Writer(quantized, preset)
    by_node = {site.node: site for site in sites}
    for node in list(quantized.graph.node):
        if node.name in by_node:
            writer.convert(node, by_node[node.name], ranges)
        writer.nodes.append(node)
        if node.name in by_node and by_node[node.name].kind == "conv" and preset.conv_outputs:
            writer.round_output(node, ranges)
    del quantized.graph.node[:]
    quantized.graph.node.extend(writer.nodes)
    del quantized.graph.value_info[:]
    prune(quantized)
    onnx.checker.check_model(quantized)
    return quantized


class _Writer:
    """Collects a graph's nodes anew, with the pairs between them.

    Each site has a pair of its own, with scales of its own, even where sites share an activation: only then does ONNX
    Runtime fuse all of them (of a query, key and value that share one pair, it leaves all three in floating point).
    """

    def __init__(self, proto: onnx.ModelProto, preset: Preset) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._proto = proto
        self._graph = Graph(proto)
        self._preset = preset

    def convert(self, node: onnx.NodeProto, site: Site, ranges: Mapping[str, Range]) -> None:
        """Make a node take its activation and weights from codes."""
        smallest: NDArray[np.float64] | float = _SMALLEST_SCALE
        if site.activation:
            scale = activation_scale(ranges[site.activation], self._preset)
            smallest = self._bias_room(node, scale)
            node.input[0] = f"{node.name}.input"
            self._pair(site.activation, node.input[0], scale)
        for name in site.weights:
            place = list(node.input).index(name)
            wanted = f"{node.name}.{name}"
            if site.kind == "recurrent":
                node.input[place] = self._recurrent_weight(name, wanted)
            else:
                node.input[place] = self._weight(self._value(name), wanted, site.axis, smallest)

    def round_output(self, node: onnx.NodeProto, ranges: Mapping[str, Range]) -> None:
        """Put a pair behind a node."""
        name = node.output[0]
        node.output[0] = f"{name}.exact"
        scale = activation_scale(ranges[name], self._preset)
        self._pair(node.output[0], name, scale)

    def _pair(self, given: str, wanted: str, scale: Scale) -> None:
        kind = np.uint8 if self._preset.unsigned else np.int8
        parameters = [
            self._store(f"{wanted}.scale", np.array(scale.scale, np.float32)),
            self._store(f"{wanted}.zero_point", np.array(scale.zero_point, kind)),
        ]
        codes = f"{wanted}.codes"
        self.nodes.append(helper.make_node("QuantizeLinear", [given, *parameters], [codes], name=f"{wanted}.quantize"))
        self.nodes.append(helper.make_node("DequantizeLinear", [codes, *parameters], [wanted], name=f"{wanted}.pair"))

    def _bias_room(self, node: onnx.NodeProto, scale: Scale) -> NDArray[np.float64] | float:
        """Return what the scales of a node's weights are at least, so that its bias fits.

        ONNX Runtime turns the bias of an integer Conv or Gemm into INT32 in steps of both scales' product. Behind a
        channel of almost no weight (a batch norm folded into it) a bias of 1 would be cut to almost 0.
        """
        bias = self._graph.constant(node.input[2]) if len(node.input) > 2 else None
        if bias is None:
            return _SMALLEST_SCALE
        channels = np.abs(bias).reshape(-1, bias.shape[-1] if bias.ndim else 1).max(axis=0).astype(np.float64)
        room: NDArray[np.float64] = np.maximum(channels / (scale.scale * 2.0**30), _SMALLEST_SCALE)
        return room

    def _value(self, name: str) -> NDArray[np.float32]:
        weight = self._graph.constant(name)
        assert weight is not None  # `find_sites` names constant weights only
        return weight.astype(np.float32, copy=False)

    def _weight(
        self, weight: NDArray[np.float32], wanted: str, axis: int, smallest: NDArray[np.float64] | float
    ) -> str:
        """Store a weight as codes; the node that makes numbers of them stands right before their user."""
        codes, scales = quantize_weight(weight, axis, smallest)
        inputs = [
            self._store(f"{wanted}.codes", codes),
            self._store(f"{wanted}.scales", scales),
            self._store(f"{wanted}.zero_points", np.zeros(scales.shape, np.int8)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [wanted], name=f"{wanted}.pair", axis=axis))
        return wanted

    def _recurrent_weight(self, name: str, wanted: str) -> str:
        """Store `(directions, rows of gates, size)` as codes, with a scale for each row, that casts make numbers of.

        Of codes behind a DequantizeLinear, however they are cut, OpenVINO 2026.4 makes an LSTM whose hidden state is
        rounded to 8 bits too, or it refuses the LSTM or GRU. By way of half precision it folds them into numbers.
        """
        weight = self._value(name)
        codes, scales = quantize_weight(weight.reshape(-1, weight.shape[-1]), 0)
        stored = self._store(f"{wanted}.codes", codes.reshape(weight.shape))
        steps = self._store(f"{wanted}.scales", scales.reshape(*weight.shape[:2], 1))
        half, unscaled, kinds = f"{wanted}.half", f"{wanted}.unscaled", onnx.TensorProto
        self.nodes += [
            helper.make_node("Cast", [stored], [half], to=kinds.FLOAT16, name=f"{half}.cast"),
            helper.make_node("Cast", [half], [unscaled], to=kinds.FLOAT, name=f"{unscaled}.cast"),
            helper.make_node("Mul", [unscaled, steps], [wanted], name=f"{wanted}.scale"),
        ]
        return wanted

    def _store(self, name: str, value: NDArray[np.generic]) -> str:
        self._proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether a graph has Q/DQ pairs already, or weights in INT8 alone, as recurrences have."""
    graph = Graph(proto)
    pairs = ("QuantizeLinear", "DequantizeLinear")
    return any(node.op_type in pairs or has_codes(graph, node) for node in proto.graph.node)


def default_sites(proto: onnx.ModelProto) -> list[Site]:
    """Return the sites of a graph that are quantized by default."""
    return chosen(find_sites(proto))
