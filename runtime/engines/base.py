"""What every engine is: a graph, opened once, that turns checked arrays into arrays."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.owner import OwnerProcess

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its type, for example `float32`.
        shape: Sizes; `None` where any size goes.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def sizes(self) -> str:
        """The shape as errors show it, for example `(N, 460, 80)`."""
        return f"({', '.join('N' if size is None else str(size) for size in self.shape)})"

    def check(self, array: NDArray[Any]) -> None:
        """Raise `InputError` when an array does not fit."""
        fits = len(array.shape) == len(self.shape) and all(
            want in (None, got) for got, want in zip(array.shape, self.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            raise InputError(f"{self.name}: got {array.dtype} {array.shape}, expected {self.dtype} {self.sizes}")


class Engine(ABC):
    """Runs one graph. Safe to call from several threads; calls run one at a time.

    Subclasses open the graph in `__init__`, fill `inputs` and `outputs`, and implement `_run` and `_close`.

    Attributes:
        name: As users choose it, for example `onnxruntime`.
        inputs: What the graph takes.
        outputs: What it gives.
        precision: What it computes in where the graph leaves that open, `fp32` or `fp16`.
    """

    name: ClassVar[str]
    precision: str = "fp32"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self) -> None:
        self._owner = OwnerProcess(self.name)
        _OPENED.add(self)
        self._lock = threading.Lock()
        self._closed = False

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            feeds: Every input by name, of the stated type and shape, one batch size for all.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            EngineError: The engine is closed, was opened before a fork, or failed.
        """
        self._owner.check()
        missing = sorted({spec.name for spec in self.inputs} ^ set(feeds))
        if missing:
            raise InputError(
                f"inputs: got {', '.join(feeds) or 'none'}, expected {', '.join(spec.name for spec in self.inputs)}"
            )
        for spec in self.inputs:
            spec.check(feeds[spec.name])
        batches = {feeds[spec.name].shape[0] for spec in self.inputs}
        if len(batches) != 1 or 0 in batches:
            raise InputError(f"inputs: got batch sizes {sorted(batches)}, expected one, above 0")
        with self._lock:
            if self._closed:
                raise EngineError(f"{self.name}: the engine is closed")
            outputs = self._run(feeds)
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise EngineError(
                    f"{self.name}: {name} holds NaN or infinity: this engine does not compute this model on this device"
                )
        return outputs

    def close(self) -> None:
        """Free what the engine holds; a second call does nothing, nor does one in a process that was forked."""
        if not self._owner.is_here:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    @abstractmethod
    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run on checked inputs."""

    @abstractmethod
    def _close(self) -> None:
        """Free what is held."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_OPENED: weakref.WeakSet[Engine] = weakref.WeakSet()


def _keep() -> None:
    """Keep a forked process from freeing its copies of engines, at its end too: that waits for threads it has not."""
    for engine in list(_OPENED):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


os.register_at_fork(after_in_child=_keep)
