"""Short stretches of the example clips, and what scores them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import InProcess, Recording, Setup

SETUP = Setup(engine="onnxruntime", asr="none")


@pytest.fixture(scope="session")
def setup() -> Setup:
    """The engine that opens quickest, and no ASR."""
    return SETUP


@pytest.fixture(scope="session")
def snippets(clips: list[Path]) -> list[Recording]:
    """Twelve stretches of 0.4 s, three of each clip."""
    return [
        Recording(f"{clip.stem}-{part}", clip, start_s=0.8 + 0.2 * part, end_s=1.2 + 0.2 * part)
        for part in range(3)
        for clip in clips[:4]
    ]


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    with SETUP.load() as opened:
        yield opened


@pytest.fixture(scope="session")
def scorer() -> Iterator[InProcess]:
    with InProcess(SETUP, batch_size=4) as opened:
        assert isinstance(opened, InProcess)
        yield opened
