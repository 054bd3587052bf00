"""TensorRT and TensorRT-RTX: run the plan that `edgeser build` made of a graph on this device."""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime import plans
from edgeser.runtime.engines.base import Arrays, Engine
from edgeser.runtime.engines.cuda import Buffer, GpuContext
from edgeser.runtime.errors import EngineError, MissingDependencyError

log = logging.getLogger(__name__)


class TensorRtEngine(Engine):
    """Runs a graph's plan on the GPU: one stream, buffers that are pinned and allocated once, no allocation per call.

    The plan is looked for in the user's cache by the graph; building one takes minutes and is never done here. A batch
    above the plan's largest runs in parts.

    Args:
        graph: A serialised ONNX model, the portable lowering; it finds the plan, and is not parsed.
        threads: Not used: the GPU has its own.

    Raises:
        MissingDependencyError: TensorRT or pycuda is not installed.
        BundleError: There is no plan for the graph, or it is damaged.
        EngineError: The plan is stale or of another GPU, there is no GPU, or TensorRT refuses the plan.
    """

    name: ClassVar[str] = "tensorrt"
    library: ClassVar[str] = "tensorrt"

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        trt = import_library(self.library)
        plan, content = plans.read_plan(plans.plan_path(graph, self.library))
        self._open(trt, plan, content, graph)

    @classmethod
    def of_plan(cls, plan: plans.Plan, content: bytes, graph: bytes) -> TensorRtEngine:
        """Open a plan that is not in the cache yet, to check it.

        Args:
            plan: What it is.
            content: TensorRT's bytes.
            graph: The portable graph that it was built for.

        Raises:
            MissingDependencyError: As for the class; and what else it raises.
        """
        engine = cls.__new__(cls)
        engine._open(import_library(cls.library), plan, content, graph)
        return engine

    def _open(self, trt: ModuleType, plan: plans.Plan, content: bytes, graph: bytes) -> None:
        super().__init__()
        self.plan, self.precision = plan, plan.precision
        self._gpu = GpuContext()
        self._buffers: dict[str, Buffer] = {}
        try:
            why = plan.unusable(trt.__version__, self._gpu.name, self._gpu.capability, graph)
            if why:
                raise EngineError(why)
            with self._gpu.current():
                self._load(trt, content)
        except BaseException:
            self._close()
            raise

    def _load(self, trt: ModuleType, content: bytes) -> None:
        if self.plan.plugins:
            # The one place where the device needs export_tools: a plan with Python plugins is not whole without them.
            from edgeser.export_tools.plugins import register

            register(trt)
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise EngineError(f"{self.name}: refuses the plan: {self._logger.last}: run `edgeser build` again")
        self._context = _context(trt, self._engine)
        if self._context is None:
            raise EngineError(f"{self.name}: no room to run the plan: {self._logger.last}")
        self._stream = self._gpu.stream()
        self.inputs, self.outputs = self.plan.inputs, self.plan.outputs
        self._allocate(trt)

    def _allocate(self, trt: ModuleType) -> None:
        """Make room for the largest shapes, which the engine itself knows."""
        for spec in self.inputs:
            largest = tuple(self._engine.get_tensor_profile_shape(spec.name, 0)[2])
            self._bind(trt, spec.name, largest)
            self._context.set_input_shape(spec.name, largest)
        for spec in self.outputs:
            self._bind(trt, spec.name, tuple(self._context.get_tensor_shape(spec.name)))

    def _bind(self, trt: ModuleType, name: str, largest: tuple[int, ...]) -> None:
        buffer = Buffer(self._gpu, int(np.prod(largest)), trt.nptype(self._engine.get_tensor_dtype(name)))
        self._buffers[name] = buffer
        self._context.set_tensor_address(name, buffer.address)

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        count, most = feeds[self.inputs[0].name].shape[0], self.plan.max_batch
        with self._gpu.current():
            parts = [
                self._infer({name: value[i : i + most] for name, value in feeds.items()}) for i in range(0, count, most)
            ]
        if len(parts) == 1:
            return parts[0]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def _infer(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        for name, value in feeds.items():
            if not self._context.set_input_shape(name, value.shape):
                raise EngineError(f"{self.name}: {name}: got {value.shape}: {self._logger.last}")
            self._buffers[name].send(value, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"{self.name}: failed while running: {self._logger.last}")
        views = {
            spec.name: self._buffers[spec.name].fetch(tuple(self._context.get_tensor_shape(spec.name)), self._stream)
            for spec in self.outputs
        }
        self._stream.synchronize()
        return {name: view.copy() for name, view in views.items()}  # the next call overwrites the views

    def _close(self) -> None:
        with self._gpu.current():
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers = {}
            for part in ("_context", "_engine", "_runtime", "_stream"):  # in this order
                self.__dict__.pop(part, None)
        self._gpu.close()


class TensorRtRtxEngine(TensorRtEngine):
    """The same with TensorRT-RTX, for desktops with an RTX GPU."""

    name = "tensorrt-rtx"
    library = "tensorrt_rtx"


def import_library(library: str) -> ModuleType:
    """Import `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingDependencyError: It is not installed.
        EngineError: It is installed and does not start.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        extra = "rtx" if library == "tensorrt_rtx" else "jetson"
        raise MissingDependencyError(library, extra, f"engine {library.replace('_', '-')}") from error
    except Exception as error:  # its native libraries are looked for on import, and fail in many ways
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise EngineError(f"{library}: is installed but does not start: {line}: install it again") from error


def _context(trt: ModuleType, engine: Any) -> Any:
    """Return an execution context; with TensorRT-RTX one that records its kernels as a CUDA graph and replays it."""
    if not hasattr(trt, "CudaGraphStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _logger(trt: ModuleType) -> Any:
    """Return a logger that passes TensorRT's lines on, and remembers the last one that says why something failed."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last = message
                log.debug("%s", message)  # the error that follows says it

    return Logger()
