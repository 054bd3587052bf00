"""Names that come from data cannot steer the terminal, whatever command shows them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from edgeser.cli.main import main
from edgeser.runtime.recognizer import default_bundle

RED = "red\x1b[31m\x9b2J\u202e.flac"


@pytest.fixture
def recording(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(clip, tmp_path / RED))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    file = tmp_path / f"damaged {RED}"
    file.write_bytes(b"fLaC, or not")
    return file


@pytest.fixture
def corpus(recording: Path, damaged: Path, tmp_path: Path) -> Path:
    file = tmp_path / "corpus.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(("id", "audio", "emotion", "speaker", "transcript"))
        rows.writerow((RED, recording, "angry", RED, f"what {RED} on earth"))
        rows.writerow((f"damaged {RED}", damaged, "sad", RED, ""))
    return file


def steers(text: str) -> set[str]:
    """Return the characters that a terminal would obey, those of lines and of a progress bar's aside."""
    return {c for c in text if c not in "\n\r\t" and (unicodedata.category(c) in ("Cc", "Cs") or c == "\u202e")}


def shown(capfd: pytest.CaptureFixture[str], *command: object) -> str:
    """Return all that a command prints."""
    main([*map(str, command)])
    out, err = capfd.readouterr()
    assert steers(out + err) == set(), ascii(out + err)
    return out + err


def test_names_of_recordings(recording: Path, damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    voice = ("--engine", "onnxruntime", "--asr", "none")
    assert "red\\x1b[31m" in shown(capfd, "demo", recording, *voice)
    assert "red\\u001b[31m" in shown(capfd, "score", recording, damaged, *voice)
    assert "red\\x1b[31m" in shown(capfd, "listen", "--wav", damaged, *voice)
    assert "red\\x1b[31m" in shown(capfd, "doctor", "--bundle", damaged)


def test_a_warning_about_a_recording_that_is_cut(recording: Path) -> None:
    content = recording.read_bytes()
    recording.write_bytes(content[: len(content) // 2])
    command = (sys.executable, "-m", "edgeser.cli.main", "score", recording, "--engine", "onnxruntime", "--asr", "none")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "cut short" in done.stderr
    assert "red\\x1b[31m" in done.stderr
    assert steers(done.stdout + done.stderr) == set()


def test_names_in_a_corpus(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "red\\x1b[31m" in shown(capfd, "corpus", f"manifest:{corpus}")
    found = shown(capfd, "corpus", f"manifest:{corpus}", "--json")
    assert RED in json.loads(found)["speakers"]
    assert "red\\x1b[31m" in shown(capfd, "evaluate", default_bundle(), "--corpus", f"manifest:{corpus}")
    assert "red\\u001b[31m" in shown(capfd, "score", "--corpus", f"manifest:{corpus}", "--engine", "onnxruntime")
