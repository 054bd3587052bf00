"""Q/DQ pairs: where they are, in which types, and that engines compute what plain NumPy does with the same codes."""

from __future__ import annotations

import importlib.util
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.calibration.graph import Graph, prune
from edgeser.calibration.placement import (
    PRESETS,
    activation_scale,
    activations,
    chosen,
    default_sites,
    is_quantized,
    quantize,
    quantize_weight,
)
from edgeser.calibration.ranges import Range
from edgeser.calibration.sites import Site, find_sites
from edgeser.runtime.engines import open_engine

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, NDArray[Any]]]
Count = Callable[[onnx.ModelProto], Counter[str]]
Values = NDArray[np.float32]
Exact = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """A product: its operator, sizes of its input and weights, attributes, and the weights' axis of the outputs."""

    operator: str
    given: tuple[int, ...]
    weights: tuple[int, ...]
    attributes: Mapping[str, int]
    axis: int

    @property
    def channels(self) -> int:
        return self.weights[self.axis]

    def compute(self, x: NDArray[Any], w: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        """The product in plain NumPy, in the precision of its inputs."""
        if self.operator != "Conv":
            return x @ (w.T if self.attributes.get("transB") else w) + bias
        groups, taps = self.attributes.get("group", 1), w.shape[2:]
        windows = np.lib.stride_tricks.sliding_window_view(x, taps, axis=tuple(range(2, x.ndim)))
        each, out = x.shape[1] // groups, w.shape[0] // groups
        letters = "ij"[: len(taps)]
        parts = [
            np.einsum(
                f"nc{letters.upper()}{letters},oc{letters}->no{letters.upper()}",
                windows[:, g * each : (g + 1) * each],
                w[g * out : (g + 1) * out],
            )
            for g in range(groups)
        ]
        product: NDArray[Any] = np.concatenate(parts, axis=1) + bias.reshape(-1, *[1] * len(taps))
        return product

    def graph(self, make: Make, w: Values, bias: Values) -> onnx.ModelProto:
        constants = {"layer.weight": w, "layer.bias": bias}
        shapes = {"x": ["N", *self.given[1:]]}, {"y": ["N", *["?"] * (len(self.given) - 1)]}
        if self.operator == "MatMul":
            product = ("MatMul", ["x", "layer.weight"], ["product"], {})
            return make([product, ("Add", ["product", "layer.bias"], ["y"], {})], *shapes, constants)
        return make([(self.operator, ["x", *constants], ["y"], self.attributes)], *shapes, constants)


KINDS = {
    "matmul": Kind("MatMul", (2, 3, 5), (5, 4), {}, 1),
    "gemm": Kind("Gemm", (3, 5), (5, 4), {}, 1),
    "gemm, transposed": Kind("Gemm", (3, 5), (4, 5), {"transB": 1}, 0),
    "conv1d": Kind("Conv", (2, 3, 6), (4, 3, 3), {}, 0),
    "conv2d": Kind("Conv", (1, 3, 4, 5), (4, 3, 2, 3), {}, 0),
    "grouped conv": Kind("Conv", (2, 4, 6), (6, 2, 3), {"group": 2}, 0),
}


@dataclass(frozen=True)
class Codes:
    """NumPy's own codes of an activation: a second definition, written down from the documentation of the operators."""

    step: float
    zero: int
    low: int
    high: int

    @classmethod
    def of(cls, covered: Range, unsigned: bool) -> Codes:
        span = covered.high - covered.low if unsigned else max(-covered.low, covered.high)
        step = span / (255 if unsigned else 127) or 1 / 127  # where nothing was ever seen but 0
        return cls(step, int(np.rint(-covered.low / step)), 0, 255) if unsigned else cls(step, 0, -128, 127)

    def rounded(self, x: NDArray[Any]) -> Exact:
        """What the codes of numbers stand for; the division is in single precision, as the operator's."""
        codes = np.rint(x.astype(np.float32) / np.float32(self.step)).astype(np.float64) + self.zero
        return (np.clip(codes, self.low, self.high) - self.zero) * float(np.float32(self.step))

    def clipped(self, x: Exact) -> Exact:
        return np.clip(x, (self.low - self.zero) * self.step, (self.high - self.zero) * self.step)


def rounded_weights(w: Values, axis: int) -> Exact:
    """What INT8 makes of weights, channel by channel."""
    rounded = np.zeros(w.shape)
    for channel in range(w.shape[axis]):
        place = tuple(channel if i == axis else slice(None) for i in range(w.ndim))
        step = np.float32(np.abs(w[place]).max() / 127)
        if step > 0:
            rounded[place] = np.rint(w[place] / step).astype(np.float64) * step
    return rounded


@dataclass(frozen=True)
class Case:
    """A product with everything that quantizing it takes."""

    kind: Kind
    x: Values
    w: Values
    bias: Values
    ranges: Mapping[str, Range]

    def quantized(self, make: Make, preset: str) -> onnx.ModelProto:
        proto = self.kind.graph(make, self.w, self.bias)
        return quantize(proto, find_sites(proto), self.ranges, PRESETS[preset])


def assert_computes(case: Case, y: Values, preset: str, *, rounds_bias: bool = False) -> None:
    """Check a quantized product against NumPy's, to 1e-5 of the sum of its terms' magnitudes.

    Where a convolution's output is rounded too: it is on the grid, and half a step from the exact value. Its bias may
    be rounded then, in steps of both scales' product.
    """
    unsigned = PRESETS[preset].unsigned
    kind, x, w, bias, ranges = case.kind, case.x, case.w, case.bias, case.ranges
    given, weights = Codes.of(ranges["x"], unsigned).rounded(x), rounded_weights(w, kind.axis)
    expected = kind.compute(given, weights, bias.astype(np.float64))
    allowed = 1e-5 * kind.compute(np.abs(given), np.abs(weights), np.abs(bias).astype(np.float64)) + 1e-7
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    if kind.operator == "Conv" and PRESETS[preset].conv_outputs:
        codes = Codes.of(ranges["y"], unsigned)
        np.testing.assert_allclose(codes.rounded(y), y, rtol=1e-6, atol=1e-4 * codes.step)
        expected, allowed = codes.clipped(expected), allowed + 0.501 * codes.step
        if rounds_bias:
            _, steps = quantize_weight(w, kind.axis)
            steps = steps.reshape(1, -1, *[1] * (w.ndim - 2)) * Codes.of(ranges["x"], unsigned).step
            allowed = allowed + 0.501 * steps
    assert (np.abs(y - expected) <= allowed).all(), np.abs(y - expected).max()


NUMBERS = st.floats(-8, 8, width=32, allow_subnormal=False)
SIDES = st.one_of(st.just(0.0), st.floats(1e-6, 10))
RANGES = st.builds(lambda low, high: Range(-low, high), SIDES, SIDES)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_onnx_runtime_computes_what_numpy_does(
    make_graph: Make, run_graph: Run, name: str, preset: str, data: st.DataObject
) -> None:
    """Any weights and activations, constant ones, channels of little or no weight, ranges that cut or have one side."""
    kind = KINDS[name]
    x, w, bias = (
        data.draw(arrays(np.float32, size, elements=NUMBERS)) for size in (kind.given, kind.weights, kind.channels)
    )
    channel = data.draw(st.integers(0, kind.channels - 1))
    w[(slice(None), channel) if kind.axis else channel] *= data.draw(st.sampled_from([1.0, 1e-3, 0.0]))
    case = Case(kind, x, w, bias, {"x": data.draw(RANGES), "y": data.draw(RANGES)})
    quantized = case.quantized(make_graph, preset)
    onnx.checker.check_model(quantized, full_check=True)
    assert_computes(case, run_graph(quantized, {"x": x})["y"], preset)


def observed(values: NDArray[Any]) -> Range:
    return Range(min(0.0, float(values.min())), max(0.0, float(values.max())))


def ordinary(kind: Kind, seed: int, tiny: float) -> Case:
    """A product as layers have them; one channel's weights are tiny."""
    rng = np.random.default_rng(seed)
    x, w, bias = (rng.normal(size=size).astype(np.float32) for size in (kind.given, kind.weights, (kind.channels,)))
    w[(slice(None), 1) if kind.axis else 1] *= tiny
    return Case(kind, x, w, bias, {"x": observed(x), "y": observed(kind.compute(x, w, bias))})


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", KINDS)
def test_engines_that_fuse_compute_what_numpy_does(
    make_graph: Make, run_graph: Run, name: str, preset: str, engine: str
) -> None:
    """In integers where they can. Behind tiny weights ONNX Runtime's bias of 32 bits would be cut, scales see to it."""
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: edgeser[openvino]")
    for seed, tiny in enumerate((1.0, 0.0, 1e-12, 1e-30)):
        case = ordinary(KINDS[name], seed, tiny)
        quantized = case.quantized(make_graph, preset)
        if engine == "onnxruntime":
            y = run_graph(quantized, {"x": case.x}, fused=True)["y"]
        else:
            with open_engine(quantized.SerializeToString(), engine) as opened:
                y = opened.run({"x": case.x})["y"]
        assert_computes(case, y, preset, rounds_bias=engine == "onnxruntime")


@pytest.mark.parametrize("preset", PRESETS)
def test_behind_an_activation_that_is_always_zero_the_bias_is_left(
    make_graph: Make, run_graph: Run, preset: str
) -> None:
    kind = KINDS["conv1d"]
    bias = np.array([-1.0, 0.5, 2.0, 0.0], np.float32)
    w = ordinary(kind, 0, 1.0).w
    case = Case(kind, np.zeros(kind.given, np.float32), w, bias, {"x": Range(0.0, 0.0), "y": observed(bias)})
    for fused in (False, True):
        y = run_graph(case.quantized(make_graph, preset), {"x": case.x}, fused=fused)["y"]
        expected = np.broadcast_to(bias[:, None], y.shape)
        np.testing.assert_allclose(y, expected, atol=0.51 * 3 / 255 if PRESETS[preset].unsigned else 0.51 * 2 / 127)


@settings(max_examples=200, deadline=None)
@given(covered=RANGES, share=st.floats(0, 1))
def test_codes_of_an_activation_cover_its_range(covered: Range, share: float) -> None:
    """Zero is exact, and any value inside is at most half a step off; unsigned ranges move by half a step at most."""
    inside = covered.low + share * (covered.high - covered.low)
    for preset in PRESETS.values():
        found = activation_scale(covered, preset)
        low, high = (0, 255) if preset.unsigned else (-127, 127)
        assert low <= found.zero_point <= high
        assert found.scale > 0
        code = np.clip(np.rint(inside / found.scale) + found.zero_point, low, high)
        off = abs((code - found.zero_point) * found.scale - inside)
        assert off <= (1.0 if preset.unsigned else 0.5) * found.scale * (1 + 1e-6)
        if preset.unsigned:
            used = (covered.high - covered.low) / found.scale
            assert used == 0 or used == pytest.approx(255)
        else:
            assert found.zero_point == 0
            assert covered.magnitude / found.scale == pytest.approx(127 if covered.magnitude else 0)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), axis=st.integers(0, 2))
def test_codes_of_weights_are_half_a_step_off(data: st.DataObject, axis: int) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    w = data.draw(arrays(np.float32, shape, elements=NUMBERS))
    codes, scales = quantize_weight(w, axis)
    assert (codes.dtype, codes.shape) == (np.int8, shape)
    assert (scales.dtype, scales.shape) == (np.float32, (shape[axis],))
    assert np.abs(codes.astype(int)).max() <= 127
    wide = scales.reshape([-1 if i == axis else 1 for i in range(3)])
    assert (np.abs(codes * wide - w) <= 0.5001 * wide).all()
    others = tuple(i for i in range(3) if i != axis)
    peaks = np.abs(w).max(axis=others)
    largest = np.abs(codes.astype(int)).max(axis=others)
    assert (largest[peaks > 1e-30] == 127).all()  # below, the smallest scale that a float holds decides
    assert (largest[peaks == 0] == 0).all()


@pytest.fixture(scope="module")
def network(make_graph: Make) -> onnx.ModelProto:
    """Something of everything: convolutions, a recurrence, attention behind a layer norm, residuals, a classifier."""
    rng = np.random.default_rng(1)
    sizes = {
        **{"front.weight": (8, 4, 3), "front.bias": (8,), "deep.weight": (16, 8, 1), "deep.bias": (16,)},
        **{"w": (1, 32, 16), "r": (1, 32, 8), "gates": (1, 64), "up.weight": (8, 16), "up.bias": (16,)},
        **{"norm.weight": (16,), "norm.bias": (16,), "out.weight": (16, 16), "out.bias": (16,)},
        **{f"{name}.weight": (16, 16) for name in "qkv"},
        **{f"{name}.bias": (16,) for name in "qkv"},
        **{"hidden.weight": (32, 16), "hidden.bias": (32,), "last.weight": (4, 32), "last.bias": (4,)},
    }
    constants = {name: (0.5 * rng.normal(size=size)).astype(np.float32) for name, size in sizes.items()}
    heads = [
        node
        for name in "qkv"
        for node in (
            ("MatMul", ["normal", f"{name}.weight"], [f"{name}.product"], {}),
            ("Add", [f"{name}.product", f"{name}.bias"], [name], {}),
        )
    ]
    nodes = [
        ("Conv", ["x", "front.weight", "front.bias"], ["f"], {"pads": [1, 1]}),
        ("Relu", ["f"], ["g"], {}),
        ("Conv", ["g", "deep.weight", "deep.bias"], ["d"], {}),
        ("Transpose", ["d"], ["times"], {"perm": [2, 0, 1]}),
        ("LSTM", ["times", "w", "r", "gates"], ["lstm"], {"hidden_size": 8}),
        ("Squeeze", ["lstm", "one"], ["states"], {}),
        ("Transpose", ["states"], ["rows"], {"perm": [1, 0, 2]}),
        ("MatMul", ["rows", "up.weight"], ["up.product"], {}),
        ("Add", ["up.product", "up.bias"], ["up"], {}),
        ("LayerNormalization", ["up", "norm.weight", "norm.bias"], ["normal"], {"axis": -1}),
        *heads,
        ("Transpose", ["k"], ["k.turned"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k.turned"], ["scores"], {}),
        ("Softmax", ["scores"], ["attention"], {"axis": -1}),
        ("MatMul", ["attention", "v"], ["context"], {}),
        ("MatMul", ["context", "out.weight"], ["out.product"], {}),
        ("Add", ["out.product", "out.bias"], ["out"], {}),
        ("Add", ["out", "up"], ["residual"], {}),
        ("ReduceMean", ["residual", "one"], ["mean"], {"keepdims": 0}),
        ("Gemm", ["mean", "hidden.weight", "hidden.bias"], ["h"], {"transB": 1}),
        ("Relu", ["h"], ["hr"], {}),
        ("Gemm", ["hr", "last.weight", "last.bias"], ["logits"], {"transB": 1}),
    ]
    proto = make_graph(nodes, {"x": ["N", 4, 12]}, {"logits": ["N", 4]}, constants | {"one": np.array([1])})
    assert [site.name for site in default_sites(proto)] == ["front", "deep", "w", "up", "q", "k", "v", "out", "hidden"]
    return proto


@pytest.fixture(scope="module", params=list(PRESETS))
def both(
    request: pytest.FixtureRequest, network: onnx.ModelProto, calibrate_graph: Callable[..., onnx.ModelProto]
) -> tuple[str, onnx.ModelProto]:
    """A preset and what it made of the network."""
    preset = str(request.param)
    before = network.SerializeToString()
    quantized = calibrate_graph(network, {"x": FEED}, preset)
    assert network.SerializeToString() == before
    return preset, quantized


FEED = np.random.default_rng(2).normal(size=(3, 4, 12)).astype(np.float32)


def test_pairs_stand_before_sites_and_nowhere_else(network: onnx.ModelProto, both: tuple[str, onnx.ModelProto]) -> None:
    """Each site has pairs of its own; sums, norms, softmax, biases and products of two activations have none."""
    preset, quantized = both
    graph = Graph(quantized)
    sites = {site.node: site for site in default_sites(network)}
    convolutions = {graph_output(network, site): site for site in sites.values() if site.kind == "conv"}
    expected_pairs = [site.activation for site in sites.values() if site.activation]
    if PRESETS[preset].conv_outputs:
        expected_pairs += [f"{name}.exact" for name in convolutions]
    pairs = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert Counter(node.input[0] for node in pairs) == Counter(expected_pairs)
    assert expected_pairs.count("normal") == 3  # query, key and value
    for pair in pairs:
        (reader,) = graph.users[pair.output[0]]
        assert (reader.op_type, reader.input[1:]) == ("DequantizeLinear", pair.input[1:])
    stored = {tensor.name for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.output[0] in convolutions:
            assert PRESETS[preset].conv_outputs
            assert graph.makers[node.input[0]].input[0] == f"{node.output[0]}.exact"
            continue
        (user,) = graph.users[node.output[0]]
        place = list(user.input).index(node.output[0])
        of_weights = node.input[0] in stored
        assert user.name in sites
        assert place == (1 if of_weights else 0)
    for node in quantized.graph.node:  # and every site has its own
        if node.name in sites:
            # A recurrence's weights are codes behind casts: OpenVINO would round its hidden state as well.
            is_recurrent = sites[node.name].kind == "recurrent"
            wanted = 0 if is_recurrent else len(sites[node.name].weights) + bool(sites[node.name].activation)
            found = [graph.makers[name].op_type for name in node.input if name in graph.makers]
            assert found.count("DequantizeLinear") == wanted


def graph_output(proto: onnx.ModelProto, site: Site) -> str:
    return str(next(node.output[0] for node in proto.graph.node if node.name == site.node))


def test_codes_and_zero_points_have_the_types_that_the_preset_says(both: tuple[str, onnx.ModelProto]) -> None:
    preset, quantized = both
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    kind = np.uint8 if preset == "onnxruntime-x86" else np.int8
    zeros = []
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (stored[name] for name in node.input[1:])
            assert (scale.dtype, scale.shape, zero.dtype, zero.shape) == (np.float32, (), kind, ())
            zeros.append(int(zero))
        elif node.op_type == "DequantizeLinear" and node.input[0] in stored:
            codes, scales, zero = (stored[name] for name in node.input)
            axis = onnx.helper.get_node_attr_value(node, "axis")
            assert (codes.dtype, scales.dtype, zero.dtype) == (np.int8, np.float32, np.int8)
            assert scales.shape == zero.shape == (codes.shape[axis],)
            assert not zero.any()
            assert (np.abs(codes.astype(int)).max(), codes.min() >= -127) == (127, True)
    assert (set(zeros) == {0}) == (preset != "onnxruntime-x86")


def test_all_else_is_as_it_was_and_weights_are_four_times_smaller(
    network: onnx.ModelProto, both: tuple[str, onnx.ModelProto]
) -> None:
    _, quantized = both
    sites = default_sites(network)
    before = {tensor.name: tensor for tensor in network.graph.initializer}
    after = {tensor.name: tensor for tensor in quantized.graph.initializer}
    weights = {name for site in sites for name in site.weights}
    assert set(before) & set(after) == set(before) - weights
    for name in set(before) - weights:  # biases, norms, and the last layer among them
        assert before[name] == after[name]
    codes = [numpy_helper.to_array(tensor) for name, tensor in after.items() if name.endswith(".codes")]
    assert len(codes) == len(weights) == 10
    assert sum(code.nbytes for code in codes) * 4 == sum(numpy_helper.to_array(before[name]).nbytes for name in weights)
    assert [v.name for v in quantized.graph.output] == ["logits"]
    assert quantized.graph.input == network.graph.input


def test_a_quantized_graph_runs_and_is_known_as_one(
    network: onnx.ModelProto, both: tuple[str, onnx.ModelProto], run_graph: Run
) -> None:
    """The classifier of random weights: INT8 moves its logits by less than a tenth of their deviation."""
    _, quantized = both
    expected = run_graph(network, {"x": FEED})["logits"]
    assert expected.std() > 0.5
    for fused in (False, True):
        difference = np.abs(run_graph(quantized, {"x": FEED}, fused=fused)["logits"] - expected)
        assert 0 < difference.max() < 0.1 * expected.std()
    assert not is_quantized(network)
    assert is_quantized(quantized)
    assert default_sites(quantized) == []  # nothing in it would be quantized once more


def test_a_graph_whose_recurrence_alone_is_in_int8_is_known_too(network: onnx.ModelProto) -> None:
    (site,) = [site for site in find_sites(network) if site.kind == "recurrent"]
    quantized = quantize(network, [site], {}, PRESETS["tensorrt"])
    assert {"QuantizeLinear", "DequantizeLinear"}.isdisjoint(node.op_type for node in quantized.graph.node)
    assert is_quantized(quantized)
    assert not [site for site in find_sites(quantized) if site.kind == "recurrent"]


def test_presets_need_the_ranges_of_what_they_round(network: onnx.ModelProto) -> None:
    sites = chosen(find_sites(network), ["out"])
    given = ["x", "g", "rows", "normal", "mean"]
    assert activations(network, sites, PRESETS["tensorrt"]) == given
    for preset in ("onnxruntime-x86", "onnxruntime-arm"):
        assert activations(network, sites, PRESETS[preset]) == [*given, "f", "d"]
    with pytest.raises(KeyError, match="rows"):
        quantize(network, sites, dict.fromkeys(["x", "g"], Range(-1.0, 1.0)), PRESETS["tensorrt"])


on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="counts the kernels that ONNX Runtime has on x86-64"
)


@on_x86
@pytest.mark.parametrize("preset", PRESETS)
def test_onnx_runtime_fuses_products_that_share_an_activation(
    make_graph: Make, fused_operators: Count, preset: str
) -> None:
    """The reason for a pair each: of a query, key and value with one pair in S8, it fuses none."""
    w = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    proto = make_graph(
        [("MatMul", ["x", f"{name}.weight"], [name], {}) for name in "qkv"],
        {"x": ["N", 6, 16]},
        {name: ["N", 6, 16] for name in "qkv"},
        {f"{name}.weight": w[place] for place, name in enumerate("qkv")},
    )
    assert fused_operators(proto) == {"MatMul": 3}
    quantized = quantize(proto, find_sites(proto), {"x": Range(-2.0, 3.0)}, PRESETS[preset])
    assert fused_operators(quantized) == {"QuantizeLinear": 3, "MatMulIntegerToFloat": 3}
    for node in quantized.graph.node:
        if node.op_type == "MatMul":
            node.input[0] = quantized.graph.node[1].output[0]
    prune(quantized)
    shared = fused_operators(quantized)
    assert shared["QuantizeLinear"] == 1
    assert shared["MatMulIntegerToFloat"] == (3 if PRESETS[preset].unsigned else 0)


@on_x86
def test_onnx_runtime_computes_in_integers(both: tuple[str, onnx.ModelProto], fused_operators: Count) -> None:
    """All five matrix products; both convolutions where their outputs are rounded; never a Gemm, nor an LSTM."""
    preset, quantized = both
    found = fused_operators(quantized)
    assert found["MatMulIntegerToFloat"] == 5
    assert found["MatMul"] + found["FusedMatMul"] == 2  # of two activations
    integer = 2 if PRESETS[preset].conv_outputs else 0
    assert found["QLinearConv"] == integer
    assert found["Conv"] + found["FusedConv"] == 2 - integer
    assert (found["Gemm"] + found["FusedGemm"], found["LSTM"]) == (2, 1)
    assert found["LayerNormalization"] == 1
