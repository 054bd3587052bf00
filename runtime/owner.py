"""Which process an object belongs to: what has threads, locks or native state does not survive a fork."""

from __future__ import annotations

import os

from edgeser.runtime.errors import EdgeSerError, EngineError


class OwnerProcess:
    """The process in which an object was made, the only one that can use it.

    A fork copies memory and one thread: locks that other threads held stay locked for good, thread pools of native
    libraries have no threads, and who waits for either waits for ever.

    Args:
        what: The object, as errors name it.
        error: What `check` raises.
    """

    def __init__(self, what: str, error: type[EdgeSerError] = EngineError) -> None:
        self._what = what
        self._error = error
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this process is the one; closing in another one must touch nothing."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise the error in every other process."""
        if not self.is_here:
            raise self._error(
                f"{self._what}: opened in process {self._pid}, used in process {os.getpid()}, which was forked from it:"
                " load it after the fork, in the process that uses it"
            )
