"""Ten minutes of the soak in `benchmarks/soak.py`."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from edgeser.runtime.recognizer import Runtime

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_ten_minutes_lose_nothing_double_nothing_and_leave_nothing(
    mute: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    finding = importlib.import_module("soak").soak(mute, 600.0)
    assert finding.audio_s >= 600
    assert finding.spoken > 50
    assert (finding.missed, finding.overlaps, finding.threads_left) == (0, 0, 0)
    assert finding.answered_in_vain <= 3  # music and hum are speech to Silero now and then
    assert finding.growth_mb < 5
