"""Copies of a corpus as other devices would have recorded it: each domain with a room, a noise and a microphone."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeser.corpora import Utterance
from edgeser.runtime.errors import InputError
from edgeser.training.noises import NoiseBank
from edgeser.training.waveforms import AcousticCondition

_SHARES = ("speed", "room", "noise", "babble", "tilt", "clipping", "telephone", "gain")


@dataclass(frozen=True)
class Copy(Utterance):
    """An utterance as it would have been recorded under a condition.

    Attributes:
        condition: The condition.
        copy: Which copy it is, from 1 on.
    """

    condition: AcousticCondition = field(default_factory=AcousticCondition)
    copy: int = 0

    @property
    def original(self) -> str:
        """Id of what it is a copy of."""
        return self.id.rpartition("#")[0]


def copy_key(utterance: Utterance) -> tuple[int, ...]:
    """Tell a copy from its recording and from other copies; nothing for what is none."""
    return (utterance.copy,) if isinstance(utterance, Copy) else ()


@dataclass(frozen=True)
class WaveAugmentation:
    """How copies of a recording differ from it.

    Attributes:
        seed: Of the conditions; another one than the recipe's, so that repeated runs share the rows that were computed.
        cut_share: Share of the copies that are a short stretch of the recording; drawn for each of them.
        cut_s: Shortest and longest stretch, seconds.
        noise_share: Share of the conditions with noise.
        noise_snr_db: Lowest and highest signal-to-noise ratio.
        babble_share: Share with other voices.
        babble_snr_db: Lowest and highest ratio to them.
        voices: Fewest and most other voices.
        room_share: Share with a room.
        telephone_share: Share that a telephone carries.
        tilt_share: Share with another microphone.
        tilt_db: Its tilt, at most this many dB an octave up or down.
        clipping_share: Share that clips.
        clipping: At most this share of the samples.
        gain_share: Share with another gain.
        gain_db: Lowest and highest gain.
        speed_share: Share played at another speed.
        speeds: Lowest and highest speed; pitch and pace carry emotion, so they stay close to 1.
    """

    seed: int = 1
    cut_share: float = 0.3
    cut_s: tuple[float, float] = (0.7, 1.6)
    noise_share: float = 0.5
    noise_snr_db: tuple[float, float] = (5.0, 25.0)
    babble_share: float = 0.25
    babble_snr_db: tuple[float, float] = (5.0, 25.0)
    voices: tuple[float, float] = (2.0, 6.0)
    room_share: float = 0.4
    telephone_share: float = 0.2
    tilt_share: float = 0.4
    tilt_db: float = 2.0
    clipping_share: float = 0.1
    clipping: float = 0.03
    gain_share: float = 0.5
    gain_db: tuple[float, float] = (-30.0, 6.0)
    speed_share: float = 0.3
    speeds: tuple[float, float] = (0.95, 1.05)

    def __post_init__(self) -> None:
        for name in (*(f"{one}_share" for one in ("cut", *_SHARES)), "clipping"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"recipe: wave: got {name} {getattr(self, name)}, expected 0 to 1")
        for name in ("cut_s", "noise_snr_db", "babble_snr_db", "voices", "gain_db", "speeds"):
            low, high = getattr(self, name)
            if not low <= high:
                raise InputError(f"recipe: wave: got {name} {low} to {high}, expected the lower one first")
        if self.cut_s[0] <= 0.0:
            raise InputError(f"recipe: wave: got cut_s {self.cut_s}, expected more than 0 s")
        if self.voices[0] < 1 or not 0.9 <= self.speeds[0] <= self.speeds[1] <= 1.1:
            raise InputError(
                f"recipe: wave: got voices {self.voices}, speeds {self.speeds}, expected 1 or more, 0.9 to 1.1"
            )

    def draw(self, rng: np.random.Generator, bank: NoiseBank) -> AcousticCondition:
        """Draw a condition; without noises, rooms or voices in the bank there are none in it."""
        has = {name: bool(rng.random() < getattr(self, f"{name}_share")) for name in _SHARES}
        noise = _choice(bank.noises, rng) if has["noise"] else ""
        condition = AcousticCondition(
            speed=float(rng.uniform(*self.speeds)) if has["speed"] else 1.0,
            room=_choice(bank.rooms, rng) if has["room"] else "",
            noise=noise,
            noise_snr_db=float(rng.uniform(*self.noise_snr_db)),
            babble=bank.voices[:1] if has["babble"] else (),
            babble_snr_db=float(rng.uniform(*self.babble_snr_db)),
            tilt_db=float(rng.uniform(-self.tilt_db, self.tilt_db)) if has["tilt"] else 0.0,
            clipping=float(rng.uniform(0.0, self.clipping)) if has["clipping"] else 0.0,
            telephone=has["telephone"],
            gain_db=float(rng.uniform(*self.gain_db)) if has["gain"] else 0.0,
        )
        return self.vary(condition, rng, bank)

    def vary(
        self, condition: AcousticCondition, rng: np.random.Generator, bank: NoiseBank, own: str = ""
    ) -> AcousticCondition:
        """Draw anew what differs between recordings of one device: how short, where in the noise, who else talks."""
        babble: tuple[str, ...] = ()
        if condition.babble:
            count = int(rng.integers(int(self.voices[0]), int(self.voices[1]) + 1))
            chosen = rng.choice(len(bank.voices), min(count, len(bank.voices)), replace=False)
            babble = tuple(bank.voices[place] for place in chosen if bank.voices[place] != own)
        return dataclasses.replace(
            condition,
            noise_offset=float(rng.random()),
            babble=babble,
            cut_s=float(rng.uniform(*self.cut_s)) if rng.random() < self.cut_share else 0.0,
            cut_place=float(rng.random()),
        )


def copies(
    utterances: Sequence[Utterance], count: int, augmentation: WaveAugmentation, bank: NoiseBank, seed: int = 1
) -> list[Copy]:
    """Return `count` copies of every utterance; those of one speaker and copy share a room, a noise and a microphone.

    Babble is made of recordings of the same corpus and session, so that nothing of a session or corpus that is held
    out is heard in what trains.
    """
    around: dict[tuple[str, str], set[str]] = {}
    for one in utterances:
        around.setdefault((one.corpus, one.session), set()).add(str(one.audio))
    banks = {name: dataclasses.replace(bank, voices=tuple(sorted(files))) for name, files in around.items()}
    made = []
    for number in range(1, count + 1):
        domains: dict[tuple[str, str], AcousticCondition] = {}
        for utterance in utterances:
            domain = (utterance.corpus, utterance.speaker or utterance.id)
            near = banks[utterance.corpus, utterance.session]
            if domain not in domains:
                domains[domain] = augmentation.draw(_rng(seed, number, *domain), near)
            rng = _rng(seed, number, *domain, utterance.audio.name, *map(str, utterance.recording[1:]))
            made.append(copy_of(utterance, augmentation.vary(domains[domain], rng, near, str(utterance.audio)), number))
    return made


def copy_of(utterance: Utterance, condition: AcousticCondition, number: int = 1) -> Copy:
    """Return an utterance under a condition; its id tells the copy."""
    values = {one.name: getattr(utterance, one.name) for one in dataclasses.fields(Utterance)}
    return Copy(**{**values, "id": f"{utterance.id}#{number}"}, condition=condition, copy=number)


def _choice(files: Sequence[str], rng: np.random.Generator) -> str:
    return files[int(rng.integers(len(files)))] if files else ""


def _rng(seed: int, number: int, *names: str) -> np.random.Generator:
    return np.random.default_rng((seed, number, zlib.crc32("|".join(names).encode())))
