"""A source that also keeps what passes through it in a file."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import wave
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources.base import Source

log = logging.getLogger(__name__)

_WAV_LIMIT = 2**32 - 2**16  # bytes; a WAV file's lengths are 32-bit
_FLAC_BLOCK = 4096  # samples; libsndfile's
_FLAC_TOTAL = 18  # where the eight bytes with the total of samples begin
_CLOSE_S = 0.2


class Recorded(Source):
    """Passes another source through and writes all its audio to a new file, 16 bit, 16 kHz, WAV or FLAC.

    The file's header is brought up to date with every write, so that a killed process leaves a file that can be read:
    a WAV file with all audio but the last read, a FLAC file with all but its last 0.5 s (FLAC is written in blocks of
    4,096 samples, and a header that promises more than there is makes the file unreadable). A cut in the power may cost
    what the system had not yet put on the disk. Audio that was lost or broke off leaves no gap in the file.

    When the file can no longer be written (disk full, removed, a WAV file of 4 GiB or 37 hours) one line is logged,
    the recording ends, and the audio goes on.

    Args:
        source: What to record; opened and closed with this one.
        path: A new file, `.wav` or `.flac`.

    Raises:
        InputError: Another kind of file.
    """

    def __init__(self, source: Source, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _FILES:
            raise InputError(f"{self.path}: cannot record to it, expected a name that ends in {' or '.join(_FILES)}")
        self.source = source
        self.name, self.live = source.name, source.live
        self._file: _File | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        self.close()
        if not self.path.parent.is_dir():
            raise InputError(f"{self.path}: its folder does not exist: create {self.path.parent} first")
        if self.path.exists():
            raise InputError(f"{self.path}: exists already: remove it or record to another file")
        self.source.open()
        self.name = self.source.name
        try:
            self._file = _FILES[self.path.suffix.lower()](self.path)
        except OSError as error:
            self.source.close()
            raise InputError(f"{self.path}: cannot record to it ({error}): choose another place") from error

    def read(self, timeout_s: float) -> Samples | None:
        samples = self.source.read(timeout_s)
        self.overflows, self.interruptions = self.source.overflows, self.source.interruptions
        with self._lock:
            if samples is None:
                self._finish()
            elif samples.size and self._file is not None:
                self._keep(self._file, samples)
        return samples

    def _keep(self, file: _File, samples: Samples) -> None:
        try:
            file.write(np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16))
        except OSError as error:
            log.error("%s: recording ends after %.1f s, the audio goes on: %s", self.path, file.kept_s, error)
            self._file = None
            with contextlib.suppress(OSError):  # said already
                file.close()

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                log.error("%s: the last of the recording may be missing: %s", self.path, error)

    def close(self) -> None:
        self.source.close()
        if self._lock.acquire(timeout=_CLOSE_S):  # a write that hangs ends the file itself, later
            try:
                self._finish()
            finally:
                self._lock.release()


class _File(ABC):
    """A growing recording; all methods raise OSError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._samples = 0

    @property
    def kept_s(self) -> float:
        return self._samples / SAMPLE_RATE

    def write(self, samples: NDArray[np.int16]) -> None:
        """Append `(n,)` samples and bring the header up to date."""
        if os.fstat(self._handle).st_nlink == 0:
            raise FileNotFoundError("the file was removed")
        self._append(samples)
        self._samples += samples.shape[0]

    @abstractmethod
    def _append(self, samples: NDArray[np.int16]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class _WavFile(_File):
    """WAV: `wave` corrects the two lengths in the header after every write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._raw = os.fdopen(self._handle, "r+b")
        self._wave: wave.Wave_write = wave.open(self._raw, "wb")  # noqa: SIM115 (closed in `close`)
        self._wave.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))

    def _append(self, samples: NDArray[np.int16]) -> None:
        if 2 * (self._samples + samples.shape[0]) > _WAV_LIMIT:
            raise OSError("a WAV file holds 4 GiB")
        self._wave.writeframes(samples.astype("<i2").tobytes())
        self._raw.flush()

    def close(self) -> None:
        try:
            self._wave.close()
        finally:
            self._raw.close()


class _FlacFile(_File):
    """FLAC: the number of samples in the header, which libFLAC writes only at the end, is written after every block."""

    def __init__(self, path: Path) -> None:
        import soundfile

        super().__init__(path)
        self._errors = (soundfile.SoundFileError, AssertionError)
        self._sound: Any = soundfile.SoundFile(
            self._handle, "w", SAMPLE_RATE, 1, subtype="PCM_16", format="FLAC", closefd=False
        )
        self._declared = 0

    def _append(self, samples: NDArray[np.int16]) -> None:
        try:
            self._sound.write(samples)
        except self._errors as error:
            raise OSError(f"libsndfile could not write ({error}); the disk may be full") from error
        # A block is written when the sample after it has come.
        blocks = (self._samples + samples.shape[0] - 1) // _FLAC_BLOCK * _FLAC_BLOCK
        if blocks > self._declared:
            self._declare(blocks)

    def _declare(self, samples: int) -> None:
        """Write the 36-bit total of STREAMINFO (RFC 9639, section 8.2), past libsndfile's back."""
        field = int.from_bytes(os.pread(self._handle, 8, _FLAC_TOTAL), "big")
        os.pwrite(self._handle, (field >> 36 << 36 | samples).to_bytes(8, "big"), _FLAC_TOTAL)
        self._declared = samples

    def close(self) -> None:
        try:
            self._sound.close()
        except self._errors as error:
            self._declare(self._declared)
            raise OSError(f"libsndfile could not close it ({error})") from error
        finally:
            os.close(self._handle)


_FILES: dict[str, type[_File]] = {".wav": _WavFile, ".flac": _FlacFile}
