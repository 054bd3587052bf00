"""What this processor can, as Linux says."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}


def integers_are_exact() -> bool:
    """Whether engines add products of 8-bit integers in 32 bits here.

    x86 without VNNI has an instruction that adds two of them in 16 bits, which overflow, and engines use it.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    try:
        return not _EXACT.isdisjoint(_CPU_INFO.read_text().split())
    except OSError:
        return False
