"""Cutting a stream of audio into utterances, frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.vad import FRAME_S, VAD_FRAME


@dataclass(frozen=True)
class SegmentOptions:
    """When an utterance begins and ends. Durations are rounded up to frames of 32 ms.

    Attributes:
        threshold: Probability of speech from which on a frame begins an utterance.
        release_threshold: Probability under which a frame counts as silence once someone speaks.
        pre_roll_ms: Audio kept from before the first frame of speech: a voice rises before a detector is sure.
        min_speech_ms: Speech that an utterance must hold; less is a click or a cough, and dropped.
        hangover_ms: Silence that ends an utterance.
        post_roll_ms: How much of that silence stays in the utterance.
        max_utterance_s: Where a longer utterance is split.
        split_search_s: The split is made at the quietest frame of the last so many seconds.
    """

    threshold: float = 0.5
    release_threshold: float = 0.35
    pre_roll_ms: float = 200.0
    min_speech_ms: float = 250.0
    hangover_ms: float = 600.0
    post_roll_ms: float = 200.0
    max_utterance_s: float = 12.0
    split_search_s: float = 3.0

    def __post_init__(self) -> None:
        for name in ("threshold", "release_threshold"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise InputError(f"{name}: got {value}, expected a probability between 0 and 1")
        if self.release_threshold > self.threshold:
            raise InputError(
                f"release_threshold: got {self.release_threshold}, expected at most the threshold, {self.threshold}"
            )
        for name in ("pre_roll_ms", "min_speech_ms", "hangover_ms", "post_roll_ms"):
            value = getattr(self, name)
            if not 0.0 <= value <= 10_000.0:
                raise InputError(f"{name}: got {value}, expected 0 to 10000")
        if self.hangover_ms < max(self.post_roll_ms, 1.0):
            raise InputError(
                f"hangover_ms: got {self.hangover_ms}, expected at least post_roll_ms, {self.post_roll_ms}, and 1"
            )
        if not 1.0 <= self.max_utterance_s <= 120.0:
            raise InputError(f"max_utterance_s: got {self.max_utterance_s}, expected 1 to 120")
        if not FRAME_S <= self.split_search_s <= self.max_utterance_s / 2:
            raise InputError(
                f"split_search_s: got {self.split_search_s}, expected {FRAME_S} s to half of max_utterance_s, "
                f"{self.max_utterance_s / 2}"
            )


class Ending(str, Enum):
    """Why an utterance ended."""

    SILENCE = "silence"
    SPLIT = "split"
    GAP = "gap"
    FLUSH = "flush"


@dataclass(frozen=True)
class Segment:
    """One utterance, cut out of a stream.

    Attributes:
        start: First sample, counted from the stream's start.
        samples: `(n,)` float32 mono at 16 kHz.
        ending: Why it ended.
        spoken: `(frames,)`, which frames of 32 ms are speech.
    """

    start: int
    samples: Samples
    ending: Ending
    spoken: NDArray[np.bool_]

    @property
    def end(self) -> int:
        """The sample after the last."""
        return self.start + len(self.samples)


class Segmenter:
    """Decides from frames and their probabilities of speech alone, so equal audio is cut equally, however it arrives.

    The audio since the pre-roll lies in one preallocated buffer. While someone speaks, `sure` tells how much of it is
    certain to belong to the utterance, so that a recogniser may hear it already.

    Args:
        options: When an utterance begins and ends.
    """

    def __init__(self, options: SegmentOptions) -> None:
        self.options = options
        self._pre_roll = _frames(options.pre_roll_ms / 1e3)
        self._min_speech = max(1, _frames(options.min_speech_ms / 1e3))
        self._hangover = max(1, _frames(options.hangover_ms / 1e3))
        self._post_roll = _frames(options.post_roll_ms / 1e3)
        self._longest = _frames(options.max_utterance_s)
        self._search = _frames(options.split_search_s)
        # An utterance that is not confirmed yet can hold min_speech frames with just under a hangover between them.
        capacity = self._pre_roll + self._longest + (self._min_speech + 1) * self._hangover + 1
        self._audio = np.zeros((capacity, VAD_FRAME), np.float32)
        self._loudness = np.zeros(capacity, np.float32)
        self._spoken = np.zeros(capacity, bool)
        self._tail = 0  # samples that a shortened last frame lacks
        self._at = 0  # the stream's sample at which the buffer begins
        self._rest()

    def _rest(self) -> None:
        self._filled = 0
        self._last = 0  # the frame after the last one of speech
        self._confirmed = False

    @property
    def speaking(self) -> bool:
        """Whether an utterance is going on that will be emitted."""
        return self._confirmed

    @property
    def start(self) -> int:
        """The current utterance's first sample, counted from the stream's start."""
        return self._at

    @property
    def heard(self) -> Samples:
        """A view of the current utterance so far, `(n,)` float32, silence after it included."""
        return self._audio[: self._filled].reshape(-1)

    @property
    def spoken(self) -> NDArray[np.bool_]:
        """A view of which frames of `heard` are speech, `(frames,)`."""
        return self._spoken[: self._filled]

    @property
    def sure(self) -> int:
        """Samples of `heard` that are certain to be in the utterance, whatever comes next."""
        if not self._confirmed:
            return 0
        return VAD_FRAME * min(self._filled, self._last + self._post_roll, self._longest - self._search)

    def feed(self, frame: Samples, probability: float, valid: int = VAD_FRAME) -> list[Segment]:
        """Take the next frame and return the utterances that it completes: none, or one.

        Args:
            frame: `(512,)` float32.
            probability: Of speech, 0 to 1.
            valid: Samples of the frame that are audio; less than all only right before `flush`.
        """
        self._audio[self._filled] = frame
        self._loudness[self._filled] = float(np.dot(frame, frame))
        limit = self.options.release_threshold if self._last else self.options.threshold
        self._spoken[self._filled] = probability >= limit
        self._filled += 1
        self._tail = VAD_FRAME - valid
        if self._spoken[self._filled - 1]:
            self._last = self._filled
        return self._decide()

    def _decide(self) -> list[Segment]:
        if not self._last:
            self._drop(max(0, self._filled - self._pre_roll))
            return []
        if not self._confirmed:
            self._confirmed = int(self._spoken[: self._filled].sum()) >= self._min_speech
        if self._filled - self._last >= self._hangover:
            return self._close(Ending.SILENCE)
        if self._confirmed and self._filled >= self._longest:
            return [self._split()]
        return []

    def flush(self, ending: Ending = Ending.FLUSH, position: int | None = None) -> list[Segment]:
        """End the current utterance now, and begin anew.

        Args:
            ending: Why.
            position: The stream's sample that comes next, where it is not the one after the last frame.
        """
        following = self._at + self._filled * VAD_FRAME - self._tail
        done = self._close(ending) if self._last else []
        self._rest()
        self._tail = 0
        self._at = following if position is None else position
        return done

    def _close(self, ending: Ending) -> list[Segment]:
        """Cut the utterance after its post-roll, and keep the end of the silence as the next one's pre-roll."""
        done = []
        end = min(self._filled, self._last + self._post_roll)
        if self._confirmed:
            samples = end * VAD_FRAME - (self._tail if end == self._filled else 0)
            done.append(Segment(self._at, self.heard[:samples].copy(), ending, self._spoken[:end].copy()))
        self._last, self._confirmed = 0, False
        self._drop(max(end, self._filled - self._pre_roll))
        return done

    def _split(self) -> Segment:
        """Cut a too long utterance at its quietest late frame; what follows begins the next one."""
        first = self._longest - self._search
        cut = first + int(self._loudness[first : self._longest].argmin())
        segment = Segment(self._at, self._audio[:cut].reshape(-1).copy(), Ending.SPLIT, self._spoken[:cut].copy())
        self._drop(cut)
        self._last = max(0, self._last - cut)
        self._confirmed = int(self._spoken[: self._filled].sum()) >= self._min_speech
        return segment

    def _drop(self, count: int) -> None:
        """Forget the buffer's first frames."""
        kept = self._filled - count
        if count:
            for buffer in (self._audio, self._loudness, self._spoken):
                buffer[:kept] = buffer[count : self._filled].copy()
        self._filled = kept
        self._at += count * VAD_FRAME
        if not self._last:
            self._spoken[:kept] = False


def _frames(seconds: float) -> int:
    return math.ceil(round(seconds * SAMPLE_RATE, 6) / VAD_FRAME)
