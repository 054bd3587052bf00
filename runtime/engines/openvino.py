"""OpenVINO: the quicker engine on CPUs, where it is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.cpu import integers_are_exact
from edgeser.runtime.engines.base import Arrays, Engine, TensorSpec
from edgeser.runtime.errors import EngineError, InputError, MissingDependencyError
from edgeser.runtime.onnx_wire import check_graph

_DTYPES = {"f32": "float32", "f16": "float16", "i32": "int32"}
_TELEMETRY = "openvino_telemetry"
_STARTING = threading.RLock()
_MOST_SIZES = 64
_Sizes = tuple[tuple[int | None, ...], ...]


class OpenVinoEngine(Engine):
    """Runs an ONNX graph on the CPU with OpenVINO.

    A graph whose inputs and outputs all have a symbolic batch is compiled for one utterance, and a batch runs as that
    many: sizes that are known while it compiles are worth more than a batch is. The default bundle's model took 4.8 ms
    so and 7.8 ms with a symbolic batch, for eight utterances 39.5 ms and 42.2 ms, and no batch size costs the 4 ms that
    a first run at another size takes.

    Other sizes that may be any, such as the rows of a window, stay open. Fixed ones would be up to a tenth quicker, but
    take a compilation and the graph's weights once more for each that comes.

    Args:
        graph: A serialised ONNX model.
        threads: Threads inside an operator.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        EngineError: OpenVINO does not start, or refuses the graph.
    """

    name = "openvino"

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        super().__init__()
        if threads < 1:
            raise InputError(f"threads: got {threads}, expected at least 1")
        openvino = _import()
        with _errors("refuses the graph"):
            check_graph(graph)  # tensors in other files it would take from the working directory, whatever lies there
            self._model = self._read(openvino, graph)
            self._threads = threads
            self._request = self._compile()
            self._known: set[_Sizes] = set()
            if sum(None in spec.shape[1:] for spec in self.inputs) < 2:
                self._model = None  # no sizes of it that may not go together

    def _read(self, openvino: Any, graph: bytes) -> Any:
        """Return OpenVINO's form of the graph; what it takes and gives, as the graph itself says, is noted here."""
        # The ONNX reader by name: `read_model` shows what it gets to all its readers, some of which print complaints.
        reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
        parsed = reader.load(io.BytesIO(graph))
        model = reader.convert(parsed)
        given, taken = parsed.get_outputs(), parsed.get_inputs()
        if not given or len(given) != len(model.outputs):
            raise EngineError(f"openvino: refuses the graph: reads {len(model.outputs)} of its {len(given)} outputs")
        self.inputs = tuple(_spec(parsed, place, parsed.get_element_type(place)) for place in taken)
        self.outputs = tuple(
            _spec(parsed, place, port.element_type) for place, port in zip(given, model.outputs, strict=True)
        )
        # OpenVINO drops inputs that nothing uses. The graph has them, so the engine takes them, and leaves them out.
        self._used = {name for port in model.inputs for name in port.get_names()} & {s.name for s in self.inputs}
        self._singly = all(spec.shape[:1] == (None,) for spec in (*self.inputs, *self.outputs))
        self._is_open = any(None in spec.shape[1:] for spec in self.inputs)
        return model

    def _compile(self) -> Any:
        """Return what runs the graph."""
        model = self._model.clone() if self._is_open else self._model
        if self._singly or self._is_open:
            self._resize(model, tuple(spec.shape for spec in self.inputs))
        with _STARTING:  # two threads may open the first engines at once
            core = _core()
        return core.compile_model(model, "CPU", _options(self._threads)).create_infer_request()

    def _resize(self, model: Any, sizes: _Sizes) -> None:
        """Give the inputs of a model these sizes; `None` stays open."""
        by_name = dict(zip((spec.name for spec in self.inputs), sizes, strict=True))
        fixed = {}
        for port in model.inputs:
            size = by_name[next(iter(port.get_names() & by_name.keys()))]
            open_or_known = [-1 if one is None else one for one in size]
            fixed[port] = [1, *open_or_known[1:]] if self._singly and size else open_or_known
        model.reshape(fixed)

    def _check_sizes(self, feeds: Arrays) -> None:
        """Raise where sizes that are open in the graph do not go together.

        Where they are open while it compiles, 2026.4 multiplies matrices that do not fit each other, without a word.
        """
        sizes = tuple(feeds[spec.name].shape for spec in self.inputs)
        if self._model is not None and sizes not in self._known:
            self._resize(self._model.clone(), sizes)
            if len(self._known) == _MOST_SIZES:
                self._known.clear()
            self._known.add(sizes)

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        if not self._singly:
            return self._infer(feeds)
        count = feeds[self.inputs[0].name].shape[0]
        if count == 1:
            return self._infer(feeds)
        parts = [self._infer({name: value[i : i + 1] for name, value in feeds.items()}) for i in range(count)]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def _infer(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        given = {name: value for name, value in feeds.items() if name in self._used}
        with _errors("failed while running"):
            self._check_sizes(feeds)
            request = self._request
            # Not `infer`: where that fails on one thread, 2026.4 says nothing and gives the answer before, or crashes.
            # Sharing inputs saves a copy of 2 MB, 0.9 ms of 4.8.
            request.start_async(given, share_inputs=True)
            request.wait()
            # Copied: they are views of what the next call overwrites.
            arrays = [request.get_output_tensor(place).data.copy() for place in range(len(self.outputs))]
        return dict(zip((spec.name for spec in self.outputs), arrays, strict=True))

    def _close(self) -> None:
        self._request = self._model = None


def _options(threads: int) -> dict[str, str]:
    """Return the CPU's settings, as text, which every version reads."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Pinned threads would sit on cores that a robot's other work is on.
        "ENABLE_CPU_PINNING": "NO",
        # What the graph says, and nothing less exact. Left alone, OpenVINO computes in bfloat16 on x86 that has it, and
        # in half precision on ARM. (Where bfloat16 is emulated the default bundle's model takes 67 ms instead of 5.)
        "INFERENCE_PRECISION_HINT": "f32",
        # Left alone, it rounds the inputs of products with 8-bit weights to 8 bits: rows of the default bundle's text
        # encoder were 1.2 % of their standard deviation off, and are 1e-6 off without.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    # Rounded as the graph says, but multiplied in single precision: in integers, rows of the default bundle's speech
    # encoder were 35 % of their standard deviation off, and are 1.6 % off so.
    return settings if integers_are_exact() else {**settings, "LP_TRANSFORMS_MODE": "NO"}


@functools.cache
def _core() -> Any:
    """Return the one Core of this process, which is never given up.

    A Core gives the thread that makes it a stack for signals, in memory that goes with the Core. When a second one
    outlives the first, or another thread gives it up, that thread is left with a stack that is no longer there, and the
    next Ctrl-C ends the process (2026.4, on x86).
    """
    return _import().Core()


def _import() -> Any:
    """Import OpenVINO without its telemetry, which on import writes to the home directory and calls home."""
    with _STARTING:
        hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # its import fails, which OpenVINO allows for
        try:
            return importlib.import_module("openvino")
        except ModuleNotFoundError as error:
            if error.name == "openvino":
                raise MissingDependencyError("openvino", "openvino", "engine openvino") from error
            raise _broken(error) from error
        except Exception as error:  # a library of the wrong kind, or built against another NumPy: any type
            raise _broken(error) from error
        finally:
            if hidden:
                sys.modules.pop(_TELEMETRY, None)


def _broken(error: Exception) -> EngineError:
    return EngineError(f"openvino: is installed but does not start: {_line(error)}: install it again, or remove it")


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise OpenVINO's errors as ours, of one line."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # they come as RuntimeError, TypeError and ValueError
        raise EngineError(f"openvino: {what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return the line that says most: the last one that is not blank; those before it name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _spec(parsed: Any, place: Any, dtype: Any) -> TensorSpec:
    (name, *_), shape = place.get_names(), parsed.get_partial_shape(place)
    kind = dtype.get_type_name()
    if kind not in _DTYPES:
        raise EngineError(f"openvino: {name} is {kind}, expected one of {', '.join(_DTYPES)}")
    if shape.rank.is_dynamic:
        raise EngineError(f"openvino: {name} has no fixed number of dimensions")
    return TensorSpec(name, _DTYPES[kind], tuple(None if size.is_dynamic else size.get_length() for size in shape))
