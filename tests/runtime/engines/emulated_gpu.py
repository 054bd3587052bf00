"""A GPU that is none: as much of pycuda and of TensorRT as the engine uses, with ONNX Runtime as its processor.

It shows what a machine without a GPU can show of the engine: that every call is made in a context and given one back,
that nothing is read before the stream has got there, and that nothing is left allocated. Work is queued, and done when
the stream is waited for. What only a GPU can show has the marker `gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.engines import OnnxRuntimeEngine

NAME, CAPABILITY, VERSION = "Emulated", (8, 7), "10.3.0"
_ORIGIN = 1 << 40


class Machine:
    """What the emulated device holds, and who uses it."""

    def __init__(self) -> None:
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned = 0
        self.contexts: list[str] = []
        self.retained = 0
        self.next_address = _ORIGIN

    def used(self) -> None:
        assert self.contexts[-1:] == ["primary"], "a call without this GPU's context"


def pycuda_driver(machine: Machine) -> ModuleType:
    """Return a module that does as `pycuda.driver`."""
    driver = ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class Context:
        def push(self) -> None:
            machine.contexts.append("primary")

        @staticmethod
        def pop() -> None:
            machine.contexts.pop()

        def detach(self) -> None:
            machine.retained -= 1

    class Device:
        def __init__(self, number: int) -> None:
            if number != 0:
                raise Error("invalid device ordinal")

        def retain_primary_context(self) -> Context:
            machine.retained += 1
            return Context()

        def name(self) -> str:
            return NAME

        def compute_capability(self) -> tuple[int, int]:
            return CAPABILITY

    class Stream:
        def __init__(self) -> None:
            machine.used()
            self.queue: list[Callable[[], None]] = []
            self.handle = self

        def synchronize(self) -> None:
            machine.used()
            for work in self.queue:
                work()
            self.queue.clear()

    class Allocation(int):
        def free(self) -> None:
            machine.used()
            del machine.memory[int(self)]

    class Pinned:
        def __init__(self, size: int, dtype: Any) -> None:
            self.room = np.empty(size, dtype)
            self.__array_interface__ = self.room.__array_interface__

        def free(self) -> None:
            machine.used()
            machine.pinned -= 1

    def mem_alloc(size: int) -> Allocation:
        machine.used()
        address = Allocation(machine.next_address)
        machine.next_address += 1 << 30
        machine.memory[int(address)] = np.full(size, 0xAB, np.uint8)
        return address

    def pagelocked_empty(size: int, dtype: Any) -> NDArray[Any]:
        machine.used()
        machine.pinned += 1
        return np.asarray(Pinned(size, dtype))

    def memcpy_htod_async(address: int, source: NDArray[Any], stream: Stream) -> None:
        machine.used()

        def copy() -> None:
            machine.memory[address][: source.nbytes] = source.view(np.uint8)

        stream.queue.append(copy)

    def memcpy_dtoh_async(target: NDArray[Any], address: int, stream: Stream) -> None:
        machine.used()

        def copy() -> None:
            target.view(np.uint8)[:] = machine.memory[address][: target.nbytes]

        stream.queue.append(copy)

    contents = {
        "Error": Error,
        "Context": Context,
        "Device": Device,
        "Stream": Stream,
        "init": lambda: None,
        "get_driver_version": lambda: 12060,
        "mem_alloc": mem_alloc,
        "pagelocked_empty": pagelocked_empty,
        "memcpy_htod_async": memcpy_htod_async,
        "memcpy_dtoh_async": memcpy_dtoh_async,
    }
    vars(driver).update(contents)
    return driver


def tensorrt(machine: Machine, max_batch: int) -> ModuleType:
    """Return a module that does as `tensorrt`; what it deserializes is an ONNX graph."""
    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)  # as `find_spec` wants it

    class ILogger:
        INTERNAL_ERROR, ERROR = "INTERNAL_ERROR", "ERROR"

    class ExecutionContext:
        def __init__(self, engine: CudaEngine) -> None:
            self.engine = engine
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}

        def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
            largest = self.engine.get_tensor_profile_shape(name, 0)[2]
            if any(got > most for got, most in zip(shape, largest, strict=True)):
                self.engine.logger.log(ILogger.ERROR, f"{name}: {shape} exceeds {largest}")
                return False
            self.shapes[name] = tuple(shape)
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            (batch,) = {shape[0] for shape in self.shapes.values()}
            spec = next(spec for spec in self.engine.model.outputs if spec.name == name)
            return tuple(batch if size is None else size for size in spec.shape)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: Any) -> bool:
            machine.used()
            shapes = dict(self.shapes)

            def execute() -> None:
                feeds = {}
                for spec in self.engine.model.inputs:
                    count = int(np.prod(shapes[spec.name])) * np.dtype(spec.dtype).itemsize
                    raw = machine.memory[self.addresses[spec.name]][:count]
                    feeds[spec.name] = raw.view(spec.dtype).reshape(shapes[spec.name]).copy()
                for name, value in self.engine.model.run(feeds).items():
                    machine.memory[self.addresses[name]][: value.nbytes] = (
                        np.ascontiguousarray(value).view(np.uint8).reshape(-1)
                    )

            stream.queue.append(execute)
            return True

    class CudaEngine:
        def __init__(self, content: bytes, logger: Any) -> None:
            self.model = OnnxRuntimeEngine(content)
            self.logger = logger

        def create_execution_context(self) -> ExecutionContext:
            return ExecutionContext(self)

        def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
            spec = next(spec for spec in self.model.inputs if spec.name == name)
            return tuple(
                tuple(batch if size is None else size for size in spec.shape) for batch in (1, max_batch, max_batch)
            )

        def get_tensor_dtype(self, name: str) -> str:
            return next(spec.dtype for spec in (*self.model.inputs, *self.model.outputs) if spec.name == name)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, content: bytes) -> CudaEngine | None:
            machine.used()
            try:
                return CudaEngine(content, self.logger)
            except Exception as error:
                self.logger.log(ILogger.ERROR, f"magic tag does not match ({type(error).__name__})")
                return None

    vars(module).update({"ILogger": ILogger, "Runtime": Runtime, "nptype": np.dtype, "__version__": VERSION})
    return module
