"""What every speech recogniser is: samples in, words with times out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from edgeser.runtime.audio import Samples


@dataclass(frozen=True)
class RecognizedWord:
    """A word as a recogniser heard it.

    Attributes:
        text: The word.
        start_s: Start in the audio, seconds.
        end_s: End, seconds.
        confidence: 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


class Asr(ABC):
    """Turns one utterance into words. Not safe to share between threads."""

    name: ClassVar[str]

    @abstractmethod
    def transcribe(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        """Recognise `(samples,)` float32 mono at 16 kHz.

        Raises:
            AsrError: The recogniser failed.
        """


class NoAsr(Asr):
    """Hears no words: the model judges by the voice alone."""

    name = "none"

    def transcribe(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        return ()
