"""One labelled stretch of speech."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class Utterance:
    """What a corpus reader yields.

    Attributes:
        id: Unique in its corpus.
        audio: Audio file.
        emotion: Canonical emotion name, `None` where it is not known.
        transcript: Words, `None` where they are not known (an ASR may fill them in).
        start_s: Start in the file, seconds.
        end_s: End in the file, seconds; `None` for the end of the file.
        speaker: Speaker's name, empty where it is not known.
        session: Recording session, the unit of leave-one-session-out; empty where there is none.
        split: Official split (`train`, `dev`, `test`), empty where there is none.
    """

    id: str
    audio: Path
    emotion: str | None = None
    transcript: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    speaker: str = ""
    session: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        if self.start_s < 0:
            raise InputError(f"start_s {self.start_s} is below 0")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise InputError(f"end_s {self.end_s} is not after start_s {self.start_s}")

    @property
    def recording(self) -> tuple[str, float, float | None]:
        """What is heard: file and extent. Utterances of one recording share their audio features."""
        return (str(self.audio), self.start_s, self.end_s)
