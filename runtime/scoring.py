"""Scoring many recordings: rows for programs to read, and files that are whole or not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from edgeser.runtime.audio import Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
FORMATS = (".jsonl", ".csv")


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
        return load_audio(self.path, self.start_s, self.end_s)


@dataclass(frozen=True)
class Scored:
    """A recording and its result, or the reason why there is none."""

    recording: Recording
    result: Result | None
    error: str = ""


def find_recordings(paths: Sequence[Path]) -> list[Recording]:
    """List audio files; folders are searched for WAV, FLAC and OGG, hidden files left out, in a fixed order.

    Raises:
        InputError: A path does not exist, or nothing was found.
    """
    found: list[Recording] = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
            visible = (p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts))
            found += [Recording(str(p.relative_to(path)), p) for p in visible]
        elif path.is_file():
            found.append(Recording(path.name, path))
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: no audio found, expected {', '.join(AUDIO_SUFFIXES)} files")
    return found


def score(runtime: Runtime, recordings: Iterable[Recording], batch_size: int = 8) -> Iterator[Scored]:
    """Score recordings in batches, in their order; one that cannot be read is reported and skipped."""
    batch: list[tuple[Recording, Samples | None, str]] = []
    for recording in recordings:
        try:
            samples = recording.load()
            runtime.check(samples)
            batch.append((recording, samples, ""))
        except InputError as error:
            batch.append((recording, None, str(error)))
        if len(batch) == batch_size:
            yield from _score_batch(runtime, batch)
            batch = []
    yield from _score_batch(runtime, batch)


def _score_batch(runtime: Runtime, batch: Sequence[tuple[Recording, Samples | None, str]]) -> Iterator[Scored]:
    readable = [(recording, samples) for recording, samples, _ in batch if samples is not None]
    results: Iterator[Result] = iter(())
    if readable:
        results = iter(runtime.recognize_batch([s for _, s in readable], [r.transcript for r, _ in readable]))
    for recording, samples, error in batch:
        yield Scored(recording, None if samples is None else next(results), error)


def score_row(scored: Scored) -> dict[str, Any]:
    """Return a scored recording as a flat row of plain values."""
    recording, result = scored.recording, scored.result
    row: dict[str, Any] = {"id": recording.id, "path": str(recording.path)}
    if recording.emotion is not None:
        row["emotion"] = recording.emotion
    if result is None:
        return {**row, "error": scored.error}
    row["label"] = result.label
    row.update({f"p_{label}": round(p, 6) for label, p in result.probabilities.items()})
    row["transcript"] = result.transcript
    row["words"] = [[word.text, round(word.importance, 4)] for word in result.words]
    row["spans"] = [[span.start_s, span.end_s, round(span.importance, 4)] for span in result.spans]
    row["start_s"] = recording.start_s
    row["end_s"] = round(recording.start_s + result.duration_s, 3)
    row["engine"] = result.engine
    row["ms"] = round(result.timings.total_ms, 3)
    return row


class RowWriter:
    """Writes rows as JSON lines or CSV; the file appears under its name when everything is written.

    Args:
        path: Ends in `.jsonl` or `.csv`.
        labels: The model's emotions, for the columns of a CSV.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        if path.suffix not in FORMATS:
            raise InputError(f"{path}: got suffix {path.suffix!r}, expected {' or '.join(FORMATS)}")
        self._path = path
        self._columns = [
            *("id", "path", "emotion", "label", *(f"p_{label}" for label in labels), "transcript"),
            *("words", "spans", "start_s", "end_s", "engine", "ms", "error"),
        ]
        self._stack = ExitStack()

    def __enter__(self) -> RowWriter:
        part = self._stack.enter_context(replacing(self._path))
        self._file: TextIO = self._stack.enter_context(part.open("w", encoding="utf-8", newline=""))
        if self._path.suffix == ".csv":
            self._csv = csv.DictWriter(self._file, self._columns, restval="")
            self._csv.writeheader()
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        if self._path.suffix == ".csv":
            nested = {k: json.dumps(v) for k, v in row.items() if isinstance(v, list)}
            self._csv.writerow({**row, **nested})
        else:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
