"""From labelled recordings to what a correction is fitted to, through the device's own pipeline."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.adapting.clips import Clips
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import Features
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.pipeline import Evidence, Heard, Pipeline, mean_rows, stack
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.scoring import Recording
from edgeser.runtime.speech import SpeechMeter

_BATCH = 8
_PIECE = 5  # rows; their means tell as much of what changes within a voice as they do, in a fifth of the room

Item = TypeVar("Item")


@dataclass(frozen=True)
class Observed:
    """A recording that was heard.

    Attributes:
        recording: The recording, with its emotion.
        sha256: Hash of its samples.
        mean: `(dim,)`, over the valid rows of the voice, as the graph got them.
        logits: `(classes,)`, the graph's.
        cold: The same, where nothing was taken out of the rows.
        deviations: `(pieces, dim)`, see `deviations_of`.
    """

    recording: Recording
    sha256: str
    mean: NDArray[np.float64]
    logits: NDArray[np.float64]
    cold: NDArray[np.float64]
    deviations: Rows


@dataclass(frozen=True)
class Observations:
    """What became of recordings.

    Attributes:
        observed: Those with speech.
        unusable: By id, why one cannot be used.
        heard: The user's mean that was taken out of their rows; `None` where nothing was.
    """

    observed: Sequence[Observed]
    unusable: Mapping[str, str]
    heard: RunningMean | None = None


class Observer:
    """Hears recordings with the graph alone, whatever the bundle was adapted to. A context manager.

    A transcript counts as at any other time; without one the words are not looked for: the voice alone is heard.

    Args:
        runtime: The bundle's.
        tick: Called after each recording.
    """

    def __init__(self, runtime: Runtime, tick: Callable[[], object] = lambda: None) -> None:
        self._runtime = runtime
        self._tick = tick
        self._pipeline = Pipeline(runtime.engine, runtime.frontends, runtime.bundle.manifest.labels)
        self._meter = SpeechMeter()

    def observe(self, recordings: Sequence[Recording]) -> Observations:
        """Hear recordings; nothing is taken out of their rows."""
        unusable: dict[str, str] = {}
        observed = []
        for batch in _batches(recordings):
            heard = []
            for recording in batch:
                found = self.hear(recording)
                if isinstance(found, str):
                    unusable[recording.id] = found
                else:
                    heard.append((recording, *found))
                self._tick()
            logits = self._logits([one for *_, one in heard])
            observed += [
                Observed(recording, sha256, mean_rows(one), row, row, deviations_of(one.features["audio"]))
                for (recording, sha256, one), row in zip(heard, logits, strict=True)
            ]
        return Observations(observed, unusable)

    def centered(self, cold: Observations) -> Observations:
        """Hear the same recordings again, with their own mean taken out of their rows.

        Raises:
            InputError: The bundle's model was not trained for that.
        """
        normalization = self._runtime.normalization
        normalization.check()
        own = RunningMean(normalization.encoder, np.zeros(self._runtime.bundle.manifest.inputs["audio"].dim))
        for one in cold.observed:
            own.add(one.mean)
        return Observations(self.shifted(cold.observed, normalization.shift(own)), cold.unusable, own)

    def shifted(self, cold: Sequence[Observed], shift: Rows) -> list[Observed]:
        """Hear the same recordings again, with a shift `(dim,)` taken out of their rows.

        Raises:
            InputError: A recording is not what it was.
        """
        observed = []
        for batch in _batches(cold):
            heard = []
            for one in batch:
                found = self.hear(one.recording)
                if isinstance(found, str):
                    raise InputError(f"{one.recording.id}: {found}: it changed while it was used")
                again = found[1]
                audio = again.features["audio"].without(shift)
                heard.append(replace(again, features={**again.features, "audio": audio}))
                self._tick()
            observed += [
                replace(one, mean=mean_rows(again), logits=row)
                for one, again, row in zip(batch, heard, self._logits(heard), strict=True)
            ]
        return observed

    def hear(self, recording: Recording) -> tuple[str, Heard] | str:
        """Return the hash of a recording's samples, and its features; or why it cannot be used."""
        try:
            samples = recording.load()
            self._pipeline.check(samples)
        except InputError as error:
            return str(error)
        share = self._meter.share(self._pipeline.analyzed(samples))
        if not share:
            return f"no speech was found ({recording.path})"
        evidence = Evidence(recording.transcript or "", speech_share=share)
        return hashlib.sha256(samples.tobytes()).hexdigest(), self._pipeline.features(samples, evidence)

    def close(self) -> None:
        """Free the voice detector; the Runtime stays."""
        self._meter.close()

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _logits(self, heard: Sequence[Heard]) -> NDArray[np.float64]:
        if not heard:
            return np.zeros((0, 0))
        logits = self._runtime.engine.run(stack(heard, tuple(self._runtime.frontends)))["logits"]
        return logits.astype(np.float64)


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def deviations_of(features: Features) -> Rows:
    """Return how a voice's rows differ from their own mean, `(pieces, dim)` float32: means over five rows each.

    What changes within an utterance is what was said, not how its speaker feels.
    """
    count = features.valid // _PIECE
    pieces = features.values[: count * _PIECE].reshape(count, _PIECE, -1).mean(axis=1)
    deviations: Rows = pieces - pieces.mean(axis=0) if count else pieces
    return deviations


def clips_of(found: Observations, known: Sequence[str], labels: Sequence[str]) -> Clips:
    """Gather what a correction is fitted to.

    Args:
        found: Recordings, each with one of `labels`.
        known: The graph's emotions.
        labels: Those that are to be answered.

    Raises:
        InputError: A clip stands there twice, or under two emotions, or there are too few.
    """
    observed = found.observed
    _check_twins(observed)
    answered = [known.index(label) for label in labels]
    dim = observed[0].mean.shape[0] if observed else 0
    return Clips(
        tuple(labels),
        np.array([labels.index(str(one.recording.emotion)) for one in observed], dtype=np.intp),
        _groups(observed),
        np.array([one.mean for one in observed]).reshape(-1, dim),
        np.array([one.logits[answered] for one in observed]).reshape(-1, len(labels)),
        np.array([one.cold[answered] for one in observed]).reshape(-1, len(labels)),
        np.concatenate([np.zeros((0, dim)), *(one.deviations for one in observed)]),
        found.heard,
    )


def _check_twins(observed: Sequence[Observed]) -> None:
    """Refuse a sound with two emotions, and one that stands there twice with the same words."""
    first: dict[str, Recording] = {}
    said: dict[tuple[str, str], Recording] = {}
    for one in observed:
        recording = one.recording
        other = first.setdefault(one.sha256, recording)
        if other.emotion != recording.emotion:
            raise InputError(
                f"clips: {other.id} and {recording.id} have the same sound, one is {other.emotion}, the other "
                f"{recording.emotion}: take out the wrong one"
            )
        twin = said.setdefault((one.sha256, recording.transcript or ""), recording)
        if twin is not recording:
            raise InputError(f"clips: {twin.id} and {recording.id} are the same clip: take out one of them")


def _groups(observed: Sequence[Observed]) -> NDArray[np.intp]:
    """Number the clips, so that those of one sound, and those that overlap in one file, have the same number."""
    group = {place: place for place in range(len(observed))}

    def join(one: int, other: int) -> None:
        kept, lost = group[one], group[other]
        group.update({place: kept for place, number in group.items() if number == lost})

    by_sound: dict[str, int] = {}
    for place, one in enumerate(observed):
        join(by_sound.setdefault(one.sha256, place), place)
    ordered = sorted(range(len(observed)), key=lambda p: (str(observed[p].recording.path), _extent(observed[p])))
    end, furthest = 0.0, -1
    for before, place in itertools.pairwise([-1, *ordered]):
        start_s, end_s = _extent(observed[place])
        same_file = before >= 0 and observed[before].recording.path == observed[place].recording.path
        if same_file and start_s < end:
            join(furthest, place)
        if not same_file or end_s > end:
            end, furthest = end_s, place
    return np.array([group[place] for place in range(len(observed))], dtype=np.intp)


def _extent(one: Observed) -> tuple[float, float]:
    end_s = one.recording.end_s
    return one.recording.start_s, np.inf if end_s is None else end_s
