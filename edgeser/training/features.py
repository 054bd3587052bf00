"""Features of a corpus, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from edgeser.corpora import Utterance
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing
from edgeser.runtime.frontends import LogMel
from edgeser.runtime.frontends.base import Rows

_SCHEME = 1  # raise it when the same configuration starts to give other numbers


class FeatureCache:
    """Log-mel energies by frontend configuration and audio content.

    The key is a hash of the frontend's options, the playing speed, the extent, and the bytes of the audio
    file: a changed recording or option is computed anew, a moved or renamed file is not.

    Args:
        frontend: The frontend, before its statistics are known: energies are kept, not normalised rows.
        folder: Where the features lie; `None` for the user's cache folder.
    """

    def __init__(self, frontend: LogMel, folder: Path | None = None) -> None:
        self.frontend = frontend
        self.folder = folder or cache_folder() / "features"
        self._digests: dict[Path, str] = {}

    def energies(self, utterance: Utterance, speed: float = 1.0) -> Rows:
        """Return `(n, bins)` float32 energies of an utterance played at `speed`, not cropped."""
        file = self._file(utterance, speed)
        if file.is_file():
            rows: Rows = np.load(file, allow_pickle=False)
            return rows
        rows = self.frontend.energies(play(load_utterance(utterance), speed))
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as out:
            np.save(out, rows)
        return rows

    def corpus(self, utterances: Sequence[Utterance], speeds: Sequence[float]) -> dict[tuple[str, float], Rows]:
        """Return the energies of every distinct recording at every speed, by `(audio key, speed)`."""
        recordings = {audio_key(u): u for u in utterances}
        tasks = [(key, u, speed) for key, u in recordings.items() for speed in speeds]
        bar = tqdm(tasks, desc="features", unit="clip", leave=False)
        return {(key, speed): self.energies(u, speed) for key, u, speed in bar}

    def _file(self, utterance: Utterance, speed: float) -> Path:
        if utterance.audio not in self._digests:
            if not utterance.audio.is_file():
                raise InputError(f"{utterance.audio}: no such file (utterance {utterance.id})")
            self._digests[utterance.audio] = hashlib.sha256(utterance.audio.read_bytes()).hexdigest()
        what = {
            "scheme": _SCHEME,
            "kind": self.frontend.kind,
            "options": self.frontend.options(),
            "speed": speed,
            "extent": [utterance.start_s, utterance.end_s],
            "audio": self._digests[utterance.audio],
        }
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"


def audio_key(utterance: Utterance) -> str:
    """Name an utterance's recording; utterances that share it share their audio features."""
    return "|".join(map(str, utterance.recording))


def load_utterance(utterance: Utterance) -> Samples:
    """Read an utterance's samples, `(samples,)` float32 mono at 16 kHz."""
    return load_audio(utterance.audio, utterance.start_s, utterance.end_s)


def play(samples: Samples, speed: float) -> Samples:
    """Play samples faster or slower, pitch and all, as a tape would."""
    if speed == 1.0:
        return samples
    played: Samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)
    return played


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/edgeser`, by default `~/.cache/edgeser`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeser"


def statistics(energies: Sequence[Rows]) -> tuple[Rows, Rows]:
    """Return the mean and standard deviation `(bins,)` over all rows."""
    count = sum(rows.shape[0] for rows in energies)
    mean = sum(rows.sum(axis=0, dtype=np.float64) for rows in energies) / count
    variance = sum(((rows - mean) ** 2).sum(axis=0, dtype=np.float64) for rows in energies) / count
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-8)).astype(np.float32)
