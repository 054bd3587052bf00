"""The first of two passes: whose mean is taken out of which recording's rows.

With the means of all recordings known before any is answered, neither their order nor the number of workers nor a run
that was cut off changes an answer.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.normalization import NONE, RUN, SPEAKER, Normalization, check_normalize
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.scoring.jobs import Job, do, mean_in
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row


@dataclass(frozen=True)
class Plan:
    """Whose mean is taken out of rows.

    Attributes:
        normalize: `none`, `run` for the mean of all recordings, `speaker` for that of each speaker's.
        prior: Utterances that the training mean counts as.
        encoder: What a state is bound to.
        shift: What is taken out where a state says so, `(dim,)`; then nothing is to be found out first.
    """

    normalize: str = NONE
    prior: float = 0.0
    encoder: str = ""
    shift: Rows | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, normalization: Normalization, normalize: str | None, state: RunningMean | None = None) -> Plan:
        """Return what is done with a bundle.

        Raises:
            InputError: It was not trained for that, or the state is another encoder's.
        """
        check_normalize(normalize, state, (SPEAKER,))
        chosen = normalization.chosen(normalize, state)
        if chosen == NONE:
            return cls()
        shift = None if state is None else normalization.shift(state)
        return cls(chosen, normalization.prior, normalization.encoder, shift)

    @property
    def has_two_passes(self) -> bool:
        """Whether the means of all recordings have to be known first."""
        return self.normalize != NONE and self.shift is None

    def __str__(self) -> str:
        return self.normalize if self.shift is None else f"a state, {digest(self.shift).hex()}"

    def check(self, recordings: Iterable[Recording]) -> None:
        """Raise `InputError` when it needs speakers and there is a recording without one."""
        if self.normalize != SPEAKER:
            return
        unknown = [recording.id for recording in recordings if not recording.speaker]
        if unknown:
            raise InputError(
                f"normalize: got {SPEAKER}, and {len(unknown)} recordings without a speaker, {unknown[0]!r} the first: "
                f"expected a corpus that names them, or {RUN}"
            )


class Means:
    """The means of recordings, added up: in memory one for the run, or one for each speaker.

    Args:
        plan: Whose they are.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: Counter[str] = Counter()
        self._shifts: dict[str, tuple[Rows | None, bytes]] = {}

    def add(self, recording: Recording, row: Row) -> None:
        """Count a recording, unless it has no speech or failed."""
        mean = mean_in(row)
        if mean is None:
            return
        name = self._name(recording)
        if name not in self._sums:
            self._sums[name] = np.zeros(mean.shape)
        elif self._sums[name].shape != mean.shape:
            raise EdgeSerError(f"{recording.id}: the mean of its rows is damaged: start over with --restart")
        self._sums[name] += mean
        self._counts[name] += 1

    def shift(self, recording: Recording) -> Rows | None:
        """Return what is taken out of a recording's rows, `(dim,)`; `None` where nothing was heard."""
        return self._found(recording)[0]

    def digest(self, recording: Recording) -> bytes:
        """Return a few bytes that stand for its shift."""
        return self._found(recording)[1]

    def _found(self, recording: Recording) -> tuple[Rows | None, bytes]:
        name = self._name(recording)
        if name not in self._shifts:
            shift = self._plan.shift
            if name in self._sums:
                count = self._counts[name]
                shift = RunningMean(self._plan.encoder, self._sums[name] / count, count).shift(self._plan.prior)
            self._shifts[name] = (shift, b"" if shift is None else digest(shift))
        return self._shifts[name]

    def _name(self, recording: Recording) -> str:
        return recording.speaker if self._plan.normalize == SPEAKER else ""


class Shifted(Sequence[Recording]):
    """Recordings, each with what is taken out of its rows; made one by one, when they are asked for."""

    def __init__(self, recordings: Sequence[Recording], means: Means) -> None:
        self._recordings = recordings
        self._means = means

    @overload
    def __getitem__(self, place: int) -> Recording: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Recording]: ...
    def __getitem__(self, place: int | slice) -> Recording | Sequence[Recording]:
        if isinstance(place, slice):
            return [self._with_shift(recording) for recording in self._recordings[place]]
        return self._with_shift(self._recordings[place])

    def __len__(self) -> int:
        return len(self._recordings)

    def _with_shift(self, recording: Recording) -> Recording:
        return replace(recording, shift=self._means.shift(recording))


def normalized(
    plan: Plan,
    recordings: Sequence[Recording],
    measure: Callable[[Sequence[Recording]], Iterable[tuple[Recording, Row]]],
) -> Sequence[Recording]:
    """Return recordings with what is taken out of their rows, found out first where that is needed.

    Args:
        plan: Whose mean it is.
        recordings: All of the run.
        measure: Yields each with its row of `Job.MEAN`.

    Raises:
        InputError: A speaker is not known.
    """
    if plan.normalize == NONE:
        return recordings
    plan.check(recordings)
    means = Means(plan)
    if plan.has_two_passes:
        for recording, row in measure(recordings):
            means.add(recording, row)
    return Shifted(recordings, means)


def without_mean(
    runtime: Runtime, paths: Iterable[str | os.PathLike[str]], normalize: str | None, state: RunningMean | None
) -> Iterable[Recording]:
    """Return files as recordings, with what is taken out of their rows; without that they are not listed first."""
    check_normalize(normalize, state)
    plan = Plan.of(runtime.normalization, normalize, state)
    recordings = (Recording(os.fspath(path), Path(path)) for path in paths)
    if plan.normalize == NONE:
        return recordings
    return normalized(plan, list(recordings), lambda todo: do(Job.MEAN, runtime, todo))


def digest(shift: Rows) -> bytes:
    """Return 8 bytes that stand for a shift."""
    return hashlib.blake2b(shift.tobytes(), digest_size=8).digest()
