"""Raw samples from a pipe: `arecord -f S16_LE -r 16000 -t raw | …`."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from typing import BinaryIO

import numpy as np

from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError, SourceError
from edgeser.runtime.sources.base import Source, nothing
from edgeser.runtime.sources.conversion import MAX_CHANNELS, Converter

_DTYPES = {"uint8": "<u1", "int16": "<i2", "int32": "<i4", "float32": "<f4"}
PCM_FORMATS = tuple(_DTYPES)
_HEADS = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"BW64"), "WAV"),
    b"riff": "Wave64",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
}
"""How files begin. Four such bytes at the start of raw audio, two loud samples, come once in four thousand million."""
_MP4 = (b"\0\0\0", b"ftyp")  # a short box's length, and after its last byte the name
_HEAD_BYTES = 8
_BLOCK_S = 0.1
_SLICE_S = 0.1  # for how long `close` may go unnoticed by a waiting `read`


class PcmSource(Source):
    """Raw PCM, little endian, channels interleaved, until the pipe is closed.

    Bytes are taken from the file descriptor, past the stream's own buffer: hand over one that nobody has read from.
    The stream is the caller's and stays open. It is not `live`: a full pipe makes its writer wait.

    `read` raises `InputError` where the bytes begin like an audio file: its header and its coded samples are no PCM.

    Args:
        stream: A binary stream; None: standard input.
        rate: Sample rate in Hz, 4,000 to 384,000.
        channels: 1 to 16.
        sample_format: `uint8`, `int16`, `int32` or `float32` (full scale 1.0).

    Raises:
        InputError: A rate, a number of channels or a format out of these.
    """

    live = False

    def __init__(
        self, stream: BinaryIO | None = None, rate: int = 16_000, channels: int = 1, sample_format: str = "int16"
    ) -> None:
        if sample_format not in PCM_FORMATS:
            raise InputError(f"sample_format: got {sample_format!r}, expected one of {', '.join(PCM_FORMATS)}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise InputError(f"channels: got {channels}, expected 1 to {MAX_CHANNELS}")
        self.name = "standard input" if stream is None else "pcm"
        self._stream: BinaryIO = sys.stdin.buffer if stream is None else stream
        self._rate, self._channels = rate, channels
        self._dtype = np.dtype(_DTYPES[sample_format])
        self._frame_bytes = channels * self._dtype.itemsize
        self._converter = Converter(rate, channels)
        self._rest = b""
        self._begun = False
        self._handle: int | None = None
        self._opened = False
        self._ended = threading.Event()
        self._turn = threading.Lock()  # what is read is converted in the same order

    def open(self) -> None:
        try:
            self._handle = self._stream.fileno()
        except (io.UnsupportedOperation, AttributeError):  # bytes in memory: nothing to wait for
            self._handle = None
        except ValueError as error:
            raise SourceError(f"{self.name}: is closed already: hand over an open stream") from error
        self._opened = True
        self._begun = False
        self._ended.clear()

    def read(self, timeout_s: float) -> Samples | None:
        if not self._opened:
            raise SourceError(f"{self.name}: is not open: call open() first")
        if not self._turn.acquire(timeout=max(0.0, timeout_s)):  # another thread reads
            return nothing()
        try:
            if not self._wait(timeout_s):
                return None if self._ended.is_set() else nothing()
            return self._next()
        except InputError:
            raise
        except BlockingIOError:  # a descriptor that does not block, and another reader was quicker
            return nothing()
        except (OSError, ValueError) as error:  # ValueError: bytes in memory that the caller closed
            raise SourceError(f"{self.name}: broke off: {error}") from error
        finally:
            self._turn.release()

    def _next(self) -> Samples:
        data = self._take()
        if not self._begun:
            return self._begin(data)
        if data:
            return self._convert(self._rest + data)
        self._ended.set()
        self._rest = b""  # a frame cut short
        return self._converter.flush()

    def _begin(self, data: bytes) -> Samples:
        """Look at the first bytes once they are there, or all that come are."""
        self._rest += data
        heads = (*_HEADS, _MP4[0])
        undecided = any(head.startswith(self._rest) for head in heads) or self._rest.startswith(_MP4[0])
        if data and undecided and len(self._rest) < _HEAD_BYTES:
            return nothing()
        kind = next((kind for head, kind in _HEADS.items() if self._rest.startswith(head)), None)
        if (self._rest[:3], self._rest[4:_HEAD_BYTES]) == _MP4:
            kind = "MP4"
        if kind is not None:
            raise InputError(
                f"{self.name}: begins like a file of type {kind}, expected raw samples: give the file to --wav (in "
                "Python: FileSource), or send its samples alone"
            )
        self._begun = True
        return self._convert(self._rest)

    def _wait(self, timeout_s: float) -> bool:
        """Wait for bytes or the end of the stream."""
        poll = select.poll()  # unlike epoll it takes regular files, unlike select any descriptor
        if self._handle is not None:
            poll.register(self._handle, select.POLLIN)
        deadline_s = time.monotonic() + timeout_s
        while not self._ended.is_set():
            left_s = deadline_s - time.monotonic()
            if self._handle is None or poll.poll(1000 * max(0.0, min(left_s, _SLICE_S))):
                return not self._ended.is_set()
            if left_s <= 0:
                break
        return False

    def _take(self) -> bytes:
        size = max(1, round(self._rate * _BLOCK_S)) * self._frame_bytes
        return self._stream.read(size) if self._handle is None else os.read(self._handle, size)

    def _convert(self, data: bytes) -> Samples:
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        frames = np.frombuffer(data[:whole], self._dtype).reshape(-1, self._channels)
        return self._converter(frames.astype(self._dtype.newbyteorder("="), copy=False))

    def close(self) -> None:
        self._ended.set()
