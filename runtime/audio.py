"""Audio as every later stage wants it: float32, mono, 16 kHz, full scale 1.0."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.decoding import AudioFile, open_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.interruptible import interruptibly
from edgeser.runtime.scale import check_scale, to_float

SAMPLE_RATE = 16_000
"""Hz; the rate of every frontend."""

_RATES = (4_000, 384_000)
_MAX_CHANNELS = 16
_BLOCK = 65_536  # frames that are read at once
_MARGIN = 4_000  # samples around a part that resampling sees: more than its filter is long

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Recorded:
    """What a recording, or a part of one, holds.

    Attributes:
        samples: `(samples,)` float32, mono, 16 kHz, full scale 1.0.
        truncated: The file ends, within this part, before its header says, or broke off there.
    """

    samples: Samples
    truncated: bool = False


def read_audio(path: str | os.PathLike[str]) -> tuple[Samples, int]:
    """Read a recording as it is stored; see `open_audio` for the formats.

    A file that is cut short is read to its end, with a warning that names it.

    Returns:
        Samples, `(samples,)` or `(samples, channels)` float32 at full scale 1.0, and the rate in Hz.

    Raises:
        InputError: The file is missing, unreadable, or holds no samples.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    with open_audio(path) as file:
        samples = np.concatenate(list(_blocks(file, None)))
        return samples[:, 0] if file.channels == 1 else samples, file.rate


def load_audio(path: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> Samples:
    """Read an audio file, or the part from `start_s` to `end_s`, as `(samples,)` float32, mono, 16 kHz.

    See `load_recording`.
    """
    return load_recording(path, start_s, end_s).samples


def load_recording(path: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None) -> Recorded:
    """Read a recording, or the part from `start_s` to `end_s`: the samples, and whether they end too early.

    Channels are averaged, whatever they are. Of a part no more is read than it needs: codings with fixed places for
    samples are entered there, others decoded from the start. A file that is cut short is read to its end, with a
    warning that names it.

    Raises:
        InputError: The file is missing, unreadable, or holds no samples or unusable ones.
        MissingDependencyError: It is a video, and PyAV is not installed.
    """
    _check_extent(path, start_s, end_s)
    first = round(start_s * SAMPLE_RATE)
    last = None if end_s is None else round(end_s * SAMPLE_RATE)
    with open_audio(path) as file:
        with _named(path):
            check_rate(file.rate)
        lead, count = _extent(first, last, file.rate)
        file.skip(lead * file.rate // SAMPLE_RATE)
        mono = _joined([_mono(path, block) for block in _blocks(file, count)])
        with _named(path):
            samples = resample(mono, file.rate, SAMPLE_RATE) if mono.size else mono
        part = samples[first - lead : None if last is None else last - lead]
        return Recorded(part, file.truncated and (last is None or part.shape[0] < last - first))


def _joined(pieces: list[Samples]) -> Samples:
    """Join pieces one by one: hours of audio take seconds, and a signal waits for no more than a piece."""
    joined = np.empty(sum(piece.size for piece in pieces), np.float32)
    end = 0
    for piece in pieces:
        joined[end : end + piece.size] = piece
        end += piece.size
    return joined


def _extent(first: int, last: int | None, rate: int) -> tuple[int, int | None]:
    """Return what to read for the samples from `first` to `last` to be those that they are in the whole.

    Returns:
        The sample of 16 kHz to start from, and how many frames of `rate` to read; `None` for all.
    """
    margin = 0 if rate == SAMPLE_RATE else _MARGIN
    period = SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE)  # after so many, samples of both rates coincide again
    lead = max(0, first - margin) // period * period
    return lead, None if last is None else math.ceil((last - lead + margin) * rate / SAMPLE_RATE)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in what is raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _mono(path: str | os.PathLike[str], block: Samples) -> Samples:
    with _named(path):
        mono: Samples = to_float(block).mean(axis=1, dtype=np.float32)
        return mono


def _blocks(file: AudioFile, count: int | None) -> Iterator[Samples]:
    """Yield `(frames, channels)` until there were `count` frames or the end is met."""
    while count is None or count > 0:
        block = file.read(_BLOCK if count is None else min(count, _BLOCK))
        if block.shape[0] == 0:
            return
        yield block
        if count is not None:
            count -= block.shape[0]


def _check_extent(path: str | os.PathLike[str], start_s: float, end_s: float | None) -> None:
    if not (math.isfinite(start_s) and start_s >= 0.0):
        raise InputError(f"{path}: start_s is {start_s}, expected 0 or more")
    if end_s is not None and not start_s <= end_s < math.inf:
        raise InputError(f"{path}: end_s is {end_s}, expected start_s, {start_s}, or more")


def prepare(samples: NDArray[np.generic], rate: int) -> Samples:
    """Turn samples of any common kind into `(samples,)` float32, mono, 16 kHz, full scale 1.0.

    Args:
        samples: `(samples,)` or `(samples, channels)`; uint8, int16 or int32 PCM, or floats at full scale 1.0.
        rate: Sample rate in Hz, 4,000 to 384,000.

    Raises:
        InputError: Empty, not finite, of another shape or type, floats on an integer scale, or integers whose scale
            cannot be known; see `check_scale`.
    """
    given = np.asarray(samples)
    mono = to_mono(to_float(given))
    check_scale(given)
    return resample(mono, rate, SAMPLE_RATE)


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
    check_rate(rate)
    if rate == target:
        return samples
    import soxr

    # Of an hour it takes seconds: a signal does not wait for it.
    resampled: Samples = interruptibly(lambda: soxr.resample(samples, rate, target, quality="HQ"))
    if resampled.size == 0:
        raise InputError(f"audio: got {samples.size} samples at {rate} Hz, too few for one at {target} Hz")
    return resampled


def check_rate(rate: float) -> None:
    """Refuse a sample rate that no recording has."""
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(f"audio: got a rate of {rate} Hz, expected {_RATES[0]} to {_RATES[1]}")
