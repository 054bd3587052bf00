"""The web view over real sockets: who may look, and what they see."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection
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
from edgeser.web.server import is_loopback

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
    return connect(f"ws://127.0.0.1:{view.port}/events{query}", **options)


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
