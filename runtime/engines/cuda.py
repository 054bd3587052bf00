"""The GPU through pycuda: one context for the process, and memory that is allocated once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeser.runtime.errors import EngineError, MissingDependencyError

_NODES = ("nvidiactl", "nvhost-ctrl-gpu", "nvgpu", "dxg")  # a PC, Jetsons, Windows' Linux


def gpu_present() -> bool:
    """Whether the kernel shows an NVIDIA GPU; costs nothing, and says nothing about its driver."""
    return any((Path("/dev") / node).exists() for node in _NODES)


class GpuContext:
    """A GPU and its primary context, the one that CUDA's runtime, TensorRT and a host application use too.

    A thread that works with it does so inside `current()`; the host application's own context is as it was after that.

    Args:
        number: CUDA's number of the GPU.

    Attributes:
        name: Its name.
        capability: Its compute capability, for example `8.7`.
        driver: `pycuda.driver`.
        driver_version: The newest CUDA that the driver knows, for example `12.6`.

    Raises:
        MissingDependencyError: pycuda is not installed.
        EngineError: There is no GPU, or no driver.
    """

    def __init__(self, number: int = 0) -> None:
        try:
            import pycuda.driver as cuda
        except ModuleNotFoundError as error:
            raise MissingDependencyError("pycuda", "jetson", "engine tensorrt") from error
        except ImportError as error:  # libcuda.so.1 comes with the driver
            raise EngineError(f"cuda: pycuda does not start, is there a driver? {error}") from error
        self.driver: Any = cuda
        try:
            cuda.init()
            device = cuda.Device(number)
            self._context = device.retain_primary_context()
            self.name = str(device.name())
            self.capability = ".".join(map(str, device.compute_capability()))
            version = cuda.get_driver_version()
        except cuda.Error as error:
            raise EngineError(f"cuda: no usable GPU {number}: {error}: `edgeser doctor` tells what is here") from error
        self.driver_version = f"{version // 1000}.{version % 1000 // 10}"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this GPU's context the calling thread's; CUDA's errors become ours."""
        self._context.push()
        try:
            yield
        except self.driver.Error as error:
            raise EngineError(f"cuda: {error}") from error
        finally:
            self.driver.Context.pop()

    def stream(self) -> Any:
        """Return a new stream."""
        return self.driver.Stream()

    def close(self) -> None:
        """Give the context back; it goes when nobody else holds it."""
        self._context.detach()


class Buffer:
    """Room for one tensor, pinned on the host and on the GPU. Used inside `GpuContext.current()`.

    Args:
        gpu: Where.
        size: Elements at most.
        dtype: Their type.

    Attributes:
        address: On the GPU.
    """

    def __init__(self, gpu: GpuContext, size: int, dtype: DTypeLike) -> None:
        self._driver = gpu.driver
        self._host: NDArray[Any] = self._driver.pagelocked_empty(max(1, size), dtype)
        self._pinned: Any = self._host.base
        self._device = self._driver.mem_alloc(max(1, self._host.nbytes))
        self.address = int(self._device)

    def send(self, array: NDArray[Any], stream: Any) -> None:
        """Copy an array here, and on to the GPU after what the stream does now."""
        place = self._host[: array.size]
        np.copyto(place.reshape(array.shape), array)
        self._driver.memcpy_htod_async(self.address, place, stream)

    def fetch(self, shape: tuple[int, ...], stream: Any) -> NDArray[Any]:
        """Copy back, after what the stream does now; return a view that is filled once the stream is done."""
        place = self._host[: int(np.prod(shape))]
        self._driver.memcpy_dtoh_async(place, self.address, stream)
        return place.reshape(shape)

    def free(self) -> None:
        """Free both."""
        self._device.free()
        self._pinned.free()
