"""What a stream emits: one Event for each utterance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from edgeser.runtime.results import Result, result_row
from edgeser.runtime.segmenting import Ending


class Words(str, Enum):
    """How the words of an Event came about."""

    HEARD = "heard"
    """The recogniser answered in time; it may have heard none."""
    DOUBTFUL = "doubtful"
    """The recogniser was not sure that there were words: the voice alone decided."""
    LATE = "late"
    """The recogniser had not answered by the deadline: the voice alone decided."""
    FAILED = "failed"
    """The recogniser failed: the voice alone decided."""
    OFF = "off"
    """There is no recogniser, or the model takes no words."""


@dataclass(frozen=True)
class Event:
    """The emotion of one utterance in a stream.

    Attributes:
        utterance: Number of the utterance, from 0. A missing number was dropped, or failed.
        partial: Whether the person is still speaking: a rolling estimate over the model's last window.
        start_s: Start of the audio that `result` is about, seconds of audio since the stream began.
        end_s: Its end.
        ending: Why the utterance ended; `None` while it goes on.
        result: The answer. Its times count from `start_s`.
        words: How its words came about.
        latency_ms: From the end of the utterance, once certain (after the hangover), to this Event.
        dropped: Utterances dropped so far because this device was too slow.
        lost_s: Seconds of audio lost so far, for want of room or by the device.
        time_s: When it was emitted, seconds since 1970.
    """

    utterance: int
    partial: bool
    start_s: float
    end_s: float
    ending: Ending | None
    result: Result
    words: Words
    latency_ms: float
    dropped: int
    lost_s: float
    time_s: float

    @property
    def label(self) -> str:
        """The result's: the most probable emotion, where there is one that can be trusted."""
        return self.result.label


@dataclass(frozen=True)
class Activity:
    """What a stream hears right now.

    Attributes:
        level_dbfs: Loudness of the last 32 ms, decibels under full scale; -100 and less is digital silence.
        voice: Probability that it is speech, 0 to 1.
        speaking: Whether an utterance is going on.
    """

    level_dbfs: float
    voice: float
    speaking: bool


def event_row(event: Event) -> dict[str, Any]:
    """Return an Event as a flat row of plain values: its own and those of `result_row`."""
    return {
        "utterance": event.utterance,
        "partial": event.partial,
        "start_s": round(event.start_s, 3),
        "end_s": round(event.end_s, 3),
        "ending": None if event.ending is None else event.ending.value,
        **result_row(event.result),
        "words_from": event.words.value,
        "latency_ms": round(event.latency_ms, 1),
        "dropped": event.dropped,
        "lost_s": round(event.lost_s, 3),
        "time_s": round(event.time_s, 3),
    }
