"""Features of a corpus: of recordings, computed once and kept on disk, and of lines, kept in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from edgeser.corpora import Utterance
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.caches import cache_folder
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing
from edgeser.runtime.frontends import AudioFrontend, Rows, Statistics, TextFrontend
from edgeser.runtime.frontends.statistics import STATISTICS

_SCHEME = 2  # raise it when the same configuration starts to give other numbers
_PUNCTUATION = re.compile(r"[^\w\s']+")


class RecordingFeatures:
    """Rows of recordings as a frontend extracts them, before its statistics are known.

    The key is a hash of the frontend's kind, options and files, the playing speed, the extent, and the bytes of the
    audio file: a changed recording or encoder is computed anew, a moved or renamed file is not.

    Args:
        frontend: The frontend.
        folder: Where the features lie; `None` for the user's cache folder.
    """

    def __init__(self, frontend: AudioFrontend, folder: Path | None = None) -> None:
        self.frontend = frontend
        self.folder = folder or cache_folder("features")
        files = {n: hashlib.sha256(c).hexdigest() for n, c in frontend.files().items() if n != STATISTICS}
        self._identity = {"kind": frontend.kind, "options": frontend.options(), "files": files}
        self._digests: dict[Path, str] = {}

    def rows(self, utterance: Utterance, speed: float = 1.0) -> Rows:
        """Return `(n, dim)` float32 rows of an utterance played at `speed`, not normalised, not padded."""
        file = self._file(utterance, speed)
        if file.is_file():
            rows: Rows = np.load(file, allow_pickle=False)
            return rows
        rows = self.frontend.extract(play(load_utterance(utterance), speed))
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as out:
            np.save(out, rows)
        return rows

    def prepare(self, utterances: Sequence[Utterance], speeds: Sequence[float]) -> None:
        """Compute what is missing: every distinct recording at every speed."""
        recordings = {audio_key(u): u for u in utterances}
        tasks = [(u, speed) for u in recordings.values() for speed in speeds]
        for utterance, speed in tqdm(tasks, desc="audio features", unit="clip", leave=False, disable=None):
            self.rows(utterance, speed)

    def statistics(self, utterances: Iterable[Utterance]) -> Statistics:
        """Return the statistics over every distinct recording of these utterances, as it was recorded."""
        recordings = {audio_key(u): u for u in utterances}
        return Statistics.of(self.rows(u) for u in recordings.values())

    def _file(self, utterance: Utterance, speed: float) -> Path:
        if utterance.audio not in self._digests:
            if not utterance.audio.is_file():
                raise InputError(f"{utterance.audio}: no such file (utterance {utterance.id})")
            self._digests[utterance.audio] = hashlib.sha256(utterance.audio.read_bytes()).hexdigest()
        what = {
            "scheme": _SCHEME,
            **self._identity,
            "speed": speed,
            "extent": [utterance.start_s, utterance.end_s],
            "audio": self._digests[utterance.audio],
        }
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"


class LineFeatures:
    """Rows of transcripts, as they are written and as a recogniser would write them, without punctuation.

    Args:
        frontend: The frontend.
    """

    def __init__(self, frontend: TextFrontend) -> None:
        self.frontend = frontend
        self._rows: dict[str, Rows] = {}

    def rows(self, utterance: Utterance, unmarked: bool = False) -> Rows:
        """Return `(n, dim)` float32 rows of an utterance's transcript, not padded.

        Args:
            utterance: The utterance.
            unmarked: Without punctuation.
        """
        text = utterance.transcript or ""
        if unmarked:
            text = " ".join(_PUNCTUATION.sub(" ", text).split())
        if text not in self._rows:
            self._rows[text] = self.frontend.rows(self.frontend.tokens(text)[: self.frontend.window])
        return self._rows[text]

    def prepare(self, utterances: Sequence[Utterance]) -> None:
        """Compute the rows of every transcript, both ways."""
        for utterance in tqdm(utterances, desc="text features", unit="line", leave=False, disable=None):
            self.rows(utterance)
            self.rows(utterance, unmarked=True)


def audio_key(utterance: Utterance) -> str:
    """Name an utterance's recording; utterances that share it share their audio features."""
    return "|".join(map(str, utterance.recording))


def play(samples: Samples, speed: float) -> Samples:
    """Play samples faster or slower, pitch and all, as a tape would."""
    if speed == 1.0:
        return samples
    played: Samples = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)
    return played
