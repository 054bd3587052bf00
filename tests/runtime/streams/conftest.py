"""A Runtime without a recogniser, and a minute of conversation made of the example clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import Event, StreamOptions


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


@pytest.fixture(scope="session")
def events() -> Callable[..., list[Event]]:
    """Push audio in equal chunks and return all Events: `(runtime, audio, chunk, **options)`."""

    def listen(runtime: Runtime, audio: Samples, chunk: int, **options: Any) -> list[Event]:
        with runtime.open_stream(options=StreamOptions(**options)) as stream:
            for begin in range(0, audio.shape[0], chunk):
                stream.push(audio[begin : begin + chunk], wait=True)
            stream.end()
            return list(stream)

    return listen


@pytest.fixture(scope="session")
def reference(events: Callable[..., list[Event]], mute: Runtime, conversation: Samples) -> list[Event]:
    """The Events of that conversation."""
    return events(mute, conversation, 1600)
