"""Plans against golden vectors; ONNX Runtime stands for a GPU."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.export_tools.building import checking
from edgeser.export_tools.building.build import BuildOptions, build
from edgeser.export_tools.building.checking import Checked, CheckRequest, check_plan
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, TensorSpec
from edgeser.runtime.engines.tensorrt import TensorRtEngine
from edgeser.runtime.errors import EngineError, MissingDependencyError, ParityError
from edgeser.runtime.gpu import Gpu, find_gpu
from edgeser.runtime.plans import Plan, write_plan
from edgeser.runtime.recognizer import default_bundle

HERE = Gpu("Orin", "8.7", "12.6", 7607)


class Changed(OnnxRuntimeEngine):
    """ONNX Runtime with logits that are off."""

    def __init__(self, graph: bytes, offset: float) -> None:
        super().__init__(graph)
        self.offset = offset

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = super()._run(feeds)
        return {**outputs, "logits": outputs["logits"] + np.float32(self.offset)}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(default_bundle())


@pytest.fixture
def checked(bundle: Bundle, tmp_path: Path) -> Any:
    """Write a plan for one of the bundle's graphs and check it: `(name, **changes)`."""

    def check(name: str = "model", **changes: Any) -> Checked:
        graph = bundle.graph() if name == "model" else bundle.read(f"frontends/{name}/encoder.onnx")
        specs = (TensorSpec("x", "float32", (None,)),)
        sha256 = hashlib.sha256(graph).hexdigest()
        plan = Plan(sha256, "tensorrt", "10.3.0", "Orin", "8.7", "int8", "portable", specs, specs, 8)
        file = tmp_path / "a.plan"
        write_plan(file, dataclasses.replace(plan, **changes), b"engine")
        return check_plan(CheckRequest(file, graph, bundle.path, name))

    return check


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, on which plans compute what ONNX Runtime does."""

    def of_plan(cls: type[TensorRtEngine], plan: Plan, content: bytes, graph: bytes) -> Engine:
        assert content == b"engine"
        return OnnxRuntimeEngine(graph)

    monkeypatch.setattr(checking, "find_gpu", lambda: HERE)
    monkeypatch.setattr(TensorRtEngine, "of_plan", classmethod(of_plan))


def test_without_a_gpu_nothing_is_checked(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "find_gpu", lambda: None)
    assert checked() == Checked(None, "no GPU here")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["model", "audio", "text"])
def test_the_model_and_its_encoders_are_checked(checked: Any, name: str) -> None:
    found = checked(name)
    assert found.why == ""
    assert 0 <= found.difference < 1e-2


@pytest.mark.usefixtures("gpu")
def test_logits_that_are_off(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorRtEngine, "of_plan", lambda plan, content, graph: Changed(graph, 0.5))
    with pytest.raises(ParityError, match=r"golden vectors differ by \S+, at most 1e-01 is expected"):
        checked()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers(checked: Any, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    monkeypatch.setattr(TensorRtEngine, "of_plan", lambda plan, content, graph: Changed(graph, offset))
    with pytest.raises(EngineError, match="logits holds NaN or infinity"):
        checked()


@pytest.mark.usefixtures("gpu")
def test_a_plan_for_another_gpu_is_not_run(checked: Any) -> None:
    found = checked(library="tensorrt_rtx", gpu="", capability="8.6,8.9")
    assert found == Checked(None, "tensorrt_rtx: the plan was built for compute capability 8.6,8.9, this GPU has 8.7")


@pytest.mark.usefixtures("gpu")
def test_building_needs_less_than_running(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Engine:
        raise MissingDependencyError("pycuda", "jetson", "engine tensorrt")

    monkeypatch.setattr(TensorRtEngine, "of_plan", missing)
    assert checked().why.startswith("pycuda is not installed")


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_does_not_open_is_a_failure(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Engine:
        raise EngineError("tensorrt: refuses the plan")

    monkeypatch.setattr(TensorRtEngine, "of_plan", refuses)
    with pytest.raises(EngineError, match="refuses the plan"):
        checked()


@pytest.mark.gpu
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_the_default_bundle_on_a_real_gpu(bundle: Bundle, tmp_path: Path, target: str) -> None:
    pytest.importorskip(target.replace("-", "_"), reason=f"{target} is not installed")
    pytest.importorskip("pycuda", reason="pycuda is not installed: edgeser[jetson]")
    if find_gpu() is None:
        pytest.skip("no GPU, or no driver")
    report = build(bundle, BuildOptions(target, out=tmp_path))
    assert report.failure == ""
    assert [graph.unchecked for graph in report.graphs] == ["", "", ""]
