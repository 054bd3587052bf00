"""The process in which `IsolatedStream` runs a Runtime and its stream."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeser.runtime.child import failure_of, meet_parent, outcome
from edgeser.runtime.errors import EdgeSerError, EngineError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams.event import Event
from edgeser.runtime.streams.isolated import HEAD, PIECE
from edgeser.runtime.streams.options import StreamOptions
from edgeser.runtime.streams.stream import Stream

_NOW_S = 0.2

Send = Callable[[str, Any], None]


def main() -> None:
    """Load what the first message asks for, then pass on audio and Events until the parent hangs up."""
    connection, (incoming,) = meet_parent()
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock, contextlib.suppress(OSError):  # no parent: about to end
            connection.send((kind, value))

    with socket.socket(fileno=incoming) as audio, contextlib.suppress(EOFError, ConnectionError):
        arguments, options = connection.recv()

        def opening() -> tuple[Runtime, Stream]:
            return _opened(arguments, lambda event: send("event", event), options)

        failure, opened = outcome(opening, EngineError, "the Runtime did not load")
        connection.send(failure)
        if opened is None:
            return
        runtime, stream = opened
        with runtime, stream:
            send("state", stream.state)
            threading.Thread(target=_report, args=(stream, send), daemon=True).start()
            try:
                _feed(stream, audio, send)
            except EdgeSerError as error:
                send("failed", failure_of(error))


def _opened(
    arguments: dict[str, Any], on_event: Callable[[Event], None], options: StreamOptions
) -> tuple[Runtime, Stream]:
    runtime = Runtime.load(**arguments)
    try:
        return runtime, runtime.open_stream(on_event, options=options)
    except BaseException:
        runtime.close()
        raise


def _feed(stream: Stream, audio: socket.socket, send: Send) -> None:
    expected = 0
    while message := audio.recv(HEAD.size + 4 * PIECE):
        kind, number = HEAD.unpack_from(message)
        if kind == b"a":
            if number > expected:  # lost on the way: silence keeps the place of what follows
                stream.gap()
                stream.push(np.zeros(number - expected, np.float32))
            samples = np.frombuffer(message, np.float32, offset=HEAD.size)
            stream.push(samples)
            expected = number + samples.shape[0]
        elif kind == b"g":
            stream.gap()
        elif kind == b"f":
            _when_answered(stream, send, "flushed", number)
        else:
            _when_answered(stream, send, "ended", number)


def _when_answered(stream: Stream, send: Send, kind: str, number: int) -> None:
    """Tell once all is answered, without keeping the audio waiting that comes after."""

    def flush() -> None:
        with contextlib.suppress(EdgeSerError):  # the stream has ended, and that is told
            stream.flush()
            send("now", (stream.stats, stream.activity))
            send("state", stream.state)
            send(kind, number)

    threading.Thread(target=flush, daemon=True).start()


def _report(stream: Stream, send: Send) -> None:
    told = 0
    while stream.error is None:
        send("now", (stream.stats, stream.activity))
        state = stream.state
        if state is not None and state.count != told:
            told = state.count
            send("state", state)
        threading.Event().wait(_NOW_S)
    send("failed", failure_of(stream.error))
