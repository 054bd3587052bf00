"""Audio as every later stage wants it: float32, mono, 16 kHz, full scale 1.0."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError
from edgeser.runtime.video import is_video, read_video_audio

SAMPLE_RATE = 16_000
"""Hz; the rate of every frontend."""

_RATES = (4_000, 384_000)
_MAX_CHANNELS = 16
_FLOAT_LIMIT = 16.0  # a float signal on the int16 scale peaks in the hundreds or thousands

Samples = NDArray[np.float32]


def read_audio(path: str | os.PathLike[str]) -> tuple[Samples, int]:
    """Read a WAV, FLAC or OGG file (whatever libsndfile decodes) as it is stored, or the sound of a video.

    Returns:
        Samples, `(samples,)` or `(samples, channels)` float32 at full scale 1.0, and the rate in Hz.

    Raises:
        InputError: The file is missing, unreadable, or holds no samples.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    import soundfile  # here, so that `import edgeser` loads no audio library

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if is_video(file):
        return read_video_audio(file)
    try:
        samples, rate = soundfile.read(file, dtype="float32")
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: headerless `.raw`
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: not readable as audio ({reason}): expected WAV, FLAC or OGG") from error
    if samples.size == 0:
        raise InputError(f"{file}: holds no samples")
    return samples, int(rate)


def load_audio(path: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> Samples:
    """Read an audio file, or the part from `start_s` to `end_s`, as `(samples,)` float32, mono, 16 kHz.

    See `read_audio` and `prepare`.
    """
    samples, rate = read_audio(path)
    try:
        mono = prepare(samples, rate)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    end = mono.shape[0] if end_s is None else round(end_s * SAMPLE_RATE)
    return mono[round(start_s * SAMPLE_RATE) : end]


def prepare(samples: NDArray[np.generic], rate: int) -> Samples:
    """Turn samples of any common kind into `(samples,)` float32, mono, 16 kHz, full scale 1.0.

    Args:
        samples: `(samples,)` or `(samples, channels)`; uint8, int16 or int32 PCM, or floats at full scale 1.0.
        rate: Sample rate in Hz, 4,000 to 384,000.

    Raises:
        InputError: Empty, not finite, of another shape or type, or floats on an integer scale.
    """
    mono = to_mono(to_float(np.asarray(samples)))
    return resample(mono, rate, SAMPLE_RATE)


def to_float(samples: NDArray[np.generic]) -> Samples:
    """Scale PCM of any width to float32 at full scale 1.0 (int16 / 32768 and its like)."""
    if samples.size == 0:
        raise InputError("audio: got no samples, expected at least one frame (25 ms)")
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128.0) / 128.0).astype(np.float32)
    if samples.dtype in (np.int16, np.int32):
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples.astype(np.float64) / full_scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise InputError(f"audio: got {samples.dtype}, expected uint8, int16, int32 or floats: convert first")
    floats = samples.astype(np.float32)
    if not np.isfinite(floats).all():
        raise InputError("audio: got NaN or infinity among the samples: repair the recording first")
    peak = float(np.abs(floats).max())
    if peak > _FLOAT_LIMIT:
        raise InputError(f"audio: got floats up to {peak:.0f}, expected full scale 1.0: divide 16-bit values by 32768")
    return floats


def to_mono(samples: Samples) -> Samples:
    """Average the channels of `(samples, channels)`; `(samples,)` comes back as it is."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2 or samples.shape[1] > min(_MAX_CHANNELS, samples.shape[0]):
        raise InputError(
            f"audio: got shape {samples.shape}, expected (samples,) or (samples, channels): "
            "mix to mono or transpose first"
        )
    mono: Samples = samples.mean(axis=1, dtype=np.float32)
    return mono


def resample(samples: Samples, rate: float, target: int) -> Samples:
    """Resample `(samples,)` float32 with a band-limited filter (soxr, high quality)."""
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(f"audio: got a rate of {rate} Hz, expected {_RATES[0]} to {_RATES[1]}")
    if rate == target:
        return samples
    import soxr

    resampled: Samples = soxr.resample(samples, rate, target, quality="HQ")
    if resampled.size == 0:
        raise InputError(f"audio: got {samples.size} samples at {rate} Hz, too few for one at {target} Hz")
    return resampled
