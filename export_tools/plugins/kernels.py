"""Kernels at work: compiled at first use, loaded once per context, started on the caller's stream."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Mapping

from edgeser.export_tools.plugins.compiler import compiled
from edgeser.export_tools.plugins.driver import Driver, driver
from edgeser.export_tools.plugins.launches import Launch


class Kernels:
    """The kernels of one source.

    Args:
        name: Of the source, without `.cu`.
        macros: Preprocessor macros that it is compiled with.
        cuda: The CUDA driver; by default this machine's, opened at first use.
    """

    def __init__(self, name: str, macros: Mapping[str, int] | None = None, cuda: Driver | None = None) -> None:
        self.name = name
        self.macros = dict(macros or {})
        self._cuda = cuda
        self._modules: dict[int, ctypes.c_void_p] = {}
        self._functions: dict[tuple[int, str], ctypes.c_void_p] = {}
        self._lock = threading.Lock()

    @property
    def cuda(self) -> Driver:
        """The CUDA driver."""
        if self._cuda is None:
            self._cuda = driver()
        return self._cuda

    def prepare(self) -> None:
        """Compile, if need be, and load for the current context: takes seconds at the very first time.

        Raises:
            EngineError: There is no GPU, no compiler, or no current context.
        """
        self._module(self.cuda.context())

    def run(self, launches: Iterable[Launch], stream: int) -> None:
        """Start kernels, one after another, on a stream of the current context; return before they are done.

        Raises:
            EngineError: There is no compiler, or the driver refuses a kernel.
        """
        context = self.cuda.context()
        for launch in launches:
            self.cuda.launch(self._function(context, launch.kernel), launch, stream)

    def _module(self, context: int) -> ctypes.c_void_p:
        with self._lock:
            if context not in self._modules:
                self._modules[context] = self.cuda.load(compiled(self.name, self.cuda.arch, self.macros))
            return self._modules[context]

    def _function(self, context: int, kernel: str) -> ctypes.c_void_p:
        key = (context, kernel)
        if key not in self._functions:
            self._functions[key] = self.cuda.function(self._module(context), kernel)
        return self._functions[key]
