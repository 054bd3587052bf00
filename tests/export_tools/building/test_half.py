"""Half precision: what runs in it, what does not, and how near it comes, in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.export_tools.building.half import to_half
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import InputError
from edgeser.runtime.golden import GoldenVectors, prove
from edgeser.runtime.recognizer import default_bundle

Arrays = dict[str, NDArray[Any]]
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def graph(body: str, constants: Mapping[str, object] | None = None) -> onnx.ModelProto:
    """Parse a graph, given as ONNX's text form has it, and store constants in it."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> g {body}')
    for name, value in (constants or {}).items():
        plain = value if isinstance(value, np.ndarray) and value.dtype == np.float16 else np.asarray(value, np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(plain, name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    with open_engine(proto.SerializeToString()) as engine:
        return engine.run(feeds)


def types(proto: onnx.ModelProto, kinds: set[str]) -> set[int]:
    """Return the element types that nodes of some kinds give."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    found = {known[node.output[0]] for node in proto.graph.node if node.op_type in kinds}
    assert found, f"no node is one of {kinds}"
    return found


@pytest.fixture(scope="module")
def in_int8() -> Bundle:
    """The default bundle, calibrated."""
    return Bundle.open(default_bundle())


@pytest.mark.parametrize("lowering", ["portable", "plugin"])
def test_an_int8_model_stays_in_int8_with_half_precision_between(in_int8: Bundle, lowering: str) -> None:
    proto = onnx.load_from_string(in_int8.graph(lowering))
    half = to_half(proto)
    kinds = Counter(node.op_type for node in half.graph.node)
    before = Counter(node.op_type for node in proto.graph.node)
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (38, 76)
    assert kinds["MatMul"] == before["MatMul"]
    assert types(half, {"DequantizeLinear"}) == {HALF}
    # A cast between a pair and its product would keep the product from running in INT8.
    dequantized = {node.output[0] for node in half.graph.node if node.op_type == "DequantizeLinear"}
    users = {node.op_type for node in half.graph.node if dequantized & set(node.input)}
    assert users == {"MatMul"}
    assert {opset.version for opset in half.opset_import if not opset.domain} == {19}


def test_an_int8_bundle_passes_its_golden_vectors(in_int8: Bundle) -> None:
    """Encoders too. Their rows differ by more: what is rounded otherwise before a Q falls into another step."""

    def open_half(content: bytes) -> Engine:
        return open_engine(to_half(onnx.load_from_string(content)).SerializeToString())

    with open_half(in_int8.graph()) as engine:
        proof = prove(engine, {name: in_int8.frontend(name, open_half) for name in ("audio", "text")}, in_int8)
    assert 0 < proof.logits < 5e-3
    assert all(0 < difference < 0.09 for difference in proof.rows.values())


@pytest.mark.parametrize("words", [0, 20])
@pytest.mark.parametrize("rows", [0, 1, 460])
def test_no_length_gives_nan(in_int8: Bundle, words: int, rows: int) -> None:
    """With every key padded, the default model's graph has powers that half precision does not hold."""
    inputs = {name: value[:2].copy() for name, value in GoldenVectors.from_bundle(in_int8).inputs.items()}
    inputs["text_length"][:], inputs["audio_length"][:] = words, rows
    proto = onnx.load_from_string(in_int8.graph())
    expected, actual = run(proto, inputs), run(to_half(proto), inputs)
    for name, value in actual.items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-2)


def test_scales_that_half_precision_cannot_hold_keep_their_product_in_fp32() -> None:
    """Both pairs of it: with one in either type, there would be a cast behind the other."""
    proto = graph(
        """(float[N, 2] x) => (float[N, 2] y)
        <int8 zero = {0}, float scale = {0.5}, float tiny = {0.00001}, int8[2, 2] codes = {1, 2, 3, 4}> {
            q = QuantizeLinear (x, scale, zero)
            a = DequantizeLinear (q, scale, zero)
            w = DequantizeLinear (codes, tiny, zero)
            y = MatMul (a, w)
        }"""
    )
    assert types(to_half(proto), {"DequantizeLinear", "MatMul"}) == {FLOAT}


def test_what_may_be_of_any_size_stays_in_fp32_until_something_bounds_it() -> None:
    proto = graph(
        """(float[N, 2] x) => (float[N, 2] y, float[N, 2] z) {
            power = Pow (x, two)
            once = MatMul (power, w)
            y = MatMul (once, w)
            bounded = Softmax (y)
            z = MatMul (bounded, w)
        }""",
        {"w": np.eye(2), "two": 2.0},
    )
    actual = run(to_half(proto), {"x": np.full((1, 2), 1e3, np.float32)})
    assert actual["y"].tolist() == [[1e6, 1e6]]
    assert [node.op_type for node in to_half(proto).graph.node].count("Cast") == 2


def test_a_count_stays_in_fp32() -> None:
    proto = graph(
        """(int32[N, 2] samples) => (float[N, 2] y) {
            count = Cast <to = 1> (samples)
            y = MatMul (count, w)
        }""",
        {"w": np.eye(2)},
    )
    actual = run(to_half(proto), {"samples": np.array([[147_200, 1]], np.int32)})
    assert actual["y"].tolist() == [[147_200.0, 1.0]]


def test_the_graph_that_was_given_stays_as_it_is(in_int8: Bundle) -> None:
    proto = onnx.load_from_string(in_int8.graph("plugin"))
    before = proto.SerializeToString()
    to_half(proto)
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("masked", [-1e4, -65504.0, -1e9, -1e38])
def test_masks_that_half_precision_cannot_hold(masked: float) -> None:
    """Two masks that add up, on a row that is all padding: clamped, both would be minus infinity and the row NaN."""
    proto = graph(
        """(float[N, 4, 8] q, float[N, 4] padding) => (float[N, 4, 4] weights) {
            k = Transpose <perm = [0, 2, 1]> (q)
            scores = MatMul (q, k)
            mask = Mul (padding, masked)
            axes = Constant <value_ints = [1]> ()
            row = Unsqueeze (mask, axes)
            once = Add (scores, row)
            twice = Add (once, row)
            weights = Softmax <axis = -1> (twice)
        }""",
        {"masked": masked},
    )
    half = to_half(proto)
    assert types(half, {"MatMul"}) == {HALF}
    padding = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.float32)
    feeds = {"q": np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32), "padding": padding}
    expected, actual = run(proto, feeds)["weights"], run(half, feeds)["weights"]
    np.testing.assert_allclose(actual[:2], expected[:2], rtol=0, atol=5e-3)
    assert (actual[1, :, 2:] == 0).all()
    np.testing.assert_allclose(actual[2].sum(axis=-1), 1.0, rtol=1e-3)


def test_an_epsilon_that_half_precision_rounds_to_zero() -> None:
    proto = graph(
        """(float[N, 8] x) => (float[N, 8] y) {
            made = MatMul (x, w)
            axes = Constant <value_ints = [1]> ()
            norm = ReduceL2 (made, axes)
            safe = Max (norm, epsilon)
            unit = Div (made, safe)
            y = MatMul (unit, w)
        }""",
        {"w": np.eye(8), "epsilon": 1e-12},
    )
    actual = run(to_half(proto), {"x": np.zeros((2, 8), np.float32)})["y"]
    assert (actual == 0).all()


def test_weights_that_half_precision_cannot_hold_stay() -> None:
    proto = graph(
        "(float[N, 2] x) => (float[N, 2] y) { large = MatMul (x, w)  y = MatMul (large, v) }",
        {"w": np.full((2, 2), 1e6), "v": np.full((2, 2), 1e-6)},
    )
    half = to_half(proto)
    assert types(half, {"MatMul"}) == {FLOAT}
    np.testing.assert_allclose(run(half, {"x": np.ones((1, 2), np.float32)})["y"], [[4.0, 4.0]], rtol=1e-5)


def test_a_residual_stays_in_fp32_and_plain_arithmetic_does_not() -> None:
    proto = graph(
        """(float[N, 2] x) => (float[N, 2] y) {
            product = MatMul (x, w)
            biased = Add (product, b)
            active = Relu (biased)
            y = Sub (x, active)
        }""",
        {"w": np.eye(2), "b": np.ones(2)},
    )
    half = to_half(proto)
    assert types(half, {"MatMul", "Add", "Relu"}) == {HALF}
    assert types(half, {"Sub"}) == {FLOAT}
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {"w.half": HALF, "b.half": HALF}


def test_an_output_that_others_take_too_keeps_its_name_and_type() -> None:
    proto = graph(
        """(float[N, 2] x) => (float[N, 2] made, float[N, 2] y, float[N, 2] rooted) {
            made = MatMul (x, w)
            y = MatMul (made, w)
            rooted = Sqrt (made)
        }""",
        {"w": np.eye(2)},
    )
    x = np.full((1, 2), 4.0, np.float32)
    actual = run(to_half(proto), {"x": x})
    assert {name: value.tolist() for name, value in actual.items()} == {
        "made": [[4.0, 4.0]],
        "y": [[4.0, 4.0]],
        "rooted": [[2.0, 2.0]],
    }


def test_weights_that_are_stored_in_half_precision_are_taken_as_they_are() -> None:
    body = "(float[N, 2] x) => (float[N, 2] y) { weight = Cast <to = 1> (w)  y = MatMul (x, weight) }"
    proto = graph(body, {"w": np.eye(2, dtype=np.float16)})
    half = to_half(proto)
    (product,) = [node for node in half.graph.node if node.op_type == "MatMul"]
    assert product.input[1] == "w"
    assert [tensor.name for tensor in half.graph.initializer] == ["w"]


STEPS = {
    "MatMul ({0}, w)": 1,
    "Add ({0}, b)": 1,
    "Mul ({0}, small)": 1,
    "Add ({0}, large)": 1,
    "Add ({0}, {1})": 2,
    "Sub ({0}, {1})": 2,
    "Relu ({0})": 1,
    "Tanh ({0})": 1,
    "Identity ({0})": 1,
    "CastLike ({0}, {1})": 2,
    "Softmax ({0})": 1,
    "LayerNormalization ({0}, b)": 1,
    "Where (which, {0}, {1})": 2,
    "Cast <to = 1> (which)": 0,
    "Cast <to = 1> (stored)": 0,
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_graph_stays_one_and_computes_the_same(data: st.DataObject) -> None:
    """Random graphs: whatever takes, gives or is an output, types fit, and numbers are those of FP32."""
    names = ["x"]
    lines = ["which = Cast <to = 9> (flag)"]
    for place in range(data.draw(st.integers(1, 10), "nodes")):
        step = data.draw(st.sampled_from(list(STEPS)), "step")
        taken = data.draw(st.lists(st.sampled_from(names), min_size=STEPS[step], max_size=STEPS[step]), "inputs")
        lines.append(f"t{place} = {step.format(*taken)}")
        names.append(f"t{place}")
    outputs = data.draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True), "outputs")
    given_ = "(float[N, 8] x, int32[N, 8] flag)"
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(8, 8)) / 4, "b": rng.normal(size=8), "small": 1e-6, "large": 1e5}
    constants["stored"] = rng.normal(size=(3, 8)).astype(np.float16)
    proto = graph(
        f"{given_} => ({', '.join(f'float[N, 8] {name}' for name in outputs)}) {{ {'  '.join(lines)} }}", constants
    )
    feeds = {"x": rng.normal(size=(3, 8)).astype(np.float32), "flag": rng.integers(0, 2, (3, 8), np.int32)}
    half = to_half(proto)
    expected, actual = run(proto, feeds), run(half, feeds)
    for name in outputs:
        assert actual[name].dtype == np.float32
        # Behind a large number, small ones are lost in FP32 as well: what is left is of its size.
        scale = max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(actual[name] / scale, expected[name] / scale, rtol=0, atol=2e-2)


def test_a_graph_within_a_graph_is_refused() -> None:
    proto = graph(
        """(float[N, 2] x, bool which) => (float[N, 2] y) {
            y = If (which) <
                then_branch = g1 () => (float[N, 2] a) { a = Relu (x) },
                else_branch = g2 () => (float[N, 2] b) { b = Neg (x) }
            >
        }"""
    )
    with pytest.raises(InputError, match=r"^fp16: \S* ?\(If\) holds a graph of its own, expected none: use fp32$"):
        to_half(proto)
