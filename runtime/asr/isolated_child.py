"""The process in which `IsolatedAsr` runs a recogniser: it answers requests until its parent is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from edgeser.runtime.asr.base import Asr, AsrSession
from edgeser.runtime.errors import AsrError, EdgeSerError

Failure = tuple[type[EdgeSerError], str, dict[str, Any]]
"""An error's class, message and attributes: not every error can be pickled as it is."""


def main(requests: int, lifeline: int) -> None:
    """Open what the first message asks for, then serve.

    Args:
        requests: File descriptor of the connection.
        lifeline: File descriptor of a pipe that the parent never writes to and that closes when it ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _end_with(lifeline)
    with Connection(requests) as connection, contextlib.suppress(EOFError, ConnectionError):  # both: no parent
        failure, asr = _outcome(lambda: _opened(connection.recv()))
        connection.send((failure, None))
        if asr is not None:
            _serve(connection, asr)


def _end_with(lifeline: int) -> None:
    """Have the kernel end this process when the parent is gone, also while native code holds the interpreter."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # deadly
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _opened(opener: str | Callable[[], Asr]) -> Asr:
    from edgeser.runtime.asr import open_asr

    return open_asr(opener) if isinstance(opener, str) else opener()


def _serve(connection: Connection, asr: Asr) -> None:
    sessions: dict[int, AsrSession] = {}
    while True:
        verb, number, arguments = connection.recv()
        connection.send(_outcome(lambda: _answer(asr, sessions, verb, number, arguments)))  # noqa: B023


def _answer(asr: Asr, sessions: dict[int, AsrSession], verb: str, number: int, arguments: tuple[Any, ...]) -> Any:
    if verb == "start":
        sessions[number] = asr.start()
        return None
    if verb in ("finish", "cancel"):
        return getattr(sessions.pop(number), verb)()
    return getattr(sessions[number], verb)(*arguments)


def _outcome(call: Callable[[], Any]) -> tuple[Failure | None, Any]:
    """Return what a call gave, or how it failed."""
    try:
        return None, call()
    except EdgeSerError as error:
        return (type(error), str(error), dict(vars(error))), None
    except Exception as error:
        return (AsrError, f"asr: the recogniser failed: {type(error).__name__}: {error}", {}), None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
