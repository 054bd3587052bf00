"""Smoothing: nothing changes in floating point, much does in INT8, and only where it can pay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.calibration.placement import PRESETS
from edgeser.calibration.rows import RowSample
from edgeser.calibration.sites import Site, find_sites
from edgeser.calibration.smoothing import channel_axis, smooth

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, NDArray[Any]]]
Calibrate = Callable[..., onnx.ModelProto]
Values = NDArray[np.float32]
Node = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]

WIDTH = 16
LOUD = np.ones(WIDTH, np.float32)
LOUD[[3, 11]] = 60.0, 25.0  # as behind the layer norms of encoders


def normal(*shape: int, seed: int = 0) -> Values:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def linear(name: str, given: str, made: str) -> list[Node]:
    return [
        ("MatMul", [given, f"{name}.weight"], [f"{made}.product"], {}),
        ("Add", [f"{made}.product", f"{name}.bias"], [made], {}),
    ]


def norm(given: str, made: str) -> Node:
    return ("LayerNormalization", [given, "norm.weight", "norm.bias"], [made], {"axis": -1})


CONSTANTS = {
    "norm.weight": LOUD * (1 + 0.1 * normal(WIDTH)),
    "norm.bias": normal(WIDTH, seed=1) * LOUD / 4,
    **{f"{name}.weight": normal(WIDTH, WIDTH, seed=place) for place, name in enumerate(("q", "k", "v"))},
    **{f"{name}.bias": normal(WIDTH, seed=10 + place) for place, name in enumerate(("q", "k", "v"))},
}
ROWS = {"x": ["N", 7, WIDTH]}


def case(make: Make, name: str) -> tuple[onnx.ModelProto, Mapping[str, Values]]:
    """A graph with loud channels, and what goes into it."""
    x, rows = normal(20, 7, WIDTH, seed=5), normal(40, WIDTH, seed=6)
    if name == "norm":
        nodes = [norm("x", "n"), *linear("q", "n", "y"), *linear("k", "n", "z"), *linear("v", "n", "u")]
        return make(nodes, ROWS, dict.fromkeys("yzu", ROWS["x"]), CONSTANTS), {"x": x}
    if name == "norm without shift":
        nodes = [("LayerNormalization", ["x", "norm.weight"], ["n"], {"axis": -1}), *linear("q", "n", "y")]
        used = {key: CONSTANTS[key] for key in ("norm.weight", "q.weight", "q.bias")}
        return make(nodes, ROWS, {"y": ROWS["x"]}, used), {"x": x}
    if name == "norm, gemm":
        nodes = [norm("x", "n"), ("Gemm", ["n", "q.weight", "q.bias"], ["y"], {"transB": 1})]
        used = {key: CONSTANTS[key] for key in ("norm.weight", "norm.bias", "q.weight", "q.bias")}
        return make(nodes, {"x": ["N", WIDTH]}, {"y": ["N", WIDTH]}, used), {"x": rows}
    if name == "residual":
        nodes = [norm("x", "n"), *linear("q", "n", "p"), ("Add", ["p", "n"], ["y"], {})]
        used = {key: CONSTANTS[key] for key in ("norm.weight", "norm.bias", "q.weight", "q.bias")}
        return make(nodes, ROWS, {"y": ROWS["x"]}, used), {"x": x}
    if name == "input":
        nodes = [*linear("q", "x", "y"), *linear("k", "x", "z")]
        used = {key: value for key, value in CONSTANTS.items() if key[0] in "qk"}
        return make(nodes, ROWS, dict.fromkeys("yz", ROWS["x"]), used), {"x": x * LOUD}
    kernel = (24, WIDTH, 3) if name == "conv1d" else (24, WIDTH, 3, 2)
    size = ("N", WIDTH, 9) if name == "conv1d" else ("N", WIDTH, 9, 8)
    proto = make(
        [("Conv", ["x", "c.weight", "c.bias"], ["y"], {})],
        {"x": size},
        {"y": ["N", 24, *"?" * (len(size) - 2)]},
        {"c.weight": normal(*kernel), "c.bias": normal(24)},
    )
    return proto, {"x": normal(10, *size[1:]) * LOUD.reshape(-1, *[1] * (len(size) - 2))}  # type: ignore[arg-type]


FOLDED = ("norm", "norm without shift", "norm, gemm")
MULTIPLIED = ("residual", "input", "conv1d", "conv2d")


def sample(
    run: Run, proto: onnx.ModelProto, feeds: Mapping[str, Values], sites: Sequence[Site]
) -> dict[str, RowSample]:
    """Rows of the sites' activations."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    inside = {site.activation for site in sites} - set(feeds) - {value.name for value in proto.graph.output}
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in inside)
    found = {**feeds, **run(watched, feeds)}
    samples = {site.activation: RowSample(channel_axis(site)) for site in sites}
    for name, rows in samples.items():
        for utterance in found[name]:
            rows.add(utterance[None])
    return samples


def relative(got: Mapping[str, Values], expected: Mapping[str, Values]) -> float:
    return max(float(np.abs(got[n] - e).max() / np.abs(e).max()) for n, e in expected.items())


@pytest.mark.parametrize("name", [*FOLDED, *MULTIPLIED])
def test_nothing_changes_in_floating_point(make_graph: Make, run_graph: Run, name: str) -> None:
    """Within 1e-5 of the largest output; a few of the graph's own roundings."""
    proto, feeds = case(make_graph, name)
    before = proto.SerializeToString()
    sites = find_sites(proto)
    smoothed, strengths = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert proto.SerializeToString() == before
    onnx.checker.check_model(smoothed, full_check=True)
    assert set(strengths) == {sites[0].activation}
    assert set(strengths.values()) <= {0.25, 0.5, 0.75}
    assert relative(run_graph(smoothed, feeds), run_graph(proto, feeds)) < 1e-5
    # The layers are the same, and their weights are not.
    after = find_sites(smoothed)
    assert [(s.name, s.node, s.kind, s.axis, s.parameters) for s in after] == [
        (s.name, s.node, s.kind, s.axis, s.parameters) for s in sites
    ]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in smoothed.graph.initializer}
    for old, new in zip(sites, after, strict=True):
        assert old.weights[0] not in stored
        assert stored[new.weights[0]].shape == initializers(proto)[old.weights[0]].shape


def initializers(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("name", FOLDED)
def test_behind_a_layer_norm_it_costs_no_node(make_graph: Make, run_graph: Run, name: str) -> None:
    proto, feeds = case(make_graph, name)
    sites = find_sites(proto)
    smoothed, _ = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert [(n.op_type, n.name, n.output) for n in smoothed.graph.node] == [
        (n.op_type, n.name, n.output) for n in proto.graph.node
    ]
    assert not {"norm.weight", "norm.bias"} & set(initializers(smoothed))
    assert len(initializers(smoothed)) == len(initializers(proto))


@pytest.mark.parametrize("name", MULTIPLIED)
def test_elsewhere_it_costs_one_multiplication_for_all_readers(make_graph: Make, run_graph: Run, name: str) -> None:
    """A layer norm that a residual reads too stays as it is: the residual is left alone."""
    proto, feeds = case(make_graph, name)
    sites = find_sites(proto)
    smoothed, _ = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    kinds = [node.op_type for node in smoothed.graph.node]
    assert kinds.count("Mul") == 1
    kinds.remove("Mul")
    assert kinds == [node.op_type for node in proto.graph.node]
    (product,) = [node for node in smoothed.graph.node if node.op_type == "Mul"]
    assert product.input[0] == sites[0].activation
    assert {site.activation for site in find_sites(smoothed)} == {product.output[0]}
    if name == "residual":
        assert {"norm.weight", "norm.bias"} <= set(initializers(smoothed))
        assert smoothed.graph.node[-1].input == ["p", "n"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [*FOLDED, *MULTIPLIED])
def test_the_error_of_int8_falls_to_less_than_half(
    make_graph: Make, run_graph: Run, calibrate_graph: Calibrate, name: str, preset: str
) -> None:
    """Of every output, root mean square, with min-max ranges; two of sixteen channels are 60 and 25 times as loud."""
    proto, feeds = case(make_graph, name)
    sites = find_sites(proto)
    smoothed, _ = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    expected = run_graph(proto, feeds)
    errors = []
    for graph in (proto, smoothed):
        got = run_graph(calibrate_graph(graph, feeds, preset, find_sites(graph)), feeds)
        errors.append({n: float(np.sqrt(np.square(got[n] - e).mean()) / e.std()) for n, e in expected.items()})
    plain, evened = errors
    for output in expected:
        assert evened[output] < 0.5 * plain[output], (output, plain[output], evened[output])


def test_even_channels_are_left_alone(make_graph: Make, run_graph: Run) -> None:
    """A multiplication would not pay: the graph is the same, byte by byte. Almost even ones do not pay either."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(-1, 1, (WIDTH, WIDTH)).astype(np.float32)
    np.fill_diagonal(weights, 1.0)
    proto = make_graph(
        [("MatMul", ["x", "w"], ["y"], {})],
        ROWS,
        {"y": ROWS["x"]},
        {"w": (weights * rng.uniform(0.97, 1, (WIDTH, 1))).astype(np.float32)},
    )
    x = rng.uniform(-1, 1, (20, 7, WIDTH)).astype(np.float32)
    x[0, 0] = 1.0
    feeds = {"x": x}
    sites = find_sites(proto)
    smoothed, strengths = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert strengths == {}
    assert smoothed.SerializeToString() == proto.SerializeToString()


def test_only_what_was_sampled_and_is_quantized_is_smoothed(make_graph: Make, run_graph: Run) -> None:
    proto, feeds = case(make_graph, "norm")
    sites = find_sites(proto)
    samples = sample(run_graph, proto, feeds, sites)
    assert smooth(proto, [], samples)[1] == {}
    assert smooth(proto, sites, {})[1] == {}
    # Of three readers one stays in floating point: it reads the norm's own output, so nothing can be folded into it.
    smoothed, strengths = smooth(proto, sites[:2], samples)
    assert set(strengths) == {"n"}
    assert [node.op_type for node in smoothed.graph.node].count("Mul") == 1
    assert [site.activation for site in find_sites(smoothed)] == ["n.smooth", "n.smooth", "n"]
    assert relative(run_graph(smoothed, feeds), run_graph(proto, feeds)) < 1e-5


def test_a_layer_norm_that_is_an_output_too_stays_as_it_is(make_graph: Make, run_graph: Run) -> None:
    nodes = [norm("x", "n"), *linear("q", "n", "y")]
    used = {key: CONSTANTS[key] for key in ("norm.weight", "norm.bias", "q.weight", "q.bias")}
    proto = make_graph(nodes, ROWS, dict.fromkeys("yn", ROWS["x"]), used)
    feeds = {"x": normal(20, 7, WIDTH)}
    sites = find_sites(proto)
    smoothed, strengths = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert set(strengths) == {"n"}
    np.testing.assert_array_equal(run_graph(smoothed, feeds)["n"], run_graph(proto, feeds)["n"])
    assert relative(run_graph(smoothed, feeds), run_graph(proto, feeds)) < 1e-5


@pytest.mark.parametrize("groups", [2, WIDTH])
def test_a_grouped_convolution_is_left_alone(make_graph: Make, run_graph: Run, groups: int) -> None:
    proto = make_graph(
        [("Conv", ["x", "c.weight"], ["y"], {"group": groups})],
        {"x": ["N", WIDTH, 9]},
        {"y": ["N", WIDTH, "T"]},
        {"c.weight": normal(WIDTH, WIDTH // groups, 3)},
    )
    sites = find_sites(proto)
    samples = sample(run_graph, proto, {"x": normal(10, WIDTH, 9) * LOUD[:, None]}, sites)
    smoothed, strengths = smooth(proto, sites, samples)
    assert strengths == {}
    assert smoothed.SerializeToString() == proto.SerializeToString()


def test_a_layer_norm_over_places_is_not_folded_into_a_convolution_over_channels(
    make_graph: Make, run_graph: Run
) -> None:
    """As many places as channels, so that shapes alone would let it pass."""
    proto = make_graph(
        [norm("x", "n"), ("Conv", ["n", "c.weight"], ["y"], {})],
        {"x": ["N", WIDTH, WIDTH]},
        {"y": ["N", 24, "T"]},
        {
            "c.weight": normal(24, WIDTH, 3) / LOUD[:, None],
            "norm.weight": CONSTANTS["norm.weight"],
            "norm.bias": CONSTANTS["norm.bias"],
        },
    )
    feeds = {"x": normal(10, WIDTH, WIDTH)}
    sites = find_sites(proto)
    smoothed, strengths = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert set(strengths) == {"n"}
    assert [node.op_type for node in smoothed.graph.node] == ["LayerNormalization", "Mul", "Conv"]
    assert relative(run_graph(smoothed, feeds), run_graph(proto, feeds)) < 1e-5


def test_a_convolution_and_a_product_of_rows_do_not_share_factors(make_graph: Make, run_graph: Run) -> None:
    """What is a channel to one is a place to the other, here as many of either."""
    proto = make_graph(
        [("Conv", ["x", "c.weight"], ["y"], {}), ("MatMul", ["x", "m.weight"], ["z"], {})],
        {"x": ["N", WIDTH, WIDTH]},
        {"y": ["N", 24, "T"], "z": ["N", WIDTH, WIDTH]},
        {"c.weight": normal(24, WIDTH, 3), "m.weight": normal(WIDTH, WIDTH)},
    )
    feeds = {"x": normal(10, WIDTH, WIDTH) * LOUD}
    sites = find_sites(proto)
    smoothed, strengths = smooth(proto, sites, sample(run_graph, proto, feeds, sites))
    assert strengths == {}
    assert smoothed.SerializeToString() == proto.SerializeToString()


def test_a_gemm_is_smoothed_through_its_layer_norm_only(make_graph: Make, run_graph: Run) -> None:
    """Of a product between ReLU and an INT8 Gemm OpenVINO 2026.4 makes garbage."""
    proto = make_graph(
        [("Gemm", ["x", "q.weight", "q.bias"], ["y"], {"transB": 1})],
        {"x": ["N", WIDTH]},
        {"y": ["N", WIDTH]},
        {key: CONSTANTS[key] for key in ("q.weight", "q.bias")},
    )
    sites = find_sites(proto)
    assert smooth(proto, sites, sample(run_graph, proto, {"x": normal(40, WIDTH) * LOUD}, sites))[1] == {}
