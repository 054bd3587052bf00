"""Several processes that score: each with a Runtime of its own, and one that crashes takes one recording with it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from edgeser.runtime.child import START
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row, error_row
from edgeser.runtime.scoring.scorers import Identity, Scorer, Setup, pin
from edgeser.runtime.scoring.worker import READY

log = logging.getLogger(__name__)

_FAILED_STARTS = 3  # in a row: then it is not bad luck
_WORKER = "edgeser.runtime.scoring.worker"


@dataclass(frozen=True)
class _Task:
    """Recordings that go to a worker together; `again` when they were with one that died."""

    recordings: Sequence[Recording]
    again: bool = False


class _Worker:
    """A process and our end of its pipe."""

    def __init__(self, setup: Setup) -> None:
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(sys.path), _WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may hold rows
                pass_fds=[theirs.fileno()],
            )
        self.task: _Task | None = None
        self.ready = False
        self.send(setup)

    def send(self, message: Any) -> bool:
        """Send a message; return whether the worker was still there."""
        try:
            self.pipe.send(message)
        except OSError:
            return False
        return True

    def receive(self) -> Any:
        """Return its next message; `None` when it has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> str:
        """End the process at once, and return how it ended."""
        self.pipe.close()
        self.process.kill()  # does nothing to one that has ended
        status = self.process.wait()
        return f"status {status}" if status >= 0 else signal.Signals(-status).name


class Workers(Scorer):
    """Scores in processes of their own, in the order in which they get done.

    When a worker dies (a crash in a native library, no memory left), its recordings are tried again one by one in
    another; one that ends its worker alone, too, is reported as an error and skipped.

    Args:
        setup: How each loads its Runtime.
        count: How many.
        batch_size: Recordings that go to a worker together.
        identity: What the setup gives, where it is known and the setup pinned; without it the Runtime is loaded here
            once, to find out.

    Raises:
        InputError: `count` or `batch_size` below 1.
    """

    def __init__(
        self, setup: Setup | None = None, count: int = 2, batch_size: int = 8, identity: Identity | None = None
    ) -> None:
        if count < 1 or batch_size < 1:
            raise InputError(f"workers: got {count} with batches of {batch_size}, expected at least 1 of each")
        self._setup, self.identity = (setup or Setup(), identity) if identity else pin(setup or Setup())
        self._count = count
        self._batch_size = batch_size
        self._workers: dict[Connection, _Worker] = {}
        self._failed_starts = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run; they start with the first recordings."""
        return tuple(worker.process.pid for worker in self._workers.values())

    def rows(self, recordings: Sequence[Recording]) -> Iterator[tuple[Recording, Row]]:
        """See `Scorer.rows`.

        Raises:
            EngineError: Workers end before they are ready, or one meets an error that is no recording's.
        """
        size = self._batch_size
        starts = range(0, len(recordings), size)
        # A task is cut out when its turn comes: a range of a million recordings is small.
        waiting = (_Task(recordings[start : start + size]) for start in starts)
        tasks, left = deque[_Task](), len(starts)
        try:
            while True:
                self._start(left + len(tasks) + self._busy())
                for worker in [w for w in self._workers.values() if w.ready and w.task is None]:
                    if not tasks and left:
                        tasks.append(next(waiting))
                        left -= 1
                    if tasks:
                        self._give(worker, tasks)
                if not (left or tasks or self._busy()):
                    return
                # None are left when the last was found dead just now: then the next round starts another.
                for pipe in wait(list(self._workers)) if self._workers else ():
                    assert isinstance(pipe, Connection)
                    yield from self._take(self._workers[pipe], tasks)
        finally:
            for worker in [w for w in self._workers.values() if w.task]:  # what it sends belongs to nobody now
                self._end(worker)

    def close(self) -> None:
        for worker in list(self._workers.values()):
            self._end(worker)

    def _busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers.values())

    def _start(self, wanted: int) -> None:
        while len(self._workers) < min(self._count, wanted):
            worker = _Worker(self._setup)
            self._workers[worker.pipe] = worker

    def _end(self, worker: _Worker) -> str:
        del self._workers[worker.pipe]
        return worker.end()

    def _give(self, worker: _Worker, tasks: deque[_Task]) -> None:
        task = tasks.popleft()
        if worker.send(task.recordings):
            worker.task = task
        else:  # died while it had nothing to do, which is no recording's fault
            self._end(worker)
            tasks.appendleft(task)

    def _take(self, worker: _Worker, tasks: deque[_Task]) -> Iterator[tuple[Recording, Row]]:
        """Handle a worker's message, or its death."""
        message, task = worker.receive(), worker.task
        if message is None:
            yield from self._bury(worker, tasks)
        elif isinstance(message, str) and message != READY:
            raise EngineError(f"a worker gave up: {message}")
        elif task is None:
            worker.ready = True
            self._failed_starts = 0
        else:
            worker.task = None
            yield from zip(task.recordings, message, strict=True)

    def _bury(self, worker: _Worker, tasks: deque[_Task]) -> Iterator[tuple[Recording, Row]]:
        how, task = self._end(worker), worker.task
        if task is None:
            self._failed_starts += not worker.ready
            if self._failed_starts == _FAILED_STARTS:
                raise EngineError(
                    f"{_FAILED_STARTS} workers in a row ended while they loaded ({how}): try fewer workers"
                )
            return
        log.info("a worker ended (%s) with %d recordings", how, len(task.recordings))
        if task.again:
            (recording,) = task.recordings
            yield recording, error_row(recording, f"{recording.path}: ended the process that scored it ({how}), twice")
        else:
            tasks.extend(_Task([recording], again=True) for recording in task.recordings)
