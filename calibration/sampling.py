"""Which utterances calibrate, which validate, and which are for the evaluation alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeser.corpora import Utterance
from edgeser.runtime.errors import InputError

SMALLEST = 16
"""Fewest utterances that calibrate: ranges from less are chance."""


@dataclass(frozen=True)
class Sampling:
    """How a corpus is divided.

    Attributes:
        count: Utterances to calibrate on.
        validation: Utterances to measure on while choosing; of other recordings than those that calibrate.
        seed: Of the draw.
        exclude_sessions: Sessions that the evaluation will use; none of their utterances is drawn.
        exclude_speakers: Speakers that the evaluation will use.
        exclude: Ids of utterances that are left out altogether, and others of their recordings with them.
    """

    count: int = 128
    validation: int = 200
    seed: int = 0
    exclude_sessions: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.count < SMALLEST:
            raise InputError(f"--count: got {self.count}, expected at least {SMALLEST} utterances to calibrate on")
        if self.validation < SMALLEST:
            raise InputError(f"--validation: got {self.validation}, expected at least {SMALLEST} utterances")
        if self.seed < 0:
            raise InputError(f"--seed: got {self.seed}, expected 0 or more")


@dataclass(frozen=True)
class Division:
    """A corpus, divided.

    Attributes:
        calibration: Utterances whose activations give the ranges.
        validation: Utterances, of other recordings, on which layers are ranked and chosen.
        excluded: Labelled utterances of the excluded sessions and speakers, and those that may only be tested on:
            measured on, never drawn.
        sampling: How it was drawn.
    """

    calibration: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    excluded: tuple[Utterance, ...]
    sampling: Sampling = field(default_factory=Sampling)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest keeps of the calibration set: method, counts, and a hash of its ids."""
        sampling = self.sampling
        return {
            "method": "stratified by emotion and speaker, one utterance a recording while there are others",
            "utterances": len(self.calibration),
            "ids_sha256": hashlib.sha256("\n".join(sorted(u.id for u in self.calibration)).encode()).hexdigest(),
            "validation": len(self.validation),
            "seed": sampling.seed,
            "exclude_sessions": list(sampling.exclude_sessions),
            "exclude_speakers": list(sampling.exclude_speakers),
            "exclude_ids": len(sampling.exclude),
        }


def divide(utterances: Sequence[Utterance], labels: Collection[str], sampling: Sampling) -> Division:
    """Draw the calibration and validation sets.

    Raises:
        InputError: Labels do not fit, an excluded session or speaker is not there, or too little is left.
    """
    labelled = [u for u in utterances if u.emotion in labels and u.id not in sampling.exclude]
    if not labelled:
        found = sorted({str(u.emotion) for u in utterances})
        raise InputError(
            f"corpus: its emotions are {', '.join(found) or 'none'}, the bundle's {', '.join(labels)}: "
            "none fits, take the corpus that the model was trained for"
        )
    _check_known("sessions", sampling.exclude_sessions, {u.session for u in labelled})
    _check_known("speakers", sampling.exclude_speakers, {u.speaker for u in labelled})
    excluded = [
        u
        for u in labelled
        if u.session in sampling.exclude_sessions or u.speaker in sampling.exclude_speakers or u.is_test_only
    ]
    # A recording may come again with other words or under another name: it would still be heard.
    left_out = [*excluded, *(u for u in utterances if u.id in sampling.exclude)]
    heard = {u.recording for u in left_out}
    pool = [u for u in labelled if u.recording not in heard]
    drawn = _stratified(pool, sampling.count, np.random.default_rng(sampling.seed))
    if len(drawn) < SMALLEST:
        raise InputError(
            f"corpus: {len(drawn)} utterances are left to calibrate on, expected at least {SMALLEST}: "
            "exclude less, or take a larger corpus"
        )
    taken = {u.recording for u in drawn}
    rest = [u for u in pool if u.recording not in taken]
    validation = _stratified(rest, sampling.validation, np.random.default_rng(sampling.seed + 1))
    if len(validation) < SMALLEST:
        raise InputError(
            f"corpus: {len(drawn)} of {len(pool)} utterances calibrate and {len(validation)} of other recordings are "
            f"left to validate on, expected at least {SMALLEST}: lower --count"
        )
    return Division(tuple(drawn), tuple(validation), tuple(excluded), sampling)


def _check_known(what: str, names: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(names) - known)
    if unknown:
        raise InputError(
            f"--exclude-{what}: got {', '.join(unknown)}, the corpus has {', '.join(sorted(known)) or 'none'}"
        )


def _stratified(pool: Sequence[Utterance], count: int, rng: np.random.Generator) -> list[Utterance]:
    """Draw by turns from every emotion, and in it from every speaker; recordings that were not heard yet go first."""
    strata: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for place in rng.permutation(len(pool)):
        utterance = pool[place]
        strata[str(utterance.emotion)][utterance.speaker].append(utterance)
    queues = [_by_turns(list(speakers.values())) for _, speakers in sorted(strata.items())]
    return _by_turns([_new_first(queue) for queue in queues])[:count]


def _by_turns(queues: Sequence[Sequence[Utterance]]) -> list[Utterance]:
    """Take the first of each queue, then the second of each, and so on."""
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _new_first(queue: Sequence[Utterance]) -> list[Utterance]:
    heard: set[object] = set()
    first: list[Utterance] = []
    again: list[Utterance] = []
    for utterance in queue:
        (again if utterance.recording in heard else first).append(utterance)
        heard.add(utterance.recording)
    return first + again
