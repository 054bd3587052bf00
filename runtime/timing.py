"""Measuring: how long calls take, side by side."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call."""

    p50_ms: float
    p95_ms: float
    calls: int


def side_by_side(
    contenders: Mapping[str, Callable[[], object]], calls: int = 200, warm_up: int = 10
) -> dict[str, Latency]:
    """Time several callables in turn, a call of each after the other, so that drift of the machine hits all alike.

    Args:
        contenders: What to call, by name.
        calls: Timed calls of each.
        warm_up: Calls of each before the first timed one.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warm_up + calls):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            if i >= warm_up:
                times[name].append((time.perf_counter() - started) * 1e3)
    return {name: Latency(float(np.percentile(t, 50)), float(np.percentile(t, 95)), calls) for name, t in times.items()}


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def device_name() -> str:
    """Return the CPU's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
