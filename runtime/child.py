"""A process of our own that ends with us: native code can crash or hang, and hold the interpreter while it works."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from edgeser.runtime.errors import EdgeSerError

_END_S = 2.0  # for the kernel to report why a process ended
_KILLED_S = 0.5  # for the kernel to end one

# Not `-m`: it looks into the working directory before anything else, whatever lies there. Nor may `json` come from it.
START = """
import sys
sys.path[:] = [path for path in sys.path if path]
import importlib, json
sys.path[:] = json.loads(sys.argv.pop(1))
importlib.import_module(sys.argv.pop(1)).main()
"""
"""A program that calls a module's `main` with this process's path: its arguments are `json.dumps(sys.path)`, the
module's name, and what `main` finds in `sys.argv`."""

Failure = tuple[type[EdgeSerError], str, dict[str, Any]]
"""An error's class, message and attributes: not every error can be pickled as it is."""


class Child:
    """A Python module that runs in another process. Linux only.

    The process ends when this one does, however that ends. What it prints on standard output is dropped: that is the
    program's own. Not made with `multiprocessing`, which would run an unguarded main program a second time.

    Args:
        module: Its `main` calls `meet_parent`.
        descriptors: Further files that it gets, in this order.

    Attributes:
        connection: To talk with it.
        ended: Why it ended; `None` while it runs.
    """

    def __init__(self, module: str, descriptors: Sequence[int] = ()) -> None:
        import multiprocessing

        self.ended: str | None = None
        self.connection, theirs = multiprocessing.Pipe()
        lifeline, held = os.pipe()
        files = (theirs.fileno(), lifeline, *descriptors)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(sys.path), module, *map(str, files)],
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(held)
            self.connection.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._lifeline = os.fdopen(held, "wb", buffering=0)
        _STARTED.add(self)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def runs(self) -> bool:
        """Whether the process is there."""
        if self.ended is None and self._process.poll() is not None:
            self.end(self.cause())
        return self.ended is None

    def end(self, reason: str, wait_s: float = 0.0) -> None:
        """Kill the process, unless it ends by itself within `wait_s`; one that the kernel holds is not waited for."""
        self.ended = self.ended or reason
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)
        self._lifeline.close()

    def let_go(self) -> None:
        """Close a forked process's copies, so that the child still ends with the process that started it."""
        self._lifeline.close()
        self.connection.close()

    def cause(self) -> str:
        """Return why a process that closed its connection has ended."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


_STARTED: weakref.WeakSet[Child] = weakref.WeakSet()


def _let_go() -> None:
    for child in list(_STARTED):
        child.let_go()


os.register_at_fork(after_in_child=_let_go)


def meet_parent() -> tuple[Connection, list[int]]:
    """Make this process a `Child`: return its connection and the further descriptors it was given."""
    connection, lifeline, *descriptors = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    # The kernel ends this process when the parent is gone, also while native code holds the interpreter.
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # deadly
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    return Connection(connection), descriptors


def outcome(call: Callable[[], Any], otherwise: type[EdgeSerError], what: str) -> tuple[Failure | None, Any]:
    """Return what a call gave, or how it failed: any error but ours becomes `otherwise`, beginning with `what`."""
    try:
        return None, call()
    except EdgeSerError as error:
        return failure_of(error), None
    except Exception as error:
        return (otherwise, f"{what}: {type(error).__name__}: {error}", {}), None


def failure_of(error: EdgeSerError) -> Failure:
    """Return an error in a form that another process can have."""
    return type(error), str(error), dict(vars(error))


def raised(failure: Failure) -> EdgeSerError:
    """Return the error that failed in the child."""
    kind, text, attributes = failure
    error = kind.__new__(kind, text)
    vars(error).update(attributes)
    return error
