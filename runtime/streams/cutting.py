"""The stage that hears where someone speaks, and cuts the audio into utterances."""

from __future__ import annotations

import logging
import math
import time

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EdgeSerError, EngineError
from edgeser.runtime.segmenting import Ending, Segment, Segmenter
from edgeser.runtime.streams.crew import POLL_S, described
from edgeser.runtime.streams.event import Activity
from edgeser.runtime.streams.flow import Flow, Utterance
from edgeser.runtime.streams.hearing import Hearing
from edgeser.runtime.vad import VAD_FRAME, VoiceDetector

log = logging.getLogger(__name__)

_ASR_CHUNK = SAMPLE_RATE // 10


class Cutting:
    """Takes audio from the ring, frame by frame, and queues utterances; the recogniser hears along.

    Args:
        flow: The stream's queues.
        vad: The voice detector.
        window_samples: What the model hears of an utterance at most, for partial estimates.

    Attributes:
        activity: What was heard in the last frame.
    """

    def __init__(self, flow: Flow, vad: VoiceDetector, window_samples: int) -> None:
        self.activity = Activity(-100.0, 0.0, False)
        self._flow = flow
        self._vad = vad
        self._window_samples = window_samples
        self._segmenter = Segmenter(flow.options.segment)
        self._hearing: Hearing | None = None
        self._number = 0
        self._rolled = 0

    def run(self) -> None:
        """Work until the stream ends; the loop of a thread."""
        expected = 0
        while not self._flow.crew.stopping.is_set():
            position, samples, mark = self._flow.ring.read(VAD_FRAME, POLL_S)
            if position != expected:
                self._cut(Ending.GAP, position)
            expected = position + samples.shape[0]
            if samples.size:
                self._frame(samples)
            if mark is not None:
                self._cut(Ending.GAP if mark.kind == "gap" else Ending.FLUSH)
                if mark.kind != "gap":
                    self._flow.answers.put(mark, droppable=False)

    def _frame(self, samples: Samples) -> None:
        frame = samples
        if samples.shape[0] < VAD_FRAME:
            frame = np.zeros(VAD_FRAME, np.float32)
            frame[: samples.shape[0]] = samples
        probability = self._probability(frame)
        self._follow(self._segmenter.feed(frame, probability, samples.shape[0]))
        power = float(np.dot(frame, frame)) / VAD_FRAME
        self.activity = Activity(10 * math.log10(power + 1e-10), probability, self._segmenter.speaking)

    def _probability(self, frame: Samples) -> float:
        started = time.monotonic()
        try:
            with self._flow.crew.working("vad"):
                probability = self._vad.probability(frame)
        except EdgeSerError:
            raise
        except Exception as error:
            raise EngineError(f"the stream ended: the voice detector failed: {described(error)}") from error
        if not 0.0 <= probability <= 1.0:
            raise EngineError(f"the stream ended: the voice detector gave {probability}, expected 0 to 1")
        self._flow.meter.measured("vad", (time.monotonic() - started) * 1e3)
        return probability

    def _cut(self, ending: Ending, position: int | None = None) -> None:
        """End the current utterance where the audio ends or breaks."""
        self._follow(self._segmenter.flush(ending, position))
        self._vad.reset()

    def _follow(self, segments: list[Segment]) -> None:
        """Pass on what the segmenter has decided."""
        for segment in segments:
            self._pass_on(segment)
            if segment.ending is Ending.SILENCE:
                # What Silero remembers of a voice makes it deaf to a much quieter one soon after.
                self._vad.reset()
        if not self._segmenter.speaking:
            return
        heard, options = self._segmenter.heard, self._flow.options
        if self._flow.listener is not None:
            if self._hearing is None:
                self._hearing = self._flow.listener.begin()
            sure = self._segmenter.sure
            if sure - self._hearing.taken >= _ASR_CHUNK:
                self._hearing.add(heard[self._hearing.taken : sure].copy())
        every = round(options.partial_every_s * SAMPLE_RATE)
        if options.partial and heard.shape[0] - self._rolled >= every:
            self._rolled = heard.shape[0]
            self._roll(heard)

    def _pass_on(self, segment: Segment) -> None:
        """Queue a whole utterance for the model."""
        hearing = self._hearing
        if self._flow.listener is not None:
            hearing = hearing or self._flow.listener.begin()
            hearing.add(segment.samples[hearing.taken :])
            hearing.finish()
        start, samples, spoken, ending = segment.start, segment.samples, segment.spoken, segment.ending
        self._queue(Utterance(self._number, start, samples, spoken, ending, hearing, (), self._flow.patient))
        self._hearing, self._rolled = None, 0
        self._number += 1
        self._flow.meter.count("utterances")

    def _roll(self, heard: Samples) -> None:
        """Queue the model's last window of an utterance that goes on, unless the model is behind."""
        if len(self._flow.answers) and not self._flow.patient:
            return
        window = heard[-self._window_samples :]
        start = self._segmenter.start + heard.shape[0] - window.shape[0]
        spoken = self._segmenter.spoken[-math.ceil(window.shape[0] / VAD_FRAME) :].copy()
        words = self._hearing.partial if self._hearing else ()
        self._queue(Utterance(self._number, start, window.copy(), spoken, None, None, words, self._flow.patient))

    def _queue(self, utterance: Utterance) -> None:
        gone = self._flow.answers.put(utterance, wait=utterance.patient)
        if isinstance(gone, Utterance) and gone.ending is not None:
            if gone.hearing is not None:
                gone.hearing.cancel()
            dropped = self._flow.meter.count("dropped")
            log.warning("too slow: utterance %d was dropped, %d so far", gone.number, dropped)
