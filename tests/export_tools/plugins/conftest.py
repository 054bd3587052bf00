"""The kernels on the CPU, and what they are compared with: test folders are no packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path(__file__).parent


def _load(name: str) -> ModuleType:
    full_name = f"edgeser_plugin_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full_name])
    return sys.modules[full_name]


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The papers' equations in NumPy."""
    return _load("reference")


@pytest.fixture(scope="session")
def checks() -> ModuleType:
    """Inputs, and the comparison with the reference."""
    return _load("checks")


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    """What runs kernels on the CPU."""
    module = _load("emulation")
    if module.missing():
        pytest.skip(f"no emulation of the kernels: {module.missing()}")
    return module


@pytest.fixture(scope="session")
def emulated(emulation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Kernels of a source on the CPU: `(name, **macros)`."""
    folder = tmp_path_factory.mktemp("emulated")
    return lambda name, **macros: emulation.build(name, folder, **macros)


@pytest.fixture(scope="session")
def attend(emulation: ModuleType, emulated: Callable[..., Any], checks: ModuleType) -> Callable[..., Any]:
    """Run an attention's kernels on the CPU: `(inputs, processors=1, order="in turn")` -> `Outputs`."""

    def run(inputs: Any, processors: int = 1, order: str = "in turn") -> Any:
        given, memory = inputs.problem, emulation.Memory()
        placed = [memory.put(array) for array in inputs.arrays]
        results: list[NDArray[Any]] = [
            memory.empty(inputs.q.shape, inputs.q.dtype),
            memory.empty(inputs.k.shape[:3], inputs.q.dtype),
        ]
        workspace = memory.empty((given.workspace_bytes,), np.uint8)
        addresses = [[array.ctypes.data for array in arrays] for arrays in (placed, results)]
        launches = given.launches(*addresses, workspace.ctypes.data, processors)
        kernels = emulated(given.source, HEAD_DIM=given.head_dim)
        kernels.run(launches, order=order)
        memory.check()
        return checks.Outputs(*results, given.kept_keys(workspace))

    return run
