"""Any audio, chunk by chunk, to float32, mono, 16 kHz: `runtime.audio.prepare` for streams."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, resample, to_float, to_mono
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources.base import nothing

MAX_CHANNELS = 16  # as in `to_mono`


class Converter:
    """Converts one recording in chunks of any size.

    The samples do not depend on how the audio is cut, and all together equal `prepare` of the whole within 1e-6.
    Resampling looks ahead and works in blocks, so the output lags by up to 37 ms at 48 kHz, 41 ms at 44.1 kHz and
    116 ms at 8 kHz; `flush` brings the rest. A refused chunk changes nothing: the next one continues the audio before.

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
        self._resampler = self._start()

    def __call__(self, chunk: NDArray[np.generic]) -> Samples:
        """Convert `(n,)` or `(n, channels)`: uint8, int16 or int32 PCM, or floats at full scale 1.0; n may be 0.

        Raises:
            InputError: Not finite, of another shape or type, other channels than before, or floats on an integer scale.
        """
        samples = np.asarray(chunk)
        if samples.size == 0:
            return nothing()
        mono = _mono(samples)
        channels = samples.shape[1] if samples.ndim == 2 else 1
        if self._channels not in (None, channels):
            raise InputError(f"audio: got {channels} channels, expected {self._channels}: open a stream for each kind")
        self._channels = channels
        if self._resampler is None:
            return mono
        resampled: Samples = self._resampler.resample_chunk(np.ascontiguousarray(mono))
        return resampled

    def flush(self) -> Samples:
        """End the recording: return what resampling still held back. A chunk after it starts a new one."""
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
        self._converter: Converter | None = None

    def __call__(self, chunk: NDArray[np.generic], rate: float) -> Samples:
        """Convert a chunk, see `Converter`; where the rate changes, the rest of what came before goes first.

        Raises:
            InputError: The chunk or the rate is not usable; the next chunk continues the audio before.
        """
        if self._converter is not None and self._converter.rate == rate:
            return self._converter(chunk)
        following = Converter(rate)
        samples = following(chunk)
        rest = self.flush()
        self._converter = following
        return np.concatenate([rest, samples]) if rest.size else samples

    def flush(self) -> Samples:
        """Return what resampling still held back."""
        return nothing() if self._converter is None else self._converter.flush()


def _mono(samples: NDArray[np.generic]) -> Samples:
    floats = to_float(samples)
    if floats.ndim == 2 and floats.shape[0] < floats.shape[1] <= MAX_CHANNELS:
        # Few rows of many channels: to `to_mono` a recording that was not transposed, here the end of a block.
        few: Samples = floats.mean(axis=1, dtype=np.float32)
        return few
    return to_mono(floats)
