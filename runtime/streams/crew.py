"""The threads of one stream: started, watched and ended together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from edgeser.runtime.errors import EdgeSerError, EngineError
from edgeser.runtime.owner import OwnerProcess

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How soon an idle stage notices that the stream ends."""


class Crew:
    """Runs each stage of a stream in a thread of its own. However a stage ends before its time, `error` says so.

    Args:
        release: Lets go of whoever waits for the stream, when it ends; called once, from any thread, and then let go of
            itself: a stream that is over is freed with its last user, its detector with it.

    Attributes:
        error: What ended the stream, if anything did.
        stopping: Set when the stream ends, whether closed or failed.
        owner: The process with the threads.
        busy: Since when a stage is in foreign code, by `time.monotonic`.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self.error: EdgeSerError | None = None
        self.stopping = threading.Event()
        self.owner = OwnerProcess("stream")
        self.busy: dict[str, float] = {}
        self._release = release
        self._turn = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None], name: str) -> threading.Thread:
        """Run a stage in a new thread."""
        thread = threading.Thread(target=self._guarded, args=(work, name), name=f"edgeser-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def fail(self, error: EdgeSerError) -> None:
        """End the stream with an error, unless it has ended already."""
        with self._turn:
            if self.stopping.is_set():
                return
            self.error = error
            self.stopping.set()
            release = self._take_release()
        log.error("%s", error)
        release()

    def stop(self) -> None:
        """End the stream."""
        with self._turn:
            self.stopping.set()
            release = self._take_release()
        release()

    def join(self, limit_s: float) -> list[str]:
        """Wait for all threads but the one that calls, so long at most; return the names of those that go on."""
        limit = time.monotonic() + limit_s
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(max(0.0, limit - time.monotonic()))
        return [thread.name for thread in others if thread.is_alive()]

    @contextlib.contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Note that a stage is in foreign code, which may hang."""
        self.busy[stage] = time.monotonic()
        try:
            yield
        finally:
            self.busy.pop(stage, None)

    def _take_release(self) -> Callable[[], None]:
        release, self._release = self._release, _nothing
        return release

    def _guarded(self, work: Callable[[], None], name: str) -> None:
        try:
            work()
        except EdgeSerError as error:
            self.fail(error)
        except BaseException as error:  # SystemExit too: it would end a thread without a word
            failure = EngineError(f"the stream ended: {name} failed: {described(error)}")
            failure.__cause__ = error
            self.fail(failure)


def _nothing() -> None:
    pass


def described(error: BaseException) -> str:
    """Return any error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
