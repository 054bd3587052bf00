"""Engines: what executes a bundle's graph."""

from __future__ import annotations

from collections.abc import Mapping

from edgeser.runtime.engines.base import Arrays, Engine, TensorSpec
from edgeser.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from edgeser.runtime.errors import InputError

ENGINES: Mapping[str, type[OnnxRuntimeEngine]] = {OnnxRuntimeEngine.name: OnnxRuntimeEngine}

__all__ = ["ENGINES", "Arrays", "Engine", "OnnxRuntimeEngine", "TensorSpec", "open_engine"]


def open_engine(graph: bytes, engine: str = "auto", threads: int = 1) -> Engine:
    """Open a graph with the named engine; `auto` takes the best one this device has.

    Raises:
        InputError: No such engine.
        EngineError: The engine refuses the graph.
    """
    name = OnnxRuntimeEngine.name if engine == "auto" else engine
    if name not in ENGINES:
        raise InputError(f"engine: got {engine!r}, expected auto or {', '.join(ENGINES)}")
    return ENGINES[name](graph, threads)
