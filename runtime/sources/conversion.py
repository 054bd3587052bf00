"""Any audio, chunk by chunk, to float32, mono, 16 kHz: `runtime.audio.prepare` for streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, resample, to_mono
from edgeser.runtime.errors import InputError
from edgeser.runtime.scale import check_bytes, to_float
from edgeser.runtime.sources.base import nothing

MAX_CHANNELS = 16  # as in `to_mono`


@dataclass(frozen=True)
class Chunk:
    """Audio that is usable: checked, mixed to mono, not yet resampled.

    Attributes:
        samples: `(n,)` float32 at full scale 1.0.
        rate: Sample rate in Hz.
        channels: That it came in.
    """

    samples: Samples
    rate: float
    channels: int

    @classmethod
    def of(cls, samples: NDArray[np.generic], rate: float) -> Chunk:
        """Check and mix `(n,)` or `(n, channels)`: uint8, int16 or int32 PCM, or floats at full scale 1.0; n may be 0.

        Raises:
            InputError: Not finite, of another shape or type, floats on an integer scale, or uint8 that holds the bytes
                of wider samples. What an int32 chunk holds is not known from it: it is taken for 32 bits.
        """
        given = np.asarray(samples)
        if given.size == 0:
            return cls(nothing(), rate, 0)
        check_bytes(given)
        return cls(_mono(given), rate, given.shape[1] if given.ndim == 2 else 1)

    def pieces(self, count: int) -> Iterator[Chunk]:
        """Yield it in pieces of `count` samples at most; one that is empty is a piece too."""
        for begin in range(0, max(1, self.samples.shape[0]), count):
            yield replace(self, samples=self.samples[begin : begin + count])


class Converter:
    """Converts one recording in chunks of any size, from any thread.

    The samples do not depend on how the audio is cut, and all together equal `prepare` of the whole within 1e-6.
    Resampling looks ahead and works in blocks, so the output lags by up to 37 ms at 48 kHz, 41 ms at 44.1 kHz, 116 ms
    at 8 kHz and 229 ms at 4 kHz; `flush` brings the rest. A refused chunk changes nothing: the next one continues the
    audio before.

    Args:
        rate: Sample rate in Hz, 4,000 to 384,000.
        channels: Of every chunk; by default as many as the first one has.

    Raises:
        InputError: A rate out of range.
    """

    def __init__(self, rate: float, channels: int | None = None) -> None:
        resample(np.zeros(64, np.float32), rate, SAMPLE_RATE)  # refuses what `prepare` refuses, in the same words
        self.rate = rate
        self._channels = channels
        self._turn = threading.Lock()  # soxr ends the process when two threads use one resampler
        self._resampler = self._start()

    def __call__(self, chunk: NDArray[np.generic]) -> Samples:
        """Convert samples, see `Chunk.of`.

        Raises:
            InputError: They are not usable, or have other channels than before.
        """
        return self.convert(Chunk.of(chunk, self.rate))

    def convert(self, chunk: Chunk) -> Samples:
        """Resample a chunk of this converter's rate.

        Raises:
            InputError: It has other channels than before.
        """
        if chunk.samples.size == 0:
            return nothing()
        with self._turn:
            if self._channels not in (None, chunk.channels):
                raise InputError(
                    f"audio: got {chunk.channels} channels, expected {self._channels}: open a stream for each kind"
                )
            self._channels = chunk.channels
            if self._resampler is None:
                return chunk.samples
            resampled: Samples = self._resampler.resample_chunk(np.ascontiguousarray(chunk.samples))
            return resampled

    def flush(self) -> Samples:
        """End the recording: return what resampling still held back. A chunk after it starts a new one."""
        with self._turn:
            if self._resampler is None:
                return nothing()
            rest: Samples = self._resampler.resample_chunk(nothing(), last=True)
            self._resampler = self._start()
            return rest

    def _start(self) -> Any:
        if self.rate == SAMPLE_RATE:
            return None
        import soxr

        return soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class Intake:
    """Converts chunks whose rate may change on the way; each stretch of one rate is a recording of its own."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._converter: Converter | None = None

    def __call__(self, chunk: NDArray[np.generic], rate: float) -> Samples:
        """Convert samples, see `Chunk.of`; where the rate changes, the rest of what came before goes first.

        Raises:
            InputError: The samples or the rate are not usable; the next chunk continues the audio before.
        """
        return self.convert(Chunk.of(chunk, rate))

    def convert(self, chunk: Chunk) -> Samples:
        """Convert a chunk that is checked already.

        Raises:
            InputError: The rate or the number of channels is not usable.
        """
        with self._turn:
            if self._converter is not None and self._converter.rate == chunk.rate:
                return self._converter.convert(chunk)
            following = Converter(chunk.rate)
            samples = following.convert(chunk)
            rest = nothing() if self._converter is None else self._converter.flush()
            self._converter = following
            return np.concatenate([rest, samples]) if rest.size else samples

    def flush(self) -> Samples:
        """Return what resampling still held back."""
        with self._turn:
            return nothing() if self._converter is None else self._converter.flush()


def _mono(samples: NDArray[np.generic]) -> Samples:
    floats = to_float(samples)
    if floats.ndim == 2 and floats.shape[0] < floats.shape[1] <= MAX_CHANNELS:
        # Few rows of many channels: to `to_mono` a recording that was not transposed, here the end of a block.
        few: Samples = floats.mean(axis=1, dtype=np.float32)
        return few
    return to_mono(floats)
