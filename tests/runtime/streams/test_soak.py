"""Half an hour of the soak in `benchmarks/soak.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[3] / "benchmarks" / "soak.py"


def test_half_an_hour_loses_nothing_doubles_nothing_and_leaves_nothing() -> None:
    # In a process of its own: in this one, what earlier tests have freed would grow and shrink with it.
    command = [sys.executable, str(SOAK), "--hours", "0.5", "--engine", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    finding = json.loads(done.stdout)
    assert finding["audio_s"] >= 1800
    assert finding["spoken"] > 150
    assert (finding["missed"], finding["overlaps"], finding["threads_left"]) == (0, 0, 0)
    assert finding["answered_in_vain"] <= 3  # music and hum are speech to Silero now and then
    assert finding["growth_mb"] < 5
