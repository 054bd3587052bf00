"""What ends a command early, as one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path

from edgeser.runtime.errors import BundleError, EdgeSerError, InputError, MissingDependencyError
from edgeser.runtime.files import refusal
from edgeser.runtime.names import escaped

_USAGE_ERRORS = (InputError, BundleError, MissingDependencyError)
_EXTRAS = {
    **dict.fromkeys(("torch", "lightning", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxsim", "transformers"), "export"),
}
_PARSERS = ("json", "tomllib", "tomli")


def failure(error: Exception, command: str) -> tuple[str, int] | None:
    """Return the line and the status for an error that is no fault of the program; `None` for one that is.

    What our own code could not know of comes here: what the operating system refuses, memory that is not there, text
    that the terminal cannot show, data that is nested without end.

    Args:
        error: What ended the command.
        command: Its name.
    """
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        error = MissingDependencyError(str(error.name), _EXTRAS[str(error.name)], f"edgeser {command}")
    elif isinstance(error, OSError) and not isinstance(error, EdgeSerError):
        error = refusal(error)
    elif isinstance(error, MemoryError):
        error = EdgeSerError(
            f"{command}: not enough memory{f' ({error})' if str(error) else ''}: close what else runs here"
        )
    elif isinstance(error, UnicodeEncodeError):
        text = ascii(error.object[error.start : error.end])
        error = InputError(
            f"got the characters {text}, which {error.encoding} has no code for: rename the file, or set LC_ALL=C.UTF-8"
        )
    elif isinstance(error, RecursionError) and _is_parsing(error):
        error = InputError(f"{command}: a file that it reads is nested too deep: it is damaged, fetch it again")
    if not isinstance(error, EdgeSerError):
        return None
    return f"edgeser: {escaped(str(error))}", 2 if isinstance(error, _USAGE_ERRORS) else 1


def show_everything() -> None:
    """Have what a terminal cannot show printed as an escape: an answer must not end in an error about a file's name."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # closed, or another program's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush_stdout() -> None:
    """Write out what was printed, as the interpreter does at its end, where errors are no longer ours to report.

    Raises:
        BrokenPipeError: Who reads it has gone, `head` for example.
        EdgeSerError: It cannot be written.
    """
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise refusal(error, Path("stdout")) from error


def drop_stdout() -> None:
    """Let what was not written yet go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_parsing(error: RecursionError) -> bool:
    """Whether it was a parser that went too deep, and not a function of ours."""
    return any(Path(frame.filename).parent.name in _PARSERS for frame in traceback.extract_tb(error.__traceback__)[-3:])
