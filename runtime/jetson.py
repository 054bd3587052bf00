"""What kind of Jetson this is, if it is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_RELEASE = Path("/etc/nv_tegra_release")
_MODEL = Path("/proc/device-tree/model")
_ASK_S = 5.0


def jetson_release(file: Path = _RELEASE) -> str:
    """Return the release of a Jetson's system as NVIDIA writes it, for example `R36.4.3`; empty elsewhere."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text(file))
    return f"R{found[1]}.{found[2]}" if found else ""


def jetson_model(file: Path = _MODEL) -> str:
    """Return the board's name, for example `NVIDIA Jetson Orin Nano Developer Kit`; empty elsewhere."""
    name = _text(file).strip("\0 \n")
    return name if "jetson" in name.lower() else ""


def power_mode() -> str:
    """Return the power mode, for example `15W`; empty where nvpmodel is not there or does not tell."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return ""
    try:
        said = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=_ASK_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"Power Mode:\s*(\S+)", said)
    return found[1] if found else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
