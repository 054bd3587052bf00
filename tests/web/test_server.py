"""The web view over real sockets: who may look, and what they see."""

from __future__ import annotations

import contextlib
import json
import select
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET, create_connection
from socket import socket as Socket
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import edgeser
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.streams import Activity, Event
from edgeser.web import WebView
from edgeser.web.server import SILENT_S, is_loopback

LABELS = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def event(clips: list[Path]) -> Event:
    """What the default bundle says of a real clip."""
    with edgeser.Runtime.load(engine="onnxruntime", asr="none") as runtime, runtime.open_stream() as stream:
        stream.push(np.concatenate([load_audio(clips[2]), np.zeros(SAMPLE_RATE, np.float32)]), wait=True)
        stream.end()
        (only,) = stream
    return only


def activity() -> Activity:
    return Activity(-20.0, 0.75, True)


@pytest.fixture
def view() -> Iterator[WebView]:
    made = WebView(LABELS, "test", activity, port=0)
    yield made
    made.close()


def fetch(view: WebView, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{view.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def socket(view: WebView, query: str = "", **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{view.port}/events{query}", close_timeout=0.2, **options)


def receive(page: ClientConnection, *kinds: str) -> dict[str, Any]:
    """Return the next message of a kind."""
    while True:
        message: dict[str, Any] = json.loads(page.recv(5))
        if message["type"] in kinds:
            return message


def test_page_is_whole_and_loads_nothing_from_elsewhere(view: WebView) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, body, headers = fetch(view, path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "http:" not in body.replace('"http:"', "")
        assert "https:" not in body.replace('"https:"', "")
    assert fetch(view, "/../server.py")[0] == 404
    assert fetch(view, "/favicon.ico")[0] == 404


def test_events_reach_pages_old_and_new(view: WebView, event: Event) -> None:
    with socket(view) as early:
        assert receive(early, "hello")["labels"] == list(LABELS)
        view.show(event)
        shown = receive(early, "event")
        assert shown["label"] == event.label
        assert shown["p_sad"] == pytest.approx(event.result.probabilities["sad"], abs=1e-6)
        assert receive(early, "activity") == {"type": "activity", "level_dbfs": -20.0, "voice": 0.75, "speaking": True}
        view.end("the engine broke")
        assert receive(early, "end")["why"] == "the engine broke"
        with socket(view) as late:
            assert receive(late, "hello", "event")["type"] == "hello"
            assert receive(late, "event") == shown
            assert receive(late, "end")["why"] == "the engine broke"


def test_another_site_cannot_listen_in(view: WebView) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        socket(view, origin="https://example.org")
    with pytest.raises(InvalidStatus, match="403"):  # a name that leads here, from a page of that name
        connect(
            f"ws://rebound.example:{view.port}/events",
            sock=create_connection(("127.0.0.1", view.port)),
            origin=f"http://rebound.example:{view.port}",
        )
    assert fetch(view, "/", Host="rebound.example")[0] == 403
    with socket(view, origin=f"http://127.0.0.1:{view.port}") as page:
        assert receive(page, "hello")["title"] == "test"


@pytest.mark.parametrize("token", [None, "correct horse & battery"])
def test_other_machines_need_the_token(token: str | None) -> None:
    view = WebView(LABELS, "test", activity, port=0, host="0.0.0.0", token=token)
    try:
        query = view.url[view.url.index("?") :]
        assert len(query) > len("?token=") + 16
        assert fetch(view, "/")[0] == 403
        assert fetch(view, "/?token=wrong-token")[0] == 403
        assert fetch(view, "/?token=%ff")[0] == 403
        assert fetch(view, f"/{query}")[0] == 200
        for wrong in ("", "?token=", query[:-1]):
            with pytest.raises(InvalidStatus, match="403"):
                socket(view, wrong)
        with socket(view, query) as page:
            assert receive(page, "hello")
    finally:
        view.close()


def test_a_page_that_does_not_read_holds_up_nobody(view: WebView, event: Event) -> None:
    with socket(view, max_queue=1) as deaf, socket(view) as page:
        receive(page, "hello")
        for _ in range(2000):
            view.show(event)
        view.end()
        assert receive(page, "end")
        assert deaf


def test_closes_at_once_with_pages_open(view: WebView) -> None:
    before = set(threading.enumerate())
    with socket(view) as page:
        receive(page, "activity")
        view.close()
        with pytest.raises(ConnectionClosed):
            receive(page, "nothing of this kind")
    left = [t for t in threading.enumerate() if t not in before and t.name == "edgeser-web" and t.is_alive()]
    assert not left


def raw(view: WebView, request: str = "") -> Socket:
    """Connect as a client that will never read; its buffer is small, so that what is sent to it soon waits."""
    client = Socket()
    client.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", view.port))
    client.sendall(request.encode())
    return client


def upgrade(view: WebView) -> str:
    return (
        f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


@pytest.fixture
def deaf(view: WebView) -> Iterator[list[Socket]]:
    """31 pages that have asked for Events and never read."""
    clients = [raw(view, upgrade(view)) for _ in range(31)]
    wait_until(lambda: len(view._pages) == 31)
    yield clients
    for client in clients:
        client.close()


def wait_until(true: Callable[[], bool], hang_s: float = 30.0) -> None:
    """Wait for what comes within seconds, unless something hangs."""
    end = time.monotonic() + hang_s
    while not true():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.05)


def long_event(event: Event) -> Event:
    return replace(event, result=replace(event.result, transcript="word " * 4_000))


@pytest.mark.parametrize("talks", [True, False], ids=["full buffers", "empty buffers"])
def test_pages_that_never_read_give_their_places_up(
    view: WebView, deaf: list[Socket], event: Event, talks: bool
) -> None:
    for _ in range(200 if talks else 0):
        view.show(long_event(event))
        time.sleep(0.005)
    wait_until(lambda: not view._pages)
    with contextlib.ExitStack() as pages:
        for _ in range(32):
            assert receive(pages.enter_context(socket(view)), "hello")


def test_a_page_that_reads_is_kept(view: WebView) -> None:
    with socket(view) as page:
        end = time.monotonic() + 2 * SILENT_S + 2
        while time.monotonic() < end:
            receive(page, "activity")


def test_closes_at_once_with_pages_that_never_read(view: WebView, deaf: list[Socket], event: Event) -> None:
    asked_nothing = [raw(view) for _ in range(8)] + [raw(view, "GET / HT") for _ in range(8)]
    for _ in range(200):
        view.show(long_event(event))
        time.sleep(0.005)
    started = time.monotonic()
    view.close()
    assert time.monotonic() - started < 10  # one second; it was for ever
    for client in (*deaf, *asked_nothing):
        client.close()


def test_connections_that_ask_nothing_do_not_pile_up(view: WebView) -> None:
    clients = [raw(view) for _ in range(100)]
    wait_until(lambda: len(select.select(clients, [], [], 0)[0]) >= 100 - 64)  # closed: that is all they can read
    wait_until(lambda: fetch_or_none(view) == 200)  # those that ask nothing are closed after a while
    for client in clients:
        client.close()


def fetch_or_none(view: WebView) -> int | None:
    try:
        return fetch(view, "/")[0]
    except OSError:
        return None


def test_long_messages_to_the_server_end_the_connection(view: WebView) -> None:
    with socket(view) as page:
        page.send("x" * 100_000)
        with pytest.raises(ConnectionClosed, match="1009"):
            receive(page, "nothing of this kind")


def test_bad_addresses_are_one_line(view: WebView) -> None:
    for options in ({"port": view.port}, {"port": 70000}, {"port": 0, "host": "203.0.113.7"}):
        with pytest.raises(InputError, match="choose another"):
            WebView(LABELS, "test", activity, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 8"):
        WebView(LABELS, "test", activity, port=0, token="short")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.8.8", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
