from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.runtime import gpu
from edgeser.runtime.jetson import jetson_model, jetson_release, power_mode

# As a Jetson with JetPack 6.2 writes them.
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
MODEL = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"


def test_a_jetson_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, model, tool = tmp_path / "release", tmp_path / "model", tmp_path / "nvpmodel"
    release.write_text(RELEASE)
    model.write_text(MODEL)
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert jetson_release(release) == "R36.4.3"
    assert jetson_model(model) == MODEL[:-1]
    assert power_mode() == "MAXN_SUPER"


def test_other_machines_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "model"
    other.write_text("Raspberry Pi 5 Model B\0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jetson_release(tmp_path / "none") == ""
    assert jetson_model(other) == ""
    assert power_mode() == ""


def test_a_power_tool_that_fails_or_says_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NVPM ERROR: needs root'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert power_mode() == ""


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_DRIVER", "libno-such-driver.so.1")
    assert gpu.find_gpu() is None


@pytest.mark.gpu
def test_the_gpu_here_is_found() -> None:
    found = gpu.find_gpu()
    if found is None:
        pytest.skip("needs a CUDA GPU")
    assert found.name
    assert float(found.capability) >= 5
    assert found.memory_mb > 500
