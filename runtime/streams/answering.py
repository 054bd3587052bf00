"""The stage that turns utterances into Events."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgeser.runtime.asr import RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.errors import AsrError, EngineError, InputError
from edgeser.runtime.results import Result
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.streams.crew import POLL_S
from edgeser.runtime.streams.event import Event, Words
from edgeser.runtime.streams.flow import Flow, Utterance
from edgeser.runtime.streams.ring import Mark

if TYPE_CHECKING:
    from edgeser.runtime.recognizer import Runtime

log = logging.getLogger(__name__)

_MAX_FAILURES = 3  # in a row; then the model will not recover by itself


class Emit(Protocol):
    """Hands out an Event, or a mark once all Events before it are handed out."""

    def __call__(self, item: Event | Mark, *, wait: bool = False) -> None: ...


class Answering:
    """Takes utterances, waits for their words, and has the model answer.

    Args:
        flow: The stream's queues.
        runtime: Answers.
        emit: Hands out what comes of it.

    Attributes:
        state: What was heard so far; `None` where no mean is taken out of rows.

    Raises:
        InputError: The bundle does not go with the options' `normalize`, `state` and `answered`.
    """

    def __init__(self, flow: Flow, runtime: Runtime, emit: Emit) -> None:
        self._flow = flow
        self._runtime = runtime
        self._emit = emit
        runtime.check_answered(flow.options.answered)
        self.state = runtime.normalization.begin(flow.options.normalize, flow.options.state)
        self._failures = 0

    def run(self) -> None:
        """Work until the stream ends; the loop of a thread."""
        while not self._flow.crew.stopping.is_set():
            item = self._flow.answers.get(POLL_S)
            if isinstance(item, Mark):
                self._emit(item)
            elif item is not None:
                self._answer(item)

    def _answer(self, utterance: Utterance) -> None:
        outcome, words = self._words(utterance)
        if self._flow.crew.stopping.is_set():
            return
        asr_ms = utterance.hearing.asr_ms if utterance.hearing else 0.0
        # What goes on is heard when it has ended, so that estimates meanwhile change no later answer.
        state = self.state.copy() if self.state is not None and utterance.ending is None else self.state
        started = time.perf_counter()
        try:
            with self._flow.crew.working("answer"):
                try:
                    result = self._result(utterance, words, asr_ms, state)
                except AsrError as error:
                    self._deaf(error)
                    outcome, result = Words.FAILED, self._result(utterance, (), asr_ms, state)
        except Exception as error:  # an engine may raise anything; one utterance is lost, not the stream
            self._failed(utterance, error)
            return
        self._failures = 0
        if result.is_doubtful:
            outcome = Words.DOUBTFUL
        self._flow.meter.measured("answer", (time.perf_counter() - started) * 1e3)
        self._emit(self._event(utterance, result, outcome), wait=utterance.patient)

    def _result(
        self, utterance: Utterance, words: Sequence[RecognizedWord] | None, asr_ms: float, state: RunningMean | None
    ) -> Result:
        answered = self._flow.options.answered
        return self._runtime.answer(utterance.samples, words, asr_ms, utterance.spoken, state, answered)

    def _deaf(self, error: AsrError) -> None:
        """Count and tell that the recogniser that was asked failed."""
        self._flow.meter.count("asr_failed")
        failures = self._flow.meter.count("asr_errors")
        name = self._runtime.asr.name
        log.warning("%s failed (%d times so far), the voice alone decides: %s", name, failures, error)

    def _event(self, utterance: Utterance, result: Result, outcome: Words) -> Event:
        meter = self._flow.meter
        event = Event(
            utterance=utterance.number,
            partial=utterance.ending is None,
            start_s=utterance.start / SAMPLE_RATE,
            end_s=(utterance.start + utterance.samples.shape[0]) / SAMPLE_RATE,
            ending=utterance.ending,
            result=result,
            words=outcome,
            latency_ms=(time.perf_counter() - utterance.certain_at) * 1e3,
            dropped=meter.counted("dropped"),
            lost_s=self._flow.ring.lost / SAMPLE_RATE,
            time_s=time.time(),
        )
        if not event.partial:
            meter.measured("latency", event.latency_ms)
        meter.count("partials" if event.partial else "events")
        return event

    def _words(self, utterance: Utterance) -> tuple[Words, tuple[RecognizedWord, ...] | None]:
        """Return the words of an utterance, waiting for them no longer than the deadline.

        `None` where the recogniser does not hear along: it is asked for them with the whole utterance.
        """
        hearing, listener = utterance.hearing, self._flow.listener
        if listener is None:
            asks = self._runtime.hears_words and not self._runtime.asr.hears_along
            return (Words.HEARD, None) if asks else (Words.OFF, ())
        if hearing is None:
            return Words.HEARD, utterance.words
        left = None
        if not utterance.patient:
            since = time.perf_counter() - utterance.certain_at
            left = max(0.0, self._flow.options.asr_deadline_s - since)
        outcome = listener.wait(hearing, left)
        if outcome is not Words.HEARD:
            self._flow.meter.count("asr_late" if outcome is Words.LATE else "asr_failed")
            return outcome, ()
        return outcome, hearing.words

    def _failed(self, utterance: Utterance, error: Exception) -> None:
        self._flow.meter.count("failed")
        if isinstance(error, InputError):  # the audio's fault, not the engine's
            log.warning("utterance %d: %s", utterance.number, error)
            return
        self._failures += 1
        log.error("utterance %d got no answer: %s", utterance.number, error)
        if self._failures >= _MAX_FAILURES:
            raise EngineError(
                f"the stream ended: {_MAX_FAILURES} utterances in a row got no answer: {error}"
            ) from error
