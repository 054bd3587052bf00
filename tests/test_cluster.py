"""Ray gives the rows of this process; on a Ray that the test starts, on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.cluster import RayScorer
from edgeser.runtime.errors import MissingDependencyError
from edgeser.runtime.scoring import Setup

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
SETUP = Setup(engine="onnxruntime", asr="none")


@needs_ray
def test_ray_gives_the_rows_of_this_process(clips: list[Path], tmp_path: Path) -> None:
    """In a process of its own, which Ray may fill with threads; one recording is gone."""
    manifest = tmp_path / "manifest.csv"
    rows = [f"{clip.stem}-{part},{clip},{part * 0.5},{part * 0.5 + 0.6}" for part in range(3) for clip in clips[:4]]
    manifest.write_text("\n".join(["id,audio,start_s,end_s", *rows, f"gone,{tmp_path}/gone.wav,,"]) + "\n")
    command = [sys.executable, "-m", "edgeser.cli.main", "score", "--corpus", f"manifest:{manifest}"]
    command += ["--engine", "onnxruntime", "--asr", "none", "--batch-size", "4"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)  # where Ray keeps its cluster's password
    written = {}
    for name, more in (("here", []), ("ray", ["--ray", "local", "--workers", "1"])):
        out = tmp_path / f"{name}.jsonl"
        done = subprocess.run(
            [*command, "-o", str(out), *more], capture_output=True, text=True, env=environment, check=False, timeout=280
        )
        assert done.returncode == 0, done.stderr
        assert "skipped gone: " in done.stderr
        written[name] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in written["ray"]] == [row["id"] for row in written["here"]]
    assert len(written["ray"]) == 13
    for row, other in zip(written["ray"], written["here"], strict=True):
        numbers = {name for name in other if name.startswith("p_")}
        assert {n: row.get(n) for n in numbers} == pytest.approx({n: other[n] for n in numbers}, abs=1e-4)
        exact = other.keys() - numbers - {"ms", "words", "spans"}
        assert {n: row[n] for n in exact} == {n: other[n] for n in exact}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray is not installed, .*'edgeser\[cluster\]'"):
        RayScorer(SETUP)
