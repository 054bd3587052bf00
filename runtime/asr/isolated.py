"""A recogniser in a process of its own: native code can crash or hang, and a thread cannot be ended."""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeser.runtime.asr.base import Asr, AsrSession, RecognizedWord, one_at_a_time, session_over
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.child import Child, raised
from edgeser.runtime.errors import AsrError, InputError
from edgeser.runtime.owner import OwnerProcess

log = logging.getLogger(__name__)

_PIECE = SAMPLE_RATE  # samples, 64 kB
_OPEN_S = 120.0  # a large model on a slow card
_DECODING = 4.0  # seconds for one of audio: PocketSphinx takes one to three on small devices
_DELAYS_S = (1.0, 30.0)  # between two restarts, the first and the longest


class IsolatedAsr(Asr):
    """Runs another recogniser in a child process.

    When the child crashes, or is killed because a call takes too long or is interrupted, its sessions fail and the next
    session starts a new one; when that fails again before any utterance was finished, sessions fail at once for 1 s,
    then 2 s, to 30 s.
    The child ends when its parent does, however that ends. Linux only.

    Args:
        opener: A recogniser's name, see `open_asr`; or a callable that opens one, importable by the child.
        hang_s: Longest time that a call may take, seconds; for the end of an utterance, when some recognisers decode,
            four seconds for each of its seconds where that is more.

    Raises:
        InputError: No such recogniser.
        MissingDependencyError: It is not installed.
        AsrError: It does not start.
    """

    def __init__(self, opener: str | Callable[[], Asr], hang_s: float = 10.0) -> None:
        self.name = f"{opener if isinstance(opener, str) else opener.__name__} in a process of its own"
        self._owner = OwnerProcess("asr", AsrError)
        self._opener = opener
        self._hang_s = hang_s
        self._numbers = itertools.count()
        self._turn = threading.Lock()
        self._failures = 0  # since an utterance was finished
        self._retry_at = 0.0
        self._closed = False
        self._child: _Recogniser | None = _Recogniser(opener)

    def start(self) -> AsrSession:
        self._owner.check()
        child, number = self._running(), next(self._numbers)
        try:
            child.call("start", number, self._hang_s)
        except AsrError:
            if child.ended is None or self._closed:
                raise
            child = self._running()  # it had died since the last session, and nothing is lost yet
            child.call("start", number, self._hang_s)
        return _IsolatedSession(self, child, number, self._hang_s)

    def close(self) -> None:
        if not self._owner.is_here:
            return  # the process is not this one's to end
        self._closed = True
        child = self._child
        if child is not None:
            child.end("it was closed")  # without waiting for a call that hangs: that call fails now

    def finished(self) -> None:
        """Note that an utterance was finished: the recogniser works."""
        self._failures = 0

    def _running(self) -> _Recogniser:
        """Return the child, started again where it has ended."""
        with self._turn:
            if self._closed:
                raise AsrError("asr: closed, expected an open recogniser: open another")
            if self._child is not None and self._child.runs():
                return self._child
            if self._child is not None:
                self._failed(self._child.ended)
                self._child = None
            wait_s = self._retry_at - time.monotonic()
            if wait_s > 0:
                raise AsrError(f"asr: the recogniser's process keeps failing, it is started again in {wait_s:.1f} s")
            try:
                self._child = _Recogniser(self._opener)
            except BaseException as error:
                self._failed(str(error))
                raise
            if self._closed:  # meanwhile
                self._child.end("it was closed")
            return self._child

    def _failed(self, reason: str | None) -> None:
        self._failures += 1
        first, longest = _DELAYS_S
        delay_s = 0.0 if self._failures == 1 else min(longest, first * 2.0 ** (self._failures - 2))
        self._retry_at = time.monotonic() + delay_s
        log.warning("the recogniser's process is gone (%s), the next one is started after %.0f s", reason, delay_s)


class _Recogniser:
    """A process with an open recogniser. `ended` says why it ended, and is `None` while it runs."""

    def __init__(self, opener: str | Callable[[], Asr]) -> None:
        self._turn = threading.Lock()
        try:
            pickle.dumps(opener)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(f"asr: got an opener that another process cannot import ({error}): name it") from error
        self._child = Child("edgeser.runtime.asr.isolated_child")
        try:
            self._ask(opener, _OPEN_S)
        except BaseException:
            self.end("it did not start")
            raise

    @property
    def ended(self) -> str | None:
        return self._child.ended

    def call(self, verb: str, number: int, timeout_s: float, *arguments: Any) -> Any:
        """Have the child do something in a session, and return its answer.

        Raises:
            AsrError: The recogniser failed; or its process ended, or was killed because it took too long.
        """
        with self._turn:  # one request at a time; waiting for another's does not count as hanging
            return self._ask((verb, number, arguments), timeout_s)

    def runs(self) -> bool:
        """Whether the process is there; it may have ended between two calls."""
        return self._child.runs()

    def end(self, reason: str) -> None:
        """Kill the process. Not a clean end: a recogniser has nothing to save."""
        self._child.end(reason)

    def _ask(self, message: Any, timeout_s: float) -> Any:
        if self.ended is not None:
            raise self._gone()
        connection = self._child.connection
        try:
            connection.send(message)
            if not connection.poll(timeout_s):
                self.end(f"it took more than {timeout_s:g} s")
                raise self._gone()
            failure, value = connection.recv()
        except (EOFError, OSError) as error:
            if self.ended is None:
                self.end(self._child.cause())
            raise self._gone() from error
        except BaseException:  # Ctrl-C: the answer would be taken for the next one's
            self.end("a call was interrupted")
            raise
        if failure is not None:
            raise raised(failure)
        return value

    def _gone(self) -> AsrError:
        return AsrError(f"asr: the recogniser's process is gone: {self.ended}")


class _IsolatedSession(AsrSession):
    def __init__(self, asr: IsolatedAsr, child: _Recogniser, number: int, hang_s: float) -> None:
        self._asr = asr
        self._turn = threading.Lock()
        self._child = child
        self._number = number
        self._hang_s = hang_s
        self._heard_s = 0.0
        self._over = False

    @one_at_a_time
    def accept(self, samples: Samples) -> None:
        # In pieces that fit the socket's buffer: sending never waits for a child that has stopped reading.
        for start in range(0, samples.shape[0], _PIECE):
            self._call("accept", np.asarray(samples[start : start + _PIECE], np.float32))
        self._heard_s += samples.shape[0] / SAMPLE_RATE

    @one_at_a_time
    def partial(self) -> tuple[RecognizedWord, ...]:
        words: tuple[RecognizedWord, ...] = self._call("partial")
        return words

    @one_at_a_time
    def finish(self) -> tuple[RecognizedWord, ...]:
        words: tuple[RecognizedWord, ...] = self._call("finish")
        self._asr.finished()
        return words

    @one_at_a_time
    def cancel(self) -> None:
        if not self._over and self._child.ended is None:
            with contextlib.suppress(AsrError):
                self._call("cancel")

    def _call(self, verb: str, *arguments: Any) -> Any:
        if self._over:
            raise session_over()
        self._over = verb in ("finish", "cancel")
        limit_s = max(self._hang_s, _DECODING * self._heard_s) if verb == "finish" else self._hang_s
        return self._child.call(verb, self._number, limit_s, *arguments)
