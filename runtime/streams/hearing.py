"""The recogniser's own thread: it hears while the person still speaks."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from edgeser.runtime.asr import Asr, AsrSession, RecognizedWord
from edgeser.runtime.audio import Samples
from edgeser.runtime.streams.event import Words
from edgeser.runtime.streams.stats import Meter

log = logging.getLogger(__name__)

Returned = TypeVar("Returned")


class Hearing:
    """The words of one utterance, as they are recognised.

    Attributes:
        partial: The words so far.
        words: The final words, once `outcome` says `HEARD`.
        outcome: `None` until the recogniser is done.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self.partial: tuple[RecognizedWord, ...] = ()
        self.words: tuple[RecognizedWord, ...] = ()
        self.outcome: Words | None = None
        self.asr_ms = 0.0
        self.taken = 0
        self._changed = changed
        self._pending: deque[Samples] = deque()
        self._finished_at: float | None = None
        self.cancelled = False

    def add(self, samples: Samples) -> None:
        """Pass on the next samples of the utterance; they are kept as they are."""
        self.taken += samples.shape[0]
        with self._changed:
            self._pending.append(samples)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that the utterance is over."""
        with self._changed:
            self._finished_at = time.perf_counter()
            self._changed.notify_all()

    def cancel(self) -> None:
        """Say that nobody wants the words any more."""
        with self._changed:
            self.cancelled = True
            self._pending.clear()
            self._changed.notify_all()

    @property
    def due(self) -> bool:
        """Whether the recogniser has something to do here."""
        return bool(self._pending) or self._finished_at is not None or self.cancelled

    def take(self) -> Samples | None:
        """Return what has come since, `None` when the utterance is over."""
        with self._changed:
            if self.cancelled or not self._pending:
                return None
            samples = np.concatenate(self._pending)
            self._pending.clear()
            return samples

    def conclude(self, outcome: Words, words: tuple[RecognizedWord, ...] = ()) -> None:
        """Note the recogniser's last word."""
        with self._changed:
            self.words, self.outcome = words, outcome
            if self._finished_at is not None:
                self.asr_ms = (time.perf_counter() - self._finished_at) * 1e3
            self._changed.notify_all()


class Listener:
    """Feeds a recogniser, utterance after utterance.

    Args:
        asr: The recogniser.
        meter: Takes the times.
        partial: Whether to ask for words before the end.
    """

    def __init__(self, asr: Asr, meter: Meter, partial: bool) -> None:
        self.busy_since: float | None = None
        self.stuck = False
        self._asr = asr
        self._meter = meter
        self._partial = partial
        self._hearings: deque[Hearing] = deque()
        self._changed = threading.Condition()
        self._stopping = False

    def begin(self) -> Hearing:
        """Begin the next utterance."""
        hearing = Hearing(self._changed)
        with self._changed:
            self._hearings.append(hearing)
        return hearing

    def wait(self, hearing: Hearing, timeout_s: float | None) -> Words:
        """Wait until an utterance's words are there, and return how that ended: at the latest after the timeout."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: hearing.outcome is not None or self.stuck or self._stopping, timeout_s
            )
        if hearing.outcome is not None and done:
            return hearing.outcome
        hearing.cancel()
        return Words.LATE

    def release(self, stuck: bool) -> None:
        """Let nobody wait while the recogniser hangs; or, again, wait."""
        with self._changed:
            self.stuck = stuck
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread, as soon as the recogniser returns."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def run(self) -> None:
        """Work until it is stopped; the loop of a thread."""
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or (self._hearings and self._hearings[0].due), 0.5)
                if self._stopping or not self._hearings or not self._hearings[0].due:
                    continue
                hearing = self._hearings[0]
            self._hear(hearing)
            with self._changed:
                self._hearings.popleft()

    def _hear(self, hearing: Hearing) -> None:
        """Hear one utterance from its beginning to its end."""
        session: AsrSession | None = None
        try:
            session = self._busy(self._asr.start)
            while not self._stopping and not hearing.cancelled:
                samples = hearing.take()
                if samples is not None:
                    self._busy(session.accept, samples)
                    if self._partial:
                        hearing.partial = self._busy(session.partial)
                elif hearing.due:
                    break
                else:
                    self._idle(hearing)
            if hearing.cancelled or self._stopping:
                self._busy(session.cancel)
                hearing.conclude(Words.LATE)
            else:
                hearing.conclude(Words.HEARD, self._busy(session.finish))
                self._meter.measured("asr", hearing.asr_ms)
        except BaseException as error:  # whatever a recogniser raises, SystemExit too: the voice can still decide
            hearing.conclude(Words.FAILED)
            if self._stopping:  # a recogniser that is closed with the stream is no failure
                return
            failures = self._meter.count("asr_errors")
            log.warning("%s failed (%d times so far), the voice alone decides: %s", self._asr.name, failures, error)

    def _idle(self, hearing: Hearing) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or hearing.due, 0.5)

    def _busy(self, call: Callable[..., Returned], *arguments: Samples) -> Returned:
        self.busy_since = time.monotonic()
        try:
            return call(*arguments)
        finally:
            self.busy_since = None
            if self.stuck:
                log.warning("%s answers again", self._asr.name)
                self.release(False)
