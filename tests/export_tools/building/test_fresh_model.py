"""A fresh model with random weights: in FP32 and in half precision, in ONNX Runtime and built for capability 8.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeser.export_tools.building.build import BuildOptions, build
from edgeser.export_tools.building.half import to_half
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import open_engine
from edgeser.runtime.golden import GoldenVectors
from edgeser.runtime.plans import Plan, read_plan

Arrays = dict[str, NDArray[Any]]
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def bundle(exported: Callable[..., Any]) -> Bundle:
    """The compact KS-Transformer in FP32."""
    made: Bundle = exported()[0]
    return made


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
def golden(bundle: Bundle) -> Arrays:
    return dict(GoldenVectors.from_bundle(bundle).inputs)


@pytest.fixture(scope="module", params=["portable", "plugin"])
def pair(request: pytest.FixtureRequest, bundle: Bundle) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = onnx.load_from_string(bundle.graph(request.param))
    return proto, to_half(proto)


@pytest.mark.parametrize("case", ["golden", "no words", "all padded"])
def test_a_model_answers_as_in_fp32(pair: tuple[onnx.ModelProto, onnx.ModelProto], golden: Arrays, case: str) -> None:
    """Logits of random weights are small, 0.14 at most: 2e-2 would say little, so 1e-3 is asked for."""
    feeds = {name: value.copy() for name, value in golden.items()}
    if case != "golden":
        feeds["text_length"][:] = 0
    if case == "all padded":
        feeds["audio_length"][:] = 0
    expected, actual = (run(proto, feeds) for proto in pair)
    assert set(actual) == {"logits", "audio_importance", "text_importance"}
    for name, value in actual.items():
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3)
    assert np.abs(expected["logits"]).max() > 0.05


def test_what_a_model_computes_in_which_precision(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    proto, half = pair
    assert types(half, {"MatMul", "Conv"}) == {HALF}
    assert types(half, {"LayerNormalization", "Softmax", "ReduceSum", "ReduceMean"}) == {FLOAT}
    assert (list(half.graph.input), list(half.graph.output)) == (list(proto.graph.input), list(proto.graph.output))
    assert len(half.SerializeToString()) < 0.55 * len(proto.SerializeToString())
    opaque = [node for node in half.graph.node if node.op_type == "KeySparseAttention"]
    assert bool(opaque) == bool(proto.functions)
    if opaque:
        assert types(half, {"KeySparseAttention"}) == {HALF}


@pytest.fixture(scope="module")
def built(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """Plans of a fresh model, by precision; real, for capability 8.6."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: edgeser[rtx]")
    found = {}
    for precision in ("fp32", "fp16"):
        options = BuildOptions(
            "tensorrt-rtx", precision, capabilities=("8.6",), out=tmp_path_factory.mktemp("plans") / precision
        )
        report = build(bundle, options)
        assert report.failure == ""
        (graph,) = report.graphs
        assert graph.file is not None
        found[precision] = read_plan(graph.file)[0]
        assert graph.attempts[0].warnings == ()
    return found


def test_a_fresh_model_builds_in_fp32_and_fp16(built: dict[str, Plan]) -> None:
    for precision, plan in built.items():
        assert (plan.precision, plan.lowering, plan.capability, plan.gpu) == (precision, "portable", "8.6", "")
        assert {(spec.name, spec.dtype, spec.shape) for spec in plan.inputs} == {
            ("audio", "float32", (None, 460, 80)),
            ("audio_length", "int32", (None,)),
            ("text", "float32", (None, 20, 50)),
            ("text_length", "int32", (None,)),
        }
        assert {spec.dtype for spec in plan.outputs} == {"float32"}
    # The weights' 2.6 MB are halved; kernels, the larger part, are about the same.
    assert built["fp16"].engine_bytes < built["fp32"].engine_bytes - 1_000_000
