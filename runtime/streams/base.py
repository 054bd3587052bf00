"""What every stream offers whoever feeds it and whoever wants its Events."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EdgeSerError, EngineError, InputError
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.sources import Chunk, Intake
from edgeser.runtime.streams.crew import POLL_S, Crew, described
from edgeser.runtime.streams.event import Activity, Event
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.ring import Mark
from edgeser.runtime.streams.stats import Meter, StreamStats

log = logging.getLogger(__name__)

Opened = TypeVar("Opened", bound="EventStream")


class EventStream(ABC):
    """Takes audio and gives Events, to a callback or to who fetches them; safe to use from any thread.

    What several threads push goes in chunk by chunk. A stream stays in the process that opened it.

    Args:
        on_event: Called with each Event in a thread of the stream. What it raises is logged and counted; SystemExit
            ends the stream. It may push, `gap`, `end` and `close`; what would wait for itself is refused.
        max_events: Events that wait to be fetched at most; then the oldest is missed.
    """

    def __init__(self, on_event: Callable[[Event], None] | None, max_events: int) -> None:
        self._on_event = on_event
        self._events: Mailbox[Event | Mark] = Mailbox(max_events)
        self._intake = Intake()
        self._entrance = threading.Lock()  # converting and passing on are one step; never held while waiting
        self._meter = Meter()
        self._crew = Crew(self._release)
        self._finished = threading.Event()
        self._delivery: threading.Thread | None = None

    @property
    def error(self) -> EdgeSerError | None:
        """What ended the stream, if anything did."""
        return self._crew.error

    def push(self, chunk: NDArray[np.generic], rate: int = SAMPLE_RATE) -> None:
        """Add audio. Returns at once.

        Args:
            chunk: `(n,)` or `(n, channels)`, PCM or floats at full scale 1.0; any n.
            rate: Sample rate in Hz.

        Raises:
            InputError: The chunk is not usable (the stream goes on), or the stream is closed.
            EngineError: The stream has ended with this error.
        """
        self._check_open()
        checked = Chunk.of(chunk, rate)
        with self._entrance:
            self._write(self._intake.convert(checked))

    def gap(self) -> None:
        """Say that audio is missing here: the current utterance ends. Returns at once."""
        self._check_open()
        self._place(Mark("gap"))

    def flush(self, timeout_s: float | None = None) -> bool:
        """End the current utterance and wait until all that was pushed is answered, no longer than `timeout_s`.

        Returns:
            Whether it was in time. With `on_event`, all Events were delivered then.

        Raises:
            InputError: Called from `on_event`, whose end it would wait for; or the stream is closed.
            EngineError: The stream has ended with this error.
        """
        self._check_open()
        self._refuse_in_callback("flush()", "gap() ends the utterance too, and does not wait")
        if timeout_s is not None and not timeout_s >= 0:
            raise InputError(f"timeout_s: got {timeout_s}, expected 0 or more, or none")
        mark = Mark("flush")
        self._place(mark)
        return self._waited(mark, timeout_s)

    def end(self) -> None:
        """Say that no more audio comes; iterating ends after the last Event. Returns at once."""
        self._crew.owner.check()
        self._place(Mark("end"))

    @abstractmethod
    def close(self) -> None:
        """End the stream in under a second, from any state; what is not answered yet is not answered any more."""

    @property
    @abstractmethod
    def activity(self) -> Activity:
        """What is heard right now, for a level meter."""

    @property
    @abstractmethod
    def state(self) -> RunningMean | None:
        """A copy of what was heard so far, the utterances before the stream among it; `None` with `normalize="none"`.

        After `flush` it has all that was pushed. It stays after `close`.
        """

    @property
    @abstractmethod
    def stats(self) -> StreamStats:
        """The counters at this moment."""

    def next_event(self, timeout_s: float) -> Event | None:
        """Return the next Event, `None` when none came in time or the stream has ended.

        Raises:
            InputError: The Events go to `on_event`.
            EngineError: The stream has ended with this error.
        """
        self._crew.owner.check()
        if self._on_event is not None:
            raise InputError("stream: got on_event and a fetch of Events, expected one of them")
        item = self._events.get(timeout_s)
        if isinstance(item, Event):
            return item
        if isinstance(item, Mark):
            self._reached(item)
        elif self.error is not None:
            raise self.error
        return None

    @property
    def is_over(self) -> bool:
        """Whether no Event comes any more."""
        return self._finished.is_set() or (self._crew.stopping.is_set() and not len(self._events))

    def __iter__(self) -> Iterator[Event]:
        while not self._finished.is_set():
            event = self.next_event(POLL_S)
            if event is not None:
                yield event
            elif self.is_over:
                return

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncEvents(self)

    async def wait_for_event(self, timeout_s: float) -> None:
        """Wait until there may be an Event for `next_event`, without taking it."""
        await asyncio.to_thread(self._events.wait, timeout_s)

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _write(self, samples: Samples) -> None:
        """Pass on pushed samples, without waiting; the entrance is locked."""

    @abstractmethod
    def _note(self, mark: Mark, rest: Samples) -> None:
        """Pass on the last samples before a mark, and the mark, without waiting; the entrance is locked."""

    def _place(self, mark: Mark) -> None:
        with self._entrance:
            self._note(mark, self._intake.flush())

    def _emit(self, item: Event | Mark, *, wait: bool = False) -> None:
        """Hand out an Event, or a mark once all Events before it are handed out."""
        if isinstance(item, Event):
            if self._events.put(item, wait=wait) is not None:
                self._meter.count("missed_events")
        elif self._on_event is not None or item.kind == "end":
            self._events.put(item, droppable=False)
        else:
            item.reached.set()

    def _reached(self, mark: Mark) -> None:
        mark.reached.set()
        if mark.kind == "end":
            self._finished.set()

    def _start_delivery(self) -> None:
        if self._on_event is not None:
            self._delivery = self._crew.start(self._deliver, "events")

    def _deliver(self) -> None:
        """Call `on_event` with what comes; the loop of a thread."""
        while not self._crew.stopping.is_set():
            item = self._events.get(POLL_S)
            if isinstance(item, Mark):
                self._reached(item)
            elif item is not None:
                self._call_back(item)

    def _call_back(self, event: Event) -> None:
        assert self._on_event is not None
        started = time.monotonic()
        try:
            with self._crew.working("callback"):
                self._on_event(event)
        except Exception:  # the user's code; the stream goes on
            if self._meter.count("callback_errors") == 1:
                log.exception("on_event raised; the stream goes on, and later exceptions are only counted")
        except BaseException as error:  # sys.exit, say: whoever raised it wants an end
            raise EngineError(f"the stream ended: on_event raised {described(error)}") from error
        self._meter.measured("callback", (time.monotonic() - started) * 1e3)

    def _refuse_in_callback(self, call: str, instead: str) -> None:
        if threading.current_thread() is self._delivery:
            raise InputError(f"stream: got {call} from on_event, which it would wait for: {instead}")

    def _waited(self, mark: Mark, timeout_s: float | None) -> bool:
        """Wait for a mark; return whether it was reached.

        Raises:
            EngineError: The stream has ended with this error.
        """
        limit = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not mark.reached.wait(max(0.0, min(POLL_S, limit - time.monotonic()))):
            if self._crew.stopping.is_set() or time.monotonic() >= limit:
                break
        if self.error is not None:
            raise self.error
        return mark.reached.is_set()

    def _check_open(self) -> None:
        self._crew.owner.check()
        if self.error is not None:
            raise self.error
        if self._crew.stopping.is_set():
            raise InputError("stream: is closed: open another one")

    def _release(self) -> None:
        """Let go of whoever waits for the stream, which has ended."""
        self._events.close()


class _AsyncEvents(AsyncIterator[Event]):
    """The Events of a stream for asyncio. Waiting takes none: a wait that is cancelled loses nothing."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Event:
        while True:
            event = self._stream.next_event(0.0)
            if event is not None:
                return event
            if self._stream.is_over:
                raise StopAsyncIteration
            await self._stream.wait_for_event(POLL_S)
