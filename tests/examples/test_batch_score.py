"""The example as a user runs it, killed once."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import soundfile

from edgeser.runtime.audio import load_audio
from edgeser.runtime.scoring import journal_path

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch_score.py"


def test_a_folder_is_scored_and_goes_on_after_a_kill(clips: list[Path], tmp_path: Path) -> None:
    folder, out = tmp_path / "recordings", tmp_path / "scores.csv"
    folder.mkdir()
    for part in range(4):
        for clip in clips[:4]:
            samples = load_audio(clip, 0.8 + 0.2 * part, 1.2 + 0.2 * part)
            soundfile.write(folder / f"{clip.stem}-{part}.wav", samples, 16_000)
    (folder / "broken.wav").write_text("no audio")
    command = [sys.executable, str(EXAMPLE), str(folder), str(out), "--asr", "none", "--engine", "onnxruntime"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    until = time.monotonic() + 240
    while not journal_path(out).exists() or journal_path(out).read_bytes().count(b"\n") < 3:  # a header, two rows
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    first.kill()
    first.communicate()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found, resumed = map(int, (done.stdout.split()[0], done.stdout.splitlines()[0].split()[2]))
    assert found == 17
    assert 2 <= resumed < 17
    assert done.stdout.splitlines()[-1] == f"{out}: 16 scored, 1 not readable"
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == sorted(path.name for path in folder.iterdir())
    assert [row["id"] for row in rows if row["error"]] == ["broken.wav"]
