"""A stream in a process of its own, for a program that must never wait."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.child import Child, raised
from edgeser.runtime.errors import EdgeSerError, EngineError
from edgeser.runtime.streams.base import POLL_S, EventStream
from edgeser.runtime.streams.event import Activity, Event
from edgeser.runtime.streams.ring import Mark
from edgeser.runtime.streams.stats import StreamStats
from edgeser.runtime.streams.stream import StreamOptions

HEAD = struct.Struct("<c7xq")
"""What a message to the child begins with: its kind, and the audio's position in samples or a flush's number."""

PIECE = SAMPLE_RATE // 2
"""Samples of one message at most."""

_OPEN_S = 120.0  # a large model on a slow card
_CLOSE_S = 0.5
_QUEUED_BYTES = 1 << 20  # asked for; the kernel grants what net.core.wmem_max allows


class IsolatedStream(EventStream):
    """A Runtime and a stream in a child process: this process only passes samples on and takes Events.

    All threads of a Python process share one interpreter, so that features and words delay a control loop beside them,
    however often they release it. Here nothing of that happens in the loop's process; on a machine with a core to
    spare the loop keeps its time. `push` never waits: when the child does not take the audio, the newest is lost,
    counted, and silence in its place. Linux only.

    Args:
        on_event: Called with each Event in a thread of its own. Without it, a loop may fetch with `next_event(0)`.
        bundle: A `.edgeser` file or folder; the default bundle.
        engine: See `Runtime.load`.
        asr: See `Runtime.load`.
        threads: See `Runtime.load`.
        options: How to cut, wait and drop. A child that takes no audio for `stall_s` ends the stream.
        trusted: See `Runtime.load`.

    Raises:
        EdgeSerError: What `Runtime.load` raises.
        EngineError: The process does not start.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None] | None = None,
        *,
        bundle: str | os.PathLike[str] | None = None,
        engine: str = "auto",
        asr: str = "auto",
        threads: int = 1,
        options: StreamOptions | None = None,
        trusted: str | os.PathLike[str] | None = None,
    ) -> None:
        self.options = options or StreamOptions()
        super().__init__(on_event, self.options.max_events)
        self._activity = Activity(-100.0, 0.0, False)
        self._child_stats = self._meter.snapshot(0.0, 0.0, 0, 0)
        self._position = self._lost = 0
        self._took_at = time.monotonic()
        self._numbers = itertools.count()
        self._flushes: dict[int, Mark] = {}
        # A message arrives whole or not at all: a full queue loses whole pieces, and never blocks.
        self._audio, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._audio.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUED_BYTES)
        with theirs:
            self._child = Child("edgeser.runtime.streams.isolated_child", [theirs.fileno()])
        arguments: dict[str, object] = {
            "bundle": None if bundle is None else str(Path(bundle).absolute()),
            "engine": engine,
            "asr": asr,
            "threads": threads,
            "trusted": trusted,
        }
        try:
            self._open(arguments)
        except BaseException:
            self._audio.close()
            self._child.end("it did not start")
            raise
        targets = [self._receive, *([self._deliver] if on_event is not None else [])]
        self._threads = [self._started(target) for target in targets]

    def _open(self, arguments: dict[str, object]) -> None:
        connection = self._child.connection
        try:
            connection.send((arguments, self.options))
            if not connection.poll(_OPEN_S):
                raise EngineError(f"the stream's process was not ready within {_OPEN_S:g} s")
            failure = connection.recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"the stream's process is gone: {self._child.cause()}") from error
        if failure is not None:
            raise raised(failure)

    def push(self, chunk: NDArray[np.generic], rate: int = SAMPLE_RATE) -> None:
        self._check_open()
        self._write(self._intake(chunk, rate))

    def gap(self) -> None:
        self._check_open()
        self._write(self._intake.flush())
        self._tell(b"g", self._position)

    def flush(self, timeout_s: float | None = None) -> bool:
        self._check_open()
        self._write(self._intake.flush())
        number, mark = next(self._numbers), Mark("flush")
        self._flushes[number] = mark
        self._tell(b"f", number)
        return self._waited(mark, timeout_s)

    def end(self) -> None:
        self._write(self._intake.flush())
        self._tell(b"e", self._position)

    @property
    def activity(self) -> Activity:
        """What was heard up to 0.2 s ago."""
        return self._activity

    @property
    def stats(self) -> StreamStats:
        """The counters of up to 0.2 s ago."""
        here = self._meter.snapshot(0.0, 0.0, 0, 0)
        there = self._child_stats
        return dataclasses.replace(
            there,
            audio_s=self._position / SAMPLE_RATE,
            lost_s=there.lost_s + self._lost / SAMPLE_RATE,
            missed_events=there.missed_events + here.missed_events,
            callback_errors=here.callback_errors,
            stages={**there.stages, "callback": here.stages["callback"]},
        )

    @property
    def pid(self) -> int:
        """Number of the child process, for setting its priority or its cores."""
        return self._child.pid

    def close(self) -> None:
        """End the stream and its process in under a second, from any state."""
        self._stopping.set()
        self._events.close()
        self._audio.close()  # the child ends by itself then
        self._child.end("it was closed", _CLOSE_S)
        for thread in self._threads:
            thread.join(POLL_S)

    def _write(self, samples: Samples) -> None:
        for begin in range(0, samples.shape[0], PIECE):
            piece = samples[begin : begin + PIECE]
            try:
                self._audio.send(HEAD.pack(b"a", self._position) + piece.tobytes(), socket.MSG_DONTWAIT)
                self._took_at = time.monotonic()
            except OSError as error:  # full; or closed, and then the other thread finds out why
                self._lost += piece.shape[0]
                if isinstance(error, BlockingIOError) and time.monotonic() - self._took_at > self.options.stall_s:
                    self._fail(EngineError(f"the stream's process took no audio for {self.options.stall_s:g} s"))
            self._position += piece.shape[0]

    def _tell(self, kind: bytes, number: int) -> None:
        """Send what must arrive; waits for room, as long as the child lives."""
        try:
            self._audio.send(HEAD.pack(kind, number))
        except OSError:
            self._stopping.wait(1.0)  # the other thread finds out why
            self._check_open()

    def _receive(self) -> None:
        """Take what the child says; the loop of a thread."""
        while not self._stopping.is_set():
            try:
                kind, value = self._child.connection.recv()
            except (EOFError, OSError):
                if not self._stopping.is_set():
                    self._fail(EngineError(f"the stream's process is gone: {self._child.cause()}"))
                return
            if kind == "event":
                self._emit(dataclasses.replace(value, lost_s=value.lost_s + self._lost / SAMPLE_RATE))
            elif kind == "now":
                self._child_stats, self._activity = value
            elif kind == "flushed":
                self._emit(self._flushes.pop(value))
            elif kind == "ended":
                self._emit(Mark("end"))
            else:
                self._fail(raised(value))

    def _fail(self, error: EdgeSerError) -> None:
        self.error = self.error or error
        self._stopping.set()
        self._events.close()
        self._child.end(str(error))
