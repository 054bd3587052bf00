"""What runs in a worker: one task after another, each task's output in a log of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import traceback
from multiprocessing.connection import Connection

from edgeser.runtime.child import meet_parent
from edgeser.runtime.errors import EdgeSerError

_LONGEST = 300  # characters of an error; the log has all of it


def main() -> None:
    """Serve the pool until it ends this process."""
    connection, _ = meet_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            _serve(connection)
    os._exit(0)  # nothing to put away, and no library's threads to wait for


def _serve(connection: Connection) -> None:
    """Receive a log's path and a pickled call; send what it returned and why it failed, empty when it did not."""
    _write_into(connection.recv())
    call = connection.recv_bytes()
    value, error = None, ""
    try:
        function, arguments = pickle.loads(call)  # here, so that a module that cannot be imported fails its task only
        value = function(*arguments)
    except Exception as failure:
        traceback.print_exc()
        error = error_text(failure)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send((value, error))


def error_text(error: Exception) -> str:
    """Return an error as one line; one that is not ours begins with its type."""
    text = " ".join(str(error).split())[:_LONGEST]
    return text if isinstance(error, EdgeSerError) else f"{type(error).__name__}: {text}"


def _write_into(log: str) -> None:
    """Append what this process writes, native code too, to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.close(file)
