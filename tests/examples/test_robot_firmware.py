from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "robot_firmware.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_loop_hears_emotions_and_measures_itself(clip: Path) -> None:
    done = run("--wav", clip, "--seconds", 4.5, "--asr", "none", "--priority", 0)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(with(?:out)?) inference +(\d+) +\d+((?: +\d+\.\d\d){4})$", done.stdout, re.MULTILINE)
    assert [(name, ticks) for name, ticks, _ in rows] == [("without", "225"), ("with", "225")]
    for _, _, times in rows:
        p50, p95, p99, longest = map(float, times.split())
        assert 0 <= p50 <= p95 <= p99 <= longest
    events = re.search(r"^(\d+) Events \((.+)\), 0 dropped, 0\.0 s of audio lost$", done.stdout, re.MULTILINE)
    assert events, done.stdout
    counts = re.findall(r"(neutral|happy|sad|angry) (\d+)", events[2])
    assert sum(int(count) for _, count in counts) == int(events[1]) >= 1


def test_a_missing_recording_is_one_clear_line(tmp_path: Path) -> None:
    done = run("--wav", tmp_path / "none.wav")
    assert done.returncode == 1
    assert "none.wav" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    done = run("--wav", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: holds no FLAC files, expected some, or one file\n"
