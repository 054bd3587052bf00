"""Serves one page, and the Events of a stream to whoever looks at it, over WebSocket."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, quote, urlsplit

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.streams import Activity, Event
from edgeser.runtime.streams.event import event_row
from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.web.connections import Connections

if TYPE_CHECKING:
    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection

_HISTORY = 500  # utterances that a page that opens later still shows
_QUEUED = 64  # messages that wait for a slow page; then the oldest is skipped
_ACTIVITY_S = 0.1
_MAX_PAGES = 32
_MAX_CONNECTIONS = 2 * _MAX_PAGES  # pages, and what has not said yet what it wants
SILENT_S = 5
"""Seconds in which a client must ask for something, take a message, answer a ping; then it is dropped."""
_CLOSE_S = 1  # that pages have to say goodbye when all ends
_MAX_MESSAGE = 1024  # bytes from a page, which has nothing to say
_MIN_TOKEN = 8
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class WebView:
    """A small web server that shows a stream, in threads of its own, until it is closed.

    On this machine's own address no token is needed, and requests for any other host name, or from another site's
    page, are refused: a page somewhere in the browser cannot listen in. On any other address a token is required.

    Args:
        labels: The model's emotions.
        title: What is shown, for example the model's name.
        activity: Gives what is heard right now, for the level meter.
        port: TCP port; 0 takes a free one.
        host: Address to listen on.
        token: What a request must name as `?token=`; made up where `host` is not this machine's own and none is given.

    Attributes:
        port: The port that was taken.
        url: Address of the page, with the token.

    Raises:
        InputError: The port is taken, or not allowed, or there is no such address here.
        MissingDependencyError: websockets is not installed.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        title: str,
        activity: Callable[[], Activity],
        port: int = 8765,
        host: str = "127.0.0.1",
        token: str | None = None,
    ) -> None:
        try:
            from websockets.sync.server import serve
        except ModuleNotFoundError as error:
            raise MissingDependencyError("websockets", "web", "edgeser serve") from error
        self._local = is_loopback(host)
        if token is not None and len(token) < _MIN_TOKEN:
            raise InputError(f"--token: got {len(token)} characters, expected at least {_MIN_TOKEN}: or leave it out")
        self._token = token if token or self._local else secrets.token_urlsafe(16)
        self._hello = json.dumps({"type": "hello", "labels": labels, "title": title})
        self._activity = activity
        self._history: deque[str] = deque(maxlen=_HISTORY)
        self._pages: set[Mailbox[str]] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._down = threading.Event()
        self._connections = Connections(_MAX_CONNECTIONS, SILENT_S)
        quiet = logging.getLogger("edgeser.web")
        quiet.setLevel(logging.CRITICAL)  # a client that goes away is no news
        try:
            self._server = serve(
                self._show,
                host,
                port,
                process_request=self._answer,
                create_connection=cast("type[ServerConnection]", self._connections.make),
                logger=quiet,
                compression=None,
                max_size=_MAX_MESSAGE,
                open_timeout=SILENT_S,
                ping_interval=SILENT_S,
                ping_timeout=SILENT_S,
                close_timeout=_CLOSE_S,
            )
        except (OSError, OverflowError) as error:
            problem = f"serve: cannot listen on {host}:{port} ({error}): choose another --port or --host"
            raise InputError(problem) from error
        self.port: int = self._server.socket.getsockname()[1]
        query = f"?token={quote(self._token)}" if self._token else ""
        self.url = f"http://{_reachable(host)}:{self.port}/{query}"
        self._threads = [
            threading.Thread(target=target, name="edgeser-web", daemon=True)
            for target in (self._server.serve_forever, self._follow, self._guard)
        ]
        for thread in self._threads:
            thread.start()

    def show(self, event: Event) -> None:
        """Send an Event to all pages. Never waits for any of them."""
        mattered = [word.mattered for word in event.result.words]
        message = json.dumps({"type": "event", **event_row(event), "mattered": mattered}, ensure_ascii=False)
        with self._lock:
            if not event.partial:
                self._history.append(message)
        self._send(message)

    def end(self, why: str = "") -> None:
        """Say that no more Events come, and why if it was an error; the pages stay."""
        message = json.dumps({"type": "end", "why": why}, ensure_ascii=False)
        with self._lock:
            self._history.append(message)
        self._send(message)

    def close(self) -> None:
        """Stop serving, within a second or two; pages that are open show that the connection is gone."""
        self._closed.set()
        with self._lock:
            for page in self._pages:
                page.close()
        self._server.shutdown()  # waits for every connection
        self._down.set()
        for thread in self._threads:
            thread.join(1)

    def _send(self, message: str) -> None:
        with self._lock:
            for page in self._pages:
                page.put(message)

    def _follow(self) -> None:
        """Send what is heard right now, while anyone looks."""
        while not self._closed.wait(_ACTIVITY_S):
            if self._pages:
                now = self._activity()
                self._send(json.dumps({"type": "activity", **vars(now)}))

    def _guard(self) -> None:
        """Cut off who does not read, and at the end who does not go."""
        while not self._closed.wait(_ACTIVITY_S):
            self._connections.cut_stuck()
        self._down.wait(_CLOSE_S)
        while not self._down.wait(_ACTIVITY_S):
            self._connections.cut_all()

    def _show(self, page: ServerConnection) -> None:
        """Feed one page, in a thread of its own."""
        from websockets.exceptions import ConnectionClosed

        waiting: Mailbox[str] = Mailbox(_QUEUED)
        with self._lock:
            full = len(self._pages) >= _MAX_PAGES
            if not full:
                for message in (self._hello, *self._history):
                    waiting.put(message, droppable=False)
                self._pages.add(waiting)
        if full:
            with self._connections.sending(page):
                page.close(1013, f"{_MAX_PAGES} pages are open already")
            return
        try:
            while not self._closed.is_set():
                next_message = waiting.get(_ACTIVITY_S)
                if next_message is not None:
                    with self._connections.sending(page):
                        page.send(next_message)
                with contextlib.suppress(TimeoutError):
                    page.recv(0)  # nothing is expected; this notices a page that has closed
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                self._pages.discard(waiting)

    def _answer(self, page: ServerConnection, request: Request) -> Response | None:
        """Answer what is no WebSocket, and refuse who must not look; None opens the WebSocket."""
        asked = urlsplit(request.path)
        refused = self._refusal(request, parse_qs(asked.query))
        if refused:
            return _response(403, "text/plain; charset=utf-8", refused + "\n")
        if asked.path == "/events":
            return None
        if asked.path not in _PAGES:
            return _response(404, "text/plain; charset=utf-8", "no such page\n")
        file, kind = _PAGES[asked.path]
        return _response(200, kind, files("edgeser.web").joinpath(file).read_text(encoding="utf-8"))

    def _refusal(self, request: Request, query: dict[str, list[str]]) -> str:
        """Return why a request is refused, or nothing."""
        # Another site's page may send requests here, and read a WebSocket: its Origin, or (with a name that leads
        # here) its Host, gives it away.
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"this page does not answer to {origin}"
        if self._local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return f"this page is not {host}"
        given = query.get("token", [""])[0]
        wants_data = urlsplit(request.path).path in ("/", "/events")  # style and script are no secret
        if self._token and wants_data and not hmac.compare_digest(given.encode(), self._token.encode()):
            return "a token is required: open the address that `edgeser serve` has printed"
        return ""


def is_loopback(host: str) -> bool:
    """Return whether an address or name reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reachable(host: str) -> str:
    """Return the host to put into a URL."""
    if host in ("", "0.0.0.0", "::"):  # every address of this machine; its name is one that others may know
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _response(status: int, kind: str, body: str) -> Response:
    from http import HTTPStatus

    from websockets.datastructures import Headers
    from websockets.http11 import Response

    content = body.encode()
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close", **_HEADERS})
    return Response(status, HTTPStatus(status).phrase, headers, content)
