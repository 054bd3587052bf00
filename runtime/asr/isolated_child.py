"""The process in which `IsolatedAsr` runs a recogniser: it answers requests until its parent is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from edgeser.runtime.asr.base import Asr, AsrSession
from edgeser.runtime.child import Failure, meet_parent, outcome
from edgeser.runtime.errors import AsrError


def main() -> None:
    """Open what the first message asks for, then serve."""
    connection, _ = meet_parent()
    with connection, contextlib.suppress(EOFError, ConnectionError):  # both: no parent
        failure, asr = _outcome(lambda: _opened(connection.recv()))
        connection.send((failure, None))
        if asr is not None:
            _serve(connection, asr)


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
    return outcome(call, AsrError, "asr: the recogniser failed")
