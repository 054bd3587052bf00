"""What every stream offers whoever feeds it and whoever wants its Events."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.sources import Intake
from edgeser.runtime.streams.event import Activity, Event
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.ring import Mark
from edgeser.runtime.streams.stats import Meter, StreamStats

log = logging.getLogger(__name__)

Opened = TypeVar("Opened", bound="EventStream")

POLL_S = 0.1
"""How soon an idle stage notices that the stream closes."""


class EventStream(ABC):
    """Takes audio and gives Events, to a callback or to who fetches them. One thread pushes.

    Args:
        on_event: Called with each Event in a thread of the stream; what it raises is logged and counted.
        max_events: Events that wait to be fetched at most; then the oldest is missed.

    Attributes:
        error: What ended the stream, if anything did.
    """

    def __init__(self, on_event: Callable[[Event], None] | None, max_events: int) -> None:
        self.error: EdgeSerError | None = None
        self._on_event = on_event
        self._events: Mailbox[Event | Mark] = Mailbox(max_events)
        self._intake = Intake()
        self._meter = Meter()
        self._busy: dict[str, float] = {}
        self._stopping = threading.Event()
        self._finished = threading.Event()

    @abstractmethod
    def push(self, chunk: NDArray[np.generic], rate: int = SAMPLE_RATE) -> None:
        """Add audio. Returns at once.

        Args:
            chunk: `(n,)` or `(n, channels)`, PCM or floats at full scale 1.0; any n.
            rate: Sample rate in Hz.

        Raises:
            InputError: The chunk is not usable (the stream goes on), or the stream is closed.
            EngineError: The stream has ended with this error.
        """

    @abstractmethod
    def gap(self) -> None:
        """Say that audio is missing here: the current utterance ends."""

    @abstractmethod
    def flush(self, timeout_s: float | None = None) -> bool:
        """End the current utterance and wait until all that was pushed is answered.

        Returns:
            Whether it was in time. With `on_event`, all Events were delivered then.
        """

    @abstractmethod
    def end(self) -> None:
        """Say that no more audio comes; iterating ends after the last Event."""

    @abstractmethod
    def close(self) -> None:
        """End the stream in under a second, from any state; what is not answered yet is not answered any more."""

    @property
    @abstractmethod
    def activity(self) -> Activity:
        """What is heard right now, for a level meter."""

    @property
    @abstractmethod
    def stats(self) -> StreamStats:
        """The counters at this moment."""

    def next_event(self, timeout_s: float) -> Event | None:
        """Return the next Event, `None` when none came in time or the stream has ended.

        Raises:
            EngineError: The stream has ended with this error.
        """
        if self._on_event is not None:
            raise InputError("stream: got on_event and a fetch of Events, expected one of them")
        item = self._events.get(timeout_s)
        if isinstance(item, Event):
            return item
        if isinstance(item, Mark):
            item.reached.set()
            if item.kind == "end":
                self._finished.set()
        elif self.error is not None:
            raise self.error
        return None

    def __iter__(self) -> Iterator[Event]:
        while not self._finished.is_set():
            event = self.next_event(POLL_S)
            if event is not None:
                yield event
            elif self._stopping.is_set() and not len(self._events):
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self._finished.is_set():
            event = await asyncio.to_thread(self.next_event, POLL_S)
            if event is not None:
                yield event
            elif self._stopping.is_set() and not len(self._events):
                return

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _emit(self, item: Event | Mark, *, wait: bool = False) -> None:
        """Hand out an Event, or a mark once all Events before it are handed out."""
        if isinstance(item, Event):
            if self._events.put(item, wait=wait) is not None:
                self._meter.count("missed_events")
        elif self._on_event is not None or item.kind == "end":
            self._events.put(item, droppable=False)
        else:
            item.reached.set()

    def _deliver(self) -> None:
        """Call `on_event` with what comes; the loop of a thread."""
        assert self._on_event is not None
        while not self._stopping.is_set():
            item = self._events.get(POLL_S)
            if isinstance(item, Mark):
                item.reached.set()
                if item.kind == "end":
                    self._finished.set()
            elif item is not None:
                self._busy["callback"] = started = time.monotonic()
                try:
                    self._on_event(item)
                except Exception:  # the user's code; the stream goes on
                    if self._meter.count("callback_errors") == 1:
                        log.exception("on_event raised; the stream goes on, and later exceptions are only counted")
                finally:
                    self._busy.pop("callback", None)
                self._meter.measured("callback", (time.monotonic() - started) * 1e3)

    def _waited(self, mark: Mark, timeout_s: float | None) -> bool:
        """Wait for a mark; return whether it was reached.

        Raises:
            EngineError: The stream has ended with this error.
        """
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while not mark.reached.wait(POLL_S):
            if self._stopping.is_set() or (limit is not None and time.monotonic() > limit):
                break
        if self.error is not None:
            raise self.error
        return mark.reached.is_set()

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error
        if self._stopping.is_set():
            raise InputError("stream: is closed: open another one")

    def _started(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"edgeser{target.__name__}", daemon=True)
        thread.start()
        return thread
