"""Compilers in a process of their own: when one crashes, hangs or takes all memory, that is a reported failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeser.runtime.child import Child, raised
from edgeser.runtime.errors import EngineError

_CHILD = "edgeser.export_tools.building.isolated_child"

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        timeout_s: Seconds.
        memory_mb: Memory of its own, without what it shares and what is on the GPU; `None` for any amount.
    """

    timeout_s: float
    memory_mb: int | None = None


def run_apart(function: Callable[[Request], Answer], request: Request, limits: Limits) -> Answer:
    """Call a function of a module in another process.

    Args:
        function: The other process imports it.
        request: Its argument, which can be pickled, as can what it returns.
        limits: Of the process.

    Raises:
        EdgeSerError: What the function raised; other errors come as `EngineError`.
        EngineError: The process did not start, crashed, or took too long.
    """
    try:
        child = Child(_CHILD)
    except OSError as error:
        raise EngineError(f"its process does not start: {error.strerror or error}") from error
    try:
        with contextlib.suppress(OSError):  # one that ends before it has read all says why below
            child.connection.send((function, request, limits.memory_mb))
        if not child.connection.poll(limits.timeout_s):
            raise EngineError(f"its process took more than {limits.timeout_s:g} s and was ended")
        failure, answer = child.connection.recv()
    except (EOFError, OSError) as error:
        raise EngineError(f"its process {child.cause()}") from error
    finally:
        child.end("it is done")
        child.connection.close()
    if failure is not None:
        raise raised(failure)
    value: Answer = answer
    return value
