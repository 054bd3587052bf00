"""One labelled stretch of speech."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEST_ONLY = "test"
"""The role of what may only be tested on."""


@dataclass(frozen=True)
class Utterance:
    """What a corpus reader yields; whether it can be heard, `edgeser.corpora.checking` finds out.

    Attributes:
        id: Unique among all that are read together.
        audio: Audio file.
        emotion: Canonical emotion name, `None` where it is not known.
        transcript: Words, `None` where they are not known (an ASR may fill them in).
        start_s: Start in the file, seconds.
        end_s: End in the file, seconds; `None` for the end of the file.
        speaker: Speaker's name, empty where it is not known.
        session: Recording session, the unit of leave-one-session-out; empty where there is none.
        split: Official split (`train`, `dev`, `test`), empty where there is none.
        corpus: Name of the corpus that it is of; `read_corpus` sees to it that there is one.
        language: Language that is spoken, as the corpus names it (`pl`), empty where it does not.
        role: `TEST_ONLY` for one that no protocol may train on; anything else for one that it may.
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
    corpus: str = ""
    language: str = ""
    role: str = ""

    @property
    def is_test_only(self) -> bool:
        """Whether it may only be tested on."""
        return self.role.lower() == TEST_ONLY

    @property
    def recording(self) -> tuple[str, float, float | None]:
        """What is heard: file and extent. Utterances of one recording share their audio features."""
        return (str(self.audio), self.start_s, self.end_s)
