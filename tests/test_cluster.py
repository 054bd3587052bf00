"""Ray gives the rows of this process; on a Ray that the test starts, on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeser.cluster import RayScorer
from edgeser.runtime.errors import MissingDependencyError
from edgeser.runtime.scoring import Setup

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
SETUP = Setup(engine="onnxruntime", asr="none")


def scored(manifest: Path, name: str, *options: object) -> list[dict[str, Any]]:
    """Rows of `edgeser score` in a process of its own, which Ray may fill with threads."""
    out = manifest.with_name(f"{name}.jsonl")
    command = [sys.executable, "-m", "edgeser.cli.main", "score", "--corpus", f"manifest:{manifest}", "-o", out]
    command += ["--engine", "onnxruntime", "--asr", "none", "--batch-size", "4", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["HOME"] = str(manifest.parent)  # where Ray keeps its cluster's password
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "skipped gone: " in done.stderr
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def probabilities(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("p_")}


@pytest.fixture
def manifest(clips: list[Path], tmp_path: Path) -> Path:
    """Twelve stretches of 0.6 s; one more recording is gone."""
    file = tmp_path / "manifest.csv"
    rows = [f"{clip.stem}-{part},{clip},{part * 0.5},{part * 0.5 + 0.6}" for part in range(3) for clip in clips[:4]]
    file.write_text("\n".join(["id,audio,start_s,end_s", *rows, f"gone,{tmp_path}/gone.wav,,"]) + "\n")
    return file


@needs_ray
@pytest.mark.parametrize("normalize", [None, "run"])
def test_ray_gives_the_rows_of_this_process(normalize: str | None, manifest: Path, centered: Path) -> None:
    options = ["--bundle", centered, "--normalize", normalize] if normalize else []
    here = scored(manifest, "here", *options)
    away = scored(manifest, "away", *options, "--ray", "local", "--workers", "1")
    assert [row["id"] for row in away] == [row["id"] for row in here]
    assert len(away) == 13
    for row, other in zip(away, here, strict=True):
        assert probabilities(row) == pytest.approx(probabilities(other), abs=1e-4)
        exact = other.keys() - probabilities(other).keys() - {"ms", "words", "spans"}
        assert {n: row[n] for n in exact} == {n: other[n] for n in exact}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray is not installed, .*'edgeser\[cluster\]'"):
        RayScorer(SETUP)
