"""Fixtures of every test: real recordings, never made-up ones."""

from __future__ import annotations

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
