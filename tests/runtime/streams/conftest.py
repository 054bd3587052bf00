"""A Runtime without a recogniser, and a minute of conversation made of the example clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.recognizer import Runtime


@pytest.fixture(scope="session")
def mute() -> Iterator[Runtime]:
    """The default bundle in ONNX Runtime, voice alone."""
    with Runtime.load(engine="onnxruntime", asr="none") as runtime:
        yield runtime


@pytest.fixture(scope="session")
def conversation(clips: list[Path]) -> Samples:
    """The four clips, a second of silence after each."""
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([part for clip in clips for part in (load_audio(clip), quiet)])
