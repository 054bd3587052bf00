"""A stream in a process of its own, for a program that must never wait."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.child import Child, raised
from edgeser.runtime.errors import EngineError
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.streams.base import EventStream
from edgeser.runtime.streams.crew import POLL_S
from edgeser.runtime.streams.event import Activity, Event
from edgeser.runtime.streams.options import StreamOptions
from edgeser.runtime.streams.ring import Mark
from edgeser.runtime.streams.stats import StreamStats

HEAD = struct.Struct("<c7xq")
"""What a message to the child begins with: its kind, and the audio's position in samples or a flush's number."""

PIECE = SAMPLE_RATE // 2
"""Samples of one message at most."""

_KINDS = {"gap": b"g", "flush": b"f", "end": b"e"}
_OPEN_S = 120.0  # a large model on a slow card
_CLOSE_S = 0.5
_QUEUED_BYTES = 1 << 20  # asked for; the kernel grants what net.core.wmem_max allows


class IsolatedStream(EventStream):
    """A Runtime and a stream in a child process: this process only passes samples on and takes Events.

    All threads of a Python process share one interpreter, so that features and words delay a control loop beside them,
    however often they release it. Here nothing of that happens in the loop's process; on a machine with a core to
    spare the loop keeps its time. Nothing here waits for the child but `flush`, and that no longer than it is told to:
    when the child does not take the audio, the newest is lost, counted, and silence in its place; what `gap`, `flush`
    and `end` say is kept until it fits. Linux only.

    Args:
        on_event: Called with each Event in a thread of its own. Without it, a loop may fetch with `next_event(0)`.
        bundle: A `.edgeser` file or folder; the default bundle.
        engine: See `Runtime.load`.
        asr: See `Runtime.load`.
        threads: See `Runtime.load`.
        options: How to cut, wait and drop. A child that takes and says nothing for `stall_s` ends the stream.
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
        self._state = self.options.state
        self._child_stats = self._meter.snapshot(0.0, 0.0, 0, 0)
        self._position = self._lost = 0
        self._took_at = time.monotonic()
        self._numbers = itertools.count()
        self._flushes: dict[int, Mark] = {}
        self._unsent: deque[bytes] = deque()  # marks that found no room yet; no audio overtakes them
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
        self._crew.start(self._receive, "receiving")
        self._start_delivery()

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

    @property
    def activity(self) -> Activity:
        """What was heard up to 0.2 s ago."""
        return self._activity

    @property
    def state(self) -> RunningMean | None:
        """What was heard up to 0.2 s ago, or up to the last `flush`; see `EventStream.state`."""
        return None if self._state is None else self._state.copy()

    @property
    def stats(self) -> StreamStats:
        """The counters of up to 0.2 s ago."""
        self._crew.owner.check()
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
        """End the stream and its process in under a second, from any state; in a forked process, do nothing."""
        if not self._crew.owner.is_here:
            return
        self._crew.stop()
        with self._entrance:
            self._audio.close()  # the child ends by itself then
        self._child.end("it was closed", _CLOSE_S)
        self._crew.join(POLL_S)

    def _release(self) -> None:
        super()._release()
        if self.error is not None:
            self._child.end(str(self.error))

    def _write(self, samples: Samples) -> None:
        self._catch_up()
        for begin in range(0, samples.shape[0], PIECE):
            piece = samples[begin : begin + PIECE]
            if self._unsent or not self._sent(HEAD.pack(b"a", self._position) + piece.tobytes()):
                self._lost += piece.shape[0]
                if time.monotonic() - self._took_at > self.options.stall_s:
                    self._crew.fail(self._stalled())
            self._position += piece.shape[0]

    def _note(self, mark: Mark, rest: Samples) -> None:
        self._write(rest)
        number = self._position
        if mark.kind == "flush":
            number = next(self._numbers)
            self._flushes[number] = mark
        message = HEAD.pack(_KINDS[mark.kind], number)
        if mark.kind != "gap" or not self._unsent or self._unsent[-1][:1] != _KINDS["gap"]:  # one gap says it all
            self._unsent.append(message)
        self._catch_up()

    def _catch_up(self) -> None:
        """Send the marks that found no room before."""
        while self._unsent and self._sent(self._unsent[0]):
            self._unsent.popleft()

    def _sent(self, message: bytes) -> bool:
        """Send a message, or say that there is no room; where the child is gone, the other thread finds out why."""
        try:
            self._audio.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self._took_at = time.monotonic()
        return True

    def _receive(self) -> None:
        """Take what the child says; the loop of a thread."""
        connection = self._child.connection
        heard_at = time.monotonic()
        while not self._crew.stopping.is_set():
            try:
                if connection.poll(POLL_S):
                    kind, value = connection.recv()
                elif time.monotonic() - heard_at > self.options.stall_s:
                    raise self._stalled()
                else:
                    continue
            except (EOFError, OSError) as error:
                if self._crew.stopping.is_set():
                    return
                raise EngineError(f"the stream's process is gone: {self._child.cause()}") from error
            heard_at = time.monotonic()
            self._take(kind, value)
            with self._entrance:
                self._catch_up()

    def _take(self, kind: str, value: Any) -> None:
        if kind == "event":
            self._emit(dataclasses.replace(value, lost_s=value.lost_s + self._lost / SAMPLE_RATE))
        elif kind == "now":
            self._child_stats, self._activity = value
        elif kind == "state":
            self._state = value
        elif kind == "flushed":
            self._emit(self._flushes.pop(value))
        elif kind == "ended":
            self._emit(Mark("end"))
        else:
            raise raised(value)

    def _stalled(self) -> EngineError:
        return EngineError(f"the stream's process has stood still for {self.options.stall_s:g} s")
