"""What the stages of one stream share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.segmenting import Ending
from edgeser.runtime.streams.crew import Crew
from edgeser.runtime.streams.hearing import Hearing, Listener
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.options import StreamOptions
from edgeser.runtime.streams.ring import Mark, RingBuffer
from edgeser.runtime.streams.stats import Meter

TAIL = SAMPLE_RATE // 4
"""Samples that resampling holds back at most: 3,656, at 4 kHz. The ring keeps room for them beyond `buffer_s`."""


@dataclass(frozen=True)
class Utterance:
    """An utterance, or its beginning, on its way to the model.

    Attributes:
        number: Of the utterance, from 0.
        start: First sample, counted from the stream's start.
        samples: `(n,)` float32 mono at 16 kHz.
        spoken: Which of its frames of 32 ms are speech.
        ending: Why it ended; `None` while it goes on.
        hearing: Its words as they are recognised.
        words: Those that were known while it goes on.
        patient: Whether its source waits, so that nothing has to be dropped.
        certain_at: When it was cut, by `time.perf_counter`.
    """

    number: int
    start: int
    samples: Samples
    spoken: NDArray[np.bool_]
    ending: Ending | None
    hearing: Hearing | None
    words: tuple[RecognizedWord, ...]
    patient: bool
    certain_at: float = field(default_factory=time.perf_counter)


@dataclass
class Flow:
    """The queues between the stages, and what counts, watches and ends them.

    Attributes:
        options: How to cut, wait and drop.
        crew: The threads.
        meter: The counters.
        ring: Audio on its way to the voice detector.
        answers: Utterances on their way to the model.
        listener: Hears the words; `None` where nobody wants any.
        patient: Whether the audio came from a source that waits for room.
    """

    options: StreamOptions
    crew: Crew
    meter: Meter
    ring: RingBuffer
    answers: Mailbox[Utterance | Mark]
    listener: Listener | None
    patient: bool = False

    def close(self) -> None:
        """Wake and release whoever waits."""
        self.ring.close()
        self.answers.close()
        if self.listener is not None:
            self.listener.stop()
