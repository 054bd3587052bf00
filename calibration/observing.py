"""An engine that watches activations while it runs, and keeps histograms of them, never the activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeser.calibration.histogram import Histogram
from edgeser.calibration.rows import RowSample
from edgeser.runtime.engines import Arrays, OnnxRuntimeEngine
from edgeser.runtime.errors import InputError


class ObservingEngine(OnnxRuntimeEngine):
    """Runs a graph in ONNX Runtime as it is, and counts what some of its tensors hold on the way.

    The Runtime's own frontends and path run on it unchanged, so calibration sees what a device computes.

    Args:
        proto: The graph.
        tensors: Names of the tensors to watch.
        channels: The axis of the channels, for tensors of which rows are wanted.

    Attributes:
        histograms: By tensor.
        rows: What a few places hold in all channels, for the tensors in `channels`.
    """

    def __init__(
        self, proto: onnx.ModelProto, tensors: Sequence[str], channels: Mapping[str, int] | None = None
    ) -> None:
        self.histograms = {name: Histogram() for name in tensors}
        self.rows = {name: RowSample(axis) for name, axis in (channels or {}).items()}
        self._taken = {value.name for value in proto.graph.output}
        watched = onnx.ModelProto()
        watched.CopyFrom(proto)
        inputs = {value.name for value in proto.graph.input}
        self._from_inputs = [name for name in tensors if name in inputs]
        for name in tensors:
            if name not in inputs | self._taken:
                kind = onnx.TensorProto.FLOAT
                watched.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        super().__init__(watched.SerializeToString())
        self._all_outputs = self.outputs
        self.outputs = tuple(spec for spec in self.outputs if spec.name in self._taken)

    def _run(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        kept, self.outputs = self.outputs, self._all_outputs
        try:
            results = super()._run(feeds)
        finally:
            self.outputs = kept
        for name, histogram in self.histograms.items():
            values = feeds[name] if name in self._from_inputs else results[name]
            try:
                histogram.add(values)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
            if name in self.rows:
                self.rows[name].add(values)
        return {spec.name: results[spec.name] for spec in kept}
