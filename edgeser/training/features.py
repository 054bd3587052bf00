"""Features of a corpus: of recordings, computed once and kept on disk, and of lines, kept in memory."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgeser.corpora import Utterance
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.caches import cache_folder
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import check_room, replacing, writing
from edgeser.runtime.frontends import AudioFrontend, Rows, Statistics, TextFrontend
from edgeser.runtime.frontends.statistics import STATISTICS
from edgeser.training.copies import Copy, copy_key
from edgeser.training.waveforms import apply, play

log = logging.getLogger(__name__)

_SCHEME = 3  # raise it when the same configuration starts to give other numbers
_BYTES = 4  # of a float32
_PUNCTUATION = re.compile(r"[^\w\s']+")


class RecordingFeatures:
    """Rows of recordings as a frontend extracts them, before its statistics are known.

    The key is a hash of the frontend's kind, options and files, the playing speed, the extent, the bytes of the audio
    file and, of a `Copy`, its condition: a changed recording, noise or encoder is computed anew, a moved or renamed
    file is not.

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
        self._sound: set[Path] = set()  # files whose content was verified, once for all epochs
        self._means: dict[str, Rows] = {}

    def rows(self, utterance: Utterance, speed: float = 1.0) -> Rows:
        """Return `(n, dim)` float32 rows of an utterance played at `speed`, not normalised, not padded.

        What was kept and is damaged is computed again.

        Raises:
            InputError: The audio is not usable; the message names the utterance.
        """
        file = self._file(utterance, speed)
        rows = _read(file, checked=file in self._sound)
        if rows is None:
            rows = self._extract(utterance, speed)
            _write(file, rows)
        self._sound.add(file)
        return rows

    def prepare(
        self, utterances: Sequence[Utterance], speeds: Sequence[float], lengths: Mapping[Any, float] | None = None
    ) -> dict[str, str]:
        """Compute what is missing: every distinct recording at every speed.

        Args:
            utterances: Utterances.
            speeds: Playing speeds.
            lengths: By `Utterance.recording`, seconds: what to ask the disk's room by.

        Returns:
            By id, why an utterance cannot be used.

        Raises:
            EdgeSerError: There is no room for the features.
        """
        unusable: dict[str, str] = {}
        missing: list[tuple[Utterance, float]] = []
        recordings: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            recordings.setdefault(audio_key(utterance), []).append(utterance)
        for first, *_ in recordings.values():
            missing += [(first, speed) for speed in speeds if not self._file(first, speed).is_file()]
        self._check_room(missing, lengths or {})
        for utterance, speed in tqdm(missing, desc="audio features", unit="clip", leave=False, disable=None):
            try:
                self.rows(utterance, speed)
            except InputError as error:
                why = str(error).removeprefix(f"utterance {utterance.id}: ")
                unusable |= {one.id: why for one in recordings[audio_key(utterance)]}
        return unusable

    def _check_room(self, missing: Sequence[tuple[Utterance, float]], lengths: Mapping[Any, float]) -> None:
        seconds = sum(lengths.get(utterance.recording, 0.0) / speed for utterance, speed in missing)
        if seconds:
            check_room(self.folder, int(seconds / self.frontend.hop_s) * self.frontend.dim * _BYTES)

    def _extract(self, utterance: Utterance, speed: float) -> Rows:
        samples = load_utterance(utterance)
        if isinstance(utterance, Copy):
            samples = apply(samples, utterance.condition)
        samples = play(samples, speed)
        try:
            return self.frontend.extract(samples)
        except InputError as error:
            raise InputError(f"utterance {utterance.id}: {utterance.audio}: {error}") from error

    def mean(self, utterance: Utterance) -> Rows:
        """Return the mean `(dim,)` over those rows of an utterance that a model gets, as it was recorded."""
        key = audio_key(utterance)
        if key not in self._means:
            rows = self.rows(utterance)[: self.frontend.length]
            self._means[key] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return self._means[key]

    def statistics(self, utterances: Iterable[Utterance]) -> Statistics:
        """Return the statistics over every distinct recording of these utterances, as it was recorded."""
        recordings = {audio_key(u): u for u in utterances}
        return Statistics.of(self.rows(u) for u in recordings.values())

    def _file(self, utterance: Utterance, speed: float) -> Path:
        if utterance.audio not in self._digests:
            if not utterance.audio.is_file():
                raise InputError(f"{utterance.audio}: no such file (utterance {utterance.id})")
            self._digests[utterance.audio] = hashlib.sha256(utterance.audio.read_bytes()).hexdigest()
        what: dict[str, Any] = {
            "scheme": _SCHEME,
            **self._identity,
            "speed": speed,
            "extent": [utterance.start_s, utterance.end_s],
            "audio": self._digests[utterance.audio],
        }
        if isinstance(utterance, Copy):  # what was kept of recordings as they are stays found
            what["condition"] = utterance.condition.identity()
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"


def _read(file: Path, checked: bool) -> Rows | None:
    """Return rows that `_write` wrote; `None` where there are none, or damaged ones."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        content = b""
    size = len(content) - hashlib.sha256().digest_size
    if size > 0 and (checked or hashlib.sha256(content[:size]).digest() == content[size:]):
        rows: Rows = np.load(io.BytesIO(content), allow_pickle=False)
        return rows
    log.warning("%s: damaged, its features are computed again", file)
    return None


def _write(file: Path, rows: Rows) -> None:
    """Write a `.npy` file with its SHA-256 behind it."""
    content = io.BytesIO()
    np.save(content, rows)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, sync=False) as part:  # it can be made again
        part.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())


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
    return "|".join(map(str, (*utterance.recording, *copy_key(utterance))))
