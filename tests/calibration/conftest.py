"""Graphs to calibrate: small ones made by hand, models of three families, and what engines make of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgeser.calibration.observing import ObservingEngine
from edgeser.calibration.placement import PRESETS, activations, chosen, quantize
from edgeser.calibration.ranges import Method
from edgeser.calibration.sites import Site, find_sites
from edgeser.export_tools.lowering import IR_VERSION, OPSET, finish, name_weights, quiet
from edgeser.runtime.audio import load_audio
from edgeser.runtime.frontends import LogMel, Statistics

Arrays = Mapping[str, NDArray[Any]]
Shape = Sequence[int | str]


@dataclass(frozen=True)
class Family:
    """A small model of a family, exported.

    Attributes:
        proto: In floating point.
        calibration: Real log-mels of two clips.
        held_out: Those of two others.
    """

    proto: onnx.ModelProto
    calibration: Arrays
    held_out: Arrays


@dataclass(frozen=True)
class Plan:
    """What TensorRT for RTX made of a graph.

    Attributes:
        size: Bytes of the plan; 0 when it was refused.
        refusal: Why it was refused, empty when it was not.
        warnings: All it had to say, errors among it.
        layers: How many layers of a kind the parser made, by the kind's name.
    """

    size: int
    refusal: str
    warnings: str
    layers: Mapping[str, int]


def _tensor(name: str, shape: Shape, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., onnx.ModelProto]:
    """Make a checked graph: `(nodes, inputs, outputs, constants)`, nodes as `(kind, inputs, outputs, attributes)`.

    Nodes are called after their first output. Inputs have a shape each, float32, or int64 when called `ids`.
    """

    def make(
        nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]],
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        constants: Arrays,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node(kind, given, made, name=f"{made[0]}.node", **more) for kind, given, made, more in nodes],
            "graph",
            [
                _tensor(n, s, onnx.TensorProto.INT64 if n == "ids" else onnx.TensorProto.FLOAT)
                for n, s in inputs.items()
            ],
            [_tensor(n, s, onnx.TensorProto.FLOAT) for n, s in outputs.items()],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(proto, full_check=True)
        return proto

    return make


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., dict[str, NDArray[Any]]]:
    """Run a graph in ONNX Runtime: node by node as it is written, or `fused` as engines run it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    def run(proto: onnx.ModelProto, feeds: Arrays, *, fused: bool = False) -> dict[str, NDArray[Any]]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # x86 without VNNI adds two products of U8 and S8 in 16 bits, which overflow, unless it is told to be exact.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(None, dict(feeds)), strict=True))

    return run


@pytest.fixture
def fused_operators(tmp_path: Path) -> Callable[[onnx.ModelProto], Counter[str]]:
    """Count the operators that ONNX Runtime makes of a graph."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    def count(proto: onnx.ModelProto) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)

    return count


@pytest.fixture(scope="session")
def calibrate_graph() -> Callable[..., onnx.ModelProto]:
    """Quantize a graph with min-max ranges of what it computes from given inputs: `(proto, feeds, preset)`."""

    def calibrate(
        proto: onnx.ModelProto, feeds: Arrays, preset: str, sites: Sequence[Site] | None = None
    ) -> onnx.ModelProto:
        sites = chosen(find_sites(proto)) if sites is None else sites
        needed = activations(proto, sites, PRESETS[preset])
        with ObservingEngine(proto, needed) as engine:
            engine.run(feeds)
            ranges = {name: Method().range(engine.histograms[name]) for name in needed}
        return quantize(proto, sites, ranges, PRESETS[preset])

    return calibrate


@pytest.fixture(scope="session")
def export_module() -> Callable[..., onnx.ModelProto]:
    """Export a module as EdgeSER's own are: `(module, {name: example})`, its output is `logits`."""

    def export(module: nn.Module, example: Mapping[str, Tensor]) -> onnx.ModelProto:
        batch = torch.export.Dim("N", min=1)
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                tuple(example.values()),
                input_names=list(example),
                output_names=["logits"],
                dynamic_shapes=tuple({0: batch} for _ in example),
                opset_version=OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
        name_weights(proto, module)
        return finish(proto)

    return export


class Cnn(nn.Module):
    """Two convolutions over log-mels as an image, a batch norm behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.hidden = nn.Linear(32 * 10, 64)
        self.classifier = nn.Linear(64, 4)

    def forward(self, audio: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.norm1(self.conv1(audio)).relu(), 2)
        x = nn.functional.max_pool2d(self.norm2(self.conv2(x)).relu(), 2)
        x = x.mean(dim=3).flatten(1)
        logits: Tensor = self.classifier(self.hidden(x).relu())
        return logits


class Lstm(nn.Module):
    """A convolution, a bidirectional LSTM on one row for eight (PyTorch exports an LSTM row by row), the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(40, 64, 9, stride=8, padding=4)
        self.lstm = nn.LSTM(64, 64, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(128, 64)
        self.classifier = nn.Linear(64, 4)

    def forward(self, audio: Tensor) -> Tensor:
        x = self.front(audio.transpose(1, 2)).relu().transpose(1, 2)
        x, _ = self.lstm(x)
        logits: Tensor = self.classifier(self.hidden(x.mean(dim=1)).relu())
        return logits


@pytest.fixture(scope="session")
def log_mels(clips: list[Path]) -> NDArray[np.float32]:
    """Normalised log-mels of four clips, three stretches of a second each: `(12, 100, 40)`."""
    plain = LogMel(40)
    rows = [plain.extract(load_audio(clip)) for clip in clips[:4]]
    known = Statistics.of(rows)
    normal = [(clip - known.mean) / known.std for clip in rows]
    return np.stack([clip[start : start + 100] for clip in normal for start in (50, 120, 190)]).astype(np.float32)


def train(module: nn.Module, audio: Tensor) -> None:
    """Let a model learn whose clip a stretch is: what INT8 does to random weights says little."""
    labels = torch.arange(4).repeat_interleave(3)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(audio), labels).backward()
        optimizer.step()


@pytest.fixture(scope="session")
def family(log_mels: NDArray[np.float32], export_module: Callable[..., onnx.ModelProto]) -> Callable[[str], Family]:
    """Give the model of a family, `cnn` or `lstm`, trained and exported once."""
    made: dict[str, Family] = {}

    def make(name: str) -> Family:
        if name not in made:
            torch.manual_seed(0)
            module, shape = {"cnn": (Cnn(), (12, 1, 100, 40)), "lstm": (Lstm(), (12, 100, 40))}[name]
            values = log_mels.reshape(shape)
            values = values.swapaxes(2, 3).copy() if name == "cnn" else values
            train(module, torch.from_numpy(values))
            proto = export_module(module, {"audio": torch.from_numpy(values[:2])})
            made[name] = Family(proto, {"audio": values[:6]}, {"audio": values[6:]})
        return made[name]

    return make


@pytest.fixture(scope="session")
def build_plan() -> Callable[[onnx.ModelProto], Plan]:
    """Build a graph with TensorRT for RTX, on the CPU, for the compute capability 8.6, batches of 1 to 4."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: edgeser[rtx]")

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.lines.append(message)

    def build(proto: onnx.ModelProto) -> Plan:
        log = Log()
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(proto.SerializeToString()):
            reasons = " ".join(parser.get_error(place).desc() for place in range(parser.num_errors))
            return Plan(0, reasons, "\n".join(log.lines), {})
        layers = Counter(network.get_layer(place).type.name for place in range(network.num_layers))
        profile = builder.create_optimization_profile()
        for place in range(network.num_inputs):
            given = network.get_input(place)
            shapes = ([batch if size < 0 else size for size in given.shape] for batch in (1, 4, 4))
            profile.set_shape(given.name, *shapes)
        config = builder.create_builder_config()
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        plan = builder.build_serialized_network(network, config)
        warnings = "\n".join(log.lines)
        return Plan(plan.nbytes if plan else 0, "" if plan else warnings, warnings, layers)

    return build
