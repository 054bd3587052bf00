"""The few calls of the CUDA driver that kernels need, in whatever context is current.

PyCUDA cannot serve here: it starts kernels only on streams and in contexts that it made itself, and a plugin runs on
TensorRT's stream in TensorRT's context.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from typing import Any

from edgeser.export_tools.plugins.launches import Argument, Launch
from edgeser.runtime.errors import EngineError

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _MULTIPROCESSORS = 75, 76, 16  # CUdevice_attribute


class Driver:
    """libcuda.

    Args:
        library: The library, or what stands in for it.

    Raises:
        EngineError: The driver cannot be initialised: there is no GPU.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            EngineError: It failed; the message has CUDA's name of the error.
        """
        status = getattr(self.library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(status, ctypes.byref(text))
            raise EngineError(f"{name}: failed with {(text.value or b'').decode() or status}")

    def context(self) -> int:
        """Return the handle of the current context.

        Raises:
            EngineError: No context is current in this thread.
        """
        handle = ctypes.c_void_p()
        self.call("cuCtxGetCurrent", ctypes.byref(handle))
        if not handle.value:
            raise EngineError("CUDA: no context is current in this thread, expected TensorRT's or PyTorch's")
        return handle.value

    def attribute(self, attribute: int) -> int:
        """Return an attribute of the current context's device."""
        device, value = ctypes.c_int(), ctypes.c_int()
        self.call("cuCtxGetDevice", ctypes.byref(device))
        self.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    @property
    def arch(self) -> str:
        """The current device's architecture, for example `sm_87`."""
        return f"sm_{self.attribute(_COMPUTE_CAPABILITY_MAJOR)}{self.attribute(_COMPUTE_CAPABILITY_MINOR)}"

    @property
    def processors(self) -> int:
        """How many multiprocessors the current device has."""
        return self.attribute(_MULTIPROCESSORS)

    def load(self, code: bytes) -> ctypes.c_void_p:
        """Load machine code into the current context; return its module."""
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), code)
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        """Return a kernel of a module."""
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(self, function: ctypes.c_void_p, launch: Launch, stream: int) -> None:
        """Start a kernel on a stream, given by its handle; return before it is done."""
        cells, pointers = packed(launch.arguments)
        handle = ctypes.c_void_p(stream)
        self.call("cuLaunchKernel", function, *launch.grid, launch.threads, 1, 1, 0, handle, pointers, None)
        del cells  # they live until the driver has copied them


def packed(arguments: Iterable[Argument]) -> tuple[list[Any], Any]:
    """Return arguments as C has them, and the array of their addresses."""
    cells = [ctypes.create_string_buffer(argument.tobytes(), argument.nbytes) for argument in arguments]
    return cells, (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))


@functools.cache
def driver() -> Driver:
    """Return the CUDA driver of this machine.

    Raises:
        EngineError: There is none, or no GPU.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(f"CUDA: {error}: install NVIDIA's driver, or JetPack on a Jetson") from error
    return Driver(library)
