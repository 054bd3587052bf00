"""An audio file as a source, of any length, block by block."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np

from edgeser.runtime.audio import Samples
from edgeser.runtime.decoding import AudioFile, open_audio
from edgeser.runtime.errors import InputError, SourceError
from edgeser.runtime.sources.base import Source, nothing
from edgeser.runtime.sources.conversion import Converter

_BLOCK_S = 0.1
_CLOSE_S = 0.3


class FileSource(Source):
    """A recording, in blocks of 0.1 s: an eight-hour one takes no more memory than a short one.

    Taken are the formats of `open_audio`. One that is cut short is heard to its end, with a warning.

    Args:
        path: The file.
        real_time: Live: each block comes when a microphone would give it, by a clock that does not drift. Who reads
            late gets what is due at once. Otherwise as fast as it is read.
    """

    def __init__(self, path: str | os.PathLike[str], real_time: bool = False) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.live = real_time
        self._file: AudioFile | None = None
        self._lock = threading.Lock()  # libsndfile must not be closed while it reads
        self._ended = threading.Event()
        self._converter: Converter | None = None
        self._read_s = 0.0
        self._start_s = 0.0

    def open(self) -> None:
        self.close()
        self._file = open_audio(self.path)
        try:
            self._converter = Converter(self._file.rate, self._file.channels)
        except InputError as error:
            self.close()
            raise InputError(f"{self.path}: {error}") from error
        self._ended.clear()
        self._read_s = 0.0
        self._start_s = time.monotonic()

    def read(self, timeout_s: float) -> Samples | None:
        converter = self._converter
        if converter is None:
            raise SourceError(f"{self.path}: is not open: call open() first")
        if self.live and not self._due(timeout_s):
            return nothing()
        with self._lock:
            if self._ended.is_set() or self._file is None:
                return None
            return self._block(self._file, converter)

    def _due(self, timeout_s: float) -> bool:
        """Wait until the next block's last sample would have been heard."""
        wait_s = self._start_s + self._read_s + _BLOCK_S - time.monotonic()
        if wait_s > 0 and not self._ended.wait(min(wait_s, timeout_s)):
            return wait_s <= timeout_s
        return True

    def _block(self, file: AudioFile, converter: Converter) -> Samples:
        frames = max(1, round(_BLOCK_S * file.rate))
        block = file.read(frames)
        try:
            samples = converter(block)
        except InputError as error:
            raise InputError(f"{self.path}: at {self._read_s:.1f} s: {error}") from error
        self._read_s += block.shape[0] / file.rate
        if block.shape[0] == frames:
            return samples
        self._ended.set()
        return np.concatenate([samples, converter.flush()])

    def close(self) -> None:
        self._ended.set()
        if not self._lock.acquire(timeout=_CLOSE_S):
            return  # the disk hangs; the file is closed with the object
        try:
            if self._file is not None:
                self._file.close()
                self._file = None
        finally:
            self._lock.release()
