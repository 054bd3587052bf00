"""TensorRT for RTX builds what calibration writes, here on the CPU for capability 8.6; what it refuses, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgeser.calibration.placement import PRESETS, activations, default_sites, quantize
from edgeser.calibration.ranges import Range
from edgeser.calibration.tables import pack_tables
from edgeser.export_tools.building.preparing import widen_codes
from edgeser.export_tools.encoders.bert import BertEncoder
from edgeser.export_tools.encoders.encoder import Encoder
from edgeser.export_tools.encoders.export import example_inputs, lower_encoder
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.export_tools.encoders.whisper import WhisperEncoder
from edgeser.export_tools.lowering import lower

Build = Callable[[onnx.ModelProto], Any]
Make = Callable[..., onnx.ModelProto]
SIGNED = Range(-4.0, 3.0)


def in_int8(proto: onnx.ModelProto, preset: str = "tensorrt", covered: Range = SIGNED) -> onnx.ModelProto:
    """Quantize every layer that is by default, as `build` hands it on; what ranges are does not matter to a builder."""
    sites = default_sites(proto)
    needed = activations(proto, sites, PRESETS[preset])
    quantized = quantize(proto, sites, dict.fromkeys(needed, covered), PRESETS[preset])
    widen_codes(quantized)
    return quantized


def pairs(proto: onnx.ModelProto) -> tuple[int, int]:
    """Return how many Q and DQ a graph has."""
    kinds = [node.op_type for node in proto.graph.node]
    return kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")


def assert_built(plan: Any, proto: onnx.ModelProto) -> None:
    assert plan.refusal == ""
    assert plan.size > 0
    assert (plan.layers["QUANTIZE"], plan.layers["DEQUANTIZE"]) == pairs(proto)


def assert_no_bias_is_quantized(proto: onnx.ModelProto) -> None:
    """What is stored as integers with scales has an axis to sum over: biases have none."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    codes = [
        stored[node.input[0]]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    ]
    assert codes
    assert all(code.data_type == onnx.TensorProto.INT8 and len(code.dims) >= 2 for code in codes)
    biases = [tensor for name, tensor in stored.items() if name.endswith("bias")]
    assert biases
    assert all(bias.data_type == onnx.TensorProto.FLOAT for bias in biases)


@pytest.fixture(scope="module")
def compact(exported: Callable[..., Any]) -> onnx.ModelProto:
    return onnx.load_from_string(exported()[0].graph("portable"))


def test_the_compact_model_builds(compact: onnx.ModelProto, build_plan: Build) -> None:
    quantized = in_int8(compact)
    assert pairs(quantized) == (42, 84)
    assert_no_bias_is_quantized(quantized)
    assert_built(build_plan(quantized), quantized)


def test_the_published_widths_build_and_stay_in_int8(fresh: Callable[..., Any], build_plan: Build) -> None:
    """One cross-attention block for either modality, of the published ten layers: the others are of the same kinds."""
    proto = lower(fresh("paper", layers=(0, 1, 0)).model).portable
    quantized = in_int8(proto)
    assert pairs(quantized) == (24, 48)
    assert_no_bias_is_quantized(quantized)
    plan = build_plan(quantized)
    assert_built(plan, quantized)
    # Kernels are the smaller part of it: weights in floating point would be 58 MB.
    whole = len(proto.SerializeToString())
    assert whole > 50e6
    assert plan.size < 0.45 * whole


def whisper() -> Encoder:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        d_model=96,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=16,
        vocab_size=8,
        num_mel_bins=20,
        max_source_positions=50,
        max_target_positions=8,
    )
    return WhisperEncoder(WhisperModel(config).encoder, 20)


def bert() -> Encoder:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=10_944,  # times 96 is just large enough for a packed table
        hidden_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=30,
    )
    return BertEncoder(BertModel(config, add_pooling_layer=False), 20, {"start": 1, "end": 2, "padding": 0})


@pytest.fixture(scope="module")
def encoder() -> Callable[[str], onnx.ModelProto]:
    """Lower a small random encoder, once."""
    made: dict[str, bytes] = {}

    def make(name: str) -> onnx.ModelProto:
        if name not in made:
            torch.manual_seed(0)
            module = {"whisper": whisper, "bert": bert}[name]()
            module.choice = LayerChoice.parse("last", module.layers, module.learned)
            inputs = example_inputs(module, 20, module.describe())
            made[name] = lower_encoder(module, inputs).SerializeToString()
        return onnx.load_from_string(made[name])

    return make


@pytest.mark.parametrize("form", ["lossless", "half", "int8"])
@pytest.mark.parametrize("name", ["whisper", "bert"])
def test_encoders_build_whatever_form_their_weights_had(
    encoder: Callable[[str], onnx.ModelProto], build_plan: Build, name: str, form: str
) -> None:
    """Packed tables among them; weights that were INT8 already come out as Q/DQ has them."""
    proto = pack_tables(store_weights(encoder(name), form))
    unpacking = [node for node in proto.graph.node if node.name.endswith(".unpack")]
    assert bool(unpacking) == (name == "bert")
    quantized = in_int8(proto)
    assert pairs(quantized) == {"whisper": (8, 16), "bert": (6, 12)}[name]
    assert_no_bias_is_quantized(quantized)
    assert_built(build_plan(quantized), quantized)


def test_int8_codes_without_a_scale_of_their_own_kind_are_refused(
    encoder: Callable[[str], onnx.ModelProto], build_plan: Build
) -> None:
    """Why tables are packed into INT32: a table of codes that is cast is refused, and so is a weight."""
    plan = build_plan(store_weights(encoder("bert"), "int8"))
    assert plan.size == 0
    assert "Quantized constant" in plan.refusal
    assert "is only allowed before DQ" in plan.refusal


@pytest.mark.parametrize("preset", ["tensorrt", "onnxruntime-arm"])
@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_other_families_build(
    family: Callable[[str], Any],
    calibrate_graph: Callable[..., onnx.ModelProto],
    build_plan: Build,
    name: str,
    preset: str,
) -> None:
    made = family(name)
    quantized = calibrate_graph(made.proto, made.calibration, preset)
    widen_codes(quantized)
    assert_no_bias_is_quantized(quantized)
    assert_built(build_plan(quantized), quantized)


@pytest.mark.parametrize("name", ["compact", "cnn", "lstm"])
def test_unsigned_activations_are_refused(
    compact: onnx.ModelProto, family: Callable[[str], Any], build_plan: Build, name: str
) -> None:
    """The reason for presets: TensorRT takes no zero point but 0."""
    proto = compact if name == "compact" else family(name).proto
    plan = build_plan(in_int8(proto, "onnxruntime-x86"))
    assert plan.size == 0
    assert "Non-zero zero point is not supported" in plan.refusal


def test_unsigned_codes_without_a_zero_point_are_read_as_signed(make_graph: Make, build_plan: Build) -> None:
    """Worse than refused: behind a ReLU zero points are 0, and codes above 127 are cut with no more than a warning."""
    proto = make_graph(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ["N", 8]}, {"y": ["N", 8]}, {"w": np.eye(8, dtype=np.float32)}
    )
    plan = build_plan(in_int8(proto, "onnxruntime-x86", Range(0.0, 4.0)))
    assert plan.size > 0
    assert "UINT8 zero_point only on DLA" in plan.warnings
    assert "Defaulting to INT8" in plan.warnings
    assert build_plan(in_int8(proto, "tensorrt", Range(0.0, 4.0))).warnings == ""


def test_a_quantized_bias_is_refused(make_graph: Make, build_plan: Build) -> None:
    """Why biases stay in floating point."""
    rng = np.random.default_rng(0)
    proto = make_graph(
        [("Conv", ["x", "w", "bias"], ["y"], {})],
        {"x": ["N", 4, 9]},
        {"y": ["N", 8, 7]},
        {"w": rng.normal(size=(8, 4, 3)).astype(np.float32), "bias": rng.normal(size=8).astype(np.float32)},
    )
    quantized = in_int8(proto)
    assert_built(build_plan(quantized), quantized)
    (bias,) = [tensor for tensor in quantized.graph.initializer if tensor.name == "bias"]
    bias.CopyFrom(numpy_helper.from_array(np.arange(8, dtype=np.int32), "bias.codes"))
    quantized.graph.initializer.append(numpy_helper.from_array(np.full(8, 0.01, np.float32), "bias.scales"))
    pair = helper.make_node("DequantizeLinear", ["bias.codes", "bias.scales"], ["bias"], axis=0, name="bias.pair")
    quantized.graph.node.insert(0, pair)
    onnx.checker.check_model(quantized, full_check=True)
    plan = build_plan(quantized)
    assert plan.size == 0
    assert "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8" in plan.refusal


def test_a_gru_in_int8_builds(make_graph: Make, build_plan: Build) -> None:
    """On codes behind a DequantizeLinear the compiler of TensorRT for RTX 1.7 failed."""
    rng = np.random.default_rng(0)
    sizes = {"w": (2, 72, 32), "r": (2, 72, 24), "b": (2, 144)}
    proto = make_graph(
        [
            (
                "GRU",
                ["x", "w", "r", "b"],
                ["y"],
                {"hidden_size": 24, "direction": "bidirectional", "linear_before_reset": 1},
            )
        ],
        {"x": [10, "N", 32]},
        {"y": [10, 2, "N", 24]},
        {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()},
    )
    assert_built(build_plan(in_int8(proto)), in_int8(proto))
