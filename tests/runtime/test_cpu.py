from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgeser.runtime import cpu


@pytest.mark.parametrize(
    ("machine", "flags", "exact"),
    [
        ("x86_64", "flags : fpu avx avx2 avx512f", False),
        ("x86_64", "flags : fpu avx2 avx512f avx512_vnni", True),
        ("x86_64", "flags : fpu avx2 avx_vnni", True),
        ("x86_64", None, False),
        ("aarch64", "Features : fp asimd", True),
    ],
)
def test_which_processors_add_8_bit_products_in_32_bits(
    machine: str, flags: str | None, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert cpu.integers_are_exact() is exact
