"""An audio file as a source."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources.base import Source
from edgeser.runtime.sources.conversion import Converter

_BLOCK_S = 0.1


class FileSource(Source):
    """A WAV, FLAC or OGG file, read block by block: an eight-hour one takes no more memory than a short one.

    Args:
        path: The file.
        real_time: As fast as it was spoken, and live; otherwise as fast as the stream takes it.
    """

    def __init__(self, path: str | os.PathLike[str], real_time: bool = False) -> None:
        self.name = Path(path).name
        self.live = real_time
        self._path = Path(path)
        self._file: Any = None

    def open(self) -> None:
        import soundfile

        if not self._path.is_file():
            raise InputError(f"{self._path}: no such file")
        try:
            self._file = soundfile.SoundFile(self._path)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self._path}: not readable as audio ({reason}): expected WAV, FLAC or OGG") from error
        self._converter = Converter(self._file.samplerate)
        self._started = time.monotonic()
        self._given = 0
        self._ended = False

    def read(self, timeout_s: float) -> Samples | None:
        if self._file is None or self._ended:
            return None
        if self.live:
            due = self._started + self._given / SAMPLE_RATE
            wait = due - time.monotonic()
            if wait > timeout_s:
                time.sleep(timeout_s)
                return np.zeros(0, np.float32)
            time.sleep(max(0.0, wait))
        block = self._file.read(int(_BLOCK_S * self._file.samplerate), dtype="float32")
        self._ended = block.shape[0] == 0
        samples = self._converter.flush() if self._ended else self._converter(block)
        self._given += samples.shape[0]
        return samples

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
