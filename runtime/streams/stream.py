"""The engine room of a stream: from pushed samples to Events, in threads that never wait for each other in vain."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import NoAsr, RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EdgeSerError, EngineError, InputError
from edgeser.runtime.segmenting import Ending, Segment, Segmenter, SegmentOptions
from edgeser.runtime.sources import Source
from edgeser.runtime.streams.base import POLL_S, EventStream
from edgeser.runtime.streams.event import Activity, Event, Words
from edgeser.runtime.streams.hearing import Hearing, Listener
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.ring import Mark, RingBuffer
from edgeser.runtime.streams.stats import StreamStats
from edgeser.runtime.vad import VAD_FRAME, SileroVad, VoiceDetector

if TYPE_CHECKING:
    from edgeser.runtime.recognizer import Runtime

log = logging.getLogger(__name__)

_CLOSE_S = 0.8  # what close() waits for all threads together
_ASR_CHUNK = SAMPLE_RATE // 10
_MAX_FAILURES = 3  # in a row; then the model will not recover by itself


@dataclass(frozen=True)
class StreamOptions:
    """How a stream cuts, waits and drops.

    Attributes:
        segment: When an utterance begins and ends.
        partial: Also emit rolling estimates while someone speaks.
        partial_every_s: How often, in seconds of speech.
        asr_deadline_s: How long after an utterance's end its words are waited for, where the source is live.
        buffer_s: Audio that waits for the voice detector at most; then the oldest is lost.
        max_utterances: Utterances that wait for the model at most; then the oldest is dropped.
        max_events: Events that wait to be fetched at most; then the oldest is missed.
        stall_s: How long one call of a stage may take before it counts as hanging.
    """

    segment: SegmentOptions = field(default_factory=SegmentOptions)
    partial: bool = False
    partial_every_s: float = 0.5
    asr_deadline_s: float = 3.0
    buffer_s: float = 30.0
    max_utterances: int = 8
    max_events: int = 256
    stall_s: float = 30.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("partial_every_s", 0.1, 60.0),
            ("asr_deadline_s", 0.0, 600.0),
            ("buffer_s", 1.0, 3600.0),
            ("max_utterances", 1, 10_000),
            ("max_events", 1, 1_000_000),
            ("stall_s", 0.1, 3600.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: got {value}, expected {low} to {high}")


@dataclass(frozen=True)
class _Utterance:
    """An utterance, or its beginning, on its way to the model."""

    number: int
    start: int
    samples: Samples
    spoken: NDArray[np.bool_]
    ending: Ending | None
    hearing: Hearing | None
    words: tuple[RecognizedWord, ...]
    certain_at: float
    patient: bool


class Stream(EventStream):
    """Turns audio that is pushed, or captured from a source, into Events.

    Made by `Runtime.open_stream`. One thread pushes; Events come to `on_event` in a thread of the stream, or by
    iterating. Nothing here ever makes a live source wait: each queue is bounded, and what it loses is counted.

    Args:
        runtime: Answers.
        options: How to cut, wait and drop.
        on_event: Called with each Event; what it raises is logged and counted.
        vad: The voice detector; Silero.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: StreamOptions,
        on_event: Callable[[Event], None] | None = None,
        vad: VoiceDetector | None = None,
    ) -> None:
        super().__init__(on_event, options.max_events)
        self.options = options
        self._runtime = runtime
        self._vad = vad or SileroVad()
        self._segmenter = Segmenter(options.segment)
        self._activity = Activity(-100.0, 0.0, False)
        self._ring = RingBuffer(round(options.buffer_s * SAMPLE_RATE))
        self._answers: Mailbox[_Utterance | Mark] = Mailbox(options.max_utterances)
        self._source: Source | None = None
        self._patient = False
        self._hearing: Hearing | None = None
        self._number = 0
        self._rolled = 0
        self._failures = 0
        self._listener: Listener | None = None
        if runtime.hears_words and not isinstance(runtime.asr, NoAsr):
            self._listener = Listener(runtime.asr, self._meter, options.partial)
        self._threads = [self._started(self._hear), self._started(self._answer), self._started(self._watch)]
        if on_event is not None:
            self._threads.append(self._started(self._deliver))

    # -- what the caller does -------------------------------------------------------------------------------------

    def push(self, chunk: NDArray[np.generic], rate: int = SAMPLE_RATE, *, wait: bool = False) -> None:
        """Add audio. Returns at once, unless `wait`.

        Args:
            chunk: `(n,)` or `(n, channels)`, PCM or floats at full scale 1.0; any n.
            rate: Sample rate in Hz.
            wait: Wait where there is no room, so that nothing is lost: for recordings, not for microphones.

        Raises:
            InputError: The chunk is not usable (the stream goes on), or the stream is closed.
            EngineError: The stream has ended with this error.
        """
        self._check_open()
        self._write(self._intake(chunk, rate), wait)

    def gap(self) -> None:
        self._check_open()
        self._write(self._intake.flush(), self._patient)
        self._ring.mark(Mark("gap"))

    def capture(self, source: Source) -> None:
        """Read a source to its end, in a thread of the stream.

        Raises:
            InputError: The source cannot be opened, or the stream has one already.
        """
        self._check_open()
        if self._source is not None:
            raise InputError(f"stream: got a second source, {source.name}: open another stream for it")
        source.open()
        self._source = source
        self._threads.append(self._started(self._capture))

    def flush(self, timeout_s: float | None = None) -> bool:
        self._check_open()
        self._write(self._intake.flush(), self._patient)
        mark = Mark("flush")
        self._ring.mark(mark)
        return self._waited(mark, timeout_s)

    def end(self) -> None:
        self._write(self._intake.flush(), self._patient)
        self._ring.mark(Mark("end"))

    @property
    def activity(self) -> Activity:
        """What is heard right now, for a level meter."""
        return self._activity

    @property
    def stats(self) -> StreamStats:
        """The counters at this moment."""
        source = self._source
        return self._meter.snapshot(
            self._ring.written / SAMPLE_RATE,
            self._ring.lost / SAMPLE_RATE,
            source.overflows if source else 0,
            source.interruptions if source else 0,
        )

    def close(self) -> None:
        """End the stream in under a second, from any state; what is not answered yet is not answered any more.

        A thread that hangs in a recogniser, a callback or a device is left behind, with a line in the log.
        """
        self._stopping.set()
        self._ring.close()
        self._answers.close()
        self._events.close()
        if self._listener is not None:
            self._listener.stop()
        threads = [*self._threads, *([self._listener.thread] if self._listener else [])]
        limit = time.monotonic() + _CLOSE_S
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))
        left = [thread.name for thread in threads if thread.is_alive() and thread is not threading.current_thread()]
        if left:
            log.warning("the stream is closed, %s did not return yet", " and ".join(left))

    # -- capture --------------------------------------------------------------------------------------------------

    def _capture(self) -> None:
        source = self._source
        assert source is not None
        seen = source.interruptions
        try:
            while not self._stopping.is_set():
                samples = source.read(POLL_S)
                if source.interruptions > seen:
                    seen = source.interruptions
                    self._ring.mark(Mark("gap"))
                if samples is None:
                    self._ring.mark(Mark("end"))
                    return
                self._write(samples, not source.live)
        except EdgeSerError as error:
            self._fail(error)
        finally:
            source.close()

    def _write(self, samples: Samples, wait: bool) -> None:
        self._patient = wait
        self._ring.write(samples, wait)

    # -- voice detection and cutting ------------------------------------------------------------------------------

    def _hear(self) -> None:
        expected = 0
        while not self._stopping.is_set():
            position, samples, mark = self._ring.read(VAD_FRAME, POLL_S)
            if position != expected:
                self._cut(Ending.GAP, position)
            expected = position + samples.shape[0]
            if samples.size:
                self._frame(samples)
            if mark is not None:
                self._cut(Ending.GAP if mark.kind == "gap" else Ending.FLUSH)
                if mark.kind != "gap":
                    self._answers.put(mark, droppable=False)

    def _frame(self, samples: Samples) -> None:
        frame = samples
        if samples.shape[0] < VAD_FRAME:
            frame = np.zeros(VAD_FRAME, np.float32)
            frame[: samples.shape[0]] = samples
        self._busy["vad"] = started = time.monotonic()
        probability = self._vad.probability(frame)
        self._busy.pop("vad", None)
        self._meter.measured("vad", (time.monotonic() - started) * 1e3)
        self._follow(self._segmenter.feed(frame, probability, samples.shape[0]))
        power = float(np.dot(frame, frame)) / VAD_FRAME
        self._activity = Activity(10 * math.log10(power + 1e-10), probability, self._segmenter.speaking)

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
        heard = self._segmenter.heard
        if self._listener is not None:
            if self._hearing is None:
                self._hearing = self._listener.begin()
            sure = self._segmenter.sure
            if sure - self._hearing.taken >= _ASR_CHUNK:
                self._hearing.add(heard[self._hearing.taken : sure].copy())
        every = round(self.options.partial_every_s * SAMPLE_RATE)
        if self.options.partial and heard.shape[0] - self._rolled >= every:
            self._rolled = heard.shape[0]
            self._roll(heard)

    def _pass_on(self, segment: Segment) -> None:
        """Queue a whole utterance for the model."""
        hearing = self._hearing
        if self._listener is not None:
            hearing = hearing or self._listener.begin()
            hearing.add(segment.samples[hearing.taken :])
            hearing.finish()
        now = time.perf_counter()
        start, samples, spoken, ending = segment.start, segment.samples, segment.spoken, segment.ending
        self._queue(_Utterance(self._number, start, samples, spoken, ending, hearing, (), now, self._patient))
        self._hearing, self._rolled = None, 0
        self._number += 1
        self._meter.count("utterances")

    def _roll(self, heard: Samples) -> None:
        """Queue the model's last window of an utterance that goes on, unless the model is behind."""
        if len(self._answers) and not self._patient:
            return
        window = heard[-self._runtime.window_samples :]
        start = self._segmenter.start + heard.shape[0] - window.shape[0]
        spoken = self._segmenter.spoken[-math.ceil(window.shape[0] / VAD_FRAME) :]
        words = self._hearing.partial if self._hearing else ()
        now, number = time.perf_counter(), self._number
        self._queue(_Utterance(number, start, window.copy(), spoken.copy(), None, None, words, now, self._patient))

    def _queue(self, utterance: _Utterance) -> None:
        gone = self._answers.put(utterance, wait=self._patient)
        if isinstance(gone, _Utterance) and gone.ending is not None:
            if gone.hearing is not None:
                gone.hearing.cancel()
            dropped = self._meter.count("dropped")
            log.warning("too slow: utterance %d was dropped, %d so far", gone.number, dropped)

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        while not self._stopping.is_set():
            item = self._answers.get(POLL_S)
            if isinstance(item, Mark):
                self._emit(item)
            elif item is not None:
                self._answer_one(item)

    def _answer_one(self, utterance: _Utterance) -> None:
        outcome, words = self._words(utterance)
        if self._stopping.is_set():
            return
        self._busy["answer"] = time.monotonic()
        started = time.perf_counter()
        try:
            result = self._runtime.answer(
                utterance.samples, words, utterance.hearing.asr_ms if utterance.hearing else 0.0, utterance.spoken
            )
        except Exception as error:  # an engine may raise anything; one utterance is lost, not the stream
            self._failed(utterance, error)
            return
        finally:
            self._busy.pop("answer", None)
        self._failures = 0
        self._meter.measured("answer", (time.perf_counter() - started) * 1e3)
        latency_ms = (time.perf_counter() - utterance.certain_at) * 1e3
        event = Event(
            utterance=utterance.number,
            partial=utterance.ending is None,
            start_s=utterance.start / SAMPLE_RATE,
            end_s=(utterance.start + utterance.samples.shape[0]) / SAMPLE_RATE,
            ending=utterance.ending,
            result=result,
            words=outcome,
            latency_ms=latency_ms,
            dropped=self._meter.counted("dropped"),
            lost_s=self._ring.lost / SAMPLE_RATE,
            time_s=time.time(),
        )
        if not event.partial:
            self._meter.measured("latency", latency_ms)
        self._meter.count("partials" if event.partial else "events")
        self._emit(event, wait=utterance.patient)

    def _words(self, utterance: _Utterance) -> tuple[Words, tuple[RecognizedWord, ...]]:
        """Return the words of an utterance, waiting for them no longer than the deadline."""
        hearing, listener = utterance.hearing, self._listener
        if listener is None:
            return Words.OFF, ()
        if hearing is None:
            return Words.HEARD, utterance.words
        left = None
        if not utterance.patient:
            left = max(0.0, self.options.asr_deadline_s - (time.perf_counter() - utterance.certain_at))
        outcome = listener.wait(hearing, left)
        if outcome is not Words.HEARD:
            self._meter.count("asr_late" if outcome is Words.LATE else "asr_failed")
            return outcome, ()
        return outcome, hearing.words

    def _failed(self, utterance: _Utterance, error: Exception) -> None:
        if isinstance(error, InputError):  # the audio's fault, not the engine's
            log.warning("utterance %d: %s", utterance.number, error)
            self._meter.count("failed")
            return
        self._failures += 1
        self._meter.count("failed")
        log.error("utterance %d got no answer: %s", utterance.number, error)
        if self._failures >= _MAX_FAILURES:
            self._fail(EngineError(f"the stream ended: {_MAX_FAILURES} utterances in a row got no answer: {error}"))

    # -- watch ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Notice a stage that hangs: the recogniser is done without, the model and the detector end the stream."""
        told: set[tuple[str, float]] = set()
        while not self._stopping.wait(min(POLL_S, self.options.stall_s / 4)):
            busy = dict(self._busy)
            since = self._listener.busy_since if self._listener else None
            if since is not None:
                busy["asr"] = since
            for stage, started in busy.items():
                if time.monotonic() - started < self.options.stall_s or (stage, started) in told:
                    continue
                told.add((stage, started))
                self._meter.count("stalls")
                self._stalled(stage)

    def _stalled(self, stage: str) -> None:
        seconds = f"{self.options.stall_s:g} s"
        if stage == "asr" and self._listener is not None:
            log.warning("the recogniser has not returned for %s: until it does, the voice alone decides", seconds)
            self._listener.release(True)
        elif stage == "callback":
            log.warning("on_event has not returned for %s: Events wait, then the oldest are missed", seconds)
        else:
            what = {"vad": "the voice detector", "answer": "the model"}[stage]
            self._fail(EngineError(f"the stream ended: {what} has not returned for {seconds}"))

    def _fail(self, error: EdgeSerError) -> None:
        log.error("%s", error)
        self.error = error
        self._stopping.set()
        self._ring.close()
        self._answers.close()
        self._events.close()
