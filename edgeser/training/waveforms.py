"""What a room, a line, a microphone and others do to a recording, done to its samples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends.speech_rows import active_power

_FRAME = 320  # samples of 20 ms, in which speech and pauses are told apart
_PAUSE_DB = 60.0  # of a noise: what is this far under its loudest frame is left out, ESC's clips are filled with zeros
_TELEPHONE_HZ = (300.0, 3400.0)
_TELEPHONE_RATE = 8000
_MU = 255.0
_TILT_HZ = 1000.0  # where a tilt changes nothing
_TILT_OCTAVES = (-4.0, 3.0)  # 62.5 Hz to 8 kHz; below, a tilt stays as it is there
_EDGE = 2048  # samples of silence that keep a filter's end from reaching round to its start


@dataclass(frozen=True)
class AcousticCondition:
    """What is done to a recording, in this order. Equal conditions give equal samples.

    Attributes:
        cut_s: Seconds of it that are left, from where much of its energy is; 0 for all.
        cut_place: Which of the stretches that hold at least half the energy that any can, as a share of them.
        speed: Playing speed, pitch and all; 1 for as it is.
        room: File of an impulse response; empty for none.
        noise: File of a noise, repeated where it is too short; empty for none.
        noise_offset: Where the noise begins, as a share of it.
        noise_snr_db: Power of the speech in its active frames over that of the noise.
        babble: Files of other voices, equally loud.
        babble_snr_db: The same for their sum.
        tilt_db: Of the microphone, dB per octave, 0 at 1 kHz.
        clipping: Share of the samples that are clipped, the loudest.
        telephone: Whether it goes through a telephone: 300 to 3,400 Hz, 8 kHz, 8 bits of mu-law.
        gain_db: Of the device; what is then above full scale is clipped.
        level_db: Peak level that the whole is brought to, dBFS; `None` for as it is.
    """

    cut_s: float = 0.0
    cut_place: float = 0.0
    speed: float = 1.0
    room: str = ""
    noise: str = ""
    noise_offset: float = 0.0
    noise_snr_db: float = 20.0
    babble: tuple[str, ...] = ()
    babble_snr_db: float = 20.0
    tilt_db: float = 0.0
    clipping: float = 0.0
    telephone: bool = False
    gain_db: float = 0.0
    level_db: float | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed <= 2.0:
            raise InputError(f"condition: got speed {self.speed}, expected 0.5 to 2")
        shares = (self.noise_offset, self.cut_place)
        if not 0.0 <= self.clipping < 1.0 or not all(0.0 <= share <= 1.0 for share in shares):
            raise InputError(f"condition: got clipping {self.clipping}, offset and place {shares}, expected shares")
        if not 0.0 <= self.cut_s < np.inf:
            raise InputError(f"condition: got cut_s {self.cut_s}, expected seconds")
        numbers = (self.noise_snr_db, self.babble_snr_db, self.tilt_db, self.gain_db, self.level_db or 0.0)
        if not np.isfinite(numbers).all():
            raise InputError(f"condition: got {numbers} dB, expected finite numbers")
        if self.level_db is not None and self.level_db > 0.0:
            raise InputError(f"condition: got a peak level of {self.level_db} dBFS, expected at most 0")

    def identity(self) -> dict[str, Any]:
        """Return plain JSON values with the content of files in place of their names: what a cache keys on."""
        values = dataclasses.asdict(self)
        values["room"], values["noise"] = _digest(self.room), _digest(self.noise)
        values["babble"] = [_digest(file) for file in self.babble]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def apply(samples: Samples, condition: AcousticCondition) -> Samples:
    """Do to a recording what a condition says.

    Args:
        samples: `(samples,)` float32 at 16 kHz.
        condition: What is done.

    Returns:
        `(samples / speed,)` float32, or those of what was cut out, finite, within -1 and 1.

    Raises:
        InputError: A file of the condition is not usable.
    """
    samples = cut(samples, condition.cut_s, condition.cut_place)
    played = play(samples, condition.speed).astype(np.float64)
    if condition.room:
        played = reverberate(played, _sound(condition.room))
    if condition.noise:
        noise = _repeat(_without_pauses(condition.noise), played.size, condition.noise_offset)
        played = mix(played, noise, condition.noise_snr_db)
    if condition.babble:
        played = mix(played, _babble(condition.babble, played.size), condition.babble_snr_db)
    if condition.tilt_db:
        played = tilt(played, condition.tilt_db)
    played = _within(played)
    if condition.clipping:
        limit = float(np.quantile(np.abs(played), 1.0 - condition.clipping)) if played.size else 0.0
        played = np.clip(played, -limit, limit)
    if condition.telephone:
        played = _within(telephone(played))
    if condition.gain_db:
        played = np.clip(played * _ratio(condition.gain_db), -1.0, 1.0)
    peak = float(np.abs(played).max(initial=0.0))
    if condition.level_db is not None and peak > 0.0:
        played = played * (_ratio(condition.level_db) / peak)
    return played.astype(np.float32)


def cut(samples: Samples, seconds: float, place: float) -> Samples:
    """Return a stretch of so many seconds: of those with at least half the energy that any has, the one at `place`."""
    size = round(seconds * SAMPLE_RATE)
    if not 0 < size < samples.size:
        return samples
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    held = energy[size:] - energy[:-size]
    starts = np.flatnonzero(held >= held.max() / 2)
    start = starts[round(place * (starts.size - 1))]
    return samples[start : start + size]


def play(samples: Samples, speed: float) -> Samples:
    """Play samples faster or slower, pitch and all, as a tape would."""
    if speed == 1.0:
        return samples
    played: Samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)
    return played


_Signal = NDArray[np.float64]


def speech_power(samples: NDArray[Any]) -> float:
    """Return the mean power over speech-active frames: of 20 ms, at most 30 dB under the loudest one."""
    powers = _frame_powers(samples)
    return active_power(powers) if powers.size else 0.0


def mix(speech: _Signal, noise: _Signal, snr_db: float) -> _Signal:
    """Add noise so that the power of the active speech is `snr_db` over the noise's; silence stays what it is."""
    power, wanted = float(np.mean(noise**2)) if noise.size else 0.0, speech_power(speech) / 10 ** (snr_db / 10)
    if power == 0.0 or wanted == 0.0:
        return speech
    mixed: _Signal = speech + noise * np.sqrt(wanted / power)
    return mixed


def reverberate(speech: _Signal, response: Samples) -> _Signal:
    """Play speech in a room, as long and its active frames as loud as before."""
    size = speech.size + response.size - 1
    length = 1 << (size - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(speech, length) * np.fft.rfft(response, length), length)[: speech.size]
    before, after = speech_power(speech), speech_power(heard)
    return heard * np.sqrt(before / after) if before > 0.0 and after > 0.0 else speech


def tilt(samples: _Signal, db_per_octave: float) -> _Signal:
    """Make the highs louder or softer than the lows, by so many dB an octave, without delay."""

    def gain(hertz: _Signal) -> _Signal:
        octaves = np.clip(np.log2(np.maximum(hertz, 1.0) / _TILT_HZ), *_TILT_OCTAVES)
        decibels: _Signal = 10.0 ** (octaves * db_per_octave / 20.0)
        return decibels

    return _filter(samples, SAMPLE_RATE, gain)


def telephone(samples: _Signal) -> _Signal:
    """Send samples through a telephone: 300 to 3,400 Hz at 8 kHz, 8 bits of mu-law."""
    narrow = soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE)
    low, high = _TELEPHONE_HZ

    def band(hertz: _Signal) -> _Signal:
        # Half a cosine of 100 Hz at either edge, so that the band does not ring.
        edge = np.clip((hertz - low) / 100.0 + 1.0, 0.0, 1.0) * np.clip((high - hertz) / 100.0 + 1.0, 0.0, 1.0)
        passed: _Signal = 0.5 - 0.5 * np.cos(np.pi * edge)
        return passed

    wide = soxr.resample(mu_law(_filter(narrow, _TELEPHONE_RATE, band)), _TELEPHONE_RATE, SAMPLE_RATE)
    return _fit(np.asarray(wide, np.float64), samples.size)


def mu_law(samples: _Signal) -> _Signal:
    """Round samples to the 256 levels of mu-law, G.711's curve."""
    pressed = np.sign(samples) * np.log1p(_MU * np.minimum(np.abs(samples), 1.0)) / np.log1p(_MU)
    stepped = np.round(pressed * 127.0) / 127.0
    rounded: _Signal = np.sign(stepped) * np.expm1(np.abs(stepped) * np.log1p(_MU)) / _MU
    return rounded


def _filter(samples: _Signal, rate: int, gain: Callable[[_Signal], _Signal]) -> _Signal:
    """Multiply the spectrum by a gain that depends on the frequency in hertz."""
    length = 1 << (samples.size + _EDGE - 1).bit_length()
    spectrum = np.fft.rfft(samples, length) * gain(np.fft.rfftfreq(length, 1.0 / rate).astype(np.float64))
    filtered: _Signal = np.fft.irfft(spectrum, length)[: samples.size]
    return filtered


def _babble(files: Sequence[str], size: int) -> _Signal:
    """Add voices up, each as loud as the others, each from a place of its own that its name and order give."""
    total = np.zeros(size)
    for place, file in enumerate(files):
        voice = _without_pauses(file)
        power = float(np.mean(voice**2))
        if power > 0.0:
            total += _repeat(voice, size, (place * 0.618) % 1.0) / np.sqrt(power)
    return total


def _repeat(sound: _Signal, size: int, offset: float) -> _Signal:
    start = int(offset * sound.size)
    return np.resize(np.roll(sound, -start), size)


def _within(samples: _Signal) -> _Signal:
    """Make samples softer where their peak is above full scale."""
    return samples / max(1.0, float(np.abs(samples).max(initial=0.0)))


def _fit(samples: _Signal, size: int) -> _Signal:
    return np.pad(samples, (0, max(0, size - samples.size)))[:size]


def _frame_powers(samples: NDArray[Any]) -> _Signal:
    """Return the mean power of each whole frame; of what is shorter than one, of all of it."""
    if 0 < samples.size < _FRAME:
        return np.array([np.mean(np.square(samples, dtype=np.float64))])
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    powers: _Signal = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return powers


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))


@lru_cache(maxsize=256)
def _sound(file: str) -> Samples:
    return load_audio(file)


@lru_cache(maxsize=256)
def _without_pauses(file: str) -> _Signal:
    """Return a sound without its silent frames, so that any stretch of it is heard."""
    sound = _sound(file).astype(np.float64)
    powers = _frame_powers(sound)
    if sound.size < _FRAME or not powers.max():
        return sound
    heard = powers > powers.max() / 10 ** (_PAUSE_DB / 10)
    kept: _Signal = sound[: powers.size * _FRAME].reshape(-1, _FRAME)[heard].ravel()
    return kept


@lru_cache(maxsize=4096)
def _digest(file: str) -> str:
    if not file:
        return ""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}: a condition needs it") from error
