"""Processes that do tasks side by side; one that crashes takes only the task at hand with it."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeser.runtime.child import Child

_WORKER = "edgeser.experiments.worker"


@dataclass(frozen=True, eq=False)
class Task:
    """A call that another process makes.

    Attributes:
        function: Of a module.
        arguments: What it gets; it and its value can be pickled.
        log: File that gets what it writes; its folder exists.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    log: Path


@dataclass(frozen=True)
class Answer:
    """How a task ended.

    Attributes:
        task: The task.
        value: What the call returned.
        error: Why it failed, one line; empty when it did not.
    """

    task: Task
    value: Any = None
    error: str = ""


class Pool:
    """Up to `count` processes, started as they are needed and kept for further tasks: starting one takes seconds.

    They are no `multiprocessing` pool: that one hangs when a worker is killed, and runs an unguarded main program
    again.

    Args:
        count: Tasks at the same time, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[Child] = []
        self._busy: dict[Connection, tuple[Child, Task]] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in (*self._idle, *(child for child, _ in self._busy.values())):
            child.end("no longer needed")
        self._idle.clear()
        self._busy.clear()

    def run(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """Do tasks, the first ones first; yield each when it has ended."""
        waiting = deque(tasks)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                self._start(waiting.popleft())
            for connection in wait(list(self._busy)):
                assert isinstance(connection, Connection)
                yield self._finish(connection)

    def _start(self, task: Task) -> None:
        child = next((idle for idle in self._idle if idle.runs()), None) or Child(_WORKER)
        self._idle = [idle for idle in self._idle if idle is not child and idle.runs()]
        self._busy[child.connection] = (child, task)
        try:
            child.connection.send(str(task.log.absolute()))
            child.connection.send_bytes(pickle.dumps((task.function, task.arguments)))
        except OSError:
            pass  # it has just died: its connection says so in `run`

    def _finish(self, connection: Connection) -> Answer:
        child, task = self._busy.pop(connection)
        try:
            value, error = connection.recv()
        except (EOFError, OSError):
            error = f"its process {child.cause()}"
            child.end(error)
            return Answer(task, error=error)
        self._idle.append(child)
        return Answer(task, value, error)
