"""One graph, one engine: compiled in this process, which native code may crash; see `isolated`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeser.export_tools.building.library import LIBRARIES, Library, compute_capabilities, network_flags
from edgeser.export_tools.building.messages import Messages, one_line, parser_errors
from edgeser.export_tools.building.preparing import prepared
from edgeser.runtime.engines import TensorSpec
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.files import replacing
from edgeser.runtime.gpu import Gpu, find_gpu
from edgeser.runtime.jetson import jetson_release

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8", "BOOL": "bool"}
_MB = 1 << 20


@dataclass(frozen=True)
class CompileRequest:
    """What to compile, and for what.

    Attributes:
        target: `tensorrt` or `tensorrt-rtx`.
        graph: As it is in the bundle.
        lowering: Which it is, `portable` or `plugin`.
        precision: `fp16` to convert what is in FP32; any other leaves the graph as it is.
        max_batch: Largest batch.
        best_batch: The one to be quickest at.
        workspace_mb: Memory that a layer may use while it runs; `None` for all of the GPU's.
        capabilities: Of the GPUs to compile for, where the library can; none for all it supports.
        timing_cache: Where what was timed is kept for the next time.
    """

    target: str
    graph: bytes
    lowering: str
    precision: str
    max_batch: int
    best_batch: int
    workspace_mb: int | None
    capabilities: tuple[str, ...]
    timing_cache: Path


@dataclass(frozen=True)
class Compiled:
    """An engine and what it is for; see `Plan` for the fields of the same names."""

    engine: bytes
    library_version: str
    gpu: str
    capability: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    warnings: tuple[str, ...]


def compile_graph(request: CompileRequest) -> Compiled:
    """Compile a graph.

    Raises:
        MissingDependencyError: The library is not installed.
        InputError: It does not build for one of the capabilities.
        EngineError: It has no GPU to build on, or refuses the graph.
    """
    library = LIBRARIES[request.target]
    trt = library.load()
    gpu = find_gpu()
    if gpu is None and not library.ahead_of_time:
        raise EngineError(f"{library.name}: builds for the GPU it runs on, and found none: run this on the device")
    messages = Messages(trt)
    with _errors(library, messages):
        builder = trt.Builder(messages.logger)
        network = builder.create_network(network_flags(trt))
    if request.lowering == "plugin" and not hasattr(network, "add_plugin_v3"):
        raise EngineError(f"{library.name} {trt.__version__}: has no plugin layers")
    _parse(request, library, trt, network, messages)
    inputs = tuple(_spec(network.get_input(place)) for place in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(place)) for place in range(network.num_outputs))
    config = _configured(request, library, trt, builder, inputs)
    with _errors(library, messages), _timing_cache(request.timing_cache, library, config):
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineError(messages.reason())
    own, capability = _made_for(request, library, gpu)
    warnings = tuple(messages.warnings)
    return Compiled(bytes(engine), trt.__version__, own, capability, _platform(gpu), inputs, outputs, warnings)


def _parse(request: CompileRequest, library: Library, trt: Any, network: Any, messages: Messages) -> None:
    graph = prepared(request.graph, request.precision, library, trt, plugins=request.lowering == "plugin")
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse(graph) or parser.num_errors:
        raise EngineError(f"{library.name}: refuses the graph: {parser_errors(parser)}")


def _configured(
    request: CompileRequest, library: Library, trt: Any, builder: Any, inputs: tuple[TensorSpec, ...]
) -> Any:
    """Return how to build: precision, memory, GPUs, and the batches that the inputs come in."""
    config = builder.create_builder_config()
    if request.precision == "fp32":
        # TF32 keeps 10 bits of a product's factors: too few for the 1e-4 that FP32 is held to.
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb * _MB)
    if request.capabilities:
        wanted = compute_capabilities(trt, request.capabilities)
        config.num_compute_capabilities = len(wanted)
        for place, capability in enumerate(wanted):
            config.set_compute_capability(capability, place)
    profile = builder.create_optimization_profile()
    for spec in inputs:
        if None in spec.shape[1:]:
            raise EngineError(f"{library.name}: {spec.name} is {spec.sizes}: only the first size may be any")
        batches = (1, request.best_batch, request.max_batch)
        profile.set_shape(spec.name, *([batch if size is None else size for size in spec.shape] for batch in batches))
    config.add_optimization_profile(profile)
    return config


def _made_for(request: CompileRequest, library: Library, gpu: Gpu | None) -> tuple[str, str]:
    """Return the name and the capabilities of the GPUs that the engine fits, empty where it fits any."""
    if library.ahead_of_time or gpu is None:
        return "", ",".join(request.capabilities)
    return gpu.name, gpu.capability


def _platform(gpu: Gpu | None) -> str:
    """Return the driver's CUDA and a Jetson's release, for people."""
    parts = [] if gpu is None else [f"CUDA {gpu.cuda}"]
    release = jetson_release()
    return ", ".join([*parts, f"Jetson {release}"] if release else parts)


def _spec(tensor: Any) -> TensorSpec:
    kind = tensor.dtype.name
    if kind not in _DTYPES:
        raise EngineError(f"{tensor.name} is {kind}, expected one of {', '.join(_DTYPES)}")
    return TensorSpec(tensor.name, _DTYPES[kind], tuple(None if size < 0 else size for size in tensor.shape))


@contextlib.contextmanager
def _timing_cache(file: Path, library: Library, config: Any) -> Iterator[None]:
    """Build with what was timed before, and keep what was timed now. A library that times nothing has no use for it."""
    if library.ahead_of_time:
        yield
        return
    known = file.read_bytes() if file.is_file() else b""
    # One of another version or GPU is refused, and one that is damaged: then there is nothing known.
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    # Failing to keep it costs minutes the next time, and nothing now.
    with contextlib.suppress(OSError, InputError), replacing(file) as part:
        part.write_bytes(config.get_timing_cache().serialize())


@contextlib.contextmanager
def _errors(library: Library, messages: Messages) -> Iterator[None]:
    """Raise what a library raises, with what it logged, as our error of one line."""
    try:
        yield
    except Exception as error:  # pybind11 gives TypeError for a builder that is null, RuntimeError for most
        reason = str(error) if isinstance(error, EngineError) else "; ".join([*messages.errors, one_line(str(error))])
        raise EngineError(f"{library.name}: does not build the graph: {reason}") from error
