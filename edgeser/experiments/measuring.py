"""What a model costs: parameters, the size of its exported graph, the engine's time on one thread."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.experiments.results import COSTS_FILE
from edgeser.experiments.spec import COSTS
from edgeser.models import InputSpec
from edgeser.runtime.engines import open_engine
from edgeser.runtime.files import write_text
from edgeser.runtime.frontends import PHONEMES
from edgeser.runtime.timing import device_name, side_by_side
from edgeser.training.trained import TrainedModel

_PARAMETERS, _SIZE, _TIME = COSTS
_CALLS = 60
_WARM_UP = 5


def measure_costs(folds: Sequence[Path], columns: Sequence[str]) -> None:
    """Measure the models of trained folds and write what was found beside each.

    The engines are called in turn, so that drift of the machine hits all alike.

    Args:
        folds: Folders of trained folds.
        columns: Some of `COSTS`.

    Raises:
        InputError: A folder holds no trained model.
    """
    found: dict[Path, dict[str, float]] = {}
    calls: dict[str, Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        for fold in folds:
            model = TrainedModel.load(fold).model
            found[fold] = {_PARAMETERS: model.parameter_count()}
            if _SIZE in columns or _TIME in columns:
                from edgeser.export_tools.lowering import lower  # needs the libraries of the export

                graph = lower(model).portable.SerializeToString()
                found[fold][_SIZE] = len(graph) / 1e6
            if _TIME in columns:
                engine = stack.enter_context(open_engine(graph, "onnxruntime", threads=1))
                calls[str(fold)] = partial(engine.run, _utterance(model.inputs))
        for name, latency in side_by_side(calls, _CALLS, _WARM_UP).items():
            found[Path(name)][_TIME] = latency.p50_ms
    for fold, costs in found.items():
        write_text(fold / COSTS_FILE, json.dumps({"device": device_name(), "costs": costs}, indent=2) + "\n")


def _utterance(inputs: Mapping[str, InputSpec]) -> dict[str, NDArray[Any]]:
    """Return one utterance that fills every row: noise, which changes no time, and known phonemes."""
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    for name, spec in inputs.items():
        shape = (1, spec.length, spec.dim)
        rows = rng.integers(1, len(PHONEMES) + 1, shape) if spec.frontend == "phonemes" else rng.standard_normal(shape)
        feeds[name] = rows.astype(np.float32)
        feeds[f"{name}_length"] = np.array([spec.length], dtype=np.int32)
    return feeds
