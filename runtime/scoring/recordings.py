"""Recordings: what there is to score, and scoring it in batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Recorded, Samples, load_recording
from edgeser.runtime.errors import EdgeSerError
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result

log = logging.getLogger(__name__)


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
        speaker: Who speaks, empty where that is not known; unique among all corpora that are scored together.
        shift: What is taken out of its rows, `(dim,)` float32; see `Runtime.recognize_batch`.
    """

    id: str
    path: Path
    transcript: str | None = None
    emotion: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    speaker: str = ""
    shift: Rows | None = field(default=None, compare=False, repr=False)

    def load(self) -> Samples:
        """Read the samples, `(samples,)` float32 mono at 16 kHz."""
        return self.read().samples

    def read(self) -> Recorded:
        """Read the samples, and whether they end too early; see `load_recording`."""
        return load_recording(self.path, self.start_s, self.end_s)


@dataclass(frozen=True)
class Scored:
    """A recording and its result, or the reason why there is none.

    Attributes:
        recording: What was scored.
        result: The answer.
        error: Why there is none.
    """

    recording: Recording
    result: Result | None
    error: str = ""


def score(
    runtime: Runtime,
    recordings: Iterable[Recording],
    batch_size: int = 8,
    on_read: Callable[[float], None] | None = None,
    answered: float = 1.0,
) -> Iterator[Scored]:
    """Score recordings in batches, in their order.

    Whatever one of them raises, while it is read or while it is recognised, is reported as its own and nothing else.

    Args:
        runtime: What scores them.
        recordings: Read one by one, when their turn comes.
        batch_size: Recordings that the engine gets together.
        on_read: Called with the length of each that was read, seconds.
        answered: See `Runtime.recognize`.

    Raises:
        InputError: The bundle does not go with `answered`.
    """
    runtime.check_answered(answered)
    batch: list[tuple[Recording, Recorded | str]] = []
    for recording in recordings:
        what = _load(runtime, recording)
        if on_read is not None and isinstance(what, Recorded):
            on_read(what.samples.shape[0] / SAMPLE_RATE)
        batch.append((recording, what))
        if len(batch) == batch_size:
            yield from _score_batch(runtime, batch, answered)
            batch = []
    yield from _score_batch(runtime, batch, answered)


def read_mean(
    runtime: Runtime, recording: Recording, on_read: Callable[[float], None] | None = None
) -> NDArray[np.float64] | str | None:
    """Return the mean of a recording's rows, see `Runtime.mean_of`; or the reason why there is none."""
    what = _load(runtime, recording)
    if isinstance(what, str):
        return what
    if on_read is not None:
        on_read(what.samples.shape[0] / SAMPLE_RATE)
    try:
        return runtime.mean_of(what.samples)
    except Exception as error:
        return _reason(error)


def _load(runtime: Runtime, recording: Recording) -> Recorded | str:
    """Return what was recorded, or the reason why it cannot be used."""
    try:
        recorded = recording.read()
        runtime.check(recorded.samples)
    except Exception as error:
        return _reason(error)
    return recorded


def _score_batch(
    runtime: Runtime, batch: Sequence[tuple[Recording, Recorded | str]], answered: float
) -> Iterator[Scored]:
    readable = [(recording, what) for recording, what in batch if isinstance(what, Recorded)]
    answers = iter(_recognize(runtime, readable, answered))
    for recording, what in batch:
        if isinstance(what, str):
            yield Scored(recording, None, what)
            continue
        answer = next(answers)
        if isinstance(answer, str):
            yield Scored(recording, None, answer)
        else:
            yield Scored(recording, replace(answer, truncated=what.truncated))


def _recognize(runtime: Runtime, batch: Sequence[tuple[Recording, Recorded]], answered: float) -> list[Result | str]:
    """Return a result, or the reason why there is none, for each; a batch that fails is tried again one by one."""
    if not batch:
        return []
    try:
        samples, transcripts = [what.samples for _, what in batch], [r.transcript for r, _ in batch]
        return [*runtime.recognize_batch(samples, transcripts, [r.shift for r, _ in batch], answered)]
    except Exception as error:
        if len(batch) == 1:
            return [_reason(error)]
    return [answer for one in batch for answer in _recognize(runtime, [one], answered)]


def _reason(error: Exception) -> str:
    """Return an error as one line; of one that nobody foresaw, its place goes to the log."""
    text = " ".join(str(error).split())
    if isinstance(error, EdgeSerError):
        return text
    if not isinstance(error, (OSError, MemoryError)):
        log.debug("not foreseen", exc_info=error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
