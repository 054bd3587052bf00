"""Engines: what executes a bundle's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeser.runtime.engines.base import Arrays, Engine, TensorSpec
from edgeser.runtime.engines.cuda import gpu_present
from edgeser.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from edgeser.runtime.engines.openvino import OpenVinoEngine
from edgeser.runtime.engines.tensorrt import TensorRtEngine, TensorRtRtxEngine
from edgeser.runtime.errors import InputError
from edgeser.runtime.installed import is_installed

ENGINES: Mapping[str, Callable[[bytes, int], Engine]] = {
    OnnxRuntimeEngine.name: OnnxRuntimeEngine,
    OpenVinoEngine.name: OpenVinoEngine,
    TensorRtEngine.name: TensorRtEngine,
    TensorRtRtxEngine.name: TensorRtRtxEngine,
}
"""Opens a graph with a number of threads, by the engine's name."""
ON_GPU = (TensorRtEngine.name, TensorRtRtxEngine.name)
"""Engines that need a GPU, and a plan that was built before."""
_PREFERRED = (*ON_GPU, OpenVinoEngine.name)  # where they prove themselves: quicker than ONNX Runtime

__all__ = [
    "ENGINES",
    "ON_GPU",
    "Arrays",
    "Engine",
    "OnnxRuntimeEngine",
    "OpenVinoEngine",
    "TensorRtEngine",
    "TensorRtRtxEngine",
    "TensorSpec",
    "candidates",
    "open_engine",
]


def candidates(engine: str) -> tuple[str, ...]:
    """Return the engines to try, best first.

    Args:
        engine: A name, which is then the only one; or `auto` for those that are installed. Nothing is imported to find
            out, and ONNX Runtime, which EdgeSER requires, is always the last.

    Raises:
        InputError: No such engine.
    """
    if engine == "auto":
        return (*filter(_usable, _PREFERRED), OnnxRuntimeEngine.name)
    if engine not in ENGINES:
        raise InputError(f"engine: got {engine!r}, expected auto or {', '.join(ENGINES)}")
    return (engine,)


def open_engine(graph: bytes, engine: str = "auto", threads: int = 1) -> Engine:
    """Open a graph with the named engine.

    Without golden vectors nothing shows that another engine computes this graph rightly on this device, so `auto` is
    ONNX Runtime here; `Runtime.load`, which has a bundle's vectors, looks further.

    Raises:
        InputError: No such engine.
        MissingDependencyError: The engine is not installed.
        EngineError: The engine refuses the graph.
    """
    return ENGINES[candidates(engine)[-1]](graph, threads)


def _usable(engine: str) -> bool:
    """Whether an engine's library, of the same name, is there, and what it runs on."""
    return is_installed(engine.replace("-", "_")) and (engine not in ON_GPU or gpu_present())
