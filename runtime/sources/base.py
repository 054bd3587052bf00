"""What every source of audio offers to a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

import numpy as np

from edgeser.runtime.audio import Samples

_Source = TypeVar("_Source", bound="Source")


class Source(ABC):
    """Audio, chunk by chunk; safe to use from any thread, of which each gets other chunks.

    Attributes:
        name: For logs and statistics.
        live: Whether time passes by itself (a microphone, a file at real speed). A live source is never made to wait:
            what finds no room is dropped and counted by the stream. Another is read as fast as the stream takes it.
        overflows: How often the device lost audio.
        interruptions: How often the audio broke off (device lost); what comes next does not continue what came before.
    """

    name: str
    live: bool
    overflows: int = 0
    interruptions: int = 0

    @abstractmethod
    def open(self) -> None:
        """Start it.

        Raises:
            InputError: What was asked for does not exist or cannot be read.
            MissingDependencyError: A library is not installed.
            SourceError: The device refused.
        """

    @abstractmethod
    def read(self, timeout_s: float) -> Samples | None:
        """Wait for audio, hardly longer than `timeout_s` seconds.

        Returns:
            `(n,)` float32, mono, 16 kHz, full scale 1.0; n is 0 when nothing came in time. None at the end.

        Raises:
            InputError: What came is no audio (NaN, a wrong scale).
            SourceError: It broke for good, or was never opened.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop it: quick, from any state and any thread, as often as one likes. A `read` after it returns None."""

    def __enter__(self: _Source) -> _Source:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def nothing() -> Samples:
    """Return `(0,)` float32: no audio came in time."""
    return np.zeros(0, np.float32)
