"""Moving what is hard to quantize from activations into weights, channel by channel (SmoothQuant, Xiao et al. 2023).

A few channels behind LayerNorm and GELU are tens of times larger than the others, and one scale for a tensor leaves
those others a handful of codes. Dividing an activation's channel by a factor and multiplying the weights that read it
by the same changes nothing in floating point, and evens the channels out. Behind a LayerNorm that feeds nothing else
the division is its own scale and shift, and costs nothing; elsewhere it is one multiplication.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeser.calibration.graph import Graph, prune
from edgeser.calibration.placement import quantize_weight
from edgeser.calibration.rows import RowSample
from edgeser.calibration.sites import Site

STRENGTHS = (0.0, 0.25, 0.5, 0.75)
"""How much may move: 0 nothing, 1 everything; each activation takes what its own products err least with."""

_WORTH_IT = 0.9  # what is left of the error where a multiplication has to be paid for it


def channel_axis(site: Site) -> int:
    """Return the axis of a site's activation that its weights sum over."""
    return 1 if site.kind == "conv" else -1


def smooth(
    proto: onnx.ModelProto, sites: Collection[Site], samples: Mapping[str, RowSample]
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """Return a graph that computes the same with evener activations, and the strength by activation.

    Args:
        proto: A graph in floating point.
        sites: What will be quantized.
        samples: Rows of the sites' activations.
    """
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(proto)
    graph = Graph(smoothed)
    groups: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        if site.activation in samples:
            groups[site.activation].append(site)
    nodes = {node.name: node for node in smoothed.graph.node}
    strengths = {
        activation: _smooth_group(graph, [nodes[site.node] for site in group], group, samples[activation])
        for activation, group in groups.items()
    }
    prune(smoothed)
    onnx.checker.check_model(smoothed)
    return smoothed, {activation: strength for activation, strength in strengths.items() if strength}


def _smooth_group(graph: Graph, nodes: list[onnx.NodeProto], group: list[Site], sample: RowSample) -> float:
    """Even one activation out for all that read it; return the strength taken."""
    if len({channel_axis(site) for site in group}) > 1:
        return 0.0  # a convolution and a product of rows: a channel of one is a place of the other
    weights = [_by_input(graph, site) for site in group]
    if any(weight.shape[0] != sample.peaks.shape[0] for weight in weights):
        return 0.0  # a grouped convolution: its weights read only some of the channels each
    matrix = np.concatenate(weights, axis=1)
    largest = np.abs(matrix).max(axis=1)
    norm = _norm_for(graph, group[0].activation, nodes) if channel_axis(group[0]) == -1 else None
    choices = {strength: _factors(sample.peaks, largest, strength) for strength in STRENGTHS}
    errors = {strength: _error(sample, matrix, factors) for strength, factors in choices.items()}
    best = min(errors, key=lambda strength: errors[strength])
    if best == 0.0 or (norm is None and errors[best] > _WORTH_IT * errors[0.0]):
        return 0.0
    if norm is None and any(node.op_type == "Gemm" for node in nodes):
        return 0.0  # a product behind ReLU before an INT8 Gemm: OpenVINO 2026.4 computes garbage
    for node, site in zip(nodes, group, strict=True):
        _scale_weight(graph, node, site, choices[best])
    if norm is not None:
        _divide_norm(graph, norm, choices[best])
    else:
        _insert_product(graph, nodes, group[0], choices[best])
    return best


def _by_input(graph: Graph, site: Site) -> NDArray[np.float32]:
    """Return a site's weights as `(input channels, all that they feed)`; a convolution's taps side by side."""
    weight = graph.constant(site.weights[0])
    assert weight is not None  # `find_sites` names constant weights only
    return np.moveaxis(weight, _input_axis(site), 0).reshape(weight.shape[_input_axis(site)], -1)


def _factors(peaks: NDArray[np.float32], weights: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Return what each channel is divided by: `peak**a / weight**(1 - a)` (equation 4), around 1; 1 for strength 0."""
    flows = (peaks > 0) & (weights > 0)
    if strength == 0.0 or not flows.any():
        return np.ones_like(peaks)
    raw = np.where(flows, peaks, 1.0) ** strength / np.where(flows, weights, 1.0) ** (1.0 - strength)
    raw = raw / np.exp(np.log(raw[flows]).mean())
    factors: NDArray[np.float32] = np.where(flows, np.clip(raw, 1e-2, 1e2), 1.0).astype(np.float32)
    return factors


def _error(sample: RowSample, matrix: NDArray[np.float32], factors: NDArray[np.float32]) -> float:
    """Return the squared error of the products in INT8 on the sampled rows, with min-max ranges."""
    rows = sample.rows
    step = max(float((sample.peaks / factors).max()) / 127.0, float(np.finfo(np.float32).tiny))
    rounded = np.rint(rows / factors / step) * step
    codes, scales = quantize_weight(matrix * factors[:, None], 1)
    return float(np.square(rows @ matrix - rounded @ (codes * scales)).sum())


def _input_axis(site: Site) -> int:
    """Return the axis of a site's weights that is summed over."""
    return 1 if site.kind == "conv" else 1 - site.axis


def _scale_weight(graph: Graph, node: onnx.NodeProto, site: Site, factors: NDArray[np.float32]) -> None:
    weight = graph.constant(site.weights[0])
    assert weight is not None
    shape = [-1 if i == _input_axis(site) else 1 for i in range(weight.ndim)]
    name = f"{site.weights[0]}.smooth"
    graph.proto.graph.initializer.append(numpy_helper.from_array(weight * factors.reshape(shape), name))
    node.input[1] = name


def _norm_for(graph: Graph, activation: str, nodes: list[onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the LayerNorm that makes an activation, if there is one and nobody else reads it."""
    norm = graph.makers.get(activation)
    readers = {user.name for user in graph.users[activation]}
    outputs = {value.name for value in graph.proto.graph.output}
    if norm is None or norm.op_type != "LayerNormalization" or activation in outputs:
        return None
    constant = all(graph.constant(name) is not None for name in norm.input[1:])
    return norm if constant and readers == {node.name for node in nodes} else None


def _divide_norm(graph: Graph, norm: onnx.NodeProto, factors: NDArray[np.float32]) -> None:
    for place, given in enumerate(norm.input[1:], 1):
        value = graph.constant(given)
        assert value is not None
        name = f"{norm.name}.{given}.smooth"
        graph.proto.graph.initializer.append(numpy_helper.from_array((value / factors).astype(np.float32), name))
        norm.input[place] = name


def _insert_product(graph: Graph, nodes: list[onnx.NodeProto], site: Site, factors: NDArray[np.float32]) -> None:
    """Multiply by the reciprocals before the first of the nodes, for all of them."""
    proto = graph.proto
    weight = graph.constant(site.weights[0])
    assert weight is not None
    wanted, constant = f"{site.activation}.smooth", f"{site.activation}.reciprocals"
    shape = (1, -1, *[1] * (weight.ndim - 2)) if site.kind == "conv" else (-1,)
    proto.graph.initializer.append(numpy_helper.from_array((1.0 / factors).reshape(shape), constant))
    first = min(list(proto.graph.node).index(node) for node in nodes)
    proto.graph.node.insert(first, helper.make_node("Mul", [site.activation, constant], [wanted], name=wanted))
    for node in nodes:
        node.input[0] = wanted
