"""What runs in a worker: a Runtime of its own, batches in, the lengths of what it reads and the rows out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from multiprocessing.connection import Connection

from edgeser.runtime.scoring.jobs import do

READY = "ready"


def main() -> None:
    """Serve the other end of a pipe, whose descriptor is the argument, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; who started us ends us
    # EOFError, BrokenPipeError: the other end is gone, killed perhaps, and nobody waits for rows.
    with Connection(int(sys.argv[1])) as pipe, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(pipe)
    os._exit(0)  # nothing to put away, and no library's threads to wait for


def _serve(pipe: Connection) -> None:
    try:
        setup = pipe.recv()
        with setup.load() as runtime:
            pipe.send(READY)
            while True:
                job, batch = pipe.recv()
                pipe.send([row for _, row in do(job, runtime, batch, len(batch), pipe.send, setup.answered)])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        pipe.send(error_text(error))


def error_text(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
