"""Compiling: with TensorRT for RTX, in a process of its own as always; and with a stand-in for TensorRT on a device."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx.parser
import pytest

from edgeser.export_tools.building import compiling
from edgeser.export_tools.building.compiling import Compiled, CompileRequest, compile_graph
from edgeser.export_tools.building.isolated import Limits, run_apart
from edgeser.export_tools.building.library import LIBRARIES
from edgeser.runtime.engines import TensorSpec
from edgeser.runtime.errors import EngineError, InputError, MissingDependencyError
from edgeser.runtime.gpu import Gpu

RELU = "(float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }"


def request(body: str = RELU, **changes: Any) -> CompileRequest:
    """Ask for a graph, given as ONNX's text form has it; nodes are called after their first output."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> g {body}')
    for node in proto.graph.node:
        node.name = f"{node.output[0]}.node"
    plain = CompileRequest(
        target="tensorrt-rtx",
        graph=proto.SerializeToString(),
        lowering="portable",
        precision="fp32",
        max_batch=4,
        best_batch=2,
        workspace_mb=None,
        capabilities=("8.6",),
        timing_cache=Path("/nowhere/tensorrt.timing"),
    )
    return dataclasses.replace(plain, **changes)


class TestWithTensorRtForRtx:
    """Real, on the CPU."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: edgeser[rtx]")

    def build(self, asked: CompileRequest) -> Compiled:
        return run_apart(compile_graph, asked, Limits(120.0))

    def refusal(self, asked: CompileRequest) -> str:
        with pytest.raises(EngineError) as caught:
            self.build(asked)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("capabilities", [(), ("8.6",), ("8.6", "8.9")])
    def test_builds_ahead_of_time(self, capabilities: tuple[str, ...]) -> None:
        compiled = self.build(request(capabilities=capabilities, workspace_mb=64))
        assert len(compiled.engine) > 1000
        assert (compiled.gpu, compiled.capability) == ("", ",".join(capabilities))
        assert compiled.inputs == (TensorSpec("x", "float32", (None, 4)),)
        assert compiled.outputs == (TensorSpec("y", "float32", (None, 4)),)
        assert compiled.library_version.count(".") >= 2
        assert compiled.warnings == ()

    def test_a_refused_operator_is_named_with_its_node(self) -> None:
        body = "(float[N, 4, 4] x) => (float[N] y) { z = Relu (x)  y = Det (z) }"
        expected = "tensorrt_rtx: refuses the graph: node y.node (Det): unsupported node"
        assert self.refusal(request(body)).startswith(expected)

    def test_a_plugin_lowering_is_refused(self) -> None:
        assert self.refusal(request(lowering="plugin")).endswith(": has no plugin layers")

    def test_a_second_size_that_may_be_any_is_refused(self) -> None:
        body = "(float[N, 4, M] x) => (float[N, 4, M] y) { y = Relu (x) }"
        assert self.refusal(request(body)) == "tensorrt_rtx: x is (N, 4, N): only the first size may be any"

    def test_a_compiler_that_fails_says_why(self) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(onnx.load_from_string(request().graph))
        del proto.graph.node[:], proto.graph.output[:]
        reason = self.refusal(request(graph=proto.SerializeToString()))
        assert "Network must have at least one output" in reason

    def test_warnings_come_along(self) -> None:
        """The one that matters most: unsigned codes that are read as signed ones."""
        body = """(float[N, 4] x) => (float[N, 4] y)
            <float scale = {0.5}, uint8 zero = {0}>
            { codes = QuantizeLinear (x, scale, zero)  y = DequantizeLinear (codes, scale, zero) }"""
        assert "UINT8 zero_point only on DLA" in " ".join(self.build(request(body)).warnings)

    def test_an_unknown_capability_is_the_users_mistake(self) -> None:
        with pytest.raises(InputError, match=r"^capability: got '9.9', expected some of .*8\.6, 8\.9"):
            self.build(request(capabilities=("8.6", "9.9")))


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class Config:
    """An `IBuilderConfig` that notes what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.cache: Cache | None = None

    def clear_flag(self, flag: str) -> None:
        self.told["cleared"] = flag

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.told[pool] = size

    def add_optimization_profile(self, profile: Any) -> None:
        self.told["profile"] = profile.shapes

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content == b"damaged" else Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        fits = not cache.content.startswith(b"foreign")
        self.cache = cache if fits else self.cache
        return fits

    def get_timing_cache(self) -> Cache | None:
        return self.cache


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, *shapes: list[int]) -> None:
        self.shapes[name] = shapes


class Builder:
    config: Config
    flags: int

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Any:
        Builder.flags = flags
        tensor = SimpleNamespace(name="x", dtype=SimpleNamespace(name="FLOAT"), shape=(-1, 4))
        give = {"get_input": lambda place: tensor, "get_output": lambda place: tensor}
        return SimpleNamespace(num_inputs=1, num_outputs=1, add_plugin_v3=None, **give)

    def create_builder_config(self) -> Config:
        Builder.config = Config()
        return Builder.config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Config) -> bytes:
        self.logger.log("WARNING", "half of\n  it")
        return b"an engine"


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR="INTERNAL_ERROR", ERROR="ERROR", WARNING="WARNING")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for TensorRT 10.3 on a Jetson."""
    parser = SimpleNamespace(parse=lambda graph: True, num_errors=0)
    module = SimpleNamespace(
        __version__="10.3.0",
        __spec__=SimpleNamespace(),
        ILogger=Logger,
        Builder=Builder,
        OnnxParser=lambda network, logger: parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="WORKSPACE"),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(compiling, "find_gpu", lambda: Gpu("Orin", "8.7", "12.6", 7607))
    monkeypatch.setattr(compiling, "jetson_release", lambda: "R36.4.3")
    return module


def on_device(**changes: Any) -> CompileRequest:
    return request(target="tensorrt", capabilities=(), **changes)


def test_on_a_device_the_plan_is_for_its_gpu(tensorrt: Any) -> None:
    compiled = compile_graph(on_device(workspace_mb=256))
    assert (compiled.gpu, compiled.capability, compiled.platform) == ("Orin", "8.7", "CUDA 12.6, Jetson R36.4.3")
    assert (compiled.engine, compiled.library_version) == (b"an engine", "10.3.0")
    assert compiled.warnings == ("half of it",)
    assert Builder.flags == 2
    assert Builder.config.told == {
        "cleared": "TF32",
        "WORKSPACE": 256 << 20,
        "profile": {"x": ([1, 4], [2, 4], [4, 4])},
    }


def test_networks_of_tensorrt_11_are_strongly_typed_without_a_flag(tensorrt: Any) -> None:
    del tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    compile_graph(on_device())
    assert Builder.flags == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tf32_may_be_used_where_less_is_promised(tensorrt: Any, precision: str) -> None:
    compile_graph(on_device(precision=precision))
    assert "cleared" not in Builder.config.told


@pytest.mark.parametrize(
    ("known", "kept"), [(None, b"+"), (b"timed", b"timed+"), (b"damaged", b"+"), (b"foreign", b"+")]
)
def test_what_was_timed_is_kept(tensorrt: Any, tmp_path: Path, known: bytes | None, kept: bytes) -> None:
    file = tmp_path / "tensorrt.timing"
    if known is not None:
        file.write_bytes(known)
    compile_graph(on_device(timing_cache=file))
    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_gpu_there_is_nothing_to_build_for(tensorrt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_gpu", lambda: None)
    with pytest.raises(EngineError, match=r"^tensorrt: builds for the GPU it runs on, and found none: run this on the"):
        compile_graph(on_device())


def test_a_builder_that_does_not_start_says_why(tensorrt: Any) -> None:
    def none(logger: Any) -> None:
        logger.log("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    tensorrt.Builder = none
    with pytest.raises(
        EngineError, match=r"^tensorrt: does not build the graph: CUDA initialization failure .*nullptr$"
    ):
        compile_graph(on_device())


def test_a_library_that_is_not_there_or_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"^tensorrt is not installed, .*edgeser\[jetson\]"):
        LIBRARIES["tensorrt"].load()
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        EngineError, match=r"^tensorrt: is installed but does not start: libnvinfer\.so\.10: cannot open"
    ):
        LIBRARIES["tensorrt"].load()
