"""What every source of audio is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np

from edgeser.runtime.audio import Samples


class Source(ABC):
    """Gives audio, chunk by chunk, to a stream that captures it in a thread of its own.

    Attributes:
        name: For logs.
        live: Whether time passes by itself, as at a microphone. A live source is never made to wait: what finds no room
            is lost, and counted. Another is read as fast as the stream can take it.
        overflows: Times the device said that it lost audio.
        interruptions: Times the audio broke off; the stream ends the current utterance when this rises.
    """

    name: str
    live: bool
    overflows: int = 0
    interruptions: int = 0

    @abstractmethod
    def open(self) -> None:
        """Get ready.

        Raises:
            InputError: The file or device is not there, or not usable.
        """

    @abstractmethod
    def read(self, timeout_s: float) -> Samples | None:
        """Return the next `(n,)` float32 mono samples at 16 kHz; none when nothing came in time; `None` at the end."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or device, quickly, from any state."""

    def __enter__(self) -> Source:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def nothing() -> Samples:
    """Return no samples: what a source gives when nothing came in time."""
    return np.zeros(0, np.float32)
