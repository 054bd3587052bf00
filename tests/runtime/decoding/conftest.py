from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.sources import FileSource

TAKEN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
SIZED = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF")
# libsndfile lists them, and then writes another rate, other channels or nothing.
NOT_WRITTEN = ("DWVW_12", "DWVW_16", "DWVW_24", "MPEG_LAYER_I", "MPEG_LAYER_II")

Write = Callable[..., Path]
Hear = Callable[[Path], Samples]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for a `coded` with every container and coding that libsndfile writes and we take.

    Those that ask for a `sized` get what states the length of its samples in bytes.
    """
    pairs = [(kind, coding) for kind in TAKEN for coding in soundfile.available_subtypes(kind)]
    pairs = [pair for pair in pairs if soundfile.check_format(*pair) and pair[1] not in NOT_WRITTEN]
    pairs.remove(("WAV", "MPEG_LAYER_III"))
    for name, kinds in (("coded", TAKEN), ("sized", SIZED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [pair for pair in pairs if pair[0] in kinds], ids="-".join)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recording."""

    def written(kind: str, coding: str, samples: Samples, rate: int = SAMPLE_RATE) -> Path:
        file = tmp_path / f"{kind}-{coding}.{kind.lower()}"
        soundfile.write(file, samples, rate, format=kind, subtype=coding)
        return file

    return written


@pytest.fixture
def heard() -> Hear:
    """Returns what a stream hears of a file."""

    def hear(path: Path) -> Samples:
        with FileSource(path) as source:
            parts = []
            while (part := source.read(1.0)) is not None:
                parts.append(part)
        return np.concatenate(parts)

    return hear
