from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeser.cli import main as command_line
from edgeser.cli.main import main
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.plans import plan_folder, plan_path, read_plan
from edgeser.runtime.recognizer import default_bundle


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command_line.COMMANDS, "build", "compile a bundle for TensorRT")


@pytest.fixture
def needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: edgeser[rtx]")


@pytest.mark.usefixtures("needs_rtx")
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_default_bundle_builds(capsys: pytest.CaptureFixture[str], precision: str) -> None:
    """Real: TensorRT for RTX, on the CPU, for compute capability 8.6. All six graphs."""
    command = ["build", "--target", "tensorrt-rtx", "--precision", precision, "--capability", "8.6", "--json"]
    assert main(command) == 0
    captured = capsys.readouterr()
    report: dict[str, Any] = json.loads(captured.out)
    recogniser = [f"recogniser/{name}" for name in ("cross", "encoder", "step")]
    assert [graph["name"] for graph in report["graphs"]] == ["model", "audio", "text", *recogniser]
    assert (report["precision"], report["failure"]) == (precision, "")
    bundle = Bundle.open(default_bundle())
    encoders = [bundle.read(f"frontends/{name}/encoder.onnx") for name in ("audio", "text")]
    encoders += [bundle.read(f"{name}.onnx") for name in recogniser]
    for graph, content in zip(report["graphs"], [bundle.graph(), *encoders], strict=True):
        plan, engine = read_plan(plan_path(content, "tensorrt_rtx"))
        assert graph["file"] == str(plan_path(content, "tensorrt_rtx"))
        assert [attempt["reason"] for attempt in graph["attempts"]] == [""]
        assert plan.precision == precision
        warnings = [warning for attempt in graph["attempts"] for warning in attempt["warnings"]]
        # It quantizes convolutions with scales in FP32 only, reads bytes as INT32, and says so.
        assert all("scales to fp32" in warning or "converted to INT32" in warning for warning in warnings)
        convolutions = 2 if precision == "fp16" and graph["name"] in ("audio", "recogniser/encoder") else 0
        assert len(warnings) == (3 if graph["name"] == "recogniser/step" else convolutions)
        assert len(engine) == graph["plan"]["engine_bytes"] > len(content) / 2
        assert plan.unusable(plan.library_version, "RTX 3090", "8.6", content) == ""
        assert plan.unusable(plan.library_version, "RTX 4090", "8.9", content) != ""
    assert len(list(plan_folder().iterdir())) == 6


@pytest.mark.usefixtures("needs_rtx")
def test_a_failure_says_why_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", "--target", "tensorrt-rtx", "--capability", "8.6", "--timeout-s", "1", "-o", str(tmp_path)]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("edgeser: tensorrt-rtx: nothing was written: model: the portable graph: its process")
    assert captured.err.count("\n") == 1
    row = captured.out.splitlines()[1].split()
    assert (row[:4], row[-1]) == (["model", "-", "-", "-"], "failed")
    assert list(tmp_path.iterdir()) == []


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["build", "--target", "tensorrt"]) == 2
    assert capsys.readouterr().err.startswith("edgeser: tensorrt is not installed, edgeser build --target tensorrt (")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "tensorrt", "--capability", "8.7"], "capability: tensorrt builds for the GPU that it runs on"),
        (["--target", "tensorrt-rtx", "--lowering", "plugin"], "tensorrt-rtx has no plugin layers"),
        (["--target", "tensorrt-rtx", "--precision", "fp32"], "precision: got fp32 for a bundle in int8"),
        (["nowhere.edgeser", "--target", "tensorrt-rtx"], "nowhere.edgeser: no such bundle"),
    ],
)
@pytest.mark.usefixtures("needs_rtx")
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert main(["build", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_device_needs_no_host_library_to_build() -> None:
    """Neither PyTorch nor, as long as no graph must be changed, onnx."""
    code = (
        "import sys, edgeser.cli.build; print(*sorted({'onnx', 'torch', 'tensorrt', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    assert "edgeser build --target tensorrt\n" in capsys.readouterr().out
