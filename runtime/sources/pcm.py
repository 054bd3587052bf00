"""Raw samples from a pipe as a source."""

from __future__ import annotations

import os
import select
import sys
from typing import BinaryIO

import numpy as np

from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources.base import Source
from edgeser.runtime.sources.conversion import Converter

_FORMATS = {"uint8": "u1", "int16": "<i2", "int32": "<i4", "float32": "<f4"}
_BLOCK_BYTES = 8192


class PcmSource(Source):
    """Raw little-endian PCM from standard input or another pipe: `arecord -t raw ... | edgeser listen --pcm`.

    Args:
        pipe: A binary file with a descriptor; `None` for standard input. It is not closed here.
        rate: Sample rate in Hz.
        channels: Samples of one moment, side by side.
        sample_format: `uint8`, `int16`, `int32` or `float32`.
    """

    live = False

    def __init__(
        self, pipe: BinaryIO | None = None, rate: int = 16_000, channels: int = 1, sample_format: str = "int16"
    ) -> None:
        if sample_format not in _FORMATS:
            raise InputError(f"sample_format: got {sample_format!r}, expected one of {', '.join(_FORMATS)}")
        if not 1 <= channels <= 16:
            raise InputError(f"channels: got {channels}, expected 1 to 16")
        self.name = "pcm"
        self._dtype = np.dtype(_FORMATS[sample_format])
        self._channels = channels
        self._converter = Converter(rate)
        self._pipe = sys.stdin.buffer if pipe is None else pipe
        self._rest = b""
        self._ended = False

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> Samples | None:
        if self._ended:
            return None
        if not select.select([self._pipe], [], [], timeout_s)[0]:
            return np.zeros(0, np.float32)
        block = os.read(self._pipe.fileno(), _BLOCK_BYTES)  # what is there, not a full block
        if not block:
            self._ended = True
            return self._converter.flush()
        data = self._rest + block
        whole = len(data) - len(data) % (self._dtype.itemsize * self._channels)
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], self._dtype)
        return self._converter(samples if self._channels == 1 else samples.reshape(-1, self._channels))

    def close(self) -> None:
        self._ended = True
