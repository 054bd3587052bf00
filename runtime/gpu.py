"""The GPU of this device, asked of the CUDA driver itself: no library beside it is needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA sees.

    Attributes:
        name: Its name.
        capability: Its compute capability, for example `8.7`.
        cuda: The newest CUDA that its driver knows, for example `12.6`.
        memory_mb: Its memory, which on a Jetson is everyone's.
    """

    name: str
    capability: str
    cuda: str
    memory_mb: int


def find_gpu() -> Gpu | None:
    """Return the GPU; `None` where there is none, or no driver."""
    try:
        cuda = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    failed = (  # in order: the first that is not 0 ends it
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        or cuda.cuDriverGetVersion(ctypes.byref(version))
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    )
    if failed:
        return None
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{major.value}.{minor.value}",
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory_mb=memory.value >> 20,
    )
