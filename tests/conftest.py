"""Fixtures of every test: real recordings, never made-up ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgeser.runtime.audio import Samples, load_audio

CLIPS = Path(__file__).parent.parent / "examples" / "clips"


@pytest.fixture(scope="session")
def clips() -> list[Path]:
    """Four acted sentences of RAVDESS, 16 kHz mono, 3 to 4 s each."""
    found = sorted(CLIPS.glob("*.flac"))
    assert len(found) >= 4, f"{CLIPS}: expected the example clips, found {len(found)}"
    return found


@pytest.fixture(scope="session")
def clip(clips: list[Path]) -> Path:
    return clips[0]


@pytest.fixture(scope="session")
def speech(clip: Path) -> Samples:
    """The first clip's samples, read-only."""
    samples = load_audio(clip)
    samples.flags.writeable = False
    return samples


EMOTIONS = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}
LINES = {
    "neutral": ("The meeting is at ten.", "It is on the table."),
    "happy": ("This is wonderful!", "I can't believe we won!"),
    "sad": ("I miss her so much.", "Everything is lost..."),
    "angry": ("How dare you!", "Get out of my house, now!"),
}


@pytest.fixture(scope="session")
def corpus(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sessions, each with the four clips and a line for each."""
    file = tmp_path_factory.mktemp("corpus") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "transcript", "emotion", "speaker", "session", "end_s"])
        for session in (1, 2):
            for clip in clips:
                emotion = EMOTIONS[clip.stem.split("-")[2]]
                # The second session hears only the first 2.5 s: another recording, as far as features go.
                end = "" if session == 1 else "2.5"
                text = LINES[emotion][session - 1]
                writer.writerow([f"{clip.stem}_{session}", clip, text, emotion, clip.stem[-2:], session, end])
    return f"manifest:{file}"


@pytest.fixture(scope="session")
def wide_corpus(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty utterances in two sessions: each clip from five starting points, with two lines."""
    file = tmp_path_factory.mktemp("wide") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "transcript", "emotion", "session", "start_s"])
        for session in (1, 2):
            for clip in clips:
                emotion = EMOTIONS[clip.stem.split("-")[2]]
                for start in range(5):
                    name = f"{clip.stem}_{session}_{start}"
                    writer.writerow([name, clip, LINES[emotion][session - 1], emotion, session, start * 0.3])
    return f"manifest:{file}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
