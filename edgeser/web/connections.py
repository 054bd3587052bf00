"""The connections of a web server, none of which may hold it up."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeser.runtime.errors import InputError

if TYPE_CHECKING:
    from websockets.sync.server import ServerConnection


class Connections:
    """Every connection from its first byte on, also those that never ask for anything.

    A message to a client that does not read waits in the system's `send` for ever, with the connection's own lock held,
    so that nothing which goes through the connection can end it. Shutting its socket down does.

    Args:
        most: Connections at a time.
        send_s: Seconds that one message may take.
    """

    def __init__(self, most: int, send_s: float) -> None:
        self._most = most
        self._send_s = send_s
        self._all: weakref.WeakSet[ServerConnection] = weakref.WeakSet()
        self._sending: dict[ServerConnection, float] = {}
        self._lock = threading.Lock()

    def make(self, sock: socket.socket, *given: Any, **options: Any) -> ServerConnection:
        """Make a connection; what the server calls for each that it accepts.

        Raises:
            InputError: There are too many; the server then closes the socket.
        """
        from websockets.sync.server import ServerConnection

        with self._lock:
            if sum(other.socket.fileno() != -1 for other in self._all) >= self._most:
                raise InputError(f"serve: {self._most} connections are open already")
            connection = ServerConnection(sock, *given, **options)
            self._all.add(connection)
        return connection

    @contextlib.contextmanager
    def sending(self, connection: ServerConnection) -> Iterator[None]:
        """Give what is sent in the block its time, and no more."""
        with self._lock:
            self._sending[connection] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._sending[connection]

    def cut_stuck(self) -> None:
        """Cut off the clients that have not taken a message in its time."""
        with self._lock:
            oldest = time.monotonic() - self._send_s
            stuck = [connection for connection, since in self._sending.items() if since < oldest]
        _cut(stuck)

    def cut_all(self) -> None:
        """Cut off all that there are."""
        with self._lock:
            left = list(self._all)
        _cut(left)


def _cut(connections: list[ServerConnection]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # closed already
            connection.socket.shutdown(socket.SHUT_RDWR)
