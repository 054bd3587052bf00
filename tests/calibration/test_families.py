"""Models of other families than ours: a CNN over log-mels and a bidirectional LSTM, in INT8, on real recordings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.calibration.graph import Graph
from edgeser.calibration.placement import PRESETS
from edgeser.calibration.sites import find_sites
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import EngineError

Calibrate = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, NDArray[Any]]]
FAMILIES = ("cnn", "lstm")


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_layers_are_found_and_named(family: Callable[..., Any], name: str) -> None:
    found = {site.name: (site.kind, site.float_reason) for site in find_sites(family(name).proto)}
    raw, last = "reads one raw channel", "last before an output"
    recurrent = [layer for layer, (kind, _) in found.items() if kind == "recurrent"]
    assert (
        found
        == {
            "cnn": {
                "conv1": ("conv", raw),
                "conv2": ("conv", ""),
                "hidden": ("matmul", ""),
                "classifier": ("matmul", last),
            },
            "lstm": {
                "front": ("conv", ""),
                **dict.fromkeys(recurrent, ("recurrent", "")),
                "hidden": ("matmul", ""),
                "classifier": ("matmul", last),
            },
        }[name]
    )
    assert len(recurrent) == (name == "lstm")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_on_other_clips_stay_near(
    family: Callable[..., Any], calibrate_graph: Calibrate, run_graph: Run, name: str, preset: str, engine: str
) -> None:
    """Calibrated on two clips: on two others they move by less than a fiftieth of what they deviate by."""
    made = family(name)
    quantized = calibrate_graph(made.proto, made.calibration, preset)
    expected = run_graph(made.proto, made.held_out)["logits"]
    apart = expected.std()
    assert apart > 1.0
    if engine == "onnxruntime":
        got = run_graph(quantized, made.held_out, fused=True)["logits"]
    else:
        if importlib.util.find_spec("openvino") is None:
            pytest.skip("OpenVINO is not installed: edgeser[openvino]")
        if name == "lstm":
            with pytest.raises(EngineError, match=r"LSTMSequence node with name .* expects Constant for port 4"):
                open_engine(quantized.SerializeToString(), "openvino")
            return
        with open_engine(quantized.SerializeToString(), "openvino") as opened:
            got = opened.run(made.held_out)["logits"]
    difference = np.abs(got - expected).max()
    assert 0 < difference < 0.02 * apart


@pytest.mark.parametrize("preset", PRESETS)
def test_graphs_shrink_to_less_than_a_third(
    family: Callable[..., Any], calibrate_graph: Calibrate, name: str, preset: str
) -> None:
    made = family(name)
    quantized = calibrate_graph(made.proto, made.calibration, preset)
    assert len(quantized.SerializeToString()) < len(made.proto.SerializeToString()) / 3


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recurrence_keeps_its_activations_and_stores_codes(
    family: Callable[..., Any], calibrate_graph: Calibrate, preset: str
) -> None:
    """Weights alone: both directions' in INT8, a scale for each row of a gate, shared by the directions."""
    made = family("lstm")
    quantized = calibrate_graph(made.proto, made.calibration, preset)
    graph = Graph(quantized)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    (node,) = [node for node in quantized.graph.node if node.op_type == "LSTM"]
    (before,) = [node for node in made.proto.graph.node if node.op_type == "LSTM"]
    assert node.input[0] == before.input[0]
    assert node.input[3] == before.input[3]
    assert graph.makers[node.input[0]].op_type == "Transpose"
    for place, shape in ((1, (2, 256, 64)), (2, (2, 256, 64))):
        pair = graph.makers[node.input[place]]
        assert pair.op_type == "DequantizeLinear"
        codes, scales = (stored[name] for name in pair.input[:2])
        assert (codes.dtype, codes.shape, scales.shape) == (np.int8, shape, (256,))
        weight = Graph(made.proto).constant(before.input[place])
        assert np.abs(codes * scales[None, :, None] - weight).max() <= 0.501 * scales.max()
    assert before.input[1] not in stored
