"""ONNX Runtime: the engine that runs everywhere."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from edgeser.runtime.engines.base import Arrays, Engine, TensorSpec
from edgeser.runtime.errors import EngineError, InputError

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int32)": "int32"}


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX graph on the CPU. Threads, memory arena and graph optimisation are set here and nowhere else.

    Args:
        graph: A serialised ONNX model.
        threads: Threads inside an operator.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """

    name = "onnxruntime"

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        super().__init__()
        if threads < 1:
            raise InputError(f"threads: got {threads}, expected at least 1")
        # Importing 1.29 or later writes a device id to the home directory and sends events to Microsoft, unless:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_cpu_mem_arena = True
        # Spinning threads win microseconds and keep a core at 100 % between utterances: not on a robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # x86 without VNNI adds two products of U8 and S8 in 16 bits, which overflow, unless told to be exact: rows of
        # the default bundle's encoders were 5 and 9 % of their standard deviation off there, and are 0.1 % off so.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise EngineError(f"onnxruntime: refuses the graph: {str(error).splitlines()[0]}") from error
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:
            raise EngineError(f"onnxruntime: failed while running: {str(error).splitlines()[0]}") from error
        return {spec.name: result for spec, result in zip(self.outputs, results, strict=True)}

    def _close(self) -> None:
        del self._session


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    if value.type not in _DTYPES:
        raise EngineError(f"onnxruntime: {value.name} is {value.type}, expected one of {', '.join(_DTYPES)}")
    return TensorSpec(value.name, _DTYPES[value.type], shape)
