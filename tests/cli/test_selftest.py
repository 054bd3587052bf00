from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeser.cli.main import main


def test_every_engine_is_tried_and_told(
    exported: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_report([str(exported(("text",))[0].path)], ["model"], tmp_path, capsys)


@pytest.mark.slow
def test_encoders_are_tried_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recogniser = [f"recogniser/{name}" for name in ("encoder", "cross", "step")]
    check_report([], ["model", "audio", "text", *recogniser], tmp_path, capsys)


def check_report(
    arguments: Sequence[str], graphs: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert main(["selftest", *arguments, "--json", str(tmp_path / "report.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text())
    (bundle,) = report["bundles"]
    trials = {(trial["engine"], trial["graph"]): trial for trial in bundle["trials"]}
    assert {graph for _, graph in trials} == set(graphs)
    for graph in graphs:
        row = trials["onnxruntime", graph]
        assert row["latency"]["p50_ms"] > 0
        assert not row["failed"]
        built = trials["tensorrt-rtx", graph]
        assert built["build_s"] > 0
        assert built["size_mb"] > 0.5
        assert (built["latency"] is None) == ("no GPU" in built["problem"])
    assert trials["onnxruntime", "model"]["difference"] < 1e-4
    assert any("onnxruntime" in line and "model" in line for line in lines)
    assert {check["name"] for check in report["device"]} >= {"device", "memory", "gpu", "bundle"}


@pytest.mark.parametrize("arguments", [["none.edgeser"], ["--json", "no/such/folder/report.json"]])
def test_bad_input_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
