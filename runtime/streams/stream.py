"""A stream: from pushed samples to Events, in threads that never wait for each other in vain."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.asr import NoAsr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.sources import Chunk, Source
from edgeser.runtime.streams.answering import Answering
from edgeser.runtime.streams.base import EventStream
from edgeser.runtime.streams.crew import POLL_S
from edgeser.runtime.streams.cutting import Cutting
from edgeser.runtime.streams.event import Activity, Event
from edgeser.runtime.streams.flow import TAIL, Flow
from edgeser.runtime.streams.hearing import Listener
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.options import StreamOptions
from edgeser.runtime.streams.ring import Mark, RingBuffer
from edgeser.runtime.streams.stats import StreamStats
from edgeser.runtime.streams.watch import Watch
from edgeser.runtime.vad import SileroVad, VoiceDetector

if TYPE_CHECKING:
    from edgeser.runtime.recognizer import Runtime

log = logging.getLogger(__name__)

_CLOSE_S = 0.8  # what close() waits for all threads together
_PIECE = 2048  # samples of a patient push that are converted at once
_GROWTH = 4  # times as many samples come of resampling at most: from 4 kHz


class Stream(EventStream):
    """Turns audio that is pushed, or captured from a source, into Events.

    Made by `Runtime.open_stream`. Nothing here ever makes a live source wait: each queue is bounded, and what it loses
    is counted.

    Args:
        runtime: Answers.
        options: How to cut, wait and drop.
        on_event: Called with each Event, see `EventStream`.
        vad: The voice detector, of this stream alone; Silero.
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
        self._source: Source | None = None
        listener = None
        if runtime.hears_words and runtime.asr.hears_along and not isinstance(runtime.asr, NoAsr):
            listener = Listener(runtime.asr, self._meter, options.partial)
        self._flow = Flow(
            options,
            self._crew,
            self._meter,
            RingBuffer(round(options.buffer_s * SAMPLE_RATE) + TAIL),
            Mailbox(options.max_utterances),
            listener,
        )
        answering = Answering(self._flow, runtime, self._emit)
        self._state = answering.state  # not the stage, which holds this stream
        self._cutting = Cutting(self._flow, vad or SileroVad(), runtime.window_samples)
        self._crew.start(self._cutting.run, "cutting")
        self._crew.start(answering.run, "answering")
        self._crew.start(Watch(self._flow).run, "watch")
        if listener is not None:
            self._crew.start(listener.run, "asr")
        self._start_delivery()

    def push(self, chunk: NDArray[np.generic], rate: int = SAMPLE_RATE, *, wait: bool = False) -> None:
        """Add audio. Returns at once, unless `wait`.

        Args:
            chunk: `(n,)` or `(n, channels)`, PCM or floats at full scale 1.0; any n.
            rate: Sample rate in Hz.
            wait: Wait where there is no room, so that nothing is lost: for recordings, not for microphones. Events
                must be fetched meanwhile, in another thread or by `on_event`, which cannot wait itself.

        Raises:
            InputError: The chunk is not usable (the stream goes on), or the stream is closed.
            EngineError: The stream has ended with this error.
        """
        if not wait:
            super().push(chunk, rate)
            return
        self._check_open()
        self._refuse_in_callback("push(wait=True)", "push without wait")
        for piece in Chunk.of(chunk, rate).pieces(_PIECE):
            # What is pushed at the same time goes between two pieces: nobody is held up by who waits.
            self._when_there_is_room(
                _GROWTH * piece.samples.shape[0] + TAIL,
                lambda: self._intake.convert(piece),  # noqa: B023
            )

    def capture(self, source: Source) -> None:
        """Read a source to its end, in a thread of the stream.

        Raises:
            InputError: The source cannot be opened, or the stream has one already.
        """
        self._check_open()
        with self._entrance:
            if self._source is not None:
                raise InputError(f"stream: got a second source, {source.name}: open another stream for it")
            self._source = source
        try:
            source.open()
        except BaseException:
            self._source = None
            raise
        self._crew.start(lambda: self._read(source), "capture")

    @property
    def activity(self) -> Activity:
        return self._cutting.activity

    @property
    def state(self) -> RunningMean | None:
        return None if self._state is None else self._state.copy()

    @property
    def stats(self) -> StreamStats:
        self._crew.owner.check()
        source, ring = self._source, self._flow.ring
        return self._meter.snapshot(
            ring.written / SAMPLE_RATE,
            ring.lost / SAMPLE_RATE,
            source.overflows if source else 0,
            source.interruptions if source else 0,
        )

    def close(self) -> None:
        """End the stream in under a second, from any state; what is not answered yet is not answered any more.

        A thread that hangs in a recogniser, a callback or a device is left behind, with a line in the log. In a process
        that was forked this does nothing.
        """
        if not self._crew.owner.is_here:
            return
        self._crew.stop()
        left = self._crew.join(_CLOSE_S)
        if left:
            log.warning("the stream is closed, %s did not return yet", " and ".join(left))

    def _read(self, source: Source) -> None:
        """Pass on what a source gives; the loop of a thread."""
        seen = source.interruptions
        try:
            while not self._crew.stopping.is_set():
                samples = source.read(POLL_S)
                if source.interruptions > seen:
                    seen = source.interruptions
                    self._flow.ring.mark(Mark("gap"))
                if samples is None:
                    self._flow.ring.mark(Mark("end"))
                    return
                if source.live:
                    with self._entrance:
                        self._write(samples)
                else:
                    for begin in range(0, samples.shape[0], _PIECE):
                        piece = samples[begin : begin + _PIECE]
                        self._when_there_is_room(piece.shape[0], lambda: piece)  # noqa: B023
        finally:
            source.close()

    def _when_there_is_room(self, count: int, samples: Callable[[], Samples]) -> None:
        """Write samples, `count` at most, once nothing is lost by it."""
        ring, needed = self._flow.ring, count + TAIL
        while not self._crew.stopping.is_set():
            ring.wait_for_room(needed, POLL_S)
            with self._entrance:  # nobody else writes: room can only grow
                if ring.room >= needed:
                    fresh = samples()
                    self._flow.patient = True
                    ring.write(fresh)
                    return

    def _write(self, samples: Samples) -> None:
        self._flow.patient = False
        self._flow.ring.write(samples)

    def _note(self, mark: Mark, rest: Samples) -> None:
        self._flow.ring.write(rest)  # there is always room for it where the source waits
        self._flow.ring.mark(mark)

    def _release(self) -> None:
        super()._release()
        self._flow.close()
