"""Scorers: what turns recordings into rows, in this process or in others."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeser.runtime.asr import BUNDLED, RECOGNISERS
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.scoring.jobs import Job, do
from edgeser.runtime.scoring.means import Plan
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row


@dataclass(frozen=True)
class Setup:
    """How a process loads its Runtime, the arguments of `Runtime.load`, and how it answers.

    Attributes:
        normalize: See `Plan`; `None` leaves it to the default.
        state: A state that stays as it is, for all recordings.
        answered: The share of recordings that is to be answered; see `Runtime.recognize`.
    """

    bundle: Path | None = None
    engine: str = "auto"
    asr: str = "auto"
    threads: int = 1
    self_test: bool = True
    isolate_asr: bool = False
    trusted: str | None = None
    normalize: str | None = None
    state: RunningMean | None = None
    answered: float = 1.0

    def load(self) -> Runtime:
        """Load it; see `Runtime.load` for the errors."""
        return Runtime.load(
            self.bundle,
            engine=self.engine,
            asr=self.asr,
            threads=self.threads,
            self_test=self.self_test,
            isolate_asr=self.isolate_asr,
            trusted=self.trusted,
        )


@dataclass(frozen=True)
class Identity:
    """What rows are scored with: rows of one identity may stand in one file.

    Attributes:
        bundle_sha256: Names the bundle.
        engine: Name of the engine.
        asr: The ASR as it was asked for; what `auto` became.
        labels: The model's emotions.
        plan: Whose mean is taken out of the rows.
        answered: The share of recordings that is to be answered.
    """

    bundle_sha256: str
    engine: str
    asr: str
    labels: tuple[str, ...]
    plan: Plan = field(default_factory=Plan)
    answered: float = 1.0

    @classmethod
    def of(cls, runtime: Runtime, setup: Setup) -> Identity:
        """Return the identity of a Runtime that a setup has loaded.

        Raises:
            InputError: The bundle does not go with the setup's `normalize`, `state` and `answered`.
        """
        runtime.check_answered(setup.answered)
        asr = setup.asr
        name = runtime.asr.name if asr == "auto" and runtime.asr.name in (BUNDLED, *RECOGNISERS) else asr
        plan = Plan.of(runtime.normalization, setup.normalize, setup.state)
        return cls(runtime.bundle.sha256, runtime.engine.name, name, runtime.labels, plan, setup.answered)

    def header(self) -> dict[str, Any]:
        """Return a journal's first line."""
        import edgeser

        return {
            "journal": 2,
            "edgeser": edgeser.__version__,
            "bundle": self.bundle_sha256,
            "engine": self.engine,
            "asr": self.asr,
            "normalize": str(self.plan),
            "answered": self.answered,
        }


def pin(setup: Setup) -> tuple[Setup, Identity]:
    """Load a Runtime once, and return the setup with what `auto` became: every process then does the same.

    An error in the setup is met here, before any process is started.
    """
    with setup.load() as runtime:
        identity = Identity.of(runtime, setup)
    return dataclasses.replace(setup, engine=identity.engine, asr=identity.asr), identity


class Scorer(ABC):
    """Turns recordings into rows. A context manager: processes and engines are freed at its end."""

    identity: Identity

    @abstractmethod
    def rows(self, recordings: Sequence[Recording], job: Job = Job.ANSWER) -> Iterator[tuple[Recording, Row]]:
        """Yield every recording once, with its row, as soon as it is known: in any order.

        What cannot be scored has a row with `error`.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; rows that are not yet done are lost."""

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcess(Scorer):
    """Scores in this process, in the order of the recordings. A crash of a native library ends the process."""

    def __init__(self, setup: Setup | None = None, batch_size: int = 8) -> None:
        setup = setup or Setup()
        self._runtime = setup.load()
        self._batch_size = batch_size
        try:
            self.identity = Identity.of(self._runtime, setup)
        except BaseException:
            self._runtime.close()
            raise

    def rows(self, recordings: Sequence[Recording], job: Job = Job.ANSWER) -> Iterator[tuple[Recording, Row]]:
        return do(job, self._runtime, recordings, self._batch_size, answered=self.identity.answered)

    def close(self) -> None:
        self._runtime.close()
