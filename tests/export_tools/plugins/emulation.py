"""The kernels' own source on the CPU: compiled by g++ against `cuda_shim.h`, called through ctypes."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.export_tools.plugins.compiler import SOURCES
from edgeser.export_tools.plugins.driver import packed
from edgeser.export_tools.plugins.launches import Launch

GUARD_BYTES = 256
ORDERS = ("in turn", "reversed", "warp by warp")  # of cuda_shim.h


class Emulation:
    """Kernels of one source.

    Args:
        library: What `build` made.
    """

    processors = 1

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    def run(self, launches: Iterable[Launch], stream: int = 0, order: str = "in turn") -> None:
        """Run kernels one after another, the threads of a block in one of `ORDERS`."""
        for launch in launches:
            cells, pointers = packed(launch.arguments)
            grid = (ctypes.c_int * 3)(*launch.grid)
            kernel = getattr(self.library, f"emulate_{launch.kernel}")
            kernel(grid, ctypes.c_int(launch.threads), ctypes.c_int(ORDERS.index(order)), pointers)
            del cells


def missing() -> str:
    """Why there can be no emulation here, or nothing."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return "" if platform.machine() in ("x86_64", "aarch64") else f"_Float16 on {platform.machine()}"


def build(name: str, folder: Path, **macros: int) -> Emulation:
    """Compile a source for the CPU."""
    target = folder / ("-".join([name, *(f"{macro}{value}" for macro, value in macros.items())]) + ".so")
    if not target.exists():
        options = [f"-D{macro}={value}" for macro, value in macros.items()]
        command = [
            "g++",
            "-std=c++20",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-shared",
            "-fPIC",
        ]
        # Kernels of another HEAD_DIM, in another library, have static arrays of the same name and another size.
        command += ["-fno-gnu-unique", "-Wl,-Bsymbolic"]
        if platform.machine() == "x86_64":
            command.append("-mf16c")  # every x86-64 since 2013; without it each half is converted in software
        source = Path(__file__).with_name(f"emulated_{name}.cpp")
        subprocess.run([*command, *options, f"-I{SOURCES}", "-o", str(target), str(source)], check=True)
    return Emulation(target)


class Memory:
    """Arrays between guards of NaN bytes, as a GPU's memory: who reads past an end gets NaN, who writes is caught."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of an array."""
        room = self.empty(array.shape, array.dtype)
        room[...] = array
        return room

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of NaN, or of -1, that starts at a multiple of 256 bytes, as a GPU's memory does."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = np.full(size + 3 * GUARD_BYTES, 0xFF, np.uint8)
        start = GUARD_BYTES + -block.ctypes.data % GUARD_BYTES
        block = block[start - GUARD_BYTES : start + size + GUARD_BYTES]
        self._blocks.append(block)
        return block[GUARD_BYTES:-GUARD_BYTES].view(dtype).reshape(shape)

    def check(self) -> None:
        """Fail when a guard was written to."""
        for block in self._blocks:
            assert (block[:GUARD_BYTES] == 0xFF).all(), "written before an array"
            assert (block[-GUARD_BYTES:] == 0xFF).all(), "written past an array"
