"""Several processes that score: each with a Runtime of its own, and one that crashes takes one recording with it."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from edgeser.runtime.child import START
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.scoring.jobs import Job
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row, error_row
from edgeser.runtime.scoring.scorers import Identity, Scorer, Setup, pin
from edgeser.runtime.scoring.worker import READY

log = logging.getLogger(__name__)

_FAILED_STARTS = 3  # in a row: then it is not bad luck
_LOADING = 5.0  # times `hang_s`: a large recogniser from a slow card
_HEARING = 10.0  # seconds for each second of audio: PocketSphinx takes one to three on small devices
_READING = 1e6  # bytes a second, from a slow disk
_TURN_S = 1.0  # between two looks at who has not answered
_WORKER = "edgeser.runtime.scoring.worker"


@dataclass(frozen=True)
class _Task:
    """Recordings that go to a worker together; `again` when they were with one that died."""

    job: Job
    recordings: Sequence[Recording]
    again: bool = False


class _Worker:
    """A process and our end of its pipe.

    Attributes:
        task: What it is at.
        ready: Whether its Runtime is loaded.
        limit_s: How long it may take to its next message; infinite while it has nothing to do.
        waited_s: How long it was waited for so far.
    """

    def __init__(self, setup: Setup, hang_s: float) -> None:
        self.pipe, theirs = Pipe()
        _end_waiting(self.pipe, hang_s)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(sys.path), _WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may hold rows
                pass_fds=[theirs.fileno()],
            )
        self.task: _Task | None = None
        self.ready = False
        self._hang_s = hang_s
        self.allow(_LOADING * hang_s)
        self.send(setup)

    def allow(self, limit_s: float) -> None:
        """Begin to count the time to the next message."""
        self.limit_s, self.waited_s = limit_s, 0.0

    def give(self, task: _Task) -> bool:
        """Send a task; return whether the worker was still there."""
        if not self.send((task.job, task.recordings)):
            return False
        self.task = task
        self._needed_s = self._hang_s + sum(map(_size, task.recordings)) / _READING
        self.allow(self._needed_s)
        return True

    def heard(self, seconds: float) -> None:
        """Allow time for audio that it has read."""
        self._needed_s += _HEARING * seconds
        self.allow(self._needed_s)

    def rest(self) -> None:
        """Its work is done."""
        self.task = None
        self.allow(math.inf)

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

    When a worker dies (a crash in a native library, no memory left), or is killed because it does not answer, its
    recordings are tried again one by one in another; one that takes its worker along alone, too, is reported as an
    error and skipped.

    Args:
        setup: How each loads its Runtime.
        count: How many.
        batch_size: Recordings that go to a worker together.
        identity: What the setup gives, where it is known and the setup pinned; without it the Runtime is loaded here
            once, to find out.
        hang_s: Longest time for a batch, seconds; there are ten more for every second of its audio, and one for every
            megabyte of its files. Loading a Runtime may take five times as long.

    Raises:
        InputError: `count` or `batch_size` below 1.
    """

    def __init__(
        self,
        setup: Setup | None = None,
        count: int = 2,
        batch_size: int = 8,
        identity: Identity | None = None,
        hang_s: float = 60.0,
    ) -> None:
        if count < 1 or batch_size < 1:
            raise InputError(f"workers: got {count} with batches of {batch_size}, expected at least 1 of each")
        self._setup, self.identity = (setup or Setup(), identity) if identity else pin(setup or Setup())
        self._count = count
        self._batch_size = batch_size
        self._hang_s = hang_s
        self._workers: dict[Connection, _Worker] = {}
        self._failed_starts = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run; they start with the first recordings."""
        return tuple(worker.process.pid for worker in self._workers.values())

    def rows(self, recordings: Sequence[Recording], job: Job = Job.ANSWER) -> Iterator[tuple[Recording, Row]]:
        """See `Scorer.rows`.

        Raises:
            EngineError: Workers end before they are ready, or one meets an error that is no recording's.
        """
        size = self._batch_size
        starts = range(0, len(recordings), size)
        # A task is cut out when its turn comes: a range of a million recordings is small.
        waiting = (_Task(job, recordings[start : start + size]) for start in starts)
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
                for worker in self._answered():
                    yield from self._take(worker, tasks)
                for worker in [w for w in self._workers.values() if w.waited_s > w.limit_s]:
                    yield from self._give_up(worker, tasks)
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
            worker = _Worker(self._setup, self._hang_s)
            self._workers[worker.pipe] = worker

    def _answered(self) -> list[_Worker]:
        """Wait for messages, and count the time of those that send none.

        Only time spent here counts, and at most a turn at once: not what who takes the rows does in between, nor the
        hours for which this process was stopped itself.
        """
        before = time.monotonic()
        # None are left when the last was found dead just now: then the next round starts another.
        pipes = wait(list(self._workers), _TURN_S) if self._workers else []
        waited_s = min(time.monotonic() - before, _TURN_S)
        for worker in self._workers.values():
            worker.waited_s += waited_s
        return [worker for worker in self._workers.values() if worker.pipe in pipes]

    def _end(self, worker: _Worker) -> str:
        del self._workers[worker.pipe]
        return worker.end()

    def _give(self, worker: _Worker, tasks: deque[_Task]) -> None:
        task = tasks.popleft()
        if not worker.give(task):  # died while it had nothing to do, which is no recording's fault
            self._end(worker)
            tasks.appendleft(task)

    def _take(self, worker: _Worker, tasks: deque[_Task]) -> Iterator[tuple[Recording, Row]]:
        """Handle a worker's message, or its death."""
        message, task = worker.receive(), worker.task
        if message is None:
            how = self._end(worker)
            log.info("a worker ended (%s) with %d recordings", how, len(task.recordings) if task else 0)
            yield from self._lost(worker, tasks, how, f"ended the process that scored it ({how})")
        elif isinstance(message, float):
            worker.heard(message)
        elif isinstance(message, str) and message != READY:
            raise EngineError(f"a worker gave up: {message}")
        elif task is None:
            worker.ready = True
            self._failed_starts = 0
            worker.rest()
        else:
            worker.rest()
            yield from zip(task.recordings, message, strict=True)

    def _give_up(self, worker: _Worker, tasks: deque[_Task]) -> Iterator[tuple[Recording, Row]]:
        how = f"no answer for {worker.limit_s:.0f} s"
        log.warning("worker %d was killed: %s", worker.process.pid, how)
        self._end(worker)
        yield from self._lost(worker, tasks, how, f"the process that scored it gave {how}")

    def _lost(self, worker: _Worker, tasks: deque[_Task], how: str, error: str) -> Iterator[tuple[Recording, Row]]:
        """See to the recordings of a worker that is gone."""
        task = worker.task
        if task is None:
            self._failed_starts += not worker.ready
            if self._failed_starts == _FAILED_STARTS:
                raise EngineError(
                    f"{_FAILED_STARTS} workers in a row ended while they loaded ({how}): try fewer workers"
                )
        elif task.again:
            (recording,) = task.recordings
            yield recording, error_row(recording, f"{recording.path}: {error}, twice")
        else:
            tasks.extend(_Task(task.job, [recording], again=True) for recording in task.recordings)


def _end_waiting(pipe: Connection, limit_s: float) -> None:
    """Make a message that goes half way fail: a process that is stopped neither reads nor writes the rest."""
    limit = struct.pack("@ll", math.ceil(limit_s), 0)
    with socket.socket(fileno=os.dup(pipe.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _size(recording: Recording) -> int:
    try:
        return recording.path.stat().st_size
    except (OSError, ValueError):
        return 0
