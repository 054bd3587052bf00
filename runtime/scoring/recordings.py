"""Recordings: what there is to score, and scoring it in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import AsrError, EngineError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
# OSError: a folder that may not be entered, a disk that went away. MemoryError: hours of audio in one file.
_UNREADABLE = (InputError, OSError, MemoryError)
_FAILED = (AsrError, EngineError, MemoryError)


@dataclass(frozen=True)
class Recording:
    """One thing to score.

    Attributes:
        id: Names it in the output.
        path: Audio file.
        transcript: What was said; `None` asks the ASR.
        emotion: The true emotion, where it is known.
        start_s: Start in the file, seconds.
        end_s: End in the file, seconds; `None` for the end of the file.
    """

    id: str
    path: Path
    transcript: str | None = None
    emotion: str | None = None
    start_s: float = 0.0
    end_s: float | None = None

    def load(self) -> Samples:
        """Read the samples, `(samples,)` float32 mono at 16 kHz."""
        try:
            return load_audio(self.path, self.start_s, self.end_s)
        except UnicodeEncodeError as error:  # libsndfile is given names as UTF-8
            raise InputError(f"{self.path}: its name is not UTF-8, which cannot be opened: rename it") from error


@dataclass(frozen=True)
class Scored:
    """A recording and its result, or the reason why there is none."""

    recording: Recording
    result: Result | None
    error: str = ""


def find_recordings(paths: Sequence[Path]) -> list[Recording]:
    """List audio files; folders are searched for WAV, FLAC and OGG, hidden files left out, in a fixed order.

    A file in a folder is named by its path below the folder. Where two files would get the same name, all are named by
    their whole paths; a file that is met twice is listed once.

    Raises:
        InputError: A path does not exist, or nothing was found.
    """
    found: dict[str, Recording] = {}  # by absolute path
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
            visible = (p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts))
            for file in visible:
                found.setdefault(os.path.abspath(file), Recording(str(file.relative_to(path)), file))  # noqa: PTH100
        elif path.is_file():
            found.setdefault(os.path.abspath(path), Recording(path.name, path))  # noqa: PTH100
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: no audio found, expected {', '.join(AUDIO_SUFFIXES)} files")
    recordings = list(found.values())
    if len({recording.id for recording in recordings}) < len(recordings):
        return [Recording(str(recording.path), recording.path) for recording in recordings]
    return recordings


def score(
    runtime: Runtime,
    recordings: Iterable[Recording],
    batch_size: int = 8,
    on_read: Callable[[float], None] | None = None,
) -> Iterator[Scored]:
    """Score recordings in batches, in their order.

    One that cannot be read, or that the ASR or the engine fails on, is reported and skipped.

    Args:
        runtime: What scores them.
        recordings: Read one by one, when their turn comes.
        batch_size: Recordings that the engine gets together.
        on_read: Called with the length of each that was read, seconds.
    """
    batch: list[tuple[Recording, Samples | None, str]] = []
    for recording in recordings:
        try:
            samples = recording.load()
            runtime.check(samples)
            if on_read is not None:
                on_read(samples.shape[0] / SAMPLE_RATE)
            batch.append((recording, samples, ""))
        except _UNREADABLE as error:
            batch.append((recording, None, _reason(error)))
        if len(batch) == batch_size:
            yield from _score_batch(runtime, batch)
            batch = []
    yield from _score_batch(runtime, batch)


def _score_batch(runtime: Runtime, batch: Sequence[tuple[Recording, Samples | None, str]]) -> Iterator[Scored]:
    readable = [(recording, samples) for recording, samples, _ in batch if samples is not None]
    results = iter(_recognize(runtime, readable))
    for recording, samples, error in batch:
        answer = error if samples is None else next(results)
        yield Scored(recording, None, answer) if isinstance(answer, str) else Scored(recording, answer)


def _recognize(runtime: Runtime, batch: Sequence[tuple[Recording, Samples]]) -> list[Result | str]:
    """Return a result, or the reason why there is none, for each; a batch that fails is tried again one by one."""
    if not batch:
        return []
    try:
        return [*runtime.recognize_batch([s for _, s in batch], [r.transcript for r, _ in batch])]
    except _FAILED as error:
        if len(batch) == 1:
            return [_reason(error)]
    return [answer for one in batch for answer in _recognize(runtime, [one])]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
